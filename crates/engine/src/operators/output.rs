//! Batches that match a node's schema exactly, and of a size that others can work with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::CastOptions;
use arrow_schema::{DataType, SchemaRef};
use millpond_common::{Delta, Result};

/// A stateful operator closes an output batch at about this many rows.
pub const BATCH_ROWS_MAX: usize = 8192;

/// Small input chunks are joined up to this many rows before a stateful operator works on them.
const COALESCE_ROWS_MAX: usize = 65_536;

/// A batch of `schema` from columns that may differ from it in names and metadata, or in a type that casts to it.
pub fn record_batch(schema: &SchemaRef, mut columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        if column.data_type() != field.data_type() {
            *column = cast(column, field.data_type())?;
        }
    }
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// Casts, with an error for a value that does not fit.
pub fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    arrow::compute::cast_with_options(column, to, &options).map_err(super::expr::from_arrow)
}

/// Weights as a delta has them: nothing if all are +1.
pub fn diffs(weights: Vec<i64>) -> Option<Int64Array> {
    if weights.iter().all(|w| *w == 1) { None } else { Some(Int64Array::from(weights)) }
}

/// The same rows in fewer, larger deltas (an epoch's input often comes in one small chunk per worker).
pub fn coalesce(schema: &SchemaRef, deltas: Vec<Delta>) -> Result<Vec<Delta>> {
    if deltas.len() <= 1 {
        return Ok(deltas.into_iter().filter(|d| !d.is_empty()).collect());
    }
    let (mut result, mut open, mut rows) = (Vec::new(), Vec::new(), 0);
    for delta in deltas.into_iter().filter(|d| !d.is_empty()) {
        if rows + delta.len() > COALESCE_ROWS_MAX && !open.is_empty() {
            result.push(Delta::concat(schema, &open)?);
            open.clear();
            rows = 0;
        }
        rows += delta.len();
        open.push(delta);
    }
    if !open.is_empty() {
        result.push(Delta::concat(schema, &open)?);
    }
    Ok(result)
}
