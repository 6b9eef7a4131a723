//! A logical plan as a stream plan.
use arrow_schema::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millpond_common::{Error, Result};
use millpond_plan::StreamPlan;
use crate::planner::Planner;
/// placeholder
pub fn plan(_planner: &Planner<'_>, _plan: LogicalPlan, _schema: &SchemaRef) -> Result<StreamPlan> { Err(Error::internal("not yet")) }
