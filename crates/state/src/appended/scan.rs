//! Reading all rows of a relation that only grows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow_schema::SchemaRef;
use millpond_common::{Result, hash};

use super::block::Reader;
use super::{BLOCK_ROWS, Position};
use crate::format;
use crate::relation::{Relation, Run};
use crate::rocks::{Base, BaseIterator, storage_error};

/// Rows of a batch without columns.
const COUNTED_ROWS: u64 = 1 << 16;
/// Fewer rows than these, added since the checkpoint, are no batch while there are more.
const RECENT_ROWS: usize = 1024;

/// Which virtual node reads some rows, where several readers share a relation: others than the lane's, as one worker's rows are for all readers.
fn reader_of(number: u64) -> usize {
    usize::from(hash::vnode(hash::mix(number)))
}

/// All rows, or those of some virtual nodes, in batches. Holds what its view holds.
pub struct AppendedScan {
    pub(crate) schema: SchemaRef,
    id: u32,
    columns: Vec<usize>,
    reader: Reader,
    vnodes: Range<usize>,
    stored: Option<BaseIterator>,
    /// Rows of which only the number is wanted.
    counted: u64,
    recent: std::vec::IntoIter<RecordBatch>,
}

impl AppendedScan {
    /// `runs`: what was added since the checkpoint.
    pub(crate) fn new(base: &Arc<Base>, relation: &Relation, runs: &[Arc<Run>], columns: Vec<usize>, vnodes: Range<usize>) -> Result<Self> {
        let meta = &relation.meta;
        let id = meta.spec.id.0;
        let schema = meta.spec.project(&columns);
        let (first, end) = (format::vnode_bound(id, 0), format::vnode_bound(id, 256));
        let mut stored = if relation.stored_is_void { None } else { Some(BaseIterator::new(base, first, end, true)?) };
        let batches = runs.iter().flat_map(|r| &r.deltas).enumerate();
        let recent = batches.filter(|(number, _)| vnodes.contains(&reader_of(*number as u64))).map(|(_, delta)| delta.batch.clone());
        let recent = recent.collect::<Vec<_>>().into_iter();
        let counted = match stored.take_if(|_| columns.is_empty()) {
            Some(mut stored) if vnodes.contains(&0) => count(&mut stored, id)?,
            _ => 0,
        };
        let reader = Reader::new(meta, &columns, Arc::clone(&schema));
        Ok(AppendedScan { schema, id, columns, reader, vnodes, stored, counted, recent })
    }

    fn next_stored(&mut self) -> Option<Result<RecordBatch>> {
        let AppendedScan { id, reader, vnodes, .. } = self;
        self.stored.as_mut()?.with(|it| {
            while let Some(end) = Position::at(it) {
                let part = end.place.saturating_sub(1) / BLOCK_ROWS as u64;
                if vnodes.contains(&reader_of(part)) {
                    let block = reader.read(it).transpose()?;
                    it.seek(Position { place: end.place + 1, ..end }.bound(*id));
                    return Some(block.map(|b| b.batch));
                }
                let part = (part + 1..).find(|part| vnodes.contains(&reader_of(*part)))?;
                it.seek(Position { place: part * BLOCK_ROWS as u64 + 1, ..end }.bound(*id));
            }
            it.status().err().map(|e| Err(storage_error(e)))
        })
    }

    /// Some thousands of epochs may have added a row each: they come together.
    fn next_recent(&mut self) -> Option<Result<RecordBatch>> {
        let (mut batches, mut rows) = (Vec::new(), 0);
        while rows < RECENT_ROWS
            && let Some(batch) = self.recent.next()
        {
            rows += batch.num_rows();
            match batch.project(&self.columns).and_then(|b| b.with_schema(Arc::clone(&self.schema))) {
                Ok(batch) => batches.push(batch),
                Err(error) => return Some(Err(error.into())),
            }
        }
        match batches.as_slice() {
            [] => None,
            [one] => Some(Ok(one.clone())),
            several => Some(concat_batches(&self.schema, several).map_err(Into::into)),
        }
    }

    fn next_counted(&mut self) -> Result<RecordBatch> {
        let rows = self.counted.min(COUNTED_ROWS);
        self.counted -= rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), vec![], &options)?)
    }
}

/// The number of stored rows: the sum of the lanes' ends.
fn count(stored: &mut BaseIterator, id: u32) -> Result<u64> {
    stored.with(|it| {
        let mut rows = 0;
        it.seek_to_first();
        while let Some(first) = Position::at(it) {
            it.seek_for_prev(Position { place: u64::MAX, ..first }.bound(id));
            rows += Position::at(it).map_or(0, |end| end.place);
            it.seek(format::vnode_bound(id, usize::from(first.lane) + 1));
        }
        it.status().map_err(storage_error)?;
        Ok(rows)
    })
}

impl Iterator for AppendedScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_stored() {
            Some(batch) => return Some(batch),
            None => self.stored = None,
        }
        if self.counted > 0 {
            return Some(self.next_counted());
        }
        self.next_recent()
    }
}
