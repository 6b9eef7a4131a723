//! Locks that transactions hold until they end: rows by their key, and tables as a whole. Waiting is first come, first
//! served; whoever would close a circle of waiting gets a deadlock error instead.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use hashbrown::HashMap;
use millpond_common::{Error, RelationId, Result, SqlState};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::cancel::Limits;

/// Names a transaction among the running ones.
pub type TransactionId = u64;

/// From so many row locks on one table, a transaction tries to lock the table instead.
const ROWS_BEFORE_TABLE: usize = 100_000;

/// How much a transaction claims of what it locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A table: some of its rows are written, each locked by itself, or rows are only added.
    Rows,
    /// A table without a key: existing rows are changed; others may still add some.
    Existing,
    /// A row, or everything in a table.
    Exclusive,
}

impl Mode {
    fn conflicts(self, other: Mode) -> bool {
        self == Mode::Exclusive || other == Mode::Exclusive || (self == Mode::Existing && other == Mode::Existing)
    }
}

/// What is locked. A row is named by a hash of its key: two rows of equal hash share a lock, which costs a rare wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Table(RelationId),
    Row(RelationId, u64),
}

struct Waiter {
    transaction: TransactionId,
    mode: Mode,
    granted: oneshot::Sender<()>,
}

#[derive(Default)]
struct Lock {
    holders: Vec<(TransactionId, Mode)>,
    queue: VecDeque<Waiter>,
}

impl Lock {
    fn held_by(&self, transaction: TransactionId) -> Option<Mode> {
        self.holders.iter().find(|(t, _)| *t == transaction).map(|(_, m)| *m)
    }

    /// Whom `transaction` would wait for: conflicting holders, and conflicting waiters among the first `ahead`.
    fn blockers(&self, transaction: TransactionId, mode: Mode, ahead: usize) -> impl Iterator<Item = TransactionId> {
        let waiting = self.queue.iter().take(ahead).map(|w| (w.transaction, w.mode));
        let all = self.holders.iter().copied().chain(waiting);
        all.filter(move |(t, m)| *t != transaction && m.conflicts(mode)).map(|(t, _)| t)
    }

    fn grant(&mut self, transaction: TransactionId, mode: Mode) {
        match self.holders.iter_mut().find(|(t, _)| *t == transaction) {
            Some((_, held)) => *held = mode.max(*held),
            None => self.holders.push((transaction, mode)),
        }
    }

    /// Gives the lock to those in the queue that nothing blocks any more.
    fn settle(&mut self, waiting: &mut HashMap<TransactionId, Target>) {
        let mut place = 0;
        while let Some(waiter) = self.queue.get(place) {
            let (transaction, mode) = (waiter.transaction, waiter.mode);
            if self.blockers(transaction, mode, place).next().is_some() {
                place += 1;
                continue;
            }
            self.grant(transaction, mode);
            waiting.remove(&transaction);
            if let Some(waiter) = self.queue.remove(place) {
                // A waiter that has given up meanwhile releases the lock with its others.
                let _ = waiter.granted.send(());
            }
        }
    }
}

#[derive(Default)]
struct State {
    locks: HashMap<Target, Lock, ahash::RandomState>,
    /// What each waiting transaction waits for; one thing at a time.
    waiting: HashMap<TransactionId, Target>,
}

enum Asked {
    Granted,
    Wait(oneshot::Receiver<()>),
}

impl State {
    fn ask(&mut self, transaction: TransactionId, target: Target, mode: Mode) -> Result<Asked> {
        let lock = self.locks.entry(target).or_default();
        let held = lock.held_by(transaction);
        if held.is_some_and(|m| m >= mode) {
            return Ok(Asked::Granted);
        }
        // Who holds a weaker lock already goes first: those behind it wait for it anyway.
        let place = if held.is_some() { 0 } else { lock.queue.len() };
        if lock.blockers(transaction, mode, place).next().is_none() {
            lock.grant(transaction, mode);
            return Ok(Asked::Granted);
        }
        let (granted, receiver) = oneshot::channel();
        lock.queue.insert(place, Waiter { transaction, mode, granted });
        self.waiting.insert(transaction, target);
        if let Some(circle) = self.circle(transaction) {
            self.give_up(transaction);
            return Err(deadlock(&circle));
        }
        Ok(Asked::Wait(receiver))
    }

    /// Whom a waiting transaction waits for.
    fn waits_for(&self, transaction: TransactionId) -> Vec<TransactionId> {
        let Some(lock) = self.waiting.get(&transaction).and_then(|t| self.locks.get(t)) else { return vec![] };
        let Some(place) = lock.queue.iter().position(|w| w.transaction == transaction) else { return vec![] };
        let mode = lock.queue.get(place).map_or(Mode::Exclusive, |w| w.mode);
        lock.blockers(transaction, mode, place).collect()
    }

    /// A circle of waiting transactions that begins with `start`.
    fn circle(&self, start: TransactionId) -> Option<Vec<TransactionId>> {
        let mut seen = BTreeSet::from([start]);
        let mut path = vec![(start, self.waits_for(start))];
        while let Some((_, next)) = path.last_mut() {
            match next.pop() {
                Some(t) if t == start => return Some(path.into_iter().map(|(t, _)| t).collect()),
                Some(t) if seen.insert(t) => path.push((t, self.waits_for(t))),
                Some(_) => {}
                None => drop(path.pop()),
            }
        }
        None
    }

    /// `transaction` no longer waits.
    fn give_up(&mut self, transaction: TransactionId) {
        let Some(target) = self.waiting.remove(&transaction) else { return };
        let Some(lock) = self.locks.get_mut(&target) else { return };
        lock.queue.retain(|w| w.transaction != transaction);
        lock.settle(&mut self.waiting);
    }

    fn release(&mut self, transaction: TransactionId, target: Target) {
        let hashbrown::hash_map::Entry::Occupied(mut entry) = self.locks.entry(target) else { return };
        let lock = entry.get_mut();
        lock.holders.retain(|(t, _)| *t != transaction);
        if !lock.queue.is_empty() {
            lock.settle(&mut self.waiting);
        }
        if lock.holders.is_empty() && lock.queue.is_empty() {
            entry.remove();
        }
    }
}

fn deadlock(circle: &[TransactionId]) -> Error {
    let next = circle.iter().skip(1).chain(circle.first());
    let waits = circle.iter().zip(next).map(|(a, b)| format!("Transaction {a} waits for transaction {b}."));
    Error::new(SqlState::DEADLOCK_DETECTED, "deadlock detected")
        .with_detail(waits.collect::<Vec<_>>().join(" "))
        .with_hint("Run the transaction again.")
}

/// All locks of all transactions.
#[derive(Default)]
pub struct LockTable(Mutex<State>);

/// How long a statement is willing to wait for a lock.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// Longest wait for one lock; `None` = as long as it takes.
    pub lock_timeout: Option<Duration>,
    /// What else ends the wait.
    pub limits: &'a Limits,
}

/// The locks that one transaction holds.
pub struct HeldLocks {
    transaction: TransactionId,
    targets: Vec<Target>,
    tables: HashMap<RelationId, HeldTable>,
}

#[derive(Clone, Copy)]
struct HeldTable {
    mode: Mode,
    rows: usize,
    /// The number of rows at which to try for the whole table.
    try_at: usize,
}

impl HeldLocks {
    /// None yet.
    pub fn new(transaction: TransactionId) -> Self {
        HeldLocks { transaction, targets: vec![], tables: HashMap::new() }
    }

    /// Whose they are.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    fn covers(&self, table: RelationId, mode: Mode) -> bool {
        self.tables.get(&table).is_some_and(|t| t.mode >= mode)
    }

    fn note(&mut self, table: RelationId, mode: Mode) {
        let held = self.tables.entry(table).or_insert(HeldTable { mode, rows: 0, try_at: ROWS_BEFORE_TABLE });
        held.mode = held.mode.max(mode);
    }
}

/// Leaves the queue when a wait ends in any other way than with the lock.
struct Waiting<'a> {
    table: &'a LockTable,
    transaction: TransactionId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.table.0.lock().give_up(self.transaction);
    }
}

impl LockTable {
    /// Locks a table. Returns whether it had to wait.
    pub async fn lock_table(&self, held: &mut HeldLocks, table: RelationId, mode: Mode, patience: Patience<'_>) -> Result<bool> {
        if held.covers(table, mode) {
            return Ok(false);
        }
        let target = Target::Table(table);
        // Known before the wait: should the wait be dropped just as the lock is granted, it is released all the same.
        held.targets.push(target);
        let asked = self.0.lock().ask(held.transaction, target, mode)?;
        let waited = self.wait(held.transaction, asked, patience).await?;
        held.note(table, mode);
        Ok(waited)
    }

    /// Locks rows of a table, given by the hashes of their keys. Returns whether it had to wait.
    pub async fn lock_rows(&self, held: &mut HeldLocks, table: RelationId, rows: &[u64], patience: Patience<'_>) -> Result<bool> {
        let mut waited = self.lock_table(held, table, Mode::Rows, patience).await?;
        if held.covers(table, Mode::Exclusive) {
            return Ok(waited);
        }
        if let Some(h) = held.tables.get_mut(&table) {
            h.rows += rows.len();
            if h.rows > h.try_at {
                h.try_at = h.rows * 2;
                if self.try_table(held.transaction, table) {
                    h.mode = Mode::Exclusive;
                    return Ok(waited);
                }
            }
        }
        let mut next = 0;
        while next < rows.len() {
            let asked = self.ask_rows(held, table, rows, &mut next)?;
            waited |= self.wait(held.transaction, asked, patience).await?;
        }
        Ok(waited)
    }

    /// Takes row locks from `rows[*next]` on, until one has to be waited for.
    fn ask_rows(&self, held: &mut HeldLocks, table: RelationId, rows: &[u64], next: &mut usize) -> Result<Asked> {
        let mut state = self.0.lock();
        while let Some(row) = rows.get(*next) {
            *next += 1;
            let target = Target::Row(table, *row);
            held.targets.push(target);
            if let wait @ Asked::Wait(_) = state.ask(held.transaction, target, Mode::Exclusive)? {
                return Ok(wait);
            }
        }
        Ok(Asked::Granted)
    }

    /// Locks a whole table if nobody else has locked anything of it.
    fn try_table(&self, transaction: TransactionId, table: RelationId) -> bool {
        let mut state = self.0.lock();
        let Some(lock) = state.locks.get_mut(&Target::Table(table)) else { return false };
        let free = lock.blockers(transaction, Mode::Exclusive, lock.queue.len()).next().is_none();
        if free {
            lock.grant(transaction, Mode::Exclusive);
        }
        free
    }

    async fn wait(&self, transaction: TransactionId, asked: Asked, patience: Patience<'_>) -> Result<bool> {
        let Asked::Wait(granted) = asked else { return Ok(false) };
        let _leaves_queue = Waiting { table: self, transaction };
        let late = async {
            match patience.lock_timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = granted => answer.map(|()| true).map_err(|_| Error::internal("a lock's queue was lost")),
            error = patience.limits.exceeded() => Err(error),
            () = late => Err(Error::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")),
        }
    }

    /// Releases everything that a transaction holds.
    pub fn release(&self, held: &mut HeldLocks) {
        if held.targets.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        for target in held.targets.drain(..).rev() {
            state.release(held.transaction, target);
        }
        held.tables.clear();
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.0.lock().locks.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cancel::CancelToken;
    use std::sync::Arc;

    const T: RelationId = RelationId(1);

    fn limits() -> Limits {
        Limits { cancel: CancelToken::new(), deadline: None }
    }

    fn patience(limits: &Limits) -> Patience<'_> {
        Patience { lock_timeout: None, limits }
    }

    /// Starts a transaction that takes a row, reports, and keeps its locks until told to end.
    async fn take(table: &Arc<LockTable>, held: &mut HeldLocks, row: u64) -> Result<bool> {
        let limits = limits();
        table.lock_rows(held, T, &[row], patience(&limits)).await
    }

    async fn settled() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_row_has_one_owner_and_the_queue_is_fair() {
        let table = Arc::new(LockTable::default());
        let mut first = HeldLocks::new(1);
        assert!(!take(&table, &mut first, 7).await.unwrap());
        assert!(!take(&table, &mut first, 7).await.unwrap(), "its own lock");
        let order = Arc::new(Mutex::new(vec![]));
        let mut others = vec![];
        for id in 2..5 {
            let (table, order) = (Arc::clone(&table), Arc::clone(&order));
            others.push(tokio::spawn(async move {
                let mut held = HeldLocks::new(id);
                assert!(take(&table, &mut held, 7).await.unwrap());
                order.lock().push(id);
                table.release(&mut held);
            }));
            settled().await;
        }
        assert!(order.lock().is_empty());
        table.release(&mut first);
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(*order.lock(), [2, 3, 4]);
        assert_eq!(table.count(), 0);
    }

    #[tokio::test]
    async fn who_closes_a_circle_gets_the_error() {
        let table = Arc::new(LockTable::default());
        let mut ends = vec![];
        let mut held = (0..3).map(HeldLocks::new).collect::<Vec<_>>();
        for (i, h) in held.iter_mut().enumerate() {
            take(&table, h, i as u64).await.unwrap();
        }
        let mut last = held.pop().unwrap();
        for (i, mut h) in held.into_iter().enumerate() {
            let table = Arc::clone(&table);
            ends.push(tokio::spawn(async move {
                take(&table, &mut h, i as u64 + 1).await.unwrap();
                table.release(&mut h);
            }));
            settled().await;
        }
        let error = take(&table, &mut last, 0).await.unwrap_err();
        assert_eq!(error.state(), SqlState::DEADLOCK_DETECTED);
        assert_eq!(
            error.detail().unwrap(),
            "Transaction 2 waits for transaction 0. Transaction 0 waits for transaction 1. Transaction 1 waits for transaction 2."
        );
        table.release(&mut last);
        for end in ends {
            end.await.unwrap();
        }
        assert_eq!(table.count(), 0);
    }

    #[tokio::test]
    async fn waiting_ends_by_timeout_cancel_and_drop() {
        let table = Arc::new(LockTable::default());
        let mut owner = HeldLocks::new(1);
        take(&table, &mut owner, 7).await.unwrap();
        let limits = limits();
        let mut held = HeldLocks::new(2);
        let short = Patience { lock_timeout: Some(Duration::from_millis(5)), limits: &limits };
        let error = table.lock_rows(&mut held, T, &[7], short).await.unwrap_err();
        assert_eq!(error.state(), SqlState::LOCK_NOT_AVAILABLE);
        limits.cancel.cancel();
        let error = table.lock_rows(&mut held, T, &[7], patience(&limits)).await.unwrap_err();
        assert_eq!(error.state(), SqlState::QUERY_CANCELED);
        limits.cancel.reset();
        let dropped = tokio::time::timeout(Duration::from_millis(5), table.lock_rows(&mut held, T, &[7], patience(&limits))).await;
        assert!(dropped.is_err());
        table.release(&mut held);
        table.release(&mut owner);
        assert_eq!(table.count(), 0);
    }

    #[tokio::test]
    async fn table_modes() {
        let table = LockTable::default();
        let limits = limits();
        let now = Patience { lock_timeout: Some(Duration::from_millis(1)), limits: &limits };
        let (mut a, mut b) = (HeldLocks::new(1), HeldLocks::new(2));
        table.lock_table(&mut a, T, Mode::Rows, now).await.unwrap();
        table.lock_table(&mut b, T, Mode::Existing, now).await.unwrap();
        assert!(table.lock_table(&mut a, T, Mode::Existing, now).await.is_err());
        assert!(table.lock_table(&mut b, T, Mode::Exclusive, now).await.is_err());
        table.release(&mut a);
        table.lock_table(&mut b, T, Mode::Exclusive, now).await.unwrap();
        assert!(table.lock_rows(&mut a, T, &[1], now).await.is_err(), "TRUNCATE keeps writers out");
        table.release(&mut a);
        table.release(&mut b);
        assert_eq!(table.count(), 0);
    }

    #[tokio::test]
    async fn many_rows_become_a_table_lock_when_nobody_minds() {
        let table = LockTable::default();
        let limits = limits();
        let mut a = HeldLocks::new(1);
        let rows = (0..=ROWS_BEFORE_TABLE as u64).collect::<Vec<_>>();
        table.lock_rows(&mut a, T, &rows, patience(&limits)).await.unwrap();
        assert_eq!(table.count(), 1);
        let mut b = HeldLocks::new(2);
        let now = Patience { lock_timeout: Some(Duration::from_millis(1)), limits: &limits };
        assert!(table.lock_rows(&mut b, T, &[u64::MAX], now).await.is_err());
        table.release(&mut b);
        table.release(&mut a);
        assert_eq!(table.count(), 0);
    }
}
