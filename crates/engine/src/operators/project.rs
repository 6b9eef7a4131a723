//! New columns from old ones.

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};
use millpond_plan::PlanExpr;

use super::Stateless;
use super::expr::BoundExpr;
use super::output::record_batch;

/// Computes one output column per expression; weights stay.
pub struct Project {
    exprs: Vec<BoundExpr>,
    schema: SchemaRef,
}

impl Project {
    /// A projection of rows of `input` to `schema`, which has one column per expression.
    pub fn new(exprs: &[PlanExpr], input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let exprs = exprs.iter().map(|e| BoundExpr::new(e, input)).collect::<Result<_>>()?;
        Ok(Project { exprs, schema: SchemaRef::clone(schema) })
    }
}

impl Stateless for Project {
    fn apply(&mut self, delta: Delta, out: &mut Vec<Delta>) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let columns = self.exprs.iter().map(|e| e.evaluate(&delta.batch)).collect::<Result<Vec<_>>>()?;
        let batch = record_batch(&self.schema, columns, delta.len())?;
        out.push(Delta::new(batch, delta.diffs));
        Ok(())
    }
}
