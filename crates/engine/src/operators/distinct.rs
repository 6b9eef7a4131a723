//! Each row once.

use std::cell::RefCell;
use std::rc::Rc;

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};
use millpond_state::KeyedState;

use super::keys::{Interner, KeyCodec, WARM_KEYS};
use super::output::{BATCH_ROWS_MAX, diffs, record_batch};
use super::{EpochContext, Operator, StateHandle};

/// Emits a row when its count leaves zero and takes it back when its count returns there.
pub struct Distinct {
    /// Row → how often it is in the input.
    counts: Rc<RefCell<KeyedState<i64>>>,
    rows: KeyCodec,
    schema: SchemaRef,
}

impl Distinct {
    /// Over rows of `input`; `schema` differs from it in names at most.
    pub fn new(input: &SchemaRef, schema: &SchemaRef) -> Result<Self> {
        let all = (0..input.fields().len()).collect::<Vec<_>>();
        Ok(Distinct { counts: Rc::default(), rows: KeyCodec::new(input, &all)?, schema: SchemaRef::clone(schema) })
    }

    fn flush(&self, rows: &mut Vec<&[u8]>, weights: &mut Vec<i64>, out: &mut Vec<Delta>) -> Result<()> {
        if !rows.is_empty() {
            let columns = self.rows.decode(rows.iter().copied())?;
            let batch = record_batch(&self.schema, columns, rows.len())?;
            out.push(Delta::new(batch, diffs(std::mem::take(weights))));
            rows.clear();
        }
        Ok(())
    }
}

impl Operator for Distinct {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        vec![("counts", Rc::clone(&self.counts) as StateHandle)]
    }

    fn step(&mut self, inputs: Vec<Vec<Delta>>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let (mut seen, mut changes) = (Interner::default(), Vec::<i64>::new());
        for delta in inputs.iter().flatten() {
            let keys = self.rows.encode(&delta.batch)?;
            for i in 0..delta.len() {
                let row = seen.intern(keys.hash(i), keys.get(i));
                if row == changes.len() {
                    changes.push(0);
                }
                changes[row] += delta.weight(i);
            }
        }
        let mut counts = self.counts.borrow_mut();
        counts.fetch(seen.iter())?;
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        for (number, change) in changes.into_iter().enumerate() {
            if number % WARM_KEYS == 0 {
                let next = (number..(number + WARM_KEYS).min(seen.len())).filter_map(|n| counts.get(seen.get(n)));
                std::hint::black_box(next.sum::<i64>());
            }
            if change == 0 {
                continue;
            }
            let row = seen.get(number);
            let count = counts.get_or_insert_with(row, || 0);
            let before = *count;
            *count += change;
            let after = *count;
            if after == 0 {
                counts.remove(row);
            }
            if (before > 0) != (after > 0) {
                rows.push(row);
                weights.push(if after > 0 { 1 } else { -1 });
            }
            if rows.len() >= BATCH_ROWS_MAX {
                self.flush(&mut rows, &mut weights, out)?;
            }
        }
        self.flush(&mut rows, &mut weights, out)
    }

    fn into_output(self: Box<Self>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let counts = self.counts.borrow();
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        for (row, _) in counts.iter().filter(|(_, count)| **count > 0) {
            rows.push(row);
            weights.push(1);
            if rows.len() >= BATCH_ROWS_MAX {
                self.flush(&mut rows, &mut weights, out)?;
            }
        }
        self.flush(&mut rows, &mut weights, out)
    }
}
