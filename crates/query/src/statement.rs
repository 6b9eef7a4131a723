//! Queries, DML and what clients are told of statements before they run.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::{BoundQuery, Catalog, StatementKind, ast};
use millpond_state::ReadView;

use crate::block::Block;
use crate::dml::{self, DmlContext};
use crate::error::from_datafusion;
use crate::lookup::Lookup;
use crate::prepared::{PlanKey, Statement};
use crate::ready::Lent;
use crate::response::{Response, RowStream, client_schema, conform, parameter_values, row_stream, text_schema};
use crate::select::{check_readable, user_relations};
use crate::session::{Scope, Session};
use crate::{cursor, show};

impl Session {
    /// SELECT.
    pub(crate) async fn query(
        &mut self,
        statement: &Arc<Statement>,
        query: &ast::Query,
        parameters: &[ArrayRef],
        mut scope: Scope,
    ) -> Result<Response> {
        loop {
            let version = scope.version;
            let result = self.query_once(statement, query, parameters, &scope).await;
            scope.refresh();
            // A view that has just been replaced is read under its name the next time.
            if result.is_ok() || scope.version == version {
                return result;
            }
        }
    }

    async fn query_once(
        &mut self,
        statement: &Arc<Statement>,
        query: &ast::Query,
        parameters: &[ArrayRef],
        scope: &Scope,
    ) -> Result<Response> {
        let bound = bind_query(statement, query, &statement.parameters, scope)?;
        let schema = client_schema(&bound.columns, scope.zone);
        statement.check_columns(&schema)?;
        let key = plan_key(scope);
        if self.saved.is_none() && statement.wants_ready(&key) {
            let ready = self.runner(scope).ready(&bound, &schema, &self.database.store.read_view()).await?;
            statement.keep_ready(&key, ready);
            if let Some(response) = self.run_ready(statement, parameters).await? {
                return Ok(response);
            }
        }
        let (runner, plan, view) = self.prepare_query(bound, parameters, scope).await?;
        let rows = runner.stream(plan, &view).await?;
        Ok(Response::Rows { rows: row_stream(rows, Arc::clone(&schema), scope.limits.clone()), schema, tag: statement.tag.into() })
    }

    /// A prepared SELECT of a row by its key; `None` if the statement is another one, or has to be planned first.
    pub(crate) async fn look_up(&mut self, statement: &Statement, parameters: &[ArrayRef]) -> Result<Option<Response>> {
        let (catalog, version) = self.database.catalog();
        let key = || PlanKey { version, search_path: self.search_path(), zone: self.zone() };
        let Some(lookup) = statement.cached_lookup(key).filter(|_| self.saved.is_none()) else { return Ok(None) };
        let Some(keys) = lookup.keys(parameters).transpose()? else { return Ok(None) };
        match self.look_up_row(&lookup, &keys, &catalog).await {
            Ok(row) => Ok(Some(Response::batches(Arc::clone(&lookup.schema), vec![row], statement.tag))),
            // A view that has just been replaced.
            Err(_) if self.database.catalog().1 != version => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn look_up_row(&mut self, lookup: &Lookup, keys: &RecordBatch, catalog: &Catalog) -> Result<RecordBatch> {
        let relations = [lookup.relation];
        check_readable(&relations, catalog, &self.database.engine)?;
        let limits = self.limits();
        let view = self.view(true, &limits).await?;
        check_readable(&relations, catalog, &self.database.engine)?;
        lookup.rows(&view, keys)
    }

    /// A prepared query whose physical plan is kept; `None` if it has to be planned first.
    pub(crate) async fn run_ready(&mut self, statement: &Arc<Statement>, parameters: &[ArrayRef]) -> Result<Option<Response>> {
        let (catalog, version) = self.database.catalog();
        let key = || PlanKey { version, search_path: self.search_path(), zone: self.zone() };
        let Some(lent) = statement.lend(key, parameters).filter(|_| self.saved.is_none()) else { return Ok(None) };
        match self.execute_ready(lent, parameters, &catalog).await {
            Ok(found) => Ok(found.map(|(schema, rows)| Response::Rows { schema, rows, tag: statement.tag.into() })),
            // A view that has just been replaced.
            Err(_) if self.database.catalog().1 != version => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn execute_ready(&mut self, lent: Lent, parameters: &[ArrayRef], catalog: &Catalog) -> Result<Option<(SchemaRef, RowStream)>> {
        let Some(plan) = lent.plan() else { return Ok(None) };
        let (schema, relations) = (Arc::clone(&plan.schema), plan.relations());
        check_readable(&relations, catalog, &self.database.engine)?;
        let limits = self.limits();
        let view = self.view(!relations.is_empty(), &limits).await?;
        check_readable(&relations, catalog, &self.database.engine)?;
        if !plan.fits(&view) {
            lent.discard();
            return Ok(None);
        }
        let rows = lent.start(view, parameters, &self.task)?;
        Ok(Some((Arc::clone(&schema), row_stream(rows, schema, limits))))
    }

    /// A bound query with all that is needed to run it.
    pub(crate) async fn prepare_query(
        &mut self,
        bound: BoundQuery,
        parameters: &[ArrayRef],
        scope: &Scope,
    ) -> Result<(crate::select::Runner, LogicalPlan, ReadView)> {
        let plan = with_parameters(bound.plan, parameters)?;
        let relations = user_relations(&plan)?;
        match &self.saved {
            None => check_readable(&relations, &scope.catalog, &self.database.engine)?,
            Some(saved) => saved.check_readable(&relations)?,
        }
        let view = self.view(!relations.is_empty(), &scope.limits).await?;
        // A view that failed meanwhile may have left half an epoch in it.
        if self.saved.is_none() {
            check_readable(&relations, &scope.catalog, &self.database.engine)?;
        }
        Ok((self.runner(scope), plan, view))
    }

    /// INSERT, UPDATE, DELETE, TRUNCATE.
    pub(crate) async fn write(&mut self, kind: &StatementKind, parameters: &[ArrayRef], in_block: bool, scope: Scope) -> Result<Response> {
        let runner = self.runner(&scope);
        let planner = scope.planner();
        let run_query = |plan: LogicalPlan, view: ReadView| -> BoxFuture<'_, Result<(SchemaRef, Vec<RecordBatch>)>> {
            let runner = &runner;
            Box::pin(async move {
                let relations = user_relations(&plan)?;
                check_readable(&relations, &runner.catalog, &runner.snapshot.engine)?;
                runner.collect(plan, &view).await
            })
        };
        let context = DmlContext {
            catalog: &scope.catalog,
            planner: &planner,
            settings: &self.settings,
            limits: &scope.limits,
            run_query: &run_query,
        };
        let alone = self.block.is_none();
        let block = self.block.get_or_insert_with(|| Block::new(false, &self.settings));
        let result = dml::execute(&context, block.transaction(&self.database), kind, parameters).await;
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                if alone && let Some(block) = self.block.take() {
                    self.roll_back_block(block);
                }
                return Err(error);
            }
        };
        if alone
            && !in_block
            && let Some(block) = self.block.take()
        {
            self.commit_block(block).await?;
        }
        match result.returning {
            Some((schema, batches)) => {
                let schema = client_schema(&schema, self.zone());
                let batches = batches.iter().map(|b| conform(b, &schema)).collect::<Result<Vec<_>>>()?;
                // The number of rows is told when they have been sent.
                let tag = result.tag.rsplit_once(' ').map_or(result.tag.as_str(), |(tag, _)| tag);
                Ok(Response::batches(schema, batches, tag))
            }
            None => Ok(Response::command(result.tag)),
        }
    }

    /// The types of a statement's parameters, and its columns.
    pub(crate) fn describe(&mut self, statement: &Statement, types: &[Option<SqlType>]) -> Result<(Vec<SqlType>, Option<SchemaRef>)> {
        let Some(parsed) = &statement.parsed else { return Ok((vec![], None)) };
        let scope = self.scope();
        match &parsed.kind {
            StatementKind::Query(query) => {
                let bound = scope.planner().plan_query(query, types)?;
                statement.keep_plan(plan_key(&scope), &bound, &scope.catalog);
                Ok((bound.params, Some(client_schema(&bound.columns, scope.zone))))
            }
            kind @ (StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_)) => {
                let (parameters, columns) = dml::describe(&scope.planner(), &scope.catalog, kind, types)?;
                Ok((parameters, columns.map(|c| client_schema(&c, scope.zone))))
            }
            StatementKind::Explain { .. } | StatementKind::ExplainCreateMaterializedView(_) => {
                Ok((vec![], Some(text_schema(&["QUERY PLAN"]))))
            }
            StatementKind::DeclareCursor { query, .. } => Ok((scope.planner().plan_query(query, types)?.params, None)),
            StatementKind::Show(kind) => Ok((vec![], Some(show::columns(kind)?))),
            StatementKind::Fetch { name, skip: false, .. } => Ok((vec![], Some(cursor::find(&self.cursors, name)?.schema()))),
            StatementKind::Execute { name, .. } => Ok((vec![], self.named_statement(name)?.columns())),
            _ => Ok((vec![], None)),
        }
    }

    /// EXPLAIN of a query; with `analyze`, after running it.
    pub(crate) async fn explain(&mut self, analyze: bool, verbose: bool, kind: &StatementKind, scope: Scope) -> Result<Response> {
        let StatementKind::Query(query) = kind else {
            return Err(Error::unsupported(
                "EXPLAIN of this statement is not supported",
                "EXPLAIN takes a query or CREATE MATERIALIZED VIEW.",
            ));
        };
        let bound = scope.planner().plan_query(query, &[])?;
        if !bound.params.is_empty() {
            return Err(Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
        }
        let (runner, plan, view) = self.prepare_query(bound, &[], &scope).await?;
        let physical = runner.physical(plan, &view).await?;
        let text = if analyze {
            let rows = execute_stream(Arc::clone(&physical), Arc::clone(&runner.task)).map_err(from_datafusion)?;
            scope.limits.run(async { rows.try_collect::<Vec<_>>().await.map_err(from_datafusion) }).await?;
            DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(verbose).to_string()
        } else {
            DisplayableExecutionPlan::new(physical.as_ref()).indent(verbose).to_string()
        };
        Response::lines("QUERY PLAN", text.lines().map(str::to_string), "EXPLAIN")
    }
}

/// The bound plan: the one kept, if nothing has changed since.
fn bind_query(statement: &Statement, query: &ast::Query, parameters: &[SqlType], scope: &Scope) -> Result<BoundQuery> {
    let key = plan_key(scope);
    if let Some(plan) = statement.cached_plan(&key) {
        return Ok(plan);
    }
    if !query.locks.is_empty() {
        return Err(Error::unsupported(
            "SELECT … FOR UPDATE is not supported",
            "UPDATE and DELETE lock the rows that they change; or use REPEATABLE READ and retry on 40001.",
        ));
    }
    let types = parameters.iter().cloned().map(Some).collect::<Vec<_>>();
    let bound = scope.planner().plan_query(query, &types)?;
    if bound.params.len() > parameters.len() && !statement.bound {
        return Err(Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", parameters.len() + 1)));
    }
    statement.keep_plan(key, &bound, &scope.catalog);
    Ok(bound)
}

fn plan_key(scope: &Scope) -> PlanKey {
    PlanKey { version: scope.version, search_path: scope.search_path.clone(), zone: scope.zone }
}

fn with_parameters(plan: LogicalPlan, parameters: &[ArrayRef]) -> Result<LogicalPlan> {
    if parameters.is_empty() {
        return Ok(plan);
    }
    plan.with_param_values(parameter_values(parameters)?).map_err(from_datafusion)
}
