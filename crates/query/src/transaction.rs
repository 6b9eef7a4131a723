//! Transactions: what they have changed, what they see, what they lock, and how they end.

mod keys;
mod overlay;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow_row::Rows;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation};
use millpond_common::{Delta, Error, RelationId, Result, SqlState, hash};
use millpond_engine::Engine;
use millpond_state::{ReadView, Store};

pub use self::keys::KeyCodec;
use self::overlay::{Standing, TableChanges};
use crate::error::from_datafusion;
use crate::gate::Gate;
use crate::locks::{HeldLocks, LockTable, Mode, Patience};

/// What all transactions share: the locks, the memory for what they change, and a count of those that have committed.
pub struct TransactionManager {
    /// What all writes pass.
    pub(crate) gate: Gate,
    locks: LockTable,
    memory: Arc<dyn MemoryPool>,
    next: AtomicU64,
    commits: AtomicU64,
}

impl TransactionManager {
    /// No transactions yet. `bytes`: of the rows that open ones may have changed, together.
    pub fn new(bytes: usize) -> Self {
        let memory = Arc::new(GreedyMemoryPool::new(bytes));
        TransactionManager {
            gate: Gate::default(),
            locks: LockTable::default(),
            memory,
            next: AtomicU64::new(0),
            commits: AtomicU64::new(0),
        }
    }

    /// How many transactions have committed changes. A view of the newest rows that was made after reading a number
    /// is still the newest while the number stays.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }
}

/// What a transaction sees of others that commit while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees all that has committed before it.
    ReadCommitted,
    /// All statements see what the first one saw; the first of two writers of a row wins.
    RepeatableRead,
}

struct Savepoint {
    name: String,
    /// How far each table's changes were.
    marks: BTreeMap<RelationId, usize>,
}

/// A transaction in progress. Dropping it rolls it back.
pub struct Transaction {
    manager: Arc<TransactionManager>,
    store: Arc<Store>,
    isolation: Isolation,
    read_only: bool,
    held: HeldLocks,
    /// Of REPEATABLE READ, from its first statement on.
    snapshot: OnceLock<ReadView>,
    tables: BTreeMap<RelationId, TableChanges>,
    savepoints: Vec<Savepoint>,
    /// Of all changes that it has made, those that it has returned from, too.
    memory: MemoryReservation,
}

/// Rows found by key: for each key the number of its row, if it has one.
pub struct Found {
    /// The rows.
    pub rows: RecordBatch,
    /// Per key, its row in `rows`.
    pub positions: Vec<Option<u32>>,
}

impl Found {
    /// The rows of all keys that have one, in the order of the keys.
    pub fn in_order(&self) -> Result<RecordBatch> {
        let indices = UInt32Array::from_iter_values(self.positions.iter().flatten().copied());
        Ok(arrow::compute::take_record_batch(&self.rows, &indices)?)
    }
}

impl Transaction {
    /// Starts a transaction.
    pub fn begin(manager: &Arc<TransactionManager>, store: &Arc<Store>, isolation: Isolation, read_only: bool) -> Transaction {
        let id = manager.next.fetch_add(1, Ordering::Relaxed) + 1;
        Transaction {
            manager: Arc::clone(manager),
            store: Arc::clone(store),
            isolation,
            read_only,
            held: HeldLocks::new(id),
            snapshot: OnceLock::new(),
            tables: BTreeMap::new(),
            savepoints: vec![],
            memory: MemoryConsumer::new("the transaction's changes").register(&manager.memory),
        }
    }

    /// What it sees of others.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// What a SELECT sees: `base`, or what the first statement saw under REPEATABLE READ, with its own changes on top.
    pub fn read_view(&self, base: ReadView) -> ReadView {
        self.with_own_changes(match self.isolation {
            Isolation::ReadCommitted => base,
            Isolation::RepeatableRead => self.snapshot.get_or_init(|| base).clone(),
        })
    }

    /// A view with the transaction's own changes on top.
    pub fn with_own_changes(&self, mut view: ReadView) -> ReadView {
        for (id, changes) in &self.tables {
            for delta in changes.deltas() {
                view = view.with_changes(*id, delta);
            }
        }
        view
    }

    /// What a statement that writes sees without the transaction's own changes: the newest rows, or the snapshot.
    pub fn base_view(&self) -> ReadView {
        match self.isolation {
            Isolation::ReadCommitted => self.store.newest_view(),
            Isolation::RepeatableRead => self.snapshot.get_or_init(|| self.store.newest_view()).clone(),
        }
    }

    /// The newest committed rows, whatever the isolation.
    pub fn newest_view(&self) -> ReadView {
        self.store.newest_view()
    }

    /// See [`TransactionManager::commits`].
    pub fn commits(&self) -> u64 {
        self.manager.commits()
    }

    /// Whether anything is changed.
    pub fn has_writes(&self) -> bool {
        self.tables.values().any(|t| t.len() > 0)
    }

    /// Fails in a read-only transaction. `command`: `INSERT`, …
    pub fn check_writable(&self, command: &str) -> Result<()> {
        match self.read_only {
            true => Err(Error::new(SqlState::READ_ONLY_SQL_TRANSACTION, format!("cannot execute {command} in a read-only transaction"))),
            false => Ok(()),
        }
    }

    /// Locks a table until the end of the transaction; returns whether it had to wait.
    pub async fn lock_table(&mut self, table: RelationId, mode: Mode, patience: Patience<'_>) -> Result<bool> {
        let waited = self.wait_for_table(table, mode, patience).await?;
        self.still_there(table, waited)
    }

    /// The same, whether the table is still there or not.
    pub async fn wait_for_table(&mut self, table: RelationId, mode: Mode, patience: Patience<'_>) -> Result<bool> {
        self.manager.locks.lock_table(&mut self.held, table, mode, patience).await
    }

    /// Whoever has waited may have waited for a DROP.
    fn still_there(&self, table: RelationId, waited: bool) -> Result<bool> {
        if waited && self.store.newest_view().spec(table).is_none() {
            return Err(Error::new(SqlState::UNDEFINED_TABLE, "the table was dropped meanwhile"));
        }
        Ok(waited)
    }

    /// Locks rows by their encoded keys until the end of the transaction; returns whether it had to wait. Always in
    /// one order, so that statements over the same rows wait for each other instead of deadlocking.
    pub async fn lock_rows(&mut self, table: RelationId, keys: &Rows, patience: Patience<'_>) -> Result<bool> {
        let mut rows = keys.iter().map(|key| hash::hash_bytes(key.as_ref())).collect::<Vec<_>>();
        rows.sort_unstable();
        rows.dedup();
        let waited = self.manager.locks.lock_rows(&mut self.held, table, &rows, patience).await?;
        self.still_there(table, waited)
    }

    /// The rows with these keys, each of which is given once, as the transaction has left them on top of `base`.
    pub fn find(&self, codec: &KeyCodec, base: &ReadView, keys: &RecordBatch, encoded: &Rows) -> Result<Found> {
        let table = codec.spec().id;
        let (standing, own) = match self.tables.get(&table) {
            Some(changes) => changes.standing(encoded)?,
            None => (vec![Standing::Untouched; encoded.num_rows()], None),
        };
        let places = standing.iter().enumerate().filter(|(_, s)| **s == Standing::Untouched).map(|(i, _)| i as u32);
        let places = UInt32Array::from_iter_values(places);
        let wanted = match places.len() == keys.num_rows() {
            true => keys.clone(),
            false => arrow::compute::take_record_batch(keys, &places)?,
        };
        let stored = match wanted.num_rows() {
            0 => RecordBatch::new_empty(Arc::clone(&codec.spec().schema)),
            _ => base.lookup(table, &wanted)?,
        };
        // Found rows come in the order of their keys, without those that have none.
        let stored_keys = codec.encode_rows(&stored)?;
        let own_rows = own.as_ref().map_or(0, RecordBatch::num_rows) as u32;
        let mut next = 0;
        let positions = standing.iter().zip(encoded.iter()).map(|(standing, key)| match standing {
            Standing::Deleted => None,
            Standing::Row(row) => Some(*row),
            Standing::Untouched if next < stored_keys.num_rows() && stored_keys.row(next) == key => {
                next += 1;
                Some(own_rows + next as u32 - 1)
            }
            Standing::Untouched => None,
        });
        let positions = positions.collect();
        let rows = match own {
            Some(own) => arrow::compute::concat_batches(&codec.spec().schema, [&own, &stored])?,
            None => stored,
        };
        Ok(Found { rows, positions })
    }

    /// Removes rows that are there, then adds rows whose keys are free.
    pub fn apply(&mut self, codec: &KeyCodec, removed: Option<&RecordBatch>, added: Option<&RecordBatch>, rows_max: i64) -> Result<()> {
        // Only keys need to be known one by one; a multiset just adds up.
        let rows_to_encode = |r: &RecordBatch| if codec.keyed() { r.clone() } else { r.slice(0, 0) };
        let encode = |rows: Option<&RecordBatch>| rows.map(|r| codec.encode_rows(&rows_to_encode(r))).transpose();
        let (removed_keys, added_keys) = (encode(removed)?, encode(added)?);
        let bytes = [removed, added].into_iter().flatten().map(bytes_of).sum();
        self.memory.try_grow(bytes).map_err(|e| {
            from_datafusion(e)
                .with_hint("Open transactions share a quarter of the server's memory, or 64 MB: split it into several, or raise --memory.")
        })?;
        let undoable = !self.savepoints.is_empty();
        let spec = codec.spec();
        let changes = self.tables.entry(spec.id).or_insert_with(|| TableChanges::new(spec.clone(), undoable));
        changes.apply(removed.zip(removed_keys.as_ref()), added.zip(added_keys.as_ref()))?;
        let rows = self.tables.values().map(TableChanges::len).sum::<usize>();
        if rows_max > 0 && rows as u64 > rows_max as u64 {
            let message = format!("the transaction changes more than {rows_max} rows");
            return Err(Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message)
                .with_hint("Split it into several transactions, or raise transaction_rows_max with ALTER SYSTEM SET."));
        }
        Ok(())
    }

    /// Makes the changes durable and ends the transaction. Returns its number in the log, if it has changed anything.
    pub async fn commit(&mut self, engine: &Engine) -> Result<Option<u64>> {
        let mut changes = Vec::new();
        for (id, table) in std::mem::take(&mut self.tables) {
            match table.net() {
                Ok(net) => changes.extend(net.map(|delta| (id, delta))),
                Err(error) => {
                    self.rollback();
                    return Err(error);
                }
            }
        }
        if changes.is_empty() {
            self.rollback();
            return Ok(None);
        }
        let commit = self.committing(engine.clone(), changes);
        self.forget();
        commit.await.unwrap_or_else(|e| Err(Error::internal(format!("a commit was lost: {e}"))))
    }

    /// The commit runs by itself: whoever waits for it may go away, but the locks stay until it is decided.
    fn committing(&mut self, engine: Engine, changes: Vec<(RelationId, Delta)>) -> tokio::task::JoinHandle<Result<Option<u64>>> {
        let none = HeldLocks::new(self.held.transaction());
        let locks = std::mem::replace(&mut self.held, none);
        let mut ending = Ending { manager: Arc::clone(&self.manager), locks };
        tokio::spawn(async move {
            let number = match ending.manager.gate.enter().await {
                Ok(_entered) => engine.commit_transaction(changes).await,
                Err(closed) => Err(closed),
            };
            ending.manager.commits.fetch_add(1, Ordering::SeqCst);
            ending.release();
            number.map(Some)
        })
    }

    /// Ends the transaction without its changes.
    pub fn rollback(&mut self) {
        self.manager.locks.release(&mut self.held);
        self.forget();
    }

    fn forget(&mut self) {
        self.tables.clear();
        self.savepoints.clear();
        self.snapshot = OnceLock::new();
        self.memory.free();
    }

    /// SAVEPOINT inside a transaction.
    pub fn savepoint(&mut self, name: &str) {
        let marks = self.tables.iter_mut().map(|(id, t)| (*id, t.mark())).collect();
        self.savepoints.push(Savepoint { name: name.to_string(), marks });
    }

    fn position(&self, name: &str) -> Result<usize> {
        let position = self.savepoints.iter().rposition(|s| s.name == name);
        position.ok_or_else(|| Error::new(SqlState::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist")))
    }

    /// ROLLBACK TO: everything since the savepoint is undone, the savepoint stays. Locks stay too.
    pub fn rollback_to(&mut self, name: &str) -> Result<()> {
        let position = self.position(name)?;
        self.savepoints.truncate(position + 1);
        if let Some(savepoint) = self.savepoints.last() {
            for (id, changes) in &mut self.tables {
                changes.undo_to(savepoint.marks.get(id).copied().unwrap_or(0));
            }
        }
        Ok(())
    }

    /// RELEASE: the savepoint, and those after it, can no longer be returned to.
    pub fn release(&mut self, name: &str) -> Result<()> {
        let position = self.position(name)?;
        self.savepoints.truncate(position);
        if self.savepoints.is_empty() {
            self.tables.values_mut().for_each(TableChanges::forget_marks);
        }
        Ok(())
    }
}

/// Bytes of a batch's rows.
fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.rollback();
    }
}

/// Locks of a transaction that is being committed, released in any case.
struct Ending {
    manager: Arc<TransactionManager>,
    locks: HeldLocks,
}

impl Ending {
    fn release(&mut self) {
        self.manager.locks.release(&mut self.locks);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.release();
    }
}

/// The error of a REPEATABLE READ transaction that would overwrite what it has not seen.
pub fn serialization_failure() -> Error {
    Error::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
        .with_hint("Run the transaction again.")
}
