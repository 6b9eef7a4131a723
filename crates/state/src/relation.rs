//! What is known of the relations: their codecs, the changes since the last checkpoint, pending transactions.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow_row::Rows;
use millpond_common::{Delta, Epoch, Error, RelationId, RelationSpec, Result, RowCodec, SqlState, Vnode, hash};
use parking_lot::Mutex;

use crate::columns::StoredVersion;
use crate::encode::Encoded;
use crate::run::SortedRun;
use crate::tiers::Tiers;

/// Where a column of a relation is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Key(usize),
    Value(usize),
}

/// A relation's definition with what encodes its rows.
pub(crate) struct RelationMeta {
    pub(crate) spec: RelationSpec,
    pub(crate) key: RowCodec,
    pub(crate) value: RowCodec,
    key_columns: Vec<usize>,
    value_columns: Vec<usize>,
    /// Of each column.
    pub(crate) places: Vec<Place>,
}

impl RelationMeta {
    pub(crate) fn new(spec: RelationSpec) -> Result<Self> {
        let key_columns = spec.key_columns();
        let value_columns = spec.value_columns();
        let key = RowCodec::new(spec.project(&key_columns))?;
        let value = RowCodec::new(spec.project(&value_columns))?;
        let place = |column| match key_columns.iter().position(|k| *k == column) {
            Some(i) => Place::Key(i),
            None => Place::Value(value_columns.iter().position(|v| *v == column).unwrap_or_default()),
        };
        let places = (0..spec.schema.fields().len()).map(place).collect();
        Ok(RelationMeta { spec, key, value, key_columns, value_columns, places })
    }

    /// Whether rows are found by a key; else the relation is a multiset of whole rows.
    pub(crate) fn keyed(&self) -> bool {
        self.spec.key.is_some()
    }

    /// Which columns a scan reads.
    pub(crate) fn columns(&self, projection: Option<Vec<usize>>) -> Result<Vec<usize>> {
        let columns = projection.unwrap_or_else(|| (0..self.places.len()).collect());
        match columns.iter().find(|c| **c >= self.places.len()) {
            Some(column) => {
                let message = format!("relation number {} has no column {column}", self.spec.id.0);
                Err(Error::new(SqlState::UNDEFINED_COLUMN, message))
            }
            None => Ok(columns),
        }
    }

    /// Virtual nodes and keys of a batch of rows.
    pub(crate) fn encode_keys(&self, batch: &RecordBatch) -> Result<(Vec<u8>, EncodedRows)> {
        let columns = columns(batch, &self.key_columns);
        self.encode_key_columns(&columns, batch.num_rows())
    }

    /// The same from the key columns alone, in key order.
    pub(crate) fn encode_key_columns(&self, columns: &[ArrayRef], rows: usize) -> Result<(Vec<u8>, EncodedRows)> {
        let vnodes = hash::hash_columns(columns, rows)?.into_iter().map(hash::vnode).collect();
        Ok((vnodes, EncodedRows::new(&self.key, columns)?))
    }

    /// Values of a batch of rows.
    pub(crate) fn encode_values(&self, batch: &RecordBatch) -> Result<EncodedRows> {
        EncodedRows::new(&self.value, &columns(batch, &self.value_columns))
    }
}

fn columns(batch: &RecordBatch, which: &[usize]) -> Vec<ArrayRef> {
    which.iter().map(|c| Arc::clone(batch.column(*c))).collect()
}

/// Encoded rows; without columns, all rows are the empty string.
pub(crate) struct EncodedRows(Option<Rows>);

impl EncodedRows {
    fn new(codec: &RowCodec, columns: &[ArrayRef]) -> Result<Self> {
        Ok(EncodedRows(if columns.is_empty() { None } else { Some(codec.encode(columns)?) }))
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

/// The changes of one epoch from one worker (or of one transaction), as they came.
pub(crate) struct Run {
    /// The epoch; of a transaction, its place in the log.
    pub(crate) epoch: Epoch,
    /// Of a relation that only grows: whose rows they follow.
    pub(crate) lane: Vnode,
    pub(crate) deltas: Vec<Delta>,
    /// Entries in `deltas`.
    pub(crate) entries: u64,
    /// By how many rows the relation grows.
    pub(crate) growth: i64,
    pub(crate) bytes: u64,
}

impl Run {
    pub(crate) fn new(epoch: Epoch, deltas: Vec<Delta>) -> Self {
        let growth = deltas.iter().map(|d| d.diffs.as_ref().map_or(d.len() as i64, |w| w.values().iter().sum())).sum();
        let entries = deltas.iter().map(|d| d.len() as u64).sum();
        let bytes = deltas.iter().map(|d| d.bytes() as u64).sum();
        Run { epoch, lane: 0, deltas, entries, growth, bytes }
    }
}

/// A run of its own layer, sorted by whoever reads it first.
pub(crate) struct LazyRun {
    pub(crate) run: Run,
    sorted: OnceLock<Result<Arc<SortedRun>>>,
}

impl LazyRun {
    pub(crate) fn new(run: Run) -> Self {
        LazyRun { run, sorted: OnceLock::new() }
    }

    pub(crate) fn sorted(&self, meta: &RelationMeta) -> Result<Arc<SortedRun>> {
        let sort = || Ok(Arc::new(SortedRun::new(&Encoded::new(meta, [&self.run])?)));
        self.sorted.get_or_init(sort).clone()
    }
}

/// A registered relation. Cloning it clones pointers.
#[derive(Clone)]
pub(crate) struct Relation {
    pub(crate) meta: Arc<RelationMeta>,
    /// Changes since the last checkpoint by ascending epoch, those of epochs not yet visible included.
    pub(crate) runs: Arc<Vec<Arc<Run>>>,
    /// What readers have made of the runs; shared by all views.
    pub(crate) tiers: Arc<Mutex<Tiers>>,
    /// The same for pending transactions, whose epochs are places in the log.
    pub(crate) pending_tiers: Arc<Mutex<Tiers>>,
    /// The checkpoint's rows are an earlier life's, and will be deleted by the next commit: they do not count.
    pub(crate) stored_is_void: bool,
    /// Of the checkpoint's rows.
    pub(crate) stored: StoredVersion,
}

impl Relation {
    pub(crate) fn new(meta: RelationMeta, base: Epoch, stored_is_void: bool) -> Self {
        let tiers = |base| Arc::new(Mutex::new(Tiers::new(base)));
        Relation {
            meta: Arc::new(meta),
            runs: Arc::default(),
            tiers: tiers(base),
            pending_tiers: tiers(0),
            stored_is_void,
            stored: StoredVersion::next(),
        }
    }

    pub(crate) fn publish(&mut self, run: Run) {
        let runs = Arc::make_mut(&mut self.runs);
        let at = runs.partition_point(|r| r.epoch <= run.epoch);
        runs.insert(at, Arc::new(run));
    }

    /// Takes out the runs up to an epoch.
    pub(crate) fn forget(&mut self, epoch: Epoch) -> Vec<Arc<Run>> {
        let end = self.runs.partition_point(|r| r.epoch <= epoch);
        if end == 0 { vec![] } else { Arc::make_mut(&mut self.runs).drain(..end).collect() }
    }
}

/// The runs with `after < epoch <= until`.
pub(crate) fn runs_between(runs: &[Arc<Run>], after: Epoch, until: Epoch) -> &[Arc<Run>] {
    let start = runs.partition_point(|r| r.epoch <= after);
    let end = runs.partition_point(|r| r.epoch <= until);
    runs.get(start..end).unwrap_or_default()
}

/// All relations by number; copied when changed while a view holds it.
pub(crate) type Relations = HashMap<RelationId, Relation>;

/// A transaction on tables that is in the log but in no visible epoch.
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) changes: HashMap<RelationId, Arc<Run>>,
}

impl Pending {
    pub(crate) fn new(seq: u64, changes: Vec<(RelationId, Delta)>) -> Self {
        let mut grouped: HashMap<RelationId, Vec<Delta>> = HashMap::new();
        for (relation, delta) in changes {
            grouped.entry(relation).or_default().push(delta);
        }
        let changes = grouped.into_iter().map(|(relation, deltas)| (relation, Arc::new(Run::new(seq, deltas)))).collect();
        Pending { seq, changes }
    }
}
