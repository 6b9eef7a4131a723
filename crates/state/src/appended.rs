//! Relations that only grow and have no key. Their rows stay in the order in which they came, by column, many to a stored block: nothing is
//! encoded row by row, nothing is sorted, and no row is ever looked for.
//!
//! Each worker appends to a *lane*: the first virtual node that it owns. In its lane a row has a *place*, the number of rows before it, for ever:
//! a checkpoint writes a lane's rows in the order of its runs. A stored key is `id | lane u8 | place u64 BE` with the place after the block's
//! last row. A checkpoint that adds few rows writes the small blocks at the lane's end anew with them, so there are never many small ones.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result, hash};

use crate::block::{self, BlockDecoder, BlockEncoder};
use crate::encode::Change;
use crate::format;
use crate::relation::{Relation, RelationMeta, Run};
use crate::rocks::{Base, BaseIterator, storage_error};
use crate::scan::Wanted;
use crate::sst::SstWriter;

/// Rows of a block at most, and about how many bytes.
const BLOCK_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 1 << 20;
/// A block of more rows is not written again.
const SMALL_ROWS: u64 = BLOCK_ROWS as u64 / 2;

/// A place in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    lane: u8,
    place: u64,
}

impl Position {
    fn of(key: &[u8]) -> Option<Self> {
        let (lane, place) = key.split_first()?;
        Some(Position { lane: *lane, place: u64::from_be_bytes(place.try_into().ok()?) })
    }

    /// Of the block that ends here, without the id; the least key of those that end here or later.
    fn key(self) -> [u8; 9] {
        with_lane(self.lane, self.place)
    }

    fn stored_key(self, id: u32) -> Vec<u8> {
        [&format::id_prefix(id)[..], &self.key()].concat()
    }
}

fn with_lane(lane: u8, number: u64) -> [u8; 9] {
    let mut key = [lane; 9];
    if let Some(rest) = key.last_chunk_mut() {
        *rest = number.to_be_bytes();
    }
    key
}

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
        with_lane(self.lane, u64::MAX - self.before)
    }
}

/// The same rows, each as often as its weight says, which is never negative: see [`Store::publish`](crate::Store::publish).
pub(crate) fn repeated(delta: Delta) -> Delta {
    let Some(weights) = &delta.diffs else { return delta };
    if weights.values().iter().all(|w| *w == 1) {
        return Delta::insert(delta.batch);
    }
    let rows = weights.values().iter().enumerate().flat_map(|(row, weight)| std::iter::repeat_n(row as u32, (*weight).max(0) as usize));
    let rows = UInt32Array::from_iter_values(rows);
    Delta::insert(delta.take(&rows).expect("rows are within the batch").batch)
}

fn by_lane(runs: &[Arc<Run>]) -> BTreeMap<u8, Vec<&RecordBatch>> {
    let mut lanes: BTreeMap<u8, Vec<&RecordBatch>> = BTreeMap::new();
    for run in runs {
        lanes.entry(run.lane).or_default().extend(run.deltas.iter().map(|d| &d.batch));
    }
    lanes
}

/// A stored block on its way.
type Stored<'a> = (Position, &'a [u8]);

fn stored<'a>(iterator: &'a rocksdb::DBRawIterator<'_>) -> Option<Stored<'a>> {
    let (key, value) = iterator.item()?;
    Some((Position::of(key.get(4..)?)?, value))
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
        let id = meta.spec.id.0;
        let columns = (0..meta.spec.schema.fields().len()).collect::<Vec<_>>();
        let decoder = BlockDecoder::new(Arc::clone(&meta.spec.schema), &columns);
        let mut tail = Tail::default();
        lane_of(base, id, lane)?.with(|it| {
            it.seek_to_last();
            tail.first = stored(it).map_or(0, |(end, _)| end.place);
            while let Some((end, value)) = stored(it) {
                let held = block::rows(value)?;
                // As digits of a number: each row is written again a few times at most.
                if held > SMALL_ROWS || held > 2 * rows {
                    break;
                }
                rows += held;
                tail.batches.push_front(decoder.decode(value)?);
                tail.ends.push_front(end.place);
                tail.first = end.place - held;
                it.prev();
            }
            it.status().map_err(storage_error)
        })?;
        Ok(tail)
    }
}

fn lane_of(base: &Arc<Base>, id: u32, lane: u8) -> Result<BaseIterator> {
    let lane = usize::from(lane);
    BaseIterator::new(base, format::vnode_bound(id, lane), format::vnode_bound(id, lane + 1), true)
}

/// Writes the rows of some runs behind those of the last checkpoint; `emptied`: these do not count.
pub(crate) fn write(writer: &mut SstWriter<'_>, base: &Arc<Base>, meta: &RelationMeta, runs: &[Arc<Run>], emptied: bool) -> Result<()> {
    let id = meta.spec.id.0;
    let mut encoder = BlockEncoder::new()?;
    for (lane, batches) in by_lane(runs) {
        let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
        let mut tail = if emptied { Tail::default() } else { Tail::of(base, meta, lane, rows)? };
        let old = std::mem::take(&mut tail.batches);
        let all = old.iter().chain(batches).collect::<Vec<_>>();
        let mut position = Position { lane, place: tail.first };
        for block in Blocks::new(&meta.spec.schema, &all) {
            let block = block?;
            position.place += block.num_rows() as u64;
            while let Some(gone) = tail.ends.pop_front_if(|end| *end <= position.place) {
                if gone < position.place {
                    writer.change(id, &[], &Position { lane, place: gone }.key(), Change::Delete)?;
                }
            }
            writer.change(id, &[], &position.key(), Change::Put(encoder.encode(&block)?))?;
        }
    }
    Ok(())
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

/// Which virtual node reads some rows, where several readers share a relation: others than the lane's, as one worker's rows are for all readers.
fn reader_of(number: u64) -> usize {
    usize::from(hash::vnode(hash::mix(number)))
}

/// All rows, or those of some virtual nodes, in batches. Holds what its view holds.
pub struct AppendedScan {
    pub(crate) schema: SchemaRef,
    id: u32,
    columns: Vec<usize>,
    decoder: BlockDecoder,
    vnodes: Range<usize>,
    stored: Option<BaseIterator>,
    recent: std::vec::IntoIter<RecordBatch>,
}

impl AppendedScan {
    /// `runs`: what was added since the checkpoint.
    pub(crate) fn new(base: &Arc<Base>, relation: &Relation, runs: &[Arc<Run>], columns: Vec<usize>, vnodes: Range<usize>) -> Result<Self> {
        let meta = &relation.meta;
        let id = meta.spec.id.0;
        let schema = Wanted::new(meta, Some(columns.clone())).schema;
        let (first, end) = (format::vnode_bound(id, 0), format::vnode_bound(id, 256));
        let stored = if relation.stored_is_void { None } else { Some(BaseIterator::new(base, first, end, true)?) };
        let batches = runs.iter().flat_map(|r| &r.deltas).enumerate();
        let recent = batches.filter(|(number, _)| vnodes.contains(&reader_of(*number as u64))).map(|(_, delta)| delta.batch.clone());
        let recent = recent.collect::<Vec<_>>().into_iter();
        Ok(AppendedScan {
            decoder: BlockDecoder::new(Arc::clone(&meta.spec.schema), &columns),
            schema,
            id,
            columns,
            vnodes,
            stored,
            recent,
        })
    }

    fn next_stored(&mut self) -> Option<Result<RecordBatch>> {
        let (id, vnodes, decoder) = (self.id, &self.vnodes, &self.decoder);
        self.stored.as_mut()?.with(|it| {
            while let Some((end, value)) = stored(it) {
                let part = end.place.saturating_sub(1) / BLOCK_ROWS as u64;
                if vnodes.contains(&reader_of(part)) {
                    let batch = decoder.decode(value);
                    it.next();
                    return Some(batch);
                }
                let part = (part + 1..).find(|part| vnodes.contains(&reader_of(*part)))?;
                it.seek(Position { lane: end.lane, place: part * BLOCK_ROWS as u64 + 1 }.stored_key(id));
            }
            it.status().err().map(|e| Err(storage_error(e)))
        })
    }
}

impl Iterator for AppendedScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_stored() {
            Some(batch) => return Some(batch.and_then(|b| Ok(b.with_schema(Arc::clone(&self.schema))?))),
            None => self.stored = None,
        }
        let batch = self.recent.next()?;
        Some(batch.project(&self.columns).and_then(|b| b.with_schema(Arc::clone(&self.schema))).map_err(Into::into))
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
    let meta = &relation.meta;
    let id = meta.spec.id.0;
    let all = (0..meta.spec.schema.fields().len()).collect::<Vec<_>>();
    let decoder = BlockDecoder::new(Arc::clone(&meta.spec.schema), &all);
    let mut part = Part { batches: vec![], rows: 0, bytes: 0, next: None, rows_max, bytes_max };
    let recent = by_lane(runs);
    let first = usize::from(cursor.lane);
    let end = if relation.stored_is_void { first } else { until.max(first) };
    BaseIterator::new(base, format::vnode_bound(id, first), format::vnode_bound(id, end), true)?.with(|it| {
        loop {
            it.seek(format::vnode_bound(id, usize::from(cursor.lane)));
            let next_stored = stored(it).map(|(end, _)| end.lane);
            let next_recent = recent.range(cursor.lane..).next().map(|(lane, _)| *lane).filter(|lane| usize::from(*lane) < until);
            let Some(lane) = next_stored.into_iter().chain(next_recent).min() else { break };
            if lane > cursor.lane {
                cursor = Cursor::end(lane);
            }
            it.seek_for_prev(Position { lane, place: u64::MAX }.stored_key(id));
            let batches = recent.get(&lane).map(Vec::as_slice).unwrap_or_default();
            let mut begin = stored(it).filter(|(end, _)| end.lane == lane).map_or(0, |(end, _)| end.place);
            let stored_end = begin;
            begin += batches.iter().map(|b| b.num_rows() as u64).sum::<u64>();
            for batch in batches.iter().rev() {
                begin -= batch.num_rows() as u64;
                if part.take(&mut cursor, batch, begin, batch.get_array_memory_size()) {
                    return Ok(());
                }
            }
            it.seek(Position { lane, place: cursor.before.min(stored_end) }.stored_key(id));
            while let Some((end, value)) = stored(it).filter(|(end, _)| end.lane == lane) {
                if part.take(&mut cursor, &decoder.decode(value)?, end.place - block::rows(value)?, value.len()) {
                    return Ok(());
                }
                it.prev();
            }
            let Some(next) = lane.checked_add(1).filter(|next| usize::from(*next) < until) else { break };
            cursor = Cursor::end(next);
        }
        it.status().map_err(storage_error)
    })?;
    Ok(part)
}
