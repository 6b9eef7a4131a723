//! Making an epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millpond_common::{Delta, JobId, RelationId};
use millpond_state::failpoint::failpoint;
use millpond_state::planted::planted;

use super::{BACKFILL_ROWS, Barrier, Clock, InFlight, non_empty};
use crate::checkpoint::{Backfilled, JobMeta};
use crate::consolidate;
use crate::dead_letters::DEAD_LETTERS;
use crate::job::JobState;
use crate::messages::{Command, EpochCommand, JobInput};
use crate::source::Read;

impl Clock {
    /// Makes the next barrier: takes what there is, sends each worker its share.
    pub(super) fn make_epoch(&mut self, checkpoint: bool) {
        self.epoch += 1;
        self.last_barrier = Instant::now();
        let late = (checkpoint && planted("offsets-late")).then(|| self.barrier());
        let mut inputs: Vec<Vec<JobInput>> = (0..self.workers.count()).map(|_| Vec::new()).collect();
        self.take_replays(&mut inputs);
        self.take_transactions(&mut inputs);
        let before = self.source_rows;
        if !self.is_memory_tight() {
            self.take_source_rows(&mut inputs);
        }
        let rows = self.source_rows - before;
        for (epoch, _) in self.flushes.iter_mut().filter(|(epoch, _)| epoch.is_none()) {
            *epoch = Some(self.epoch);
        }
        let active = Arc::new(self.active_jobs(&inputs));
        if !active.is_empty() {
            self.dirty = true;
        }
        let unaligned = checkpoint && self.is_unaligned();
        let barrier = late.or_else(|| checkpoint.then(|| self.barrier()));
        if checkpoint {
            (self.dirty, self.checkpoint_soon) = (false, false);
            self.stop_evicting();
            // What an unaligned checkpoint leaves in stashes still takes its share of memory.
            self.source_rows = if unaligned { rows + self.in_flight.iter().map(|f| f.source_rows).sum::<u64>() } else { 0 };
            self.last_checkpoint = self.last_barrier;
            if !unaligned {
                self.checkpoint_epoch = self.epoch;
            }
            let epoch = self.epoch;
            self.checkpoint_waiters.extend(self.checkpoint_wanted.drain(..).map(|reply| (epoch, reply)));
        }
        let silent = active.is_empty() && barrier.is_none();
        let waiting = if silent { 0 } else { self.workers.count() };
        self.in_flight.push_back(InFlight {
            epoch: self.epoch,
            begun: self.last_barrier,
            waiting,
            log_seq: self.log_seq,
            source_rows: rows,
            checkpoint: barrier,
        });
        if silent {
            self.settle();
            return;
        }
        failpoint("epoch-made");
        let (epoch, backfill, lifetimes) = (self.epoch, self.backfill_orders(&active), self.lifetimes(&active));
        self.workers.send(|worker| {
            let inputs = inputs.get_mut(worker).map(std::mem::take).unwrap_or_default();
            let (active, backfill, lifetimes) = (Arc::clone(&active), backfill.clone(), lifetimes.clone());
            let checkpoint = checkpoint && !unaligned;
            Command::Epoch(EpochCommand { epoch, active, inputs, backfill, lifetimes, checkpoint, unaligned })
        });
        if unaligned {
            self.pause(epoch);
        }
    }

    /// How much a backfilling job may read in the next epoch.
    pub(super) fn backfill_rows(&self) -> usize {
        let others_run = self.jobs.values().any(|j| matches!(j.state, JobState::Running));
        if others_run { self.backfill_rows } else { BACKFILL_ROWS.end }
    }

    /// What restarted jobs have missed.
    fn take_replays(&mut self, inputs: &mut [Vec<JobInput>]) {
        let replays = self.jobs.iter_mut().map(|(id, job)| (*id, std::mem::take(&mut job.replay))).collect::<Vec<_>>();
        for (id, changes) in replays {
            for (relation, delta) in changes {
                self.feed(relation, None, delta, &[id], inputs);
            }
        }
    }

    /// Durable transactions: they are the tables' changes of this epoch.
    pub(super) fn take_transactions(&mut self, inputs: &mut [Vec<JobInput>]) {
        let mut by_table: BTreeMap<RelationId, Vec<Delta>> = BTreeMap::new();
        for (seq, changes) in std::mem::take(&mut self.transactions) {
            self.log_seq = self.log_seq.max(seq);
            for (relation, delta) in changes {
                by_table.entry(relation).or_default().push(delta);
            }
        }
        for (table, deltas) in by_table {
            if !self.tables.contains_key(&table) {
                continue;
            }
            let delta = match consolidate(&deltas) {
                Ok(Some(delta)) => delta,
                Ok(None) => continue,
                Err(error) => return self.poison(error),
            };
            self.store.publish(table, self.epoch, vec![delta.clone()]);
            self.feed(table, None, delta, &self.readers_of(table), inputs);
        }
    }

    /// What source readers have decoded meanwhile.
    fn take_source_rows(&mut self, inputs: &mut [Vec<JobInput>]) {
        let (mut failed, mut rejected) = (Vec::new(), Vec::new());
        for at in 0..self.readers.len() {
            let Some(reader) = self.readers.get(at) else { break };
            let rows_max =
                if reader.leads() { self.epoch_rows_max(reader.jobs.len()) } else { self.backfill_rows() * self.workers.count() };
            let mut rows = 0;
            while rows < rows_max {
                if !self.readers.get(at).is_some_and(|r| self.may_take(r)) {
                    break;
                }
                let Some(reader) = self.readers.get_mut(at) else { break };
                let Ok(read) = reader.queue.try_recv() else { break };
                self.dirty = true;
                match read {
                    Read::Rows(read) => {
                        let delta = read.delta;
                        rows += delta.len();
                        reader.rows_read += delta.len() as u64;
                        reader.bad_rows += read.bad_rows;
                        reader.position = Some(read.end);
                        reader.position_text = read.end_text;
                        if !read.rejected.is_empty() {
                            rejected.push((reader.source, read.rejected));
                        }
                        let (source, columns, jobs) = (reader.source, Arc::clone(&reader.columns), reader.jobs.clone());
                        self.source_rows += (delta.len() * jobs.len()) as u64;
                        self.feed(source, Some(columns), delta, &jobs, inputs);
                    }
                    Read::CaughtUp => reader.level = reader.leads(),
                    Read::End => (reader.finished, reader.level) = (true, reader.leads()),
                    Read::Failed(error) => {
                        reader.error = Some(error.clone());
                        failed.extend(reader.jobs.iter().map(|j| (*j, error.clone())));
                    }
                }
            }
        }
        for (job, error) in failed {
            self.fail(job, &error);
        }
        let max = usize::try_from(self.settings.integer("dead_letters_max")).unwrap_or(0);
        for (source, rejected) in rejected {
            match self.dead_letters.add(source, rejected, max) {
                Ok(Some(delta)) => self.store.publish(DEAD_LETTERS, self.epoch, vec![delta]),
                Ok(None) => {}
                Err(error) => self.poison(error),
            }
        }
        self.catch_up();
        self.note_level_sources();
    }

    /// A new job is level with its sources from the epoch on that took the last rows that were there.
    pub(super) fn note_level_sources(&mut self) {
        for (id, job) in self.jobs.iter_mut().filter(|(_, j)| j.recovery.is_none()) {
            // One that goes on from a checkpoint has caught up when it is where it was.
            let behind = self.readers.iter().any(|r| r.jobs.contains(id) && !(r.level || (r.leads() && !job.fresh)));
            if job.sources_level.is_none() && !behind {
                job.sources_level = Some(self.epoch);
            }
        }
    }

    fn readers_of(&self, relation: RelationId) -> Vec<JobId> {
        let reads = self.jobs.iter().filter(|(_, j)| j.attached && j.edges.reads.contains(&relation));
        reads.map(|(id, _)| *id).collect()
    }

    /// Whole chunks go to workers in turn; the exchange behind the scan spreads their rows.
    fn feed(&mut self, relation: RelationId, columns: Option<Arc<Vec<usize>>>, delta: Delta, jobs: &[JobId], inputs: &mut [Vec<JobInput>]) {
        if !non_empty(&delta) {
            return;
        }
        self.next_worker = (self.next_worker + 1) % inputs.len().max(1);
        let Some(share) = inputs.get_mut(self.next_worker) else { return };
        for job in jobs {
            let Some(known) = self.jobs.get_mut(job).filter(|j| j.attached) else { continue };
            if columns.is_some() && !matches!(known.state, JobState::Running) {
                Clock::note_source_rows(known, delta.len() as u64);
            }
            share.push(JobInput { job: *job, relation, columns: columns.clone(), delta: delta.clone() });
        }
    }

    /// All jobs of the pipelines that have something to do.
    fn active_jobs(&self, inputs: &[Vec<JobInput>]) -> Vec<JobId> {
        let with_input = inputs.iter().flatten().map(|i| i.job);
        let reading = self.jobs.iter().filter(|(_, j)| j.attached && self.wants_epoch(j)).map(|(id, _)| *id);
        let pipelines = with_input.chain(reading).filter_map(|id| self.components.get(&id)).collect::<BTreeSet<_>>();
        let attached = |id: &JobId| self.jobs.get(id).is_some_and(|j| j.attached);
        self.order.iter().filter(|id| attached(id) && self.components.get(id).is_some_and(|c| pipelines.contains(c))).copied().collect()
    }

    fn barrier(&self) -> Barrier {
        let jobs = self.jobs.iter().map(|(id, job)| {
            // One that is to take another's place will go on with what that one has read, too.
            let old = job.replaces.as_ref().map(|r| r.old);
            let readers = self.readers.iter().filter(|r| r.jobs.contains(id) || old.is_some_and(|old| r.jobs.contains(&old)));
            JobMeta {
                id: *id,
                // Level in the state that this checkpoint freezes: only what completed epochs have shown.
                level: matches!(job.state, JobState::Running),
                failed: None, // known when the checkpoint is sent
                positions: readers.filter_map(|r| Some((r.source, r.position.clone()?))).collect(),
                backfilled: (job.attached && !matches!(job.state, JobState::Running)).then(|| Backfilled {
                    unread: Vec::new(), // workers tell
                    rows: job.rows_before + job.source_rows,
                }),
            }
        });
        Barrier {
            started: Instant::now(),
            started_at: SystemTime::now(),
            jobs: jobs.collect(),
            resumable: self.jobs.iter().filter(|(_, j)| j.attached && !j.fresh).map(|(id, _)| *id).collect(),
            tables: Vec::new(),
            leaders: self.readers.iter().filter(|r| r.leads()).filter_map(|r| Some((r.source, r.position.clone()?))).collect(),
            waiting: self.workers.count(),
            stall: Duration::ZERO,
            cut: None,
            abandoned: false,
        }
    }
}
