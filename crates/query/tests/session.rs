//! Sessions on a real engine, without a server: what statements answer, and what they refuse.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use millpond_common::{Error, Result};
use millpond_query::{CancelToken, Database, DatabaseOptions, Notice, NoticeSink, Response, Session, Startup, TransactionStatus};

struct Client {
    session: Session,
    notices: Arc<Mutex<Vec<Notice>>>,
}

fn open(directory: &Path) -> Arc<Database> {
    let options = DatabaseOptions { directory: directory.to_path_buf(), workers: 2, memory: 256 << 20, storage: None };
    std::thread::spawn(move || Database::open(&options)).join().unwrap().unwrap()
}

fn connect(database: &Arc<Database>, process_id: i32) -> Client {
    let notices = Arc::new(Mutex::new(vec![]));
    let heard = Arc::clone(&notices);
    let sink: NoticeSink = Arc::new(move |n| heard.lock().unwrap().push(n));
    let startup = Startup { user: "tester".into(), database: None, parameters: BTreeMap::new(), process_id, client: None };
    Client { session: database.connect(startup, sink, CancelToken::new()).unwrap(), notices }
}

/// Rows as text, or the tag of a command.
async fn drain(response: Response) -> Result<Vec<String>> {
    match response {
        Response::Rows { mut rows, .. } => {
            let mut lines = vec![];
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let options = FormatOptions::default().with_null("NULL");
                let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect::<Vec<_>>();
                lines.extend((0..batch.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
            }
            Ok(lines)
        }
        Response::Command { tag } => Ok(vec![tag]),
        Response::Empty => Ok(vec![]),
    }
}

impl Client {
    /// As a simple query: all statements, the results of the last one.
    async fn try_run(&mut self, sql: &str) -> Result<Vec<String>> {
        let statements = self.session.parse(sql)?;
        let mut last = vec![];
        for statement in &statements {
            let result = match self.session.execute(statement, vec![], statements.len() > 1).await {
                Ok(response) => drain(response).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(lines) => last = lines,
                Err(error) => {
                    self.session.fail_transaction();
                    self.session.finish_implicit(false).await?;
                    return Err(error);
                }
            }
        }
        self.session.finish_implicit(true).await?;
        Ok(last)
    }

    async fn run(&mut self, sql: &str) -> Vec<String> {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn error(&mut self, sql: &str) -> Error {
        match self.try_run(sql).await {
            Ok(rows) => panic!("{sql}: no error but {rows:?}"),
            Err(error) => error,
        }
    }

    fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().drain(..).map(|n| n.message).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn tables_views_and_restart() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let database = open(directory.path());
    assert!(database.is_new());
    runtime.block_on(async {
        let mut c = connect(&database, 1);
        assert_eq!(c.run("CREATE TABLE t (id BIGINT PRIMARY KEY, g TEXT, v INT)").await, ["CREATE TABLE"]);
        assert_eq!(c.run("INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20), (3, 'a', 30)").await, ["INSERT 0 3"]);
        assert_eq!(c.run("CREATE MATERIALIZED VIEW s AS SELECT g, sum(v) AS total FROM t GROUP BY g").await, ["CREATE MATERIALIZED VIEW"]);
        assert!(c.notices().last().unwrap().contains("is up to date"));
        assert_eq!(c.run("SELECT * FROM s ORDER BY g").await, ["a|40", "b|20"]);
        c.run("UPDATE t SET v = v + 5 WHERE id = 1").await;
        assert_eq!(c.run("SELECT total FROM s WHERE g = 'a'").await, ["45"], "a session reads its own writes");
        c.run("CREATE VIEW w AS SELECT g FROM s WHERE total > 30").await;
        assert_eq!(c.run("SELECT * FROM w").await, ["a"]);
        c.run("COMMENT ON TABLE t IS 'rows'; CREATE SCHEMA other; CREATE TABLE other.u (a INT)").await;
        database.set_initialised().unwrap();
        database.shutdown().await.unwrap();
    });
    drop(database);
    let database = open(directory.path());
    assert!(!database.is_new());
    runtime.block_on(async {
        let mut c = connect(&database, 1);
        assert_eq!(c.run("SELECT * FROM s ORDER BY g").await, ["a|45", "b|20"]);
        c.run("DELETE FROM t WHERE g = 'b'").await;
        assert_eq!(c.run("SELECT * FROM s ORDER BY g").await, ["a|45"]);
        assert_eq!(c.run("SELECT g FROM w").await, ["a"]);
        assert_eq!(c.run("SHOW TABLES").await, ["other|u|NULL", "public|t|rows"]);
        database.shutdown().await.unwrap();
    });
}

#[test]
fn drops_name_what_depends() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    runtime().block_on(async {
        let mut c = connect(&database, 1);
        c.run("CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v AS SELECT a FROM t; CREATE MATERIALIZED VIEW w AS SELECT a FROM v").await;
        c.notices();
        let error = c.error("DROP TABLE t").await;
        assert_eq!(error.state().0, "2BP01");
        assert!(error.detail().unwrap().contains("materialized view v depends on table t"), "{error}");
        assert_eq!(c.error("DROP VIEW t").await.state().0, "42809");
        assert_eq!(c.error("DROP TABLE missing").await.state().0, "42P01");
        assert_eq!(c.run("DROP TABLE IF EXISTS missing").await, ["DROP TABLE"]);
        assert_eq!(c.notices(), ["table \"missing\" does not exist, skipping"]);
        assert_eq!(c.error("CREATE TABLE t (b INT)").await.state().0, "42P07");
        assert_eq!(c.run("CREATE TABLE IF NOT EXISTS t (b INT)").await, ["CREATE TABLE"]);
        assert_eq!(c.notices(), ["relation \"t\" already exists, skipping"]);
        c.run("DROP TABLE t CASCADE").await;
        assert_eq!(c.notices(), ["drop cascades to 2 other objects"]);
        assert_eq!(c.error("SELECT * FROM w").await.state().0, "42P01");
        database.shutdown().await.unwrap();
    });
}

#[test]
fn blocks_follow_postgresql() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    runtime().block_on(async {
        let (mut c, mut other) = (connect(&database, 1), connect(&database, 2));
        c.run("CREATE TABLE t (a INT PRIMARY KEY)").await;
        c.run("BEGIN").await;
        assert_eq!(c.session.transaction_status(), TransactionStatus::InTransaction);
        c.run("BEGIN").await;
        assert_eq!(c.notices(), ["there is already a transaction in progress"]);
        c.run("INSERT INTO t VALUES (1)").await;
        assert_eq!(c.run("SELECT * FROM t").await, ["1"]);
        assert_eq!(other.run("SELECT * FROM t").await, Vec::<String>::new());
        assert_eq!(c.error("CREATE TABLE u (a INT)").await.state().0, "25001");
        assert_eq!(c.session.transaction_status(), TransactionStatus::Failed);
        assert_eq!(c.error("SELECT 1").await.state().0, "25P02");
        assert_eq!(c.run("COMMIT").await, ["ROLLBACK"]);
        assert_eq!(c.run("SELECT * FROM t").await, Vec::<String>::new());
        assert_eq!(c.run("COMMIT").await, ["COMMIT"]);
        assert_eq!(c.notices(), ["there is no transaction in progress"]);
        // Statements of one message are one transaction.
        assert_eq!(c.error("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").await.state().0, "23505");
        assert_eq!(c.run("SELECT count(*) FROM t").await, ["0"]);
        c.run("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2)").await;
        c.error("INSERT INTO t VALUES (2)").await;
        c.run("ROLLBACK TO a").await;
        c.run("COMMIT").await;
        assert_eq!(c.run("SELECT * FROM t").await, ["1"]);
        assert_eq!(other.run("SELECT * FROM t").await.len(), 1);
        c.run("BEGIN; SET application_name = 'x'; ROLLBACK").await;
        assert_eq!(c.run("SHOW application_name").await, [""]);
        assert_eq!(c.error("SELECT 9223372036854775807 + 1").await.state().0, "22003");
        c.run("PREPARE p (INT) AS SELECT $1 + 1; BEGIN; DECLARE c CURSOR FOR SELECT a FROM (VALUES (1), (2), (3)) v(a)").await;
        assert_eq!(c.run("FETCH 2 FROM c").await, ["1", "2"]);
        assert_eq!(c.run("FETCH ALL FROM c").await, ["3"]);
        assert_eq!(c.run("EXECUTE p (41)").await, ["42"]);
        c.run("COMMIT").await;
        assert_eq!(c.error("FETCH 1 FROM c").await.state().0, "34000");
        database.shutdown().await.unwrap();
    });
}

#[test]
fn sources_are_read_and_peeked() {
    let directory = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("a.csv"), "id,name\n1,one\n2,two\n").unwrap();
    let database = open(directory.path());
    runtime().block_on(async {
        let mut c = connect(&database, 1);
        let path = data.path().display();
        c.run(&format!("CREATE SOURCE f (id INT, name TEXT) WITH (connector = 'file', path = '{path}/*.csv') FORMAT PLAIN ENCODE CSV"))
            .await;
        assert_eq!(c.run("SELECT name FROM f WHERE id = 2").await, ["two"]);
        assert_eq!(c.run("SELECT count(*) FROM f").await, ["2"]);
        c.run("CREATE SOURCE n WITH (connector = 'nexmark')").await;
        assert_eq!(c.error("SELECT * FROM n").await.state().0, "0A000");
        assert_eq!(c.run("SELECT * FROM n LIMIT 3").await.len(), 3);
        c.run("CREATE MATERIALIZED VIEW m AS SELECT id, name FROM f").await;
        assert_eq!(c.run("SELECT name FROM m ORDER BY id").await, ["one", "two"]);
        database.shutdown().await.unwrap();
    });
}
