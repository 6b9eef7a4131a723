//! What a transaction has changed in one table and not committed yet.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow_row::Rows;
use arrow_schema::SchemaRef;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use millpond_common::{Delta, Error, RelationSpec, Result, RowCodec};
use parking_lot::Mutex;

/// From so many batches on, those of many small statements are joined.
const BATCHES_MAX: usize = 256;
/// Rows in one piece of what a reader sees of the changes.
const CHUNK_ROWS: usize = 8192;

/// A row in one of the overlay's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowRef {
    batch: u32,
    row: u32,
}

/// A key's row before the transaction and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    old: Option<RowRef>,
    new: Option<RowRef>,
}

/// How a key stands in an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not touched: what is stored holds.
    Untouched,
    /// Its row is gone.
    Deleted,
    /// Its row is this one of the rows collected.
    Row(u32),
}

/// Changes of a table with a primary key: per key the old row and the new one.
pub struct KeyedChanges {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    changes: HashMap<Box<[u8]>, Change, ahash::RandomState>,
    /// Rows at the last joining of batches: the next one is due when they have doubled.
    joined_rows: usize,
    /// What to put back to undo, newest last; kept while there are savepoints.
    undo: Option<Vec<(Box<[u8]>, Option<Change>)>>,
    /// The changes as deltas, until the next change.
    seen: Mutex<Option<Vec<Delta>>>,
}

impl KeyedChanges {
    fn new(schema: SchemaRef) -> Self {
        let (batches, changes) = (vec![], HashMap::default());
        KeyedChanges { schema, batches, changes, joined_rows: 0, undo: None, seen: Mutex::new(None) }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<u32> {
        self.batches.push(RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?);
        Ok(self.batches.len() as u32 - 1)
    }

    fn set(&mut self, key: &[u8], change: Option<Change>) {
        let before = match change {
            Some(change) => match self.changes.get_mut(key) {
                Some(known) => Some(std::mem::replace(known, change)),
                None => self.changes.insert(key.into(), change),
            },
            None => self.changes.remove(key),
        };
        if let Some(undo) = &mut self.undo {
            undo.push((key.into(), before));
        }
    }

    /// Removes rows that are there and adds rows whose keys are then free.
    fn apply(&mut self, removed: Option<(&RecordBatch, &Rows)>, added: Option<(&RecordBatch, &Rows)>) -> Result<()> {
        self.seen.get_mut().take();
        if let Some((rows, keys)) = removed {
            let batch = self.push(rows)?;
            for (row, key) in keys.iter().enumerate() {
                let change = match self.changes.get(key.as_ref()) {
                    Some(Change { old: None, .. }) => None,
                    Some(Change { old, .. }) => Some(Change { old: *old, new: None }),
                    None => Some(Change { old: Some(RowRef { batch, row: row as u32 }), new: None }),
                };
                self.set(key.as_ref(), change);
            }
        }
        if let Some((rows, keys)) = added {
            let batch = self.push(rows)?;
            for (row, key) in keys.iter().enumerate() {
                let old = match self.changes.get(key.as_ref()) {
                    Some(Change { new: Some(_), .. }) => return Err(Error::internal("a key would have two rows")),
                    Some(Change { old, .. }) => *old,
                    None => None,
                };
                self.set(key.as_ref(), Some(Change { old, new: Some(RowRef { batch, row: row as u32 }) }));
            }
        }
        self.join_batches()
    }

    /// Joins the batches of many small statements, and leaves out rows that nothing refers to any more.
    fn join_batches(&mut self) -> Result<()> {
        let rows = self.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let doubled = rows >= 2 * self.joined_rows || self.batches.len() > 8 * BATCHES_MAX;
        if self.batches.len() < BATCHES_MAX || rows / self.batches.len() > CHUNK_ROWS || !doubled {
            return Ok(());
        }
        let undone = self.undo.iter_mut().flatten().filter_map(|(_, c)| c.as_mut());
        let refs = self.changes.values_mut().chain(undone).flat_map(|c| [c.old.as_mut(), c.new.as_mut()]).flatten();
        let mut kept = Vec::new();
        for (place, reference) in refs.enumerate() {
            kept.push((reference.batch as usize, reference.row as usize));
            *reference = RowRef { batch: 0, row: place as u32 };
        }
        self.joined_rows = kept.len();
        self.batches = match kept.is_empty() {
            true => vec![],
            false => vec![interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &kept)?],
        };
        Ok(())
    }

    /// How keys stand, and the rows of those that have one here.
    fn standing(&self, keys: &Rows) -> Result<(Vec<Standing>, Option<RecordBatch>)> {
        let mut rows = Vec::new();
        let of_key = |key: arrow_row::Row<'_>| match self.changes.get(key.as_ref()) {
            None => Standing::Untouched,
            Some(Change { new: None, .. }) => Standing::Deleted,
            Some(Change { new: Some(r), .. }) => {
                rows.push((r.batch as usize, r.row as usize));
                Standing::Row(rows.len() as u32 - 1)
            }
        };
        let standing = keys.iter().map(of_key).collect();
        let rows = match rows.is_empty() {
            true => None,
            false => Some(interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &rows)?),
        };
        Ok((standing, rows))
    }

    /// The changes for a reader.
    fn deltas(&self) -> Vec<Delta> {
        let mut seen = self.seen.lock();
        seen.get_or_insert_with(|| {
            let refs = self.changes.values().flat_map(|c| [c.old.map(|r| (r, -1)), c.new.map(|r| (r, 1))]).flatten();
            let mut refs = refs.collect::<Vec<_>>();
            refs.sort_unstable();
            refs.chunks(CHUNK_ROWS).flat_map(|chunk| self.pieces(chunk)).collect()
        })
        .clone()
    }

    /// Some rows with weights, as one delta. Rows too large to be copied together come one by one.
    fn pieces(&self, refs: &[(RowRef, i64)]) -> Vec<Delta> {
        let places = refs.iter().map(|(r, _)| (r.batch as usize, r.row as usize)).collect::<Vec<_>>();
        match interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &places) {
            Ok(batch) => vec![Delta::new(batch, Some(refs.iter().map(|(_, w)| *w).collect()))],
            Err(_) => {
                let one = |((b, row), (_, w)): (&(usize, usize), &(RowRef, i64))| {
                    self.batches.get(*b).map(|batch| Delta::new(batch.slice(*row, 1), Some(Int64Array::from(vec![*w]))))
                };
                places.iter().zip(refs).filter_map(one).collect()
            }
        }
    }

    /// The exact net change: rows that have become what they were are left out.
    fn net(&self) -> Result<Option<Delta>> {
        let batches = self.batches.iter().collect::<Vec<_>>();
        let gather = |refs: &[RowRef]| -> Result<RecordBatch> {
            let places = refs.iter().map(|r| (r.batch as usize, r.row as usize)).collect::<Vec<_>>();
            Ok(interleave_record_batch(&batches, &places)?)
        };
        let (mut olds, mut news, mut refs) = (Vec::new(), Vec::new(), Vec::new());
        for change in self.changes.values() {
            match (change.old, change.new) {
                (Some(old), Some(new)) => {
                    olds.push(old);
                    news.push(new);
                }
                (old, new) => refs.extend(old.map(|r| (r, -1)).or(new.map(|r| (r, 1)))),
            }
        }
        if !olds.is_empty() {
            let codec = RowCodec::new(Arc::clone(&self.schema))?;
            let (old_rows, new_rows) = (codec.encode_batch(&gather(&olds)?)?, codec.encode_batch(&gather(&news)?)?);
            for ((old, new), (o, n)) in olds.iter().zip(&news).zip(old_rows.iter().zip(new_rows.iter())) {
                if o != n {
                    refs.extend([(*old, -1), (*new, 1)]);
                }
            }
        }
        if refs.is_empty() {
            return Ok(None);
        }
        refs.sort_unstable();
        let batch = gather(&refs.iter().map(|(r, _)| *r).collect::<Vec<_>>())?;
        Ok(Some(Delta::new(batch, Some(refs.iter().map(|(_, w)| *w).collect()))))
    }

    fn undo_to(&mut self, mark: usize) {
        self.seen.get_mut().take();
        let Some(undo) = &mut self.undo else { return };
        for (key, before) in undo.drain(mark.min(undo.len())..).rev() {
            match (self.changes.entry(key), before) {
                (Entry::Occupied(mut e), Some(before)) => drop(e.insert(before)),
                (Entry::Occupied(e), None) => drop(e.remove()),
                (Entry::Vacant(e), Some(before)) => drop(e.insert(before)),
                (Entry::Vacant(_), None) => {}
            }
        }
    }
}

/// Changes of a table without a primary key: rows with weights, in the order of the statements.
#[derive(Default)]
pub struct MultisetChanges {
    deltas: Vec<Delta>,
    rows: usize,
}

impl MultisetChanges {
    fn undo_to(&mut self, mark: usize) {
        self.deltas.truncate(mark);
        self.rows = self.deltas.iter().map(Delta::len).sum();
    }
}

/// What a transaction has changed in one table.
pub struct TableChanges {
    spec: RelationSpec,
    kind: Kind,
}

enum Kind {
    Keyed(KeyedChanges),
    Multiset(MultisetChanges),
}

impl TableChanges {
    /// None yet. `undoable`: the transaction has savepoints.
    pub fn new(spec: RelationSpec, undoable: bool) -> Self {
        let kind = match &spec.key {
            Some(_) => Kind::Keyed(KeyedChanges { undo: undoable.then(Vec::new), ..KeyedChanges::new(Arc::clone(&spec.schema)) }),
            None => Kind::Multiset(MultisetChanges::default()),
        };
        TableChanges { spec, kind }
    }

    /// Removes rows that are there, then adds rows whose keys (given with them) are free.
    pub fn apply(&mut self, removed: Option<(&RecordBatch, &Rows)>, added: Option<(&RecordBatch, &Rows)>) -> Result<()> {
        let filled = |c: Option<(&RecordBatch, &Rows)>| c.is_some_and(|(rows, _)| rows.num_rows() > 0);
        let (removed, added) = (removed.filter(|c| filled(Some(*c))), added.filter(|c| filled(Some(*c))));
        match &mut self.kind {
            Kind::Keyed(changes) => changes.apply(removed, added),
            Kind::Multiset(changes) => {
                for (rows, weight) in [(removed, -1), (added, 1)] {
                    let Some((rows, _)) = rows else { continue };
                    let batch = RecordBatch::try_new(Arc::clone(&self.spec.schema), rows.columns().to_vec())?;
                    changes.rows += batch.num_rows();
                    let delta = Delta::insert(batch);
                    changes.deltas.push(if weight < 0 { delta.negate() } else { delta });
                }
                Ok(())
            }
        }
    }

    /// How keys stand here, and the rows of those that have one. A multiset has no keys.
    pub fn standing(&self, keys: &Rows) -> Result<(Vec<Standing>, Option<RecordBatch>)> {
        match &self.kind {
            Kind::Keyed(changes) => changes.standing(keys),
            Kind::Multiset(_) => Ok((vec![Standing::Untouched; keys.num_rows()], None)),
        }
    }

    /// How many rows or keys are changed.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Keyed(changes) => changes.changes.len(),
            Kind::Multiset(changes) => changes.rows,
        }
    }

    /// The changes for a reader on top of what is committed.
    pub fn deltas(&self) -> Vec<Delta> {
        match &self.kind {
            Kind::Keyed(changes) => changes.deltas(),
            Kind::Multiset(changes) => changes.deltas.clone(),
        }
    }

    /// The exact net change; `None` if there is none.
    pub fn net(&self) -> Result<Option<Delta>> {
        match &self.kind {
            Kind::Keyed(changes) => changes.net(),
            Kind::Multiset(changes) => millpond_engine::consolidate(&changes.deltas),
        }
    }

    /// A place to come back to with [`TableChanges::undo_to`]; changes are undoable from now on.
    pub fn mark(&mut self) -> usize {
        match &mut self.kind {
            Kind::Keyed(changes) => changes.undo.get_or_insert_default().len(),
            Kind::Multiset(changes) => changes.deltas.len(),
        }
    }

    /// Undoes everything since a mark; 0 if it was not touched when the mark was made.
    pub fn undo_to(&mut self, mark: usize) {
        match &mut self.kind {
            Kind::Keyed(changes) => changes.undo_to(mark),
            Kind::Multiset(changes) => changes.undo_to(mark),
        }
    }

    /// No marks are left.
    pub fn forget_marks(&mut self) {
        if let Kind::Keyed(changes) = &mut self.kind {
            changes.undo = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use arrow_schema::{DataType, Field, Schema};
    use millpond_common::RelationId;
    use std::collections::BTreeMap;

    fn spec(keyed: bool) -> RelationSpec {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Int64, true)];
        RelationSpec { id: RelationId(1), schema: Arc::new(Schema::new(fields)), key: keyed.then(|| vec![0]), appended: false }
    }

    fn batch(rows: &[(i64, i64)]) -> RecordBatch {
        let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
        let values = Int64Array::from_iter_values(rows.iter().map(|r| r.1));
        RecordBatch::try_new(spec(true).schema, vec![Arc::new(ids), Arc::new(values)]).unwrap()
    }

    fn keys(batch: &RecordBatch) -> Rows {
        let spec = spec(true);
        RowCodec::new(spec.project(&[0])).unwrap().encode(&batch.columns()[..1]).unwrap()
    }

    fn change(changes: &mut TableChanges, removed: &[(i64, i64)], added: &[(i64, i64)]) {
        let (removed, added) = (batch(removed), batch(added));
        changes.apply(Some((&removed, &keys(&removed))), Some((&added, &keys(&added)))).unwrap();
    }

    fn rows(deltas: &[Delta]) -> Vec<(i64, i64, i64)> {
        let mut all = vec![];
        for d in deltas {
            let (ids, values) = (d.batch.column(0).as_primitive::<Int64Type>(), d.batch.column(1).as_primitive::<Int64Type>());
            all.extend((0..d.len()).map(|i| (ids.value(i), values.value(i), d.weight(i))));
        }
        all.sort_unstable();
        all
    }

    fn net(changes: &TableChanges) -> Vec<(i64, i64, i64)> {
        rows(changes.net().unwrap().as_slice())
    }

    #[test]
    fn only_the_net_change_is_left() {
        let mut changes = TableChanges::new(spec(true), false);
        change(&mut changes, &[], &[(1, 10), (2, 20)]);
        change(&mut changes, &[(2, 20)], &[(2, 21)]);
        change(&mut changes, &[(1, 10)], &[]);
        change(&mut changes, &[(3, 30), (4, 40), (5, 50)], &[(3, 31), (4, 41)]);
        change(&mut changes, &[(4, 41)], &[(4, 40)]);
        assert_eq!(net(&changes), [(2, 21, 1), (3, 30, -1), (3, 31, 1), (5, 50, -1)]);
        let (standing, found) = changes.standing(&keys(&batch(&[(1, 0), (3, 0), (5, 0), (9, 0)]))).unwrap();
        assert_eq!(standing, [Standing::Untouched, Standing::Row(0), Standing::Deleted, Standing::Untouched]);
        assert_eq!(found.unwrap(), batch(&[(3, 31)]));
    }

    #[test]
    fn a_key_moves() {
        let mut changes = TableChanges::new(spec(true), false);
        change(&mut changes, &[(1, 10), (2, 20)], &[(2, 10), (3, 20)]);
        assert_eq!(net(&changes), [(1, 10, -1), (2, 10, 1), (2, 20, -1), (3, 20, 1)]);
    }

    #[test]
    fn marks_bring_back_what_was() {
        for keyed in [true, false] {
            let mut changes = TableChanges::new(spec(keyed), false);
            change(&mut changes, &[(7, 70)], &[(1, 10)]);
            let first = changes.mark();
            let before = net(&changes);
            change(&mut changes, &[(1, 10)], &[(1, 11), (2, 20)]);
            let second = changes.mark();
            let between = net(&changes);
            change(&mut changes, &[(1, 11), (2, 20)], &[(7, 70)]);
            changes.undo_to(second);
            assert_eq!(net(&changes), between);
            assert_eq!(rows(&changes.deltas()).iter().map(|r| r.2).sum::<i64>(), 1);
            changes.undo_to(first);
            assert_eq!(net(&changes), before);
        }
    }

    #[test]
    fn a_multiset_adds_up() {
        let mut changes = TableChanges::new(spec(false), false);
        change(&mut changes, &[], &[(1, 10), (1, 10), (2, 20)]);
        change(&mut changes, &[(1, 10)], &[(3, 30)]);
        assert_eq!(net(&changes), [(1, 10, 1), (2, 20, 1), (3, 30, 1)]);
        assert_eq!(changes.len(), 5);
    }

    #[test]
    fn many_small_statements_match_a_map() {
        let mut changes = TableChanges::new(spec(true), false);
        let mut model = BTreeMap::new();
        for step in 0..5000i64 {
            let id = (step * 7919) % 600;
            let old = model.insert(id, step);
            change(&mut changes, &old.map(|o| (id, o)).into_iter().collect::<Vec<_>>(), &[(id, step)]);
            if step == 2500 {
                changes.mark();
            }
        }
        let Kind::Keyed(inner) = &changes.kind else { panic!("keyed") };
        assert!(inner.batches.len() <= 8 * BATCHES_MAX);
        assert_eq!(net(&changes), model.iter().map(|(k, v)| (*k, *v, 1)).collect::<Vec<_>>());
        changes.undo_to(0);
        assert_eq!(changes.len(), 600);
        assert!(net(&changes).iter().all(|(_, step, _)| *step <= 2500));
    }
}
