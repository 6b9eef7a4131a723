//! Statements that change what runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_common::{Error, JobId, RelationId, Result, SqlState};
use tokio::sync::watch;

use super::{Clock, Control, Job, RestoredJob};
use crate::job::{JobHandle, JobInfo, JobProgress, JobSpec, JobState, SourceInfo, SourceSpec};
use crate::messages::Command;
use crate::pipeline::{self, Edges};

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
            Control::CreateJob { spec, restored, reply } => {
                let result = self.create_job(*spec, restored.map(|r| *r));
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
            Control::CheckpointInterval(interval) => self.checkpoint_interval = interval,
            Control::Shutdown(reply) => {
                // What has been decoded but not taken is read again after the restart.
                for reader in &mut self.readers {
                    reader.finished = true;
                }
                self.shutdown = Some(reply);
            }
        }
    }

    fn create_job(&mut self, spec: JobSpec, restored: Option<RestoredJob>) -> Result<JobHandle> {
        let spec = Arc::new(spec);
        let edges = Edges { reads: spec.plan.relations(), writes: spec.output.id };
        let sources = edges.reads.iter().filter(|r| self.sources.contains_key(r)).copied().collect::<Vec<_>>();
        let failed = restored.as_ref().and_then(|r| r.failed.clone());
        let state = match (&restored, failed) {
            (_, Some(message)) => JobState::Failed(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)),
            (Some(_), None) => JobState::Running,
            (None, None) => JobState::Backfilling,
        };
        let attached = !matches!(state, JobState::Failed(_));
        if attached {
            for source in &sources {
                let from = restored.as_ref().and_then(|r| r.positions.iter().find(|(s, _)| s == source)).map(|(_, p)| p.clone());
                if let Err(error) = self.read_source(&spec, *source, from) {
                    self.forget_reader(spec.id);
                    return Err(error);
                }
            }
        }
        self.store.relation_add(spec.output.clone());
        let view = restored.is_none().then(|| self.store.read_view());
        let estimate =
            |v: &millpond_state::ReadView| edges.reads.iter().filter(|r| v.spec(**r).is_some()).map(|r| v.row_estimate(*r)).sum::<u64>();
        let rows_total = view.as_ref().filter(|_| sources.is_empty()).map(estimate);
        let (progress, receiver) = watch::channel(JobProgress { state: state.clone(), rows_done: 0, rows_total });
        if attached {
            let from = self.epoch + 1;
            self.workers.send(|_| Command::CreateJob {
                spec: Arc::clone(&spec),
                from,
                restored: restored.is_some(),
                backfill: view.clone(),
            });
        }
        let workers = self.workers.count();
        let job = Job {
            spec: Arc::clone(&spec),
            edges,
            state,
            progress,
            rows_total,
            rows_done: vec![0; workers],
            source_rows: 0,
            workers_done: if restored.is_some() { workers } else { 0 },
            attached,
            sources_level: None,
        };
        tracing::info!(job = spec.id.0, view = spec.name, restored = restored.is_some(), "job created");
        self.jobs.insert(spec.id, job);
        self.dirty = true;
        self.connect();
        Ok(JobHandle { progress: receiver })
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
                let first = job.spec.first_state_table;
                let count = crate::dataflow::state_table_count(&job.spec.plan)?;
                let tables = (first..first + count).map(millpond_common::StateTableId).collect::<Vec<_>>();
                self.store.state_remove(&tables)?;
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
    fn connect(&mut self) {
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
            name: job.spec.name.clone(),
            relation: job.spec.output.id,
            state: job.state.clone(),
            rows_done: job.rows(),
            rows_total: job.rows_total,
            epoch: self.epoch,
            input_rows: 0,
            output_rows: 0,
        }
    }

    pub(super) fn source_info(&self, source: &SourceSpec) -> SourceInfo {
        let reader = self.readers.iter().find(|r| r.source == source.id && r.leads());
        SourceInfo {
            relation: source.id,
            name: source.name.clone(),
            connector: source.options.get("connector").cloned().unwrap_or_default(),
            position: reader.map(|r| r.position_text.clone()).unwrap_or_default(),
            rows_read: reader.map_or(0, |r| r.rows_read),
            bad_rows: reader.map_or(0, |r| r.bad_rows),
            finished: reader.is_some_and(|r| r.finished),
            error: reader.and_then(|r| r.error.as_ref()).map(|e| e.message().to_string()),
        }
    }
}
