//! The barrier clock: one thread that decides what an epoch holds. All non-determinism enters here: which source
//! chunks and which transactions belong to an epoch is chosen when its barrier is made.
//!
//! A barrier is made when fewer than `epochs_in_flight_max` (2) epochs are on their way and there is input, not sooner
//! than [`EPOCH_INTERVAL_MIN`] after the last one; at saturation epochs grow with what the readers have decoded
//! meanwhile. Statements that change the set of jobs run between epochs, when none is on its way; so do restarts.

mod backfills;
mod checkpoints;
mod epoch;
mod expiry;
mod jobs;
mod memory;
mod readers;
mod recover;
mod replace;
mod settle;
mod unaligned;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use millpond_common::settings::Settings;
use millpond_common::{Delta, Epoch, Error, JobId, RelationId, RelationSpec, Result, StateTableId};
use millpond_connect::Position;
use millpond_state::{FrozenTable, Store, Unread};
use tokio::sync::{oneshot, watch};

use crate::checkpoint::{Backfilled, Committed, Frozen, JobMeta};
use crate::dataflow::Workers;
use crate::dead_letters::DeadLetters;
use crate::handle::Shared;
use crate::job::{CheckpointInfo, JobHandle, JobProgress, JobSpec, JobState, SourceSpec};
use crate::log::Changes;
use crate::messages::Report;
use crate::operators::expiring::Time;
use crate::pipeline::Edges;
use crate::replace::Replacement;
use crate::restart::History;
use crate::source::SourceReader;
use crate::stash::Stashed;
use backfills::Throttle;
pub(crate) use unaligned::Replay;
use unaligned::{Cut, Pausing};

/// Least time between two barriers while input keeps flowing.
const EPOCH_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// Rows that one epoch takes from each source reader at most.
const EPOCH_ROWS_MAX: usize = 524_288;

/// Rows that a backfilling job reads in an epoch, per scan and worker, while others run: so many that the epoch takes about
/// [`BACKFILL_EPOCH`], so that nobody waits for it noticeably. Alone it may have the most.
const BACKFILL_ROWS: Range<usize> = 1_024..65_536;
const BACKFILL_EPOCH: Duration = Duration::from_millis(15);

/// What wakes the clock.
pub(crate) enum Event {
    /// A statement.
    Control(Control),
    /// Durable transactions, in the order of the log.
    Transactions(Vec<(u64, Changes)>),
    /// A source reader has something.
    Wake,
    /// A worker has finished something.
    Report(usize, Report),
    /// The committer has finished a checkpoint.
    Committed(Committed),
    /// Storage has failed; nothing more can be made durable.
    Poisoned(Error),
}

/// What is done after the final checkpoint, while the store is still open.
pub(crate) type BeforeClose = Box<dyn FnOnce() + Send>;

/// What statements ask for.
pub(crate) enum Control {
    CreateTable(RelationSpec),
    CreateSource(SourceSpec),
    CreateJob {
        spec: Box<JobSpec>,
        /// It was there before this start.
        known: bool,
        restored: Option<Box<RestoredJob>>,
        reply: oneshot::Sender<Result<JobHandle>>,
    },
    Drop {
        relations: Vec<RelationId>,
        jobs: Vec<JobId>,
        reply: oneshot::Sender<Result<()>>,
    },
    Checkpoint(oneshot::Sender<Result<CheckpointInfo>>),
    /// Answered when all that was written or read before it is visible.
    Flush(oneshot::Sender<Result<()>>),
    /// The server's settings have changed.
    Settings(Box<Settings>),
    /// A view's own settings have changed.
    JobOptions(JobId, Box<Settings>),
    /// A job and those that read from it begin anew.
    RestartJob(JobId, oneshot::Sender<Result<JobHandle>>),
    /// Ends a job that is to take another's place. Answers whether it is one.
    CancelReplacement(JobId, oneshot::Sender<Result<bool>>),
    /// Epochs that were on their way at the last checkpoint are made again.
    Replay(Vec<Replay>),
    /// A job is to take another's place, once it is level.
    ReplaceJob(Box<Replacement>, oneshot::Sender<Result<JobHandle>>),
    /// Now it does.
    SwitchJob(JobId, oneshot::Sender<Result<()>>),
    /// Final checkpoint, then the end.
    Shutdown(BeforeClose, oneshot::Sender<Result<()>>),
}

/// What the last checkpoint knew of a job.
pub(crate) struct RestoredJob {
    pub positions: Vec<(RelationId, Position)>,
    pub failed: Option<String>,
    /// It was being filled, and had come this far.
    pub backfilled: Option<Backfilled>,
    /// Where sources' leaders were.
    pub leaders: Arc<Vec<(RelationId, Position)>>,
    /// The newest epoch whose input is in its state or in the stash.
    pub inputs: Epoch,
    /// What waited when the checkpoint was made; nothing if it was aligned.
    pub stash: Arc<Vec<Stashed>>,
}

/// A job as the clock knows it.
struct Job {
    spec: Arc<JobSpec>,
    edges: Edges,
    state: JobState,
    progress: watch::Sender<JobProgress>,
    rows_total: Option<u64>,
    /// The numbers of its state tables.
    tables: Vec<StateTableId>,
    /// The job whose place it is going to take.
    replaces: Option<replace::Replaces>,
    /// Rows that backfills have read, by worker, and on how many workers they have ended.
    rows_done: Vec<u64>,
    /// Rows that it had read when the server started.
    rows_before: u64,
    /// What its scans had not read at the checkpoint from which it goes on with its backfill.
    unread: Option<Arc<Vec<Unread>>>,
    throttle: Throttle,
    expiry: expiry::Expiry,
    /// Rows that its sources' readers gave it until it was level.
    source_rows: u64,
    workers_done: usize,
    /// Whether its dataflow exists.
    attached: bool,
    /// The epoch by which all its new sources have caught up, once known.
    sources_level: Option<Epoch>,
    /// Settings that its view has for itself.
    options: Settings,
    /// Where the newest checkpoint that holds its state found it.
    saved: Option<Saved>,
    /// It began without state, and has not been level since.
    fresh: bool,
    /// It has never been level.
    creating: bool,
    history: History,
    /// It has failed and waits for its restart.
    recovery: Option<Recovery>,
    /// Changes of its inputs since it was saved, as far as it has missed them, and the epoch up to which these are all.
    held: Vec<(RelationId, Delta)>,
    held_until: Epoch,
    /// The same: input of its next epoch.
    replay: Vec<(RelationId, Delta)>,
}

/// From where a job can go on.
#[derive(Clone)]
struct Saved {
    /// What its relation, and those that it reads, are as of.
    epoch: Epoch,
    /// Its state and its stash have the input up to this one.
    inputs: Epoch,
    positions: Vec<(RelationId, Position)>,
    /// Of all jobs; nothing if the checkpoint was aligned.
    stash: Arc<Vec<Stashed>>,
}

/// What is kept of a failed job until its restart.
#[derive(Default)]
struct Recovery {
    /// Not before this time; `None`: when those that it reads from run again.
    next_try: Option<(Instant, SystemTime)>,
    /// Begin anew, even where there is something to go on from.
    anew: bool,
}

impl Job {
    /// Rows that its backfill has read.
    fn rows(&self) -> u64 {
        self.rows_before + self.rows_done.iter().sum::<u64>() + self.source_rows
    }
}

/// An epoch on its way.
struct InFlight {
    epoch: Epoch,
    begun: Instant,
    /// Workers that have not finished it.
    waiting: usize,
    /// Transactions up to this number are in it.
    log_seq: u64,
    /// Rows that sources gave to jobs in it.
    source_rows: u64,
    checkpoint: Option<Barrier>,
}

/// A checkpoint whose state is being collected.
struct Barrier {
    started: Instant,
    started_at: SystemTime,
    jobs: Vec<JobMeta>,
    /// Jobs that could go on from this checkpoint.
    resumable: Vec<JobId>,
    tables: Vec<FrozenTable>,
    /// Where sources' leaders are.
    leaders: Vec<(RelationId, Position)>,
    waiting: usize,
    stall: Duration,
    /// Of an unaligned one, once all workers have sealed.
    cut: Option<Cut>,
    /// It took too long: what it has collected belongs to the next one.
    abandoned: bool,
}

pub(crate) struct Clock {
    store: Arc<Store>,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    wake_pending: Arc<AtomicBool>,
    workers: Workers,
    committer: Option<Sender<Frozen>>,
    memory: u64,
    /// What state takes in memory, by worker.
    state_bytes: Vec<u64>,
    /// It was found that state cannot have less.
    state_floor: u64,
    /// Workers that are still to say what they have evicted.
    evicting: usize,
    /// Rows that sources have given to jobs since the last checkpoint's barrier.
    source_rows: u64,

    epoch: Epoch,
    /// When the newest epoch was made in which state could expire.
    time: Time,
    log_seq: u64,
    in_flight: VecDeque<InFlight>,
    /// Complete epochs whose checkpoint still waits for state.
    collecting: VecDeque<InFlight>,
    /// Workers are paused.
    pausing: Option<Pausing>,
    last_barrier: Instant,
    /// Durable transactions that no epoch holds yet.
    transactions: Vec<(u64, Changes)>,
    tables: BTreeMap<RelationId, RelationSpec>,
    sources: BTreeMap<RelationId, SourceSpec>,
    jobs: BTreeMap<JobId, Job>,
    readers: Vec<SourceReader>,
    dead_letters: DeadLetters,
    /// Jobs upstream first, and their pipelines; made anew when the set of jobs changes.
    order: Vec<JobId>,
    components: BTreeMap<JobId, usize>,
    next_worker: usize,
    backfill_rows: usize,

    control: VecDeque<Control>,
    flushes: Vec<(Option<Epoch>, oneshot::Sender<Result<()>>)>,
    settings: Settings,
    last_checkpoint: Instant,
    /// The epoch of its barrier; none if it was abandoned.
    checkpoint_epoch: Epoch,
    /// When a checkpoint ended last.
    last_commit: Option<Instant>,
    /// Checkpoints at the committer.
    committing: usize,
    /// Checkpoints in a row that have failed.
    failures: u64,
    /// What abandoned checkpoints have collected.
    carried: Vec<FrozenTable>,
    /// Something has happened since the last checkpoint's barrier.
    dirty: bool,
    /// A view has become level: until a checkpoint says so, a crash would fill it again.
    checkpoint_soon: bool,
    /// A statement wants a checkpoint whose barrier is still to be made.
    checkpoint_wanted: Vec<oneshot::Sender<Result<CheckpointInfo>>>,
    /// Those whose barrier has been made.
    checkpoint_waiters: Vec<(Epoch, oneshot::Sender<Result<CheckpointInfo>>)>,
    shutdown: Option<(BeforeClose, oneshot::Sender<Result<()>>)>,
    poisoned: Option<Error>,
}

/// What the clock starts with.
pub(crate) struct ClockStart {
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
    pub events: Receiver<Event>,
    pub sender: Sender<Event>,
    pub workers: Workers,
    pub committer: Sender<Frozen>,
    pub memory: u64,
    pub epoch: Epoch,
    pub log_seq: u64,
    pub settings: Settings,
    pub dead_letters: DeadLetters,
}

impl Clock {
    pub fn new(start: ClockStart) -> Clock {
        Clock {
            store: start.store,
            shared: start.shared,
            events: start.events,
            sender: start.sender,
            wake_pending: Arc::new(AtomicBool::new(false)),
            state_bytes: vec![0; start.workers.count()],
            state_floor: 0,
            evicting: 0,
            source_rows: 0,
            workers: start.workers,
            committer: Some(start.committer),
            memory: start.memory,
            epoch: start.epoch,
            time: 0,
            log_seq: start.log_seq,
            in_flight: VecDeque::new(),
            collecting: VecDeque::new(),
            pausing: None,
            last_barrier: Instant::now(),
            transactions: Vec::new(),
            tables: BTreeMap::new(),
            sources: BTreeMap::new(),
            jobs: BTreeMap::new(),
            readers: Vec::new(),
            dead_letters: start.dead_letters,
            order: Vec::new(),
            components: BTreeMap::new(),
            next_worker: 0,
            backfill_rows: BACKFILL_ROWS.start,
            control: VecDeque::new(),
            flushes: Vec::new(),
            settings: start.settings,
            last_checkpoint: Instant::now(),
            checkpoint_epoch: start.epoch,
            last_commit: None,
            committing: 0,
            failures: 0,
            carried: Vec::new(),
            dirty: false,
            checkpoint_soon: false,
            checkpoint_wanted: Vec::new(),
            checkpoint_waiters: Vec::new(),
            shutdown: None,
            poisoned: None,
        }
    }

    /// Runs until shutdown or until storage fails.
    pub fn run(mut self) {
        self.tell_warm_limit();
        loop {
            let event = match self.time_to_wait() {
                Some(timeout) => match self.events.recv_timeout(timeout) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
                None => match self.events.recv() {
                    Ok(event) => Some(event),
                    Err(_) => break,
                },
            };
            if let Some(event) = event {
                self.handle(event);
            }
            while let Ok(event) = self.events.try_recv() {
                self.handle(event);
            }
            self.advance();
            if self.is_over() {
                break;
            }
        }
        self.end();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Control(control) => self.control.push_back(control),
            Event::Transactions(mut list) => {
                self.dirty = true;
                self.transactions.append(&mut list);
            }
            Event::Wake => self.wake_pending.store(false, Ordering::Release),
            Event::Report(worker, report) => self.report(worker, report),
            Event::Committed(committed) => self.committed(committed),
            Event::Poisoned(error) => self.poison(error),
        }
    }

    /// Whether an epoch would have something to do.
    fn has_input(&self) -> bool {
        !self.transactions.is_empty()
            || !self.flushes.iter().all(|(epoch, _)| epoch.is_some())
            || self.jobs.values().any(|j| j.attached && self.wants_epoch(j))
            || (!self.is_memory_tight() && self.readers.iter().any(|r| r.has_input() && self.may_take(r)))
    }

    /// Whether another epoch may be on its way. An unaligned checkpoint's need not wait for one of the others.
    fn has_room(&self, checkpoint: bool) -> bool {
        let max = self.epochs_in_flight_max() + usize::from(checkpoint && self.is_unaligned());
        self.pausing.is_none() && self.in_flight.len() < max
    }

    /// How long nothing can become due; `None`: until an event comes.
    fn time_to_wait(&self) -> Option<Duration> {
        let room = self.has_room(false);
        let epoch = (room && self.has_input()).then(|| EPOCH_INTERVAL_MIN.saturating_sub(self.last_barrier.elapsed()));
        let checkpoint = self.time_to_checkpoint().filter(|_| self.has_room(true));
        let backfill = self.time_to_backfill().filter(|_| room);
        let expiry = self.time_to_expiry().filter(|_| room);
        [epoch, checkpoint, backfill, expiry, self.time_to_timeout(), self.time_to_restart()].into_iter().flatten().min()
    }

    /// Does all that is due.
    fn advance(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        self.abandon_checkpoints();
        if self.pausing.is_some() {
            return;
        }
        // Statements wait for the epochs on their way, and later epochs for the statements.
        while let Some(next) = self.control.front() {
            use Control::{CreateJob, Drop, ReplaceJob, RestartJob, SwitchJob};
            let between_epochs = matches!(next, CreateJob { .. } | Drop { .. } | RestartJob(..) | ReplaceJob(..) | SwitchJob(..));
            if between_epochs && !self.in_flight.is_empty() {
                return;
            }
            if matches!(next, ReplaceJob(..)) && !self.is_at_checkpoint() {
                // It begins behind a checkpoint's epoch: there it finds what kept operators have given before.
                if self.is_checkpoint_possible() {
                    return self.make_epoch(true);
                }
                break;
            }
            if let Some(control) = self.control.pop_front() {
                self.control(control);
            }
        }
        if self.shutdown.is_some() && !self.dirty && self.checkpoint_wanted.is_empty() {
            return;
        }
        if !self.recover() {
            return;
        }
        let checkpoint = self.checkpoint_due();
        let epoch = self.has_input() && self.last_barrier.elapsed() >= EPOCH_INTERVAL_MIN;
        if self.has_room(checkpoint) && (checkpoint || epoch) {
            self.make_epoch(checkpoint);
        }
    }

    fn is_over(&self) -> bool {
        let idle = !self.dirty && self.committing == 0 && self.collecting.is_empty() && self.in_flight.is_empty();
        self.poisoned.is_some() || (self.shutdown.is_some() && idle)
    }

    /// Storage cannot be trusted any more: the last checkpoint and the log are intact, so stop here.
    fn poison(&mut self, error: Error) {
        tracing::error!(error = %error, "storage has failed; stopping with the last checkpoint intact");
        self.poisoned.get_or_insert(error);
    }

    fn end(mut self) {
        self.readers.clear();
        self.workers.send(|_| crate::messages::Command::Stop);
        self.workers.join();
        drop(self.committer.take());
        let result = self.poisoned.clone().map_or(Ok(()), Err);
        let reply = self.shutdown.take().map(|(before_close, reply)| {
            if result.is_ok() {
                before_close();
            }
            reply
        });
        self.store.close();
        self.shared.end(&result);
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }
}

/// A delta for every job that reads the relation.
fn non_empty(delta: &Delta) -> bool {
    !delta.is_empty()
}
