//! Operators: which there are, what type a literal beside them has, and what they compute.

use arrow::array::AsArray;
use arrow_schema::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::{BinaryExpr, InList, Placeholder};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, Join, Operator, binary_expr, cast};
use millpond_common::{Error, SqlState, SqlType};
use sqlparser::ast::BinaryOperator;

use super::casts::{literal_as, quoted};
use super::number;
use crate::functions::{self, external};
use crate::types::Family;

/// A comparison with its constant on the right: DataFusion takes `'x' = k` in an outer join's ON for one with the other side.
pub(super) fn constant_last(expr: Expr) -> DfResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if left.column_refs().is_empty() && !right.column_refs().is_empty() => {
            match op.swap() {
                Some(swapped) => Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right, swapped, left))),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right))),
            }
        }
        other => Transformed::no(other),
    })
}

/// Applies the rules for operators while names are resolved: DataFusion checks types as it goes.
#[derive(Debug)]
pub struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as B;
        let op = match expr.op {
            B::Plus => Operator::Plus,
            B::Minus => Operator::Minus,
            B::Multiply => Operator::Multiply,
            B::Divide => Operator::Divide,
            B::Modulo => Operator::Modulo,
            B::StringConcat => Operator::StringConcat,
            B::Eq => Operator::Eq,
            B::NotEq => Operator::NotEq,
            B::Lt => Operator::Lt,
            B::LtEq => Operator::LtEq,
            B::Gt => Operator::Gt,
            B::GtEq => Operator::GtEq,
            _ => return json(expr, schema),
        };
        // A parameter's type is inferred from the other side, which only DataFusion's own planner does.
        if matches!(expr.left, Expr::Placeholder(_)) || matches!(expr.right, Expr::Placeholder(_)) {
            return Ok(PlannerResult::Original(expr));
        }
        // Arrays are DataFusion's to join.
        let is_list = |e: &Expr| matches!(type_of(e, schema), Some(SqlType::Array(_) | SqlType::Bytea));
        if op == Operator::StringConcat && (is_list(&expr.left) || is_list(&expr.right)) {
            return Ok(PlannerResult::Original(expr));
        }
        let narrow = |e: Expr| match e {
            Expr::Literal(value, metadata) => Expr::Literal(number(value), metadata),
            other => other,
        };
        let plain = binary_expr(expr.left.clone(), op, expr.right.clone());
        let (left, right) = (narrow(expr.left.clone()), narrow(expr.right.clone()));
        let own = operator(BinaryExpr::new(Box::new(left), op, Box::new(right)), schema)?;
        Ok(if own == plain { PlannerResult::Original(expr) } else { PlannerResult::Planned(own) })
    }

    fn plan_extract(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(functions::call(functions::extract(), args)))
    }
}

/// The operators of json and jsonb.
fn json(expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
    use BinaryOperator as B;
    let is_json = |e: &Expr| type_of(e, schema).is_some_and(|t| Family::of(&t) == Family::Json);
    let function = match &expr.op {
        B::Arrow => functions::json_get(),
        B::LongArrow => functions::json_get_text(),
        B::HashArrow => functions::json_path(),
        B::HashLongArrow => functions::json_path_text(),
        B::Question => functions::json_exists(),
        B::AtArrow | B::ArrowAt => functions::json_contains(),
        _ => return Ok(PlannerResult::Original(expr)),
    };
    if !is_json(&expr.left) && !is_json(&expr.right) {
        return match expr.op {
            // Arrays have these, too.
            B::AtArrow | B::ArrowAt => Ok(PlannerResult::Original(expr)),
            _ => Err(undefined(&expr.op.to_string(), type_of(&expr.left, schema).as_ref(), type_of(&expr.right, schema).as_ref())),
        };
    }
    let texts = SqlType::Array(Box::new(SqlType::Text));
    let (left, right) = match expr.op {
        B::HashArrow | B::HashLongArrow => {
            let right = match quoted(&expr.right) {
                Some(path) => functions::literal(path, &texts).map_err(external)?,
                None => parameter(expr.right, texts),
            };
            (expr.left, right)
        }
        B::AtArrow => (expr.left, parameter(literal_as(expr.right, &SqlType::Jsonb)?, SqlType::Jsonb)),
        B::ArrowAt => (expr.right, parameter(literal_as(expr.left, &SqlType::Jsonb)?, SqlType::Jsonb)),
        _ => (expr.left, parameter(expr.right, SqlType::Text)),
    };
    Ok(PlannerResult::Planned(functions::call(function, vec![left, right])))
}

/// A parameter without a type, with one.
fn parameter(expr: Expr, of: SqlType) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Expr::Placeholder(Placeholder { id, field: Some(std::sync::Arc::new(of.field("parameter", true))) })
        }
        other => other,
    }
}

/// An expression's type, where it has one: bare NULL and parameters do not.
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    if matches!(expr, Expr::Placeholder(Placeholder { field: None, .. })) {
        return None;
    }
    let (_, field) = expr.to_field(schema).ok()?;
    (field.data_type() != &DataType::Null).then(|| SqlType::of(&field))
}

/// What an operator computes.
pub(super) fn operator(BinaryExpr { left, op, right }: BinaryExpr, schema: &DFSchema) -> DfResult<Expr> {
    let (mut left, mut right) = (*left, *right);
    let arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo);
    if arithmetic {
        if quoted(&left).is_some() {
            left = operand(left, type_of(&right, schema), op)?;
        } else if quoted(&right).is_some() {
            right = operand(right, type_of(&left, schema), op)?;
        }
        (left, right) = as_floats(left, right, schema)?;
    } else if is_comparison(op) {
        (left, right) = compared(left, right, op, schema)?;
        if is_interval(&left, schema) && is_interval(&right, schema) {
            (left, right) = (ordered(left), ordered(right));
        }
    }
    let (Some(l), Some(r)) = (type_of(&left, schema), type_of(&right, schema)) else { return Ok(binary_expr(left, op, right)) };
    use Family as F;
    use Operator as O;
    use SqlType as S;
    let is_float = |t: &SqlType| matches!(t, S::Real | S::Double);
    let is_integer = |t: &SqlType| t.arrow().is_integer();
    Ok(match (op, &l, &r) {
        (O::StringConcat, l, r) => concat(left, right, l, r)?,
        (O::Divide, l, r) if is_float(l) && F::of(r) == F::Number || is_float(r) && F::of(l) == F::Number => {
            // Divided by a constant, it cannot fail.
            if nonzero(&right) { binary_expr(left, op, right) } else { functions::call(functions::float_divide(), vec![left, right]) }
        }
        (O::Divide, S::Numeric { .. }, other) | (O::Divide, other, S::Numeric { .. }) if F::of(other) == F::Number => {
            functions::call(functions::numeric_divide(), vec![left, right])
        }
        (O::Multiply, S::Interval, n) if F::of(n) == F::Number => functions::call(functions::interval_multiply(), vec![left, right]),
        (O::Multiply, n, S::Interval) if F::of(n) == F::Number => functions::call(functions::interval_multiply(), vec![right, left]),
        (O::Divide, S::Interval, n) if F::of(n) == F::Number => functions::call(functions::interval_divide(), vec![left, right]),
        (O::Plus | O::Minus, S::Date, n) if is_integer(n) => days(left, op, right),
        (O::Plus, n, S::Date) if is_integer(n) => days(right, op, left),
        (O::Minus, S::Date, S::Date) => binary_expr(cast(left, DataType::Int32), O::Minus, cast(right, DataType::Int32)),
        (O::Plus | O::Minus, S::Date, S::Interval) => binary_expr(cast(left, DataType::Timestamp(TimeUnit::Microsecond, None)), op, right),
        (O::Minus, l, r) if F::of(l) == F::Date && F::of(r) == F::Date => {
            functions::call(functions::timestamp_subtract(), vec![left, right])
        }
        (O::Plus | O::Minus | O::Multiply, a, b) if is_integer(a) && is_integer(b) && is_constant(&left)? && is_constant(&right)? => {
            // DataFusion would compute it while planning, and wrap around.
            let common = if a.arrow().size() >= b.arrow().size() { a.arrow() } else { b.arrow() };
            let wide = |e: Expr, of: &SqlType| if of.arrow() == common { e } else { cast(e, common.clone()) };
            let (left, right) = (wide(left, a), wide(right, b));
            functions::checked(left.clone(), op, right.clone()).unwrap_or_else(|| binary_expr(left, op, right))
        }
        _ => binary_expr(left, op, right),
    })
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

/// Two expressions that can be compared: a quoted literal has the other one's type.
pub(super) fn compared(left: Expr, right: Expr, op: Operator, schema: &DFSchema) -> DfResult<(Expr, Expr)> {
    let (l, r) = (type_of(&left, schema), type_of(&right, schema));
    match (quoted(&left).is_some(), quoted(&right).is_some(), &l, &r) {
        (true, false, _, Some(r)) => Ok((literal_as(left, r)?, right)),
        (false, true, Some(l), _) => {
            let right = literal_as(right, l)?;
            Ok((left, right))
        }
        (false, false, Some(a), Some(b)) if Family::of(a) != Family::of(b) || (a == &SqlType::Json && b == &SqlType::Json) => {
            let symbol = match op {
                Operator::NotEq => "<>".to_string(),
                Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => "=".to_string(),
                other => other.to_string(),
            };
            Err(undefined(&symbol, l.as_ref(), r.as_ref()))
        }
        _ => as_floats(left, right, schema),
    }
}

/// A floating-point number and a number of another type: both in double precision, the only type that has operators for both.
fn as_floats(left: Expr, right: Expr, schema: &DFSchema) -> DfResult<(Expr, Expr)> {
    let (Some(l), Some(r)) = (type_of(&left, schema), type_of(&right, schema)) else { return Ok((left, right)) };
    let is_float = |t: &SqlType| matches!(t, SqlType::Real | SqlType::Double);
    let numbers = Family::of(&l) == Family::Number && Family::of(&r) == Family::Number;
    if l == r || !numbers || !is_float(&l) && !is_float(&r) {
        return Ok((left, right));
    }
    Ok((as_float(left, &l, &SqlType::Double)?, as_float(right, &r, &SqlType::Double)?))
}

/// A join whose pairs of keys (of USING, or of INTERSECT) can be compared.
pub(super) fn equal_keys(mut join: Join) -> DfResult<Join> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let mut both = left.as_ref().clone();
    both.merge(right);
    for (l, r) in &mut join.on {
        (*l, *r) = as_floats(std::mem::take(l), std::mem::take(r), &both)?;
        if is_interval(l, left) && is_interval(r, right) {
            (*l, *r) = (ordered(std::mem::take(l)), ordered(std::mem::take(r)));
        }
    }
    Ok(join)
}

/// A number of a type as one of a floating-point type.
pub(super) fn as_float(expr: Expr, of: &SqlType, to: &SqlType) -> DfResult<Expr> {
    match expr {
        expr if of == to => Ok(expr),
        // The nearest one to what is written; the quotient of digits and a power of ten may not be.
        Expr::Literal(value @ ScalarValue::Decimal128(Some(_), ..), _) => {
            let text = value.to_array()?;
            let text = arrow::compute::cast(&text, &DataType::Utf8)?;
            functions::literal(text.as_string::<i32>().value(0), to).map_err(external)
        }
        Expr::Literal(value, metadata) if value.data_type().is_integer() => Ok(Expr::Literal(value.cast_to(&to.arrow())?, metadata)),
        expr => Ok(cast(expr, to.arrow())),
    }
}

/// Arrow compares intervals by their months first, then by their days: a day is more than 36 hours there.
pub(super) fn ordered(interval: Expr) -> Expr {
    functions::call(functions::interval_order(), vec![interval])
}

pub(super) fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    type_of(expr, schema) == Some(SqlType::Interval)
}

/// `expr IN (…)`
pub(super) fn in_list(InList { expr, list, negated }: InList, schema: &DFSchema) -> DfResult<Expr> {
    let mut expr = *expr;
    let mut typed = Vec::with_capacity(list.len());
    for item in list {
        let (left, item) = compared(expr, item, Operator::Eq, schema)?;
        expr = left;
        typed.push(item);
    }
    if is_interval(&expr, schema) && typed.iter().all(|e| is_interval(e, schema)) {
        (expr, typed) = (ordered(expr), typed.into_iter().map(ordered).collect());
    }
    Ok(Expr::InList(InList { expr: Box::new(expr), list: typed, negated }))
}

/// `expr BETWEEN low AND high`
pub(super) fn between(Between { expr, negated, low, high }: Between, schema: &DFSchema) -> DfResult<Expr> {
    let (expr, mut low) = compared(*expr, *low, Operator::GtEq, schema)?;
    let (mut expr, mut high) = compared(expr, *high, Operator::LtEq, schema)?;
    if [&expr, &low, &high].into_iter().all(|e| is_interval(e, schema)) {
        (expr, low, high) = (ordered(expr), ordered(low), ordered(high));
    }
    Ok(Expr::Between(Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) }))
}

/// `operator does not exist: text = integer`
fn undefined(op: &str, left: Option<&SqlType>, right: Option<&SqlType>) -> DataFusionError {
    let name = |t: Option<&SqlType>| match t {
        None => "unknown".to_string(),
        Some(SqlType::Numeric { .. }) => "numeric".into(),
        Some(SqlType::Varchar(_)) => "character varying".into(),
        Some(t) => t.name(),
    };
    let message = format!("operator does not exist: {} {op} {}", name(left), name(right));
    external(
        Error::new(SqlState::UNDEFINED_FUNCTION, message)
            .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts."),
    )
}

/// A quoted literal beside an operand of a type.
fn operand(literal: Expr, other: Option<SqlType>, op: Operator) -> DfResult<Expr> {
    match other {
        Some(SqlType::Timestamp | SqlType::TimestampTz | SqlType::Date) if op == Operator::Plus => literal_as(literal, &SqlType::Interval),
        Some(SqlType::Interval) if matches!(op, Operator::Multiply | Operator::Divide) => literal_as(literal, &SqlType::Double),
        Some(other) => literal_as(literal, &other),
        None => Ok(literal),
    }
}

/// `||` of texts takes other values as they print.
fn concat(left: Expr, right: Expr, l: &SqlType, r: &SqlType) -> DfResult<Expr> {
    let printed = |e: Expr, of: &SqlType| if Family::of(of) == Family::Text { e } else { functions::to_text(e) };
    match (Family::of(l), Family::of(r)) {
        (Family::Array | Family::Bytes, _) | (_, Family::Array | Family::Bytes) => Ok(binary_expr(left, Operator::StringConcat, right)),
        (Family::Text, _) | (_, Family::Text) => Ok(functions::call(functions::textcat(), vec![printed(left, l), printed(right, r)])),
        _ => Err(undefined("||", Some(l), Some(r))),
    }
}

fn nonzero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(v)), _) => *v != 0.0,
        Expr::Literal(ScalarValue::Decimal128(Some(v), ..), _) => *v != 0,
        Expr::Literal(ScalarValue::Int32(Some(v)), _) => *v != 0,
        Expr::Literal(ScalarValue::Int64(Some(v)), _) => *v != 0,
        _ => false,
    }
}

/// Whether an expression has the same value for every row and every execution.
fn is_constant(expr: &Expr) -> DfResult<bool> {
    let mut constant = true;
    expr.apply(|e| {
        constant &= matches!(e, Expr::Literal(..) | Expr::Cast(_) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::ScalarFunction(_));
        constant &= !e.is_volatile_node();
        Ok(if constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(constant)
}

/// `-expr`, checked where it is an integer.
pub(super) fn negative(inner: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let Some(of) = type_of(&inner, schema).filter(|t| t.arrow().is_integer()) else { return Ok(Expr::Negative(Box::new(inner))) };
    let zero = Expr::Literal(ScalarValue::new_zero(&of.arrow())?, None);
    Ok(functions::checked(zero, Operator::Minus, inner.clone()).unwrap_or_else(|| Expr::Negative(Box::new(inner))))
}

fn days(date: Expr, op: Operator, days: Expr) -> Expr {
    cast(binary_expr(cast(date, DataType::Int32), op, cast(days, DataType::Int32)), DataType::Date32)
}
