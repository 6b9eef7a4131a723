//! A database that pretends. Its statements, separated by `;`:
//!
//! - `rows N [BATCH]`: N rows (n integer, t text), in batches of BATCH (default 1000)
//! - `echo OID …`: one row of its parameters, which are of the types of these OIDs
//! - `insert N`, `begin`, `commit`, `rollback`, `set NAME VALUE`
//! - `fail`: an error with every field; `fail_rows N`: one after N rows; `fail_commit`: one in finish_implicit
//! - `sleep`: until cancelled; `forever`: rows without end, `stuck`: a stream without rows or end
//! - `notice`: two notices, half a second apart
//! - `panic`, `panic_rows`: a bug
//! - `log`: what the protocol has called on this session since the last `log`

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_wire::{
    CancelHandle, Database, Notice, NoticeSender, Response, ServeOptions, Session, Startup, Statement, TransactionStatus, serve,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Fake;

#[async_trait]
impl Database for Fake {
    async fn connect(&self, startup: Startup, notices: NoticeSender) -> Result<Box<dyn Session>> {
        if startup.database == "nowhere" {
            return Err(Error::new(SqlState::INVALID_CATALOG_NAME, "database \"nowhere\" does not exist"));
        }
        let mut changes = Vec::new();
        if let Some(name) = startup.parameters.get("application_name") {
            changes.push(("application_name".to_string(), name.clone()));
        }
        Ok(Box::new(FakeSession {
            notices,
            cancel: CancelHandle::new(),
            status: TransactionStatus::Idle,
            changes,
            log: Mutex::default(),
            fail_commit: false,
            named: HashMap::new(),
        }))
    }
}

struct FakeStatement {
    text: String,
    parameters: Vec<SqlType>,
}

impl FakeStatement {
    fn word(&self, i: usize) -> &str {
        let word = self.text.split_whitespace().nth(i).unwrap_or_default();
        // Clients write these in capitals.
        ["begin", "commit", "rollback"].into_iter().find(|known| known.eq_ignore_ascii_case(word)).unwrap_or(word)
    }

    fn number(&self, i: usize, default: usize) -> usize {
        self.word(i).parse().unwrap_or(default)
    }
}

impl Statement for FakeStatement {
    fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    fn columns(&self) -> Option<SchemaRef> {
        match self.word(0) {
            "rows" | "fail_rows" | "forever" | "stuck" | "panic_rows" => Some(rows_schema()),
            "log" => Some(Arc::new(Schema::new(vec![Field::new("call", DataType::Utf8, false)]))),
            "echo" => {
                let fields = self.parameters.iter().enumerate().map(|(i, t)| t.field(&format!("c{i}"), true)).collect::<Vec<_>>();
                Some(Arc::new(Schema::new(fields)))
            }
            _ => None,
        }
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn rows_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false), Field::new("t", DataType::Utf8, false)]))
}

fn batch(range: std::ops::Range<usize>) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(range.clone().map(|i| i as i32)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(range.map(|i| format!("row {i}"))));
    RecordBatch::try_new(rows_schema(), vec![numbers, texts]).unwrap()
}

struct FakeSession {
    notices: NoticeSender,
    cancel: CancelHandle,
    status: TransactionStatus,
    changes: Vec<(String, String)>,
    log: Mutex<Vec<String>>,
    fail_commit: bool,
    named: HashMap<String, Arc<dyn Statement>>,
}

impl FakeSession {
    fn log(&self, call: impl Into<String>) {
        self.log.lock().unwrap().push(call.into());
    }
}

fn parsed(text: &str, parameters: Vec<SqlType>) -> Result<Arc<dyn Statement>> {
    let text = text.trim().trim_end_matches(';').to_string();
    if text.starts_with("nonsense") {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "syntax error at or near \"nonsense\"").at(1));
    }
    Ok(Arc::new(FakeStatement { text, parameters }))
}

#[async_trait]
impl Session for FakeSession {
    async fn parse(&mut self, sql: &str) -> Result<Vec<Arc<dyn Statement>>> {
        sql.split(';').filter(|s| !s.trim().is_empty()).map(|s| parsed(s, vec![])).collect()
    }

    async fn prepare(&mut self, sql: &str, given: &[Option<SqlType>]) -> Result<Arc<dyn Statement>> {
        let mut parameters = Vec::new();
        if let Some(oids) = sql.trim().strip_prefix("echo") {
            for (i, oid) in oids.split_whitespace().enumerate() {
                let oid: u32 = oid.parse().map_err(|_| Error::new(SqlState::SYNTAX_ERROR, "not an OID"))?;
                let own = SqlType::from_oid(oid).ok_or_else(|| Error::internal("no such type"))?;
                parameters.push(given.get(i).cloned().flatten().unwrap_or(own));
            }
        }
        parsed(sql, parameters)
    }

    fn named(&self, name: &str) -> Option<Arc<dyn Statement>> {
        self.named.get(name).cloned()
    }

    fn name(&mut self, name: String, statement: &Arc<dyn Statement>) -> Result<()> {
        match self.named.contains_key(&name) {
            true => Err(Error::new(SqlState::DUPLICATE_PREPARED_STATEMENT, format!("prepared statement \"{name}\" already exists"))),
            false => {
                self.named.insert(name, Arc::clone(statement));
                Ok(())
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.named.remove(name);
    }

    async fn execute(&mut self, statement: &Arc<dyn Statement>, parameters: Vec<ArrayRef>, in_implicit_block: bool) -> Result<Response> {
        let fake = statement.as_any().downcast_ref::<FakeStatement>().unwrap();
        let command = |tag: String| Ok(Response::Command { tag });
        let rows = |rows: millpond_wire::RowStream| Ok(Response::Rows { schema: rows_schema(), rows, tag: "SELECT".into() });
        if fake.word(0) != "log" {
            self.log(format!("{}{}", fake.word(0), if in_implicit_block { " in block" } else { "" }));
        }
        if self.status == TransactionStatus::Failed && !matches!(fake.word(0), "rollback" | "commit" | "log") {
            return Err(Error::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        match fake.word(0) {
            "" => Ok(Response::Empty),
            "rows" => {
                let (count, size) = (fake.number(1, 10), fake.number(2, 1000));
                rows(stream::iter((0..count).step_by(size)).map(move |i| Ok(batch(i..(i + size).min(count)))).boxed())
            }
            "fail_rows" => {
                let count = fake.number(1, 10);
                let error = Error::new(SqlState::DIVISION_BY_ZERO, "division by zero");
                rows(stream::iter([Ok(batch(0..count)), Err(error)]).boxed())
            }
            "forever" => rows(stream::iter(0..).map(|i| Ok(batch(i..i + 1000))).boxed()),
            "stuck" => rows(stream::pending().boxed()),
            "panic_rows" => rows(stream::iter(0..1).map(|_| -> Result<RecordBatch> { panic!("a bug on purpose") }).boxed()),
            "panic" => panic!("a bug on purpose"),
            "echo" => {
                let schema = fake.columns().unwrap();
                let batch = RecordBatch::try_new(Arc::clone(&schema), parameters)?;
                Ok(Response::Rows { schema, rows: stream::iter([Ok(batch)]).boxed(), tag: "SELECT".into() })
            }
            "log" => {
                let calls = StringArray::from(std::mem::take(&mut *self.log.lock().unwrap()));
                let schema = fake.columns().unwrap();
                let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(calls)])?;
                Ok(Response::Rows { schema, rows: stream::iter([Ok(batch)]).boxed(), tag: "SELECT".into() })
            }
            "insert" => command(format!("INSERT 0 {}", fake.number(1, 1))),
            "begin" => {
                self.status = TransactionStatus::InTransaction;
                command("BEGIN".into())
            }
            "commit" | "rollback" => {
                self.status = TransactionStatus::Idle;
                command(fake.word(0).to_uppercase())
            }
            "set" => {
                self.changes.push((fake.word(1).to_string(), fake.word(2).to_string()));
                command("SET".into())
            }
            "fail" => Err(Error::new(SqlState::UNIQUE_VIOLATION, "duplicate key value violates unique constraint \"k\"")
                .with_detail("Key (a)=(1) already exists.")
                .with_hint("Use another key.")
                .with_constraint("k")
                .at(7)),
            "fail_commit" => {
                self.fail_commit = true;
                command("INSERT 0 1".into())
            }
            "sleep" => {
                self.cancel.cancelled().await;
                Err(CancelHandle::error())
            }
            "notice" => {
                for text in ["first", "second"] {
                    self.notices.send(Notice { detail: Some("more".into()), hint: Some("help".into()), ..Notice::new(text) });
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                command("DONE".into())
            }
            other => Err(Error::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{other}\"")).at(1)),
        }
    }

    async fn finish_implicit(&mut self, ok: bool) -> Result<()> {
        if self.status == TransactionStatus::Idle {
            self.log(if ok { "finish" } else { "undo" });
        }
        if std::mem::take(&mut self.fail_commit) && ok {
            return Err(Error::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access"));
        }
        Ok(())
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn parameter_status_changes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changes)
    }

    fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }
}

/// A server with a fake database.
pub struct Server {
    pub address: SocketAddr,
    pub shutdown: watch::Sender<bool>,
    pub task: JoinHandle<Result<()>>,
}

pub async fn server_with(options: ServeOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, receiver) = watch::channel(false);
    let task = tokio::spawn(serve(Arc::new(listener), Arc::new(Fake), options, receiver));
    Server { address, shutdown, task }
}

pub async fn server() -> Server {
    server_with(ServeOptions::default()).await
}

impl Server {
    pub async fn client(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=tester dbname=dev application_name=tests", self.address.port());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}
