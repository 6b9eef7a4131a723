//! A job's dataflow on one worker, built from its stream plan.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_schema::SchemaRef;
use millpond_common::ids::{vnode_owner, vnodes_of};
use millpond_common::{Delta, Epoch, Error, JobId, RelationId, Result, StateTableId};
use millpond_plan::{Kept, Operator as PlanOperator, StreamPlan};
use millpond_state::{Evicted, FrozenTable, ReadView, Store, TableLookup, TableStats, Unread};
use timely::container::NoopBuilder;
use timely::dataflow::operators::Input;
use timely::dataflow::{InputHandle, Scope};
use timely::scheduling::Activator;
use timely::worker::Worker;

use super::adapter::{self, ChunkStream, Export, Failure, SharedOperator, StatefulContext, Tapped};
use super::backfill::{self, Backfill, Order, Target};
use super::chunk::{Chunk, constant_hash};
use super::import::{Fill, Import};
use super::stored;
use super::ticks::{Lifetimes, Ticks};
use super::unaligned::{self, Stash, Traffic};
use crate::job::{JobSpec, OperatorStats};
use crate::messages::Tap;
use crate::operators::expiring::Lifetime;
use crate::operators::{self, Built, EpochContext, StateHandle, Stateless};
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
    operator: SharedOperator,
    tables: Vec<Table>,
    tapped: Tapped,
    stats: Arc<OperatorStats>,
}

/// A state table of one of the job's operators.
#[derive(Clone)]
struct Table {
    id: StateTableId,
    handle: StateHandle,
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

struct Graph<'a, 'scope> {
    spec: &'a Arc<JobSpec>,
    plan: &'a StreamPlan,
    scope: Scope<'scope, Epoch>,
    failure: Failure,
    index: usize,
    workers: usize,
    from: Epoch,
    unread: Option<&'a [Unread]>,
    view: &'a ReadView,
    stash: &'a [&'a Stashed],
    traffic: &'a Traffic,
    ticks: Option<(ChunkStream<'scope>, Lifetimes)>,
    register: &'a dyn Fn(Arc<OperatorStats>),
    imports: Vec<Import>,
    /// Operators that exist already.
    moved: BTreeMap<usize, LocalNode>,
    nodes: BTreeMap<usize, LocalNode>,
    /// Numbers for the tables of those that do not.
    tables: std::iter::Copied<std::slice::Iter<'a, StateTableId>>,
    /// Rows to be sent when all is built.
    constants: Vec<(InputHandle<Epoch, NoopBuilder<Chunk>>, Delta)>,
    waiting: Vec<(usize, Stash, Activator)>,
    streams: Vec<Option<ChunkStream<'scope>>>,
}

impl<'scope> Graph<'_, 'scope> {
    /// Builds node `at`, unless it is a stateless node that its only reader takes into its own chain.
    fn build(&mut self, at: usize) {
        let Some(node) = self.plan.nodes.get(at) else { return };
        let stream = match operators::build(self.plan, at) {
            Ok(Built::Scan) => self.scan(at),
            Ok(Built::Values(delta)) => self.values(delta),
            Ok(Built::Union) => {
                let inputs = node.inputs.clone().into_iter().map(|i| self.take(i)).collect();
                adapter::union(self.scope, inputs, SchemaRef::clone(&node.schema), self.failure.clone(), self.stats(at), self.traffic)
            }
            Ok(Built::Stateless(operator)) => {
                if self.is_fused(at) {
                    return;
                }
                self.chain(at, operator)
            }
            Ok(Built::Stateful(operator)) => {
                let stats = self.stats(at);
                let local = match self.moved.remove(&at) {
                    Some(moved) => LocalNode { tapped: Tapped::default(), stats, ..moved },
                    None => {
                        let tables = operator.state().into_iter().map(|(_, handle)| {
                            let missing = || Error::internal("a job has fewer state tables than its operators need");
                            Ok(Table { id: self.tables.next().ok_or_else(missing)?, handle })
                        });
                        let tables = tables.collect::<Result<Vec<_>>>().unwrap_or_else(|error| {
                            self.failure.set(error);
                            Vec::new()
                        });
                        LocalNode { operator: Rc::new(RefCell::new(operator)), tables, tapped: Tapped::default(), stats }
                    }
                };
                self.nodes.insert(at, local.clone());
                let inputs = node.inputs.clone().into_iter().enumerate();
                let inputs = inputs.map(|(port, i)| (self.take(i), operators::distribution(node, port))).collect::<Vec<_>>();
                let routes = inputs.iter().map(|(_, route)| route.clone()).collect::<Vec<_>>();
                let stash = unaligned::restore(self.stash, at, &routes, self.from, (self.index, self.workers));
                let context = StatefulContext {
                    failure: self.failure.clone(),
                    stats: local.stats,
                    tapped: local.tapped,
                    worker: self.index,
                    workers: self.workers,
                    from: self.from,
                    fresh: self.unread.is_none(),
                    traffic: self.traffic.clone(),
                    stash: Rc::clone(&stash),
                };
                let ticks = self.ticks.clone().filter(|_| !node.expires.is_empty());
                let (stream, activator) = adapter::stateful(self.scope, inputs, local.operator, ticks, context);
                self.waiting.push((at, stash, activator));
                stream
            }
            Err(error) => {
                self.failure.set(error);
                self.empty()
            }
        };
        if let Some(slot) = self.streams.get_mut(at) {
            *slot = Some(stream);
        }
    }

    fn readers(&self, at: usize) -> usize {
        self.plan.nodes.iter().flat_map(|n| &n.inputs).filter(|i| **i == at).count()
    }

    fn is_stateless(&self, at: usize) -> bool {
        let operator = self.plan.nodes.get(at).map(|n| &n.operator);
        matches!(operator, Some(PlanOperator::Filter { .. } | PlanOperator::Project { .. } | PlanOperator::Unnest { .. }))
    }

    /// Whether the only reader of stateless node `at` is itself stateless.
    fn is_fused(&self, at: usize) -> bool {
        let reader = self.plan.nodes.iter().position(|n| n.inputs.contains(&at));
        self.readers(at) == 1 && reader.is_some_and(|r| self.is_stateless(r))
    }

    /// Stateless node `at` together with the fused ones below it.
    fn chain(&mut self, at: usize, operator: Box<dyn Stateless>) -> ChunkStream<'scope> {
        let mut chain = vec![operator];
        let mut bottom = at;
        while let Some(input) = self.plan.nodes.get(bottom).and_then(|n| n.inputs.first().copied()) {
            bottom = input;
            if !(self.is_stateless(input) && self.is_fused(input)) {
                break;
            }
            match operators::build(self.plan, input) {
                Ok(Built::Stateless(operator)) => chain.push(operator),
                Ok(_) => break,
                Err(error) => self.failure.set(error),
            }
        }
        chain.reverse();
        let input = self.take(bottom);
        adapter::stateless(self.scope, input, chain, self.failure.clone(), self.stats(at), self.traffic)
    }

    fn scan(&mut self, at: usize) -> ChunkStream<'scope> {
        let Some(node) = self.plan.nodes.get(at) else { return self.empty() };
        let PlanOperator::Scan { relation, projection } = &node.operator else { return self.empty() };
        let (mut handle, stream) = self.scope.new_input_with_builder::<NoopBuilder<Chunk>>();
        handle.advance_to(self.from);
        let (stats, projection, schema) = (self.stats(at), projection.clone(), SchemaRef::clone(&node.schema));
        let mut import = Import { relation: *relation, projection, schema, handle, stats, backfill: None, fill: None };
        let unread = self.unread.map(|list| list.get(self.imports.len()).cloned().unwrap_or_default());
        let stream = match self.view.spec(*relation).filter(|_| unread.as_ref().is_none_or(|u| !u.is_empty())) {
            None => stream,
            Some(spec) => {
                let backfill = Backfill::new(backfill::share(unread.as_ref(), &vnodes_of(self.index, self.workers)));
                let target = Target { spec, projection: import.projection.clone(), schema: SchemaRef::clone(&import.schema) };
                let place = (self.from, self.index, self.workers);
                let about = (self.failure.clone(), Arc::clone(&import.stats), self.traffic.clone());
                let stream = backfill::backfill(self.scope, stream, target, &backfill, place, about);
                import.backfill = Some(backfill);
                stream
            }
        };
        self.imports.push(import);
        stream
    }

    /// Constant rows, given once in the life of a job, by the worker that owns them.
    fn values(&mut self, delta: Delta) -> ChunkStream<'scope> {
        let (mut handle, stream): (InputHandle<Epoch, NoopBuilder<Chunk>>, _) = self.scope.new_input_with_builder();
        handle.advance_to(self.from);
        let owner = vnode_owner(millpond_common::hash::vnode(constant_hash()), self.workers);
        if self.unread.is_none() && owner == self.index && !delta.is_empty() {
            self.constants.push((handle, delta));
        }
        stream
    }

    fn empty(&self) -> ChunkStream<'scope> {
        let (handle, stream): (InputHandle<Epoch, NoopBuilder<Chunk>>, _) = self.scope.new_input_with_builder();
        handle.close();
        stream
    }

    /// The stream of node `at`, for one more reader.
    fn take(&mut self, at: usize) -> ChunkStream<'scope> {
        let several = self.readers(at) > 1;
        let stream = self.streams.get_mut(at).and_then(|s| if several { s.clone() } else { s.take() });
        stream.unwrap_or_else(|| {
            self.failure.set(Error::internal("a stream plan is not in topological order"));
            self.empty()
        })
    }

    fn stats(&self, at: usize) -> Arc<OperatorStats> {
        let node = self.plan.nodes.get(at);
        let name = node.map(|n| self.plan.describe(n)).unwrap_or_default();
        let scan = node.is_some_and(|n| matches!(n.operator, PlanOperator::Scan { .. }));
        let stats = OperatorStats::new(self.spec.id, at, name, self.index, scan);
        (self.register)(Arc::clone(&stats));
        stats
    }
}

/// How many state tables each node of a plan needs.
pub(crate) fn state_table_counts(plan: &StreamPlan) -> Result<Vec<usize>> {
    let count = |at: usize| match operators::build(plan, at)? {
        Built::Stateful(operator) => Ok(operator.state().len()),
        _ => Ok(0),
    };
    (0..plan.nodes.len()).map(count).collect()
}
