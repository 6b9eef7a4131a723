//! What the clock and the workers say to each other. Epoch control is messages and never shared memory, so that
//! workers may live in other processes.

use std::sync::Arc;
use std::time::Duration;

use millpond_common::{Delta, Epoch, Error, JobId, RelationId};
use millpond_plan::Kept;
use millpond_state::{FrozenTable, ReadView, Unread};

use crate::job::JobSpec;
use crate::operators::expiring::Lifetime;
use crate::stash::Stashed;

/// In a job's plan a scan of `relation` reads what a node of another job gives.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub relation: RelationId,
    pub job: JobId,
    pub node: usize,
}

/// From the clock to every worker, in the same order to each.
pub(crate) enum Command {
    /// Build a job's dataflow. Its first epoch is `from`.
    CreateJob {
        spec: Arc<JobSpec>,
        from: Epoch,
        /// What its scans of tables and views have yet to read; its state is in the store as of the epoch before `from`.
        /// `None`: it begins without state, and reads everything.
        unread: Option<Arc<Vec<Unread>>>,
        /// What waited in it in epochs from `from` on.
        stash: Arc<Vec<Stashed>>,
        /// Relations that stand for operators of other jobs.
        taps: Vec<Tap>,
    },
    /// All workers have read what a new job's inputs held.
    Level(JobId),
    /// The last checkpoint before this view has what the operators that a job taps have given before it began.
    FeedTaps { job: JobId, view: ReadView },
    /// A job becomes the whole of what it replaces another with: operators and their state move from both.
    SwitchJob { job: JobId, old: JobId, spec: Arc<JobSpec>, kept: Arc<Kept>, from: Epoch },
    /// Forget a job.
    DropJob(JobId),
    /// All are paused and nothing is on its way: seal.
    Seal(Epoch),
    /// All have sealed: go on.
    Resume,
    /// An epoch begins.
    Epoch(EpochCommand),
    /// State is read without need while it takes less than `max` bytes on this worker.
    Warm { max: u64 },
    /// About `keep` bytes of state are to remain in memory on this worker; everything sealed before is in a checkpoint.
    Evict { keep: u64 },
    /// End the worker.
    Stop,
}

/// One worker's share of an epoch.
pub(crate) struct EpochCommand {
    pub epoch: Epoch,
    /// The jobs that take part, upstream before downstream.
    pub active: Arc<Vec<JobId>>,
    pub inputs: Vec<JobInput>,
    /// What backfilling jobs read.
    pub backfill: Option<BackfillOrders>,
    /// The time, for active jobs whose state expires.
    pub lifetimes: Vec<(JobId, Lifetime)>,
    /// Seal all state when the epoch is done, before any later one begins.
    pub checkpoint: bool,
    /// Pause when the epoch's input is there, and seal as soon as nothing is on its way.
    pub unaligned: bool,
}

/// From where backfilling jobs read in an epoch, and how much.
#[derive(Clone)]
pub(crate) struct BackfillOrders {
    /// Of an earlier epoch.
    pub view: ReadView,
    /// Rows that each of these jobs reads on a worker at most.
    pub rows_max: Vec<(JobId, usize)>,
}

/// Rows for the scans of one relation in one job.
#[derive(Clone)]
pub(crate) struct JobInput {
    pub job: JobId,
    pub relation: RelationId,
    /// Which of the relation's columns the rows have; `None`: all.
    pub columns: Option<Arc<Vec<usize>>>,
    pub delta: Delta,
}

/// From a worker to the clock.
pub(crate) enum Report {
    /// All active jobs have finished the epoch here, and their views' changes are published.
    EpochDone {
        epoch: Epoch,
        /// Jobs that failed in or before this epoch, with the reason, each told once.
        failed: Vec<(JobId, Error)>,
        /// Rows that backfilling jobs have read so far on this worker, and whether they have all.
        backfill: Vec<(JobId, u64, bool)>,
        /// Whether some state may expire on this worker, of active jobs that have such.
        will_expire: Vec<(JobId, bool)>,
        /// What all state takes in memory.
        state_bytes: u64,
    },
    /// State has been evicted as far as possible; it takes so much now. Comes once for an [`Command::Evict`], unless a checkpoint begins first.
    Evicted { state_bytes: u64 },
    /// Paused: chunks sent to each worker so far, and received.
    Quiet { epoch: Epoch, sent: Vec<u64>, received: u64 },
    /// Sealed: what waits at operators, of epochs up to this one. `failed`: as above; nothing of such a job belongs to the checkpoint.
    Sealed { epoch: Epoch, stash: Vec<Stashed>, failed: Vec<(JobId, Error)> },
    /// What changed since the last checkpoint, as of this epoch's end. Comes when all of it is encoded, later than `EpochDone`.
    /// `unread`: by job, what its scans had not read at that time, and how many rows they had since the server's start.
    Frozen { epoch: Epoch, tables: Vec<FrozenTable>, unread: Vec<(JobId, Vec<Unread>, u64)>, stall: Duration },
}
