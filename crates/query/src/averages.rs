//! `avg` of integers and numerics in a query that is computed at once: DataFusion cuts off what its scale has no room for; PostgreSQL
//! and our views round. So it gets one digit more, which is rounded away after it.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, cast};

/// The plan with averages that are rounded.
pub(crate) fn rounded(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => round_in(aggregate),
        other => Ok(Transformed::no(other)),
    });
    Ok(changed?.data)
}

fn round_in(aggregate: Aggregate) -> DfResult<Transformed<LogicalPlan>> {
    let longer = aggregate.aggr_expr.iter().map(|expr| longer(expr, aggregate.input.schema())).collect::<DfResult<Vec<_>>>()?;
    if longer.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let exprs = longer.into_iter().zip(aggr_expr).map(|(longer, expr)| longer.unwrap_or(expr)).collect();
    let aggregate = Aggregate::try_new(input, group_expr, exprs)?;
    let columns = aggregate.schema.iter().zip(schema.iter()).map(|((qualifier, field), (qualifier_before, before))| {
        let column = Expr::Column(Column::from((qualifier, field)));
        if field.data_type() == before.data_type() {
            return column;
        }
        cast(column, before.data_type().clone()).alias_qualified(qualifier_before.cloned(), before.name())
    });
    let columns = columns.collect();
    let projection = Projection::try_new_with_schema(columns, Arc::new(LogicalPlan::Aggregate(aggregate)), schema)?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// An average of decimals with one digit more; `None`: it is not one.
fn longer(expr: &Expr, input: &DFSchema) -> DfResult<Option<Expr>> {
    let Expr::AggregateFunction(function) = expr.clone().unalias() else { return Ok(None) };
    let [arg] = function.params.args.as_slice() else { return Ok(None) };
    let DataType::Decimal128(precision, scale) = arg.get_type(input)? else { return Ok(None) };
    if function.func.name() != "avg" {
        return Ok(None);
    }
    // DataFusion's average has four digits more than what it is of, on both sides.
    let longer = match precision <= 33 && scale <= 33 {
        true => DataType::Decimal128(precision + 1, scale + 1),
        false => DataType::Decimal256(precision + 1, scale + 1),
    };
    let mut params = function.params.clone();
    params.args = vec![cast(arg.clone(), longer)];
    Ok(Some(Expr::AggregateFunction(AggregateFunction { params, ..function })))
}
