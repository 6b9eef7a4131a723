//! What a session keeps by name: cursors and SQL-level prepared statements.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use futures::StreamExt;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::StatementKind;
use millpond_sql::statement::{DiscardKind, FetchCount};

use crate::error::{from_datafusion, not_in_block, only_in_block};
use crate::prepared::Statement;
use crate::response::{Response, RowStream, client_schema, row_stream};
use crate::session::{Scope, Session};

/// How many cursors, and how many prepared statements, a session may hold.
const NAMES_MAX: usize = 10_000;

/// An open query of which rows are fetched.
pub(crate) struct Cursor {
    schema: SchemaRef,
    /// Ends with `None`, once and for all.
    rows: Option<RowStream>,
    /// What was read and not fetched yet.
    rest: Option<RecordBatch>,
    /// Outlives its transaction.
    pub hold: bool,
}

impl Cursor {
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows, at most `count`.
    async fn fetch(&mut self, count: FetchCount) -> Result<Vec<RecordBatch>> {
        let mut left = match count {
            FetchCount::Rows(n) => usize::try_from(n).unwrap_or(usize::MAX),
            FetchCount::All => usize::MAX,
        };
        let mut fetched = Vec::new();
        while left > 0 {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None => {
                    let Some(rows) = &mut self.rows else { break };
                    match rows.next().await {
                        Some(batch) => batch?,
                        None => {
                            self.rows = None;
                            break;
                        }
                    }
                }
            };
            let rows = batch.num_rows().min(left);
            if rows < batch.num_rows() {
                self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
            }
            left -= rows;
            fetched.push(batch.slice(0, rows));
        }
        Ok(fetched)
    }
}

/// The cursor of this name.
pub(crate) fn find<'a>(cursors: &'a HashMap<String, Cursor>, name: &str) -> Result<&'a Cursor> {
    cursors.get(name).ok_or_else(|| no_cursor(name))
}

fn no_cursor(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

fn too_many(what: &str) -> Error {
    Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, format!("a session may hold at most {NAMES_MAX} {what}"))
}

impl Session {
    /// Statements about what has a name in the session.
    pub(crate) async fn named(&mut self, kind: &StatementKind, parameters: &[ArrayRef], in_block: bool, scope: Scope) -> Result<Response> {
        match kind {
            StatementKind::Prepare { name, types, statement } => {
                let types = types.iter().map(|t| millpond_sql::types::sql_type(t).map(Some)).collect::<Result<Vec<_>>>()?;
                let bound = self.bind(Some(millpond_sql::Statement::clone(statement)), &types)?;
                self.name(name.clone(), bound)?;
                Ok(Response::command("PREPARE"))
            }
            StatementKind::Execute { name, arguments } => {
                let statement = self.named_statement(name)?;
                if arguments.len() != statement.parameters().len() {
                    let message = format!("wrong number of parameters for prepared statement \"{name}\"");
                    let detail = format!("Expected {} parameters but got {}.", statement.parameters().len(), arguments.len());
                    return Err(Error::new(SqlState::SYNTAX_ERROR, message).with_detail(detail));
                }
                let values = arguments.iter().zip(statement.parameters()).map(|(e, t)| self.constant(e, t, &scope));
                let values = values.collect::<Result<Vec<_>>>()?;
                self.execute(&statement, values, in_block).await
            }
            StatementKind::Deallocate(name) => {
                match name {
                    Some(name) => drop(self.prepared.remove(name).ok_or_else(|| no_statement(name))?),
                    None => self.prepared.clear(),
                }
                Ok(Response::command(if name.is_none() { "DEALLOCATE ALL" } else { "DEALLOCATE" }))
            }
            StatementKind::DeclareCursor { name, hold, query } => {
                if !self.in_block() && !hold {
                    return Err(only_in_block("DECLARE CURSOR"));
                }
                if self.cursors.contains_key(name) {
                    return Err(Error::new(SqlState::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
                }
                if self.cursors.len() >= NAMES_MAX {
                    return Err(too_many("cursors"));
                }
                // Text may stand for uuid, json and others; what the query asks for decides.
                let type_of = |p: &ArrayRef| SqlType::of(&Field::new("parameter", p.data_type().clone(), true));
                let types = parameters.iter().map(|p| Some(type_of(p)).filter(|t| *t != SqlType::Text)).collect::<Vec<_>>();
                let bound = scope.planner().plan_query(query, &types)?;
                if bound.params.len() > parameters.len() {
                    return Err(Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", parameters.len() + 1)));
                }
                let schema = client_schema(&bound.columns, scope.zone);
                let (runner, plan, view) = self.prepare_query(bound, parameters, &scope).await?;
                let rows = runner.stream(plan, &view).await?;
                // The time limit is of each FETCH, not of the cursor's life.
                let limits = crate::cancel::Limits { deadline: None, ..scope.limits };
                let rows = row_stream(rows, Arc::clone(&schema), limits);
                self.cursors.insert(name.clone(), Cursor { schema, rows: Some(rows), rest: None, hold: *hold });
                Ok(Response::command("DECLARE CURSOR"))
            }
            StatementKind::Fetch { name, count, skip } => {
                let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
                let batches = scope.limits.run(cursor.fetch(*count)).await?;
                match skip {
                    true => Ok(Response::command(format!("MOVE {}", batches.iter().map(RecordBatch::num_rows).sum::<usize>()))),
                    false => Ok(Response::batches(cursor.schema(), batches, "FETCH")),
                }
            }
            StatementKind::Close(name) => {
                match name {
                    Some(name) => drop(self.cursors.remove(name).ok_or_else(|| no_cursor(name))?),
                    None => self.cursors.clear(),
                }
                Ok(Response::command(if name.is_none() { "CLOSE CURSOR ALL" } else { "CLOSE CURSOR" }))
            }
            StatementKind::Discard(what) => self.discard(*what),
            _ => Err(Error::internal("not a statement about a name")),
        }
    }

    /// The statement that a name stands for: of PREPARE, or of the protocol's Parse.
    pub fn statement_named(&self, name: &str) -> Option<Arc<Statement>> {
        self.prepared.get(name).cloned()
    }

    /// Gives a prepared statement a name.
    pub fn name(&mut self, name: String, statement: Arc<Statement>) -> Result<()> {
        if self.prepared.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message));
        }
        if self.prepared.len() >= NAMES_MAX {
            return Err(too_many("prepared statements"));
        }
        self.prepared.insert(name, statement);
        Ok(())
    }

    /// A name stands for nothing any more, if it did.
    pub fn forget(&mut self, name: &str) {
        self.prepared.remove(name);
    }

    fn discard(&mut self, what: DiscardKind) -> Result<Response> {
        match what {
            DiscardKind::All => {
                if self.in_block() {
                    return Err(not_in_block("DISCARD ALL"));
                }
                self.prepared.clear();
                self.cursors.clear();
                self.reset_settings()?;
                Ok(Response::command("DISCARD ALL"))
            }
            DiscardKind::Plans => Ok(Response::command("DISCARD PLANS")),
            DiscardKind::Sequences => Ok(Response::command("DISCARD SEQUENCES")),
            DiscardKind::Temp => Ok(Response::command("DISCARD TEMP")),
        }
    }

    pub(crate) fn named_statement(&self, name: &str) -> Result<Arc<Statement>> {
        self.statement_named(name).ok_or_else(|| no_statement(name))
    }

    /// The value of a constant expression, as an array of one row.
    fn constant(&self, expr: &millpond_sql::ast::Expr, target: &SqlType, scope: &Scope) -> Result<ArrayRef> {
        let nothing = Schema::empty();
        let expr = scope.planner().plan_expr(expr, &nothing, None, &[], Some(target))?;
        let runner = self.runner(scope);
        let physical = runner.state.create_physical_expr(expr, &DFSchema::empty()).map_err(from_datafusion)?;
        let physical = millpond_sql::checked_arithmetic(physical);
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(nothing), vec![], &options)?;
        physical.evaluate(&row).and_then(|v| v.into_array(1)).map_err(from_datafusion)
    }
}

fn no_statement(name: &str) -> Error {
    Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, format!("prepared statement \"{name}\" does not exist"))
}
