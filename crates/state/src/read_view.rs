//! What a reader sees: all relations at one epoch.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Epoch, Error, RelationId, RelationSpec, Result, SqlState, StateTableId, VNODE_COUNT};
use parking_lot::Mutex;

use crate::appended::{self, AppendedScan, Cursor};
pub use crate::columns::RowStream;
use crate::columns::{ColumnCache, Rows};
use crate::encode::Change;
use crate::format;
use crate::key_range::KeyRange;
use crate::relation::{LazyRun, Pending, Relation, RelationMeta, Relations, Run, runs_between};
use crate::rocks::{Base, BaseIterator, KEYS_PER_CALL, storage_error};
use crate::run::SortedRun;
use crate::scan::{RowBuffer, ScanStream, Wanted};
use crate::tables::Take;

/// More of a transaction's own changes than this are merged before they are read.
const SINGLE_LAYERS_MAX: usize = 4;

/// A relation of so few rows is read once in a view, as long as there are not many of them.
const SMALL_ROWS: u64 = 8192;
const SMALL_MAX: usize = 64;
/// Fewer rows are not searched for a range of keys, but all read.
const RANGE_ROWS_MIN: u64 = 200_000;
/// The part of the rows from which on that is so, too; and in how many virtual nodes that is found out.
const RANGE_PART: usize = 32;
const SAMPLE_VNODES: usize = 4;

/// What to read of a relation.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Which columns, in this order; `None` = all.
    pub projection: Option<Vec<usize>>,
    /// Rows of which virtual nodes; `0..256` = all.
    pub vnodes: Range<usize>,
    /// Rows with other keys need not be read.
    pub keys: Option<KeyRange>,
}

impl Default for Scan {
    fn default() -> Self {
        Scan { projection: None, vnodes: 0..VNODE_COUNT, keys: None }
    }
}

/// All relations at one epoch: the last checkpoint's rows and the changes since. It never changes, costs little to make
/// and to clone, blocks nobody, and holds what it reads in memory and on disk until it is dropped.
#[derive(Clone)]
pub struct ReadView(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    base: Arc<Base>,
    epoch: Epoch,
    relations: Arc<Relations>,
    /// Transactions after the epoch, in commit order, and the last one that it contains.
    pending: Arc<Vec<Arc<Pending>>>,
    visible_log: u64,
    /// The reader's own changes, in order.
    changes: Vec<(RelationId, Arc<LazyRun>)>,
    cut: Arc<AtomicU64>,
    columns: Arc<ColumnCache>,
    /// Small relations as they were read here, changes and all.
    small: Arc<Mutex<HashMap<SmallScan, (SchemaRef, Vec<RecordBatch>)>>>,
}

/// Relation, columns, virtual nodes.
type SmallScan = (RelationId, Vec<usize>, Range<usize>);

impl ReadView {
    pub(crate) fn new(
        base: &Arc<Base>,
        epoch: Epoch,
        relations: &Arc<Relations>,
        (pending, visible_log): (Arc<Vec<Arc<Pending>>>, u64),
        cut: &Arc<AtomicU64>,
        columns: &Arc<ColumnCache>,
    ) -> Self {
        ReadView(Arc::new(Inner {
            base: Arc::clone(base),
            epoch,
            relations: Arc::clone(relations),
            pending,
            visible_log,
            changes: vec![],
            cut: Arc::clone(cut),
            columns: Arc::clone(columns),
            small: Arc::default(),
        }))
    }

    /// The epoch that it shows.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The definition of a relation; `None` if there was no such relation when the view was made.
    pub fn spec(&self, relation: RelationId) -> Option<RelationSpec> {
        self.0.relations.get(&relation).map(|r| r.meta.spec.clone())
    }

    /// The same view with changes on top: what a transaction sees of its own writes.
    pub fn with_changes(&self, relation: RelationId, delta: Delta) -> ReadView {
        let mut inner = Inner { small: Arc::default(), ..Inner::clone(&self.0) };
        let seq = u64::MAX; // after everything else
        inner.changes.push((relation, Arc::new(LazyRun::new(Run::new(seq, vec![delta])))));
        ReadView(Arc::new(inner))
    }

    fn relation(&self, id: RelationId) -> Result<&Relation> {
        let missing = || Error::new(SqlState::UNDEFINED_TABLE, format!("relation number {} has no rows to read", id.0));
        self.0.relations.get(&id).ok_or_else(missing)
    }

    /// Everything since the checkpoint, sorted, the newest layer last.
    fn layers(&self, id: RelationId, relation: &Relation) -> Result<Vec<Arc<SortedRun>>> {
        let Inner { base, epoch, .. } = &*self.0;
        let mut layers = Vec::new();
        if *epoch > base.epoch && !relation.runs.is_empty() {
            let cut = self.0.cut.load(Ordering::Acquire);
            layers = relation.tiers.lock().read(&relation.meta, &relation.runs, base.epoch, *epoch, cut)?;
        }
        layers.extend(self.pending_layers(id, relation)?);
        let own = self.0.changes.iter().filter(|(r, _)| *r == id).map(|(_, run)| &**run).collect::<Vec<_>>();
        layers.extend(sorted_runs(&relation.meta, &own)?);
        Ok(layers)
    }

    /// The changes since the checkpoint.
    fn runs<'r>(&self, relation: &'r Relation) -> &'r [Arc<Run>] {
        runs_between(&relation.runs, self.0.base.epoch, self.0.epoch)
    }

    fn pending_layers(&self, id: RelationId, relation: &Relation) -> Result<Vec<Arc<SortedRun>>> {
        let runs = self.0.pending.iter().filter_map(|p| p.changes.get(&id)).cloned().collect::<Vec<_>>();
        let Some(last) = runs.last() else { return Ok(vec![]) };
        relation.pending_tiers.lock().read(&relation.meta, &runs, self.0.visible_log, last.epoch, 0)
    }

    /// Reads rows, in no particular order. A row of weight n appears n times.
    pub fn scan(&self, relation: RelationId, scan: Scan) -> Result<RowStream> {
        let known = self.relation(relation)?;
        if known.meta.spec.appended {
            let columns = known.meta.columns(scan.projection)?;
            return Ok(RowStream::appended(AppendedScan::new(&self.0.base, known, self.runs(known), columns, scan.vnodes)?));
        }
        if let Some(range) = &scan.keys
            && self.is_small(relation, known, range, &scan.vnodes)?
        {
            let range = range.clone();
            return Ok(RowStream::read(self.scan_range(relation, scan, &range)?));
        }
        let layers = self.layers(relation, known)?;
        if known.stored_is_void {
            return Ok(RowStream::read(ScanStream::new(&self.0.base, known, layers, scan, &[])?));
        }
        let rows = Rows { version: known.stored, vnodes: scan.vnodes };
        let columns = known.meta.columns(scan.projection)?;
        let small =
            (!layers.is_empty() && self.row_estimate(relation) <= SMALL_ROWS).then(|| (relation, columns.clone(), rows.vnodes.clone()));
        if let Some((schema, batches)) = small.as_ref().and_then(|s| self.0.small.lock().get(s).cloned()) {
            return Ok(RowStream::made(schema, batches));
        }
        let stream = RowStream::stored(&self.0.columns, rows, columns, layers, (&self.0.base, known))?;
        let Some(small) = small else { return Ok(stream) };
        let schema = stream.schema();
        let batches = stream.collect::<Result<Vec<_>>>()?;
        let mut read = self.0.small.lock();
        if read.len() < SMALL_MAX {
            read.insert(small, (Arc::clone(&schema), batches.clone()));
        }
        Ok(RowStream::made(schema, batches))
    }

    /// Rows whose keys are in a range, found by a search in each virtual node.
    pub(crate) fn scan_range(&self, relation: RelationId, scan: Scan, range: &KeyRange) -> Result<ScanStream> {
        let known = self.relation(relation)?;
        let vnodes = scan.vnodes.clone();
        ScanStream::new(&self.0.base, known, self.layers(relation, known)?, scan, &[])?.within(range, &vnodes)
    }

    /// Whether looking for a range of keys in each virtual node costs less than reading all rows, of which most are columns in memory.
    fn is_small(&self, id: RelationId, known: &Relation, range: &KeyRange, vnodes: &Range<usize>) -> Result<bool> {
        let rows = self.row_estimate(id);
        if rows < RANGE_ROWS_MIN {
            return Ok(false);
        }
        let sample = vnodes.start..vnodes.end.min(vnodes.start + SAMPLE_VNODES);
        let enough = rows as usize * sample.len() / VNODE_COUNT / RANGE_PART + 1;
        let scan = Scan { projection: Some(vec![]), vnodes: sample.clone(), keys: None };
        let mut found = 0;
        ScanStream::new(&self.0.base, known, vec![], scan, &[])?.within(range, &sample)?.walk(|_, _, _, _| {
            found += 1;
            found < enough
        })?;
        Ok(found < enough)
    }

    /// Rows of a relation that only grows, about as many as asked for: see [`appended::read_part`].
    pub(crate) fn appended_part(&self, relation: RelationId, span: (Cursor, usize), room: (usize, usize)) -> Result<appended::Part> {
        let known = self.relation(relation)?;
        appended::read_part((&self.0.base, known, self.runs(known)), span, room)
    }

    /// Whether a relation only grows.
    pub(crate) fn is_appended(&self, relation: RelationId) -> Result<bool> {
        Ok(self.relation(relation)?.meta.spec.appended)
    }

    /// The same from a stored key (virtual node first) on, and nothing of it is kept.
    pub(crate) fn scan_from(&self, relation: RelationId, scan: Scan, from: &[u8]) -> Result<ScanStream> {
        let known = self.relation(relation)?;
        let layers = self.layers(relation, known)?;
        ScanStream::new(&self.0.base, known, layers, scan, from)
    }

    /// The rows with these keys: a batch of exactly the key columns, in key order (without a key: all columns). In the
    /// order of the keys; keys without a row are left out. Costs a point read each, never a scan.
    pub fn lookup(&self, relation: RelationId, keys: &RecordBatch) -> Result<RecordBatch> {
        let known = self.relation(relation)?;
        let meta = &known.meta;
        if meta.spec.appended {
            return Err(Error::internal(format!("relation number {} has no key to look for", relation.0)));
        }
        let layers = self.layers(relation, known)?;
        let (vnodes, encoded) = meta.encode_key_columns(keys.columns(), keys.num_rows())?;
        let whole = |(row, vnode): (usize, &u8)| [&format::id_prefix(relation.0)[..], &[*vnode], encoded.get(row)].concat();
        let keys = vnodes.iter().enumerate().map(whole).collect::<Vec<Vec<u8>>>();

        // The newest change of a key with one decides; other keys, and weights, need what is stored.
        let overlaid = |key: &Vec<u8>| {
            let key = key.get(4..).unwrap_or_default();
            let mut changes = layers.iter().rev().filter_map(|run| run.get(key));
            if meta.keyed() { changes.next() } else { Some(Change::Add(changes.map(weight_of).sum())) }
        };
        let mut rows = RowBuffer::new(Wanted::new(meta, None));
        for keys in keys.chunks(KEYS_PER_CALL) {
            let overlaid = keys.iter().map(overlaid).collect::<Vec<_>>();
            let unsettled = |(key, change): (&Vec<u8>, &Option<Change>)| {
                (!matches!(change, Some(Change::Put(_) | Change::Delete))).then(|| key.clone())
            };
            let stored_keys = keys.iter().zip(&overlaid).filter_map(unsettled).collect::<Vec<_>>();
            let stored_values = if known.stored_is_void { vec![] } else { self.0.base.get_many(&stored_keys)? };
            let mut stored = stored_values.iter().map(|v| v.as_deref());
            for (key, change) in keys.iter().zip(&overlaid) {
                let row_key = key.get(4..).unwrap_or_default();
                match change {
                    Some(Change::Put(value)) => rows.push(row_key, value),
                    Some(Change::Delete) => {}
                    Some(Change::Add(weight)) => {
                        let weight = weight + stored.next().flatten().map_or(Ok(0), stored_weight)?;
                        (0..weight).for_each(|_| rows.push(row_key, &[]));
                    }
                    None => {
                        if let Some(value) = stored.next().flatten() {
                            rows.push(row_key, value);
                        }
                    }
                }
            }
        }
        rows.take(meta)
    }

    /// Calls `f` with every entry of a state table in a range of virtual nodes, as of the last checkpoint before this view, by
    /// ascending key.
    pub fn state_load(&self, table: StateTableId, vnodes: Range<usize>, f: &mut Take<'_>) -> Result<()> {
        if vnodes.is_empty() {
            return Ok(());
        }
        let (lower, upper) = (format::vnode_bound(table.0, vnodes.start), format::vnode_bound(table.0, vnodes.end));
        BaseIterator::new(&self.0.base, lower, upper, false)?.with(|it| {
            while let Some((key, value)) = it.item() {
                f(key.get(4..).unwrap_or_default(), value)?;
                it.next();
            }
            it.status().map_err(storage_error)
        })
    }

    /// How many rows a relation has. Exact as long as every change was the exact net change.
    pub fn row_estimate(&self, relation: RelationId) -> u64 {
        let Inner { base, epoch, relations, pending, changes, .. } = &*self.0;
        let Some(known) = relations.get(&relation) else { return 0 };
        let stored = base.rows.get(&relation.0).copied().filter(|_| !known.stored_is_void).unwrap_or(0);
        let visible: i64 = runs_between(&known.runs, base.epoch, *epoch).iter().map(|r| r.growth).sum();
        let pending: i64 = pending.iter().filter_map(|p| p.changes.get(&relation)).map(|r| r.growth).sum();
        let own: i64 = changes.iter().filter(|(r, _)| *r == relation).map(|(_, r)| r.run.growth).sum();
        u64::try_from(stored + visible + pending + own).unwrap_or(0)
    }
}

/// Each run as a layer, or all as one if they are many.
fn sorted_runs(meta: &RelationMeta, runs: &[&LazyRun]) -> Result<Vec<Arc<SortedRun>>> {
    let layers = runs.iter().map(|run| run.sorted(meta)).collect::<Result<Vec<_>>>()?;
    Ok(if layers.len() <= SINGLE_LAYERS_MAX { layers } else { vec![Arc::new(SortedRun::merge(&layers))] })
}

fn weight_of(change: Change<'_>) -> i64 {
    match change {
        Change::Add(weight) => weight,
        Change::Put(_) | Change::Delete => 0,
    }
}

/// The weight in a stored value.
pub(crate) fn stored_weight(value: &[u8]) -> Result<i64> {
    let damaged = |_| Error::new(SqlState::DATA_CORRUPTED, "a stored row's weight cannot be read");
    value.try_into().map(i64::from_le_bytes).map_err(damaged)
}

impl std::fmt::Debug for ReadView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadView(epoch {}, checkpoint {})", self.0.epoch, self.0.base.epoch)
    }
}
