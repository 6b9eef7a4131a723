//! When a checkpoint is due, and what becomes of it: committed in order, or abandoned when it takes too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_common::{Error, SqlState};
use millpond_state::Checkpoint;
use millpond_state::failpoint::failpoint;

use super::{Barrier, Clock, InFlight, Saved};
use crate::checkpoint::{Committed, Frozen, Meta};
use crate::job::{CheckpointInfo, JobState};
use crate::stash;

impl Clock {
    /// Checkpoints that are collecting state or being committed.
    pub(super) fn checkpoints_on_their_way(&self) -> usize {
        self.committing + self.collecting.len() + self.in_flight.iter().filter(|f| f.checkpoint.is_some()).count()
    }

    pub(super) fn is_checkpoint_possible(&self) -> bool {
        let most = usize::try_from(self.settings.integer("checkpoint_max_concurrent")).unwrap_or(1);
        let most = if self.is_state_tight() { 1 } else { most }; // state can only leave when none is on its way
        // A restart begins where the last checkpoint is, so that must be settled.
        self.checkpoints_on_their_way() < most && !self.is_restart_due() && !self.is_checkpoint_awaited()
    }

    pub(super) fn checkpoint_due(&self) -> bool {
        if !self.is_checkpoint_possible() {
            return false;
        }
        let wanted = self.checkpoint_soon || !self.checkpoint_wanted.is_empty() || self.shutdown.is_some();
        // Eviction comes first: it has what the last checkpoint made room for, and the next one would end it.
        let short = self.is_memory_tight() && self.evicting == 0;
        wanted || (self.dirty && (short || self.time_to_next().is_zero()))
    }

    /// Until interval and pause are over.
    fn time_to_next(&self) -> Duration {
        let left = |name: &str, since: Instant| self.settings.duration(name).unwrap_or_default().saturating_sub(since.elapsed());
        let pause = self.last_commit.map_or(Duration::ZERO, |at| left("checkpoint_min_pause", at));
        left("checkpoint_interval", self.last_checkpoint).max(pause)
    }

    pub(super) fn time_to_checkpoint(&self) -> Option<Duration> {
        let least = Duration::from_millis(1);
        (self.dirty && self.is_checkpoint_possible()).then(|| if self.checkpoint_soon { least } else { self.time_to_next().max(least) })
    }

    fn timeout(&self) -> Duration {
        self.settings.duration("checkpoint_timeout").unwrap_or(Duration::MAX)
    }

    /// Until the oldest checkpoint that is still collecting has taken too long.
    pub(super) fn time_to_timeout(&self) -> Option<Duration> {
        let flights = self.collecting.iter().chain(&self.in_flight);
        let open = flights.filter_map(|f| f.checkpoint.as_ref()).find(|b| !b.abandoned)?;
        Some(self.timeout().saturating_sub(open.started.elapsed()))
    }

    /// Checkpoints that have not collected their state in time have failed.
    pub(super) fn abandon_checkpoints(&mut self) {
        let timeout = self.timeout();
        let mut late = Vec::new();
        for flight in self.collecting.iter_mut().chain(&mut self.in_flight) {
            if let Some(barrier) = flight.checkpoint.as_mut().filter(|b| !b.abandoned && b.started.elapsed() >= timeout) {
                barrier.abandoned = true;
                late.push((flight.epoch, barrier.started, barrier.started_at));
            }
        }
        for (epoch, started, started_at) in late {
            let error = Error::new(SqlState::QUERY_CANCELED, format!("checkpoint timed out after {} ms", timeout.as_millis()))
                .with_detail("Not all operators came to its barrier in time.")
                .with_hint("Nothing is lost: the next checkpoint contains it. Raise checkpoint_timeout if views need longer for an epoch.");
            self.shared.checkpoint(CheckpointInfo {
                epoch,
                kind: "incremental",
                state: "FAILED",
                started: started_at,
                duration: started.elapsed(),
                stall: Duration::ZERO,
                bytes: 0,
                total_bytes: self.store.stats().disk_bytes,
                entries: 0,
                error: Some(error.message().to_string()),
            });
            for (_, reply) in self.checkpoint_waiters.extract_if(.., |(e, _)| *e <= epoch) {
                let _ = reply.send(Err(error.clone()));
            }
            self.stop_awaiting(epoch, &error);
            if epoch == self.checkpoint_epoch {
                self.checkpoint_epoch = 0;
            }
            tracing::warn!(epoch, %error, "checkpoint failed");
            (self.dirty, self.failures) = (true, self.failures + 1);
            let tolerable = u64::try_from(self.settings.integer("checkpoint_tolerable_failures")).unwrap_or(u64::MAX);
            if self.failures > tolerable {
                self.poison(error);
            }
        }
    }

    /// Checkpoints whose epoch is complete go to the committer, in order, when all workers have given their state.
    pub(super) fn send_collected(&mut self) {
        while self.collecting.front().and_then(|f| f.checkpoint.as_ref()).is_some_and(|b| b.waiting == 0) {
            let Some(mut done) = self.collecting.pop_front() else { return };
            if let Some(barrier) = done.checkpoint.take() {
                self.send_checkpoint(&done, barrier);
            }
        }
    }

    /// A checkpoint without the jobs that have failed.
    fn send_checkpoint(&mut self, done: &InFlight, barrier: Barrier) {
        let Barrier { mut jobs, resumable, mut tables, leaders, started, started_at, stall, cut, abandoned, .. } = barrier;
        let is_aligned = cut.is_none();
        let (epoch, log_seq) = cut.as_ref().map_or((done.epoch, done.log_seq), |cut| (cut.epoch, cut.log_seq));
        let (epochs, stash) = cut.map(|cut| (cut.epochs, Arc::new(cut.stash))).unwrap_or_default();
        self.carried.append(&mut tables);
        if abandoned {
            self.dirty = true;
            return;
        }
        for meta in &mut jobs {
            let Some(job) = self.jobs.get_mut(&meta.id) else { continue };
            if job.recovery.is_none() && !matches!(job.state, JobState::Failed(_)) {
                if resumable.contains(&meta.id) {
                    let positions = meta.positions.clone();
                    job.saved = Some(Saved { epoch, inputs: done.epoch, positions, stash: Arc::clone(&stash) });
                    job.held = stash::received(&stash, &job.edges.reads);
                    job.held_until = epoch;
                }
                if meta.level {
                    job.history.recovered();
                }
                continue;
            }
            // What it has done since it was saved does not count; a start begins it anew.
            (meta.level, meta.backfilled) = (false, None);
            if let JobState::Failed(error) = &job.state {
                meta.failed = Some(crate::checkpoint::error_text(error));
            }
            self.forget_changes(meta.id);
        }
        failpoint("checkpoint-collected");
        self.hold_changes(epoch);
        // Encoding plain numbers and bytes into memory does not fail.
        let meta = Meta::new(jobs, leaders).with_stash(epochs, stash.len() as u32).encode().unwrap_or_default();
        let checkpoint = Checkpoint { epoch, log_seq, meta, frozen: std::mem::take(&mut self.carried) };
        self.committing += 1;
        if self.committer.as_ref().is_none_or(|c| c.send(Frozen { checkpoint, started, started_at, stall, is_aligned, stash }).is_err()) {
            self.poison(Error::internal("the committer is gone"));
        }
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        self.committing = self.committing.saturating_sub(1);
        self.last_commit = Some(Instant::now());
        let Committed { epoch, info, result } = committed;
        self.shared.checkpoint(info.clone());
        match result {
            Ok(()) => {
                self.failures = 0;
                self.feed_taps(epoch);
                tracing::debug!(epoch, entries = info.entries, bytes = info.bytes, duration = ?info.duration, "checkpoint");
                for (_, reply) in self.checkpoint_waiters.extract_if(.., |(e, _)| *e <= epoch) {
                    let _ = reply.send(Ok(info.clone()));
                }
                self.make_room();
            }
            Err(error) => {
                for (_, reply) in self.checkpoint_waiters.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                self.poison(error);
            }
        }
    }
}
