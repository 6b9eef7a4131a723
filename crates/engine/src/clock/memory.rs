//! How `--memory` is shared out, and what happens when a share is used up.
//!
//! | share | for | when it is used up |
//! |---|---|---|
//! | 1/4 | RocksDB's cache | it forgets blocks |
//! | 1/4 | queries | they spill, or fail |
//! | 3/8 | operator state | a checkpoint, then eviction down to 1/4 |
//! | 1/8 | relations' changes that no checkpoint has | a checkpoint |
//!
//! Sources wait while state or changes have too much. State that cannot leave, because every epoch touches it, may have more.

use super::Clock;
use crate::messages::Command;

impl Clock {
    /// No more source rows until a checkpoint has made room.
    pub(super) fn is_memory_tight(&self) -> bool {
        self.store.stats().overlay_bytes > self.memory / 8 || self.is_state_tight()
    }

    /// Rows that one epoch takes from each source reader at most: all of them may be new keys.
    pub(super) fn epoch_rows_max(&self) -> usize {
        usize::try_from(self.memory / 1024).unwrap_or(usize::MAX).clamp(super::EPOCH_ROWS_MAX / 32, super::EPOCH_ROWS_MAX)
    }

    fn state_bytes(&self) -> u64 {
        self.state_bytes.iter().sum()
    }

    fn may_evict(&self) -> bool {
        self.settings.get("state_backend").is_ok_and(|backend| backend == "rocksdb")
    }

    pub(super) fn is_state_tight(&self) -> bool {
        self.may_evict() && self.state_bytes() > (self.memory / 8 * 3).max(self.state_floor)
    }

    /// Up to which size of their state workers read what they may need.
    pub(super) fn tell_warm_limit(&self) {
        let max = if self.may_evict() { self.memory / 4 / self.workers.count() as u64 } else { u64::MAX };
        self.workers.send(|_| Command::Warm { max });
    }

    /// A checkpoint is complete: state leaves memory if it has much. Nothing that leaves may be on its way to a checkpoint.
    pub(super) fn make_room(&mut self) {
        if self.may_evict() && self.checkpoints_on_their_way() == 0 && self.carried.is_empty() && self.state_bytes() > self.memory / 16 * 5
        {
            let keep = self.memory / 4 / self.workers.count() as u64;
            self.workers.send(|_| Command::Evict { keep });
        }
    }

    /// A worker has evicted what it could.
    pub(super) fn evicted(&mut self, worker: usize, bytes: u64) {
        if let Some(slot) = self.state_bytes.get_mut(worker) {
            *slot = bytes;
        }
        // What is left is needed all the time, or too large to be taken apart.
        self.state_floor = self.state_bytes() / 4 * 5;
    }
}
