//! Pairs of rows on their way out: collected as positions, built column by column.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, take};
use millpond_common::{Delta, Error, Result, RowCodec};
use millpond_state::MultiState;

use super::super::keys::Interner;
use super::super::output::{BATCH_ROWS_MAX, diffs, record_batch};
use super::{LEFT, Shape};

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
        if self.weights.is_empty() {
            self.forget();
            return Ok(());
        }
        let rows = self.weights.len();
        let (mut left, right) = self.columns()?;
        if self.shape.emits_pairs() {
            left.extend(right);
        }
        let mut weights = std::mem::take(&mut self.weights);
        self.forget();
        let batch = match self.shape.filter.as_ref().filter(|_| self.shape.kind == millpond_plan::JoinKind::Inner) {
            None => record_batch(&self.shape.output, left, rows)?,
            Some(filter) => {
                let pairs = record_batch(&self.shape.pairs, left, rows)?;
                let mask = truth(filter.evaluate(&pairs)?)?;
                weights = weights.iter().zip(mask.values()).filter_map(|(w, keep)| keep.then_some(*w)).collect();
                let kept = filter_record_batch(&pairs, &mask)?;
                record_batch(&self.shape.output, kept.columns().to_vec(), kept.num_rows())?
            }
        };
        if batch.num_rows() > 0 {
            out.push(Delta::new(batch, diffs(weights)));
        }
        Ok(())
    }

    /// Judges what is collected by the filter, emits the pairs that pass if `emit`, forgets them, and tells which
    /// have passed.
    pub fn judge(&mut self, emit: bool, out: &mut Vec<Delta>) -> Result<BooleanArray> {
        let (rows, (mut left, right)) = (self.len(), self.columns()?);
        left.extend(right);
        let passed = match &self.shape.filter {
            Some(filter) => truth(filter.evaluate(&record_batch(&self.shape.pairs, left.clone(), rows)?)?)?,
            None => BooleanArray::from(vec![true; rows]),
        };
        if emit && passed.true_count() > 0 {
            let weights = self.weights.iter().zip(passed.values()).filter_map(|(w, keep)| keep.then_some(*w)).collect::<Vec<_>>();
            let kept = filter_record_batch(&record_batch(&self.shape.output, left, rows)?, &passed)?;
            out.push(Delta::new(kept, diffs(weights)));
        }
        self.forget();
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

    /// The left and the right columns of what is collected.
    fn columns(&self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let rows = self.weights.len();
        let own_width = if self.side == LEFT { self.left_width() } else { self.shape.pairs.fields().len() - self.left_width() };
        let own_fields = self.shape.pairs.fields().iter().skip(if self.side == LEFT { 0 } else { self.left_width() });
        let own = match &self.own {
            Some(batch) => pick(batch.columns(), &self.own_rows)?,
            None => own_fields.take(own_width).map(|f| new_null_array(f.data_type(), rows)).collect(),
        };
        let other = if self.side == LEFT && !self.shape.emits_pairs() && self.shape.filter.is_none() {
            // Left rows come out alone, and nothing asks for the right ones.
            Vec::new()
        } else {
            let decoded = self.other_codec.decode(self.decoding.iter().map(|(row, _)| *row))?;
            pick(decoded.columns(), &self.other_rows)?
        };
        Ok(if self.side == LEFT { (own, other) } else { (other, own) })
    }

    fn left_width(&self) -> usize {
        let other_width = self.other_codec.schema().fields().len();
        if self.side == LEFT { self.shape.pairs.fields().len() - other_width } else { other_width }
    }
}

/// The rows at `positions`, NULL where there is none.
fn pick(columns: &[ArrayRef], positions: &[u32]) -> Result<Vec<ArrayRef>> {
    let indices = if positions.contains(&ABSENT) {
        positions.iter().map(|p| (*p != ABSENT).then_some(*p)).collect::<UInt32Array>()
    } else {
        UInt32Array::from_iter_values(positions.iter().copied())
    };
    columns.iter().map(|c| Ok(take(c, &indices, None)?)).collect()
}

/// A condition's value as true or not true.
fn truth(value: ArrayRef) -> Result<BooleanArray> {
    let mask = value.as_boolean_opt().ok_or_else(|| Error::internal("a join condition is not boolean"))?;
    Ok(if mask.null_count() > 0 { arrow::compute::prep_null_mask_filter(mask) } else { mask.clone() })
}
