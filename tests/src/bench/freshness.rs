//! From a write to its visibility in a view over a join and an aggregate, at several rates. A write is made every ten
//! milliseconds, of as many rows as the rate asks for; at the highest rate one write follows the other.

use std::io::Write;
use std::time::{Duration, Instant};

use millpond_tests::server::{Server, run};
use tokio_postgres::Client;

/// From the beginning of a write to that of the next.
const TICK: Duration = Duration::from_millis(10);
const QUERY: &str =
    "SELECT a.branch, count(*) AS n, sum(p.amount) AS amount FROM payment p JOIN account a ON a.id = p.account GROUP BY a.branch";
const SELECT: &str = "SELECT n FROM by_branch WHERE branch = $1";
const BRANCHES: usize = 10;

/// How much is written.
struct Rate {
    name: &'static str,
    /// Rows of one write.
    rows: u64,
    tick: Duration,
}

const RATES: [Rate; 4] = [
    Rate { name: "100 rows/s", rows: 1, tick: TICK },
    Rate { name: "10 k rows/s", rows: 100, tick: TICK },
    Rate { name: "100 k rows/s", rows: 1000, tick: TICK },
    Rate { name: "as fast as answered", rows: 10_000, tick: Duration::ZERO },
];

/// Prints quantiles for INSERTs and for lines appended to a file.
pub async fn measure(writes: usize) {
    println!("\nfreshness over a join and an aggregate, {writes} writes each, milliseconds; load {}", crate::usage::load());
    println!("{:<21} {:<52} {:>8} {:>8} {:>8} {:>10}", "rate", "", "p50", "p99", "p99.9", "rows/s");
    for rate in &RATES {
        inserts(rate, writes).await;
    }
    for rate in &RATES {
        appended_lines(rate, writes).await;
    }
}

async fn start(dir: &std::path::Path) -> (Server, Client) {
    let server = Server::start(dir, &["--log", "warn"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE account (id INT PRIMARY KEY, branch INT)").await;
    run(&client, &format!("INSERT INTO account SELECT v, v % {BRANCHES} FROM generate_series(1, 1000) AS t(v)")).await;
    (server, client)
}

/// What has been written, row by row: ids from 0, accounts in turn.
#[derive(Default)]
struct Written {
    rows: u64,
    by_branch: [i64; BRANCHES],
}

impl Written {
    fn account(id: u64) -> u64 {
        id % 1000 + 1
    }

    /// The ids of the next write, the branch of its last row, and how many rows that has then.
    fn add(&mut self, rows: u64) -> (std::ops::Range<u64>, i32, i64) {
        let ids = self.rows..self.rows + rows;
        self.rows += rows;
        let branch = |id: u64| Written::account(id) as usize % BRANCHES;
        ids.clone().for_each(|id| self.by_branch[branch(id)] += 1);
        let last = branch(self.rows - 1);
        (ids, last as i32, self.by_branch[last])
    }
}

/// The SELECT behind an INSERT waits until the view contains its rows.
async fn inserts(rate: &Rate, writes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    run(&client, "CREATE TABLE payment (id INT PRIMARY KEY, account INT, amount INT)").await;
    run(&client, &format!("CREATE MATERIALIZED VIEW by_branch AS {QUERY}")).await;
    let select = client.prepare(SELECT).await.unwrap();
    let (mut durable, mut visible, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let mut written = Written::default();
    let started = Instant::now();
    for _ in 0..writes {
        let at = Instant::now();
        let (ids, branch, count) = written.add(rate.rows);
        let insert = match rate.rows {
            1 => format!("INSERT INTO payment VALUES ({}, {}, 1)", ids.start, Written::account(ids.start)),
            _ => format!("INSERT INTO payment SELECT v, v % 1000 + 1, 1 FROM generate_series({}, {}) AS t(v)", ids.start, ids.end - 1),
        };
        run(&client, &insert).await;
        durable.push(at.elapsed());
        for list in [&mut visible, &mut read] {
            let at = Instant::now();
            let rows = client.query(&select, &[&branch]).await.unwrap();
            list.push(at.elapsed());
            assert_eq!(rows.first().map(|r| r.get::<_, i64>(0)), Some(count), "the INSERT is not visible");
        }
        tokio::time::sleep(rate.tick.saturating_sub(at.elapsed())).await;
    }
    let per_second = written.rows as f64 / started.elapsed().as_secs_f64();
    print(rate, "INSERT to its durable answer (with fsync)", durable, per_second);
    print(rate, "durable answer to visible in SELECT", visible, per_second);
    print(rate, "the same SELECT with nothing to wait for", read, per_second);
}

/// The SELECT is repeated until it shows the lines.
async fn appended_lines(rate: &Rate, writes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    let path = dir.path().join("payment.csv");
    let mut file = std::fs::File::create(&path).unwrap();
    writeln!(file, "id,account,amount").unwrap();
    let options = format!("connector = 'file', path = '{}', follow = 'true'", path.display());
    run(&client, &format!("CREATE SOURCE payment (id INT, account INT, amount INT) WITH ({options}) FORMAT PLAIN ENCODE CSV")).await;
    run(&client, &format!("CREATE MATERIALIZED VIEW by_branch AS {QUERY}")).await;
    let select = client.prepare(SELECT).await.unwrap();
    let mut visible = Vec::new();
    let mut written = Written::default();
    let started = Instant::now();
    for _ in 0..writes {
        let (ids, branch, count) = written.add(rate.rows);
        let lines = ids.map(|id| format!("{id},{},1\n", Written::account(id))).collect::<String>();
        let at = Instant::now();
        file.write_all(lines.as_bytes()).unwrap();
        loop {
            let rows = client.query(&select, &[&branch]).await.unwrap();
            if rows.first().is_some_and(|r| r.get::<_, i64>(0) == count) {
                break;
            }
            assert!(at.elapsed() < Duration::from_secs(10), "a line does not become visible");
        }
        visible.push(at.elapsed());
        tokio::time::sleep(rate.tick.saturating_sub(at.elapsed())).await;
    }
    let per_second = written.rows as f64 / started.elapsed().as_secs_f64();
    print(rate, "line appended to a followed file to visible", visible, per_second);
}

fn print(rate: &Rate, what: &str, mut list: Vec<Duration>, per_second: f64) {
    list.sort();
    let quantile = |q: f64| {
        let at = ((list.len() as f64 * q) as usize).min(list.len().saturating_sub(1));
        list.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    println!("{:<21} {what:<52} {:>8.2} {:>8.2} {:>8.2} {per_second:>10.0}", rate.name, quantile(0.5), quantile(0.99), quantile(0.999));
}
