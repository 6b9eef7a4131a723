//! INTERSECT ALL and EXCEPT ALL, which count equal rows: DataFusion plans them as a semi or anti join, which does not.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::AnalyzerRule;

/// Whether a join, in a plan that no rule has changed yet, is an INTERSECT ALL or EXCEPT ALL. Without ALL its left input is DISTINCT;
/// where it is so with ALL, there is nothing to count.
pub fn counts_rows(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

/// Numbers equal rows on both sides, and joins by the numbers, too: the third of three equal rows has a partner if the other side has
/// three.
#[derive(Debug, Default)]
pub struct CountedRows;

impl AnalyzerRule for CountedRows {
    fn name(&self) -> &str {
        "counted_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let counted = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if counts_rows(&join) => count_rows(join).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        });
        Ok(counted?.data)
    }
}

fn count_rows(join: Join) -> Result<LogicalPlan> {
    let (left_keys, right_keys) = join.on.iter().cloned().unzip::<_, _, Vec<_>, Vec<_>>();
    let shown = columns(join.left.schema());
    let (left, left_number) = numbered(join.left, left_keys, "left number")?;
    let (right, right_number) = numbered(join.right, right_keys, "right number")?;
    let mut on = join.on;
    on.push((left_number, right_number));
    let counted = Join::try_new(left, right, on, join.filter, join.join_type, join.join_constraint, join.null_equality, join.null_aware)?;
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(shown, Arc::new(LogicalPlan::Join(counted)), join.schema)?))
}

/// The plan with a number for each row among its equals, and that column.
fn numbered(plan: Arc<LogicalPlan>, keys: Vec<Expr>, name: &str) -> Result<(Arc<LogicalPlan>, Expr)> {
    let mut shown = columns(plan.schema());
    let numbered = LogicalPlanBuilder::from(plan).window(vec![row_number().partition_by(keys).build()?])?;
    let number = columns(numbered.schema()).split_off(shown.len());
    shown.extend(number.into_iter().map(|column| column.alias(name)));
    Ok((Arc::new(numbered.project(shown)?.build()?), Expr::Column(Column::from_name(name))))
}

fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.iter().map(|column| Expr::Column(Column::from(column))).collect()
}
