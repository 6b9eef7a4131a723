//! Reading a relation that only grows in parts.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millpond_common::Result;

use super::block::Reader;
use super::{Position, by_lane};
use crate::format;
use crate::relation::{Relation, Run};
use crate::rocks::{Base, BaseIterator, storage_error};

/// Where a reader in parts stands. It reads lane by lane, and each from its last row to its first: so what is added to a lane in which it has begun is
/// not among the rows that it still has to read, and it comes to an end however fast rows are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    lane: u8,
    /// Rows of the lane with lower places are unread.
    before: u64,
}

impl Cursor {
    /// That of a key, which may be cut short. In the order of keys come first lanes, then places from the greatest on.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        let (lane, rest) = key.split_first()?;
        let mut read = [0; 8];
        read.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Some(Cursor { lane: *lane, before: u64::MAX - u64::from_be_bytes(read) })
    }

    /// Of rows that are to come: not to be read, if the reader has begun in their lane.
    pub(crate) fn end(lane: u8) -> Self {
        Cursor { lane, before: u64::MAX }
    }

    pub(crate) fn key(self) -> [u8; 9] {
        Position { lane: self.lane, place: u64::MAX - self.before }.key()
    }
}

/// Some rows, and where to go on.
pub(crate) struct Part {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// `None`: there are no more.
    pub(crate) next: Option<Cursor>,
    rows_max: usize,
    bytes_max: usize,
}

impl Part {
    /// Takes of rows that begin at a place the last ones before the cursor. Says whether that is enough.
    fn take(&mut self, cursor: &mut Cursor, batch: &RecordBatch, begin: u64, bytes: usize) -> bool {
        let unread = cursor.before.saturating_sub(begin).min(batch.num_rows() as u64) as usize;
        let taken = unread.min(self.rows_max - self.rows);
        if taken > 0 {
            self.batches.push(batch.slice(unread - taken, taken));
            self.rows += taken;
            self.bytes += bytes;
            cursor.before = begin + (unread - taken) as u64;
        }
        let full = self.rows >= self.rows_max || self.bytes >= self.bytes_max;
        self.next = full.then_some(*cursor);
        full
    }
}

/// The next rows of the lanes before `until`: about as many as asked for. `runs`: what was added since the checkpoint.
pub(crate) fn read_part(
    (base, relation, runs): (&Arc<Base>, &Relation, &[Arc<Run>]),
    (mut cursor, until): (Cursor, usize),
    (rows_max, bytes_max): (usize, usize),
) -> Result<Part> {
    let (id, reader) = (relation.meta.spec.id.0, Reader::whole(&relation.meta));
    let mut part = Part { batches: vec![], rows: 0, bytes: 0, next: None, rows_max, bytes_max };
    let recent = by_lane(runs);
    let first = usize::from(cursor.lane);
    let end = if relation.stored_is_void { first } else { until.max(first) };
    BaseIterator::new(base, format::vnode_bound(id, first), format::vnode_bound(id, end), true)?.with(|it| {
        loop {
            it.seek(format::vnode_bound(id, usize::from(cursor.lane)));
            let next_stored = Position::at(it).map(|end| end.lane);
            let next_recent = recent.range(cursor.lane..).next().map(|(lane, _)| *lane).filter(|lane| usize::from(*lane) < until);
            let Some(lane) = next_stored.into_iter().chain(next_recent).min() else { break };
            if lane > cursor.lane {
                cursor = Cursor::end(lane);
            }
            // What was added since the checkpoint lies behind what is stored.
            it.seek_for_prev(Position { lane, place: u64::MAX }.bound(id));
            let stored_end = Position::at(it).filter(|end| end.lane == lane).map_or(0, |end| end.place);
            let batches = recent.get(&lane).map(Vec::as_slice).unwrap_or_default();
            let mut begin = stored_end + batches.iter().map(|b| b.num_rows() as u64).sum::<u64>();
            for batch in batches.iter().rev() {
                begin -= batch.num_rows() as u64;
                if part.take(&mut cursor, batch, begin, batch.get_array_memory_size()) {
                    return Ok(());
                }
            }
            it.seek(Position { lane, place: cursor.before.min(stored_end) }.bound(id));
            while Position::at(it).is_some_and(|end| end.lane == lane)
                && let Some(block) = reader.read(it)?
            {
                if part.take(&mut cursor, &block.batch, block.begin, block.bytes) {
                    return Ok(());
                }
                it.seek_for_prev(block.end.bound(id));
            }
            let Some(next) = lane.checked_add(1).filter(|next| usize::from(*next) < until) else { break };
            cursor = Cursor::end(next);
        }
        it.status().map_err(storage_error)
    })?;
    Ok(part)
}
