//! Savepoints of the whole database, as a user meets them.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond_tests::server::{Server, binary, rows, run, value, wait_for};
use tokio_postgres::{Client, NoTls};

async fn connect_to(server: &Server, database: &str) -> Result<Client, tokio_postgres::Error> {
    let url = server.url().replace("dbname=dev", &format!("dbname={database}"));
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn error_of(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    (error.code().code().to_string(), error.message().to_string())
}

/// A session of the restored database. All sessions of the one before end.
async fn restored(server: &Server) -> Client {
    loop {
        if let Ok(client) = connect_to(server, "dev").await
            && let Ok(found) = rows(&client, "SELECT s FROM s").await
        {
            assert_eq!(found, [[Some("5".to_string())]]);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const SETUP: &str = "
CREATE TABLE t (id INT PRIMARY KEY, v INT);
CREATE MATERIALIZED VIEW s AS SELECT sum(v) AS s FROM t;
CREATE VIEW twice AS SELECT s * 2 AS s FROM s;
INSERT INTO t VALUES (1, 2), (2, 3)";

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_is_read_beside_what_is_live_and_survives_drops() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    run(&client, "SAVEPOINT before_upgrade").await;
    run(&client, "UPDATE t SET v = 100 WHERE id = 1").await;
    let both = "SELECT a.s AS now, b.s AS before FROM s AS a, s FOR SYSTEM_TIME AS OF SAVEPOINT 'before_upgrade' AS b";
    assert_eq!(rows(&client, both).await.unwrap(), [[Some("103".to_string()), Some("5".to_string())]]);
    assert_eq!(value(&client, "SELECT s FROM public.twice FOR SYSTEM_TIME AS OF SAVEPOINT before_upgrade").await, "10");
    assert_eq!(value(&client, "SELECT count(*) FROM \"dev@before_upgrade\".public.t").await, "2");
    let saved = connect_to(&server, "dev@before_upgrade").await.unwrap();
    for sql in [
        "INSERT INTO t VALUES (9, 9)",
        "DROP TABLE t CASCADE",
        "ALTER MATERIALIZED VIEW s SET (restart_delay = '1s')",
        "ALTER MATERIALIZED VIEW s RESTART",
        "ALTER MATERIALIZED VIEW s RENAME TO r",
        "CANCEL JOB 1",
        "CHECKPOINT",
    ] {
        assert_eq!(error_of(&saved, sql).await.0, "25006", "{sql}");
    }
    run(&client, "DROP TABLE t CASCADE").await;
    run(&client, "CREATE TABLE other (id INT)").await;
    assert_eq!(value(&client, "SELECT kind FROM millpond.savepoints WHERE name = 'before_upgrade'").await, "manual");
    assert_eq!(rows(&client, "SHOW SAVEPOINTS").await.unwrap().len(), 1);

    let saved = connect_to(&server, "dev@before_upgrade").await.unwrap();
    assert_eq!(value(&saved, "SELECT s FROM s").await, "5");
    assert_eq!(value(&saved, "SELECT s FROM twice").await, "10");
    assert_eq!(value(&saved, "SELECT v FROM t WHERE id = 1").await, "2");
    assert_eq!(value(&saved, "SELECT current_database()").await, "dev@before_upgrade");
    assert_eq!(value(&saved, "SELECT count(*) FROM pg_class WHERE relname IN ('t', 'other')").await, "1");
    for sql in ["INSERT INTO t VALUES (9, 9)", "DROP TABLE t", "CREATE TABLE x (i INT)", "SAVEPOINT again", "CHECKPOINT"] {
        assert_eq!(error_of(&saved, sql).await.0, "25006", "{sql}");
    }
    assert_eq!(error_of(&client, "RELEASE SAVEPOINT before_upgrade").await.0, "55006");
    drop(saved);

    server.kill();
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(value(&client, "SELECT s FROM s FOR SYSTEM_TIME AS OF SAVEPOINT 'before_upgrade'").await, "5");
    for (sql, state) in [
        ("SAVEPOINT before_upgrade", "42710"),
        ("RELEASE SAVEPOINT nothing", "42704"),
        ("RESTORE SAVEPOINT nothing", "42704"),
        ("SELECT * FROM s FOR SYSTEM_TIME AS OF SAVEPOINT 'nothing'", "42704"),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM t FOR SYSTEM_TIME AS OF SAVEPOINT 'before_upgrade'", "0A000"),
        ("CREATE VIEW m AS SELECT * FROM t FOR SYSTEM_TIME AS OF SAVEPOINT 'before_upgrade'", "0A000"),
        ("SELECT * FROM elsewhere.public.t", "0A000"),
    ] {
        assert_eq!(error_of(&client, sql).await.0, state, "{sql}");
    }
    assert!(connect_to(&server, "dev@nothing").await.is_err());
    run(&client, "RELEASE SAVEPOINT before_upgrade").await;
    assert_eq!(value(&client, "SELECT count(*) FROM millpond.savepoints").await, "0");
}

/// What was answered before SAVEPOINT is in it, and a view is whole or not shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_has_all_that_was_answered_and_no_half_filled_view() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    for i in 0..20 {
        run(&client, &format!("INSERT INTO t VALUES ({}, 1)", 10 + i)).await;
        run(&client, &format!("SAVEPOINT p{i}")).await;
        let read = "(SELECT count(*) FROM t FOR SYSTEM_TIME AS OF SAVEPOINT p)::text || ' ' || (SELECT s FROM s FOR SYSTEM_TIME AS OF SAVEPOINT p)";
        assert_eq!(
            value(&client, &format!("SELECT {}", read.replace("SAVEPOINT p", &format!("SAVEPOINT p{i}")))).await,
            format!("{} {}", 3 + i, 6 + i)
        );
    }
    run(&client, "INSERT INTO t SELECT i, 1 FROM generate_series(100, 5000) AS g(i)").await;
    run(&client, "SET background_ddl = on").await;
    run(&client, "CREATE MATERIALIZED VIEW half WITH (backfill_rate_limit = 100) AS SELECT id, v FROM t").await;
    wait_for(&client, "SELECT rows_done > 0 FROM millpond.jobs WHERE name = 'half'", "t").await;
    run(&client, "SAVEPOINT early").await;
    let half = "SELECT count(*) FROM half FOR SYSTEM_TIME AS OF SAVEPOINT early";
    assert_eq!(error_of(&client, half).await.0, "55000");
    let saved = connect_to(&server, "dev@early").await.unwrap();
    assert_eq!(error_of(&saved, "SELECT count(*) FROM half").await.0, "55000");
    assert_eq!(value(&saved, "SELECT count(*) FROM t").await, "4923");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_transaction_the_same_words_are_the_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT)").await;
    run(&client, "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); ROLLBACK TO a; RELEASE a; COMMIT").await;
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "1");
    assert_eq!(value(&client, "SELECT count(*) FROM millpond.savepoints").await, "0");
    assert_eq!(error_of(&client, "BEGIN; RESTORE SAVEPOINT a").await.0, "25001");
    run(&client, "ROLLBACK").await;
    // Settings and cursors go back, too.
    let begin = "BEGIN; SET statement_timeout = '50s'; DECLARE before CURSOR FOR SELECT id FROM t; SAVEPOINT a; SAVEPOINT b";
    run(&client, begin).await;
    run(&client, "SET statement_timeout = '70s'; SET LOCAL lock_timeout = '7s'; DECLARE after CURSOR FOR SELECT id FROM t; ROLLBACK TO a")
        .await;
    assert_eq!(value(&client, "SHOW statement_timeout").await, "50s");
    assert_eq!(value(&client, "SHOW lock_timeout").await, "0");
    assert_eq!(value(&client, "FETCH 1 FROM before").await, "1");
    assert_eq!(error_of(&client, "FETCH 1 FROM after").await.0, "34000");
    run(&client, "ROLLBACK TO a").await;
    run(&client, "COMMIT").await;
    assert_eq!(value(&client, "SHOW statement_timeout").await, "50s");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_brings_back_the_whole_database_and_keeps_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    run(&client, "SAVEPOINT good").await;
    run(&client, "DELETE FROM t WHERE id = 1").await;
    run(&client, "CREATE TABLE later (id INT)").await;
    let other = server.connect().await;
    run(&other, "BEGIN; INSERT INTO t VALUES (7, 7)").await;
    run(&client, "RESTORE SAVEPOINT good").await;
    // Nothing is answered any more that the restored database does not have.
    let (late, new) = tokio::join!(other.batch_execute("COMMIT"), connect_to(&server, "dev"));
    assert!(late.is_err());
    if let Ok(new) = new {
        assert_eq!(rows(&new, "SELECT count(*) FROM t").await.map_or("2".into(), |rows| rows[0][0].clone().unwrap()), "2");
    }
    let client = restored(&server).await;
    assert_eq!(value(&client, "SELECT count(*) FROM pg_class WHERE relname = 'later'").await, "0");
    run(&client, "INSERT INTO t VALUES (3, 10)").await;
    assert_eq!(value(&client, "SELECT s FROM s").await, "15");
    let before = value(&client, "SELECT name FROM millpond.savepoints WHERE kind = 'automatic'").await;
    assert_eq!(value(&client, &format!("SELECT s FROM s FOR SYSTEM_TIME AS OF SAVEPOINT {before}")).await, "3");
    assert_eq!(value(&client, &format!("SELECT count(*) FROM later FOR SYSTEM_TIME AS OF SAVEPOINT {before}")).await, "0");
}

/// Nobody else can take the ports while the server has no database, and who connects then waits or is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_its_ports() {
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Server::start(dir.path(), &[]).await);
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    run(&client, "SAVEPOINT good").await;
    let over = Arc::new(AtomicBool::new(false));
    let (ended, ports) = (Arc::clone(&over), [server.port(), server.http_port()]);
    let thief = std::thread::spawn(move || {
        let mut taken = 0;
        while !ended.load(Ordering::Relaxed) {
            taken += ports.iter().filter(|port| TcpListener::bind(("127.0.0.1", **port)).is_ok()).count();
            std::thread::sleep(Duration::from_millis(1));
        }
        taken
    });
    let (ended, reached) = (Arc::clone(&over), Arc::clone(&server));
    let guests = tokio::spawn(async move {
        let (mut sessions, mut turned_away) = (0, vec![]);
        while !ended.load(Ordering::Relaxed) {
            match connect_to(&reached, "dev").await {
                Ok(_) => sessions += 1,
                Err(error) if error.as_db_error().is_some_and(|e| e.code().code().starts_with("57P")) => {}
                Err(error) => turned_away.push(format!("{error:?}")),
            }
        }
        (sessions, turned_away)
    });
    for round in 0..4 {
        let client = server.connect().await;
        run(&client, &format!("INSERT INTO t VALUES ({round} + 10, 1)")).await;
        run(&client, "RESTORE SAVEPOINT good").await;
        restored(&server).await;
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(thief.join().unwrap(), 0, "a port was free");
    let (sessions, turned_away) = guests.await.unwrap();
    assert!(sessions > 0 && turned_away.is_empty(), "{sessions} {turned_away:?}");
    assert!(server.get("/healthz").contains("200 OK"));
    assert!(server.get("/metrics").contains("millpond_epoch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_a_database_of_its_own() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    run(&client, "SAVEPOINT before").await;
    run(&client, "INSERT INTO t VALUES (3, 1000)").await;
    let (from, to) = (dir.path().join("db"), other.path().join("db"));
    let fork = |name: &str| {
        let arguments = ["fork", "--savepoint", name, "--data-dir", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
        Command::new(binary()).args(arguments).output().unwrap()
    };
    assert!(!fork("nothing").status.success());
    let made = fork("before");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let second = Server::start(other.path(), &["--parallelism", "1"]).await;
    let forked = second.connect().await;
    run(&forked, "INSERT INTO t VALUES (4, 20)").await;
    assert_eq!(value(&forked, "SELECT s FROM s").await, "25");
    assert_eq!(value(&client, "SELECT s FROM s").await, "1005");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_checkpoint_writes_everything_and_an_ordinary_one_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await;
    run(&client, "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) AS g(i)").await;
    run(&client, "CHECKPOINT").await;
    run(&client, "UPDATE t SET v = 'x' WHERE id = 1").await;
    run(&client, "CHECKPOINT").await;
    run(&client, "CHECKPOINT (FULL)").await;
    let bytes =
        |kind: &'static str| format!("SELECT bytes FROM millpond.checkpoints WHERE kind = '{kind}' ORDER BY started_at DESC LIMIT 1");
    let full = value(&client, &bytes("full")).await.parse::<u64>().unwrap();
    let incremental = value(&client, "SELECT min(bytes) FROM millpond.checkpoints WHERE kind <> 'full' AND bytes > 0").await;
    assert!(full > 500_000, "{full}");
    assert!(incremental.parse::<u64>().unwrap() * 10 < full, "{incremental} of {full}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_uploads_its_last_checkpoint() {
    let (dir, remote) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", remote.path().display());
    let mut server = Server::start(dir.path(), &["--checkpoint-storage", &url, "--checkpoint-storage-interval", "1h"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY)").await;
    run(&client, "INSERT INTO t VALUES (1), (2)").await;
    server.stop().await;
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    server.restart().await;
    assert_eq!(value(&server.connect().await, "SELECT count(*) FROM t").await, "2");
}

fn lose(dir: &Path) {
    std::fs::remove_dir_all(dir.join("db")).unwrap();
}

/// The first block of each data file: RocksDB opens, but what the start reads is not there.
fn damage(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("db")).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "sst"))
    {
        let mut bytes = std::fs::read(&entry).unwrap();
        bytes.iter_mut().take(8).for_each(|b| *b ^= 0xff);
        std::fs::write(&entry, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_data_directory_comes_back_from_the_checkpoint_storage() {
    comes_back_after(lose).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_comes_back_from_the_checkpoint_storage() {
    comes_back_after(damage).await;
}

async fn comes_back_after(accident: fn(&Path)) {
    let (dir, remote) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", remote.path().display());
    let arguments = ["--checkpoint-storage", &url, "--checkpoint-storage-interval", "50ms"];
    let mut server = Server::start(dir.path(), &arguments).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    run(&client, "CHECKPOINT").await;
    let epoch = value(&client, "SELECT max(epoch) FROM millpond.checkpoints").await;
    let uploaded = format!("SELECT last_epoch >= {epoch} AND error IS NULL FROM millpond.checkpoint_storage");
    wait_for(&client, &uploaded, "t").await;
    server.kill();
    accident(dir.path());
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(value(&client, "SELECT s FROM s").await, "5");
    run(&client, "INSERT INTO t VALUES (3, 10)").await;
    assert_eq!(value(&client, "SELECT s FROM s").await, "15");
}
