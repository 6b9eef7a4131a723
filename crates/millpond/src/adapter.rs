//! Sessions of `query` as the wire protocol calls them. The two crates do not know each other.

use std::any::Any;
use std::sync::Arc;

use arrow::array::ArrayRef;
use async_trait::async_trait;
use millpond_common::text::zone::Zone;
use millpond_common::{Error, Result, SqlType};
use millpond_query as query;
use millpond_wire as wire;

/// The database behind the protocol.
pub struct Adapter(pub Arc<query::Database>);

#[async_trait]
impl wire::Database for Adapter {
    async fn connect(&self, startup: wire::Startup, notices: wire::NoticeSender) -> Result<Box<dyn wire::Session>> {
        let cancel = wire::CancelHandle::new();
        let asked = startup.parameters.contains_key("database");
        let startup = query::Startup {
            user: startup.user,
            database: asked.then_some(startup.database),
            parameters: startup.parameters,
            process_id: startup.process_id,
            client: Some(startup.peer),
        };
        let sink = move |n: query::Notice| {
            let _ = notices.send(wire::Notice { severity: n.severity, state: n.state, message: n.message, detail: n.detail, hint: n.hint });
        };
        let token = query::CancelToken::from_sender(cancel.sender());
        let session = self.0.connect(startup, Arc::new(sink), token)?;
        Ok(Box::new(SessionAdapter { session, cancel }))
    }
}

struct SessionAdapter {
    session: query::Session,
    cancel: wire::CancelHandle,
}

struct StatementAdapter(Arc<query::Statement>);

fn own(statement: &Arc<dyn wire::Statement>) -> Result<&StatementAdapter> {
    statement.as_any().downcast_ref().ok_or_else(|| Error::internal("a statement of another session type"))
}

impl wire::Statement for StatementAdapter {
    fn parameters(&self) -> &[SqlType] {
        self.0.parameters()
    }
    fn columns(&self) -> Option<arrow::datatypes::SchemaRef> {
        self.0.columns()
    }
    fn text(&self) -> &str {
        self.0.text()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[async_trait]
impl wire::Session for SessionAdapter {
    async fn parse(&mut self, sql: &str) -> Result<Vec<Arc<dyn wire::Statement>>> {
        let statements = self.session.parse(sql)?;
        Ok(statements.into_iter().map(|s| Arc::new(StatementAdapter(s)) as Arc<dyn wire::Statement>).collect())
    }

    async fn prepare(&mut self, sql: &str, parameter_types: &[Option<SqlType>]) -> Result<Arc<dyn wire::Statement>> {
        Ok(Arc::new(StatementAdapter(self.session.prepare(sql, parameter_types).await?)))
    }

    fn named(&self, name: &str) -> Option<Arc<dyn wire::Statement>> {
        self.session.statement_named(name).map(|s| Arc::new(StatementAdapter(s)) as Arc<dyn wire::Statement>)
    }

    fn name(&mut self, name: String, statement: &Arc<dyn wire::Statement>) -> Result<()> {
        self.session.name(name, Arc::clone(&own(statement)?.0))
    }

    fn forget(&mut self, name: &str) {
        self.session.forget(name);
    }

    async fn execute(
        &mut self,
        statement: &Arc<dyn wire::Statement>,
        parameters: Vec<ArrayRef>,
        in_implicit_block: bool,
    ) -> Result<wire::Response> {
        Ok(match self.session.execute(&own(statement)?.0, parameters, in_implicit_block).await? {
            query::Response::Rows { schema, rows, tag } => wire::Response::Rows { schema, rows, tag },
            query::Response::Command { tag } => wire::Response::Command { tag },
            query::Response::Empty => wire::Response::Empty,
        })
    }

    async fn finish_implicit(&mut self, ok: bool) -> Result<()> {
        self.session.finish_implicit(ok).await
    }

    fn transaction_status(&self) -> wire::TransactionStatus {
        match self.session.transaction_status() {
            query::TransactionStatus::Idle => wire::TransactionStatus::Idle,
            query::TransactionStatus::InTransaction => wire::TransactionStatus::InTransaction,
            query::TransactionStatus::Failed => wire::TransactionStatus::Failed,
        }
    }

    fn zone(&self) -> Zone {
        self.session.zone()
    }

    fn patience(&self) -> Option<std::time::Duration> {
        self.session.patience()
    }

    fn fail_transaction(&mut self) {
        self.session.fail_transaction();
    }

    fn parameter_status_changes(&mut self) -> Vec<(String, String)> {
        self.session.parameter_status_changes()
    }

    fn cursor_columns(&self, name: &str) -> Option<arrow::datatypes::SchemaRef> {
        self.session.cursor_columns(name)
    }

    fn cancel_handle(&self) -> wire::CancelHandle {
        self.cancel.clone()
    }
}
