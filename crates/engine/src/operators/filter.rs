//! Rows for which a predicate is true.

use arrow::array::{Array, AsArray};
use arrow::compute::prep_null_mask_filter;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Error, Result};
use millpond_plan::PlanExpr;

use super::Stateless;
use super::expr::BoundExpr;

/// Keeps the rows for which its predicate is true (neither false nor NULL).
pub struct Filter {
    predicate: BoundExpr,
    schema: SchemaRef,
}

impl Filter {
    /// A filter over rows of `input`; `schema` differs from it in names at most.
    pub fn new(predicate: &PlanExpr, input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        Ok(Filter { predicate: BoundExpr::new(predicate, input)?, schema: SchemaRef::clone(schema) })
    }
}

impl Stateless for Filter {
    fn apply(&mut self, delta: Delta, out: &mut Vec<Delta>) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let value = self.predicate.evaluate(&delta.batch)?;
        let mask = value.as_boolean_opt().ok_or_else(|| Error::internal("a predicate is not boolean"))?;
        let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
        let kept = match mask.true_count() {
            0 => return Ok(()),
            n if n == delta.len() => delta,
            _ => delta.filter(&mask)?,
        };
        out.push(kept.with_schema(SchemaRef::clone(&self.schema))?);
        Ok(())
    }
}
