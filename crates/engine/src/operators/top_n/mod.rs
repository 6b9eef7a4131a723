//! The first rows of each partition by an order.
//!
//! [`TopN`] keeps every row, because any of them may move up when others are deleted. State is one sorted map: partition
//! key, then the row encoded with its order columns first, so that walking a partition's prefix is walking it in order.
//! [`Best`] is for inputs from which nothing is ever deleted.

mod best;
mod layout;

use std::cell::RefCell;
use std::ops::Bound;
use std::rc::Rc;

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};
use millpond_plan::SortKey;
use millpond_state::SortedState;

pub use self::best::Best;
pub use self::layout::Window;
use self::layout::{Layout, Pending, View};
use super::keys::{Interner, KeyCodec};
use super::output::BATCH_ROWS_MAX;
use super::{EpochContext, Operator, StateHandle};

/// Keeps every partition sorted and emits how its window changes.
pub struct TopN {
    /// Partition and row → how often the row is there.
    rows: Rc<RefCell<SortedState<i64>>>,
    partition: KeyCodec,
    layout: Layout,
}

/// A change of one row, by where to find it.
struct Change {
    partition: u32,
    chunk: u32,
    row: u32,
    weight: i64,
}

impl TopN {
    /// Over rows of `input`.
    pub fn new(partition: &[usize], order: &[SortKey], window: Window, input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let layout = Layout::new(partition, order, window, input, schema)?;
        Ok(TopN { rows: Rc::default(), partition: KeyCodec::new(input, partition)?, layout })
    }

    fn look(&self, rows: &SortedState<i64>, prefix: &[u8], view: &mut View) {
        // A count below zero belongs to an inconsistent input: such a row is not there.
        let rows = rows.range(prefix).map(|(key, count)| (&key[prefix.len()..], (*count).max(0) as u64));
        view.show(rows, self.layout.window);
    }
}

impl Operator for TopN {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        vec![("rows", Rc::clone(&self.rows) as StateHandle)]
    }

    fn step(&mut self, inputs: Vec<Vec<Delta>>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let (mut partitions, mut changes, mut chunks) = (Interner::default(), Vec::new(), Vec::new());
        for delta in inputs.iter().flatten() {
            let keys = self.partition.encode(&delta.batch)?;
            for i in 0..delta.len() {
                let partition = partitions.intern(keys.hash(i), keys.get(i)) as u32;
                changes.push(Change { partition, chunk: chunks.len() as u32, row: i as u32, weight: delta.weight(i) });
            }
            chunks.push(self.layout.encode(&delta.batch)?);
        }
        let row = |change: &Change| chunks[change.chunk as usize].get(change.row as usize);
        changes.sort_unstable_by(|a, b| a.partition.cmp(&b.partition).then_with(|| row(a).cmp(row(b))));

        let mut rows = self.rows.borrow_mut();
        rows.fetch(partitions.iter())?;
        let (mut before, mut after, mut pending, mut key) = (View::default(), View::default(), Pending::default(), Vec::new());
        for changes in changes.chunk_by(|a, b| a.partition == b.partition) {
            let prefix = partitions.get(changes[0].partition as usize);
            self.look(&rows, prefix, &mut before);
            let beyond = before.full && before.last().is_some_and(|last| row(&changes[0]) > last);
            for change in changes {
                key.clear();
                key.extend_from_slice(prefix);
                key.extend_from_slice(row(change));
                add(&mut rows, &key, change.weight);
            }
            if beyond {
                continue;
            }
            self.look(&rows, prefix, &mut after);
            self.layout.compare(&before, &after, &mut pending);
            if pending.len() >= BATCH_ROWS_MAX {
                self.layout.flush(&mut pending, out)?;
            }
        }
        self.layout.flush(&mut pending, out)
    }

    fn into_output(self: Box<Self>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let rows = self.rows.borrow();
        let (before, mut after, mut pending) = (View::default(), View::default(), Pending::default());
        let mut next = rows.iter().next();
        while let Some((key, _)) = next {
            let prefix = self.layout.prefix(&self.partition, key)?;
            self.look(&rows, prefix, &mut after);
            self.layout.compare(&before, &after, &mut pending);
            if pending.len() >= BATCH_ROWS_MAX {
                self.layout.flush(&mut pending, out)?;
            }
            let last = rows.range(prefix).next_back().map_or(key, |(last, _)| last);
            next = rows.between(Bound::Excluded(last), Bound::Unbounded).next();
        }
        self.layout.flush(&mut pending, out)
    }
}

/// Adds to a count in a sorted table; zero is absence.
pub(super) fn add(table: &mut SortedState<i64>, key: &[u8], weight: i64) {
    match table.get_mut(key) {
        Some(count) => {
            *count += weight;
            if *count == 0 {
                table.remove(key);
            }
        }
        None if weight != 0 => drop(table.insert(key, weight)),
        None => {}
    }
}
