//! Jobs as the engine's callers see them: what to run, how far it is, what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow_schema::SchemaRef;
use millpond_common::settings::Settings;
use millpond_common::{Epoch, Error, JobId, RelationId, RelationSpec, StateTableId};
use millpond_connect::FormatSpec;
use millpond_plan::StreamPlan;

/// A job: the dataflow that maintains one materialized view.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Its number.
    pub id: JobId,
    /// The view's name, for messages.
    pub name: String,
    /// The database schema that the view is in.
    pub namespace: String,
    /// The view that it maintains.
    pub output: RelationSpec,
    /// What it computes.
    pub plan: StreamPlan,
    /// The numbers of its state tables, in the order of nodes and their tables.
    pub state_tables: Vec<StateTableId>,
    /// Settings of the server that the view has for itself.
    pub options: Settings,
}

/// A source as declared.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Its number.
    pub id: RelationId,
    /// Its name, for messages.
    pub name: String,
    /// The database schema that it is in.
    pub namespace: String,
    /// Its declared columns.
    pub schema: SchemaRef,
    /// What stands in `WITH (…)`.
    pub options: BTreeMap<String, String>,
    /// What stands in `FORMAT … ENCODE …`.
    pub format: FormatSpec,
}

/// Where a job is in its life.
#[derive(Clone, Debug)]
pub enum JobState {
    /// Reading what its inputs held when it was created; its view cannot be read yet.
    Backfilling,
    /// Level with its inputs.
    Running,
    /// Failed, and on its way back: it waits, or goes on from the last checkpoint and is not level yet.
    Restarting(Error),
    /// Stopped by an error.
    Failed(Error),
}

impl JobState {
    /// The state's name in system relations.
    pub fn name(&self) -> &'static str {
        match self {
            JobState::Backfilling => "BACKFILLING",
            JobState::Running => "RUNNING",
            JobState::Restarting(_) => "RESTARTING",
            JobState::Failed(_) => "FAILED",
        }
    }

    /// Why it does not run.
    pub fn error(&self) -> Option<&Error> {
        match self {
            JobState::Restarting(error) | JobState::Failed(error) => Some(error),
            JobState::Backfilling | JobState::Running => None,
        }
    }
}

/// How far a new job is.
#[derive(Clone, Debug)]
pub struct JobProgress {
    /// Where it is in its life.
    pub state: JobState,
    /// Rows read so far.
    pub rows_done: u64,
    /// Rows to read, where known.
    pub rows_total: Option<u64>,
}

/// A running `create_job`.
pub struct JobHandle {
    /// Changes until the state is `Running` or `Failed`.
    pub progress: tokio::sync::watch::Receiver<JobProgress>,
}

/// A job in `millpond.jobs`.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names say it; rows are counted since the server's start
pub struct JobInfo {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    pub name: String,
    pub relation: RelationId,
    pub state: JobState,
    pub rows_done: u64,
    pub rows_total: Option<u64>,
    pub epoch: Epoch,
    /// It has never been level yet, as far as this server's run knows.
    pub creating: bool,
    /// Restarts since a checkpoint found it running.
    pub attempts: u64,
    pub next_try: Option<SystemTime>,
    pub input_rows: u64,
    pub output_rows: u64,
}

/// A source in `millpond.sources`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SourceInfo {
    pub relation: RelationId,
    pub name: String,
    /// The database schema that it is in.
    pub namespace: String,
    pub connector: String,
    /// Readable; empty where nothing reads the source.
    pub position: String,
    pub rows_read: u64,
    pub bad_rows: u64,
    /// Its records that are kept because they could not be read.
    pub dead_letters: u64,
    /// It will never give more.
    pub finished: bool,
    pub error: Option<String>,
}

/// A checkpoint in `millpond.checkpoints`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CheckpointInfo {
    pub epoch: Epoch,
    pub kind: &'static str,
    /// `COMPLETED` or `FAILED`.
    pub state: &'static str,
    pub started: SystemTime,
    /// From the barrier to the end of the commit.
    pub duration: Duration,
    /// The longest time that a worker stood still for it.
    pub stall: Duration,
    /// Written by it.
    pub bytes: u64,
    /// On disk after it.
    pub total_bytes: u64,
    pub entries: u64,
    pub error: Option<String>,
}

/// An operator on one worker in `millpond.operators`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct OperatorInfo {
    pub job: JobId,
    pub node: usize,
    pub name: String,
    pub worker: usize,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Whether it is where a relation's rows enter.
    pub scan: bool,
    pub state_rows: u64,
    pub state_bytes: u64,
    pub busy: Duration,
}

/// Live figures of one operator on one worker.
#[derive(Debug)]
pub(crate) struct OperatorStats {
    pub job: JobId,
    pub node: usize,
    pub name: String,
    pub worker: usize,
    pub scan: bool,
    pub rows_in: AtomicU64,
    pub rows_out: AtomicU64,
    pub state_rows: AtomicU64,
    pub state_bytes: AtomicU64,
    pub busy_ns: AtomicU64,
}

impl OperatorStats {
    pub fn new(job: JobId, node: usize, name: String, worker: usize, scan: bool) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(OperatorStats {
            job,
            node,
            name,
            worker,
            scan,
            rows_in: zero(),
            rows_out: zero(),
            state_rows: zero(),
            state_bytes: zero(),
            busy_ns: zero(),
        })
    }

    pub fn info(&self) -> OperatorInfo {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        OperatorInfo {
            job: self.job,
            node: self.node,
            name: self.name.clone(),
            worker: self.worker,
            scan: self.scan,
            rows_in: get(&self.rows_in),
            rows_out: get(&self.rows_out),
            state_rows: get(&self.state_rows),
            state_bytes: get(&self.state_bytes),
            busy: Duration::from_nanos(get(&self.busy_ns)),
        }
    }
}
