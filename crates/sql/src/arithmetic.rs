//! Integer arithmetic that fails on overflow. DataFusion's wraps around; PostgreSQL's is an error.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::BinaryExpr;

/// The same expression with `+`, `-` and `*` that fail with 22003 instead of wrapping around.
pub fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    let original = Arc::clone(&expr);
    let checked = expr.transform_up(|e| {
        let Some(binary) = e.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(e)) };
        if !matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(Transformed::no(e));
        }
        let checked = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right())).with_fail_on_overflow(true);
        Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>))
    });
    checked.map(|t| t.data).unwrap_or(original)
}
