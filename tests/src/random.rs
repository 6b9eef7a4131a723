//! Random views over random histories: after every few transactions each view must equal its query, run in batch over
//! the same rows; and again after `kill -9` and a restart with another number of workers.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::oracle;
use crate::server::{Server, describe, run, wait_for};
use crate::workload::queries::{Kind, Queries, Shape};

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is random.
    pub seed: u64,
    /// Views.
    pub views: usize,
    /// Times that the views are compared; some transactions go before each.
    pub comparisons: usize,
}

/// What it saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Views that were made.
    pub views: usize,
    /// Queries that are not supported in a view, and said so.
    pub refused: usize,
    /// Transactions.
    pub transactions: usize,
    /// Views compared with their query.
    pub comparisons: usize,
}

const SCHEMA: &str = "
CREATE TABLE t (id INT PRIMARY KEY, k INT, s TEXT, a NUMERIC(10,2), at TIMESTAMP);
CREATE TABLE u (id INT PRIMARY KEY, k INT, s VARCHAR, v INT);
CREATE TABLE w (k INT, a NUMERIC(10,2))";

fn tables() -> Vec<Shape> {
    use Kind::{Amount, Int, Text, Time};
    vec![
        Shape::new("t", &[("id", Int), ("k", Int), ("s", Text), ("a", Amount), ("at", Time)]),
        Shape::new("u", &[("id", Int), ("k", Int), ("s", Text), ("v", Int)]),
        Shape::new("w", &[("k", Int), ("a", Amount)]),
        Shape::new("TUMBLE(t, at, INTERVAL '1 hour')", &[("k", Int), ("a", Amount), ("window_start", Time)]),
        Shape::new("HOP(t, at, INTERVAL '1 hour', INTERVAL '2 hours')", &[("id", Int), ("s", Text), ("window_end", Time)]),
    ]
}

/// Runs the plan; an error says what was violated.
pub async fn run_plan(plan: &Plan, dir: &Path) -> Result<Outcome, String> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let workers = |n: u64| ["--parallelism", if n.is_multiple_of(2) { "1" } else { "2" }];
    let mut server = Server::start(dir, &workers(plan.seed)).await;
    let mut client = server.connect().await;
    for statement in SCHEMA.split(';') {
        run(&client, statement).await;
    }
    let mut outcome = Outcome::default();
    let mut relations = tables();
    for round in 0..plan.comparisons {
        // Some views see all of the history, others begin with the rows that are there.
        let wanted = (plan.views * (round + 1)).div_ceil(plan.comparisons.max(1)).min(plan.views);
        while outcome.views < wanted {
            let depth = random.random_range(0..4);
            let (sql, columns) = Queries::new(relations.clone(), &mut random).query(depth);
            let name = format!("v{}", outcome.views);
            match client.batch_execute(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await {
                Ok(()) => {
                    outcome.views += 1;
                    if random.random_bool(0.3) {
                        relations.push(Shape { from: name, columns });
                    }
                }
                Err(e) if e.code().is_some_and(|c| c.code() == "0A000") => {
                    outcome.refused += 1;
                    if outcome.refused > 20 * plan.views {
                        return Err("most queries are refused".into());
                    }
                }
                Err(e) => return Err(format!("seed {}: {}\n{sql}", plan.seed, describe(&e))),
            }
        }
        for _ in 0..random.random_range(1..6) {
            transact(&client, &mut random).await?;
            outcome.transactions += 1;
        }
        if round % 4 == 3 {
            server.kill();
            server.set_arguments(&workers(plan.seed + round as u64 / 4 + 1));
            server.restart().await;
            client = server.connect().await;
        }
        // After a restart a view may be filling again.
        wait_for(&client, "SELECT count(*) FROM millpond.jobs WHERE state = 'BACKFILLING'", "0").await;
        let context = |e: String| format!("seed {} at comparison {round}: {e}", plan.seed);
        outcome.comparisons += oracle::check_all(&client, &[]).await.map_err(context)?;
    }
    server.stop().await;
    Ok(outcome)
}

async fn transact(client: &Client, random: &mut StdRng) -> Result<(), String> {
    let mut sql = String::from("BEGIN;");
    for _ in 0..random.random_range(1..5) {
        sql += &statement(random);
        sql += ";";
    }
    sql += if random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" };
    client.batch_execute(&sql).await.map_err(|e| format!("{}\n{sql}", describe(&e)))
}

fn statement(random: &mut StdRng) -> String {
    let null = |random: &mut StdRng, text: String| if random.random_bool(0.12) { "NULL".to_string() } else { text };
    let int = |random: &mut StdRng| {
        let n = random.random_range(-1..7);
        null(random, n.to_string())
    };
    let text = |random: &mut StdRng| {
        let t = ["a", "b", "c", "ab", ""][random.random_range(0..5)];
        null(random, format!("'{t}'"))
    };
    let amount = |random: &mut StdRng| {
        let t = format!("{}.{:02}", random.random_range(-3..9), random.random_range(0..100));
        null(random, t)
    };
    let time = |random: &mut StdRng| {
        let t = format!("'2026-01-01 0{}:{:02}:00'", random.random_range(0..6), random.random_range(0..60));
        null(random, t)
    };
    let id = random.random_range(0..25);
    match random.random_range(0..12) {
        0..3 => format!(
            "INSERT INTO t VALUES ({id}, {}, {}, {}, {}) ON CONFLICT (id) DO UPDATE SET k = excluded.k, a = excluded.a",
            int(random),
            text(random),
            amount(random),
            time(random)
        ),
        3..5 => format!(
            "INSERT INTO u VALUES ({id}, {}, {}, {}) ON CONFLICT (id) DO UPDATE SET s = excluded.s, v = excluded.v",
            int(random),
            text(random),
            int(random)
        ),
        5..7 => format!("INSERT INTO w VALUES ({}, {}), ({}, {})", int(random), amount(random), int(random), amount(random)),
        7 => format!("UPDATE t SET k = {}, s = {} WHERE id BETWEEN {id} AND {}", int(random), text(random), id + 4),
        8 => format!("UPDATE u SET k = k + 1 WHERE v = {}", random.random_range(-1..7)),
        9 => format!("DELETE FROM t WHERE id BETWEEN {id} AND {}", id + 2),
        10 => format!("DELETE FROM w WHERE k = {}", random.random_range(-1..7)),
        _ => format!("UPDATE w SET a = a + 1 WHERE k < {}", random.random_range(-1..7)),
    }
}
