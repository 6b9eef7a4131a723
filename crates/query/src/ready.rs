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
use crate::response::parameter_values;
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
    /// The plan of a prepared query with these columns for all its executions; `None` if each has to be planned for itself.
    pub(crate) async fn ready(&self, query: &BoundQuery, schema: &SchemaRef, view: &ReadView) -> Result<Option<ReadyPlan>> {
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
        Ok(Some(ReadyPlan { plan, slot, parameters, relations, schema: Arc::clone(schema) }))
    }

    async fn open_ended(&self, query: &BoundQuery, view: &ReadView, slot: &Arc<Slot>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = with_types(query.plan.clone(), &query.params).map_err(from_datafusion)?;
        let plan = self.with_providers(plan, view, slot)?;
        let mut state = SessionState::clone(&self.state);
        // Operators that share filters could not be started anew, and no leaf of ours makes use of them.
        let options = &mut state.config_mut().options_mut().optimizer;
        options.enable_topk_dynamic_filter_pushdown = false;
        options.enable_join_dynamic_filter_pushdown = false;
        options.enable_aggregate_dynamic_filter_pushdown = false;
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
    let here = plan.name().starts_with("SortExec") || plan.dynamic_expressions_produced().is_empty();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fresh::with_session;
    use crate::prepared::PlanKey;
    use crate::{Response, Session};
    use arrow::array::StringArray;
    use arrow::util::display::array_value_to_string;

    const SETUP: [&str; 3] = [
        "CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT, v INT, d NUMERIC(10,2))",
        "INSERT INTO t SELECT i, 'g' || (i % 3), i % 7, i / 4.0 FROM generate_series(1, 40) AS g(i)",
        "CREATE MATERIALIZED VIEW s AS SELECT b, count(*) AS n FROM t GROUP BY b",
    ];

    /// A query, values of its parameters, and whether it is planned once.
    type Row = (&'static str, &'static [&'static [&'static str]], bool);

    const QUERIES: &[Row] = &[
        ("SELECT count(*) AS n, sum(v) AS v FROM t WHERE a < $1", &[&["5"], &["0"], &["NULL"], &["50"]], true),
        ("SELECT b FROM t WHERE a = $1 AND v > $2", &[&["5", "1"], &["5", "5"], &["NULL", "1"], &["700", "1"]], true),
        ("SELECT b, v FROM t WHERE a IN ($1, $2, 3)", &[&["1", "1"], &["NULL", "7"], &["3", "900"]], true),
        ("SELECT a FROM t WHERE a BETWEEN $1 AND $2", &[&["3", "6"], &["6", "3"], &["NULL", "6"]], true),
        ("SELECT a FROM t WHERE a > $1 AND a <= 7", &[&["3"], &["7"]], true),
        ("SELECT a FROM t ORDER BY v DESC, a LIMIT 3", &[&[], &[]], true),
        ("SELECT a FROM t ORDER BY a LIMIT $1", &[&["2"], &["0"], &["NULL"]], false),
        ("SELECT a FROM t ORDER BY a OFFSET $1", &[&["38"], &["1"]], false),
        ("SELECT $1::int + v, $2 || b FROM t WHERE a < 4", &[&["1", "x"], &["NULL", "y"], &["2", "NULL"], &["2147483647", "z"]], true),
        ("SELECT t.a, s.n FROM t JOIN s ON t.b = s.b WHERE s.n >= $1 AND t.a < 5", &[&["14"], &["1"]], true),
        ("SELECT t.a, s.n FROM t LEFT JOIN s ON t.b = s.b AND s.n > $1 WHERE t.a < 5", &[&["13"], &["100"], &["NULL"]], true),
        ("SELECT a FROM t WHERE v = (SELECT max(v) FROM t WHERE a < $1)", &[&["3"], &["0"], &["30"]], true),
        ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.b = t.b AND s.n > $1)", &[&["13"], &["14"]], true),
        ("SELECT b, sum(v + $1) FROM t GROUP BY b", &[&["1"], &["NULL"]], false),
        ("SELECT b, count(*) FROM t GROUP BY b HAVING count(*) > $1", &[&["13"], &["20"]], true),
        ("SELECT a FROM t WHERE b LIKE $1 AND a < 9", &[&["%1"], &["g_"], &["NULL"]], true),
        ("SELECT count(*) FROM t WHERE $1::int IS NULL OR v = $1", &[&["3"], &["NULL"]], true),
        ("SELECT a FROM t WHERE d > $1 AND d < 3", &[&["2.25"], &["2.5"], &["NULL"]], true),
        ("SELECT DISTINCT b FROM t WHERE a <> $1", &[&["1"], &["NULL"]], true),
        ("SELECT a FROM t WHERE a < $1 UNION ALL SELECT n FROM s WHERE n > $1", &[&["3"], &["13"]], true),
        ("SELECT a, row_number() OVER (ORDER BY v, a) FROM t WHERE a > $1", &[&["35"], &["1"]], true),
        ("SELECT a, lag(a, $1) OVER (ORDER BY a) FROM t WHERE a < 5", &[&["1"], &["2"]], false),
        ("SELECT 10 / $1::int FROM t WHERE a = 1", &[&["3"], &["0"], &["4"]], true),
        ("SELECT count(*) FROM t, s WHERE t.v > $1", &[&["3"], &["6"]], true),
        ("SELECT current_setting('application_name'), a FROM t WHERE a < $1", &[&["3"]], false),
        ("SELECT count(*) FROM pg_class WHERE relname = $1", &[&["t"], &["none"]], false),
        ("SELECT x FROM generate_series(1, 5) AS g(x) WHERE x > $1", &[&["3"]], false),
        ("SELECT $1::int", &[&["3"], &["NULL"]], true),
    ];

    /// What happens to the rows between executions, and what that does to the plans that are kept.
    const HISTORY: [&str; 13] = [
        "SELECT 1",
        "INSERT INTO t VALUES (1000, 'g1', 6, 2.3), (-5, 'new', NULL, NULL)",
        "DELETE FROM t WHERE a IN (3, 5)",
        "CHECKPOINT",
        "SET timezone = 'America/New_York'",
        "BEGIN",
        "UPDATE t SET v = v + 1 WHERE a < 8",
        "ROLLBACK",
        "CREATE OR REPLACE MATERIALIZED VIEW s AS SELECT b, count(*) + 1 AS n FROM t GROUP BY b",
        "INSERT INTO t SELECT i, 'g' || (i % 3), i % 7, i / 4.0 FROM generate_series(100000, 145000) AS g(i)",
        "DELETE FROM t WHERE a >= 100000",
        "CREATE SCHEMA first; SET search_path = first, public; CREATE TABLE first.t (a BIGINT PRIMARY KEY, b TEXT, v INT, d NUMERIC(10,2))",
        "INSERT INTO t VALUES (2, 'g1', 6, 2.3)",
    ];

    fn values(statement: &Statement, texts: &[&str]) -> Vec<ArrayRef> {
        let value = |(text, of): (&&str, &millpond_common::SqlType)| {
            let text = StringArray::from(vec![Some(*text).filter(|t| *t != "NULL")]);
            arrow::compute::cast(&text, &of.arrow()).unwrap()
        };
        texts.iter().zip(statement.parameters()).map(value).collect()
    }

    async fn drain(response: Result<Response>) -> Result<Vec<String>> {
        let mut lines = vec![];
        if let Response::Rows { mut rows, .. } = response? {
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let row = |i| batch.columns().iter().map(|c| array_value_to_string(c, i).unwrap()).collect::<Vec<_>>().join("|");
                lines.extend((0..batch.num_rows()).map(row));
            }
        }
        lines.sort();
        Ok(lines)
    }

    async fn execute(session: &mut Session, statement: &Arc<Statement>, parameters: Vec<ArrayRef>) -> String {
        let response = session.execute(statement, parameters, false).await;
        let lines = drain(response).await;
        let in_block = session.in_block();
        if !in_block {
            session.finish_implicit(lines.is_ok()).await.unwrap();
        }
        lines.map_or_else(|e| e.to_string(), |lines| lines.join(", "))
    }

    async fn run(session: &mut Session, sql: &str) {
        for statement in session.parse(sql).unwrap() {
            drain(session.execute(&statement, vec![], false).await).await.unwrap();
        }
        if !session.in_block() {
            session.finish_implicit(true).await.unwrap();
        }
    }

    fn on_a_database(test: impl AsyncFnOnce(&mut Session)) {
        with_session(async |session| {
            for sql in SETUP {
                run(session, sql).await;
            }
            test(session).await;
        });
    }

    /// Every query gives the same rows, or the same error, as when it is planned with its values.
    #[test]
    fn rows_are_those_of_a_new_plan() {
        on_a_database(async |session| {
            let mut queries = vec![];
            for (sql, parameters, kept) in QUERIES {
                let mut prepared = vec![];
                for _ in 0..2 {
                    prepared.push(session.prepare(sql, &[]).await.unwrap());
                }
                queries.push((*sql, prepared, *parameters, *kept));
            }
            for step in HISTORY {
                run(session, step).await;
                for (sql, prepared, parameters, kept) in &queries {
                    for texts in parameters.iter().chain(*parameters) {
                        let [once, anew] = prepared.as_slice() else { panic!("two statements") };
                        let key =
                            PlanKey { version: session.database.catalog().1, search_path: session.search_path(), zone: session.zone() };
                        anew.keep_ready(&key, None);
                        let values = values(once, texts);
                        if session.in_block() {
                            // An error would end the block.
                            run(session, "SAVEPOINT before").await;
                        }
                        let expected = execute(session, anew, values.clone()).await;
                        if session.in_block() {
                            run(session, "ROLLBACK TO before").await;
                        }
                        let found = execute(session, once, values).await;
                        if session.in_block() {
                            run(session, "ROLLBACK TO before").await;
                        }
                        assert_eq!(found, expected, "{sql} with {texts:?} after {step}");
                        assert_eq!(once.has_ready(), *kept, "{sql} after {step}");
                    }
                }
            }
        });
    }

    /// Portals of one statement may be read in turns.
    #[test]
    fn a_plan_is_lent_to_one_execution_at_a_time() {
        on_a_database(async |session| {
            let statement = session.prepare("SELECT a FROM t WHERE a <= $1", &[]).await.unwrap();
            let first = session.execute(&statement, values(&statement, &["2"]), true).await;
            assert!(!statement.has_ready(), "it is executed");
            run(session, "INSERT INTO t VALUES (0, 'x', 1, 1)").await;
            let second = session.execute(&statement, values(&statement, &["1"]), true).await;
            assert_eq!(drain(second).await.unwrap(), ["0", "1"]);
            assert!(!statement.has_ready());
            assert_eq!(drain(first).await.unwrap(), ["1", "2"], "the rows of its moment");
            assert!(statement.has_ready(), "it has come back");
            drop(session.execute(&statement, values(&statement, &["1"]), true).await);
            assert!(statement.has_ready(), "nobody reads the rows");
        });
    }
}
