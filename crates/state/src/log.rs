//! The table log: transactions in commit order, one sync for all that wait; and the catalog's records beside it.

use millpond_common::{Error, Result, SqlState};
use parking_lot::{Condvar, Mutex};
use rocksdb::WriteBatch;

use crate::Store;
use crate::failpoint::failpoint;
use crate::format;
use crate::planted::planted;
use crate::poison::Poison;
use crate::rocks::Rocks;

/// Entries wait here for the thread that writes them.
pub(crate) struct LogQueue {
    queue: Mutex<Queue>,
    written: Condvar,
}

struct Queue {
    /// The number of the next entry.
    next: u64,
    /// The entries of the group that is being gathered.
    batch: WriteBatch,
    /// The number of that group.
    gathering: u64,
    /// Groups up to this one are on disk.
    durable: u64,
    /// Somebody is writing a group.
    writing: bool,
}

impl LogQueue {
    pub(crate) fn new(next: u64) -> Self {
        let queue = Queue { next, batch: WriteBatch::default(), gathering: 1, durable: 0, writing: false };
        LogQueue { queue: Mutex::new(queue), written: Condvar::new() }
    }

    /// Appends entries and returns when they are on disk. Whoever finds no writer at work writes for all that wait.
    fn append(&self, rocks: &Rocks, poison: &Poison, entries: &[Vec<u8>]) -> Result<Vec<u64>> {
        let mut queue = self.queue.lock();
        poison.check()?;
        let mut numbers = Vec::with_capacity(entries.len());
        for entry in entries {
            let seq = queue.next;
            queue.next += 1;
            queue.batch.put_cf(rocks.log(), format::log_key(seq), entry);
            numbers.push(seq);
        }
        if planted("answered-early") && numbers.iter().all(|n| n % 2 == 1) {
            return Ok(numbers);
        }
        let group = queue.gathering;
        while queue.durable < group {
            poison.check()?;
            if queue.writing {
                self.written.wait(&mut queue);
                continue;
            }
            let batch = std::mem::take(&mut queue.batch);
            let writing = queue.gathering;
            queue.gathering += 1;
            queue.writing = true;
            drop(queue);
            failpoint("log-unwritten");
            let result = poison.guard(rocks.write_synced(batch));
            failpoint("log-synced");
            queue = self.queue.lock();
            queue.writing = false;
            if result.is_ok() {
                queue.durable = writing;
            }
            self.written.notify_all();
            result?;
        }
        Ok(numbers)
    }
}

impl Store {
    /// Appends entries to the table log, all or none, and returns their numbers when they are on disk. Numbers ascend
    /// in the order of calls. Concurrent calls share a sync. It blocks.
    pub fn log_append(&self, entries: &[Vec<u8>]) -> Result<Vec<u64>> {
        if entries.is_empty() {
            return Ok(vec![]);
        }
        self.log.append(&*self.rocks()?, &self.poison, entries)
    }

    /// Writes and deletes catalog records, all or none, and returns when that is on disk.
    pub fn catalog_write(&self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) -> Result<()> {
        let rocks = self.rocks()?;
        self.poison.check()?;
        let mut batch = WriteBatch::default();
        for key in deletes {
            batch.delete_cf(rocks.log(), format::catalog_key(key));
        }
        for (key, value) in puts {
            batch.put_cf(rocks.log(), format::catalog_key(key), value);
        }
        failpoint("catalog-unwritten");
        self.poison.guard(rocks.write_synced(batch))?;
        failpoint("catalog-synced");
        Ok(())
    }
}

/// What the log family holds when the store is opened.
#[derive(Default)]
pub(crate) struct LogFamily {
    pub(crate) record: Option<format::CheckpointRecord>,
    pub(crate) catalog: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) drops: Vec<u32>,
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
}

impl LogFamily {
    pub(crate) fn read(rocks: &Rocks) -> Result<Self> {
        let mut family = LogFamily::default();
        for pair in rocks.db().iterator_cf(rocks.log(), rocksdb::IteratorMode::Start) {
            let (key, value) = pair.map_err(crate::rocks::storage_error)?;
            match format::LogFamilyKey::parse(&key) {
                Some(format::LogFamilyKey::Catalog(name)) => family.catalog.push((name.to_vec(), value.into_vec())),
                Some(format::LogFamilyKey::Drop(id)) => family.drops.push(id),
                Some(format::LogFamilyKey::Checkpoint) => family.record = Some(format::CheckpointRecord::decode(&value)?),
                Some(format::LogFamilyKey::Entry(seq)) => family.entries.push((seq, value.into_vec())),
                None => return Err(Error::new(SqlState::DATA_CORRUPTED, "the log has a record of an unknown kind")),
            }
        }
        let contained = family.record.as_ref().map_or(0, |r| r.log_seq);
        family.entries.retain(|(seq, _)| *seq > contained);
        Ok(family)
    }

    /// The number of the next entry of the log.
    pub(crate) fn next_seq(&self) -> u64 {
        let contained = self.record.as_ref().map_or(0, |r| r.log_seq);
        self.entries.last().map_or(contained, |(seq, _)| *seq).max(contained) + 1
    }
}
