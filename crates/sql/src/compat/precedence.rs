//! How far an operand reaches.

use sqlparser::ast::{BinaryOperator, Expr};

/// `a IS DISTINCT FROM b AND c` means `(a IS DISTINCT FROM b) AND c`; the parser takes all of `b AND c` for the operand.
pub fn distinct_from(expr: &mut Expr) {
    let (Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right)) = expr else { return };
    if !is_logical(right) {
        return;
    }
    let mut whole = std::mem::replace(&mut **right, Expr::Wildcard(sqlparser::ast::helpers::attached_token::AttachedToken::empty()));
    let test = expr.clone();
    let mut operand = &mut whole;
    while let Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, .. } = operand {
        operand = left;
    }
    let operand_taken = operand.clone();
    *operand = test;
    if let Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) = operand {
        **right = operand_taken;
    }
    *expr = whole;
}

fn is_logical(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

#[cfg(test)]
mod tests {
    use crate::parse::parse_expr;

    #[test]
    fn the_operand_ends_before_and_and_or() {
        for (text, meaning) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "(a IS NOT DISTINCT FROM b) OR (c AND d)"),
            ("a IS DISTINCT FROM b AND c IS DISTINCT FROM d AND e", "(a IS DISTINCT FROM b) AND (c IS DISTINCT FROM d) AND e"),
            ("x OR a IS DISTINCT FROM b + 1 OR y", "x OR (a IS DISTINCT FROM b + 1) OR y"),
            ("a IS DISTINCT FROM (b AND c)", "a IS DISTINCT FROM (b AND c)"),
        ] {
            // Without brackets that only group, both have one form: compared as sums of the same tests.
            let tests = |text: &str| {
                let expr = parse_expr(text).expect("it is an expression");
                let mut found = Vec::new();
                split(&expr, &mut found);
                found
            };
            assert_eq!(tests(text), tests(meaning), "{text}");
        }
    }

    fn split(expr: &sqlparser::ast::Expr, found: &mut Vec<String>) {
        use sqlparser::ast::Expr;
        match expr {
            Expr::BinaryOp { left, op, right } if super::is_logical(expr) => {
                split(left, found);
                found.push(op.to_string());
                split(right, found);
            }
            Expr::Nested(inner) => split(inner, found),
            other => found.push(other.to_string()),
        }
    }
}
