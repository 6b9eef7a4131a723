//! Hours of checkpoints at an interval of one second: files, disk, memory and what is written stay bounded.

use std::path::Path;
use std::time::{Duration, Instant};

use millpond_tests::oracle;
use millpond_tests::server::{Server, rows, run, value};
use tokio_postgres::Client;

use crate::usage;

/// Accounts that are updated, again and again.
const ACCOUNTS: u64 = 500_000;
/// What one statement updates.
const CHANGED: u64 = 400;
/// Time from one statement to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// Time from one line of the table to the next.
const LINE: Duration = Duration::from_secs(60);

/// Updates accounts below an aggregate and a join for so many seconds, and prints a line each minute.
pub async fn measure(seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log", "warn", "--parallelism", "1", "--memory", "512MB"]).await;
    let client = server.connect().await;
    run(&client, "ALTER SYSTEM SET checkpoint_interval = '1s'").await;
    run(&client, "CREATE TABLE account (id BIGINT PRIMARY KEY, branch BIGINT, amount BIGINT); CREATE TABLE branch (id BIGINT PRIMARY KEY)")
        .await;
    run(&client, &format!("INSERT INTO account SELECT v, v % 1000, v FROM generate_series(1, {ACCOUNTS}) AS t(v)")).await;
    run(&client, "INSERT INTO branch SELECT v FROM generate_series(0, 999) AS t(v)").await;
    let views = [
        ("of_branch", "SELECT branch, count(*) AS n, sum(amount) AS amount FROM account GROUP BY branch"),
        ("rich", "SELECT a.id, a.amount, b.id AS branch FROM account a JOIN branch b ON b.id = a.branch WHERE a.amount % 7 = 0"),
    ];
    for (name, query) in views {
        run(&client, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await;
    }
    println!(
        "\nsoak: {ACCOUNTS} rows, {CHANGED} of them updated each {PAUSE:?}, a checkpoint each second, --memory 512MB; load {}",
        usage::load()
    );
    println!("minute checkpoints failed longest_s stall_ms files disk_MB rss_MB checkpointed_MB log_and_state_written_MB cpu_%");
    let (started, mut line, mut epoch, mut number) = (Instant::now(), Instant::now(), 0, 0u64);
    let mut cpu = usage::cpu_time(server.process_id());
    while started.elapsed() < Duration::from_secs(seconds) {
        let first = number * CHANGED % ACCOUNTS + 1;
        number += 1;
        run(&client, &format!("UPDATE account SET amount = amount + 1 WHERE id BETWEEN {first} AND {}", first + CHANGED - 1)).await;
        tokio::time::sleep(PAUSE).await;
        if line.elapsed() >= LINE {
            let used = usage::cpu_time(server.process_id());
            let busy = (used - cpu).as_secs_f64() / line.elapsed().as_secs_f64() * 100.0;
            (line, cpu) = (Instant::now(), used);
            epoch = report(&client, &server, &dir.path().join("db"), started.elapsed().as_secs() / 60, epoch, busy).await;
        }
    }
    for (name, query) in views {
        let found = rows(&client, &oracle::both_sides(name, query)).await.unwrap();
        oracle::compare(name, query, found).unwrap();
    }
    println!("{number} statements; both views equal their queries; written in all {} MB", usage::written(server.process_id()) >> 20);
}

/// Prints what has been since an epoch; the newest epoch.
async fn report(client: &Client, server: &Server, data: &Path, minute: u64, since: u64, busy: f64) -> u64 {
    let sql =
        "SELECT count(*), count(error), max(extract(epoch FROM duration)), max(extract(epoch FROM stall)) * 1000, sum(bytes) / 1000000
        FROM millpond.checkpoints";
    let found = rows(client, &format!("{sql} WHERE epoch > {since}")).await.unwrap();
    let figure = |i: usize| found.first().and_then(|r| r.get(i)?.as_deref()?.parse::<f64>().ok()).unwrap_or(0.0);
    println!(
        "{minute:>6} {:>11} {:>6} {:>9.3} {:>8.2} {:>5} {:>7} {:>6} {:>15.1} {:>24} {busy:>5.1}",
        figure(0),
        figure(1),
        figure(2),
        figure(3),
        usage::files(data, "sst"),
        usage::disk(data) >> 20,
        usage::rss(server.process_id()) >> 20,
        figure(4),
        usage::written(server.process_id()) >> 20,
    );
    value(client, "SELECT max(epoch) FROM millpond.checkpoints").await.parse().unwrap_or(since)
}
