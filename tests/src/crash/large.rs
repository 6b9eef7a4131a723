//! State that memory has no room for, and views that are being filled when the server dies.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::Client;

use super::model::Model;
use crate::finding::Finding;
use crate::server::{describe, rows, run};

const SCHEMA: &str = "
CREATE TABLE entry (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, v BIGINT NOT NULL);
CREATE MATERIALIZED VIEW entry_by_k AS SELECT k, count(*) AS n, sum(v) AS v, min(v) AS low, max(v) AS high FROM entry GROUP BY k;
CREATE MATERIALIZED VIEW entry_pairs AS SELECT e.id, e.v, o.v AS other FROM entry e LEFT JOIN entry o ON o.id = e.k;
CREATE MATERIALIZED VIEW entry_best AS SELECT id, k, v FROM
  (SELECT *, row_number() OVER (PARTITION BY k % 500 ORDER BY v DESC, id) AS place FROM entry) AS ranked WHERE place <= 3;
CREATE MATERIALIZED VIEW entry_values AS SELECT DISTINCT v, k % 100 AS k FROM entry;
";

/// Views that come and go, in the order in which they depend on each other.
const FILLS: [(&str, &str); 3] = [
    ("filling", "SELECT k, count(*) AS n, sum(v) AS v FROM entry GROUP BY k"),
    ("filling_join", "SELECT e.id, e.v, a.branch FROM entry e JOIN account a ON e.k % 60 = a.id"),
    ("filling_over", "SELECT n, count(*) AS groups, sum(v) AS v FROM filling GROUP BY n"),
];

/// The large table, its rows and its views.
pub(super) async fn make(client: &Client, model: &mut Model) {
    let mut statements = SCHEMA.split(';').map(str::trim).filter(|s| !s.is_empty());
    run(client, statements.next().expect("it begins with the table")).await;
    model.fill(client).await;
    for statement in statements {
        run(client, statement).await;
    }
}

/// Memory for state, and how often it leaves it.
pub(super) async fn tighten(client: &Client, random: &mut StdRng) {
    let memory = ["64kB", "512kB", "4MB", "0"].choose(random).expect("not empty");
    let interval = ["50ms", "200ms", "1s"].choose(random).expect("not empty");
    run(client, &format!("ALTER SYSTEM SET state_memory = '{memory}'")).await;
    run(client, &format!("ALTER SYSTEM SET checkpoint_interval = '{interval}'")).await;
}

/// Makes, drops and cancels views that take some lives of the server to fill.
pub(super) async fn fill(client: &Client, random: &mut StdRng, large_rows: i64) -> Result<(), Finding> {
    let send = async |sql: &str| match rows(client, sql).await {
        Ok(rows) => Ok(Some(rows)),
        // The server is gone.
        Err(e) if e.as_db_error().is_none() => Ok(None),
        Err(e) => Err(Finding::Misbehaved(format!("{sql}: {}", describe(&e)))),
    };
    if send("SET background_ddl = on").await?.is_none() {
        return Ok(());
    }
    let Some(jobs) = send("SELECT name, state, id FROM millpond.jobs WHERE name LIKE 'filling%'").await? else { return Ok(()) };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    for (name, query) in FILLS {
        let job = jobs.iter().find(|job| text(&job[0]) == name);
        let filled = job.is_some_and(|job| text(&job[1]) == "RUNNING");
        if filled && random.random_bool(0.5) || job.is_some() && random.random_bool(0.05) {
            // What reads it goes too, and comes back another time.
            return send(&format!("DROP MATERIALIZED VIEW {name} CASCADE")).await.map(drop);
        }
        if job.is_none() {
            let rate = large_rows / random.random_range(1..5);
            let made = send(&format!("CREATE MATERIALIZED VIEW {name} WITH (backfill_rate_limit = {rate}) AS {query}")).await?;
            if made.is_none() {
                return Ok(());
            }
        }
    }
    Ok(())
}
