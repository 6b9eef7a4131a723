//! Pairs of rows on their way out: collected as positions, built column by column.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter, take};
use arrow::datatypes::UInt32Type;
use millpond_common::{Delta, Result, RowCodec};
use millpond_plan::JoinKind;
use millpond_state::MultiState;

use super::super::keys::Interner;
use super::super::output::{BATCH_ROWS_MAX, diffs, record_batch};
use super::{LEFT, RIGHT, Shape};

/// No row on this side of the pair: its columns are NULL.
const ABSENT: u32 = u32::MAX;

/// A key with more rows than this is walked row by row instead of being decoded whole.
const CACHED_ROWS_MAX: usize = 1024;

/// Collects pairs of own rows (positions in one batch) and other rows (encoded, in the state), and builds output
/// from them. A key probed twice within an output batch is looked up and decoded once.
pub struct Pairs<'a> {
    shape: &'a Shape,
    /// Which side is the moving one.
    side: usize,
    other_codec: &'a RowCodec,
    own: Option<RecordBatch>,
    own_rows: Vec<u32>,
    /// Positions in `decoding`.
    other_rows: Vec<u32>,
    weights: Vec<i64>,
    /// Other rows that occur, to be decoded; with their weights.
    decoding: Vec<(&'a [u8], i64)>,
    probed: Interner,
    /// Where in `decoding` the rows of each probed key are; `None`: too many.
    ranges: Vec<Option<(u32, u32)>>,
}

impl<'a> Pairs<'a> {
    /// Nothing collected yet.
    pub fn new(shape: &'a Shape, side: usize, other_codec: &'a RowCodec) -> Self {
        Pairs {
            shape,
            side,
            other_codec,
            own: None,
            own_rows: Vec::new(),
            other_rows: Vec::new(),
            weights: Vec::new(),
            decoding: Vec::new(),
            probed: Interner::default(),
            ranges: Vec::new(),
        }
    }

    /// From now on own rows are rows of `own`.
    pub fn begin(&mut self, own: &RecordBatch) {
        self.own = Some(own.clone());
    }

    /// Emits what is collected; own rows end here.
    pub fn end(&mut self, out: &mut Vec<Delta>) -> Result<()> {
        self.flush(out)?;
        self.own = None;
        Ok(())
    }

    /// Pairs own row `i` with every other row of its key.
    pub fn probe(&mut self, i: usize, weight: i64, hash: u64, key: &[u8], other: &'a MultiState, out: &mut Vec<Delta>) -> Result<()> {
        let number = self.probed.intern(hash, key);
        if number == self.ranges.len() {
            let start = self.decoding.len();
            self.decoding.extend(other.rows(key).take(CACHED_ROWS_MAX + 1));
            if self.decoding.len() - start > CACHED_ROWS_MAX {
                self.decoding.truncate(start);
                self.ranges.push(None);
            } else {
                self.ranges.push(Some((start as u32, self.decoding.len() as u32)));
            }
        }
        match self.ranges[number] {
            Some((start, end)) => {
                for at in start..end {
                    self.push(i as u32, at, weight * self.decoding[at as usize].1);
                }
                self.flush_if_full(out)?;
            }
            None => {
                for (row, row_weight) in other.rows(key) {
                    let at = self.decode_later(row);
                    self.push(i as u32, at, weight * row_weight);
                    self.flush_if_full(out)?;
                }
            }
        }
        Ok(())
    }

    /// Own row `i` without a partner.
    pub fn own_alone(&mut self, i: usize, weight: i64, out: &mut Vec<Delta>) -> Result<()> {
        self.push(i as u32, ABSENT, weight);
        self.flush_if_full(out)
    }

    /// A row of the other side without a partner.
    pub fn other_alone(&mut self, row: &'a [u8], weight: i64, out: &mut Vec<Delta>) -> Result<()> {
        let at = self.decode_later(row);
        self.push(ABSENT, at, weight);
        self.flush_if_full(out)
    }

    /// Own row `i` with one row of the other side, for a caller that judges pairs itself.
    pub fn pair(&mut self, i: usize, row: &'a [u8], weight: i64) {
        let at = self.decode_later(row);
        self.push(i as u32, at, weight);
    }

    /// How many pairs are collected.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    fn decode_later(&mut self, row: &'a [u8]) -> u32 {
        self.decoding.push((row, 0));
        self.decoding.len() as u32 - 1
    }

    fn push(&mut self, own: u32, other: u32, weight: i64) {
        self.own_rows.push(own);
        self.other_rows.push(other);
        self.weights.push(weight);
    }

    fn flush_if_full(&mut self, out: &mut Vec<Delta>) -> Result<()> {
        if self.weights.len() >= BATCH_ROWS_MAX { self.flush(out) } else { Ok(()) }
    }

    /// Emits what is collected, filtered.
    fn flush(&mut self, out: &mut Vec<Delta>) -> Result<()> {
        let mut collected = self.take()?;
        if let Some(filter) = self.shape.filter.as_ref().filter(|_| self.shape.kind == JoinKind::Inner) {
            collected.keep(&filter.truth(collected.len(), |i| collected.column(self.shape, i))?)?;
        }
        collected.emit(self.shape, out)
    }

    /// Judges what is collected by the filter, emits the pairs that pass if `emit`, forgets them, and tells which
    /// have passed.
    pub fn judge(&mut self, emit: bool, out: &mut Vec<Delta>) -> Result<BooleanArray> {
        let mut collected = self.take()?;
        let passed = match &self.shape.filter {
            Some(filter) => filter.truth(collected.len(), |i| collected.column(self.shape, i))?,
            None => BooleanArray::from(vec![true; collected.len()]),
        };
        if emit {
            collected.keep(&passed)?;
            collected.emit(self.shape, out)?;
        }
        Ok(passed)
    }

    /// Drops what is collected.
    fn forget(&mut self) {
        self.own_rows.clear();
        self.other_rows.clear();
        self.weights.clear();
        self.decoding.clear();
        self.probed.clear();
        self.ranges.clear();
    }

    /// What is collected, which begins anew.
    fn take(&mut self) -> Result<Collected> {
        // Left rows may come out alone, and nothing asks for the right ones.
        let other_is_unused = self.side == LEFT && !self.shape.emits_pairs() && self.shape.filter.is_none();
        let other = match other_is_unused || self.weights.is_empty() {
            true => None,
            false => Some(self.other_codec.decode(self.decoding.iter().map(|(row, _)| *row))?),
        };
        let width = self.other_codec.schema().fields().len();
        let left_width = if self.side == LEFT { self.shape.pairs.fields().len() - width } else { width };
        let mut halves = [(self.own.clone(), positions(&self.own_rows)), (other, positions(&self.other_rows))];
        if self.side != LEFT {
            halves.reverse();
        }
        let weights = std::mem::take(&mut self.weights);
        self.forget();
        Ok(Collected { left_width, halves, weights })
    }
}

/// Pairs whose columns are built when they are asked for.
struct Collected {
    left_width: usize,
    /// The left and the right rows that occur (`None`: all are absent), and which of them each pair has.
    halves: [(Option<RecordBatch>, UInt32Array); 2],
    weights: Vec<i64>,
}

impl Collected {
    fn len(&self) -> usize {
        self.weights.len()
    }

    fn column(&self, shape: &Shape, i: usize) -> Result<ArrayRef> {
        let (half, own) = if i < self.left_width { (LEFT, i) } else { (RIGHT, i - self.left_width) };
        let (rows, positions) = &self.halves[half];
        match rows {
            Some(rows) => Ok(take(rows.column(own), positions, None)?),
            None => Ok(new_null_array(shape.pairs.field(i).data_type(), self.len())),
        }
    }

    fn keep(&mut self, passed: &BooleanArray) -> Result<()> {
        for (_, positions) in &mut self.halves {
            *positions = filter(positions, passed)?.as_primitive::<UInt32Type>().clone();
        }
        self.weights = self.weights.iter().zip(passed.values()).filter_map(|(w, keep)| keep.then_some(*w)).collect();
        Ok(())
    }

    fn emit(self, shape: &Shape, out: &mut Vec<Delta>) -> Result<()> {
        if self.weights.is_empty() {
            return Ok(());
        }
        let columns = (0..shape.output.fields().len()).map(|i| self.column(shape, i)).collect::<Result<Vec<_>>>()?;
        let batch = record_batch(&shape.output, columns, self.len())?;
        out.push(Delta::new(batch, diffs(self.weights)));
        Ok(())
    }
}

/// Positions of rows, NULL where there is none.
fn positions(rows: &[u32]) -> UInt32Array {
    if rows.contains(&ABSENT) {
        rows.iter().map(|p| (*p != ABSENT).then_some(*p)).collect()
    } else {
        UInt32Array::from_iter_values(rows.iter().copied())
    }
}
