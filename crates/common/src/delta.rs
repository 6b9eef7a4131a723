//! A stream of changes is a Z-set: rows with integer weights.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow_schema::{ArrowError, SchemaRef};

/// A batch of rows, each with a weight: +n inserts the row n times, −n deletes it n times.
/// `diffs = None` means that every row has weight +1 (append-only input pays nothing).
/// An update is the old row with −1 and the new row with +1.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The rows.
    pub batch: RecordBatch,
    /// One weight per row, without nulls; `None` = all +1.
    pub diffs: Option<Int64Array>,
}

impl Delta {
    /// Insertions only.
    pub fn insert(batch: RecordBatch) -> Self {
        Delta { batch, diffs: None }
    }

    /// Rows with weights; `diffs` must be as long as the batch.
    pub fn new(batch: RecordBatch, diffs: Option<Int64Array>) -> Self {
        if let Some(d) = &diffs {
            assert_eq!(d.len(), batch.num_rows(), "one weight per row");
        }
        Delta { batch, diffs }
    }

    /// No rows of this schema.
    pub fn empty(schema: SchemaRef) -> Self {
        Delta { batch: RecordBatch::new_empty(schema), diffs: None }
    }

    /// How many entries (rows with a weight) it holds.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.batch.num_rows() == 0
    }

    /// The schema of its rows.
    pub fn schema(&self) -> SchemaRef {
        self.batch.schema()
    }

    /// The weight of row `i`.
    #[inline]
    pub fn weight(&self, i: usize) -> i64 {
        match &self.diffs {
            Some(d) => d.value(i),
            None => 1,
        }
    }

    /// Whether it holds insertions only.
    pub fn is_append_only(&self) -> bool {
        self.diffs.as_ref().is_none_or(|d| d.values().iter().all(|w| *w > 0))
    }

    /// Whether it deletes a row.
    pub fn deletes(&self) -> bool {
        self.diffs.as_ref().is_some_and(|d| d.values().iter().any(|w| *w < 0))
    }

    /// The same rows with opposite weights.
    pub fn negate(&self) -> Delta {
        let diffs = (0..self.len()).map(|i| -self.weight(i)).collect::<Vec<_>>();
        Delta { batch: self.batch.clone(), diffs: Some(Int64Array::from(diffs)) }
    }

    /// Zero-copy slice of `length` rows from `offset`.
    pub fn slice(&self, offset: usize, length: usize) -> Delta {
        Delta { batch: self.batch.slice(offset, length), diffs: self.diffs.as_ref().map(|d| d.slice(offset, length)) }
    }

    /// The rows where `mask` is true.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Delta, ArrowError> {
        let batch = compute::filter_record_batch(&self.batch, mask)?;
        let diffs = match &self.diffs {
            Some(d) => Some(as_int64(&compute::filter(d, mask)?)),
            None => None,
        };
        Ok(Delta { batch, diffs })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Delta, ArrowError> {
        let batch = compute::take_record_batch(&self.batch, indices)?;
        let diffs = match &self.diffs {
            Some(d) => Some(as_int64(&compute::take(d, indices, None)?)),
            None => None,
        };
        Ok(Delta { batch, diffs })
    }

    /// The columns at `columns`, in that order.
    pub fn project(&self, columns: &[usize]) -> Result<Delta, ArrowError> {
        Ok(Delta { batch: self.batch.project(columns)?, diffs: self.diffs.clone() })
    }

    /// All deltas in one. They must be of one schema.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta, ArrowError> {
        if let [one] = deltas {
            return Ok(one.clone());
        }
        let batch = compute::concat_batches(schema, deltas.iter().map(|d| &d.batch))?;
        let diffs = if deltas.iter().all(|d| d.diffs.is_none()) {
            None
        } else {
            let mut all = Vec::with_capacity(batch.num_rows());
            for d in deltas {
                match &d.diffs {
                    Some(w) => all.extend_from_slice(w.values()),
                    None => all.extend(std::iter::repeat_n(1, d.len())),
                }
            }
            Some(Int64Array::from(all))
        };
        Ok(Delta { batch, diffs })
    }

    /// Approximate bytes of memory held, for back-pressure and metrics.
    pub fn bytes(&self) -> usize {
        self.batch.get_array_memory_size() + self.diffs.as_ref().map_or(0, |d| d.len() * 8)
    }

    /// The same rows under another schema of equal column types (names and metadata may differ).
    pub fn with_schema(&self, schema: SchemaRef) -> Result<Delta, ArrowError> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.len()));
        let batch = RecordBatch::try_new_with_options(schema, self.batch.columns().to_vec(), &options)?;
        Ok(Delta { batch, diffs: self.diffs.clone() })
    }
}

fn as_int64(array: &ArrayRef) -> Int64Array {
    Int64Array::from(Arc::clone(array).to_data())
}
