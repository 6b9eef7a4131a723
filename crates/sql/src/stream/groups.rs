//! Aggregates: their arguments become columns of a projection below.

use std::sync::Arc;

use arrow_schema::{Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use millpond_common::Result;
use millpond_plan::{AggregateCall, AggregateFunction};

use super::builder::{as_column, carried, carried_schema};
use super::expressions::{Scope, strip};
use super::{Translator, unsupported};
use crate::error::from_datafusion;

const HINT: &str = "Use count, sum, avg, min or max.";

impl Translator<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<usize> {
        let input = self.node(&aggregate.input)?;
        let input_schema = aggregate.input.schema();
        let scope = Scope::over(&self.builder, input, input_schema);
        let mut columns: Vec<(Expr, arrow_schema::DataType)> = Vec::new();
        let mut place = |expr: &Expr| -> Result<usize> {
            let data_type = carried(&strip(expr).get_type(input_schema.as_ref()).map_err(from_datafusion)?);
            let converted = scope.convert(expr)?;
            let found = columns.iter().position(|(e, t)| *e == converted && *t == data_type);
            Ok(found.unwrap_or_else(|| {
                columns.push((converted, data_type));
                columns.len() - 1
            }))
        };
        let mut group = Vec::new();
        for expr in &aggregate.group_expr {
            if matches!(strip(expr), Expr::GroupingSet(_)) {
                return Err(unsupported("GROUPING SETS, ROLLUP and CUBE", "Use one view for each grouping, or UNION ALL of them."));
            }
            group.push(place(expr)?);
        }
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            let Expr::AggregateFunction(call) = strip(expr) else {
                return Err(unsupported(format!("aggregate {expr}"), HINT));
            };
            let name = call.func.name().to_ascii_lowercase();
            let function = match name.as_str() {
                "count" => AggregateFunction::Count,
                "sum" => AggregateFunction::Sum,
                "avg" | "mean" => AggregateFunction::Avg,
                "min" => AggregateFunction::Min,
                "max" => AggregateFunction::Max,
                _ => return Err(unsupported(format!("aggregate {name}()"), HINT)),
            };
            let argument = match call.params.args.as_slice() {
                [one] => match strip(one) {
                    Expr::Literal(value, _) if function == AggregateFunction::Count && *value != ScalarValue::Null && !value.is_null() => None,
                    _ => Some(place(one)?),
                },
                [] => None,
                _ => return Err(unsupported(format!("aggregate {name}() of several arguments"), HINT)),
            };
            let filter = call.params.filter.as_deref().map(&mut place).transpose()?;
            // Order and the treatment of NULL do not matter to these functions.
            calls.push(AggregateCall { function, argument, distinct: call.params.distinct && argument.is_some(), filter });
        }
        let schema = carried_schema(&aggregate.schema);
        let plain = columns.iter().map(|(e, _)| as_column(e)).collect::<Option<Vec<_>>>();
        let input = match plain {
            Some(positions) if !positions.is_empty() => {
                let at = |c: usize| positions.get(c).copied().unwrap_or(c);
                group.iter_mut().for_each(|g| *g = at(*g));
                for call in &mut calls {
                    call.argument = call.argument.map(at);
                    call.filter = call.filter.map(at);
                }
                input
            }
            Some(_) => input,
            None => self.builder.compute(input, columns),
        };
        if calls.is_empty() {
            let selected = self.builder.select(input, &group);
            let distinct = self.builder.distinct(selected);
            return self.builder.cast_to(distinct, &aggregate.schema);
        }
        Ok(self.builder.aggregate(input, group, calls, schema))
    }
}

impl super::builder::Builder {
    /// A projection to computed columns.
    pub(super) fn compute(&mut self, input: usize, columns: Vec<(Expr, arrow_schema::DataType)>) -> usize {
        let own = self.schema(input);
        let name = |at: usize, e: &Expr| match as_column(e).and_then(|c| own.fields().get(c)) {
            Some(field) => field.name().clone(),
            None => format!("value_{at}"),
        };
        let fields = columns.iter().enumerate().map(|(at, (e, t))| Field::new(name(at, e), carried(t), true)).collect::<Vec<_>>();
        let exprs = columns.into_iter().map(|(e, _)| e).collect();
        self.project_to(input, exprs, Arc::new(Schema::new(fields)))
    }
}
