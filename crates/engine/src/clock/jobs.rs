//! Statements that change what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use millpond_common::{Error, JobId, RelationId, Result, SqlState};
use millpond_connect::Position;
use millpond_state::failpoint::failpoint;
use tokio::sync::watch;

use super::backfills::Throttle;
use super::expiry::Expiry;
use super::replace::Replaces;
use super::{Clock, Control, Job, RestoredJob, Saved};
use crate::checkpoint::error_of_text;
use crate::job::{JobHandle, JobInfo, JobProgress, JobSpec, JobState, SourceInfo, SourceSpec};
use crate::messages::Command;
use crate::pipeline::{self, Edges};
use crate::restart::History;
use crate::stash::{self, Stashed};

impl Clock {
    pub(super) fn control(&mut self, control: Control) {
        match control {
            Control::CreateTable(spec) => {
                self.store.relation_add(spec.clone());
                self.tables.insert(spec.id, spec);
            }
            Control::CreateSource(spec) => {
                self.sources.insert(spec.id, spec);
                self.tell();
            }
            Control::CreateJob { spec, known, restored, reply } => {
                let result = self.create_job(*spec, known, restored.map(|r| *r), None);
                self.tell();
                let _ = reply.send(result);
            }
            Control::Drop { relations, jobs, reply } => {
                let result = self.drop_all(&relations, &jobs);
                self.tell();
                let _ = reply.send(result);
            }
            Control::Checkpoint(reply) => self.checkpoint_wanted.push(reply),
            Control::Flush(reply) => self.flushes.push((None, reply)),
            Control::Settings(settings) => {
                self.settings = *settings;
                self.tell_warm_limit();
            }
            Control::JobOptions(id, options) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.options = *options;
                }
            }
            Control::Replay(epochs) => self.replay(epochs),
            Control::RestartJob(id, reply) => {
                let result = self.restart_job(id);
                let _ = reply.send(result);
            }
            Control::CancelReplacement(id, reply) => {
                let replaces = self.jobs.get(&id).is_some_and(|j| j.replaces.is_some());
                if replaces {
                    self.fail(id, &Error::new(SqlState::QUERY_CANCELED, "canceled by CANCEL JOB"));
                    self.tell();
                }
                let _ = reply.send(Ok(replaces));
            }
            Control::ReplaceJob(replacement, reply) => {
                let result = self.replace_job(*replacement);
                self.tell();
                let _ = reply.send(result);
            }
            Control::SwitchJob(id, reply) => {
                let result = self.switch_job(id);
                self.tell();
                let _ = reply.send(result);
            }
            Control::Shutdown(before_close, reply) => {
                // What has been decoded but not taken is read again after the restart.
                for reader in &mut self.readers {
                    reader.finished = true;
                }
                self.shutdown = Some((before_close, reply));
            }
        }
    }

    /// A new job; or, at a start, one that is known: what keeps that from running makes it fail, as it would have later.
    pub(super) fn create_job(
        &mut self,
        spec: JobSpec,
        known: bool,
        restored: Option<RestoredJob>,
        replaces: Option<Replaces>,
    ) -> Result<JobHandle> {
        let spec = Arc::new(spec);
        let mut edges = Edges { reads: spec.plan.relations(), writes: spec.output.id };
        if let Some(replaces) = &replaces
            && let Some(old) = self.jobs.get(&replaces.old).filter(|_| !replaces.taps.is_empty())
        {
            // It steps behind the job that it taps, and stops with it.
            edges.reads.push(old.spec.output.id);
        }
        let sources = edges.reads.iter().filter(|r| self.sources.contains_key(r)).copied().collect::<Vec<_>>();
        let failed = restored.as_ref().and_then(|r| r.failed.as_deref());
        let backfilled = restored.as_ref().and_then(|r| r.backfilled.clone());
        let state = match (&restored, failed) {
            (_, Some(text)) => JobState::Failed(error_of_text(text)),
            (Some(_), None) if backfilled.is_none() => JobState::Running,
            (_, None) => JobState::Backfilling,
        };
        let upstream = self.jobs.iter().filter(|(_, j)| edges.reads.contains(&j.edges.writes)).map(|(id, _)| *id).collect::<Vec<_>>();
        if !known {
            self.check_upstream(&upstream)?;
        }
        let runs = !matches!(state, JobState::Failed(_));
        let out = upstream.iter().filter_map(|id| self.jobs.get(id)).filter(|j| known && runs && j.is_out());
        let behind = out.max_by_key(|j| matches!(j.state, JobState::Failed(_))).map(|j| j.spec.id);
        let mut problem = None;
        if runs && behind.is_none() {
            for source in &sources {
                let place = |list: &[(RelationId, Position)]| list.iter().find(|(s, _)| s == source).map(|(_, p)| p.clone());
                let from = restored.as_ref().and_then(|r| place(&r.positions));
                let leader = restored.as_ref().and_then(|r| place(&r.leaders));
                let result = self.start_leader(&spec, *source, &from, leader).and_then(|()| self.read_source(&spec, *source, from));
                if let Err(error) = result {
                    self.forget_reader(spec.id);
                    if !known {
                        return Err(error);
                    }
                    problem = Some(error);
                    break;
                }
            }
        }
        self.store.relation_add(spec.output.clone());
        let (progress, receiver) = watch::channel(JobProgress { state: state.clone(), rows_done: 0, rows_total: None });
        let is_restored = restored.is_some();
        let goes_on = matches!(state, JobState::Backfilling) && is_restored;
        let stash = restored.as_ref().map(|r| Arc::clone(&r.stash)).unwrap_or_default();
        let saved = restored.filter(|_| runs && !goes_on).map(|r| Saved {
            epoch: self.epoch,
            inputs: r.inputs,
            positions: r.positions,
            stash: r.stash,
        });
        let held = saved.as_ref().map(|s| stash::received(&s.stash, &edges.reads)).unwrap_or_default();
        let id = spec.id;
        tracing::info!(job = id.0, view = spec.name, restored = is_restored, "job created");
        let job = Job {
            edges,
            state,
            progress,
            rows_total: None,
            tables: spec.state_tables.clone(),
            replaces,
            rows_done: Vec::new(),
            rows_before: backfilled.as_ref().map_or(0, |b| b.rows),
            unread: is_restored.then(|| Arc::new(backfilled.map(|b| b.unread).unwrap_or_default())),
            throttle: Throttle::new(Instant::now()),
            expiry: Expiry::default(),
            source_rows: 0,
            workers_done: 0,
            attached: false,
            sources_level: None,
            options: spec.options.clone(),
            saved,
            fresh: !is_restored || goes_on,
            creating: !is_restored || goes_on,
            history: History::default(),
            recovery: None,
            held,
            held_until: self.epoch,
            replay: Vec::new(),
            spec,
        };
        self.jobs.insert(id, job);
        self.connect();
        match (problem, behind) {
            (Some(error), _) => self.fail(id, &error),
            (None, Some(upstream)) => self.wait_for(id, upstream),
            (None, None) if runs => self.attach(id, stash),
            (None, None) => {}
        }
        Ok(JobHandle { progress: receiver })
    }

    /// Builds a job's dataflow: its first epoch is the next one. It goes on from its state in the store, and reads what its scans
    /// have not read yet; or it begins without state and reads all that its inputs hold.
    pub(super) fn attach(&mut self, id: JobId, stash: Arc<Vec<Stashed>>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.expiry = Expiry::default();
        let view = matches!(job.state, JobState::Backfilling).then(|| self.store.read_view());
        let relations = || job.edges.reads.iter().filter(|r| !self.sources.contains_key(r));
        let counted = view.as_ref().filter(|_| relations().count() == job.edges.reads.len());
        job.rows_total = counted.map(|v| relations().filter(|r| v.spec(**r).is_some()).map(|r| v.row_estimate(*r)).sum());
        job.rows_done = vec![0; self.workers.count()];
        (job.source_rows, job.workers_done, job.sources_level, job.attached) = (0, 0, None, true);
        job.throttle = Throttle::new(Instant::now());
        let (spec, from, unread) = (Arc::clone(&job.spec), self.epoch + 1, job.unread.clone());
        self.dirty = true;
        self.shared.forget(id);
        let taps = job.replaces.as_ref().map(|r| r.taps.clone()).unwrap_or_default();
        let create = |_| {
            let (spec, stash) = (Arc::clone(&spec), Arc::clone(&stash));
            Command::CreateJob { spec, from, unread: unread.clone(), stash, taps: taps.clone() }
        };
        self.workers.send(create);
    }

    fn drop_all(&mut self, relations: &[RelationId], jobs: &[JobId]) -> Result<()> {
        for id in jobs {
            if let Some(job) = self.jobs.remove(id) {
                if job.attached {
                    self.workers.send(|_| Command::DropJob(*id));
                }
                let error = Error::new(SqlState::QUERY_CANCELED, "the view was dropped");
                let _ = job.progress.send(JobProgress { state: JobState::Failed(error), rows_done: 0, rows_total: None });
                self.shared.forget(*id);
                self.carried.retain(|t| !job.tables.contains(&t.table));
                failpoint("drop-job-stopped");
                self.store.state_remove(&job.tables)?;
            }
            self.forget_reader(*id);
        }
        for id in relations {
            self.sources.remove(id);
            self.tables.remove(id);
            self.readers.retain(|r| r.source != *id);
            self.store.relation_remove(*id)?;
        }
        self.dirty = true;
        self.connect();
        Ok(())
    }

    /// Works out anew which jobs belong together.
    pub(super) fn connect(&mut self) {
        let edges = self.edges();
        self.order = pipeline::upstream_first(&edges);
        self.components = pipeline::components(&edges);
    }

    pub(super) fn edges(&self) -> BTreeMap<JobId, Edges> {
        self.jobs.iter().map(|(id, j)| (*id, j.edges.clone())).collect()
    }

    pub(super) fn job_info(&self, job: &Job) -> JobInfo {
        JobInfo {
            id: job.spec.id,
            spec: Arc::clone(&job.spec),
            name: job.spec.name.clone(),
            relation: job.spec.output.id,
            state: job.state.clone(),
            rows_done: job.rows(),
            rows_total: job.rows_total,
            epoch: self.epoch,
            creating: job.creating,
            attempts: job.history.attempts,
            next_try: job.recovery.as_ref().and_then(|r| r.next_try).map(|(_, at)| at),
            input_rows: 0,
            output_rows: 0,
        }
    }

    pub(super) fn source_info(&self, source: &SourceSpec) -> SourceInfo {
        let reader = self.readers.iter().find(|r| r.source == source.id && r.leads());
        SourceInfo {
            relation: source.id,
            name: source.name.clone(),
            namespace: source.namespace.clone(),
            connector: source.options.get("connector").cloned().unwrap_or_default(),
            position: reader.map(|r| r.position_text.clone()).unwrap_or_default(),
            rows_read: reader.map_or(0, |r| r.rows_read),
            bad_rows: reader.map_or(0, |r| r.bad_rows),
            dead_letters: self.dead_letters.count(source.id),
            finished: reader.is_some_and(|r| r.finished),
            error: reader.and_then(|r| r.error.as_ref()).map(|e| e.message().to_string()),
        }
    }
}
