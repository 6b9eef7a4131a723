//! How `--memory`, less what the process itself takes, is shared out, and what happens when a share is used up.
//!
//! | share | for | when it is used up |
//! |---|---|---|
//! | 3/16 | RocksDB's cache | it forgets blocks |
//! | 1/16 | columns that queries have read of stored rows | the one used longest ago leaves |
//! | 1/4 | queries | they spill, or fail |
//! | 1/4, or `state_memory` | operator state | a checkpoint, then eviction down to two thirds |
//! | 1/8 | relations' changes that no checkpoint has | a checkpoint |
//! | 1/8 | what source rows have changed since the last checkpoint, and what it takes to write it | a checkpoint |
//!
//! Queries and the cache rarely have theirs: that is what buffers, gaps between used memory, and the program itself live on. Sources wait
//! while state or changes have too much. State that cannot leave, because every epoch touches it, may have more.

use super::Clock;
use crate::messages::Command;

/// What a source row may change, on its way to disk: some entries of state and a row of a view.
const CHANGE_BYTES: u64 = 256;

/// So many jobs over one source may hold whole epochs of it.
const JOBS_WITHOUT_NOTICE: usize = 8;

impl Clock {
    /// No more source rows until a checkpoint has made room.
    pub(super) fn is_memory_tight(&self) -> bool {
        let changes = self.source_rows * CHANGE_BYTES;
        self.store.stats().overlay_bytes > self.memory / 8 || changes > self.memory / 8 || self.is_state_tight()
    }

    /// Rows that one epoch takes from a source reader at most: all of them may be new keys. Each of its jobs holds what it has made
    /// of them until the epoch is complete, so many jobs take fewer.
    pub(super) fn epoch_rows_max(&self, jobs: usize) -> usize {
        let one = usize::try_from(self.memory / 4096).unwrap_or(usize::MAX).clamp(super::EPOCH_ROWS_MAX / 32, super::EPOCH_ROWS_MAX);
        (one * JOBS_WITHOUT_NOTICE / jobs.max(JOBS_WITHOUT_NOTICE)).max(super::EPOCH_ROWS_MAX / 64)
    }

    fn state_bytes(&self) -> u64 {
        self.state_bytes.iter().sum()
    }

    fn may_evict(&self) -> bool {
        self.settings.get("state_backend").is_ok_and(|backend| backend == "rocksdb")
    }

    /// How much state may take before sources wait. What was set while there was more memory counts as far as there is memory.
    fn state_max(&self) -> u64 {
        match self.settings.size("state_memory") {
            0 => self.memory / 4,
            bytes => bytes.min(self.memory),
        }
    }

    /// What each worker keeps when state has too much.
    fn state_kept(&self) -> u64 {
        self.state_max() / 3 * 2 / self.workers.count() as u64
    }

    pub(super) fn is_state_tight(&self) -> bool {
        let floor = if self.evicting == 0 { self.state_floor } else { 0 };
        self.may_evict() && self.state_bytes() > self.state_max().max(floor)
    }

    /// Up to which size of their state workers read what they may need.
    pub(super) fn tell_warm_limit(&self) {
        let max = if self.may_evict() { self.state_kept() } else { u64::MAX };
        self.workers.send(|_| Command::Warm { max });
    }

    /// A checkpoint is complete: state leaves memory if it has much. Nothing that leaves may be on its way to a checkpoint.
    pub(super) fn make_room(&mut self) {
        let settled = self.checkpoints_on_their_way() == 0 && self.carried.is_empty();
        if settled && self.may_evict() && self.state_bytes() > self.state_max() / 6 * 5 {
            let keep = self.state_kept();
            self.evicting = self.workers.count();
            self.workers.send(|_| Command::Evict { keep });
        }
    }

    /// A worker has evicted what it could.
    pub(super) fn evicted(&mut self, worker: usize, bytes: u64) {
        if let Some(slot) = self.state_bytes.get_mut(worker) {
            *slot = bytes;
        }
        if self.evicting == 1 {
            // All have. What is left is needed all the time, or too large to be taken apart.
            self.state_floor = self.state_bytes() / 4 * 5;
        }
        self.evicting = self.evicting.saturating_sub(1);
    }

    /// A checkpoint begins: what it is to have must stay, so workers stop evicting.
    pub(super) fn stop_evicting(&mut self) {
        self.evicting = 0;
    }
}
