//! What PostgreSQL means where DataFusion would mean something else. Runs on a bound plan, before DataFusion
//! coerces types, so that everything above follows.
//!
//! - a whole number is an integer where it fits one, not a bigint
//! - [`calls`]: `sum(bigint)` and `avg` of exact numbers are numeric; what chooses among values wants them of one type
//! - [`casts`]: text is read and printed as the protocol does it; what has no cast is refused; a cast to an integer rounds
//! - [`operators`]: a quoted literal takes the type of the other side; types that do not compare are refused; a quotient of
//!   numerics keeps 16 digits; days are added to dates; the difference of timestamps has days; overflow is an error
//! - [`subqueries`]: IN and EXISTS with NULLs and of aggregates
//! - [`zones`]: timestamptz in the session's time zone (later: on the analyzed plan)

mod calls;
mod casts;
mod operators;
mod subqueries;
pub(crate) mod zones;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Union, WindowFunctionDefinition};

pub(crate) use casts::integer as integer_cast;
pub use operators::Operators;

/// A bound plan with PostgreSQL's meaning.
pub fn postgres(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(node)?.data)
}

fn node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    match plan {
        // Its numbers are bigint.
        LogicalPlan::Limit(_) => plan.map_expressions(|e| e.transform_up(calls::executable)),
        LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Unnest(_) => Ok(Transformed::no(plan)),
        LogicalPlan::Union(union) => {
            let inputs = calls::united(union.inputs)?;
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
            let (sort, join) = (matches!(plan, LogicalPlan::Sort(_)), matches!(plan, LogicalPlan::Join(_)));
            let filter = matches!(plan, LogicalPlan::Filter(_));
            let types = match &plan {
                LogicalPlan::Projection(projection) => calls::aggregated(&projection.input)?,
                _ => Vec::new(),
            };
            plan.map_expressions(|e| {
                let name = preserver.save(&e);
                let mut new = expression(e, &schema)?;
                if sort && operators::is_interval(&new, &schema) {
                    new = operators::ordered(new);
                }
                if filter {
                    new = subqueries::condition(new, &schema)?;
                }
                if !types.is_empty() {
                    new = new.transform_up(|e| Ok(Transformed::yes(calls::retagged(e, &types))))?.data;
                }
                if join {
                    new = new.transform_up(operators::constant_last)?.data;
                }
                Ok(Transformed::yes(if sort { new } else { name.restore(new) }))
            })?
            .map_data(|p| match p {
                LogicalPlan::Join(join) => LogicalPlan::Join(operators::equal_keys(join)?).recompute_schema(),
                other => other.recompute_schema(),
            })
        }
    }
}

/// An expression with PostgreSQL's meaning.
pub fn expression(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    Ok(expr.transform_up(|e| rewrite(e, schema))?.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(Transformed::yes(match expr {
        Expr::Literal(value, metadata) => Expr::Literal(number(value), metadata),
        Expr::Cast(cast) => casts::explicit(cast, schema)?,
        Expr::BinaryExpr(binary) => operators::operator(binary, schema)?,
        Expr::InList(list) => operators::in_list(list, schema)?,
        Expr::Between(between) => operators::between(between, schema)?,
        Expr::Negative(inner) => operators::negative(*inner, schema)?,
        Expr::Case(case) => calls::case(case, schema)?,
        Expr::ScalarFunction(function) => calls::scalar_function(function, schema)?,
        Expr::AggregateFunction(function) => calls::aggregate(function, schema)?,
        Expr::WindowFunction(mut function) => {
            function.params.args = match &function.fun {
                WindowFunctionDefinition::AggregateUDF(f) => calls::aggregate_args(f.name(), function.params.args, schema)?,
                WindowFunctionDefinition::WindowUDF(_) => function.params.args.into_iter().map(wide).collect(),
            };
            Expr::WindowFunction(function)
        }
        other => return Ok(Transformed::no(other)),
    }))
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
