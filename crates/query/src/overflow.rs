//! Integer arithmetic that reports overflow (22003) as PostgreSQL does, where DataFusion's wraps around.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

/// Puts checked functions in the place of `+`, `-`, `*` over integers. Runs after types are coerced.
#[derive(Debug, Default)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let mut schema = DFSchema::empty();
            for input in node.inputs() {
                schema.merge(input.schema());
            }
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|e| checked(e, &schema))?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        })?;
        rewritten.data.recompute_schema()
    }
}

/// The same for one expression over some columns.
pub fn checked_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|e| checked(e, schema))?.data)
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let type_of = |e: &Expr| e.get_type(schema).ok().filter(|t| t.is_integer());
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if type_of(&left).is_some() && type_of(&left) == type_of(&right) => {
            match millpond_sql::functions::checked(left.as_ref().clone(), op, right.as_ref().clone()) {
                Some(call) => Transformed::yes(call),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        Expr::Negative(inner) if type_of(&inner).is_some() && !matches!(inner.as_ref(), Expr::Literal(..)) => {
            let zero = Expr::Literal(ScalarValue::new_zero(&inner.get_type(schema)?)?, None);
            match millpond_sql::functions::checked(zero, Operator::Minus, inner.as_ref().clone()) {
                Some(call) => Transformed::yes(call),
                None => Transformed::no(Expr::Negative(inner)),
            }
        }
        other => Transformed::no(other),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    async fn run(sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
        let state = SessionStateBuilder::new().with_default_features().with_analyzer_rule(Arc::new(CheckedArithmetic)).build();
        SessionContext::new_with_state(state).sql(sql).await?.collect().await
    }

    #[tokio::test]
    async fn overflow_is_an_error() {
        for sql in [
            "SELECT a + 1 FROM (VALUES (9223372036854775807)) t(a)",
            "SELECT sum(a * 2) FROM (VALUES (9223372036854775807)) t(a)",
            "SELECT -a FROM (VALUES (-9223372036854775808)) t(a)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM (VALUES (9223372036854775807)) t(a) WHERE a + 1 > 0)",
        ] {
            let error = run(sql).await.unwrap_err();
            assert!(error.to_string().contains("bigint out of range"), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn names_stay() {
        let batches = run("SELECT a + 1, -a AS n FROM (VALUES (5)) t(a)").await.unwrap();
        let batch = &batches[0];
        assert_eq!(batch.schema().field(1).name(), "n");
        assert_eq!(batch.num_rows(), 1);
    }
}
