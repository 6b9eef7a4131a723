//! What follows when a job fails: it and all that read from it stop, and by its restart strategy they come back.
//!
//! A restarted job goes on from where the newest checkpoint found it running. Its relation and its state are taken back to
//! there, and it gets again what its inputs have given since: sources are read again from the place saved with it, changes of
//! tables and views are those that the store has not made part of a checkpoint yet, and those that were held when a checkpoint
//! did. All of that is input of one epoch; sources catch up with their leader, which waits where it was when no other job reads
//! it. So the job is level again when it holds what it held before, and nobody has seen it in between. Where there is nothing to
//! go on from, or too much was missed, it begins anew, like a new view. Nothing of this is on disk: a start of the server begins
//! jobs anew that were waiting for their restart.
//!
//! If that checkpoint was unaligned, the job has its stash again, in the same epoch: what waited in it, at whatever operator, and
//! what it missed add up. What it had given in epochs that its relation does not contain is published anew; what its inputs had
//! given it in such epochs is not given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millpond_common::{Delta, Epoch, Error, JobId, RelationId, Result, SqlState};
use millpond_state::failpoint::failpoint;

use super::{Clock, Job, Recovery};
use crate::job::{JobHandle, JobState};
use crate::messages::Command;
use crate::stash::{Place, Stashed};
use crate::{consolidate, pipeline, restart};

impl Job {
    /// It stops, and is built again later.
    pub(super) fn await_restart(&mut self, state: JobState, recovery: Recovery) {
        self.state = state;
        self.recovery = Some(recovery);
        self.replay.clear();
    }

    /// It has failed for good.
    fn give_up(&mut self, error: Error) {
        tracing::error!(job = self.spec.id.0, view = self.spec.name, error = %error, "view has failed");
        self.state = JobState::Failed(error);
        (self.recovery, self.saved) = (None, None);
        self.replay.clear();
        self.held.clear();
    }

    /// It stops as a job from which it reads has: it comes back when that does, or has failed with it.
    fn follow(&mut self, upstream: &str, state: &JobState) {
        match state {
            JobState::Restarting(error) if self.replaces.is_none() => {
                let reason = not_running(upstream, "is restarting", error);
                self.await_restart(JobState::Restarting(reason), Recovery { next_try: None, anew: false });
            }
            // What is to take another's place does not come back: its statement says why.
            JobState::Restarting(error) => self.state = JobState::Failed(not_running(upstream, "is restarting", error)),
            JobState::Failed(error) => self.give_up(not_running(upstream, "has failed", error)),
            JobState::Backfilling | JobState::Running => {}
        }
    }

    /// It must not take part in epochs any more.
    pub(super) fn is_out(&self) -> bool {
        self.recovery.is_some() || matches!(self.state, JobState::Failed(_))
    }
}

impl Clock {
    /// The jobs that a job reads from.
    pub(super) fn upstream(&self, id: JobId) -> Vec<JobId> {
        let reads = self.jobs.get(&id).map(|j| j.edges.reads.as_slice()).unwrap_or_default();
        self.jobs.iter().filter(|(_, j)| reads.contains(&j.edges.writes)).map(|(id, _)| *id).collect()
    }

    fn with_downstream(&self, id: JobId) -> Vec<JobId> {
        let mut list = vec![id];
        list.extend(pipeline::downstream(&self.edges(), id));
        list
    }

    /// A job has failed. Everything that does not read from it runs on.
    pub(super) fn fail(&mut self, id: JobId, error: &Error) {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| !j.is_out()) else { return };
        let settings = job.options.over(&self.settings);
        // What is to replace a view that runs need not come back: its statement says why.
        let may_pass = restart::may_pass(error) && job.replaces.is_none();
        let wait = if may_pass { job.history.next_try(&settings, Instant::now()) } else { None };
        let Some(wait) = wait else { return self.give_up(id, error) };
        tracing::warn!(job = id.0, view = job.spec.name, %error, attempt = job.history.attempts, ?wait, "view has failed, and is restarted");
        let name = job.spec.name.clone();
        let next_try = Some((Instant::now() + wait, SystemTime::now() + wait));
        job.await_restart(JobState::Restarting(error.clone()), Recovery { next_try, anew: false });
        let state = job.state.clone();
        let list = self.with_downstream(id);
        for id in list.iter().skip(1) {
            if let Some(job) = self.jobs.get_mut(id).filter(|j| !j.is_out()) {
                job.follow(&name, &state);
            }
        }
        self.dirty = true;
        self.announce(&list);
    }

    /// A job that is known at a start reads from one that does not run.
    pub(super) fn wait_for(&mut self, id: JobId, upstream: JobId) {
        let Some((name, state)) = self.jobs.get(&upstream).map(|j| (j.spec.name.clone(), j.state.clone())) else { return };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.follow(&name, &state);
        }
        self.dirty = true;
        self.announce(&[id]);
    }

    /// The job and all that read from it have failed for good.
    fn give_up(&mut self, id: JobId, error: &Error) {
        let name = self.jobs.get(&id).map(|j| j.spec.name.clone()).unwrap_or_default();
        let list = self.with_downstream(id);
        for at in &list {
            let Some(job) = self.jobs.get_mut(at).filter(|j| !matches!(j.state, JobState::Failed(_))) else { continue };
            job.give_up(if *at == id { error.clone() } else { not_running(&name, "has failed", error) });
        }
        self.dirty = true;
        self.announce(&list);
    }

    /// ALTER MATERIALIZED VIEW … RESTART: the job and all that read from it begin anew.
    pub(super) fn restart_job(&mut self, id: JobId) -> Result<JobHandle> {
        let handle = match self.jobs.get(&id) {
            Some(job) => JobHandle { progress: job.progress.subscribe() },
            None => return Err(Error::internal("a view without a job is to be restarted")),
        };
        self.check_upstream(&self.upstream(id))?;
        let list = self.with_downstream(id);
        for id in &list {
            if let Some(job) = self.jobs.get_mut(id) {
                job.history = restart::History::default();
                job.await_restart(JobState::Backfilling, Recovery { next_try: None, anew: true });
            }
        }
        self.dirty = true;
        failpoint("restart-begun");
        self.announce(&list);
        Ok(handle)
    }

    /// Fails if one of these jobs does not run, so that nothing can be built on it.
    pub(super) fn check_upstream(&self, upstream: &[JobId]) -> Result<()> {
        for job in upstream.iter().filter_map(|id| self.jobs.get(id)) {
            if let Some(error) = job.state.error() {
                let hint = format!("ALTER MATERIALIZED VIEW {} RESTART fills it anew.", job.spec.name);
                return Err(not_running(&job.spec.name, "is not running", error).with_hint(hint));
            }
        }
        Ok(())
    }

    /// Failed jobs lose their dataflow between two epochs, and what they have done since the checkpoint.
    pub(super) fn detach_failed(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        let gone = self.jobs.iter().filter(|(_, j)| j.attached && j.is_out()).map(|(id, _)| *id).collect::<Vec<_>>();
        for id in gone {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.attached = false;
            let waits = job.recovery.is_some();
            self.workers.send(|_| Command::DropJob(id));
            self.forget_changes(id);
            match waits {
                true => self.leave_readers(id),
                false => self.forget_reader(id),
            }
        }
    }

    /// Takes a job's relation and state back to where the job was saved.
    pub(super) fn forget_changes(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.store.rewind(job.spec.output.id, job.saved.as_ref().map_or(0, |s| s.epoch));
        self.carried.retain(|t| !job.tables.contains(&t.table));
    }

    /// A checkpoint of this epoch makes the store forget changes that waiting jobs will need.
    pub(super) fn hold_changes(&mut self, until: Epoch) {
        let waiting = self.jobs.iter().filter(|(_, j)| j.recovery.is_some()).map(|(id, _)| *id).collect::<Vec<_>>();
        waiting.into_iter().for_each(|id| self.hold(id, until));
    }

    fn hold(&mut self, id: JobId, until: Epoch) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(saved) = &job.saved else { return };
        for relation in &job.edges.reads {
            let after = if self.tables.contains_key(relation) { job.held_until.max(saved.inputs) } else { job.held_until };
            let changes = self.store.changes(*relation, after, until);
            job.held.extend(changes.into_iter().map(|delta| (*relation, delta)));
        }
        job.held_until = until;
        let limit = job.options.over(&self.settings).size("restart_log_bytes_max");
        if job.held.iter().map(|(_, delta)| delta.bytes() as u64).sum::<u64>() > limit {
            tracing::warn!(job = id.0, view = job.spec.name, limit, "too much was missed: the restart will fill the view anew");
            job.held.clear();
            job.saved = None;
        }
    }

    /// Jobs whose restart is due, upstream first.
    fn due(&self) -> Vec<JobId> {
        let mut due = Vec::new();
        if self.shutdown.is_some() || self.jobs.values().all(|j| j.recovery.is_none()) {
            return due;
        }
        let now = Instant::now();
        for id in &self.order {
            let Some(recovery) = self.jobs.get(id).and_then(|j| j.recovery.as_ref()) else { continue };
            let runs = |u: &JobId| due.contains(u) || self.jobs.get(u).is_some_and(|j| j.attached && !j.is_out());
            if recovery.next_try.is_none_or(|(at, _)| at <= now) && self.upstream(*id).iter().all(runs) {
                due.push(*id);
            }
        }
        due
    }

    pub(super) fn is_restart_due(&self) -> bool {
        !self.due().is_empty()
    }

    pub(super) fn time_to_restart(&self) -> Option<Duration> {
        let times = self.jobs.values().filter_map(|j| j.recovery.as_ref()?.next_try);
        let next = times.map(|(at, _)| at.saturating_duration_since(Instant::now())).min()?;
        // What is due already waits for a checkpoint or for another job, whose end is an event.
        Some(next.max(Duration::from_millis(10)))
    }

    /// Restarts what is due. Returns whether epochs can be made meanwhile.
    pub(super) fn recover(&mut self) -> bool {
        if self.jobs.values().any(|j| j.attached && j.is_out()) {
            if !self.in_flight.is_empty() {
                return false;
            }
            self.detach_failed();
        }
        let due = self.due();
        if due.is_empty() || self.committing > 0 || !self.collecting.is_empty() {
            return true;
        }
        if !self.in_flight.is_empty() {
            return false;
        }
        let mut anew = BTreeSet::new();
        for id in due {
            let upstream = self.upstream(id);
            if !upstream.iter().all(|u| self.jobs.get(u).is_some_and(|j| j.attached)) {
                continue;
            }
            let begins_anew = upstream.iter().any(|u| anew.contains(u));
            match self.rebuild(id, begins_anew) {
                Ok(true) => drop(anew.insert(id)),
                Ok(false) => {}
                Err(error) => self.fail(id, &error),
            }
        }
        self.tell();
        true
    }

    /// Builds a job again. Returns whether it begins anew.
    fn rebuild(&mut self, id: JobId, anew: bool) -> Result<bool> {
        self.hold(id, self.epoch);
        let missing = || Error::internal("a job that is to be restarted is not there");
        let job = self.jobs.get_mut(&id).ok_or_else(missing)?;
        let recovery = job.recovery.take().unwrap_or_default();
        if anew || recovery.anew {
            job.saved = None;
        }
        let (spec, saved) = (Arc::clone(&job.spec), job.saved.clone());
        if saved.is_none() {
            job.held.clear();
            (job.fresh, job.rows_before) = (true, 0);
            self.store.clear(spec.output.id, &job.tables)?;
            failpoint("restart-cleared");
        }
        let position = |source: &RelationId| saved.as_ref()?.positions.iter().find(|(s, _)| s == source).map(|(_, p)| p.clone());
        for source in spec.plan.relations().iter().filter(|r| self.sources.contains_key(r)).copied().collect::<Vec<_>>() {
            self.read_again(&spec, source, position(&source))?;
        }
        tracing::info!(job = id.0, view = spec.name, from_epoch = saved.as_ref().map(|s| s.epoch), "view is restarted");
        let job = self.jobs.get_mut(&id).ok_or_else(missing)?;
        if let Some(saved) = &saved {
            // Views that are restarted at the same time have published what they had, just now.
            let mut missed = job.held.clone();
            for relation in &job.edges.reads {
                let now = self.store.changes(*relation, self.epoch, self.epoch + 1);
                missed.extend(now.into_iter().map(|delta| (*relation, delta)));
            }
            // What it got before the checkpoint goes out against its negative.
            job.replay = if saved.stash.is_empty() { missed } else { net(missed)? };
            job.unread = Some(Arc::default());
            let published = |s: &&Stashed| s.job == id && matches!(s.place, Place::Published(_));
            let published = saved.stash.iter().filter(published).map(|s| s.delta.clone()).collect::<Vec<_>>();
            if !published.is_empty() {
                self.store.publish(spec.output.id, self.epoch + 1, published);
            }
        } else {
            job.state = JobState::Backfilling;
            job.unread = None;
        }
        self.attach(id, saved.as_ref().map(|s| Arc::clone(&s.stash)).unwrap_or_default());
        Ok(saved.is_none())
    }
}

/// The same changes without those that cancel out.
fn net(changes: Vec<(RelationId, Delta)>) -> Result<Vec<(RelationId, Delta)>> {
    let mut by_relation: BTreeMap<RelationId, Vec<Delta>> = BTreeMap::new();
    for (relation, delta) in changes {
        by_relation.entry(relation).or_default().push(delta);
    }
    let sums = by_relation.into_iter().map(|(relation, deltas)| Ok(consolidate(&deltas)?.map(|delta| (relation, delta))));
    sums.filter_map(Result::transpose).collect()
}

/// Whether a job takes part in epochs, level with its inputs.
pub(super) fn is_running(job: &Job) -> bool {
    job.attached && matches!(job.state, JobState::Running)
}

fn not_running(view: &str, how: &str, error: &Error) -> Error {
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("materialized view \"{view}\" {how}"))
        .with_detail(error.message().to_string())
}
