//! Rows compared with rows, column by column: `(a, b) = (1, 2)`, `(a, b) < (1, 2)`, `(a, b) IN ((1, 2), (3, 4))`.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

/// Rewrites one comparison.
pub(super) fn rewrite(expr: &mut Expr) {
    let replacement = match expr {
        Expr::BinaryOp { left, op, right } => match (row(left), row(right)) {
            (Some(left), Some(right)) => compared(left, op, right),
            _ => None,
        },
        Expr::InList { expr: value, list, negated } => row(value).and_then(|value| {
            let equal = |item: &Expr| compared(value, &BinaryOperator::Eq, row(item)?);
            let any = list.iter().map(equal).collect::<Option<Vec<_>>>()?.into_iter().reduce(|a, b| joined(a, BinaryOperator::Or, b))?;
            let any = Expr::Nested(Box::new(any));
            Some(if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any })
        }),
        _ => None,
    };
    if let Some(replacement) = replacement {
        *expr = Expr::Nested(Box::new(replacement));
    }
}

fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(columns) if columns.len() > 1 => Some(columns),
        _ => None,
    }
}

/// `None`: the rows have not as many columns, or there is no such comparison; DataFusion says so.
fn compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    use BinaryOperator as B;
    if left.len() != right.len() {
        return None;
    }
    let column = |i: usize, op: B| Some(joined(left.get(i)?.clone(), op, right.get(i)?.clone()));
    let all = |op: B, join: B| {
        let columns = (0..left.len()).map(|i| column(i, op.clone())).collect::<Option<Vec<_>>>()?;
        columns.into_iter().reduce(|a, b| joined(a, join.clone(), b))
    };
    let strictly = match op {
        B::Eq => return all(B::Eq, B::And),
        B::NotEq => return all(B::NotEq, B::Or),
        B::Lt | B::LtEq => B::Lt,
        B::Gt | B::GtEq => B::Gt,
        _ => return None,
    };
    // By the first columns that differ; only the last ones may be equal.
    let last = column(left.len() - 1, op.clone())?;
    (0..left.len() - 1).rev().try_fold(last, |rest, i| {
        let equal = joined(column(i, B::Eq)?, B::And, rest);
        Some(joined(column(i, strictly.clone())?, B::Or, Expr::Nested(Box::new(equal))))
    })
}

fn joined(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let nested = |e: Expr| match e {
        e @ (Expr::BinaryOp { .. } | Expr::UnaryOp { .. }) => Expr::Nested(Box::new(e)),
        e => e,
    };
    Expr::BinaryOp { left: Box::new(nested(left)), op, right: Box::new(nested(right)) }
}
