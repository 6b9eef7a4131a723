//! The first rows of each partition of an input from which nothing is ever deleted.
//!
//! Then a row that is not among the first never will be. Of an epoch's rows only those are encoded whole that can be
//! among the first by the order's columns alone, and a partition's rows are one small value in a hash map.

use std::cell::RefCell;
use std::rc::Rc;

use arrow::array::UInt32Array;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};
use millpond_plan::SortKey;
use millpond_state::KeyedState;

use super::super::keys::{Interner, KeyCodec, RowBytes};
use super::super::output::BATCH_ROWS_MAX;
use super::super::{EpochContext, Operator, StateHandle};
use super::layout::{Layout, Pending, View, Window};

/// The longest windows for which this form is good: a partition's rows are written as a whole when one of them changes.
const REACH_MAX: u64 = 1000;

/// Keeps the first rows of each partition and emits how its window changes.
pub struct Best {
    /// Partition → its first rows in order, each behind its length.
    kept: Rc<RefCell<KeyedState<Vec<u8>>>>,
    partition: KeyCodec,
    layout: Layout,
    /// How many rows of a partition are kept.
    reach: usize,
}

/// A row of this epoch that may be among the first of its partition.
#[derive(Clone, Copy)]
struct Candidate {
    chunk: u32,
    row: u32,
    copies: u32,
}

/// The candidates of one partition, in order.
type Candidates = Vec<Candidate>;

impl Best {
    /// Whether this form can be used for a window over an append-only input.
    pub fn fits(window: Window) -> bool {
        window.reach().is_some_and(|reach| reach <= REACH_MAX)
    }

    /// Over rows of `input`.
    pub fn new(partition: &[usize], order: &[SortKey], window: Window, input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let layout = Layout::new(partition, order, window, input, schema)?;
        let reach = window.reach().map_or(0, |reach| reach.min(REACH_MAX) as usize);
        Ok(Best { kept: Rc::default(), partition: KeyCodec::new(input, partition)?, layout, reach })
    }

    /// Adds a row to its partition's candidates, if it can be among the first; those that no longer can leave.
    fn offer(&self, list: &mut Candidates, new: Candidate, orders: &[RowBytes]) {
        let order = |c: &Candidate| orders[c.chunk as usize].get(c.row as usize);
        if list.get(self.reach - 1).is_some_and(|last| order(&new) > order(last)) {
            return;
        }
        let at = list.partition_point(|c| order(c) <= order(&new));
        list.insert(at, new);
        if let Some(last) = list.get(self.reach - 1).map(order) {
            // What is equal in the order is told apart by whole rows.
            let ties = list[self.reach..].partition_point(|c| order(c) <= last);
            list.truncate(self.reach + ties);
        }
    }

    /// Rows that come behind those kept leave; the others are encoded whole, and now found by their place in that encoding.
    fn choose(
        &self,
        candidates: &mut [Candidates],
        partitions: &Interner,
        kept: &KeyedState<Vec<u8>>,
        orders: &[RowBytes],
        deltas: &[Delta],
    ) -> Result<Vec<RowBytes>> {
        let mut chosen = vec![Vec::new(); deltas.len()];
        for (number, list) in candidates.iter_mut().enumerate() {
            let last = kept.get(partitions.get(number)).and_then(|rows| rows_of(rows).nth(self.reach - 1));
            list.retain(|c| last.is_none_or(|last| orders[c.chunk as usize].get(c.row as usize) <= last));
            for candidate in list {
                let rows = &mut chosen[candidate.chunk as usize];
                rows.push(std::mem::replace(&mut candidate.row, rows.len() as u32));
            }
        }
        let whole = |(delta, rows): (&Delta, Vec<u32>)| self.layout.encode(&delta.take(&UInt32Array::from(rows))?.batch);
        deltas.iter().zip(chosen).map(whole).collect()
    }
}

impl Operator for Best {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        vec![("kept", Rc::clone(&self.kept) as StateHandle)]
    }

    fn step(&mut self, inputs: Vec<Vec<Delta>>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        if self.reach == 0 {
            return Ok(());
        }
        let deltas = inputs.into_iter().flatten().filter(|d| !d.is_empty()).collect::<Vec<_>>();
        let (mut partitions, mut candidates, mut orders) = (Interner::default(), Vec::<Candidates>::new(), Vec::new());
        for (chunk, delta) in deltas.iter().enumerate() {
            let keys = self.partition.encode(&delta.batch)?;
            orders.push(self.layout.encode_order(&delta.batch)?);
            for row in 0..delta.len() {
                let number = partitions.intern(keys.hash(row), keys.get(row));
                if number == candidates.len() {
                    candidates.push(Vec::new());
                }
                let copies = delta.weight(row).clamp(0, self.reach as i64) as u32;
                if copies > 0 {
                    self.offer(&mut candidates[number], Candidate { chunk: chunk as u32, row: row as u32, copies }, &orders);
                }
            }
        }
        let mut kept = self.kept.borrow_mut();
        kept.fetch(partitions.iter())?;
        let chunks = self.choose(&mut candidates, &partitions, &kept, &orders, &deltas)?;

        let (mut before, mut after, mut pending) = (View::default(), View::default(), Pending::default());
        for (number, list) in candidates.iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            let key = partitions.get(number);
            let old = kept.get(key).cloned().unwrap_or_default();
            let come = list.iter().flat_map(|c| std::iter::repeat_n(chunks[c.chunk as usize].get(c.row as usize), c.copies as usize));
            let mut rows = rows_of(&old).chain(come).collect::<Vec<_>>();
            rows.sort_unstable();
            rows.truncate(self.reach);
            let new = stored(&rows);
            if new == old {
                continue;
            }
            before.show(rows_of(&old).map(|row| (row, 1)), self.layout.window);
            after.show(rows.iter().map(|row| (*row, 1)), self.layout.window);
            self.layout.compare(&before, &after, &mut pending);
            kept.insert(key, new);
            if pending.len() >= BATCH_ROWS_MAX {
                self.layout.flush(&mut pending, out)?;
            }
        }
        self.layout.flush(&mut pending, out)
    }

    fn into_output(self: Box<Self>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let kept = self.kept.borrow();
        let (before, mut after, mut pending) = (View::default(), View::default(), Pending::default());
        for (_, rows) in kept.iter() {
            after.show(rows_of(rows).map(|row| (row, 1)), self.layout.window);
            self.layout.compare(&before, &after, &mut pending);
            if pending.len() >= BATCH_ROWS_MAX {
                self.layout.flush(&mut pending, out)?;
            }
        }
        self.layout.flush(&mut pending, out)
    }
}

/// Rows as they are kept.
fn stored(rows: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.iter().map(|row| 4 + row.len()).sum());
    for row in rows {
        bytes.extend_from_slice(&(row.len() as u32).to_le_bytes());
        bytes.extend_from_slice(row);
    }
    bytes
}

/// The rows in what is kept.
fn rows_of(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (row, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(row)
    })
}
