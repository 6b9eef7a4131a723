//! GROUP BY.

use arrow_schema::Field;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use millpond_common::Result;
use millpond_plan::{AggregateCall, AggregateFunction, Operator, PlanExpr};

use super::build::{Builder, stream_field, stream_schema};
use super::expr::convert;
use super::not_yet;
use crate::error::from_datafusion;

impl Builder<'_> {
    /// The group columns, the arguments and the filters stand in a projection below where they are not plain columns.
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<usize> {
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(not_yet("GROUPING SETS, ROLLUP and CUBE", "Write one GROUP BY query for each set, and UNION ALL them."));
        }
        let schema = aggregate.input.schema();
        let mut exprs: Vec<PlanExpr> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        let mut add = |expr: &Expr| -> Result<usize> {
            let (_, field) = expr.to_field(schema.as_ref()).map_err(from_datafusion)?;
            exprs.push(convert(expr, schema, |c| c)?);
            fields.push(stream_field(&field));
            Ok(exprs.len() - 1)
        };
        let group = aggregate.group_expr.iter().map(&mut add).collect::<Result<Vec<_>>>()?;
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for expr in &aggregate.aggr_expr {
            let (function, params) = call(expr)?;
            let argument = match params.args.as_slice() {
                [Expr::Literal(value, _)] if function == AggregateFunction::Count && !value.is_null() && !params.distinct => None,
                [] if function == AggregateFunction::Count => None,
                [argument] => Some(add(argument)?),
                _ => return Err(not_yet("count of several arguments", "Count one column, or count(*).")),
            };
            let filter = params.filter.as_deref().map(&mut add).transpose()?;
            // DISTINCT changes neither the least nor the greatest value.
            let distinct = params.distinct && !matches!(function, AggregateFunction::Min | AggregateFunction::Max) && argument.is_some();
            calls.push(AggregateCall { function, argument, distinct, filter });
        }
        let input = self.build(&aggregate.input)?;
        let output = stream_schema(&aggregate.schema);
        let key = (0..group.len()).collect::<Vec<_>>();
        if calls.is_empty() {
            // GROUP BY without aggregates is DISTINCT.
            let projected = self.project(input, exprs, output)?;
            return Ok(self.distinct(projected));
        }
        let (input, group, calls) = self.arguments(input, exprs, &fields, group, calls)?;
        let key = (!key.is_empty()).then_some(key);
        Ok(self.push(Operator::Aggregate { group, calls }, vec![input], output, false, key))
    }

    /// Only what is grouped by or aggregated: other columns need not travel to the group's worker.
    fn arguments(
        &mut self,
        input: usize,
        exprs: Vec<PlanExpr>,
        fields: &[Field],
        group: Vec<usize>,
        calls: Vec<AggregateCall>,
    ) -> Result<(usize, Vec<usize>, Vec<AggregateCall>)> {
        let mut unique: Vec<PlanExpr> = Vec::new();
        let mut kept: Vec<Field> = Vec::new();
        let mut positions = Vec::with_capacity(exprs.len());
        for (expr, field) in exprs.into_iter().zip(fields) {
            let at = unique.iter().position(|e| *e == expr).unwrap_or_else(|| {
                unique.push(expr);
                kept.push(field.clone());
                unique.len() - 1
            });
            positions.push(at);
        }
        let place = |at: usize| positions.get(at).copied().unwrap_or(at);
        // count(*) alone: one column must remain to carry the rows.
        if unique.is_empty() {
            return Ok((input, group, calls));
        }
        let node = self.project(input, unique, std::sync::Arc::new(arrow_schema::Schema::new(kept)))?;
        let group = group.into_iter().map(place).collect();
        let calls =
            calls.into_iter().map(|c| AggregateCall { argument: c.argument.map(place), filter: c.filter.map(place), ..c }).collect();
        Ok((node, group, calls))
    }
}

fn call(expr: &Expr) -> Result<(AggregateFunction, &AggregateFunctionParams)> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::AggregateFunction(function) => {
            let kind = match function.func.name() {
                "count" => AggregateFunction::Count,
                "sum" => AggregateFunction::Sum,
                "avg" => AggregateFunction::Avg,
                "min" => AggregateFunction::Min,
                "max" => AggregateFunction::Max,
                other => {
                    return Err(not_yet(
                        format!("the aggregate function {other}"),
                        "count, sum, avg, min and max can be maintained; the others work when you select from the view.",
                    ));
                }
            };
            Ok((kind, &function.params))
        }
        Expr::Literal(ScalarValue::Null, _) => Err(not_yet("an aggregate of NULL", "Leave it out.")),
        other => Err(not_yet(format!("the aggregate {other}"), "Write the query in another way.")),
    }
}
