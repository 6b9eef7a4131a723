//! A logical plan as a stream plan, or why it cannot be one.
//!
//! [`prepare`] checks that the query has a meaning on changing input and lets DataFusion optimise it;
//! [`build`](build::Builder) then turns node after node into operators, the leaves first.

mod aggregate;
mod build;
mod expr;
mod join;
mod leaf;
mod prepare;
mod project;
mod topn;

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use millpond_common::{Error, Result};
use millpond_plan::StreamPlan;

use crate::planner::Planner;

/// The stream plan of an analyzed query whose result has these columns.
pub fn plan(planner: &Planner<'_>, plan: LogicalPlan, columns: &SchemaRef) -> Result<StreamPlan> {
    let plan = prepare::prepare(planner, plan)?;
    let mut builder = build::Builder::new(planner);
    let root = builder.build(&plan)?;
    builder.finish(root, &nullable(columns))
}

/// The same columns, all of them nullable: what a view promises are its types.
pub fn nullable(columns: &Schema) -> SchemaRef {
    Arc::new(Schema::new(columns.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// The error for what cannot be maintained.
fn refuse(what: impl Into<String>, hint: &str) -> Error {
    Error::unsupported(format!("{} in a materialized view is not supported", what.into()), hint)
}

/// The same for what a later version maintains.
fn not_yet(what: impl Into<String>, hint: &str) -> Error {
    Error::unsupported(format!("{} in a materialized view is not supported yet", what.into()), hint)
}
