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
use millpond_state::{Evicted, FrozenTable, ReadView, Store, TableLookup, TableStats};
use timely::container::NoopBuilder;
use timely::dataflow::operators::Input;
use timely::dataflow::{InputHandle, Scope};
use timely::worker::Worker;

use super::adapter::{self, ChunkStream, Export, Failure, SharedOperator, StatefulContext, Tapped};
use super::chunk::{Chunk, constant_hash};
use super::import::Import;
use super::stored;
use crate::job::{JobSpec, OperatorStats};
use crate::messages::Tap;
use crate::operators::{self, Built, EpochContext, StateHandle, Stateless};

/// A job on this worker.
pub(super) struct LocalJob {
    pub spec: Arc<JobSpec>,
    pub from: Epoch,
    pub imports: Vec<Import>,
    pub export: Export,
    pub failure: Failure,
    /// Whether the failure has been reported.
    pub failure_told: bool,
    /// Rows read by backfills that have ended.
    pub backfilled: u64,
    /// The epoch that took the last of them.
    backfill_end: Epoch,
    /// Whether it has not reported yet that it has all rows that its inputs already held.
    pub backfilling: bool,
    /// Its imports that read what operators of other jobs give.
    pub taps: Vec<Tap>,
    /// By node of the plan.
    nodes: BTreeMap<usize, LocalNode>,
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
    /// From nothing: it reads what its inputs hold in this view first.
    Fresh(&'a ReadView, Vec<Tap>),
    /// From its state in the store.
    Restored,
    /// From these operators as they are.
    Moved(BTreeMap<usize, LocalNode>),
}

/// What building needs.
pub(super) struct Build<'a> {
    pub worker: &'a mut Worker,
    pub store: &'a Arc<Store>,
    pub register: &'a dyn Fn(Arc<OperatorStats>),
}

impl LocalJob {
    pub fn build(build: &mut Build<'_>, spec: Arc<JobSpec>, from: Epoch, start: Start<'_>) -> LocalJob {
        let (index, workers) = (build.worker.index(), build.worker.peers());
        let dataflow = build.worker.next_dataflow_index();
        let failure = Failure::default();
        let register = build.register;
        let plan = &spec.plan;
        let (fresh, moves) = (matches!(start, Start::Fresh(..)), matches!(start, Start::Moved(_)));
        let (restored, moved, backfill, taps) = match start {
            Start::Fresh(view, taps) => (false, BTreeMap::new(), Some(view), taps),
            Start::Restored => (true, BTreeMap::new(), None, Vec::new()),
            Start::Moved(nodes) => (false, nodes, None, Vec::new()),
        };
        let (mut imports, nodes, export) = build.worker.dataflow_named::<Epoch, _, _>(&spec.name, |scope| {
            let mut graph = Graph {
                spec: &spec,
                plan,
                scope,
                failure: failure.clone(),
                index,
                workers,
                from,
                fresh,
                register,
                imports: Vec::new(),
                moved,
                nodes: BTreeMap::new(),
                tables: spec.state_tables.iter().copied(),
                streams: vec![None; plan.nodes.len()],
            };
            // Nodes are built in order, so that state tables are numbered alike on every worker and after a restart.
            for at in 0..plan.nodes.len() {
                graph.build(at);
            }
            let root = graph.streams.pop().flatten().unwrap_or_else(|| graph.empty());
            let export = adapter::export(scope, root, format!("export {}", spec.name));
            (graph.imports, graph.nodes, export)
        });
        let vnodes = vnodes_of(index, workers);
        failure.guard(|| {
            if let Some(view) = backfill {
                for import in imports.iter_mut().filter(|i| view.spec(i.relation).is_some()) {
                    import.start_backfill(view, vnodes.clone())?;
                }
            }
            for import in imports.iter_mut().filter(|i| taps.iter().any(|t| t.relation == i.relation)) {
                import.await_backfill();
            }
            Ok(())
        });
        for table in nodes.values().flat_map(|n| &n.tables).filter(|_| !moves) {
            let lookup = TableLookup::new(build.store, table.id, vnodes.clone());
            table.handle.borrow_mut().attach(Rc::new(lookup), restored);
        }
        LocalJob {
            spec,
            from,
            imports,
            export,
            failure,
            failure_told: false,
            backfilled: 0,
            backfill_end: 0,
            backfilling: !moves,
            taps,
            nodes,
            state_bytes: 0,
            dataflow,
        }
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
        let context = EpochContext { epoch: self.from, first: false, worker: index, workers };
        for tap in &self.taps {
            let Some(job) = jobs.get(&tap.job) else { continue };
            let tables = job.nodes.get(&tap.node).map(|n| n.tables.iter().map(|t| t.id).collect()).unwrap_or_default();
            for import in self.imports.iter_mut().filter(|i| i.relation == tap.relation) {
                let rows =
                    stored::output(Arc::clone(&job.spec), tap.node, Vec::clone(&tables), view.clone(), context, vnodes_of(index, workers));
                import.feed_backfill(rows);
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

    /// Takes live rows of a relation.
    pub fn push(&mut self, relation: RelationId, epoch: Epoch, delta: &Delta, columns: Option<&[usize]>) {
        let LocalJob { imports, failure, .. } = self;
        failure.guard(|| imports.iter_mut().filter(|i| i.relation == relation).try_for_each(|i| i.push(epoch, delta, columns)));
    }

    /// No more rows of this relation in this epoch.
    pub fn finish_input(&mut self, relation: RelationId, epoch: Epoch, backfill_rows: usize) {
        for import in self.imports.iter_mut().filter(|i| i.relation == relation) {
            match import.finish_epoch(epoch, backfill_rows) {
                Ok(Some(rows)) => {
                    self.backfilled += rows;
                    self.backfill_end = epoch;
                }
                Ok(None) => {}
                Err(error) => self.failure.set(error),
            }
        }
    }

    /// Rows read by backfills, and whether all are in when `epoch` is complete: a later one may be on its way already.
    pub fn backfill_progress(&self, epoch: Epoch) -> (u64, bool) {
        let open = self.imports.iter().filter_map(Import::backfill_progress).collect::<Vec<_>>();
        (self.backfilled + open.iter().sum::<u64>(), open.is_empty() && self.backfill_end <= epoch)
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
    fresh: bool,
    register: &'a dyn Fn(Arc<OperatorStats>),
    imports: Vec<Import>,
    /// Operators that exist already.
    moved: BTreeMap<usize, LocalNode>,
    nodes: BTreeMap<usize, LocalNode>,
    /// Numbers for the tables of those that do not.
    tables: std::iter::Copied<std::slice::Iter<'a, StateTableId>>,
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
                adapter::union(self.scope, inputs, SchemaRef::clone(&node.schema), self.failure.clone(), self.stats(at))
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
                let inputs = inputs.map(|(port, i)| (self.take(i), operators::distribution(node, port))).collect();
                let context = StatefulContext {
                    failure: self.failure.clone(),
                    stats: local.stats,
                    tapped: local.tapped,
                    worker: self.index,
                    workers: self.workers,
                    from: self.from,
                    fresh: self.fresh,
                };
                adapter::stateful(self.scope, inputs, local.operator, context)
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
        adapter::stateless(self.scope, input, chain, self.failure.clone(), self.stats(at))
    }

    fn scan(&mut self, at: usize) -> ChunkStream<'scope> {
        let Some(node) = self.plan.nodes.get(at) else { return self.empty() };
        let PlanOperator::Scan { relation, projection } = &node.operator else { return self.empty() };
        let (mut handle, stream) = self.scope.new_input_with_builder::<NoopBuilder<Chunk>>();
        handle.advance_to(self.from);
        let stats = self.stats(at);
        self.imports.push(Import::new(*relation, projection.clone(), SchemaRef::clone(&node.schema), handle, stats));
        stream
    }

    /// Constant rows, given once in the life of a job, by the worker that owns them.
    fn values(&mut self, delta: Delta) -> ChunkStream<'scope> {
        let (mut handle, stream): (InputHandle<Epoch, NoopBuilder<Chunk>>, _) = self.scope.new_input_with_builder();
        handle.advance_to(self.from);
        let owner = vnode_owner(millpond_common::hash::vnode(constant_hash()), self.workers);
        if self.fresh && owner == self.index && !delta.is_empty() {
            handle.send_batch(&mut Chunk(delta));
        }
        handle.close();
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
