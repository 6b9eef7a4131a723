//! What a database does to be served: it connects sessions, which parse, prepare and execute.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use millpond_common::text::zone::Zone;
use millpond_common::{Result, SqlType};

use crate::cancel::CancelHandle;
use crate::notice::NoticeSender;

/// What a client said when it connected.
#[derive(Clone, Debug)]
pub struct Startup {
    /// The user it wants to be.
    pub user: String,
    /// The database it asked for; the user's name where it asked for none, as PostgreSQL has it
    /// (`parameters` then has no `database`).
    pub database: String,
    /// Everything in the start-up packet, and the settings of its `options`; names as the client wrote them.
    pub parameters: BTreeMap<String, String>,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// The number that `pg_backend_pid()` returns and cancel requests name.
    pub process_id: i32,
}

/// Rows of a result, batch by batch.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// Something that clients connect to.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Opens a session; an error refuses the connection. Settings in `startup.parameters`
    /// (`application_name`, `options`, …) are the session's to apply.
    async fn connect(&self, startup: Startup, notices: NoticeSender) -> Result<Box<dyn Session>>;
}

/// One client's session. Calls never overlap; dropping it rolls back what is open.
#[async_trait]
pub trait Session: Send {
    /// The statements of a simple query, split and parsed, in order; none for an empty text.
    /// Statements need not be bound yet: an earlier one may create what a later one names.
    async fn parse(&mut self, sql: &str) -> Result<Vec<Arc<dyn Statement>>>;

    /// One statement for the extended protocol, bound: its parameters and columns are known.
    /// `parameter_types` has the types that the client declared; it may be shorter than the statement's
    /// parameters. An empty text is a valid statement; executing it gives [`Response::Empty`].
    async fn prepare(&mut self, sql: &str, parameter_types: &[Option<SqlType>]) -> Result<Arc<dyn Statement>>;

    /// The statement that a name stands for: the session's one space of names for PREPARE and the protocol's Parse.
    fn named(&self, name: &str) -> Option<Arc<dyn Statement>>;

    /// Gives a prepared statement a name, which must not stand for another.
    fn name(&mut self, name: String, statement: &Arc<dyn Statement>) -> Result<()>;

    /// A name stands for nothing any more, if it did.
    fn forget(&mut self, name: &str);

    /// Runs a statement. `parameters` are one-row arrays of the statement's parameter types.
    ///
    /// With `in_implicit_block` other statements share its transaction, up to [`Session::finish_implicit`]:
    /// nothing may be committed before. Without, the statement is alone, and may commit as it likes.
    async fn execute(&mut self, statement: &Arc<dyn Statement>, parameters: Vec<ArrayRef>, in_implicit_block: bool) -> Result<Response>;

    /// The end of a simple query or a Sync: outside an explicit transaction, commits (`ok`) or rolls back what was
    /// executed since the last one. Row streams of that transaction have been dropped. Called also when there is nothing to finish.
    async fn finish_implicit(&mut self, ok: bool) -> Result<()>;

    /// Where the session stands, for ReadyForQuery.
    fn transaction_status(&self) -> TransactionStatus;

    /// The time zone of texts that name none.
    fn zone(&self) -> Zone {
        Zone::UTC
    }

    /// How long the session may wait for the next statement as it stands now: `None` = as long as it takes.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// An error happened, in a statement, its row stream or in the protocol: an explicit transaction is failed now.
    fn fail_transaction(&mut self);

    /// Settings that clients are told of (`TimeZone`, `application_name`, …) and whose value changed since the
    /// last call; the first call gives those that differ from the defaults.
    fn parameter_status_changes(&mut self) -> Vec<(String, String)>;

    /// The columns of a cursor that a statement has opened: in PostgreSQL it is a portal, and may be described.
    fn cursor_columns(&self, _name: &str) -> Option<SchemaRef> {
        None
    }
    /// The session's one handle: after [`CancelHandle::cancel`], `execute` and row streams fail with 57014.
    /// The protocol resets it when the next message arrives.
    fn cancel_handle(&self) -> CancelHandle;
}

/// A parsed or prepared statement.
pub trait Statement: Send + Sync {
    /// The types of `$1`, `$2`, …
    fn parameters(&self) -> &[SqlType];
    /// The columns of its result; `None` where it returns no rows. Asked only of prepared statements.
    fn columns(&self) -> Option<SchemaRef>;
    /// Its text.
    fn text(&self) -> &str;
    /// The session's own type.
    fn as_any(&self) -> &dyn Any;
}

/// What a statement answers.
pub enum Response {
    /// Rows, and the command tag without its count: `SELECT`, `INSERT 0`, `UPDATE`, …
    /// The number of rows is appended.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows; every batch has the schema's columns.
        rows: RowStream,
        /// The tag, for example `SELECT`.
        tag: String,
    },
    /// No rows, and the whole command tag: `INSERT 0 3`, `CREATE TABLE`.
    Command {
        /// The tag.
        tag: String,
    },
    /// The statement was empty.
    Empty,
}

/// A session's transaction status, as ReadyForQuery tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// Outside a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that an error has failed; only ROLLBACK helps.
    Failed,
}
