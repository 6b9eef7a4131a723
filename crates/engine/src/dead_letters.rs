//! Dead letters: records of sources that could not be read, kept where `on_error = 'dead_letter'` says so. They are rows of a
//! relation without a name, published in the epoch that takes the rows around them: they are committed with the position
//! after them, and a record that is read twice, by two readers or after a restart, is kept once.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, Schema};
use millpond_common::{Delta, RelationId, RelationSpec, Result};
use millpond_connect::Rejected;
use millpond_state::{ReadView, Scan};

/// The number of their relation, which no other has.
pub const DEAD_LETTERS: RelationId = RelationId(0);

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its source.
    pub source: RelationId,
    /// Where it is in it.
    pub position: String,
    /// How it was written there; long ones are cut.
    pub raw: Vec<u8>,
    /// What is wrong with it.
    pub error: String,
    /// When it was met, in microseconds since 1970.
    pub at: i64,
}

/// Columns and key of the relation.
pub(crate) fn spec() -> RelationSpec {
    let field = |name, of| Field::new(name, of, false);
    let (number, text) = (DataType::Int64, DataType::Utf8);
    let schema = Schema::new(vec![
        field("source", number.clone()),
        field("position", text.clone()),
        field("raw", DataType::Binary),
        field("error", text),
        field("at", number),
    ]);
    RelationSpec { id: DEAD_LETTERS, schema: Arc::new(schema), key: Some(vec![0, 1]), appended: false }
}

/// All that a view of the store has, the oldest first.
pub(crate) fn read(view: &ReadView) -> Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    for batch in view.scan(DEAD_LETTERS, Scan::default())? {
        let batch = batch?;
        letters.extend((0..batch.num_rows()).map(|row| letter(&batch, row)));
    }
    letters.sort_by(|a, b| (a.at, a.source, &a.position).cmp(&(b.at, b.source, &b.position)));
    Ok(letters)
}

fn letter(batch: &RecordBatch, row: usize) -> DeadLetter {
    let number = |c: usize| batch.column(c).as_primitive::<Int64Type>().value(row);
    let text = |c: usize| batch.column(c).as_string::<i32>().value(row).to_string();
    DeadLetter {
        source: RelationId(u32::try_from(number(0)).unwrap_or(0)),
        position: text(1),
        raw: batch.column(2).as_binary::<i32>().value(row).to_vec(),
        error: text(3),
        at: number(4),
    }
}

fn delta(rows: &[(&DeadLetter, i64)]) -> Result<Delta> {
    let numbers = |of: &dyn Fn(&DeadLetter) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| of(r.0)))) };
    let columns: Vec<ArrayRef> = vec![
        numbers(&|l| i64::from(l.source.0)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0.position))),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.0.raw))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0.error))),
        numbers(&|l| l.at),
    ];
    let batch = RecordBatch::try_new(spec().schema, columns)?;
    Ok(Delta::new(batch, Some(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))))
}

/// Those that are kept, as the clock knows them.
#[derive(Default)]
pub(crate) struct DeadLetters {
    kept: VecDeque<DeadLetter>,
    known: HashSet<(RelationId, String)>,
    counts: BTreeMap<RelationId, u64>,
}

impl DeadLetters {
    /// Those that the last checkpoint has: in its relation, and as changes of later epochs.
    pub fn load<'a>(view: &ReadView, later: impl Iterator<Item = &'a Delta>) -> Result<Self> {
        let mut letters = DeadLetters::default();
        read(view)?.into_iter().for_each(|letter| letters.keep(letter));
        for delta in later {
            let mut gone = 0;
            for row in 0..delta.len() {
                match delta.weight(row) > 0 {
                    true => letters.keep(letter(&delta.batch, row)),
                    false => gone += 1,
                }
            }
            letters.forget_oldest(gone);
        }
        Ok(letters)
    }

    fn forget_oldest(&mut self, count: usize) -> Vec<DeadLetter> {
        let removed = self.kept.drain(..count.min(self.kept.len())).collect::<Vec<_>>();
        for letter in &removed {
            self.known.remove(&(letter.source, letter.position.clone()));
            self.counts.entry(letter.source).and_modify(|n| *n -= 1);
        }
        removed
    }

    fn keep(&mut self, letter: DeadLetter) {
        if self.known.insert((letter.source, letter.position.clone())) {
            *self.counts.entry(letter.source).or_default() += 1;
            self.kept.push_back(letter);
        }
    }

    /// How many there are of a source.
    pub fn count(&self, source: RelationId) -> u64 {
        self.counts.get(&source).copied().unwrap_or(0)
    }

    /// Keeps records of a source; the oldest go when there are more than `max`. Returns what changes, if anything does.
    pub fn add(&mut self, source: RelationId, rejected: Vec<Rejected>, max: usize) -> Result<Option<Delta>> {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let (before, at) = (self.kept.len(), i64::try_from(at).unwrap_or(i64::MAX));
        for Rejected { place, raw, error } in rejected {
            self.keep(DeadLetter { source, position: place, raw, error: error.to_string(), at });
        }
        let removed = self.forget_oldest(self.kept.len().saturating_sub(max));
        // What came and went at once is no change.
        let old = removed.iter().take(before).map(|l| (l, -1));
        let new = self.kept.iter().skip(before.saturating_sub(removed.len())).map(|l| (l, 1));
        let rows = old.chain(new).collect::<Vec<_>>();
        if rows.is_empty() { Ok(None) } else { delta(&rows).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond_common::{Error, SqlState};

    fn add(letters: &mut DeadLetters, places: &[&str], max: usize) -> (i64, i64) {
        let error = Error::new(SqlState::DATA_EXCEPTION, "bad");
        let rejected = places.iter().map(|p| Rejected { place: (*p).into(), raw: vec![1], error: error.clone() }).collect();
        let delta = letters.add(RelationId(7), rejected, max).unwrap();
        let weights = delta.map(|d| (0..d.len()).map(|i| d.weight(i)).collect::<Vec<_>>()).unwrap_or_default();
        (weights.iter().filter(|w| **w > 0).sum(), weights.iter().filter(|w| **w < 0).sum())
    }

    #[test]
    fn each_is_kept_once_and_the_oldest_go() {
        let mut letters = DeadLetters::default();
        assert_eq!(add(&mut letters, &["a", "b", "a"], 3), (2, 0));
        assert_eq!(add(&mut letters, &["b", "a"], 3), (0, 0));
        assert_eq!(add(&mut letters, &["c", "d", "e"], 3), (3, -2));
        assert_eq!(add(&mut letters, &["f", "g", "h", "i"], 2), (2, -3), "two of the new ones come and go at once");
        assert_eq!(letters.kept.iter().map(|l| l.position.as_str()).collect::<Vec<_>>(), ["h", "i"]);
        assert_eq!(letters.count(RelationId(7)), 2);
        assert_eq!(add(&mut letters, &["x"], 0), (0, -2));
    }
}
