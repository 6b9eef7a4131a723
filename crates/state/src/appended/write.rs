//! What a checkpoint writes of a relation that only grows. If that is little, the small blocks at the lane's end are written anew with it, so that there
//! are never many small ones.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow_schema::SchemaRef;
use millpond_common::Result;

use super::block::{self, Encoder, Reader};
use super::{BLOCK_BYTES, BLOCK_ROWS, Position, by_lane};
use crate::encode::Change;
use crate::format;
use crate::relation::{RelationMeta, Run};
use crate::rocks::{Base, BaseIterator, storage_error};
use crate::sst::SstWriter;

/// A block of more rows, or of more bytes, is not written again.
const SMALL_ROWS: u64 = BLOCK_ROWS as u64 / 2;
const SMALL_BYTES: usize = BLOCK_BYTES / 2;

/// Writes the rows of some runs behind those of the last checkpoint; `emptied`: these do not count.
pub(crate) fn write(writer: &mut SstWriter<'_>, base: &Arc<Base>, meta: &RelationMeta, runs: &[Arc<Run>], emptied: bool) -> Result<()> {
    let id = meta.spec.id.0;
    let entries = block::entries(meta.spec.schema.fields().len());
    let mut encoder = Encoder::new()?;
    for (lane, batches) in by_lane(runs) {
        let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
        let mut tail = if emptied { Tail::default() } else { Tail::of(base, meta, lane, rows)? };
        let old = std::mem::take(&mut tail.batches);
        let all = old.iter().chain(batches).collect::<Vec<_>>();
        let mut end = Position { lane, place: tail.first };
        for block in Blocks::new(&meta.spec.schema, &all) {
            let block = block?;
            end.place += block.num_rows() as u64;
            while let Some(gone) = tail.ends.pop_front_if(|gone| *gone <= end.place) {
                for entry in (0..entries).filter(|_| gone < end.place) {
                    writer.change(id, &Position { lane, place: gone }.key(), &entry.to_be_bytes(), Change::Delete)?;
                }
            }
            for entry in 0..entries {
                writer.change(id, &end.key(), &entry.to_be_bytes(), Change::Put(encoder.encode(&block, entry)?))?;
            }
        }
    }
    Ok(())
}

/// The end of a lane: what a checkpoint that appends to it writes anew.
#[derive(Default)]
struct Tail {
    /// The place of the first row that is written.
    first: u64,
    /// Stored rows that are written again, and the ends of their blocks.
    batches: VecDeque<RecordBatch>,
    ends: VecDeque<u64>,
}

impl Tail {
    /// Behind which `rows` are added.
    fn of(base: &Arc<Base>, meta: &RelationMeta, lane: u8, mut rows: u64) -> Result<Tail> {
        let (id, reader) = (meta.spec.id.0, Reader::whole(meta));
        let mut tail = Tail::default();
        let bound = |lane| format::vnode_bound(id, lane);
        BaseIterator::new(base, bound(usize::from(lane)), bound(usize::from(lane) + 1), true)?.with(|it| {
            it.seek_to_last();
            tail.first = Position::at(it).map_or(0, |end| end.place);
            while let Some(value) = it.value() {
                let held = block::rows(value)?;
                // As a counter carries: each row is written again a few times at most.
                if held > SMALL_ROWS || held > 2 * rows {
                    break;
                }
                let Some(block) = reader.read(it)?.filter(|block| block.bytes <= SMALL_BYTES) else { break };
                rows += held;
                tail.first = block.begin;
                tail.batches.push_front(block.batch);
                tail.ends.push_front(block.end.place);
                it.seek_for_prev(block.end.bound(id));
            }
            it.status().map_err(storage_error)
        })?;
        Ok(tail)
    }
}

/// Batches, cut and put together to blocks.
struct Blocks<'a> {
    schema: &'a SchemaRef,
    batches: &'a [&'a RecordBatch],
    /// Rows of a block.
    rows: usize,
    /// The next row: its batch, and its number there.
    at: usize,
    row: usize,
}

impl<'a> Blocks<'a> {
    fn new(schema: &'a SchemaRef, batches: &'a [&'a RecordBatch]) -> Self {
        let bytes = |b: &&RecordBatch| b.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
        let rows = batches.iter().map(|b| b.num_rows()).sum::<usize>().max(1);
        let width = batches.iter().map(bytes).sum::<usize>() / rows;
        Blocks { schema, batches, rows: (BLOCK_BYTES / width.max(1)).clamp(1, BLOCK_ROWS), at: 0, row: 0 }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut parts, mut room) = (Vec::new(), self.rows);
        while room > 0
            && let Some(batch) = self.batches.get(self.at)
        {
            let taken = room.min(batch.num_rows() - self.row);
            if taken > 0 {
                parts.push(batch.slice(self.row, taken));
            }
            (room, self.row) = (room - taken, self.row + taken);
            if self.row == batch.num_rows() {
                (self.at, self.row) = (self.at + 1, 0);
            }
        }
        match parts.as_slice() {
            [] => None,
            [one] => Some(Ok(one.clone())),
            parts => Some(concat_batches(self.schema, parts).map_err(Into::into)),
        }
    }
}
