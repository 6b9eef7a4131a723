//! From a write to its visibility in a view over a join and an aggregate, one write after the other at low load.

use std::io::Write;
use std::time::{Duration, Instant};

use millpond_tests::server::{Server, run};
use tokio_postgres::Client;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(8);
const QUERY: &str =
    "SELECT a.branch, count(*) AS n, sum(p.amount) AS amount FROM payment p JOIN account a ON a.id = p.account GROUP BY a.branch";
const SELECT: &str = "SELECT n FROM by_branch WHERE branch = $1";

/// Prints quantiles for INSERTs and for lines appended to a file.
pub async fn measure(writes: usize) {
    println!("\nfreshness over a join and an aggregate, {writes} writes at about 100 per second, milliseconds");
    println!("{:<58} {:>8} {:>8} {:>8}", "", "p50", "p99", "p99.9");
    inserts(writes).await;
    appended_lines(writes).await;
}

async fn start(dir: &std::path::Path) -> (Server, Client) {
    let server = Server::start(dir, &["--log", "warn"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE account (id INT PRIMARY KEY, branch INT)").await;
    run(&client, "INSERT INTO account SELECT v, v % 10 FROM generate_series(1, 1000) AS t(v)").await;
    (server, client)
}

/// The SELECT behind an INSERT waits until the view contains the row.
async fn inserts(writes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (_server, client) = start(dir.path()).await;
    run(&client, "CREATE TABLE payment (id INT PRIMARY KEY, account INT, amount INT)").await;
    run(&client, &format!("CREATE MATERIALIZED VIEW by_branch AS {QUERY}")).await;
    let insert = client.prepare("INSERT INTO payment VALUES ($1, $2, $3)").await.unwrap();
    let select = client.prepare(SELECT).await.unwrap();
    let (mut durable, mut visible, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..writes as i32 {
        let account = i % 1000 + 1;
        let at = Instant::now();
        client.execute(&insert, &[&i, &account, &1]).await.unwrap();
        durable.push(at.elapsed());
        for list in [&mut visible, &mut read] {
            let at = Instant::now();
            client.query(&select, &[&(account % 10)]).await.unwrap();
            list.push(at.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
    print("INSERT to durable answer (fsync)", durable);
    print("durable answer to visible in SELECT", visible);
    print("the same SELECT with nothing to wait for", read);
}

/// The SELECT is repeated until it shows the line.
async fn appended_lines(writes: usize) {
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
    let mut counts = [0_i64; 10];
    for i in 0..writes {
        let account = i % 1000 + 1;
        let branch = account % 10;
        let count = counts.get_mut(branch).unwrap();
        *count += 1;
        let at = Instant::now();
        writeln!(file, "{i},{account},1").unwrap();
        loop {
            let rows = client.query(&select, &[&(branch as i32)]).await.unwrap();
            if rows.first().is_some_and(|r| r.get::<_, i64>(0) == *count) {
                break;
            }
            assert!(at.elapsed() < Duration::from_secs(10), "line {i} does not become visible");
        }
        visible.push(at.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    print("line appended to a followed file to visible in SELECT", visible);
}

fn print(what: &str, mut list: Vec<Duration>) {
    list.sort();
    let quantile = |q: f64| {
        let at = ((list.len() as f64 * q) as usize).min(list.len().saturating_sub(1));
        list.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    println!("{what:<58} {:>8.2} {:>8.2} {:>8.2}", quantile(0.5), quantile(0.99), quantile(0.999));
}
