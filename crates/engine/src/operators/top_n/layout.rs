//! What both forms of the operator share: rows as bytes that sort as the query wants, and how a window's change comes out.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef, SortOptions};
use millpond_common::{Delta, Result, RowCodec};
use millpond_plan::SortKey;

use super::super::keys::{KeyCodec, RowBytes};
use super::super::output::{diffs, record_batch};

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

impl Window {
    /// How many rows of a partition can matter while nothing is deleted.
    pub fn reach(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_add(self.offset))
    }
}

/// Rows with the order's columns first and the others after them: sorting the bytes is sorting the rows, ties included.
pub struct Layout {
    /// Whole rows, with their columns in the order of `permutation`.
    codec: RowCodec,
    /// The order's columns alone: the beginning of a row's bytes.
    order: RowCodec,
    /// The input's column at each encoded place.
    permutation: Vec<usize>,
    /// How each encoded place is ordered.
    options: Vec<SortOptions>,
    /// What comes out.
    pub window: Window,
    schema: SchemaRef,
}

/// What a partition's window shows at one moment: rows in order, with their counts.
#[derive(Default)]
pub struct View {
    bytes: Vec<u8>,
    rows: Vec<(Range<usize>, u64)>,
    /// The window's limit is reached.
    pub full: bool,
}

/// Output rows still encoded.
#[derive(Default)]
pub struct Pending {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    numbers: Vec<i64>,
    weights: Vec<i64>,
}

impl View {
    /// Shows the window of a partition's rows, which come in order, each with how often it is there.
    pub fn show<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], u64)>, window: Window) {
        self.bytes.clear();
        self.rows.clear();
        let mut skip = window.offset;
        let mut room = window.limit.unwrap_or(u64::MAX);
        for (row, count) in rows {
            if room == 0 {
                break;
            }
            let skipped = skip.min(count);
            skip -= skipped;
            let shown = (count - skipped).min(room);
            if shown > 0 {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(row);
                self.rows.push((start..self.bytes.len(), shown));
                room -= shown;
            }
        }
        self.full = room == 0;
    }

    /// The last row shown.
    pub fn last(&self) -> Option<&[u8]> {
        self.rows.last().map(|(range, _)| &self.bytes[range.clone()])
    }

    fn row(&self, i: usize) -> Option<(&[u8], u64)> {
        self.rows.get(i).map(|(range, count)| (&self.bytes[range.clone()], *count))
    }

    /// Every row as often as it is there.
    fn expanded(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().flat_map(|(range, count)| std::iter::repeat_n(&self.bytes[range.clone()], *count as usize))
    }
}

impl Pending {
    /// How many rows wait.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    fn push(&mut self, row: &[u8], number: u64, weight: i64) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.numbers.push(number as i64);
        self.weights.push(weight);
    }
}

impl Layout {
    /// For rows of `input`; output rows have `schema`.
    pub fn new(partition: &[usize], order: &[SortKey], window: Window, input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let (mut permutation, mut options) = (Vec::new(), Vec::new());
        for key in order.iter().filter(|key| !partition.contains(&key.column)) {
            if !permutation.contains(&key.column) {
                permutation.push(key.column);
                options.push(SortOptions { descending: key.descending, nulls_first: key.nulls_first });
            }
        }
        let ordered = permutation.len();
        let rest = (0..input.fields().len()).filter(|c| !permutation.contains(c)).collect::<Vec<_>>();
        options.extend(rest.iter().map(|_| SortOptions { descending: false, nulls_first: false }));
        permutation.extend(rest);
        let fields = permutation.iter().map(|c| Arc::clone(&input.fields()[*c])).collect::<Vec<_>>();
        let codec = |columns: usize| RowCodec::with_order(Arc::new(Schema::new(fields[..columns].to_vec())), &options[..columns]);
        let (order, codec) = (codec(ordered)?, codec(fields.len())?);
        Ok(Layout { codec, order, permutation, options, window, schema: SchemaRef::clone(schema) })
    }

    /// The partition's key with which a key of partition and whole row begins.
    pub fn prefix<'a>(&self, partition: &KeyCodec, key: &'a [u8]) -> Result<&'a [u8]> {
        partition.prefix(self.codec.schema(), &self.options, key)
    }

    /// Whole rows.
    pub fn encode(&self, batch: &RecordBatch) -> Result<RowBytes> {
        self.columns(&self.codec, batch)
    }

    /// What the order alone sees of the rows: with these bytes each row's bytes begin.
    pub fn encode_order(&self, batch: &RecordBatch) -> Result<RowBytes> {
        self.columns(&self.order, batch)
    }

    fn columns(&self, codec: &RowCodec, batch: &RecordBatch) -> Result<RowBytes> {
        let columns = self.permutation.iter().take(codec.schema().fields().len()).map(|c| ArrayRef::clone(batch.column(*c)));
        RowBytes::new(codec, &columns.collect::<Vec<_>>())
    }

    /// The difference between two views of a partition.
    pub fn compare(&self, before: &View, after: &View, pending: &mut Pending) {
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

    /// Emits what waits.
    pub fn flush(&self, pending: &mut Pending, out: &mut Vec<Delta>) -> Result<()> {
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
}
