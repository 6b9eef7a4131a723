//! CREATE OR REPLACE MATERIALIZED VIEW: what is kept, that the view is its new query, and that a crash leaves one of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_tests::oracle::check_all;
use millpond_tests::server::{Server, becomes, describe, rows, run, value};
use tokio_postgres::Client;

const SETUP: [&str; 5] = [
    "CREATE TABLE t (id INT PRIMARY KEY, k INT NOT NULL, v INT)",
    "CREATE TABLE d (k INT, name TEXT)",
    "INSERT INTO t SELECT i, i % 50, i % 7 FROM generate_series(1, 2000) AS g(i)",
    "INSERT INTO t SELECT i, i % 50, NULL FROM generate_series(2001, 2100) AS g(i)",
    "INSERT INTO d SELECT NULLIF(i, 7), 'n' || (i % 5) FROM generate_series(0, 40) AS g(i)",
];

/// One query after the other, with how many operators keep the state that they had in the query before, and how many are rebuilt.
const QUERIES: [(&str, usize, usize); 15] = [
    ("SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k", 0, 1),
    // Only what is shown changes.
    ("SELECT k, s FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q WHERE n > 10", 1, 0),
    ("SELECT k AS key, n * 2 AS twice, s FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q", 1, 0),
    // Something is put on top.
    ("SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q WHERE s > 0 GROUP BY n", 1, 1),
    ("SELECT k, n, s FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q ORDER BY s DESC, k LIMIT 5", 1, 1),
    ("SELECT q.k, n, s, name FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q JOIN d ON d.k = q.k", 1, 1),
    // The join stays, and below it the groups.
    (
        "SELECT name, sum(s) AS s, max(n) AS n FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) AS q
         JOIN d ON d.k = q.k GROUP BY name",
        2,
        1,
    ),
    ("SELECT name, count(*) AS n FROM t JOIN d ON d.k = t.k GROUP BY name", 0, 2),
    ("SELECT count(DISTINCT name) AS names, count(*) AS n FROM t JOIN d ON d.k = t.k", 1, 1),
    ("SELECT name FROM d WHERE d.k NOT IN (SELECT v FROM t WHERE v IS NOT NULL)", 0, 3),
    // Rows without a partner because their key is NULL are in no state: what is above them is computed anew.
    ("SELECT d.k, t.id FROM d LEFT JOIN t ON t.k = d.k AND t.id < 60", 0, 1),
    ("SELECT count(*) AS n, count(id) AS m FROM (SELECT d.k, t.id FROM d LEFT JOIN t ON t.k = d.k AND t.id < 60) AS q", 0, 2),
    ("SELECT min(v) AS least, max(v) AS most, count(DISTINCT v) AS n FROM t", 0, 1),
    ("SELECT least + most + n AS s FROM (SELECT min(v) AS least, max(v) AS most, count(DISTINCT v) AS n FROM t) AS q", 1, 0),
    ("SELECT k, v FROM t UNION ALL SELECT k, -1 FROM d", 0, 0),
];

async fn set_up(server: &Server) -> Client {
    let client = server.connect().await;
    for sql in SETUP {
        run(&client, sql).await;
    }
    client
}

async fn check(client: &Client) {
    check_all(client, &[]).await.unwrap_or_else(|error| panic!("{error}"));
}

/// The query of the one view.
async fn definition(client: &Client) -> String {
    value(client, "SELECT definition FROM pg_matviews").await.trim().trim_end_matches(';').to_string()
}

/// The last line of EXPLAIN.
async fn summary(client: &Client, sql: &str) -> String {
    let lines = rows(client, &format!("EXPLAIN {sql}")).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    lines.last().and_then(|l| l[0].clone()).unwrap_or_default()
}

/// Writes until it is told to stop. The number of its last transaction goes on after a crash.
async fn write(client: Client, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let i = next.fetch_add(1, Ordering::Relaxed);
        let (id, other) = (10_000 + i, 1 + (i * 7919) % 2000);
        let sql = match i % 4 {
            0 => format!("INSERT INTO t VALUES ({id}, {}, {}) ON CONFLICT DO NOTHING", i % 50, i % 11),
            1 => format!("UPDATE t SET v = v + 1, k = (k + 3) % 50 WHERE id = {other}"),
            2 => format!("DELETE FROM t WHERE id = {other}"),
            _ => format!("INSERT INTO d VALUES ({}, 'w{}')", i % 60, i % 3),
        };
        if client.simple_query(&sql).await.is_err() {
            return; // the server was killed
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Reads all the time; nothing that a replacement does may be an error for a reader.
async fn read(client: Client, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        rows(&client, "SELECT * FROM v").await.map_err(|e| describe(&e))?;
        reads += 1;
    }
    Ok(reads)
}

async fn through_all_queries(workers: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", workers]).await;
    let mut client = set_up(&server).await;
    run(&client, &format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {}", QUERIES[0].0)).await;
    run(&client, "COMMENT ON MATERIALIZED VIEW v IS 'stays'").await;
    run(&client, "ALTER MATERIALIZED VIEW v SET (restart_attempts = 7)").await;
    let oid = value(&client, "SELECT oid FROM pg_class WHERE relname = 'v'").await;
    let next = Arc::new(AtomicU64::new(0));
    for (round, (query, kept, rebuilt)) in QUERIES.iter().enumerate().skip(1) {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(server.connect().await, Arc::clone(&next), Arc::clone(&stop)));
        let reader = tokio::spawn(read(server.connect().await, Arc::clone(&stop)));
        let sql = format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query}");
        let expected = format!("replacing \"v\": {kept} operators keep their state, {rebuilt} are rebuilt");
        let told = summary(&client, &sql).await;
        run(&client, &sql).await;
        assert_eq!(told, expected, "{query}");
        assert_eq!(definition(&client).await, *query);
        check(&client).await;
        if round % 3 == 0 {
            server.kill();
            let _ = (writer.await, reader.await);
            server.restart().await;
            client = server.connect().await;
            check(&client).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            check(&client).await;
            stop.store(true, Ordering::Relaxed);
            writer.await.unwrap();
            assert!(reader.await.unwrap().unwrap_or_else(|error| panic!("{query}: {error}")) > 0);
        }
    }
    assert_eq!(value(&client, "SELECT oid FROM pg_class WHERE relname = 'v'").await, oid);
    assert_eq!(value(&client, "SELECT comment FROM millpond.relations WHERE name = 'v'").await, "stays");
    let shown = rows(&client, "SHOW CREATE MATERIALIZED VIEW v").await.unwrap();
    assert!(shown[0].iter().flatten().any(|text| text.contains("restart_attempts = '7'")), "{shown:?}");
    assert_eq!(value(&client, "SELECT count(*) FROM millpond.jobs").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_its_new_query_and_keeps_what_computes_the_same() {
    through_all_queries("1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_three_workers() {
    through_all_queries("3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_between_leaves_the_old_view_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = set_up(&server).await;
    let groups = "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k";
    // Each has an operator over the groups, and a join that is rebuilt from its inputs.
    let query = |i: usize| {
        format!(
            "SELECT q.k, q.n + {i} AS n, x.id FROM ({groups}) AS q JOIN t AS x ON x.k = q.k AND x.id % {} = 0 WHERE q.s > {i}",
            2 + i % 3
        )
    };
    run(&client, &format!("CREATE MATERIALIZED VIEW v AS {}", query(0))).await;
    let next = Arc::new(AtomicU64::new(0));
    let mut current = query(0);
    let mut outcomes = [0, 0];
    for round in 1..10 {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(server.connect().await, Arc::clone(&next), Arc::clone(&stop)));
        let client = server.connect().await;
        let new = query(round);
        let sql = format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {new}");
        let replacing = tokio::spawn(async move { client.simple_query(&sql).await.is_ok() });
        tokio::time::sleep(Duration::from_millis(round as u64 * round as u64 * 8)).await;
        server.kill();
        let answered = replacing.await.unwrap();
        let _ = writer.await;
        server.restart().await;
        let client = server.connect().await;
        // Readable at once, whichever it is.
        rows(&client, "SELECT * FROM v").await.unwrap_or_else(|e| panic!("{}", describe(&e)));
        check(&client).await;
        let found = definition(&client).await;
        assert!(found == new || (found == current && !answered), "answered {answered}: {found}");
        outcomes[usize::from(found == new)] += 1;
        current = found;
    }
    println!("{} times the old view, {} times the new one", outcomes[0], outcomes[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replaced_says_why_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = set_up(&server).await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM t GROUP BY k").await;
    run(&client, "CREATE VIEW plain AS SELECT n FROM v").await;
    let replace = |query: &str| format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query}");
    let cases = [
        (replace("SELECT k, CAST(1 / (k - k) AS BIGINT) AS n FROM t"), "22012"),
        (replace("SELECT count(*) AS other FROM t"), "42P16"),
        (replace("SELECT k, n FROM v"), "42P17"),
        (replace("SELECT k, count(*) AS n FROM plain CROSS JOIN t GROUP BY k"), "42P17"),
        (replace("SELECT k, missing AS n FROM t"), "42703"),
        ("CREATE OR REPLACE MATERIALIZED VIEW t AS SELECT 1 AS x".into(), "42809"),
        ("CREATE OR REPLACE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT 1 AS x".into(), "42601"),
    ];
    for (sql, state) in &cases {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|c| c.code()), Some(*state), "{sql}: {}", describe(&error));
        check(&client).await;
    }
    // The plain view goes on with the new one.
    run(&client, &replace("SELECT k, count(*) + 1 AS n FROM t GROUP BY k")).await;
    let both = "SELECT (SELECT sum(n) FROM plain) = (SELECT sum(n) FROM v)";
    assert_eq!(value(&client, both).await, "t");
    assert_eq!(
        summary(&client, &replace("SELECT k, count(*) + 1 AS n FROM t GROUP BY k")).await,
        "\"v\" stays as it is: the query computes the same"
    );
    run(&client, &replace("SELECT other.k, count(*) + 1 AS n FROM t AS other GROUP BY other.k")).await;
    check(&client).await;
    assert_eq!(value(&client, "SELECT count(*) FROM millpond.jobs").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_over_it_follow_with_what_they_have_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = set_up(&server).await;
    for sql in [
        "CREATE MATERIALIZED VIEW v AS SELECT k, v AS n FROM t WHERE v IS NOT NULL",
        "CREATE VIEW plain AS SELECT k, n FROM v WHERE n > 1",
        "CREATE MATERIALIZED VIEW per_k AS SELECT k, max(n) AS most, count(*) AS rows FROM plain GROUP BY k",
        "CREATE MATERIALIZED VIEW named AS
           SELECT p.k, p.most, d.names FROM per_k AS p JOIN (SELECT k, count(*) AS names FROM d GROUP BY k) AS d ON d.k = p.k",
        "CREATE MATERIALIZED VIEW apart AS SELECT k, count(*) AS n FROM d GROUP BY k",
    ] {
        run(&client, sql).await;
    }
    let apart = value(&client, "SELECT id FROM millpond.jobs WHERE name = 'apart'").await;
    let next = Arc::new(AtomicU64::new(0));
    for (round, query) in [
        "SELECT k, v + 1 AS n FROM t WHERE v IS NOT NULL",
        "SELECT k, max(v) AS n FROM t GROUP BY k, id % 5",
        "SELECT DISTINCT k, v AS n FROM t",
        "SELECT k, v AS n FROM t",
    ]
    .iter()
    .enumerate()
    {
        let client = server.connect().await;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(server.connect().await, Arc::clone(&next), Arc::clone(&stop)));
        let sql = format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query}");
        // The count per k of the other table is kept; the join above it is not.
        let told = summary(&client, &sql).await;
        assert_eq!(told, "replacing \"named\": 1 operators keep their state, 1 are rebuilt");
        run(&client, &sql).await;
        check(&client).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        check(&client).await;
        stop.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        if round % 2 == 0 {
            server.kill();
            server.restart().await;
            check(&server.connect().await).await;
        }
    }
    let client = server.connect().await;
    assert_eq!(value(&client, "SELECT id FROM millpond.jobs WHERE name = 'apart'").await, apart);
    // A view over it would have other columns.
    let error = client.batch_execute("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k, 'x' AS n FROM t").await.unwrap_err();
    assert_eq!(error.code().map(|c| c.code()), Some("42P16"));
    check(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_has_failed_gets_a_query_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = set_up(&server).await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT k, sum(100 / (v + 1)) AS s FROM t GROUP BY k").await;
    run(&client, "INSERT INTO t VALUES (0, 1, -1)").await;
    millpond_tests::server::wait_for(&client, "SELECT state FROM millpond.jobs", "FAILED").await;
    run(&client, "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k, sum(100 / nullif(v + 1, 0)) AS s FROM t GROUP BY k").await;
    check(&client).await;
    run(&client, "DELETE FROM t WHERE id = 0").await;
    check(&client).await;
}

/// With unaligned checkpoints and a queue before a slow view, a view is replaced when the queue is worked off; after a kill, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_waits_for_what_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = set_up(&server).await;
    for sql in [
        "ALTER SYSTEM SET checkpoint_mode = 'unaligned'",
        "ALTER SYSTEM SET checkpoint_interval = '20ms'",
        "ALTER SYSTEM SET epochs_in_flight_max = 32",
        "CREATE MATERIALIZED VIEW pair AS SELECT a.id, b.id AS other, b.v FROM t a JOIN t b ON (a.id * 31 + b.id * 17) % 1000 = a.k",
        "CREATE MATERIALIZED VIEW total AS SELECT other, count(*) AS n, sum(v) AS s FROM pair GROUP BY other",
    ] {
        run(&client, sql).await;
    }
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    for query in [
        "SELECT other, s FROM (SELECT other, count(*) AS n, sum(v) AS s FROM pair GROUP BY other) AS q WHERE n > 1",
        "SELECT v, count(*) AS n FROM pair GROUP BY v",
    ] {
        let writer = tokio::spawn(write(server.connect().await, Arc::clone(&next), Arc::clone(&stop)));
        let client = server.connect().await;
        becomes(&client, "SELECT count(*) > 0 FROM millpond.checkpoints WHERE kind = 'unaligned'", "t").await.unwrap();
        run(&client, &format!("CREATE OR REPLACE MATERIALIZED VIEW total AS {query}")).await;
        check(&client).await;
        let before = value(&client, "SELECT max(epoch) FROM millpond.checkpoints").await;
        let sql = format!("SELECT count(*) > 0 FROM millpond.checkpoints WHERE kind = 'unaligned' AND epoch > {before}");
        becomes(&client, &sql, "t").await.unwrap();
        server.kill();
        writer.abort();
        let _ = writer.await;
        server.restart().await;
        check(&server.connect().await).await;
    }
}

/// CANCEL JOB does not wait for the statement that it is to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_is_cancelled_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = set_up(&server).await;
    run(&client, "INSERT INTO t SELECT i, i % 7, 1 FROM generate_series(10000, 18000) AS g(i)").await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS s FROM t GROUP BY k").await;
    let before = definition(&client).await;
    let other = server.connect().await;
    let replace =
        "CREATE OR REPLACE MATERIALIZED VIEW v WITH (backfill_rate_limit = 100) AS SELECT k + 1 AS k, count(*) AS s FROM t GROUP BY k + 1";
    let replacing = tokio::spawn(async move { other.batch_execute(replace).await });
    let job = "SELECT max(id) FROM millpond.jobs WHERE state = 'BACKFILLING' AND rows_done > 0";
    becomes(&client, &format!("SELECT ({job}) IS NOT NULL"), "t").await.unwrap();
    run(&client, &format!("CANCEL JOB {}", value(&client, job).await)).await;
    let error = replacing.await.unwrap().unwrap_err();
    assert_eq!(error.code().map(|c| c.code()), Some("57014"), "{error:?}");
    assert_eq!(definition(&client).await, before);
    check(&client).await;
    run(&client, "CREATE TABLE others_go_on (id INT)").await;
}
