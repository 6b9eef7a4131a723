//! Queries: one [`ReadView`] for all relations, DataFusion over it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use millpond_common::{Error, RelationId, Result, SqlState};
use millpond_connect::FormatSpec;
use millpond_engine::{Engine, JobState};
use millpond_sql::{Catalog, RelationKind, RelationRef, RelationSource, SourceDef};
use millpond_state::ReadView;

use crate::aggregates;
use crate::cancel::Limits;
use crate::database::Database;
use crate::error::{from_datafusion, to_datafusion};
use crate::execution::Slot;
use crate::read::RelationProvider;
use crate::saved::savepoint_of;
use crate::source_scan::SourceProvider;
use crate::system::{self, SystemSnapshot};

/// What runs queries of one statement.
pub struct Runner {
    /// The catalog that the plans were bound with.
    pub catalog: Arc<Catalog>,
    /// What system relations show.
    pub snapshot: SystemSnapshot,
    /// DataFusion's configuration, functions, rules and memory.
    pub state: Arc<SessionState>,
    /// The same for plans that are ready to run.
    pub task: Arc<TaskContext>,
    /// What ends the statement early.
    pub limits: Limits,
    /// What `now()` gives: the transaction's start.
    pub now: chrono::DateTime<chrono::Utc>,
    /// Where savepoints are found.
    pub database: Arc<Database>,
}

impl Runner {
    /// The physical plan of a bound plan whose parameters have their values.
    pub async fn physical(&self, plan: LogicalPlan, view: &ReadView) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.with_providers(plan, view, &Slot::of(view.clone()))?;
        let mut state = SessionState::clone(&self.state);
        state.execution_props_mut().query_execution_start_time = Some(self.now);
        self.limits.run(async { state.create_physical_plan(&plan).await.map_err(from_datafusion) }).await
    }

    /// Starts a query.
    pub async fn stream(&self, plan: LogicalPlan, view: &ReadView) -> Result<SendableRecordBatchStream> {
        let physical = self.physical(plan, view).await?;
        execute_stream(physical, Arc::clone(&self.task)).map_err(from_datafusion)
    }

    /// Runs a query to its end.
    pub async fn collect(&self, plan: LogicalPlan, view: &ReadView) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let stream = self.stream(plan, view).await?;
        let schema = stream.schema();
        let batches = self.limits.run(async { stream.try_collect().await.map_err(from_datafusion) }).await?;
        Ok((schema, batches))
    }

    /// The plan with providers of rows in the place of names, planned for a view; they read what the slot has when they are executed.
    pub(crate) fn with_providers(&self, plan: LogicalPlan, view: &ReadView, slot: &Arc<Slot>) -> Result<LogicalPlan> {
        let peek = is_peek(&plan);
        let swapped = aggregates::exact(plan).map_err(from_datafusion)?.transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let provider = self.provider(&source.relation, &source.schema, (view, slot), peek).map_err(to_datafusion)?;
                scan.source = provider_as_source(provider);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(swapped.map_err(from_datafusion)?.data)
    }

    fn provider(
        &self,
        relation: &RelationRef,
        schema: &SchemaRef,
        (view, slot): (&ReadView, &Arc<Slot>),
        peek: bool,
    ) -> Result<Arc<dyn TableProvider>> {
        let id = match relation {
            RelationRef::User(id) => *id,
            RelationRef::Saved(database, id) => {
                let gone = || Error::new(SqlState::UNDEFINED_OBJECT, format!("savepoint \"{database}\" is gone"));
                let saved = self.database.saved(savepoint_of(database).ok_or_else(gone)?)?;
                saved.check_readable(&[*id])?;
                let relation = saved.catalog.get(*id).ok_or_else(gone)?;
                let spec = saved.view.spec(*id).ok_or_else(gone)?;
                let (rows, slot) = (saved.view.row_estimate(*id), Slot::of(saved.view.clone()));
                return Ok(Arc::new(RelationProvider::new(relation.name.clone(), spec, Arc::clone(schema), rows, slot)));
            }
            RelationRef::System(schema, name) => {
                return system::provider(schema, name, &self.snapshot)
                    .ok_or_else(|| Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{schema}.{name}\" does not exist")));
            }
        };
        let gone = || Error::new(SqlState::UNDEFINED_TABLE, "a relation of this statement was dropped meanwhile");
        let relation = self.catalog.get(id).ok_or_else(gone)?;
        if let RelationKind::Source(def) = &relation.kind {
            let format = format_of(def)?;
            let (name, options) = (relation.name.clone(), def.options.clone());
            return Ok(Arc::new(SourceProvider::new(name, options, format, Arc::clone(schema), peek)));
        }
        let spec = view.spec(id).ok_or_else(gone)?;
        Ok(Arc::new(RelationProvider::new(relation.name.clone(), spec, Arc::clone(schema), view.row_estimate(id), Arc::clone(slot))))
    }
}

/// The format of a source's definition, in the connectors' terms.
pub fn format_of(def: &SourceDef) -> Result<FormatSpec> {
    match &def.format {
        Some(format) => FormatSpec::new(&format.format, &format.encode, &format.options),
        None => Ok(FormatSpec::default()),
    }
}

/// Whether a query ends after some rows of the one relation that it reads, even if that has no end.
fn is_peek(plan: &LogicalPlan) -> bool {
    let mut limited = false;
    let mut next = plan;
    loop {
        next = match next {
            LogicalPlan::Limit(limit) => {
                limited |= limit.fetch.is_some();
                &limit.input
            }
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(_) => return limited,
            _ => return false,
        };
    }
}

/// The relations of users that a plan reads, each once.
pub fn user_relations(plan: &LogicalPlan) -> Result<Vec<RelationId>> {
    let mut found = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(RelationSource { relation: RelationRef::User(id), .. }) = scan.source.downcast_ref()
            && !found.contains(id)
        {
            found.push(*id);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(from_datafusion)?;
    Ok(found)
}

/// Fails if one of these views has no rows to show yet, or no more.
pub fn check_readable(relations: &[RelationId], catalog: &Catalog, engine: &Engine) -> Result<()> {
    for view in relations.iter().filter_map(|id| catalog.get(*id)) {
        let Some(job) = view.job() else { continue };
        match engine.job_state(job) {
            Some(JobState::Running) => {}
            Some(JobState::Failed(error)) => {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("materialized view \"{}\" has failed", view.name),
                )
                .with_detail(error.to_string())
                .with_hint(
                    "Its last rows are not shown, as they would be out of date. Correct its input, then ALTER MATERIALIZED VIEW … RESTART fills it anew.",
                ));
            }
            Some(JobState::Restarting(error)) => {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("materialized view \"{}\" is being restarted", view.name),
                )
                .with_detail(error.to_string())
                .with_hint("SHOW JOBS says when it is tried again."));
            }
            Some(JobState::Backfilling) | None => {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("materialized view \"{}\" is still being filled", view.name),
                )
                .with_hint("SELECT * FROM millpond.progress shows how far it is."));
            }
        }
    }
    Ok(())
}
