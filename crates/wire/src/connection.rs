//! A session from its first ReadyForQuery to its end: messages come in, answers go out.

use std::sync::Arc;

use bytes::Bytes;
use millpond_common::{Error, Result, SqlState};

use crate::database::{Response, Session, Statement, TransactionStatus};
use crate::extended::Prepared;
use crate::frame::{Frame, violation};
use crate::frontend::FrontendMessage;
use crate::io::{Fault, Io, shutdown_error};
use crate::rows::{Portion, Rows};
use crate::status::canonical_name;
use crate::text;

/// A session and its connection.
pub(crate) struct Connection {
    pub(crate) io: Io,
    pub(crate) session: Box<dyn Session>,
    pub(crate) prepared: Prepared,
    /// An extended query failed: everything up to Sync is skipped.
    skipping: bool,
    /// The client was told that it may send the next statement.
    ready: bool,
}

impl Connection {
    pub(crate) fn new(io: Io, session: Box<dyn Session>) -> Self {
        Connection { io, session, prepared: Prepared::default(), skipping: false, ready: false }
    }

    /// Serves messages until the client leaves, breaks the protocol, or the server shuts down.
    pub(crate) async fn run(&mut self) -> Fault {
        if let Err(fault) = self.ready().await {
            return fault;
        }
        loop {
            match self.message().await {
                Ok(true) => {}
                Ok(false) => return Fault::Gone,
                Err(fault) => return fault,
            }
        }
    }

    /// Handles one message; `false` is the end.
    async fn message(&mut self) -> Result<bool, Fault> {
        let frame = self.next_frame().await?;
        if self.skipping && !matches!(frame.kind, b'S' | b'X') {
            return Ok(true);
        }
        let message = match FrontendMessage::decode(frame) {
            Ok(message) => message,
            Err(error) if error.state() == SqlState::PROTOCOL_VIOLATION => return Err(Fault::Fatal(error)),
            Err(error) => {
                self.failed(Fault::Statement(error)).await?;
                return Ok(true);
            }
        };
        match message {
            FrontendMessage::Query { sql } => {
                if let Err(fault) = self.simple_query(&sql).await {
                    self.statement_failed(fault).await?;
                }
                self.ready().await?;
            }
            FrontendMessage::FunctionCall => {
                let error = Error::unsupported("function calls by the protocol are not supported", "Use SELECT to call a function.");
                self.statement_failed(Fault::Statement(error)).await?;
                self.ready().await?;
            }
            FrontendMessage::Sync => self.sync().await?,
            FrontendMessage::Flush => self.io.output.flush().await?,
            FrontendMessage::Terminate => return Ok(false),
            // Left over from a COPY that ended early.
            FrontendMessage::Copy => {}
            extended => {
                if let Err(fault) = self.extended(extended).await {
                    self.failed(fault).await?;
                }
                self.io.output.flush_if_full().await?;
            }
        }
        Ok(true)
    }

    /// The next message. In a transaction the session's patience may end before it comes.
    async fn next_frame(&mut self) -> Result<Frame, Fault> {
        let Some(patience) = self.session.patience().filter(|_| std::mem::take(&mut self.ready)) else { return self.io.next_frame().await };
        tokio::time::timeout(patience, self.io.next_frame()).await.unwrap_or_else(|_| {
            let message = "terminating connection due to idle-in-transaction timeout";
            Err(Fault::Fatal(Error::new(SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, message)))
        })
    }

    /// An extended query failed: says so, and skips what the client sent after it.
    async fn failed(&mut self, fault: Fault) -> Result<(), Fault> {
        self.statement_failed(fault).await?;
        self.skipping = true;
        Ok(self.io.output.flush().await?)
    }

    /// Tells the client of an error and rolls back; only what ends the session comes back as a fault.
    async fn statement_failed(&mut self, fault: Fault) -> Result<(), Fault> {
        let error = match fault {
            Fault::Statement(error) => error,
            fatal => return Err(fatal),
        };
        if self.io.gone {
            return Err(Fault::Gone);
        }
        if self.io.shutting_down() && error.state() == SqlState::QUERY_CANCELED {
            return Err(Fault::Fatal(shutdown_error()));
        }
        self.io.pass_notices();
        self.io.output.error("ERROR", &error);
        self.session.fail_transaction();
        self.prepared.portals.clear();
        if let Err(error) = self.io.during(self.session.finish_implicit(false)).await? {
            tracing::warn!(%error, "rolling back after an error failed");
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Fault> {
        if !std::mem::take(&mut self.skipping)
            && let Err(fault) = self.finish_implicit().await
        {
            self.statement_failed(fault).await?;
        }
        self.prepared.executed = false;
        self.ready().await
    }

    /// Commits the implicit transaction. Portals outside of an explicit one end with it.
    async fn finish_implicit(&mut self) -> Result<(), Fault> {
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.prepared.portals.clear();
        }
        Ok(self.io.during(self.session.finish_implicit(true)).await??)
    }

    /// ReadyForQuery, after the settings that changed, and everything before it to the client.
    async fn ready(&mut self) -> Result<(), Fault> {
        self.io.pass_notices();
        for (name, value) in self.session.parameter_status_changes() {
            self.io.output.parameter_status(canonical_name(&name), &value);
        }
        self.io.output.ready_for_query(self.session.transaction_status());
        self.ready = true;
        Ok(self.io.output.flush().await?)
    }

    async fn simple_query(&mut self, sql: &Bytes) -> Result<(), Fault> {
        self.io.cancel.reset();
        self.prepared.forget_unnamed();
        let sql = text::utf8(sql)?;
        let statements = self.io.during(self.session.parse(sql)).await??;
        if statements.is_empty() {
            self.finish_implicit().await?;
            self.io.output.empty_query();
            return Ok(());
        }
        for (i, statement) in statements.iter().enumerate() {
            let last = i + 1 == statements.len();
            self.simple_statement(statement, statements.len() > 1, last).await?;
        }
        Ok(())
    }

    async fn simple_statement(&mut self, statement: &Arc<dyn Statement>, in_block: bool, last: bool) -> Result<(), Fault> {
        let response = self.execute(statement, Vec::new(), in_block).await?;
        let tag = match response {
            Response::Rows { schema, rows, tag } => {
                let description = crate::describe::row_description(&schema, |_| false)?;
                self.io.output.row_description(description);
                let mut rows = Rows::new(&schema, rows, tag, vec![false; schema.fields().len()]);
                match rows.send(&mut self.io, 0).await? {
                    Portion::Complete(tag) => Some(tag),
                    Portion::Suspended => return Err(Error::internal("a result without a limit was suspended").into()),
                }
            }
            Response::Command { tag } => Some(tag),
            Response::Empty => None,
        };
        // The last statement is complete only when all of them are committed.
        if last {
            self.finish_implicit().await?;
        }
        match tag {
            Some(tag) => self.io.output.command_complete(&tag),
            None => self.io.output.empty_query(),
        }
        Ok(self.io.output.flush_if_full().await?)
    }

    /// Runs a statement. Portals end with the explicit transaction that they were opened in.
    pub(crate) async fn execute(
        &mut self,
        statement: &Arc<dyn Statement>,
        parameters: Vec<arrow::array::ArrayRef>,
        in_block: bool,
    ) -> Result<Response, Fault> {
        let before = self.session.transaction_status();
        let response = self.io.during(self.session.execute(statement, parameters, in_block)).await??;
        if before != TransactionStatus::Idle && self.session.transaction_status() == TransactionStatus::Idle {
            self.prepared.portals.clear();
        }
        Ok(response)
    }

    /// A message that only the extended protocol has reached a place where it cannot be.
    pub(crate) fn unexpected() -> Fault {
        Fault::Fatal(violation("unexpected message"))
    }
}
