//! What follows when workers and the committer report.

use std::sync::atomic::Ordering;

use millpond_common::{Error, JobId};
use millpond_state::Checkpoint;

use super::{Clock, InFlight, JobProgress, JobState};
use crate::checkpoint::{Committed, Frozen};
use crate::messages::{Command, Report};
use crate::pipeline;

impl Clock {
    pub(super) fn report(&mut self, worker: usize, report: Report) {
        match report {
            Report::EpochDone { epoch, failed, backfill } => {
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
                for (id, error) in failed {
                    self.fail(id, &error);
                }
                self.settle();
            }
            Report::Frozen { epoch, mut tables, stall } => {
                // Its epoch may be complete, and visible, already.
                let waiting = self.in_flight.iter_mut().filter(|f| f.epoch == epoch).filter_map(|f| f.checkpoint.as_mut());
                let collecting = self.collecting.iter_mut().filter(|c| c.epoch == epoch).filter_map(|c| c.checkpoint.as_mut());
                if let Some(barrier) = waiting.chain(collecting).next() {
                    barrier.tables.append(&mut tables);
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
            for (_, reply) in self.flushes.extract_if(.., |(epoch, _)| epoch.is_some_and(|e| e <= done.epoch)) {
                let _ = reply.send(Ok(()));
            }
            self.progress(done.epoch);
            if done.checkpoint.is_some() {
                self.collecting = Some(done);
            }
        }
        self.send_collected();
        self.detach_failed();
        self.tell();
    }

    /// A checkpoint whose epoch is complete goes to the committer when all workers have given their state.
    fn send_collected(&mut self) {
        let complete = |flight: &mut InFlight| flight.checkpoint.as_ref().is_some_and(|b| b.waiting == 0);
        let Some(InFlight { epoch, log_seq, checkpoint: Some(barrier), .. }) = self.collecting.take_if(complete) else { return };
        self.committing = true;
        let checkpoint = Checkpoint { epoch, log_seq, meta: barrier.meta, frozen: barrier.tables };
        let frozen = Frozen { checkpoint, started: barrier.started, started_at: barrier.started_at, stall: barrier.stall };
        if self.committer.as_ref().is_none_or(|c| c.send(frozen).is_err()) {
            self.poison(Error::internal("the committer is gone"));
        }
    }

    /// Which new jobs are level now. Their figures are told first: whoever waited for the news reads the view at once.
    fn progress(&mut self, epoch: u64) {
        let workers = self.workers.count();
        let mut news = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, j)| matches!(j.state, JobState::Backfilling)) {
            let level = job.workers_done >= workers && job.sources_level.is_some_and(|e| e <= epoch);
            if level {
                job.state = JobState::Running;
                // The next checkpoint must say so, or a restart would begin again.
                self.dirty = true;
                self.checkpoint_soon = true;
                tracing::info!(job = job.spec.id.0, view = job.spec.name, epoch, "view is level with its inputs");
            }
            news.push(*id);
        }
        self.announce(&news);
    }

    /// Tells system relations, then those who wait for these jobs.
    fn announce(&self, news: &[JobId]) {
        if news.is_empty() {
            return;
        }
        self.tell();
        for job in news.iter().filter_map(|id| self.jobs.get(id)) {
            let _ = job.progress.send(JobProgress { state: job.state.clone(), rows_done: job.rows(), rows_total: job.rows_total });
        }
    }

    /// A job and all that read from it stop; everything else runs on.
    pub(super) fn fail(&mut self, id: JobId, error: &Error) {
        let edges = self.edges();
        let reason = |name: &str| {
            Error::new(millpond_common::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("materialized view \"{name}\" has failed"))
                .with_detail(error.message().to_string())
        };
        let name = self.jobs.get(&id).map(|j| j.spec.name.clone()).unwrap_or_default();
        let mut list = vec![(id, error.clone())];
        list.extend(pipeline::downstream(&edges, id).into_iter().map(|d| (d, reason(&name))));
        let mut news = Vec::new();
        for (id, error) in list {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if matches!(job.state, JobState::Failed(_)) {
                continue;
            }
            tracing::error!(job = id.0, view = job.spec.name, error = %error, "view has failed");
            job.state = JobState::Failed(error);
            news.push(id);
            self.dirty = true;
        }
        self.announce(&news);
    }

    /// Failed jobs lose their dataflow between two epochs.
    fn detach_failed(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        let gone =
            self.jobs.iter().filter(|(_, j)| j.attached && matches!(j.state, JobState::Failed(_))).map(|(id, _)| *id).collect::<Vec<_>>();
        for id in gone {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.attached = false;
            }
            self.workers.send(|_| Command::DropJob(id));
            self.forget_reader(id);
        }
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        self.committing = false;
        let Committed { epoch, info, result } = committed;
        self.shared.checkpoint(info.clone());
        match result {
            Ok(()) => {
                tracing::debug!(epoch, entries = info.entries, bytes = info.bytes, duration = ?info.duration, "checkpoint");
                for (_, reply) in self.checkpoint_waiters.extract_if(.., |(e, _)| *e <= epoch) {
                    let _ = reply.send(Ok(info.clone()));
                }
            }
            Err(error) => {
                for (_, reply) in self.checkpoint_waiters.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                self.poison(error);
            }
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
