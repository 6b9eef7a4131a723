//! Databases that earlier versions of the format have written, opened by this server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millpond_tests::oracle;
use millpond_tests::server::{Server, binary, repository, rows, run, value};

/// Versions of the format so far.
const VERSIONS: u32 = 3;
/// Views of [`SETUP`].
const VIEWS: usize = 7;

const SETUP: &str = "
    CREATE TABLE a (id INT PRIMARY KEY, k INT, v TEXT);
    CREATE TABLE b (id INT PRIMARY KEY, k INT, w TEXT);
    CREATE TABLE bag (x INT, y TEXT);
    INSERT INTO a SELECT g, g % 40, 'a' || g FROM generate_series(1, 400) AS t(g);
    INSERT INTO b SELECT g, g % 50, 'b' || g FROM generate_series(1, 100) AS t(g);
    INSERT INTO bag SELECT g % 7, 'x' FROM generate_series(1, 100) AS t(g);
    CREATE SOURCE transactions (transaction_id BIGINT, account_id BIGINT, amount NUMERIC(12,2), currency TEXT, at TIMESTAMP, kind TEXT, merchant TEXT)
        WITH (connector = 'file', path = 'data/transactions.csv') FORMAT PLAIN ENCODE CSV;
    CREATE MATERIALIZED VIEW pairs AS SELECT a.id AS aid, b.id AS bid, a.v, b.w FROM a JOIN b ON a.k = b.k;
    CREATE MATERIALIZED VIEW lefts AS SELECT a.id, b.w FROM a LEFT JOIN b ON a.k = b.k AND a.id < b.id;
    CREATE MATERIALIZED VIEW counted AS SELECT k, count(*) AS n FROM (SELECT a.k FROM a JOIN b ON a.k = b.k) AS x GROUP BY k;
    CREATE MATERIALIZED VIEW figures AS SELECT k, min(v) AS least, max(id) AS most, sum(id) AS total, count(DISTINCT v) AS texts FROM a GROUP BY k;
    CREATE MATERIALIZED VIEW best AS SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id DESC) AS place FROM a) AS r WHERE place <= 2;
    CREATE MATERIALIZED VIEW bags AS SELECT x, y FROM bag WHERE x > 1;
    CREATE MATERIALIZED VIEW fees AS SELECT transaction_id, amount FROM transactions WHERE kind = 'fee';
    SAVEPOINT old;
    ALTER SYSTEM SET checkpoint_interval = '1h';
    DELETE FROM a WHERE id % 7 = 0;
    UPDATE b SET w = w || '!' WHERE id % 3 = 0;
    INSERT INTO bag VALUES (2, 'x'), (3, 'y')";

/// A database that each version has written, as a crash left it.
fn golden(version: u32) -> PathBuf {
    repository().join(format!("data/golden/server-v{version}/db"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        let idle = ["LOCK", "LOG", "OPTIONS"].iter().any(|idle| name.starts_with(idle));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else if !idle {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// The version that a database says it has.
fn format(dir: &Path) -> u32 {
    std::fs::read(dir.join("db/FORMAT")).unwrap()[8].into()
}

/// `MILLPOND_BIN` names the server that writes it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes a directory that the test below reads: only for a new version of the format"]
async fn make_golden_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    for statement in SETUP.split(';') {
        run(&client, statement).await;
    }
    server.kill();
    let version = format(dir.path());
    println!("{} has written format {version}", binary().display());
    copy(&dir.path().join("db"), &golden(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_all_versions_go_on() {
    for version in 1..=VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden(version), &dir.path().join("db"));
        let mut server = Server::start(dir.path(), &["--parallelism", "3"]).await;
        let client = server.connect().await;
        assert_eq!(format(dir.path()), VERSIONS, "each version of the format has its database here");
        let compared = async |client, views| assert_eq!(oracle::check_all(client, &[]).await, Ok(views), "version {version}");
        compared(&client, VIEWS).await;
        let shown =
            "SELECT (SELECT count(*) FROM a) || ' ' || (SELECT count(*) FROM b WHERE w LIKE '%!') || ' ' || (SELECT count(*) FROM bag)";
        assert_eq!(value(&client, shown).await, "343 33 102", "version {version}");

        // State of before and of now, in one checkpoint.
        run(&client, "DELETE FROM b WHERE id % 5 = 0").await;
        run(&client, "UPDATE a SET k = k + 1 WHERE id % 3 = 0").await;
        run(&client, "INSERT INTO a SELECT g, g % 40, 'a' || g FROM generate_series(501, 600) AS t(g)").await;
        run(&client, "DELETE FROM bag WHERE x = 2").await;
        compared(&client, VIEWS).await;
        run(&client, "CHECKPOINT").await;
        let query = "SELECT k, count(*) AS n, max(k) AS most FROM (SELECT a.k FROM a JOIN b ON a.k = b.k) AS x GROUP BY k";
        run(&client, &format!("CREATE OR REPLACE MATERIALIZED VIEW counted AS {query}")).await;
        run(&client, "CREATE MATERIALIZED VIEW again AS SELECT a.id AS aid, b.id AS bid FROM a JOIN b ON a.k = b.k").await;
        compared(&client, VIEWS + 1).await;
        server.kill();
        server.set_arguments(&["--parallelism", "1"]);
        server.restart().await;
        let client = server.connect().await;
        compared(&client, VIEWS + 1).await;
        run(&client, "DELETE FROM a WHERE id % 2 = 0").await;
        compared(&client, VIEWS + 1).await;

        run(&client, "RESTORE SAVEPOINT old").await;
        let started = Instant::now();
        let client = loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(client) = server.try_connect().await
                && rows(&client, shown).await.is_ok_and(|rows| rows == [[Some("400 0 100".to_string())]])
            {
                break client;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "version {version} is not restored\n{}", server.log());
        };
        compared(&client, VIEWS).await;
    }
}
