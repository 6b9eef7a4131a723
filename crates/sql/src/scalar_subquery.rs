//! A scalar subquery gives one row at most: DataFusion joins with it, and so several rows of it would multiply those of the query.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow_schema::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::functions_aggregate::expr_fn::{count, first_value};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Subquery, Volatility, col, lit,
};
use datafusion::optimizer::AnalyzerRule;
use millpond_common::{Error, SqlState};

use crate::functions::{Function, call, external};

/// Whether a plan gives one row at most, whatever its input: an aggregate without groups (correlated: grouped by what correlates it,
/// which decorrelation takes care of), or LIMIT 1.
pub fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => is_one_row(&p.input),
        LogicalPlan::SubqueryAlias(s) => is_one_row(&s.input),
        LogicalPlan::Filter(f) => is_one_row(&f.input),
        LogicalPlan::Sort(s) => is_one_row(&s.input),
        LogicalPlan::Aggregate(a) => a.group_expr.is_empty(),
        other => other.max_rows().is_some_and(|n| n <= 1),
    }
}

/// Makes other scalar subqueries `(SELECT only_row(count(*), first_value(c)) FROM (q))`, which fails if there are several rows.
#[derive(Debug, Default)]
pub struct OnlyRow;

impl AnalyzerRule for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| match expr {
                    Expr::ScalarSubquery(subquery) if !is_one_row(&subquery.subquery) => only_row(subquery).map(Transformed::yes),
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        });
        Ok(checked?.data)
    }
}

fn only_row(subquery: Subquery) -> Result<Expr> {
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let Some(column) = subquery.schema().iter().next().map(Column::from) else {
        return Err(external(Error::internal("a scalar subquery without a column")));
    };
    let name = column.name.clone();
    let rows = LogicalPlanBuilder::from(subquery);
    let aggregates = vec![count(lit(1i64)).alias("rows"), first_value(Expr::Column(column), vec![]).alias("value")];
    let counted = rows.aggregate(Vec::<Expr>::new(), aggregates)?;
    let value = call(function(), vec![col("rows"), col("value")]).alias(name);
    let subquery = Arc::new(counted.project(vec![value])?.build()?);
    Ok(Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns, spans }))
}

/// Its second argument, if the first one is not above 1.
fn function() -> Arc<ScalarUDF> {
    let returns = |args: &ReturnFieldArgs<'_>| {
        let value = args.arg_fields.get(1).map_or_else(|| Field::new("value", DataType::Null, true), |f| f.as_ref().clone());
        Ok(Arc::new(value.with_nullable(true)))
    };
    let invoke = |args: &ScalarFunctionArgs| {
        let [rows, value] = args.args.as_slice() else { return Err(external(Error::internal("only_row has two arguments"))) };
        let counts = rows.to_array(args.number_rows)?;
        let counts = counts.as_any().downcast_ref::<Int64Array>();
        if counts.is_none_or(|counts| counts.iter().flatten().any(|rows| rows > 1)) {
            let message = "more than one row returned by a subquery used as an expression";
            return Err(external(Error::new(SqlState::CARDINALITY_VIOLATION, message)));
        }
        Ok(value.clone())
    };
    Function::udf("only_row", Volatility::Immutable, |types| Ok(types.to_vec()), returns, invoke)
}
