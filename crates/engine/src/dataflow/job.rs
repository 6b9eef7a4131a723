//! A job at work on one worker.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_common::ids::vnodes_of;
use millpond_common::{Delta, Epoch, Error, JobId, RelationId, StateTableId};
use millpond_plan::{Kept, StreamPlan};
use millpond_state::{Evicted, FrozenTable, ReadView, Store, TableLookup, TableStats, Unread};
use timely::scheduling::Activator;
use timely::worker::Worker;

use super::adapter::{self, Export, Failure, SharedOperator, Tapped};
use super::backfill::{Backfill, Order};
use super::chunk::Chunk;
use super::graph::Graph;
use super::import::{Fill, Import};
use super::stored;
use super::ticks::Ticks;
use super::unaligned::{Stash, Traffic};
use crate::job::{JobSpec, OperatorStats};
use crate::messages::Tap;
use crate::operators::expiring::Lifetime;
use crate::operators::{EpochContext, StateHandle};
use crate::stash::{Place, Stashed};

/// A job on this worker.
pub(super) struct LocalJob {
    pub spec: Arc<JobSpec>,
    pub from: Epoch,
    pub imports: Vec<Import>,
    pub export: Export,
    pub failure: Failure,
    /// Whether the failure has been reported.
    failure_told: bool,
    /// Whether it has not reported yet that it has all rows that its inputs already held.
    pub backfilling: bool,
    /// Its imports that read what operators of other jobs give.
    pub taps: Vec<Tap>,
    /// By node of the plan.
    nodes: BTreeMap<usize, LocalNode>,
    /// By stateful node: what it has not worked on, and what wakes it.
    waiting: Vec<(usize, Stash, Activator)>,
    /// Where state expires.
    ticks: Option<Ticks>,
    /// What its state takes in memory, as of the last measurement.
    pub state_bytes: u64,
    dataflow: usize,
}

/// A stateful operator at work.
#[derive(Clone)]
pub(super) struct LocalNode {
    pub operator: SharedOperator,
    pub tables: Vec<Table>,
    pub tapped: Tapped,
    pub stats: Arc<OperatorStats>,
}

/// A state table of one of the job's operators.
#[derive(Clone)]
pub(super) struct Table {
    pub id: StateTableId,
    pub handle: StateHandle,
}

/// From where a job begins.
pub(super) enum Start<'a> {
    /// Without state: it reads everything that its inputs hold.
    Fresh(Vec<Tap>),
    /// From its state in the store, with this yet to be read by its scans, and this waiting in it.
    Restored(&'a [Unread], &'a [Stashed]),
    /// From these operators as they are.
    Moved(BTreeMap<usize, LocalNode>),
}

/// What building needs.
pub(super) struct Build<'a> {
    pub worker: &'a mut Worker,
    pub store: &'a Arc<Store>,
    pub traffic: &'a Traffic,
    pub register: &'a dyn Fn(Arc<OperatorStats>),
}

impl LocalJob {
    pub fn build(build: &mut Build<'_>, spec: Arc<JobSpec>, from: Epoch, start: Start<'_>) -> LocalJob {
        let (unread, moves, moved, taps, stash) = match start {
            Start::Fresh(taps) => (None, false, BTreeMap::new(), taps, &[][..]),
            Start::Restored(unread, stash) => (Some(unread), false, BTreeMap::new(), Vec::new(), stash),
            Start::Moved(nodes) => (Some(&[][..]), true, nodes, Vec::new(), &[][..]),
        };
        let (index, workers) = (build.worker.index(), build.worker.peers());
        let dataflow = build.worker.next_dataflow_index();
        let failure = Failure::default();
        let register = build.register;
        let plan = &spec.plan;
        let view = build.store.read_view();
        let stash = stash.iter().filter(|s| s.job == spec.id).collect::<Vec<_>>();
        let traffic = build.traffic;
        let (mut imports, (nodes, waiting), constants, ticks, export) = build.worker.dataflow_named::<Epoch, _, _>(&spec.name, |scope| {
            let ticks = plan.expires().then(|| Ticks::new(scope, from));
            let mut graph = Graph {
                spec: &spec,
                plan,
                scope,
                failure: failure.clone(),
                index,
                workers,
                from,
                unread,
                view: &view,
                stash: &stash,
                traffic,
                ticks: ticks.as_ref().map(|(ticks, stream)| (stream.clone(), ticks.lifetimes.clone())),
                register,
                imports: Vec::new(),
                moved,
                nodes: BTreeMap::new(),
                tables: spec.state_tables.iter().copied(),
                constants: Vec::new(),
                waiting: Vec::new(),
                streams: vec![None; plan.nodes.len()],
            };
            // Nodes are built in order, so that state tables are numbered alike on every worker and after a restart.
            for at in 0..plan.nodes.len() {
                graph.build(at);
            }
            let root = graph.streams.pop().flatten().unwrap_or_else(|| graph.empty());
            let export = adapter::export(scope, root, format!("export {}", spec.name), traffic);
            (graph.imports, (graph.nodes, graph.waiting), graph.constants, ticks.map(|(ticks, _)| ticks), export)
        });
        // Sent earlier, they would have no reader yet.
        for (mut handle, delta) in constants {
            handle.send_batch(&mut Chunk(delta));
        }
        let vnodes = vnodes_of(index, workers);
        for import in imports.iter_mut().filter(|i| taps.iter().any(|t| t.relation == i.relation)) {
            import.fill = Some(Fill::default());
        }
        for table in nodes.values().flat_map(|n| &n.tables).filter(|_| !moves) {
            let lookup = TableLookup::new(build.store, table.id, vnodes.clone());
            table.handle.borrow_mut().attach(Rc::new(lookup), unread.is_some());
        }
        let outputs = stash.iter().filter(|s| s.place == Place::Output).enumerate();
        outputs.filter(|(at, _)| at % workers == index).for_each(|(_, s)| export.put(s.epoch.max(from), s.delta.clone()));
        LocalJob {
            spec,
            from,
            imports,
            export,
            failure,
            failure_told: false,
            backfilling: !moves,
            taps,
            nodes,
            waiting,
            ticks,
            state_bytes: 0,
            dataflow,
        }
    }

    /// Its failure, when that is asked for the first time.
    pub fn new_failure(&mut self) -> Option<Error> {
        let error = self.failure.get().filter(|_| !self.failure_told)?;
        self.failure_told = true;
        Some(error)
    }

    pub fn drop_from(self, worker: &mut Worker) {
        worker.drop_dataflow(self.dataflow);
    }

    /// What changed in its state since the last call is to be drained.
    pub fn seal(&self) {
        self.tables().for_each(|table| table.handle.borrow_mut().seal());
    }

    /// Some of the sealed changes; `None`: there are no more.
    pub fn drain(&self, max: usize) -> Option<FrozenTable> {
        let drain = |table: &Table| {
            let entries = table.handle.borrow_mut().drain(max)?;
            Some(FrozenTable { table: table.id, entries })
        };
        self.tables().find_map(drain)
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.nodes.values().flat_map(|n| &n.tables)
    }

    /// Whether what a node gives is kept for other jobs, from the next epoch on.
    pub fn set_tapped(&self, node: usize, on: bool) {
        if let Some(node) = self.nodes.get(&node) {
            node.tapped.replace(on.then(BTreeMap::new));
        }
    }

    /// What a tapped node gave in an epoch.
    pub fn take_tapped(&self, node: usize, epoch: Epoch) -> Vec<Delta> {
        let taken = self.nodes.get(&node).and_then(|n| n.tapped.borrow_mut().as_mut()?.remove(&epoch));
        taken.unwrap_or_default()
    }

    /// The operators that it taps have given, until it began, what the checkpoint before `view` tells.
    pub fn feed_taps(&mut self, view: &ReadView, jobs: &BTreeMap<JobId, LocalJob>, (index, workers): (usize, usize)) {
        let context = EpochContext { epoch: self.from, first: false, worker: index, workers, lifetime: None };
        for tap in &self.taps {
            let Some(job) = jobs.get(&tap.job) else { continue };
            let tables: Vec<_> = job.nodes.get(&tap.node).map(|n| n.tables.iter().map(|t| t.id).collect()).unwrap_or_default();
            for fill in self.imports.iter_mut().filter(|i| i.relation == tap.relation).filter_map(|i| i.fill.as_mut()) {
                let vnodes = vnodes_of(index, workers);
                fill.rows = Some(stored::output(Arc::clone(&job.spec), tap.node, tables.clone(), view.clone(), context, vnodes));
            }
        }
    }

    /// The operators of a new plan, each with its state: kept ones come from `old`, the others from the job of the rest.
    pub fn merge(plan: &StreamPlan, kept: &Kept, rest: &LocalJob, old: Option<&LocalJob>) -> BTreeMap<usize, LocalNode> {
        let places = plan.rest(kept).places;
        let node = |at: usize| match kept.get(at).copied().flatten() {
            Some(place) => old?.nodes.get(&place),
            None => rest.nodes.get(&places.iter().position(|p| *p == at)?),
        };
        (0..plan.nodes.len()).filter_map(|at| Some((at, node(at)?.clone()))).collect()
    }

    /// Brings the figures of its state up to date.
    pub fn measure(&mut self) {
        self.state_bytes = 0;
        for node in self.nodes.values() {
            let sizes = node.tables.iter().map(|t| t.handle.borrow().stats());
            let all = sizes.fold(TableStats::default(), |a, b| TableStats { rows: a.rows + b.rows, bytes: a.bytes + b.bytes });
            self.state_bytes += all.bytes;
            node.stats.state_rows.store(all.rows, Ordering::Relaxed);
            node.stats.state_bytes.store(all.bytes, Ordering::Relaxed);
        }
    }

    /// What each of its tables takes in memory.
    pub fn table_bytes(&self) -> impl Iterator<Item = u64> {
        self.tables().map(|t| t.handle.borrow().stats().bytes)
    }

    /// Lets entries of one of its tables leave memory.
    pub fn evict(&self, table: usize, visits: usize) -> Option<Evicted> {
        self.tables().nth(table).map(|t| t.handle.borrow_mut().evict(visits))
    }

    /// Reads more of one of its tables. Returns whether there is nothing more to be read.
    pub fn warm(&self, table: usize, max: usize) -> bool {
        let Some(table) = self.tables().nth(table) else { return true };
        let mut done = true;
        self.failure.guard(|| {
            done = table.handle.borrow_mut().warm(max)?;
            Ok(())
        });
        done
    }

    /// An epoch begins, at this time.
    pub fn tick(&mut self, epoch: Epoch, lifetime: Lifetime) {
        let open = self.export.open();
        if let Some(Err(error)) = self.ticks.as_mut().map(|ticks| ticks.tick(epoch, lifetime, open)) {
            self.failure.set(error);
        }
    }

    /// Whether some of its state may expire; `None`: such state does not exist.
    pub fn will_expire(&self) -> Option<bool> {
        self.ticks.as_ref().map(|_| self.nodes.values().any(|n| n.operator.borrow().will_expire()))
    }

    /// Takes live rows of a relation.
    pub fn push(&mut self, relation: RelationId, epoch: Epoch, delta: &Delta, columns: Option<&[usize]>) {
        let LocalJob { imports, failure, .. } = self;
        failure.guard(|| imports.iter_mut().filter(|i| i.relation == relation).try_for_each(|i| i.push(epoch, delta, columns)));
    }

    /// No more rows of this relation in this epoch.
    pub fn finish_input(&mut self, relation: RelationId, epoch: Epoch) {
        for import in self.imports.iter_mut().filter(|i| i.relation == relation) {
            if let Err(error) = import.finish_epoch(epoch) {
                self.failure.set(error);
            }
        }
    }

    fn backfills(&self) -> impl Iterator<Item = &Backfill> {
        self.imports.iter().filter_map(|i| i.backfill.as_ref())
    }

    /// Its scans read so many rows from this view, in an epoch whose input is still to come.
    pub fn order(&mut self, epoch: Epoch, view: &ReadView, rows_max: usize) {
        self.imports.iter_mut().filter_map(|i| i.fill.as_mut()).for_each(|fill| fill.rows_max = rows_max);
        let open = self.backfills().filter(|b| !b.is_over()).collect::<Vec<_>>();
        for backfill in &open {
            backfill.order(epoch, Order { view: view.clone(), rows_max: rows_max.div_ceil(open.len()) });
        }
    }

    /// Rows read by backfills, and whether all are in when `epoch` is complete.
    pub fn backfill_progress(&self, epoch: Epoch) -> (u64, bool) {
        let fills = || self.imports.iter().filter_map(|i| i.fill.as_ref());
        let rows = self.backfills().map(Backfill::rows).sum::<u64>() + fills().map(|f| f.read).sum::<u64>();
        let ended = fills().all(|f| f.ended.is_some_and(|e| e <= epoch));
        (rows, ended && self.backfills().all(|b| b.has_ended(epoch)))
    }

    /// What its scans have not read yet, by scan.
    pub fn unread(&self) -> Vec<Unread> {
        self.imports.iter().map(|i| i.backfill.as_ref().map(Backfill::unread).unwrap_or_default()).collect()
    }

    /// What waits in it.
    pub fn stash(&self) -> Vec<Stashed> {
        let job = self.spec.id;
        let mut all = Vec::new();
        for (node, stash, _) in &self.waiting {
            for (epoch, ports) in stash.borrow().iter() {
                for (port, delta) in ports.iter().enumerate().flat_map(|(port, deltas)| deltas.iter().map(move |d| (port, d))) {
                    let place = Place::Port { node: *node as u32, port: port as u32 };
                    all.push(Stashed { job, place, epoch: *epoch, delta: delta.clone() });
                }
            }
        }
        all.extend(self.export.waiting().into_iter().map(|(epoch, delta)| Stashed { job, place: Place::Output, epoch, delta }));
        all
    }

    /// Its operators may have something to do.
    pub fn activate(&self) {
        self.waiting.iter().for_each(|(_, _, activator)| activator.activate());
    }

    /// All workers have read all.
    pub fn set_level(&self) {
        self.backfills().for_each(Backfill::set_level);
    }
}
