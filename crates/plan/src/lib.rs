//! The stream plan: a plain, serialisable graph of operators. `sql` makes it, `engine` runs it; it is all
//! that the two know of each other. It is stored with its job, so that a newer planner never disturbs a
//! running view.
//!
//! Conventions that keep operators simple:
//! - Expressions stand in [`Operator::Filter`], [`Operator::Project`] and a join's residual filter only; everything
//!   else names columns of its input by position (the planner puts a projection below where needed).
//! - Nodes are in topological order: a node's inputs have smaller positions than the node.
//! - Output types of every node are explicit in its schema.

mod display;
mod expire;
mod expr;
mod fingerprint;
mod replace;
mod share;

use arrow_schema::SchemaRef;
use millpond_common::RelationId;
use serde::{Deserialize, Serialize};

pub use expr::{PlanExpr, with_functions};
pub use replace::{Kept, Rest};

/// The plan of one materialized view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamPlan {
    /// In topological order; the last one is the root, whose output is the view.
    pub nodes: Vec<Node>,
    /// Columns of the root that are unique in the result, if the planner knows some (never empty:
    /// a one-row result has `None`).
    pub key: Option<Vec<usize>>,
    /// Whether the result only ever grows.
    pub append_only: bool,
}

/// An operator with its inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What it does.
    pub operator: Operator,
    /// Positions of its inputs in [`StreamPlan::nodes`], by port.
    pub inputs: Vec<usize>,
    /// Its output's columns.
    pub schema: SchemaRef,
    /// Whether its output only ever has positive weights.
    pub append_only: bool,
    /// The ports of which it forgets what no change has touched for the view's `state_ttl`, as if that had been deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expires: Vec<usize>,
}

/// What a node does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operator {
    /// The changes of a table, source or view. Its output has `projection`'s columns, in that order.
    Scan {
        /// Whose changes.
        relation: RelationId,
        /// Which of its columns.
        projection: Vec<usize>,
    },
    /// Constant rows (encoded as Arrow IPC), there from the start.
    Values {
        /// One Arrow IPC stream.
        ipc: Vec<u8>,
    },
    /// Rows for which the predicate is true.
    Filter {
        /// A boolean expression over the input's columns.
        predicate: PlanExpr,
    },
    /// One output column per expression.
    Project {
        /// Over the input's columns; as many as the schema has.
        exprs: Vec<PlanExpr>,
    },
    /// One row per element of the list columns (PostgreSQL's `unnest` in a select list: several lists run in
    /// parallel and shorter ones are padded with NULL; a row whose lists are all empty or NULL gives none).
    Unnest {
        /// Positions of list columns; they become their elements in place.
        columns: Vec<usize>,
    },
    /// All rows of all inputs.
    Union,
    /// Rows of both inputs that belong together.
    Join {
        /// Which rows come out. Output columns: left then right, for semi and anti the left ones only.
        kind: JoinKind,
        /// Equal columns, left and right (none: every pair, on one worker). Same type on both sides.
        on: Vec<(usize, usize)>,
        /// Whether NULL equals NULL in `on`.
        null_equals_null: bool,
        /// A further condition over left columns followed by right columns.
        filter: Option<PlanExpr>,
        /// Whether rows are stored under numbers. In plans made before that was possible they are stored under themselves.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        numbered: bool,
    },
    /// One row per group: the group columns, then one column per call. Without group columns there is always
    /// exactly one row.
    Aggregate {
        /// Columns of the input.
        group: Vec<usize>,
        /// What is computed.
        calls: Vec<AggregateCall>,
    },
    /// Each row once.
    Distinct,
    /// The first rows by `order` in each partition. Rows equal in `order` follow the order of all their columns.
    TopN {
        /// Columns of the input; none: one partition on one worker.
        partition: Vec<usize>,
        /// Most significant first.
        order: Vec<SortKey>,
        /// How many rows are skipped.
        offset: u64,
        /// How many rows remain; `None`: all after the offset.
        limit: Option<u64>,
        /// Whether the output has one more column at the end, the row's number from 1 (Int64 or UInt64 as the schema says).
        row_number: bool,
    },
}

impl Operator {
    /// Whether it remembers something of its input.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Operator::Join { .. } | Operator::Aggregate { .. } | Operator::Distinct | Operator::TopN { .. })
    }
}

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // SQL's names
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    LeftSemi,
    LeftAnti,
}

/// One column of a sort order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Position in the input.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULLs before all others.
    pub nulls_first: bool,
}

/// One aggregate of an [`Operator::Aggregate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateCall {
    /// What is computed.
    pub function: AggregateFunction,
    /// Its argument's column; `None` for `count(*)`.
    pub argument: Option<usize>,
    /// Over distinct arguments only.
    pub distinct: bool,
    /// A boolean column: only rows where it is true count.
    pub filter: Option<usize>,
}

/// The aggregates with an incremental form. The output type is the node's schema's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// Rows, or non-null arguments.
    Count,
    /// Sum of non-null arguments; NULL if there are none. Overflow of the output type is an error.
    Sum,
    /// Mean of non-null arguments.
    Avg,
    /// Least non-null argument.
    Min,
    /// Greatest non-null argument.
    Max,
}

impl StreamPlan {
    /// The root: its output is the view.
    pub fn root(&self) -> Option<&Node> {
        self.nodes.last()
    }

    /// The relations that it reads, each once, in order of first use.
    pub fn relations(&self) -> Vec<RelationId> {
        let mut found = Vec::new();
        for node in &self.nodes {
            if let Operator::Scan { relation, .. } = &node.operator
                && !found.contains(relation)
            {
                found.push(*relation);
            }
        }
        found
    }
}
