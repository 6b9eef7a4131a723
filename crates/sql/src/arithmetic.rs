//! placeholder
use std::sync::Arc;
use datafusion::physical_plan::PhysicalExpr;
/// The same expression with integer arithmetic that fails with 22003 instead of wrapping around.
pub fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> { expr }
