//! A worker thread: it takes commands from the clock, steps its dataflows, passes views' changes on to the jobs
//! that read them, and reports finished epochs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use millpond_common::ids::lane_of;
use millpond_common::{Delta, Epoch, Error, JobId, RelationId, Result, Vnode};
use millpond_state::{FrozenTable, Store, Unread};
use parking_lot::Mutex;
use timely::WorkerConfig;
use timely::communication::Config as Communication;
use timely::worker::Worker;

use super::job::{Build, LocalJob, Start};
use super::residency::{self, Residency};
use super::unaligned::{Pause, Traffic};
use crate::job::{JobSpec, OperatorStats};
use crate::messages::{BackfillOrders, Command, EpochCommand, Report, Tap};

/// All workers of this process.
pub(crate) struct Workers {
    commands: Vec<(Sender<Command>, Thread)>,
    guards: Option<Box<dyn FnOnce() + Send>>,
}

impl Workers {
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Sends one command to each worker, in the same order everywhere.
    pub fn send(&self, mut command: impl FnMut(usize) -> Command) {
        for (worker, (sender, thread)) in self.commands.iter().enumerate() {
            // A worker that is gone has reported why; the clock is about to stop.
            let _ = sender.send(command(worker));
            thread.unpark();
        }
    }

    /// Waits for the workers' end after [`Command::Stop`].
    pub fn join(&mut self) {
        if let Some(join) = self.guards.take() {
            join();
        }
    }
}

type Register = Arc<dyn Fn(Arc<OperatorStats>) + Send + Sync>;

/// Starts the workers.
pub(crate) fn spawn(
    workers: usize,
    store: Arc<Store>,
    register: Register,
    report: Arc<dyn Fn(usize, Report) + Send + Sync>,
) -> Result<Workers> {
    let (started, threads) = crossbeam_channel::unbounded();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| crossbeam_channel::unbounded::<Command>()).unzip();
    let receivers = Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
    let config = timely::Config { communication: Communication::Process(workers), worker: WorkerConfig::default() };
    let guards = timely::execute(config, move |worker| {
        let index = worker.index();
        let Some(commands) = receivers.lock().get_mut(index).and_then(Option::take) else { return };
        let _ = started.send((index, std::thread::current()));
        let report = Arc::clone(&report);
        let report = move |r| report(index, r);
        Loop {
            lane: lane_of(index, worker.peers()),
            store: Arc::clone(&store),
            register: Arc::clone(&register),
            report: Box::new(report),
            jobs: BTreeMap::new(),
            open: VecDeque::new(),
            draining: None,
            traffic: Traffic::new(worker.peers()),
            pause: None,
            residency: Residency::default(),
        }
        .run(worker, &commands);
    })
    .map_err(|e| Error::internal(format!("cannot start the workers: {e}")))?;
    let mut threads = threads.iter().take(workers).collect::<Vec<_>>();
    threads.sort_by_key(|(index, _)| *index);
    let commands = senders.into_iter().zip(threads).map(|(sender, (_, thread))| (sender, thread)).collect();
    Ok(Workers { commands, guards: Some(Box::new(move || drop(guards.join()))) })
}

/// An epoch that this worker has not reported yet.
struct OpenEpoch {
    command: EpochCommand,
    /// How many of its active jobs are done here.
    done: usize,
}

/// A checkpoint whose state is sealed and on its way out.
struct Draining {
    epoch: Epoch,
    /// Jobs that still have some.
    jobs: Vec<JobId>,
    tables: Vec<FrozenTable>,
    /// What backfills had not read, and how much they had.
    unread: Vec<(JobId, Vec<Unread>, u64)>,
    /// The longest time at a stretch that the dataflow stood still for it.
    stall: Duration,
    /// When it went on.
    resumed: Instant,
}

/// Changed entries that are encoded between two looks at the clock: some tenths of a millisecond.
const DRAIN_ENTRIES: usize = 256;
/// Encoding goes on for this long before the dataflow is stepped again,
const DRAIN_TIME_MIN: Duration = Duration::from_millis(1);
/// or for longer after long steps, as a share of their time: one part in so many,
const DRAIN_SHARE: u32 = 16;
/// up to this.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(3);

struct Loop {
    /// What this worker's jobs add to relations that only grow follows the rows of this lane.
    lane: Vnode,
    store: Arc<Store>,
    register: Register,
    report: Box<dyn Fn(Report)>,
    jobs: BTreeMap<JobId, LocalJob>,
    open: VecDeque<OpenEpoch>,
    draining: Option<Draining>,
    traffic: Traffic,
    /// An unaligned checkpoint is being made.
    pause: Option<Pause>,
    residency: Residency,
}

impl Loop {
    fn run(&mut self, worker: &mut Worker, commands: &Receiver<Command>) {
        loop {
            // A checkpoint's state is sealed before any later command is taken.
            while !self.seal_waits() {
                // Dataflows of constants end by themselves; state that is being encoded must not wait for a command.
                let command = if worker.has_dataflows() || self.is_busy() {
                    commands.try_recv().ok()
                } else {
                    match commands.recv() {
                        Ok(command) => Some(command),
                        Err(_) => return,
                    }
                };
                match command {
                    Some(Command::Stop) => {
                        for (_, job) in std::mem::take(&mut self.jobs) {
                            job.drop_from(worker);
                        }
                        return;
                    }
                    Some(command) => self.command(worker, command),
                    None => break,
                }
                self.finish_epochs();
            }
            let park = if self.is_busy() { Duration::ZERO } else { Duration::from_millis(500) };
            worker.step_or_park(Some(park));
            self.look();
            self.finish_epochs();
            self.drain_slice();
            if self.draining.is_none() && self.residency.slice(&mut self.jobs) {
                self.report_evicted();
            }
        }
    }

    fn report_evicted(&mut self) {
        (self.report)(Report::Evicted { state_bytes: residency::total(&self.jobs) });
    }

    /// Whether there is something to do without any input.
    fn is_busy(&self) -> bool {
        self.draining.is_some() || self.pause.as_ref().is_some_and(|p| !p.is_still()) || self.residency.is_busy(&self.jobs)
    }

    fn seal_waits(&self) -> bool {
        self.open.iter().any(|o| o.command.checkpoint)
    }

    fn command(&mut self, worker: &mut Worker, command: Command) {
        match command {
            Command::CreateJob { spec, from, unread, stash, taps } => {
                self.set_tapped(&taps, true);
                let start = unread.as_deref().map_or(Start::Fresh(taps), |unread| Start::Restored(unread, &stash));
                self.build(worker, spec, from, start);
            }
            Command::DropJob(id) => {
                if let Some(job) = self.jobs.remove(&id) {
                    self.set_tapped(&job.taps, false);
                    self.drain_last(&job);
                    job.drop_from(worker);
                }
            }
            Command::Level(id) => {
                if let Some(job) = self.jobs.get(&id) {
                    job.set_level();
                }
            }
            Command::FeedTaps { job: id, view } => {
                if let Some(mut job) = self.jobs.remove(&id) {
                    job.feed_taps(&view, &self.jobs, (worker.index(), worker.peers()));
                    self.jobs.insert(id, job);
                }
            }
            Command::SwitchJob { job: id, old, spec, kept, from } => {
                let (Some(rest), old) = (self.jobs.remove(&id), self.jobs.remove(&old)) else { return };
                let nodes = LocalJob::merge(&spec.plan, &kept, &rest, old.as_ref());
                for job in old.into_iter().chain([rest]) {
                    self.drain_last(&job);
                    job.drop_from(worker);
                }
                self.build(worker, spec, from, Start::Moved(nodes));
            }
            Command::Epoch(command) => self.begin(command),
            Command::Seal(epoch) => {
                self.seal(epoch);
                let stash = self.jobs.values().flat_map(LocalJob::stash).collect();
                let failed = self.jobs.iter_mut().filter_map(|(id, job)| Some((*id, job.new_failure()?))).collect();
                (self.report)(Report::Sealed { epoch, stash, failed });
            }
            Command::Resume => self.resume(),
            Command::Warm { max } => self.residency.warm_up_to(max),
            Command::Evict { keep } => {
                if !self.residency.evict(&self.jobs, keep) {
                    self.report_evicted();
                }
            }
            Command::Stop => {}
        }
    }

    fn build(&mut self, worker: &mut Worker, spec: Arc<JobSpec>, from: Epoch, start: Start<'_>) {
        let register = Arc::clone(&self.register);
        let mut build = Build { worker, store: &self.store, traffic: &self.traffic, register: &move |s| register(s) };
        let fresh = matches!(start, Start::Fresh(..));
        let job = LocalJob::build(&mut build, Arc::clone(&spec), from, start);
        if !fresh {
            // Not all of its state need be in memory.
            self.residency.add(spec.id, job.table_bytes().count());
        }
        self.jobs.insert(spec.id, job);
    }

    fn set_tapped(&self, taps: &[Tap], on: bool) {
        for tap in taps {
            if let Some(job) = self.jobs.get(&tap.job) {
                job.set_tapped(tap.node, on);
            }
        }
    }

    /// Feeds the epoch's input; inputs that are other active jobs' views stay open until those are done.
    fn begin(&mut self, mut command: EpochCommand) {
        if let Some(BackfillOrders { view, rows_max }) = command.backfill.take() {
            for (id, rows_max) in rows_max {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.order(command.epoch, &view, rows_max);
                }
            }
        }
        for (id, lifetime) in std::mem::take(&mut command.lifetimes) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.tick(command.epoch, lifetime);
            }
        }
        for input in std::mem::take(&mut command.inputs) {
            if let Some(job) = self.jobs.get_mut(&input.job) {
                job.push(input.relation, command.epoch, &input.delta, input.columns.as_deref().map(Vec::as_slice));
            }
        }
        let produced = self.produced(&command.active);
        for id in command.active.iter() {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            let mut relations = job.imports.iter().map(|i| i.relation).collect::<Vec<_>>();
            relations.dedup();
            for relation in relations.into_iter().filter(|r| !produced.contains(r)) {
                job.finish_input(relation, command.epoch);
            }
        }
        if command.unaligned {
            self.pause = Some(Pause::new(command.epoch, &self.traffic));
        }
        self.open.push_back(OpenEpoch { command, done: 0 });
    }

    /// Tells the clock, while it is paused, when nothing is on its way within this worker.
    fn look(&mut self) {
        if let Some(pause) = &mut self.pause
            && let Some((sent, received)) = pause.look(&self.traffic)
        {
            (self.report)(Report::Quiet { epoch: pause.epoch, sent, received });
        }
    }

    fn resume(&mut self) {
        let paused = self.pause.take().map_or(Duration::ZERO, |p| p.since.elapsed());
        if let Some(draining) = &mut self.draining {
            draining.stall = draining.stall.max(paused);
        }
        self.traffic.pause(false);
        self.jobs.values().for_each(LocalJob::activate);
    }

    fn produced(&self, active: &[JobId]) -> Vec<RelationId> {
        let jobs = || active.iter().filter_map(|id| self.jobs.get(id));
        let tapped = jobs().flat_map(|j| &j.taps).filter(|t| active.contains(&t.job)).map(|t| t.relation);
        jobs().map(|j| j.spec.output.id).chain(tapped).collect()
    }

    /// Publishes what is complete, in order of epochs and, within one, of jobs.
    fn finish_epochs(&mut self) {
        if self.pause.is_some() {
            return;
        }
        while let Some(open) = self.open.front_mut() {
            let epoch = open.command.epoch;
            let active = Arc::clone(&open.command.active);
            let mut done = open.done;
            while let Some(id) = active.get(done) {
                let complete = self.jobs.get(id).is_none_or(|j| j.export.is_complete(epoch) || j.from > epoch);
                if !complete {
                    break;
                }
                self.publish(*id, epoch, &active);
                done += 1;
            }
            let Some(open) = self.open.front_mut() else { return };
            open.done = done;
            if done < active.len() {
                // Later epochs may be complete for the first jobs, but each job's epochs are published in order.
                return;
            }
            let checkpoint = open.command.checkpoint;
            self.open.pop_front();
            self.report_done(epoch, &active);
            if checkpoint {
                self.seal(epoch);
            }
        }
    }

    fn publish(&mut self, id: JobId, epoch: Epoch, active: &[JobId]) {
        let Some(job) = self.jobs.get(&id) else { return };
        let relation = job.spec.output.id;
        let mut deltas = job.export.take(epoch);
        if job.spec.output.appended && deltas.iter().any(Delta::deletes) {
            job.failure.set(Error::internal(format!("the query of {} has deleted rows, though it never does", job.spec.name)));
            deltas.clear();
        }
        for reader in active {
            if let Some(reader) = self.jobs.get_mut(reader)
                && reader.imports.iter().any(|i| i.relation == relation)
            {
                for delta in &deltas {
                    reader.push(relation, epoch, delta, None);
                }
                reader.finish_input(relation, epoch);
            }
        }
        if !deltas.is_empty() {
            self.store.publish_from(self.lane, relation, epoch, deltas);
        }
        self.publish_tapped(id, epoch, active);
    }

    /// Passes on what operators of a job gave in an epoch to those that tap them.
    fn publish_tapped(&mut self, id: JobId, epoch: Epoch, active: &[JobId]) {
        for reader in active {
            let taps = self.jobs.get(reader).map(|r| r.taps.clone()).unwrap_or_default();
            for tap in taps.iter().filter(|t| t.job == id) {
                let deltas = self.jobs.get(&id).map(|j| j.take_tapped(tap.node, epoch)).unwrap_or_default();
                let Some(reader) = self.jobs.get_mut(reader) else { continue };
                deltas.iter().for_each(|delta| reader.push(tap.relation, epoch, delta, None));
                reader.finish_input(tap.relation, epoch);
            }
        }
    }

    fn report_done(&mut self, epoch: Epoch, active: &[JobId]) {
        let (mut failed, mut backfill, mut will_expire) = (Vec::new(), Vec::new(), Vec::new());
        for id in active {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.measure();
            will_expire.extend(job.will_expire().map(|will| (*id, will)));
            failed.extend(job.new_failure().map(|error| (*id, error)));
            if job.backfilling {
                let (rows, done) = job.backfill_progress(epoch);
                job.backfilling = !done;
                backfill.push((*id, rows, done));
            }
        }
        (self.report)(Report::EpochDone { epoch, failed, backfill, will_expire, state_bytes: residency::total(&self.jobs) });
    }

    /// The state of all jobs as of this epoch's end is what the checkpoint gets.
    fn seal(&mut self, epoch: Epoch) {
        // The clock lets one checkpoint follow another; should it not, the older one is finished first.
        while self.draining.is_some() {
            self.drain_slice();
        }
        let started = Instant::now();
        self.residency.stop_evicting();
        self.jobs.values().for_each(LocalJob::seal);
        let jobs = self.jobs.keys().copied().collect();
        let unread = self.jobs.iter().map(|(id, job)| (*id, job.unread(), job.backfill_progress(epoch).0)).collect();
        self.draining = Some(Draining { epoch, jobs, tables: vec![], unread, stall: started.elapsed(), resumed: Instant::now() });
    }

    /// Encodes sealed changes for a while, and reports when that was the last of them.
    fn drain_slice(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        let started = Instant::now();
        let budget = (draining.resumed.elapsed() / DRAIN_SHARE).clamp(DRAIN_TIME_MIN, DRAIN_TIME_MAX);
        while let Some(id) = draining.jobs.last() {
            match self.jobs.get(id).and_then(|job| job.drain(DRAIN_ENTRIES)) {
                Some(table) => draining.tables.push(table),
                None => drop(draining.jobs.pop()),
            }
            if started.elapsed() >= budget {
                break;
            }
        }
        draining.resumed = Instant::now();
        draining.stall = draining.stall.max(started.elapsed());
        if draining.jobs.is_empty()
            && let Some(Draining { epoch, tables, unread, stall, .. }) = self.draining.take()
        {
            (self.report)(Report::Frozen { epoch, tables, unread, stall });
        }
    }

    /// A job that goes takes nothing with it that a checkpoint waits for.
    fn drain_last(&mut self, job: &LocalJob) {
        let Some(draining) = &mut self.draining else { return };
        if draining.jobs.contains(&job.spec.id) {
            draining.tables.extend(std::iter::from_fn(|| job.drain(DRAIN_ENTRIES)));
            draining.jobs.retain(|id| *id != job.spec.id);
        }
        if draining.jobs.is_empty() {
            self.drain_slice();
        }
    }
}
