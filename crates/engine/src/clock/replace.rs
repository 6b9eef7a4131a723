//! A job takes another's place; see [`crate::replace`].

use std::sync::Arc;

use millpond_common::{Epoch, Error, JobId, Result, SqlState};
use millpond_plan::Kept;

use super::recover::is_running;
use super::{Clock, Recovery};
use crate::job::{JobHandle, JobSpec, JobState};
use crate::messages::{Command, Tap};
use crate::pipeline::Edges;
use crate::replace::{Replacement, tables_by_node};
use crate::restart::History;

/// What a job is about to replace.
pub(super) struct Replaces {
    pub old: JobId,
    /// The whole of the new job: until the switch, only the rest runs that is not kept.
    spec: Arc<JobSpec>,
    kept: Arc<Kept>,
    /// Where the rest reads kept operators.
    pub taps: Vec<Tap>,
    /// The checkpoint that has what these have given so far; `None`: it is complete.
    awaits: Option<Epoch>,
}

impl Clock {
    /// Whether the newest epoch is the newest checkpoint's.
    pub(super) fn is_at_checkpoint(&self) -> bool {
        self.checkpoint_epoch == self.epoch
    }

    /// Whether the newest checkpoint must stay the newest, as somebody waits to read state from it.
    pub(super) fn is_checkpoint_awaited(&self) -> bool {
        self.jobs.values().any(|j| j.attached && j.replaces.as_ref().is_some_and(|r| r.awaits.is_some()))
    }

    /// Starts what the new job has to compute anew.
    pub(super) fn replace_job(&mut self, replacement: Replacement) -> Result<JobHandle> {
        let Replacement { old, spec, kept } = replacement;
        let rest = spec.plan.rest(&kept);
        if !rest.taps.is_empty() && !self.jobs.get(&old).is_some_and(is_running) {
            return Err(old_is_gone(&spec.name));
        }
        let tables = tables_by_node(&spec.plan, &spec.state_tables)?;
        let new = |at: &usize| kept.get(*at).is_some_and(Option::is_none);
        let state_tables = rest.places.iter().filter(|at| new(at)).filter_map(|at| tables.get(*at)).flatten().copied().collect();
        let begun = JobSpec { plan: rest.plan, state_tables, ..spec.clone() };
        let taps = rest.taps.into_iter().map(|(relation, node)| Tap { relation, job: old, node }).collect::<Vec<_>>();
        let awaits = (!taps.is_empty()).then_some(self.epoch);
        let replaces = Replaces { old, spec: Arc::new(spec), kept: Arc::new(kept), taps, awaits };
        let handle = self.create_job(begun, false, None, Some(replaces))?;
        if self.committing == 0 && self.collecting.is_empty() {
            self.feed_taps(self.epoch);
        }
        Ok(handle)
    }

    /// The checkpoint of this epoch is complete: jobs that wait for it read what kept operators have given.
    pub(super) fn feed_taps(&mut self, epoch: Epoch) {
        for (id, job) in &mut self.jobs {
            let Some(replaces) = job.replaces.as_mut().filter(|r| r.awaits == Some(epoch)) else { continue };
            replaces.awaits = None;
            let (id, view) = (*id, self.store.read_view());
            self.workers.send(|_| Command::FeedTaps { job: id, view: view.clone() });
        }
    }

    /// The checkpoint of this epoch will not be: nothing can be read from it.
    pub(super) fn stop_awaiting(&mut self, epoch: Epoch, error: &Error) {
        let awaits = |j: &super::Job| j.replaces.as_ref().is_some_and(|r| r.awaits == Some(epoch));
        let waiting = self.jobs.iter().filter(|(_, j)| awaits(j)).map(|(id, _)| *id).collect::<Vec<_>>();
        waiting.into_iter().for_each(|id| self.fail(id, error));
    }

    /// The new job, which the catalog names by now, takes the old one's place.
    pub(super) fn switch_job(&mut self, id: JobId) -> Result<()> {
        let missing = || Error::internal("a job that is to replace another is not there");
        let Replaces { old, spec, kept, taps, .. } = self.jobs.get_mut(&id).and_then(|j| j.replaces.take()).ok_or_else(missing)?;
        let gone = self.jobs.remove(&old);
        let goes_on = self.jobs.get(&id).is_some_and(is_running) && (taps.is_empty() || gone.as_ref().is_some_and(is_running));
        [old, id].iter().for_each(|job| self.shared.forget(*job));
        let from = self.epoch + 1;
        if goes_on {
            self.workers.send(|_| Command::SwitchJob { job: id, old, spec: Arc::clone(&spec), kept: Arc::clone(&kept), from });
        } else if gone.as_ref().is_some_and(|j| j.attached) {
            self.workers.send(|_| Command::DropJob(old));
        }
        for reader in self.readers.iter_mut().filter(|r| r.jobs.contains(&old)) {
            reader.jobs.retain(|j| *j != old && *j != id);
            reader.jobs.push(id);
        }
        tracing::info!(job = id.0, replaced = old.0, view = spec.name, goes_on, "view has its new query");
        if let Some(gone) = gone {
            let tables = gone.tables.iter().filter(|t| !spec.state_tables.contains(t)).copied().collect::<Vec<_>>();
            self.carried.retain(|t| !tables.contains(&t.table));
            self.store.state_remove(&tables)?;
            self.store.relation_remove(gone.spec.output.id)?;
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.edges = Edges { reads: spec.plan.relations(), writes: spec.output.id };
            job.tables = spec.state_tables.clone();
            job.spec = spec;
            if !goes_on {
                // One of the two has failed at the last moment.
                job.history = History::default();
                job.await_restart(JobState::Backfilling, Recovery { next_try: None, anew: true });
            }
        }
        self.dirty = true;
        self.connect();
        Ok(())
    }
}

fn old_is_gone(view: &str) -> Error {
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("materialized view \"{view}\" has stopped while it was being replaced"))
        .with_hint("Try again: the new query is then filled without the state of the old one.")
}
