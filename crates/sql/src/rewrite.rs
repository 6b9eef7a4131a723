//! What PostgreSQL means where DataFusion would mean something else. Runs on a bound plan, before DataFusion
//! coerces types, so that everything above follows.
//!
//! - a whole number is an integer where it fits one, not a bigint
//! - `sum(bigint)` and `avg` of exact numbers are numeric
//! - a quotient of numerics keeps 16 digits
//! - casts to uuid, json, jsonb and varchar(n) check their text; a cast to an integer rounds
//! - a quoted literal takes the type of the other side
//! - days are added to dates; the difference of timestamps is an interval

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Union, binary_expr, cast, lit};
use millpond_common::types::TYPE_KEY;
use millpond_common::{Error, SqlState, SqlType};

use crate::functions;

/// A bound plan with PostgreSQL's meaning.
pub fn postgres(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(node)?.data)
}

fn node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Limit(_) | LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Unnest(_) => {
            Ok(Transformed::no(plan))
        }
        LogicalPlan::Union(union) => {
            let inputs = union.inputs;
            Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
        }
        LogicalPlan::Values(values) => {
            let empty = DFSchema::empty();
            let rows = values.values.into_iter().map(|row| row.into_iter().map(|e| expression(e, &empty)).collect::<DfResult<Vec<_>>>());
            LogicalPlanBuilder::values(rows.collect::<DfResult<Vec<_>>>()?)?.build().map(Transformed::yes)
        }
        plan => {
            let mut schema = DFSchema::empty();
            for input in plan.inputs() {
                schema.merge(input.schema());
            }
            let preserver = NamePreserver::new(&plan);
            let sort = matches!(plan, LogicalPlan::Sort(_));
            plan.map_expressions(|e| {
                let name = preserver.save(&e);
                let new = expression(e, &schema)?;
                Ok(Transformed::yes(if sort { new } else { name.restore(new) }))
            })?
            .map_data(|p| p.recompute_schema())
        }
    }
}

/// An expression with PostgreSQL's meaning.
pub fn expression(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    Ok(expr.transform_up(|e| rewrite(e, schema))?.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::Literal(value, metadata) => Transformed::yes(Expr::Literal(number(value), metadata)),
        Expr::Cast(cast) => Transformed::yes(explicit_cast(cast, schema)?),
        Expr::BinaryExpr(binary) => Transformed::yes(operator(binary, schema)?),
        Expr::ScalarFunction(function) => Transformed::yes(scalar_function(function, schema)?),
        Expr::AggregateFunction(function) => Transformed::yes(aggregate(function, schema)?),
        Expr::WindowFunction(mut function) => {
            let args = std::mem::take(&mut function.params.args);
            function.params.args = args.into_iter().map(wide).collect();
            Transformed::yes(Expr::WindowFunction(function))
        }
        other => Transformed::no(other),
    })
}

/// A number literal in the type that PostgreSQL gives it.
fn number(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Int64(Some(n)) => match i32::try_from(n) {
            Ok(n) => ScalarValue::Int32(Some(n)),
            Err(_) => value,
        },
        ScalarValue::UInt64(Some(n)) => ScalarValue::Decimal128(Some(n.into()), 20, 0),
        // 1e3
        ScalarValue::Decimal128(Some(n), precision, scale) if scale < 0 => {
            let digits = scale.unsigned_abs();
            let shifted = 10i128.checked_pow(digits.into()).and_then(|p| n.checked_mul(p));
            match shifted.filter(|_| precision + digits <= 38) {
                Some(n) => ScalarValue::Decimal128(Some(n), precision + digits, 0),
                None => value,
            }
        }
        other => other,
    }
}

/// An integer literal as DataFusion's functions expect it.
fn wide(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int32(Some(n)), metadata) => Expr::Literal(ScalarValue::Int64(Some(n.into())), metadata),
        other => other,
    }
}

/// The functions whose result has the type of their arguments keep integers; the others get what they expect.
fn scalar_function(mut function: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    const POLYMORPHIC: [&str; 9] =
        ["coalesce", "greatest", "least", "nullif", "make_array", "abs", "nvl", "array_append", "array_position"];
    if function.func.name() == "mod"
        && let [a, b] = function.args.as_slice()
    {
        return Ok(binary_expr(a.clone(), Operator::Modulo, b.clone()));
    }
    if function.func.name() == "to_char"
        && let [_, Expr::Literal(ScalarValue::Utf8(Some(format)), _)] = function.args.as_mut_slice()
        && !format.contains('%')
    {
        *format = crate::functions::strftime(format);
    }
    if !POLYMORPHIC.contains(&function.func.name()) {
        function.args = function.args.into_iter().map(wide).collect();
    }
    // Rounding takes digits off a numeric's type, too.
    let rounded = match (function.func.name(), function.args.as_slice()) {
        ("round" | "trunc", [value, Expr::Literal(ScalarValue::Int64(Some(digits)), _)]) => Some((value, *digits)),
        ("round" | "trunc" | "ceil" | "floor", [value]) => Some((value, 0)),
        _ => None,
    };
    let target = match rounded.map(|(value, digits)| (value.get_type(schema), digits)) {
        Some((Ok(DataType::Decimal128(precision, scale)), digits)) if digits < i64::from(scale) => {
            // One more digit before the point: 9.9 becomes 10.
            let digits = digits.max(0) as i8;
            Some(DataType::Decimal128((precision - (scale - digits) as u8 + 1).min(38), digits))
        }
        _ => None,
    };
    let call = Expr::ScalarFunction(function);
    Ok(match target {
        Some(target) => cast(call, target),
        None => call,
    })
}

fn explicit_cast(Cast { expr, field }: Cast, schema: &DFSchema) -> DfResult<Expr> {
    let from = expr.get_type(schema)?;
    let text = |expr: Expr| if from == DataType::Utf8 { expr } else { cast(expr, DataType::Utf8) };
    if field.metadata().contains_key(TYPE_KEY) && from != DataType::Null {
        return Ok(match SqlType::of(&field) {
            SqlType::Uuid => functions::call(functions::to_uuid(), vec![text(*expr)]),
            SqlType::Json => functions::call(functions::to_json(), vec![text(*expr)]),
            SqlType::Jsonb => functions::call(functions::to_jsonb(), vec![text(*expr)]),
            SqlType::Varchar(Some(n)) => functions::call(functions::to_varchar(), vec![text(*expr), lit(i64::from(n))]),
            _ => with_nullability(*expr, field, schema)?,
        });
    }
    if field.data_type() == &DataType::Binary && from == DataType::Utf8 {
        return Ok(functions::call(functions::to_bytea(), vec![*expr]));
    }
    if field.data_type().is_integer() && !from.is_integer() {
        return Ok(integer_cast(*expr, &from, field.data_type().clone()));
    }
    if field.metadata().is_empty() {
        return Ok(cast(*expr, field.data_type().clone()));
    }
    with_nullability(*expr, field, schema)
}

/// A cast to a type with a name of its own. It is NULL where its operand is; a plan that says otherwise is refused later.
fn with_nullability(expr: Expr, field: FieldRef, schema: &DFSchema) -> DfResult<Expr> {
    let nullable = expr.nullable(schema)?;
    Ok(Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(field.as_ref().clone().with_nullable(nullable)))))
}

/// A number as an integer, rounded as PostgreSQL rounds.
pub(crate) fn integer_cast(expr: Expr, from: &DataType, to: DataType) -> Expr {
    match from {
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(_, 1..) => cast(functions_round(expr), to),
        _ => cast(expr, to),
    }
}

fn functions_round(expr: Expr) -> Expr {
    datafusion::functions::math::expr_fn::round(vec![expr])
}

/// Applies the rules for operators while names are resolved: DataFusion checks types as it goes.
#[derive(Debug)]
pub struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        use sqlparser::ast::BinaryOperator as B;
        let op = match expr.op {
            B::Plus => Operator::Plus,
            B::Minus => Operator::Minus,
            B::Multiply => Operator::Multiply,
            B::Divide => Operator::Divide,
            B::Modulo => Operator::Modulo,
            B::Eq => Operator::Eq,
            B::NotEq => Operator::NotEq,
            B::Lt => Operator::Lt,
            B::LtEq => Operator::LtEq,
            B::Gt => Operator::Gt,
            B::GtEq => Operator::GtEq,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // A parameter's type is inferred from the other side, which only DataFusion's own planner does.
        if matches!(expr.left, Expr::Placeholder(_)) || matches!(expr.right, Expr::Placeholder(_)) {
            return Ok(PlannerResult::Original(expr));
        }
        let plain = binary_expr(expr.left.clone(), op, expr.right.clone());
        let narrow = |e: Expr| match e {
            Expr::Literal(value, metadata) => Expr::Literal(number(value), metadata),
            other => other,
        };
        let (left, right) = (narrow(expr.left.clone()), narrow(expr.right.clone()));
        let own = operator(BinaryExpr::new(Box::new(left), op, Box::new(right)), schema)?;
        Ok(if own == plain { PlannerResult::Original(expr) } else { PlannerResult::Planned(own) })
    }
}

fn operator(BinaryExpr { left, op, right }: BinaryExpr, schema: &DFSchema) -> DfResult<Expr> {
    let known = |e: &Expr| e.get_type(schema).unwrap_or(DataType::Null);
    let (mut left, mut right) = (*left, *right);
    let arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo);
    let comparison = matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    );
    if arithmetic || comparison {
        let (l, r) = (known(&left), known(&right));
        if is_text_literal(&left) {
            left = literal_as(left, &r, op);
        } else if is_text_literal(&right) {
            right = literal_as(right, &l, op);
        }
    }
    let (l, r) = (known(&left), known(&right));
    let timestamp = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
    Ok(match (op, &l, &r) {
        (Operator::Divide, DataType::Decimal128(_, _), other) | (Operator::Divide, other, DataType::Decimal128(_, _))
            if other.is_integer() || matches!(other, DataType::Decimal128(_, _)) =>
        {
            functions::call(functions::numeric_divide(), vec![left, right])
        }
        (Operator::Plus | Operator::Minus, DataType::Date32, n) if n.is_integer() => days(left, op, right),
        (Operator::Plus, n, DataType::Date32) if n.is_integer() => days(right, op, left),
        (Operator::Minus, DataType::Date32, DataType::Date32) => {
            binary_expr(cast(left, DataType::Int32), Operator::Minus, cast(right, DataType::Int32))
        }
        (Operator::Plus | Operator::Minus, DataType::Date32, DataType::Interval(_)) => {
            binary_expr(cast(left, DataType::Timestamp(TimeUnit::Microsecond, None)), op, right)
        }
        (Operator::Minus, a, b) if timestamp(a) && timestamp(b) => functions::call(functions::timestamp_subtract(), vec![left, right]),
        (Operator::Plus | Operator::Minus | Operator::Multiply, a, b) if a.is_integer() && b.is_integer() => folded(left, op, right)?,
        _ => binary_expr(left, op, right),
    })
}

/// Constants are computed here: DataFusion's constant folding would wrap around.
fn folded(left: Expr, op: Operator, right: Expr) -> DfResult<Expr> {
    let value = |e: &Expr| match e {
        Expr::Literal(ScalarValue::Int16(Some(n)), _) => Some((i64::from(*n), 2)),
        Expr::Literal(ScalarValue::Int32(Some(n)), _) => Some((i64::from(*n), 4)),
        Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some((*n, 8)),
        _ => None,
    };
    let (Some((a, a_bytes)), Some((b, b_bytes))) = (value(&left), value(&right)) else { return Ok(binary_expr(left, op, right)) };
    let result = match op {
        Operator::Plus => a.checked_add(b),
        Operator::Minus => a.checked_sub(b),
        _ => a.checked_mul(b),
    };
    let (folded, name) = match a_bytes.max(b_bytes) {
        2 => (result.and_then(|r| i16::try_from(r).ok()).map(lit), "smallint"),
        4 => (result.and_then(|r| i32::try_from(r).ok()).map(lit), "integer"),
        _ => (result.map(lit), "bigint"),
    };
    folded.ok_or_else(|| functions::external(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))))
}

fn days(date: Expr, op: Operator, days: Expr) -> Expr {
    cast(binary_expr(cast(date, DataType::Int32), op, cast(days, DataType::Int32)), DataType::Date32)
}

fn is_text_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// A quoted literal beside a value of another type.
fn literal_as(literal: Expr, other: &DataType, op: Operator) -> Expr {
    match other {
        DataType::Timestamp(_, _) | DataType::Date32 if op == Operator::Plus => {
            cast(literal, DataType::Interval(IntervalUnit::MonthDayNano))
        }
        t if t.is_numeric()
            || matches!(
                t,
                DataType::Timestamp(_, _) | DataType::Date32 | DataType::Time64(_) | DataType::Boolean | DataType::Interval(_)
            ) =>
        {
            cast(literal, t.clone())
        }
        _ => literal,
    }
}

fn aggregate(mut function: AggregateFunction, schema: &DFSchema) -> DfResult<Expr> {
    let name = function.func.name().to_string();
    if !["sum", "avg", "min", "max", "array_agg"].contains(&name.as_str()) {
        let args = std::mem::take(&mut function.params.args);
        function.params.args = args.into_iter().map(wide).collect();
        return Ok(Expr::AggregateFunction(function));
    }
    let target = match (name.as_str(), function.params.args.as_slice()) {
        ("sum", [arg]) => match arg.get_type(schema)? {
            DataType::Int64 => Some(DataType::Decimal128(28, 0)),
            _ => None,
        },
        ("avg", [arg]) => match arg.get_type(schema)? {
            t if t.is_integer() => Some(DataType::Decimal128(31, 12)),
            DataType::Decimal128(p, s) if s < 12 && i16::from(p) + 12 - i16::from(s) <= 34 => {
                Some(DataType::Decimal128(p + (12 - s) as u8, 12))
            }
            _ => None,
        },
        _ => None,
    };
    if let Some(target) = target {
        let args = std::mem::take(&mut function.params.args);
        function.params.args = args.into_iter().map(|a| cast(a, target.clone())).collect();
    }
    Ok(Expr::AggregateFunction(function))
}
