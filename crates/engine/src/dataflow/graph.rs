//! How a job's dataflow is built from its stream plan: one node after the other, chains of stateless ones as one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use millpond_common::ids::{vnode_owner, vnodes_of};
use millpond_common::{Delta, Epoch, Error, Result, StateTableId};
use millpond_plan::{Operator as PlanOperator, StreamPlan};
use millpond_state::{ReadView, Unread};
use timely::container::NoopBuilder;
use timely::dataflow::operators::Input;
use timely::dataflow::{InputHandle, Scope};
use timely::scheduling::Activator;

use super::adapter::{self, ChunkStream, Failure, StatefulContext, Tapped};
use super::backfill::{self, Backfill, Target};
use super::chunk::{Chunk, constant_hash};
use super::import::Import;
use super::job::{LocalNode, Table};
use super::ticks::Lifetimes;
use super::unaligned::{self, Stash, Traffic};
use crate::job::{JobSpec, OperatorStats};
use crate::operators::{self, Built, Stateless};
use crate::stash::Stashed;

/// A dataflow that is being built.
pub(super) struct Graph<'a, 'scope> {
    pub spec: &'a Arc<JobSpec>,
    pub plan: &'a StreamPlan,
    pub scope: Scope<'scope, Epoch>,
    pub failure: Failure,
    pub index: usize,
    pub workers: usize,
    pub from: Epoch,
    pub unread: Option<&'a [Unread]>,
    pub view: &'a ReadView,
    pub stash: &'a [&'a Stashed],
    pub traffic: &'a Traffic,
    pub ticks: Option<(ChunkStream<'scope>, Lifetimes)>,
    pub register: &'a dyn Fn(Arc<OperatorStats>),
    pub imports: Vec<Import>,
    /// Operators that exist already.
    pub moved: BTreeMap<usize, LocalNode>,
    pub nodes: BTreeMap<usize, LocalNode>,
    /// Numbers for the tables of those that do not.
    pub tables: std::iter::Copied<std::slice::Iter<'a, StateTableId>>,
    /// Rows to be sent when all is built.
    pub constants: Vec<(InputHandle<Epoch, NoopBuilder<Chunk>>, Delta)>,
    pub waiting: Vec<(usize, Stash, Activator)>,
    pub streams: Vec<Option<ChunkStream<'scope>>>,
}

impl<'scope> Graph<'_, 'scope> {
    /// Builds node `at`, unless it is a stateless node that its only reader takes into its own chain.
    pub fn build(&mut self, at: usize) {
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

    pub fn empty(&self) -> ChunkStream<'scope> {
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
