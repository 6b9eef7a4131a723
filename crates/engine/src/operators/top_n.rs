//! The first rows of each partition by an order.
//!
//! State is one sorted map: partition key, then the row encoded with its order columns first and its other columns
//! after them, so that walking a partition's prefix is walking it in order, ties included.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef, SortOptions};
use millpond_common::{Delta, Result, RowCodec};
use millpond_plan::SortKey;
use millpond_state::SortedState;

use super::keys::{Interner, KeyCodec, RowBytes};
use super::output::{BATCH_ROWS_MAX, diffs, record_batch};
use super::{EpochContext, Operator, StateHandle};

/// Which rows of a partition come out.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How many rows are skipped.
    pub offset: u64,
    /// How many rows remain at most.
    pub limit: Option<u64>,
    /// Whether each row gets its number in the partition, as a last column.
    pub row_number: bool,
}

/// Keeps every partition sorted and emits how its window changes.
pub struct TopN {
    /// Partition and row → how often the row is there.
    rows: Rc<RefCell<SortedState<i64>>>,
    partition: KeyCodec,
    /// Rows with their columns in the order of `permutation`.
    codec: RowCodec,
    /// The input's column at each encoded place.
    permutation: Vec<usize>,
    window: Window,
    /// Nothing is ever deleted: rows behind the window can be forgotten.
    forget: bool,
    schema: SchemaRef,
}

/// A change of one row, by where to find it.
struct Change {
    partition: u32,
    chunk: u32,
    row: u32,
    weight: i64,
}

/// What a partition's window shows at one moment: rows in order, with their counts.
#[derive(Default)]
struct View {
    bytes: Vec<u8>,
    rows: Vec<(std::ops::Range<usize>, u64)>,
    /// The window's limit is reached.
    full: bool,
}

impl View {
    fn row(&self, i: usize) -> Option<(&[u8], u64)> {
        self.rows.get(i).map(|(range, count)| (&self.bytes[range.clone()], *count))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.full = false;
    }

    /// Every row as often as it is there.
    fn expanded(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().flat_map(|(range, count)| std::iter::repeat_n(&self.bytes[range.clone()], *count as usize))
    }
}

/// Output rows still encoded.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    numbers: Vec<i64>,
    weights: Vec<i64>,
}

impl Pending {
    fn push(&mut self, row: &[u8], number: u64, weight: i64) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.numbers.push(number as i64);
        self.weights.push(weight);
    }
}

impl TopN {
    /// Over rows of `input`, of which `append_only` says that none is ever deleted.
    pub fn new(
        partition: &[usize],
        order: &[SortKey],
        window: Window,
        input: &SchemaRef,
        append_only: bool,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let (mut permutation, mut options) = (Vec::new(), Vec::new());
        for key in order.iter().filter(|key| !partition.contains(&key.column)) {
            if !permutation.contains(&key.column) {
                permutation.push(key.column);
                options.push(SortOptions { descending: key.descending, nulls_first: key.nulls_first });
            }
        }
        let rest = (0..input.fields().len()).filter(|c| !permutation.contains(c)).collect::<Vec<_>>();
        options.extend(rest.iter().map(|_| SortOptions { descending: false, nulls_first: false }));
        permutation.extend(rest);
        let fields = permutation.iter().map(|c| Arc::clone(&input.fields()[*c])).collect::<Vec<_>>();
        Ok(TopN {
            rows: Rc::default(),
            partition: KeyCodec::new(input, partition)?,
            codec: RowCodec::with_order(Arc::new(Schema::new(fields)), &options)?,
            permutation,
            window,
            forget: append_only && window.limit.is_some(),
            schema: SchemaRef::clone(schema),
        })
    }

    /// How many rows of a partition can matter while nothing is deleted.
    fn reach(&self) -> Option<u64> {
        self.window.limit.map(|limit| limit.saturating_add(self.window.offset))
    }

    fn look(&self, rows: &SortedState<i64>, prefix: &[u8], view: &mut View) {
        view.clear();
        let mut skip = self.window.offset;
        let mut room = self.window.limit.unwrap_or(u64::MAX);
        view.full = room == 0;
        for (key, count) in rows.range(prefix) {
            if room == 0 {
                view.full = true;
                return;
            }
            // A count below zero belongs to an inconsistent input: such a row is not there.
            let count = (*count).max(0) as u64;
            let skipped = skip.min(count);
            skip -= skipped;
            let shown = (count - skipped).min(room);
            if shown > 0 {
                let start = view.bytes.len();
                view.bytes.extend_from_slice(&key[prefix.len()..]);
                view.rows.push((start..view.bytes.len(), shown));
                room -= shown;
            }
        }
        view.full = room == 0;
    }

    /// Forgets rows that no window can reach any more.
    fn prune(&self, rows: &mut SortedState<i64>, prefix: &[u8]) {
        let mut left = self.reach().unwrap_or(u64::MAX);
        let mut behind = Vec::new();
        for (key, count) in rows.range(prefix) {
            if left == 0 {
                behind.push(key.to_vec());
            }
            left = left.saturating_sub((*count).max(0) as u64);
        }
        for key in behind {
            rows.remove(&key);
        }
    }

    /// The difference between two views of a partition.
    fn compare(&self, before: &View, after: &View, pending: &mut Pending) {
        if self.window.row_number {
            let (mut old, mut new) = (before.expanded(), after.expanded());
            let mut number = self.window.offset;
            loop {
                number += 1;
                let (gone, come) = (old.next(), new.next());
                if gone.is_none() && come.is_none() {
                    return;
                }
                if gone != come {
                    gone.into_iter().for_each(|row| pending.push(row, number, -1));
                    come.into_iter().for_each(|row| pending.push(row, number, 1));
                }
            }
        }
        let (mut i, mut j) = (0, 0);
        loop {
            let (old, new) = (before.row(i), after.row(j));
            let order = match (old, new) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let gone = old.filter(|_| order.is_le()).map_or(0, |(_, count)| count as i64);
            let come = new.filter(|_| order.is_ge()).map_or(0, |(_, count)| count as i64);
            let row = if order.is_le() { old } else { new };
            if let Some((row, _)) = row.filter(|_| come != gone) {
                pending.push(row, 0, come - gone);
            }
            i += usize::from(order.is_le());
            j += usize::from(order.is_ge());
        }
    }

    fn flush(&self, pending: &mut Pending, out: &mut Vec<Delta>) -> Result<()> {
        let Pending { bytes, ends, numbers, weights } = std::mem::take(pending);
        if weights.is_empty() {
            return Ok(());
        }
        let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
        let decoded = self.codec.decode((0..ends.len()).map(|i| &bytes[start(i)..ends[i]]))?;
        let mut columns = self.permutation.iter().zip(decoded.columns()).collect::<Vec<_>>();
        columns.sort_by_key(|(position, _)| **position);
        let mut columns = columns.into_iter().map(|(_, column)| ArrayRef::clone(column)).collect::<Vec<_>>();
        if self.window.row_number {
            columns.push(Arc::new(Int64Array::from(numbers)));
        }
        out.push(Delta::new(record_batch(&self.schema, columns, ends.len())?, diffs(weights)));
        Ok(())
    }

    fn encode(&self, batch: &RecordBatch) -> Result<RowBytes> {
        let columns = self.permutation.iter().map(|c| ArrayRef::clone(batch.column(*c))).collect::<Vec<_>>();
        RowBytes::new(&self.codec, &columns)
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
            chunks.push(self.encode(&delta.batch)?);
        }
        let row = |change: &Change| chunks[change.chunk as usize].get(change.row as usize);
        changes.sort_unstable_by(|a, b| a.partition.cmp(&b.partition).then_with(|| row(a).cmp(row(b))));

        let mut rows = self.rows.borrow_mut();
        let (mut before, mut after, mut pending, mut key) = (View::default(), View::default(), Pending::default(), Vec::new());
        for changes in changes.chunk_by(|a, b| a.partition == b.partition) {
            let prefix = partitions.get(changes[0].partition as usize);
            self.look(&rows, prefix, &mut before);
            let beyond = before.full
                && before.rows.len().checked_sub(1).and_then(|i| before.row(i)).is_some_and(|(last, _)| row(&changes[0]) > last);
            if beyond && self.forget {
                continue;
            }
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
            self.compare(&before, &after, &mut pending);
            if self.forget {
                self.prune(&mut rows, prefix);
            }
            if pending.weights.len() >= BATCH_ROWS_MAX {
                self.flush(&mut pending, out)?;
            }
        }
        self.flush(&mut pending, out)
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
