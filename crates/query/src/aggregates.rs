//! Aggregates of a query that is computed at once, where DataFusion's would give something else than PostgreSQL's and our views:
//!
//! - `avg` of numerics is cut off where its scale has no room: it gets one digit more, which is rounded away after it
//! - `sum` of long numerics wraps around: it is computed with twice as many digits, and too long a result is an error
//! - `min` and `max` of floating-point numbers by groups do not know NaN: they are computed over integers of the same order

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFunctionDefinition, cast};
use millpond_sql::functions::{float_order, order_float};

/// Sums of numerics with more digits could have more than a numeric has.
const SUM_DIGITS: u8 = 28;

/// The plan with aggregates that are exact.
pub(crate) fn exact(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| {
        let exact = match &node {
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => match all_exact(aggr_expr, input.schema())? {
                Some(exprs) => LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(input), group_expr.clone(), exprs)?),
                None => return Ok(Transformed::no(node)),
            },
            LogicalPlan::Window(Window { input, window_expr, .. }) => match all_exact(window_expr, input.schema())? {
                Some(exprs) => LogicalPlan::Window(Window::try_new(exprs, Arc::clone(input))?),
                None => return Ok(Transformed::no(node)),
            },
            _ => return Ok(Transformed::no(node)),
        };
        Ok(Transformed::yes(with_columns(exact, Arc::clone(node.schema()))?))
    });
    Ok(changed?.data)
}

/// A node with the columns that it had before its aggregates were made exact.
fn with_columns(node: LogicalPlan, before: DFSchemaRef) -> DfResult<LogicalPlan> {
    let columns = node.schema().iter().zip(before.iter()).map(|((qualifier, field), (qualifier_before, field_before))| {
        let column = Expr::Column(Column::from((qualifier, field)));
        let restored = match (field.data_type(), field_before.data_type()) {
            (of, before) if of == before => return column,
            (_, DataType::Float32 | DataType::Float64) => order_float().call(vec![column]),
            (_, before) => cast(column, before.clone()),
        };
        restored.alias_qualified(qualifier_before.cloned(), field_before.name())
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(columns, Arc::new(node), before)?))
}

/// The expressions, if another one is among them now.
fn all_exact(exprs: &[Expr], input: &DFSchema) -> DfResult<Option<Vec<Expr>>> {
    let exact = exprs.iter().map(|expr| exact_expr(expr, input)).collect::<DfResult<Vec<_>>>()?;
    let changed = exact.iter().any(Option::is_some);
    let all = exact.into_iter().zip(exprs).map(|(exact, expr)| exact.unwrap_or_else(|| expr.clone()));
    Ok(changed.then(|| all.collect()))
}

/// An aggregate over something else than before; `None`: it is exact as it is.
fn exact_expr(expr: &Expr, input: &DFSchema) -> DfResult<Option<Expr>> {
    Ok(match expr.clone().unalias() {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => match exact_args(func.name(), &params.args, input)? {
            Some(args) => {
                params.args = args;
                Some(Expr::AggregateFunction(AggregateFunction { func, params }))
            }
            None => None,
        },
        Expr::WindowFunction(window) => match &window.fun {
            WindowFunctionDefinition::AggregateUDF(func) => exact_args(func.name(), &window.params.args, input)?.map(|args| {
                let WindowFunction { fun, mut params } = *window;
                params.args = args;
                Expr::from(WindowFunction { fun, params })
            }),
            WindowFunctionDefinition::WindowUDF(_) => None,
        },
        _ => None,
    })
}

fn exact_args(name: &str, args: &[Expr], input: &DFSchema) -> DfResult<Option<Vec<Expr>>> {
    let [arg] = args else { return Ok(None) };
    let to = match (name, arg.get_type(input)?) {
        // DataFusion's average has four digits more than what it is of, on both sides.
        ("avg", DataType::Decimal128(precision, scale)) if precision <= 33 && scale <= 33 => DataType::Decimal128(precision + 1, scale + 1),
        ("avg", DataType::Decimal128(precision, scale)) => DataType::Decimal256(precision + 1, scale + 1),
        ("sum", DataType::Decimal128(precision, scale)) if precision > SUM_DIGITS => DataType::Decimal256(precision, scale),
        ("min" | "max", DataType::Float32 | DataType::Float64) => {
            return Ok(Some(vec![float_order().call(vec![arg.clone()])]));
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![cast(arg.clone(), to)]))
}
