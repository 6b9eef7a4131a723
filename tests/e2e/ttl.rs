//! `state_ttl`: what no change has touched for a while leaves the state, and the view.

use millpond_tests::server::{Server, becomes, describe, rows, run, value};
use tokio_postgres::Client;

const SETUP: [&str; 3] = [
    "CREATE TABLE t (id INT PRIMARY KEY, k INT, v INT)",
    "CREATE TABLE d (k INT PRIMARY KEY, name TEXT)",
    "INSERT INTO d SELECT i, 'n' || i FROM generate_series(0, 9) AS g(i)",
];

/// Views with each kind of operator, and some over each other. `now` stands for the rows that are not gone.
const QUERIES: [(&str, &str); 5] = [
    ("groups", "SELECT k, count(*) AS n, max(v) AS most FROM now GROUP BY k"),
    ("pairs", "SELECT now.id, d.name FROM now LEFT JOIN d ON d.k = now.k"),
    ("once", "SELECT DISTINCT k FROM now"),
    ("best", "SELECT id, v FROM now ORDER BY v DESC, id LIMIT 3"),
    ("together", "SELECT name, sum(n) AS n FROM (SELECT k, count(*) AS n FROM now GROUP BY k) AS q JOIN d ON d.k = q.k GROUP BY name"),
];

async fn set_up(server: &Server) -> Client {
    let client = server.connect().await;
    for sql in SETUP {
        run(&client, sql).await;
    }
    client
}

async fn wait_for(client: &Client, sql: &str, expected: &str) {
    becomes(client, sql, expected).await.unwrap_or_else(|error| panic!("{error}"));
}

async fn set_ttl(client: &Client, ttl: &str) {
    for (name, _) in QUERIES {
        run(client, &format!("ALTER MATERIALIZED VIEW {name} SET (state_ttl = '{ttl}')")).await;
    }
}

/// State and code, or what comes instead of an error.
async fn refused(client: &Client, sql: &str) -> (String, bool) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {}", describe(&error)));
    (error.code().code().to_string(), error.hint().is_some())
}

const STATE: &str = "SELECT coalesce(sum(state_rows), 0)::bigint FROM millpond.operators";

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_its_query_over_what_is_not_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let mut client = set_up(&server).await;
    for (name, query) in QUERIES {
        let query = query.replace("now", "t");
        run(&client, &format!("CREATE MATERIALIZED VIEW {name} WITH (state_ttl = '1 hour') AS {query}")).await;
    }
    for round in 0..4 {
        // Rows of earlier rounds are gone; that they are deleted now changes nothing.
        run(&client, &format!("DELETE FROM t WHERE id < {round} * 100 AND id % 3 = 0")).await;
        // By itself: an epoch knows no order, so what it deletes may be what it adds, where an operator cannot tell them apart.
        run(&client, "CHECKPOINT").await;
        run(&client, &format!("INSERT INTO t SELECT {round} * 100 + i, i % 10, i FROM generate_series(1, 40) AS g(i)")).await;
        run(&client, "UPDATE d SET name = name || '.'").await;
        run(&client, &format!("DELETE FROM t WHERE id > {round} * 100 AND id % 7 = 0")).await;
        if round % 2 == 1 {
            server.kill();
            server.set_arguments(&["--parallelism", if round == 1 { "3" } else { "1" }]);
            server.restart().await;
            client = server.connect().await;
        }
        run(&client, "FLUSH").await;
        for (name, query) in QUERIES {
            let query = query.replace("FROM now", &format!("FROM (SELECT * FROM t WHERE id > {round} * 100) AS now"));
            let differences = format!("(SELECT * FROM {name} EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL SELECT * FROM {name})");
            assert_eq!(rows(&client, &differences).await.unwrap(), Vec::<Vec<_>>::new(), "{name}, round {round}");
        }
        set_ttl(&client, "100ms").await;
        for (name, _) in QUERIES {
            wait_for(&client, &format!("SELECT count(*) FROM {name}"), "0").await;
        }
        // A crash would bring back what has left since the last checkpoint, and then it would live longer.
        run(&client, "CHECKPOINT").await;
        set_ttl(&client, "1 hour").await;
    }
    assert_ne!(value(&client, "SELECT count(*) FROM t").await, "0");
    wait_for(&client, STATE, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_stays_small_in_a_run_with_ever_new_keys() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = set_up(&server).await;
    run(&client, "ALTER SYSTEM SET state_ttl = '200ms'").await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT id, count(DISTINCT v) AS n, min(v) AS least FROM t GROUP BY id").await;
    run(&client, "ALTER SYSTEM RESET state_ttl").await;
    run(&client, "CREATE MATERIALIZED VIEW all_of_them AS SELECT id, count(*) AS n FROM t GROUP BY id").await;
    let state = "SELECT sum(state_rows) < 3000 FROM millpond.operators WHERE job = 'v'";
    for batch in 0..20 {
        run(&client, &format!("INSERT INTO t SELECT {batch} * 200 + i, 1, i FROM generate_series(1, 200) AS g(i)")).await;
        wait_for(&client, state, "t").await;
    }
    assert_eq!(value(&client, "SELECT count(*) FROM all_of_them").await, "4000");
    wait_for(&client, "SELECT sum(state_rows)::bigint FROM millpond.operators WHERE job = 'v'", "0").await;
    assert_eq!(value(&client, "SELECT count(*) FROM v").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_is_shown_checked_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = set_up(&server).await;
    let groups = "SELECT k, count(*) AS n FROM t GROUP BY k";
    let create = |with: &str| format!("CREATE OR REPLACE MATERIALIZED VIEW v {with} AS {groups}");
    assert_eq!(refused(&client, &create("WITH (state_ttl = 'soon')")).await, ("22023".into(), true));
    assert_eq!(refused(&client, "ALTER SYSTEM SET state_ttl = '-1s'").await, ("22023".into(), true));
    run(&client, &create("")).await;
    assert_eq!(refused(&client, "ALTER MATERIALIZED VIEW v SET (state_ttl = '1 day')").await, ("55000".into(), true));

    let plan = async |sql: &str| {
        let lines = rows(&client, &format!("EXPLAIN {sql}")).await.unwrap();
        lines.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n")
    };
    // Its operators keep other things now: they are filled anew.
    let told = plan(&create("WITH (state_ttl = '1 day')")).await;
    assert!(told.contains("expires=[group]") && told.contains("0 operators keep their state, 1 are rebuilt"), "{told}");
    run(&client, &create("WITH (state_ttl = '1 day')")).await;
    let shown = rows(&client, "SHOW CREATE MATERIALIZED VIEW v").await.unwrap();
    assert!(shown[0].iter().flatten().any(|text| text.contains("state_ttl = '1 day'")), "{shown:?}");
    // Another time alone changes nothing of it.
    let told = plan(&create("WITH (state_ttl = '2 days')")).await;
    assert!(told.contains("stays as it is"), "{told}");
    run(&client, &create("WITH (state_ttl = '2 days')")).await;
    run(&client, "ALTER MATERIALIZED VIEW v SET (state_ttl = '3 days')").await;
    let told = plan(&create("WITH (state_ttl = 0)")).await;
    assert!(!told.contains("expires") && told.contains("1 are rebuilt"), "{told}");

    run(&client, "ALTER SYSTEM SET state_ttl = '5 days'").await;
    run(&client, "CREATE MATERIALIZED VIEW w AS SELECT DISTINCT k FROM t").await;
    let shown = rows(&client, "SHOW CREATE MATERIALIZED VIEW w").await.unwrap();
    assert!(shown[0].iter().flatten().any(|text| text.contains("state_ttl = '5 days'")), "{shown:?}");
    assert!(plan("CREATE MATERIALIZED VIEW x AS SELECT DISTINCT k FROM t").await.contains("expires=[row]"));
}
