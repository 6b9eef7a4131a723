//! Prepared queries that are planned once. A kept physical plan has open ends: its leaves read the view of each
//! execution, and its parameters have each execution's values ([`Slot`]). It serves one execution at a time; who comes
//! meanwhile plans for himself, as does every query whose plan depends on more than tables, views and constants.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, StreamExt};
use millpond_common::{RelationId, RelationSpec, Result};
use millpond_sql::{BoundQuery, RelationRef, RelationSource};
use millpond_state::ReadView;

use crate::error::from_datafusion;
use crate::execution::{Execution, Slot, with_slot, with_types};
use crate::prepared::Statement;
use crate::read::magnitude;
use crate::response::{client_schema, parameter_values};
use crate::select::{Runner, user_relations};

/// A physical plan for many executions.
pub(crate) struct ReadyPlan {
    plan: Arc<dyn ExecutionPlan>,
    slot: Arc<Slot>,
    parameters: Vec<DataType>,
    /// What it reads, and how large that was: a plan for few rows is not one for many.
    relations: Vec<(RelationSpec, u32)>,
    /// The columns that the client gets.
    pub schema: SchemaRef,
}

impl ReadyPlan {
    /// Whether it can be executed with these values.
    pub fn takes(&self, parameters: &[ArrayRef]) -> bool {
        self.parameters.len() == parameters.len()
            && self.parameters.iter().zip(parameters).all(|(wanted, given)| given.data_type() == wanted && given.len() == 1)
    }

    /// Whether it would be planned again in the same way.
    pub fn fits(&self, view: &ReadView) -> bool {
        self.relations.iter().all(|(spec, magnitude_then)| {
            let same = |now: RelationSpec| now.schema == spec.schema && now.key == spec.key;
            view.spec(spec.id).is_some_and(same) && magnitude(view.row_estimate(spec.id)) == *magnitude_then
        })
    }

    pub fn relations(&self) -> Vec<RelationId> {
        self.relations.iter().map(|(spec, _)| spec.id).collect()
    }

    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Runner {
    /// The plan of a prepared query for all its executions; `None` if each has to be planned for itself.
    pub(crate) async fn ready(&self, query: &BoundQuery, view: &ReadView) -> Result<Option<ReadyPlan>> {
        if !is_the_same_each_time(&query.plan, view) {
            return Ok(None);
        }
        let slot = Arc::new(Slot::default());
        let planned = async { Ok(self.open_ended(query, view, &slot).await) };
        // What cannot be planned like this is planned with its values, and fails then, or not.
        let Some(plan) = self.limits.run(planned).await?.ok().filter(starts_anew) else { return Ok(None) };
        let relations = user_relations(&query.plan)?.into_iter();
        let relations = relations.filter_map(|id| Some((view.spec(id)?, magnitude(view.row_estimate(id))))).collect();
        let parameters = query.params.iter().map(|p| p.arrow()).collect();
        Ok(Some(ReadyPlan { plan, slot, parameters, relations, schema: client_schema(&query.columns) }))
    }

    async fn open_ended(&self, query: &BoundQuery, view: &ReadView, slot: &Arc<Slot>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = with_types(query.plan.clone(), &query.params).map_err(from_datafusion)?;
        let plan = self.with_providers(plan, view, slot)?;
        let mut state = SessionState::clone(&self.state);
        // Operators that share filters could not be started anew, and no leaf of ours makes use of them.
        state.config_mut().options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        let plan = state.optimize(&plan).map_err(from_datafusion)?;
        let plan = with_slot(plan, slot).map_err(from_datafusion)?;
        state.query_planner().create_physical_plan(&plan, &state).await.map_err(from_datafusion)
    }
}

/// Whether a plan is the same at every execution but for rows and parameters: it reads tables and materialized views,
/// calls nothing that depends on the session or the time, and has no parameters where planners want constants.
fn is_the_same_each_time(plan: &LogicalPlan, view: &ReadView) -> bool {
    let mut same = true;
    let visited = plan.apply_with_subqueries(|node| {
        same &= match node {
            LogicalPlan::TableScan(scan) => match scan.source.downcast_ref() {
                Some(RelationSource { relation: RelationRef::User(id), .. }) => view.spec(*id).is_some(),
                _ => false,
            },
            LogicalPlan::RecursiveQuery(_) => false,
            _ => true,
        };
        let open = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::Join(_));
        node.apply_expressions(|root| {
            root.apply(|expr| {
                same &= match expr {
                    Expr::Placeholder(_) => open,
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::HigherOrderFunction(_) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.is_ok() && same
}

/// Whether all operators can be started anew. A sort with a limit has a filter of its own, and makes a new one.
fn starts_anew(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let here = plan.name() == "SortExec" || plan.dynamic_expressions_produced().is_empty();
    here && plan.children().into_iter().all(starts_anew)
}

/// A plan on loan from its statement, to which it returns.
pub(crate) struct Lent {
    statement: Arc<Statement>,
    plan: Option<ReadyPlan>,
}

impl Lent {
    pub fn new(statement: &Arc<Statement>, plan: ReadyPlan) -> Lent {
        Lent { statement: Arc::clone(statement), plan: Some(plan) }
    }

    pub fn plan(&self) -> Option<&ReadyPlan> {
        self.plan.as_ref()
    }

    /// It is not wanted any more: the statement gets a new one.
    pub fn discard(mut self) {
        if let Some(plan) = self.plan.take() {
            self.statement.forget_ready(&plan);
        }
    }

    /// Executes it.
    pub fn start(self, view: ReadView, parameters: &[ArrayRef], task: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(plan) = &self.plan else { return Err(millpond_common::Error::internal("a plan is used twice")) };
        plan.slot.fill(Execution { view, parameters: parameter_values(parameters)? });
        let fresh = reset_plan_states(Arc::clone(&plan.plan)).map_err(from_datafusion)?;
        let rows = execute_stream(fresh, Arc::clone(task)).map_err(from_datafusion)?;
        Ok(Box::pin(LentRows { schema: rows.schema(), rows: Some(rows), lent: Some(self) }))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(plan) = self.plan.take() {
            plan.slot.clear();
            self.statement.give_back(plan);
        }
    }
}

/// The rows of an execution. Its plan returns when they have been read, or are not wanted.
struct LentRows {
    schema: SchemaRef,
    rows: Option<SendableRecordBatchStream>,
    /// After the rows, which may look into its slot.
    lent: Option<Lent>,
}

impl Stream for LentRows {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let next = rows.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.rows = None;
            self.lent = None;
        }
        next
    }
}

impl RecordBatchStream for LentRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
