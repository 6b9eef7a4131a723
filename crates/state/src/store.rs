//! The store: a data directory, open.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use millpond_common::{Delta, Epoch, RelationId, RelationSpec, Result, StateTableId, Vnode};
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;

use crate::columns::ColumnCache;
use crate::commit::{self, Turn};
use crate::failpoint::failpoint;
use crate::log::{LogFamily, LogQueue};
use crate::poison::Poison;
use crate::relation::{Pending, Relation, RelationMeta, Relations, Run};
use crate::rocks::{Base, BaseIterator, Rocks, closed, storage_error};
use crate::savepoint::{self, Savepoints};
use crate::tiers::Tiers;
use crate::{ReadView, StoreOptions, Tuning, appended, directory, format, reached};

/// What an opened store knows of the time before.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Of the last completed checkpoint; 0 = there is none.
    pub epoch: Epoch,
    /// The engine's part of that checkpoint.
    pub meta: Vec<u8>,
    /// All catalog records, by key.
    pub catalog: Vec<(Vec<u8>, Vec<u8>)>,
    /// The table log's entries that this checkpoint does not contain, in order.
    pub log_tail: Vec<(u64, Vec<u8>)>,
    /// The log's end could not be read. After a crash in the middle of a write, which nobody had been answered, that is
    /// as it should be; anything else is damage.
    pub log_torn: bool,
}

/// What to make durable.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// All relations are committed as of this epoch.
    pub epoch: Epoch,
    /// Entries of the table log up to this one are contained, and deleted from the log.
    pub log_seq: u64,
    /// The engine's part: source positions and the like.
    pub meta: Vec<u8>,
    /// Changes of operator state since the last checkpoint. A table may come in several pieces with different keys.
    pub frozen: Vec<FrozenTable>,
}

/// Changes of one state table.
#[derive(Debug)]
pub struct FrozenTable {
    /// Whose they are.
    pub table: StateTableId,
    /// What [`StateTable::drain`](crate::StateTable::drain) or [`freeze`](crate::StateTable::freeze) gave.
    pub entries: crate::Entries,
}

/// The part of the server's memory that columns read by queries may have.
const COLUMNS_PART: u64 = 16;

/// What of the server's memory RocksDB's cache may have: a quarter, less the columns' part.
fn rocks_memory(memory: u64) -> u64 {
    memory / 4 - memory / COLUMNS_PART
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitStats {
    /// Keys written or deleted.
    pub entries: u64,
    /// Bytes of the files written.
    pub bytes: u64,
    /// From the call to the completed checkpoint.
    pub duration: Duration,
}

/// Sizes, for metrics and for back-pressure.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreStats {
    /// Bytes of all files that hold data.
    pub disk_bytes: u64,
    /// How many such files there are.
    pub files: u64,
    /// Changed rows of relations that no checkpoint has yet.
    pub overlay_rows: u64,
    /// Approximate bytes of memory that they take.
    pub overlay_bytes: u64,
}

/// A data directory, open. Shared by all threads; nothing in it blocks for long but what says so.
pub struct Store {
    /// `None`: closed.
    rocks: RwLock<Option<Arc<Rocks>>>,
    pub(crate) dir: PathBuf,
    pub(crate) staging: PathBuf,
    /// Of the server, as it was opened with.
    memory: u64,
    pub(crate) poison: Poison,
    pub(crate) log: LogQueue,
    pub(crate) turn: Mutex<Turn>,
    pub(crate) state: Mutex<State>,
    /// Locked after `turn`, where both are.
    pub(crate) savepoints: Mutex<Savepoints>,
    /// The epoch of the checkpoint being written, or written last: readers do not merge runs across it.
    pub(crate) cut: Arc<AtomicU64>,
    /// What queries have read of the last checkpoint's rows.
    pub(crate) columns: Arc<ColumnCache>,
}

/// What changes as epochs pass. Locked for moments only.
pub(crate) struct State {
    pub(crate) visible: Epoch,
    /// Entries of the table log up to this one are contained in the visible epoch.
    visible_log: u64,
    pub(crate) base: Arc<Base>,
    pub(crate) relations: Arc<Relations>,
    pending: Arc<Vec<Arc<Pending>>>,
    /// Ids whose data the next commit deletes; the log family has a record of each.
    pub(crate) drops: BTreeSet<u32>,
    /// Ids removed while the engine was running: what arrives late for them is dropped.
    pub(crate) removed: HashSet<u32>,
    /// Something was published or made visible since the store was opened.
    running: bool,
    /// What [`Store::read_view`] gives, until something changes.
    pub(crate) view: Option<ReadView>,
}

impl State {
    /// Epoch and log position become visible.
    pub(crate) fn advance(&mut self, epoch: Epoch, log_seq: u64) {
        self.running = true;
        self.visible = self.visible.max(epoch);
        self.visible_log = self.visible_log.max(log_seq);
        let seq = self.visible_log;
        if self.pending.first().is_some_and(|p| p.seq <= seq) {
            Arc::make_mut(&mut self.pending).retain(|p| p.seq > seq);
        }
        self.view = None;
    }
}

impl Store {
    /// Opens a data directory, or makes one of an empty or missing directory; finishes what a crash has interrupted.
    /// Only one process may have it open.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<(Arc<Store>, Recovered)> {
        let lock = directory::claim(dir)?;
        let staging = directory::staging(dir);
        savepoint::finish(dir)?;
        savepoint::clean(dir)?;
        directory::check_database(dir)?;
        let logs = directory::log_files(dir);
        let rocks = Rocks::open(&directory::database(dir), &staging, rocks_memory(options.memory), &options.tuning, lock).map_err(|e| {
            let locked =
                e.detail().is_some_and(|d| d.contains("lock hold by current process") || d.contains("Resource temporarily unavailable"));
            if locked { directory::in_use(dir, "a reader that has not ended yet") } else { directory::name_log_files(dir, &logs, e) }
        })?;
        reached::check(dir, rocks.db().latest_sequence_number())?;
        let rocks = Arc::new(rocks);
        let log_torn = rocks.log_torn;
        if log_torn {
            tracing::warn!("the table log ends in an incomplete record: a crash interrupted a write, or the file is damaged");
        }
        let family = LogFamily::read(&rocks).and_then(|family| {
            commit::recover(&rocks, &staging, family.record.as_ref())?;
            Ok(family)
        });
        let family = family.map_err(|e| directory::name_log_files(dir, &logs, e))?;

        let next_seq = family.next_seq();
        let record = family.record.unwrap_or_default();
        let base = Base::new(&rocks, record.epoch, record.log_seq, record.rows.iter().copied().collect());
        let state = State {
            visible: record.epoch,
            visible_log: record.log_seq,
            base,
            relations: Arc::default(),
            pending: Arc::default(),
            removed: HashSet::new(),
            drops: family.drops.into_iter().collect(),
            running: false,
            view: None,
        };
        let store = Store {
            poison: Poison::new(Arc::downgrade(&rocks)),
            rocks: RwLock::new(Some(rocks)),
            dir: dir.to_owned(),
            staging,
            memory: options.memory,
            log: LogQueue::new(next_seq),
            turn: Mutex::new(Turn { number: record.number, log_seq: record.log_seq }),
            state: Mutex::new(state),
            savepoints: Mutex::default(),
            cut: Arc::new(AtomicU64::new(record.epoch)),
            columns: ColumnCache::new(options.memory / COLUMNS_PART),
        };
        let recovered = Recovered { epoch: record.epoch, meta: record.meta, catalog: family.catalog, log_tail: family.entries, log_torn };
        Ok((Arc::new(store), recovered))
    }

    /// Names who is told when storage has failed: from then on nothing more is written, and what is in memory may not be on disk.
    pub fn on_failure(&self, tell: impl Fn(&millpond_common::Error) + Send + Sync + 'static) {
        self.poison.listen(tell);
    }

    pub(crate) fn rocks(&self) -> Result<Arc<Rocks>> {
        self.rocks.read().clone().ok_or_else(closed)
    }

    /// Registers a relation, if it is not; rows that the last checkpoint has of it become readable.
    pub fn relation_add(&self, spec: RelationSpec) {
        let id = spec.id;
        let meta = match RelationMeta::new(spec) {
            Ok(meta) => meta,
            Err(error) => {
                // Such a column is refused when the relation is created; reading it will say that there is no such relation.
                tracing::error!(relation = id.0, %error, "a relation's rows cannot be stored");
                return;
            }
        };
        if let Ok(rocks) = self.rocks()
            && !meta.keyed()
            && !meta.spec.appended
        {
            rocks.weighted.write().insert(id.0);
        }
        let mut state = self.state.lock();
        let (base, void) = (state.base.epoch, state.drops.contains(&id.0));
        Arc::make_mut(&mut state.relations).entry(id).or_insert_with(|| Relation::new(meta, base, void));
        state.view = None;
    }

    /// Unregisters a relation and deletes its rows; views that exist keep reading them. Its number must not be used again,
    /// except that a start may clear a relation to fill it anew: remove it before anything is published, then add it.
    pub fn relation_remove(&self, id: RelationId) -> Result<()> {
        {
            let mut state = self.state.lock();
            Arc::make_mut(&mut state.relations).remove(&id);
            state.view = None;
        }
        self.delete_ids(&[id.0])
    }

    /// Deletes operator state. The numbers must not be used again; as with relations, a start may clear and refill them.
    pub fn state_remove(&self, tables: &[StateTableId]) -> Result<()> {
        self.delete_ids(&tables.iter().map(|t| t.0).collect::<Vec<_>>())
    }

    /// Deletes everything stored under numbers that are not in `known`, which a crash between two steps of a DDL
    /// statement may have left behind; returns how many there were. Only before anything is published.
    pub fn remove_unknown(&self, known: &BTreeSet<u32>) -> Result<usize> {
        let base = Arc::clone(&self.state.lock().base);
        let mut walk = BaseIterator::new(&base, vec![], format::MARKER_KEY.to_vec(), false)?;
        let mut unknown = Vec::new();
        walk.with(|it| {
            while let Some(id) = it.key().and_then(|k| k.first_chunk::<4>()).map(|id| u32::from_be_bytes(*id)) {
                if !known.contains(&id) {
                    unknown.push(id);
                }
                it.seek(format::vnode_bound(id, 256));
            }
            it.status().map_err(storage_error)
        })?;
        self.delete_ids(&unknown)?;
        Ok(unknown.len())
    }

    /// Writes down that ids are to be deleted; the next commit does it.
    pub(crate) fn delete_ids(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let rocks = self.rocks()?;
        self.poison.check()?;
        let mut batch = WriteBatch::default();
        for id in ids {
            batch.put_cf(rocks.log(), format::drop_key(*id), []);
        }
        self.poison.guard(rocks.write_synced(batch))?;
        failpoint("drop-recorded");
        let mut state = self.state.lock();
        state.drops.extend(ids);
        if state.running {
            state.removed.extend(ids);
        }
        Ok(())
    }

    /// Changes of a relation in an epoch that no worker has made: [`publish_from`](Self::publish_from) the first one.
    pub fn publish(&self, relation: RelationId, epoch: Epoch, deltas: Vec<Delta>) {
        self.publish_from(0, relation, epoch, deltas);
    }

    /// One worker's changes of a relation in an epoch: the exact net change, before that epoch becomes visible. `lane`: the first virtual
    /// node that the worker owns; rows of a relation that only grows follow those of this lane. They have no weights below 0.
    pub fn publish_from(&self, lane: Vnode, relation: RelationId, epoch: Epoch, deltas: Vec<Delta>) {
        let mut deltas = deltas.into_iter().filter(|d| !d.is_empty()).collect::<Vec<_>>();
        if deltas.is_empty() {
            return;
        }
        if deltas.iter().any(|d| d.diffs.is_some()) && self.state.lock().relations.get(&relation).is_some_and(|r| r.meta.spec.appended) {
            deltas = deltas.into_iter().map(appended::repeated).collect();
        }
        let run = Run { lane, ..Run::new(epoch, deltas) };
        let mut state = self.state.lock();
        state.running = true;
        debug_assert!(epoch > state.base.epoch, "epoch {epoch} is committed already");
        if let Some(relation) = Arc::make_mut(&mut state.relations).get_mut(&relation) {
            relation.publish(run);
        }
    }

    /// All workers have published this epoch and those before it; pending transactions up to `log_seq` are contained.
    pub fn set_visible(&self, epoch: Epoch, log_seq: u64) {
        let mut state = self.state.lock();
        let before = state.view.take();
        state.advance(epoch, log_seq);
        drop(state);
        drop(before);
    }

    /// The newest epoch that readers see.
    pub fn visible_epoch(&self) -> Epoch {
        self.state.lock().visible
    }

    /// A transaction is in the log (under this number): [`newest_view`](Self::newest_view) shows it from now on.
    pub fn pending_add(&self, seq: u64, changes: Vec<(RelationId, Delta)>) {
        let pending = Arc::new(Pending::new(seq, changes));
        let mut state = self.state.lock();
        if seq > state.visible_log {
            let list = Arc::make_mut(&mut state.pending);
            let at = list.partition_point(|p| p.seq <= seq);
            let late = at < list.len();
            list.insert(at, pending);
            if late {
                // What readers have sorted lacks it.
                let seq = state.visible_log;
                for relation in state.relations.values() {
                    *relation.pending_tiers.lock() = Tiers::new(seq);
                }
            }
        }
    }

    /// All relations as of the newest visible epoch.
    pub fn read_view(&self) -> ReadView {
        let mut state = self.state.lock();
        if let Some(view) = &state.view {
            return view.clone();
        }
        let view = ReadView::new(&state.base, state.visible, &state.relations, Default::default(), &self.cut, &self.columns);
        state.view = Some(view.clone());
        view
    }

    /// The same with all transactions in the log: what DML and constraints must see.
    pub fn newest_view(&self) -> ReadView {
        let state = self.state.lock();
        ReadView::new(
            &state.base,
            state.visible,
            &state.relations,
            (Arc::clone(&state.pending), state.visible_log),
            &self.cut,
            &self.columns,
        )
    }

    /// All relations as of the last completed checkpoint: nothing in it can be lost.
    pub fn durable_view(&self) -> ReadView {
        let state = self.state.lock();
        ReadView::new(&state.base, state.base.epoch, &state.relations, Default::default(), &self.cut, &self.columns)
    }

    /// Changes RocksDB's settings while it runs. If it refuses one, an error says so, and nothing later in the list of
    /// [`Tuning`]'s fields has been changed.
    pub fn tune(&self, tuning: &Tuning) -> Result<()> {
        self.rocks()?.tune(rocks_memory(self.memory), tuning)
    }

    /// Its sizes.
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        if let Ok(rocks) = self.rocks() {
            stats.disk_bytes = rocks.property("rocksdb.total-sst-files-size");
            stats.files = (0..7).map(|level| rocks.property(&format!("rocksdb.num-files-at-level{level}"))).sum();
        }
        let relations = Arc::clone(&self.state.lock().relations);
        for run in relations.values().flat_map(|r| r.runs.iter()) {
            stats.overlay_rows += run.entries;
            stats.overlay_bytes += run.bytes;
        }
        stats
    }

    /// Waits for a commit that is under way, then closes: what comes later fails. The directory stays locked as long as a
    /// [`ReadView`] made earlier is alive.
    pub fn close(&self) {
        let _turn = self.turn.lock();
        let Some(rocks) = self.rocks.write().take() else { return };
        let (view, base, relations) = {
            let mut state = self.state.lock();
            let closed = Base::closed(state.base.epoch);
            (state.view.take(), std::mem::replace(&mut state.base, closed), std::mem::take(&mut state.relations))
        };
        drop((view, base, relations));
        if self.poison.check().is_ok() {
            match rocks.db().flush_cf(rocks.log()) {
                Ok(()) => reached::note(&self.dir, rocks.db().latest_sequence_number()),
                // Everything is in the log already; the next start replays it.
                Err(error) => tracing::warn!(error = %storage_error(error), "closing: the log could not be flushed"),
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
