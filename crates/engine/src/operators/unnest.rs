//! One row per element of list columns.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow_schema::{DataType, SchemaRef};
use millpond_common::{Delta, Result};

use super::Stateless;
use super::output::{BATCH_ROWS_MAX, cast, diffs, record_batch};

/// Unrolls list columns in parallel; shorter lists are padded with NULL, and a row whose lists are all empty or NULL
/// gives no row.
pub struct Unnest {
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Unnest {
    /// Unrolls `columns`; `schema` has their elements in their places.
    pub fn new(columns: &[usize], schema: &SchemaRef) -> Self {
        Unnest { columns: columns.to_vec(), schema: SchemaRef::clone(schema) }
    }

    fn slice(&self, delta: &Delta, out: &mut Vec<Delta>) -> Result<()> {
        let lists = self.columns.iter().map(|c| as_list(delta.batch.column(*c))).collect::<Result<Vec<_>>>()?;
        let length = |list: &ListArray, row: usize| if list.is_null(row) { 0 } else { list.value_length(row) as usize };
        let lengths = (0..delta.len()).map(|row| lists.iter().map(|l| length(l, row)).max().unwrap_or(0)).collect::<Vec<_>>();
        let total = lengths.iter().sum::<usize>();
        if total == 0 {
            return Ok(());
        }
        let rows = UInt32Array::from_iter_values(lengths.iter().enumerate().flat_map(|(row, n)| std::iter::repeat_n(row as u32, *n)));
        let mut columns = Vec::with_capacity(delta.batch.num_columns());
        for (position, column) in delta.batch.columns().iter().enumerate() {
            let Some(list) = self.columns.iter().position(|c| *c == position).and_then(|i| lists.get(i)) else {
                columns.push(take(column, &rows, None)?);
                continue;
            };
            let mut elements = UInt32Builder::with_capacity(total);
            for (row, n) in lengths.iter().enumerate() {
                let (start, own) = (list.value_offsets()[row] as u32, length(list, row));
                (0..*n).for_each(|i| elements.append_option((i < own).then_some(start + i as u32)));
            }
            columns.push(take(list.values(), &elements.finish(), None)?);
        }
        let weights = rows.values().iter().map(|row| delta.weight(*row as usize)).collect();
        out.push(Delta::new(record_batch(&self.schema, columns, total)?, diffs(weights)));
        Ok(())
    }
}

impl Stateless for Unnest {
    fn apply(&mut self, delta: Delta, out: &mut Vec<Delta>) -> Result<()> {
        // Lists are short as a rule: slices of the input bound the output well enough.
        (0..delta.len()).step_by(BATCH_ROWS_MAX).try_for_each(|start| {
            let slice = delta.slice(start, BATCH_ROWS_MAX.min(delta.len() - start));
            self.slice(&slice, out)
        })
    }
}

fn as_list(column: &ArrayRef) -> Result<ListArray> {
    match column.data_type() {
        DataType::List(_) => Ok(column.as_list::<i32>().clone()),
        DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            Ok(cast(column, &DataType::List(std::sync::Arc::clone(f)))?.as_list::<i32>().clone())
        }
        other => Err(millpond_common::Error::internal(format!("unnest of {other}"))),
    }
}
