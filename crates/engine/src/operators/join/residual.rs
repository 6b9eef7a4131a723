//! Outer, semi and anti joins with a condition beyond equal keys: whether a row has a match depends on the rows of
//! its key, not on the key alone. So each side counts, for each of its rows that may come out alone, the rows of the
//! other side that match it. A pair is judged once, when the later of its rows arrives (and once more when it goes).

use millpond_common::{Delta, Result};
use millpond_state::StateTable;

use super::super::keys::{Interner, Keys};
use super::super::output::BATCH_ROWS_MAX;
use super::Join;
use super::pairs::Pairs;
use millpond_common::hash::hash_bytes;

/// Rows of the resting side whose match counts change in a phase.
#[derive(Default)]
struct Touched<'a> {
    /// Key and row.
    rows: Interner,
    changes: Vec<Change<'a>>,
}

struct Change<'a> {
    row: &'a [u8],
    weight: i64,
    /// How many more rows match it.
    more: i64,
}

/// Pairs to be judged: own row, its key's place, the other row.
struct Candidate<'a> {
    own: usize,
    row: &'a [u8],
    row_weight: i64,
}

impl Join {
    /// One side's changes meet the other side's rows, judged by the condition.
    pub(super) fn residual_phase(&self, side: usize, deltas: &[Delta], out: &mut Vec<Delta>) -> Result<()> {
        let (own, other) = (&self.sides[side], &self.sides[1 - side]);
        let other_rows = other.rows.borrow();
        let mut own_rows = own.rows.borrow_mut();
        let mut pairs = Pairs::new(&self.shape, side, &other.codec);
        let mut touched = Touched::default();
        let counts_own = self.shape.alone_if_matched(side).is_some();
        for delta in deltas {
            let keys = own.keys.encode(&delta.batch)?;
            let valid = if self.null_equals_null { None } else { own.keys.non_null(&delta.batch) };
            let matchable = |i: usize| valid.as_ref().is_none_or(|v| v.is_valid(i));
            let mut matches = vec![0; delta.len()];
            let mut candidates = Vec::new();
            pairs.begin(&delta.batch);
            for i in (0..delta.len()).filter(|i| matchable(*i)) {
                for (row, row_weight) in other_rows.rows(keys.get(i)) {
                    pairs.pair(i, row, delta.weight(i) * row_weight);
                    candidates.push(Candidate { own: i, row, row_weight });
                    if pairs.len() >= BATCH_ROWS_MAX {
                        self.settle(side, &mut pairs, &mut candidates, (delta, &keys), &mut matches, &mut touched, out)?;
                    }
                }
            }
            self.settle(side, &mut pairs, &mut candidates, (delta, &keys), &mut matches, &mut touched, out)?;

            let rows = own.encode(delta)?;
            let mut own_matches = own.matches.borrow_mut();
            let mut place = Vec::new();
            if counts_own && own_matches.is_partial() {
                let places = (0..delta.len()).map(|i| [keys.get(i), rows.get(i)].concat()).collect::<Vec<_>>();
                own_matches.fetch(places.iter().map(Vec::as_slice))?;
            }
            for (i, found) in matches.into_iter().enumerate() {
                let weight = delta.weight(i);
                if let Some(weight) = self.shape.alone(side, found > 0, weight) {
                    pairs.own_alone(i, weight, out)?;
                }
                if !matchable(i) {
                    continue;
                }
                own_rows.add(keys.get(i), rows.get(i), weight);
                if counts_own {
                    join_bytes(&mut place, keys.get(i), rows.get(i));
                    if found != 0 && own_rows.weight(keys.get(i), rows.get(i)) != 0 {
                        *own_matches.get_or_insert_with(&place, || 0) = found;
                    } else {
                        own_matches.remove(&place);
                    }
                }
            }
            pairs.end(out)?;
        }
        let mut other_matches = other.matches.borrow_mut();
        other_matches.fetch(touched.rows.iter())?;
        for (number, change) in touched.changes.iter().enumerate().filter(|(_, c)| c.more != 0) {
            let place = touched.rows.get(number);
            let count = other_matches.get_or_insert_with(place, || 0);
            let before = *count;
            *count += change.more;
            let after = *count;
            if after == 0 {
                other_matches.remove(place);
            }
            let sign = self.shape.flip(1 - side, before > 0, after > 0);
            if sign != 0 {
                pairs.other_alone(change.row, change.weight * sign, out)?;
            }
        }
        pairs.end(out)
    }

    /// Judges the collected pairs: emits those that pass, and counts matches on both sides.
    #[allow(clippy::too_many_arguments)] // all of them are one phase's working memory
    fn settle<'a>(
        &self,
        side: usize,
        pairs: &mut Pairs<'a>,
        candidates: &mut Vec<Candidate<'a>>,
        (delta, keys): (&Delta, &Keys),
        matches: &mut [i64],
        touched: &mut Touched<'a>,
        out: &mut Vec<Delta>,
    ) -> Result<()> {
        if candidates.is_empty() {
            return Ok(());
        }
        let passed = pairs.judge(self.shape.emits_pairs(), out)?;
        let counts_other = self.shape.alone_if_matched(1 - side).is_some();
        let mut place = Vec::new();
        for (candidate, _) in candidates.drain(..).zip(passed.values()).filter(|(_, passed)| *passed) {
            matches[candidate.own] += candidate.row_weight;
            if counts_other {
                join_bytes(&mut place, keys.get(candidate.own), candidate.row);
                let number = touched.rows.intern(hash_bytes(&place), &place);
                if number == touched.changes.len() {
                    touched.changes.push(Change { row: candidate.row, weight: candidate.row_weight, more: 0 });
                }
                touched.changes[number].more += delta.weight(candidate.own);
            }
        }
        Ok(())
    }
}

/// Where a row's match count is kept. Keys end where their last column ends, so no two (key, row) read alike.
fn join_bytes(place: &mut Vec<u8>, key: &[u8], row: &[u8]) {
    place.clear();
    place.extend_from_slice(key);
    place.extend_from_slice(row);
}
