//! Incremental relational operators: each a function of its state and of one epoch's input.
//!
//! What a row meets on its way:
//! - stateless, per chunk: [`filter`], [`project`], [`unnest`], [`union`]
//! - stateful, per epoch: [`join`], [`aggregate`], [`distinct`], [`top_n`]
//! - around one of those, where a view has a `state_ttl`: [`expiring`]
//! - where rows begin: [`values`] (scans are the driver's)
//!
//! Shared by them: [`expr`] (DataFusion's expressions, and its errors in PostgreSQL's terms), [`keys`] (rows as
//! bytes), [`output`] (batches that match a node's schema).
//!
//! The general law is *output accumulated = the operator applied to the input accumulated*, at every epoch. Each
//! stateful operator has a slow twin in `tests` that computes the right side.

pub mod aggregate;
pub mod distinct;
pub mod expiring;
pub mod expr;
pub mod filter;
pub mod join;
pub mod keys;
pub mod output;
pub mod project;
pub mod top_n;
pub mod union;
pub mod unnest;
pub mod values;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use millpond_common::{Delta, Epoch, Error, Result};
use millpond_plan::{JoinKind, Node, Operator as PlanOperator, StreamPlan};
use millpond_state::{RowForm, StateTable};

/// What an operator may know of the epoch in which it steps.
#[derive(Clone, Copy, Debug)]
pub struct EpochContext {
    /// The epoch's number; grows from step to step.
    pub epoch: Epoch,
    /// The first epoch of this job's life on this worker: what exists without input (the one row of a global
    /// aggregate) is emitted now. Never set again after a restart from a checkpoint.
    pub first: bool,
    /// This worker's number.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Where state expires: what time it is.
    pub lifetime: Option<expiring::Lifetime>,
}

/// One state table as the driver sees it: frozen at barriers, loaded at start.
pub type StateHandle = Rc<RefCell<dyn StateTable>>;

/// One incremental relational operator on one worker.
///
/// The driver guarantees that steps come in the order of epochs, that every row arrives on the worker that owns the
/// virtual node of its [`distribution`] columns, and that no step runs while a table is frozen or loaded. After an
/// error the operator is not stepped again.
pub trait Operator {
    /// Its state tables in a fixed order (the index is the table's identity across restarts), each with a short name.
    fn state(&self) -> Vec<(&'static str, StateHandle)>;

    /// Consumes one epoch: `inputs[port]` holds all deltas of the epoch at that port. Pushes the exact net change of
    /// the output, in batches of bounded size with the node's schema.
    fn step(&mut self, inputs: Vec<Vec<Delta>>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()>;

    /// Pushes all of its output so far, as its state, all of which is in memory, tells it; see [`tells_output`]. It is not used
    /// again afterwards.
    fn into_output(self: Box<Self>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()>;

    /// Forgets keys of an input from which nothing is ever deleted, as if all their rows had been, and pushes what that changes.
    fn expire(&mut self, _keys: &[Vec<u8>], _out: &mut Vec<Delta>) -> Result<()> {
        Err(Error::internal("an operator without keys is to forget some"))
    }

    /// Whether some of its state may expire without further input.
    fn will_expire(&self) -> bool {
        false
    }
}

/// An operator without memory; may be called per chunk, as soon as the chunk is there.
pub trait Stateless {
    /// Consumes one chunk and pushes what becomes of it.
    fn apply(&mut self, delta: Delta, out: &mut Vec<Delta>) -> Result<()>;
}

/// A node of a plan, ready to run on one worker.
pub enum Built {
    /// Runs per chunk.
    Stateless(Box<dyn Stateless>),
    /// Runs per epoch.
    Stateful(Box<dyn Operator>),
    /// All chunks of all inputs, each through [`union::conform`].
    Union,
    /// The driver's: changes of a relation.
    Scan,
    /// Rows that are there from the first epoch on; one worker emits them, once.
    Values(Delta),
}

/// Whether the state of the node at `at` tells all of its output. A join does not keep rows that come out alone because their key
/// is NULL.
pub fn tells_output(plan: &StreamPlan, at: usize) -> bool {
    let Some(node) = plan.nodes.get(at) else { return false };
    let PlanOperator::Join { kind, on, null_equals_null: false, .. } = &node.operator else { return true };
    let nullable = |port: usize| {
        let input = node.inputs.get(port).and_then(|i| plan.nodes.get(*i));
        let is_nullable = |column: usize| input.and_then(|n| n.schema.fields().get(column)).is_none_or(|f| f.is_nullable());
        on.iter().any(|(left, right)| is_nullable(if port == 0 { *left } else { *right }))
    };
    match kind {
        JoinKind::Inner | JoinKind::LeftSemi => true,
        JoinKind::Left | JoinKind::LeftAnti => !nullable(0),
        JoinKind::Right => !nullable(1),
        JoinKind::Full => !nullable(0) && !nullable(1),
    }
}

/// The columns of the input by which `port` of `node` must be distributed: rows equal in them reach the same worker.
/// `None`: any distribution will do; `Some` of nothing: all rows go to the owner of the one virtual node.
pub fn distribution(node: &Node, port: usize) -> Option<Vec<usize>> {
    match &node.operator {
        PlanOperator::Join { on, .. } => Some(on.iter().map(|(left, right)| if port == 0 { *left } else { *right }).collect()),
        PlanOperator::Aggregate { group, .. } => Some(group.clone()),
        // Its output's columns are its input's.
        PlanOperator::Distinct => Some((0..node.schema.fields().len()).collect()),
        PlanOperator::TopN { partition, .. } => Some(partition.clone()),
        PlanOperator::Scan { .. }
        | PlanOperator::Values { .. }
        | PlanOperator::Filter { .. }
        | PlanOperator::Project { .. }
        | PlanOperator::Unnest { .. }
        | PlanOperator::Union => None,
    }
}

/// Makes the node at `node` of `plan` ready to run. Fails if the plan asks for what no operator can do.
pub fn build(plan: &StreamPlan, node: usize) -> Result<Built> {
    let built = build_lasting(plan, node)?;
    match (built, plan.nodes.get(node)) {
        (Built::Stateful(inner), Some(this)) if !this.expires.is_empty() => {
            let inputs = this.inputs.iter().filter_map(|i| plan.nodes.get(*i)).collect::<Vec<_>>();
            Ok(Built::Stateful(Box::new(expiring::Expiring::new(inner, this, &inputs)?)))
        }
        (built, _) => Ok(built),
    }
}

/// The node's operator, whose state does not expire by itself.
fn build_lasting(plan: &StreamPlan, node: usize) -> Result<Built> {
    let this = plan.nodes.get(node).ok_or_else(|| Error::internal(format!("plan has no node {node}")))?;
    let input = |port: usize| -> Result<&Node> {
        let found = this.inputs.get(port).and_then(|i| plan.nodes.get(*i));
        found.ok_or_else(|| Error::internal(format!("node {node} has no input {port}")))
    };
    let schema = &this.schema;
    Ok(match &this.operator {
        PlanOperator::Scan { .. } => Built::Scan,
        PlanOperator::Union => Built::Union,
        PlanOperator::Values { ipc } => Built::Values(values::decode(ipc, schema)?),
        PlanOperator::Filter { predicate } => Built::Stateless(Box::new(filter::Filter::new(predicate, &input(0)?.schema, schema)?)),
        PlanOperator::Project { exprs } => Built::Stateless(Box::new(project::Project::new(exprs, &input(0)?.schema, schema)?)),
        PlanOperator::Unnest { columns } => Built::Stateless(Box::new(unnest::Unnest::new(columns, schema))),
        PlanOperator::Join { kind, on, null_equals_null, filter, numbered } => {
            let inputs = [&input(0)?.schema, &input(1)?.schema];
            let form = if *numbered { RowForm::Numbered } else { RowForm::Itself };
            Built::Stateful(Box::new(join::Join::new(*kind, on, *null_equals_null, filter.as_ref(), form, inputs, schema)?))
        }
        PlanOperator::Aggregate { group, calls } => {
            let input = input(0)?;
            let expires = !this.expires.is_empty();
            Built::Stateful(Box::new(aggregate::Aggregate::new(group, calls, &input.schema, input.append_only, expires, schema)?))
        }
        PlanOperator::Distinct => Built::Stateful(Box::new(distinct::Distinct::new(&input(0)?.schema, schema)?)),
        PlanOperator::TopN { partition, order, offset, limit, row_number } => {
            let input = input(0)?;
            let window = top_n::Window { offset: *offset, limit: *limit, row_number: *row_number };
            // Rows that expire make room for others.
            if input.append_only && this.expires.is_empty() && top_n::Best::fits(window) {
                return Ok(Built::Stateful(Box::new(top_n::Best::new(partition, order, window, &input.schema, schema)?)));
            }
            Built::Stateful(Box::new(top_n::TopN::new(partition, order, window, &input.schema, schema)?))
        }
    })
}
