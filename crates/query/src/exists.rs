//! EXISTS as a value, as in `SELECT EXISTS (…)`. DataFusion knows it in conditions only.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, col, lit};
use datafusion::optimizer::AnalyzerRule;

/// Outside of conditions, turns `EXISTS (q)` into `(SELECT count(*) > 0 FROM q) IS TRUE`.
#[derive(Debug, Default)]
pub struct ExistsAsValue;

impl AnalyzerRule for ExistsAsValue {
    fn name(&self) -> &str {
        "exists_as_value"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            if matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
                return Ok(Transformed::no(node));
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(value)?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        })?;
        Ok(rewritten.data)
    }
}

fn value(expr: Expr) -> Result<Transformed<Expr>> {
    let (subquery, negated) = match expr {
        Expr::Exists(Exists { subquery, negated }) => (subquery, negated),
        other => return Ok(Transformed::no(other)),
    };
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let mut rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(subquery));
    if outer_ref_columns.is_empty() {
        // One row is enough. A limit would keep a correlated subquery from becoming a join.
        rows = rows.limit(0, Some(1))?;
    }
    let counted = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)).alias("rows")])?;
    let found = counted.project(vec![col("rows").gt(lit(0i64)).alias("found")])?.build()?;
    let found = Box::new(Expr::ScalarSubquery(Subquery { subquery: Arc::new(found), outer_ref_columns, spans }));
    Ok(Transformed::yes(if negated { Expr::IsNotTrue(found) } else { Expr::IsTrue(found) }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    async fn run(sql: &str) -> String {
        let state = SessionStateBuilder::new().with_default_features().with_analyzer_rule(Arc::new(ExistsAsValue)).build();
        let batches = SessionContext::new_with_state(state).sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn exists_is_a_value() {
        assert!(run("SELECT EXISTS (SELECT 1 FROM (VALUES (1)) t(a) WHERE a = 1) AS e").await.contains("true"));
        assert!(run("SELECT NOT EXISTS (SELECT 1 FROM (VALUES (1)) t(a) WHERE a = 1) AS e").await.contains("false"));
        let correlated = "SELECT b, EXISTS (SELECT 1 FROM (VALUES (1)) t(a) WHERE a = b) AS e FROM (VALUES (1), (2)) u(b) ORDER BY b";
        let rows = run(correlated).await;
        assert!(rows.contains("| 1 | true") && rows.contains("| 2 | false"), "{rows}");
    }
}
