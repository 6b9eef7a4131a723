//! All rows of all inputs: the driver forwards chunks, this makes them one schema.

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};

use super::output::record_batch;

/// The chunk of one input under the union's own schema (inputs may differ in names and nullability).
pub fn conform(schema: &SchemaRef, delta: Delta) -> Result<Delta> {
    let rows = delta.len();
    Ok(Delta { batch: record_batch(schema, delta.batch.columns().to_vec(), rows)?, diffs: delta.diffs })
}
