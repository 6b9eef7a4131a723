//! New views over full tables: throttled, killed in the middle, cancelled.

use millpond_tests::oracle;
use millpond_tests::server::{Server, rows, run, value, wait_for};
use tokio_postgres::Client;

const ROWS: u64 = 20_000;

async fn number(client: &Client, sql: &str) -> u64 {
    value(client, sql).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_is_gone_on_from_and_cancel_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY, g INT NOT NULL, v INT NOT NULL)").await;
    run(&client, "CREATE TABLE n (g INT NOT NULL, name TEXT)").await; // no key: the same row twice
    run(&client, &format!("INSERT INTO t SELECT i, i % 50, i FROM generate_series(1, {ROWS}) AS s(i)")).await;
    run(&client, "INSERT INTO n SELECT i % 50, 'n' || (i % 7) FROM generate_series(1, 700) AS s(i)").await;
    run(&client, "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS rows FROM t").await;
    run(&client, "SET background_ddl = on").await;
    run(&client, "CREATE MATERIALIZED VIEW j WITH (backfill_rate_limit = 4000) AS SELECT t.id, t.v, n.name FROM t JOIN n ON t.g = n.g")
        .await;
    run(&client, "CREATE MATERIALIZED VIEW s AS SELECT name, count(*) AS c, sum(v) AS v FROM j GROUP BY name").await;
    let done = "SELECT rows_done FROM millpond.jobs WHERE name = 'j'";
    let mut round = 0;
    while number(&client, done).await < ROWS / 2 {
        run(&client, &format!("UPDATE t SET v = v + 1 WHERE id % 97 = {}", round % 97)).await;
        run(&client, &format!("DELETE FROM t WHERE id % 997 = {round}")).await;
        run(&client, &format!("INSERT INTO t VALUES ({}, 3, 3)", 100_000 + round)).await;
        // The other view is not held up.
        assert_eq!(value(&client, "SELECT (SELECT rows FROM other) = (SELECT count(*) FROM t)").await, "t");
        round += 1;
    }
    run(&client, "CHECKPOINT").await;
    run(&client, "UPDATE t SET v = v + 1 WHERE id % 89 = 1").await;
    drop(client);
    server.kill();
    server.set_arguments(&["--parallelism", "1"]);
    server.restart().await;

    let client = server.connect().await;
    assert!(number(&client, done).await >= ROWS / 2, "the progress is kept");
    let error = rows(&client, "SELECT * FROM j").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000");
    run(&client, "UPDATE t SET v = v + 1 WHERE id % 83 = 1").await;
    wait_for(&client, "SELECT count(*) FROM millpond.jobs WHERE state = 'RUNNING'", "3").await;
    assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 3);
    let again = number(&client, "SELECT input_rows FROM millpond.jobs WHERE name = 'j'").await;
    assert!(again < ROWS * 3 / 4, "{again} of {ROWS} rows were read after the kill");

    run(&client, "SET background_ddl = on").await;
    run(&client, "CREATE MATERIALIZED VIEW c WITH (backfill_rate_limit = 100) AS SELECT g, sum(v) AS v FROM t GROUP BY g").await;
    wait_for(&client, "SELECT rows_done > 0 FROM millpond.jobs WHERE name = 'c'", "t").await;
    run(&client, &format!("CANCEL JOB {}", value(&client, "SELECT id FROM millpond.jobs WHERE name = 'c'").await)).await;
    assert_eq!(value(&client, "SELECT count(*) FROM millpond.jobs WHERE name = 'c'").await, "0");
    assert_eq!(rows(&client, "SELECT * FROM c").await.unwrap_err().code().unwrap().code(), "42P01");
    run(&client, "ALTER SYSTEM SET backfill_rate_limit = 1000000").await;
    run(&client, "SET background_ddl = off").await;
    run(&client, "CREATE MATERIALIZED VIEW c AS SELECT g, sum(v) AS v FROM t GROUP BY g").await;
    assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 4);
    server.stop().await;
}

/// A view over one that only grows comes to its end though rows are added faster than it reads, over a kill and with other workers.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_over_one_that_only_grows_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("event.csv");
    let mut written = 0..0u64;
    let mut append = |rows: u64| {
        written = written.end..written.end + rows;
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        let text = written.clone().map(|i| format!("{i},{}\n", i % 1000)).collect::<String>();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    append(30_000);
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    let options = format!("connector = 'file', path = '{}', follow = 'true'", dir.path().join("event.csv").display());
    run(&client, &format!("CREATE SOURCE event (k BIGINT, v BIGINT) WITH ({options}) FORMAT PLAIN ENCODE CSV (header = 'false')")).await;
    run(&client, "CREATE MATERIALIZED VIEW copy AS SELECT k, v FROM event").await;
    run(&client, "CHECKPOINT").await;
    run(&client, "SET background_ddl = on").await;
    let query = "SELECT k % 10 AS g, count(*) AS n, sum(v) AS v FROM copy GROUP BY 1";
    run(&client, &format!("CREATE MATERIALIZED VIEW c WITH (backfill_rate_limit = 5000) AS {query}")).await;
    let done = "SELECT rows_done FROM millpond.jobs WHERE name = 'c'";
    while number(&client, done).await < 10_000 {
        append(1000);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    run(&client, "CHECKPOINT").await;
    append(1000);
    drop(client);
    server.kill();
    server.set_arguments(&["--parallelism", "3"]);
    server.restart().await;

    let client = server.connect().await;
    assert!(number(&client, done).await >= 10_000, "the progress is kept");
    assert_eq!(rows(&client, "SELECT * FROM c").await.unwrap_err().code().unwrap().code(), "55000");
    append(1000);
    wait_for(&client, "SELECT count(*) FROM millpond.jobs WHERE state = 'RUNNING'", "2").await;
    append(1000);
    wait_for(&client, "SELECT count(*) FROM copy", &written.end.to_string()).await;
    assert_eq!(value(&client, "SELECT sum(n) FROM c").await, written.end.to_string());
    assert_eq!(oracle::check_all(&client, &[("event", "copy")]).await.unwrap(), 1);
    let read = number(&client, done).await;
    assert!(read <= 35_000, "{read} rows were read: those that were added meanwhile are not among them");
    server.stop().await;
}
