//! [`Engine`]: what sessions call. It talks to the clock by messages and reads figures that the clock left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use millpond_common::settings::Settings;
use millpond_common::{Delta, Epoch, Error, JobId, RelationId, RelationSpec, Result, SqlState};
use millpond_plan::StreamPlan;
use millpond_state::{Recovered, Savepoint, SavepointKind, Store};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::checkpoint::Meta;
use crate::clock::{Clock, ClockStart, Control, Event, Replay, RestoredJob};
use crate::dead_letters::{DEAD_LETTERS, DeadLetter, DeadLetters};
use crate::job::{CheckpointInfo, JobHandle, JobInfo, JobSpec, JobState, OperatorInfo, OperatorStats, SourceInfo, SourceSpec};
use crate::log::{self, Changes, LogRequest};
use crate::messages::Report;
use crate::pipeline::{self, Edges};
use crate::replace::Replacement;
use crate::stash::{self, Place, Stashed};
use crate::{checkpoint, dataflow, dead_letters};

/// Checkpoints kept for `millpond.checkpoints`.
const CHECKPOINTS_SHOWN_MAX: usize = 1000;

/// How the engine runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Bytes of memory that are shared out.
    pub memory: u64,
    /// The server's settings.
    pub settings: Settings,
}

/// Figures that clock and workers leave for readers.
pub(crate) struct Shared {
    jobs: Mutex<Vec<JobInfo>>,
    sources: Mutex<Vec<SourceInfo>>,
    checkpoints: Mutex<VecDeque<CheckpointInfo>>,
    operators: Mutex<BTreeMap<JobId, Vec<Arc<OperatorStats>>>>,
    /// The newest visible epoch, and the log entry up to which transactions are in it; an error at the end.
    visible: watch::Sender<(Epoch, u64)>,
    ended: watch::Sender<Option<Result<()>>>,
    pub epochs: AtomicU64,
    /// The newest transaction that has been answered, or is about to be.
    pub acknowledged: AtomicU64,
}

impl Shared {
    pub fn visible(&self, epoch: Epoch, log_seq: u64) {
        self.visible.send_replace((epoch, log_seq));
    }
    /// What is visible.
    pub fn newest(&self) -> (Epoch, u64) {
        *self.visible.borrow()
    }
    pub fn checkpoint(&self, info: CheckpointInfo) {
        let mut list = self.checkpoints.lock();
        if list.len() == CHECKPOINTS_SHOWN_MAX {
            list.pop_front();
        }
        list.push_back(info);
    }
    pub fn tell(&self, jobs: Vec<JobInfo>, sources: Vec<SourceInfo>) {
        *self.jobs.lock() = jobs;
        *self.sources.lock() = sources;
    }
    pub fn forget(&self, job: JobId) {
        self.operators.lock().remove(&job);
    }
    pub fn end(&self, result: &Result<()>) {
        self.ended.send_replace(Some(result.clone()));
    }
    fn register(&self, stats: Arc<OperatorStats>) {
        self.operators.lock().entry(stats.job).or_default().push(stats);
    }
}

/// The running engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    store: Arc<Store>,
    events: Sender<Event>,
    log: Sender<LogRequest>,
    shared: Arc<Shared>,
}

fn stopped() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "the server is shutting down")
}

/// Jobs that go on from the checkpoint: those that it found level or in the middle of a backfill, if all that they read from do.
/// Not those that were emptied, to be filled anew, after it.
fn going_on(meta: &Meta, store: &Store, jobs: &[JobSpec]) -> BTreeSet<JobId> {
    let edges = jobs.iter().map(|j| (j.id, Edges { reads: j.plan.relations(), writes: j.output.id })).collect::<BTreeMap<_, _>>();
    let emptied = jobs.iter().filter(|j| store.is_emptied(j.output.id)).map(|j| j.id).collect::<BTreeSet<_>>();
    let known = |id: &JobId| meta.job(*id).is_some_and(|j| j.failed.is_none() && (j.level || j.backfilled.is_some()));
    let knows = |id: &JobId| known(id) && !emptied.contains(id);
    let mut found = edges.keys().copied().filter(knows).collect::<BTreeSet<_>>();
    for id in edges.keys().filter(|id| !knows(id)) {
        let readers = pipeline::downstream(&edges, *id);
        found.retain(|job| !readers.contains(job));
    }
    found
}

/// The epochs that an unaligned checkpoint found on their way. Their transactions leave the tail.
fn replays(meta: &Meta, stash: &[Stashed], jobs: &BTreeSet<JobId>, tail: &mut Vec<(u64, Changes)>) -> Vec<Replay> {
    let published = |epoch| {
        stash.iter().filter(move |s| s.epoch == epoch).filter_map(|s| match s.place {
            Place::Published(relation) if relation == DEAD_LETTERS || jobs.contains(&s.job) => Some((relation, s.delta.clone())),
            _ => None,
        })
    };
    let mut replay = |(epoch, log_seq): &(Epoch, u64)| {
        let later = tail.split_off(tail.partition_point(|(seq, _)| seq <= log_seq));
        Replay { epoch: *epoch, transactions: std::mem::replace(tail, later), published: published(*epoch).collect() }
    };
    meta.epochs.iter().map(&mut replay).collect()
}

/// The jobs whose relations a checkpoint has as their queries say: they were neither being filled nor failed.
pub fn running_in(recovered: &Recovered) -> Result<BTreeSet<JobId>> {
    let meta = Meta::decode(&recovered.meta)?;
    Ok(meta.jobs.iter().filter(|j| j.level && j.failed.is_none()).map(|j| j.id).collect())
}

/// How many state tables a plan needs.
pub fn state_tables_needed(plan: &StreamPlan) -> Result<u32> {
    Ok(dataflow::state_table_counts(plan)?.iter().sum::<usize>() as u32)
}

impl Engine {
    /// Starts workers, clock and committer and continues all jobs from the last checkpoint. Jobs whose backfill had
    /// not ended begin it anew.
    pub fn start(
        config: EngineConfig,
        store: Arc<Store>,
        recovered: &Recovered,
        tables: Vec<RelationSpec>,
        sources: Vec<SourceSpec>,
        jobs: Vec<JobSpec>,
    ) -> Result<Engine> {
        let meta = Meta::decode(&recovered.meta)?;
        let (events, receiver) = crossbeam_channel::unbounded();
        let of_events = events.clone();
        store.on_failure(move |error| drop(of_events.send(Event::Poisoned(error.clone()))));
        let (log, log_requests) = crossbeam_channel::unbounded();
        let (committer, commits) = crossbeam_channel::unbounded();
        let shared = Arc::new(Shared {
            jobs: Mutex::default(),
            sources: Mutex::default(),
            checkpoints: Mutex::default(),
            operators: Mutex::default(),
            visible: watch::Sender::new((recovered.epoch, 0)),
            ended: watch::Sender::new(None),
            epochs: AtomicU64::new(recovered.epoch),
            acknowledged: AtomicU64::new(0),
        });
        // Transactions after the checkpoint: readable for DML at once, applied in the first epoch.
        let find = |id: RelationId| tables.iter().find(|t| t.id == id).cloned();
        for table in &tables {
            store.relation_add(table.clone());
        }
        store.relation_add(dead_letters::spec());
        let newest = recovered.log_tail.last().map_or(0, |(seq, _)| *seq);
        let mut tail = Vec::new();
        for (seq, bytes) in &recovered.log_tail {
            let changes = log::decode(bytes, &find)?;
            store.pending_add(*seq, changes.clone());
            tail.push((*seq, changes));
        }
        let going_on = going_on(&meta, &store, &jobs);
        let stash = Arc::new(stash::load(&store, meta.stashed)?);
        if !meta.epochs.is_empty() {
            tracing::info!(epochs = meta.epochs.len(), chunks = stash.len(), "the last checkpoint was unaligned: its epochs come first");
        }
        for spec in &jobs {
            if !going_on.contains(&spec.id) {
                store.state_remove(&spec.state_tables)?;
                store.relation_remove(spec.output.id)?;
            }
        }
        // The last that is read before there are threads: if it cannot be, nothing holds the store.
        let letters = stash.iter().filter(|s| s.place == Place::Published(DEAD_LETTERS)).map(|s| &s.delta);
        let dead_letters = DeadLetters::load(&store.read_view(), letters)?;
        let registry = Arc::clone(&shared);
        let reports = events.clone();
        let workers = dataflow::spawn(
            config.workers.max(1),
            Arc::clone(&store),
            Arc::new(move |stats| registry.register(stats)),
            Arc::new(move |worker, report: Report| drop(reports.send(Event::Report(worker, report)))),
        )?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.into()).spawn(run);
        let (of_store, of_events, of_shared) = (Arc::clone(&store), events.clone(), Arc::clone(&shared));
        spawn("log", Box::new(move || log::run(&of_store, &log_requests, &of_events, &of_shared.acknowledged)))?;
        let (of_store, of_events) = (Arc::clone(&store), events.clone());
        spawn("committer", Box::new(move || checkpoint::run(&of_store, &commits, &of_events, meta.stashed)))?;
        let clock = Clock::new(ClockStart {
            store: Arc::clone(&store),
            shared: Arc::clone(&shared),
            events: receiver,
            sender: events.clone(),
            workers,
            committer,
            memory: config.memory,
            epoch: recovered.epoch,
            log_seq: recovered.log_tail.first().map_or(0, |(seq, _)| seq.saturating_sub(1)),
            settings: config.settings,
            dead_letters,
        });
        let engine = Engine { store, events, log, shared };
        tables.into_iter().try_for_each(|t| engine.control(Control::CreateTable(t)))?;
        sources.into_iter().try_for_each(|s| engine.control(Control::CreateSource(s)))?;
        let mut started = Vec::new();
        // First those that go on from the checkpoint: those that begin anew catch up with them.
        let (going_on, anew): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|j| going_on.contains(&j.id));
        let leaders = Arc::new(meta.leaders.clone());
        let goes_on = going_on.iter().map(|j| j.id).collect::<BTreeSet<_>>();
        let mut replays = replays(&meta, &stash, &goes_on, &mut tail);
        let inputs = meta.epochs.last().map_or(recovered.epoch, |(epoch, _)| *epoch);
        for spec in going_on.into_iter().chain(anew) {
            if !goes_on.contains(&spec.id) && !replays.is_empty() {
                engine.control(Control::Replay(std::mem::take(&mut replays)))?;
            }
            let known = meta.job(spec.id).filter(|j| goes_on.contains(&j.id) || j.failed.is_some());
            let restored = known.map(|j| RestoredJob {
                positions: j.positions.clone(),
                failed: j.failed.clone(),
                backfilled: j.backfilled.clone(),
                leaders: Arc::clone(&leaders),
                inputs,
                stash: Arc::clone(&stash),
            });
            let restored = restored.map(Box::new);
            let (reply, answer) = oneshot::channel();
            engine.control(Control::CreateJob { spec: Box::new(spec), known: true, restored, reply })?;
            started.push(answer);
        }
        engine.control(Control::Replay(replays))?;
        if !tail.is_empty() {
            engine.events.send(Event::Transactions(tail)).map_err(|_| stopped())?;
        }
        spawn("clock", Box::new(move || clock.run()))?;
        for answer in started {
            if let Err(error) = answer.blocking_recv().map_err(|_| stopped())? {
                tracing::error!(error = %error, "a view could not be continued");
            }
        }
        // Nobody may read before what was answered is there again.
        while engine.shared.newest().0 < inputs || engine.shared.newest().1 < newest {
            if let Some(result) = engine.shared.ended.borrow().clone() {
                return result.and(Err(stopped()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(engine)
    }

    fn control(&self, control: Control) -> Result<()> {
        self.events.send(Event::Control(control)).map_err(|_| stopped())
    }

    async fn ask<T>(&self, control: impl FnOnce(oneshot::Sender<Result<T>>) -> Control) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.control(control(reply))?;
        answer.await.map_err(|_| stopped())?
    }

    /// The store under it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// A new table, empty.
    pub fn create_table(&self, spec: RelationSpec) -> Result<()> {
        self.control(Control::CreateTable(spec))
    }

    /// A new source. It is read when a job needs it.
    pub fn create_source(&self, spec: SourceSpec) -> Result<()> {
        self.control(Control::CreateSource(spec))
    }

    /// A new job. Returns when it is set up; its progress tells when it has caught up.
    pub async fn create_job(&self, spec: JobSpec) -> Result<JobHandle> {
        self.ask(|reply| Control::CreateJob { spec: Box::new(spec), known: false, restored: None, reply }).await
    }

    /// Removes jobs and relations with their rows and state. Nothing that stays may read them.
    pub async fn drop_relations(&self, relations: Vec<RelationId>, jobs: Vec<JobId>) -> Result<()> {
        self.ask(|reply| Control::Drop { relations, jobs, reply }).await
    }

    /// Makes a transaction's net changes durable; they become visible together soon after. Returns its number in the log.
    pub async fn commit_transaction(&self, changes: Vec<(RelationId, Delta)>) -> Result<u64> {
        let (done, answer) = oneshot::channel();
        self.log.send(LogRequest { changes, done }).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// The newest transaction that has been answered. A reader that waits for it sees all that anybody was promised.
    pub fn newest_transaction(&self) -> u64 {
        self.shared.acknowledged.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Waits until the tables and all views contain the transaction.
    pub async fn wait_visible(&self, log_seq: u64) -> Result<()> {
        let mut visible = self.shared.visible.subscribe();
        let mut ended = self.shared.ended.subscribe();
        tokio::select! {
            found = visible.wait_for(|(_, seq)| *seq >= log_seq) => found.map(|_| ()).map_err(|_| stopped()),
            _ = ended.wait_for(Option::is_some) => Err(stopped()),
        }
    }

    /// Returns when all that was written or read before is visible in every view.
    pub async fn flush(&self) -> Result<()> {
        self.ask(Control::Flush).await
    }

    /// Completes a checkpoint whose barrier follows this call.
    pub async fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.ask(Control::Checkpoint).await
    }

    /// Completes a checkpoint, then a full one: every byte of it is written anew. Savepoints list it.
    pub async fn checkpoint_full(&self) -> Result<CheckpointInfo> {
        let mut info = self.checkpoint().await?;
        let (started, begun) = (SystemTime::now(), Instant::now());
        let full = self.blocking(|store| store.checkpoint_full()).await?;
        // What it wrote in all, in comparison with the one before, which wrote what had changed.
        info = CheckpointInfo { kind: "full", epoch: full.epoch, started, duration: begun.elapsed(), bytes: full.bytes, ..info };
        (info.stall, info.entries) = (Duration::ZERO, 0);
        self.shared.checkpoint(info.clone());
        Ok(info)
    }

    /// Makes a savepoint of all that was written and read before this call.
    pub async fn savepoint_create(&self, name: String, kind: SavepointKind, comment: String) -> Result<Savepoint> {
        self.checkpoint().await?;
        self.blocking(move |store| store.savepoint_create(&name, kind, &comment)).await
    }

    /// Calls the store from a thread that may block.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || f(&store)).await;
        done.map_err(|e| Error::internal(format!("storage's answer is lost: {e}")))?
    }

    /// The server's settings have changed: they are in effect from now on.
    pub fn set_settings(&self, settings: Settings) -> Result<()> {
        self.control(Control::Settings(Box::new(settings)))
    }

    /// A view's own settings have changed.
    pub fn set_job_options(&self, job: JobId, options: Settings) -> Result<()> {
        self.control(Control::JobOptions(job, Box::new(options)))
    }

    /// Empties a view and all that read from it, and fills them anew.
    pub async fn restart_job(&self, job: JobId) -> Result<JobHandle> {
        self.ask(|reply| Control::RestartJob(job, reply)).await
    }

    /// A new job that is to take another's place. Its progress tells when it is level; until [`Engine::switch_job`] or until it is
    /// dropped, the other runs on.
    pub async fn replace_job(&self, replacement: Replacement) -> Result<JobHandle> {
        self.ask(|reply| Control::ReplaceJob(Box::new(replacement), reply)).await
    }

    /// Makes a job fail that is to take another's place, so that whoever waits for it undoes the rest. Returns whether it is one.
    pub async fn cancel_replacement(&self, job: JobId) -> Result<bool> {
        self.ask(|reply| Control::CancelReplacement(job, reply)).await
    }

    /// A job that is level, and that a checkpoint holds, takes the place of the one that it replaces.
    pub async fn switch_job(&self, job: JobId) -> Result<()> {
        self.ask(|reply| Control::SwitchJob(job, reply)).await
    }

    /// Final checkpoint, then the end of all threads.
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown_after(|| ()).await
    }

    /// The same with something to be done in between, once the final checkpoint is complete and while the store can still be read.
    pub async fn shutdown_after(&self, before_close: impl FnOnce() + Send + 'static) -> Result<()> {
        self.ask(|reply| Control::Shutdown(Box::new(before_close), reply)).await
    }

    /// Waits until the engine has ended; an error if storage failed.
    pub async fn ended(&self) -> Result<()> {
        let mut ended = self.shared.ended.subscribe();
        let result = ended.wait_for(Option::is_some).await.map_err(|_| stopped())?.clone();
        result.unwrap_or(Ok(()))
    }

    /// All jobs.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let operators = self.shared.operators.lock();
        let mut jobs = self.shared.jobs.lock().clone();
        for job in &mut jobs {
            let infos = operators.get(&job.id).into_iter().flatten().map(|s| s.info()).collect::<Vec<_>>();
            let root = infos.iter().map(|i| i.node).max();
            job.input_rows = infos.iter().filter(|i| i.scan).map(|i| i.rows_out).sum();
            job.output_rows = infos.iter().filter(|i| Some(i.node) == root).map(|i| i.rows_out).sum();
        }
        jobs
    }

    /// Where a job stands; `None` if there is no such job.
    pub fn job_state(&self, job: JobId) -> Option<JobState> {
        self.shared.jobs.lock().iter().find(|j| j.id == job).map(|j| j.state.clone())
    }

    /// All sources.
    pub fn sources(&self) -> Vec<SourceInfo> {
        self.shared.sources.lock().clone()
    }

    /// Records of sources that could not be read, the oldest first.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        dead_letters::read(&self.store.read_view())
    }

    /// The last checkpoints of this run, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.shared.checkpoints.lock().iter().cloned().collect()
    }

    /// All operators on all workers.
    pub fn operators(&self) -> Vec<OperatorInfo> {
        self.shared.operators.lock().values().flatten().map(|s| s.info()).collect()
    }

    /// The number of the newest epoch, visible or on its way.
    pub fn epoch(&self) -> Epoch {
        self.shared.epochs.load(std::sync::atomic::Ordering::Relaxed)
    }
}
