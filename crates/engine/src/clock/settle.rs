//! What follows when workers and the committer report.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_common::JobId;
use millpond_state::failpoint::failpoint;

use super::{BACKFILL_EPOCH, BACKFILL_ROWS, Clock, JobProgress, JobState};
use crate::messages::{Command, Report};

impl Clock {
    pub(super) fn report(&mut self, worker: usize, report: Report) {
        match report {
            Report::EpochDone { epoch, failed, backfill, will_expire, state_bytes } => {
                self.state_bytes.iter_mut().skip(worker).take(1).for_each(|slot| *slot = state_bytes);
                if let Some(flight) = self.in_flight.iter_mut().find(|f| f.epoch == epoch) {
                    flight.waiting = flight.waiting.saturating_sub(1);
                }
                for (id, rows, done) in backfill {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        if let Some(slot) = job.rows_done.get_mut(worker) {
                            *slot = rows;
                        }
                        job.workers_done += usize::from(done);
                    }
                }
                for (id, will) in will_expire {
                    self.jobs.get_mut(&id).into_iter().for_each(|job| job.expiry.note(worker, will));
                }
                for (id, error) in failed {
                    self.fail(id, &error);
                }
                self.settle();
            }
            Report::Evicted { state_bytes } => self.evicted(worker, state_bytes),
            Report::Frozen { epoch, mut tables, unread, stall } => {
                // Its epoch may be complete, and visible, already.
                let waiting = self.in_flight.iter_mut().filter(|f| f.epoch == epoch).filter_map(|f| f.checkpoint.as_mut());
                let collecting = self.collecting.iter_mut().filter(|c| c.epoch == epoch).filter_map(|c| c.checkpoint.as_mut());
                if let Some(barrier) = waiting.chain(collecting).next() {
                    barrier.tables.append(&mut tables);
                    for (id, scans, rows) in unread {
                        let job = barrier.jobs.iter_mut().find(|j| j.id == id);
                        if let Some(backfilled) = job.and_then(|j| j.backfilled.as_mut()) {
                            backfilled.append(scans, rows);
                        }
                    }
                    barrier.stall = barrier.stall.max(stall);
                    barrier.waiting = barrier.waiting.saturating_sub(1);
                }
                self.settle();
            }
        }
    }

    /// Makes finished epochs visible, in order, and sends finished checkpoints to the committer.
    pub(super) fn settle(&mut self) {
        while let Some(first) = self.in_flight.front() {
            if first.waiting > 0 {
                break;
            }
            let Some(done) = self.in_flight.pop_front() else { break };
            self.store.set_visible(done.epoch, done.log_seq);
            self.shared.visible(done.epoch, done.log_seq);
            failpoint("epoch-visible");
            for (_, reply) in self.flushes.extract_if(.., |(epoch, _)| epoch.is_some_and(|e| e <= done.epoch)) {
                let _ = reply.send(Ok(()));
            }
            self.adapt_backfill(done.begun.elapsed());
            self.progress(done.epoch);
            if done.checkpoint.is_some() {
                self.collecting.push_back(done);
            }
        }
        self.send_collected();
        self.detach_failed();
        self.tell();
    }

    /// An epoch took so long: backfilling jobs read more or less in the next ones.
    fn adapt_backfill(&mut self, took: Duration) {
        if !self.jobs.values().any(|j| matches!(j.state, JobState::Backfilling)) {
            return;
        }
        let rows = if took > BACKFILL_EPOCH { self.backfill_rows / 2 } else { self.backfill_rows * 5 / 4 };
        self.backfill_rows = rows.clamp(BACKFILL_ROWS.start, BACKFILL_ROWS.end);
    }

    /// Which jobs are level now. Their figures are told first: whoever waited for the news reads the view at once.
    fn progress(&mut self, epoch: u64) {
        let workers = self.workers.count();
        let (mut news, mut level) = (Vec::new(), Vec::new());
        for id in self.order.clone() {
            let upstream_runs = self.upstream(id).iter().all(|u| self.jobs.get(u).is_some_and(|j| matches!(j.state, JobState::Running)));
            let Some(job) = self.jobs.get_mut(&id).filter(|j| j.attached && j.recovery.is_none()) else { continue };
            if !matches!(job.state, JobState::Backfilling | JobState::Restarting(_)) {
                continue;
            }
            if upstream_runs && job.workers_done >= workers && job.sources_level.is_some_and(|e| e <= epoch) {
                (job.state, job.fresh, job.creating) = (JobState::Running, false, false);
                // The next checkpoint must say so, or a restart would begin again.
                self.dirty = true;
                self.checkpoint_soon = true;
                level.push(id);
                tracing::info!(job = job.spec.id.0, view = job.spec.name, epoch, "view is level with its inputs");
            }
            news.push(id);
        }
        level.into_iter().for_each(|id| self.workers.send(|_| Command::Level(id)));
        self.announce(&news);
    }

    /// Tells system relations, then those who wait for these jobs.
    pub(super) fn announce(&self, news: &[JobId]) {
        if news.is_empty() {
            return;
        }
        self.tell();
        for job in news.iter().filter_map(|id| self.jobs.get(id)) {
            let _ = job.progress.send(JobProgress { state: job.state.clone(), rows_done: job.rows(), rows_total: job.rows_total });
        }
    }

    /// Brings the figures for system relations up to date.
    pub(super) fn tell(&self) {
        let jobs = self.jobs.values().map(|j| self.job_info(j)).collect();
        let sources = self.sources.values().map(|s| self.source_info(s)).collect();
        self.shared.tell(jobs, sources);
        self.shared.epochs.store(self.epoch, Ordering::Relaxed);
    }
}
