//! Many views over one source: it is read and decoded once, so the cost of an event should grow by less than the views;
//! and what so many views cost while nothing happens. And views with a part in common: each with its own, or over a view of it.

use std::time::{Duration, Instant};

use millpond_tests::server::{Server, run, value, wait_for};

use crate::usage;

/// Other groups for each view.
const DISTINCT: usize = 1000;

/// Prints a line for each number of views.
pub async fn measure(numbers: &[usize], rows: u64, seconds: u64) {
    println!("\nviews over one followed CSV file, {rows} rows; load {}", usage::load());
    println!(
        "{:>6} {:>9} {:>9} {:>13} {:>19} {:>8} {:>14} {:>10}",
        "views", "wall s", "CPU s", "us per event", "us per event, view", "peak MB", "idle % of core", "idle MB"
    );
    for number in numbers {
        one(*number, rows, seconds).await;
    }
    println!("\n{SHARERS} aggregates over the join of Nexmark's auctions with their bids, {rows} events; load {}", usage::load());
    println!("{:>22} {:>9} {:>12} {:>8} {:>8}", "", "CPU s", "us per event", "state MB", "peak MB");
    for named in [false, true] {
        common(named, rows).await;
    }
}

/// Views that have a join in common.
const SHARERS: usize = 10;
const JOIN: &str =
    "SELECT a.category, a.seller, b.price FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires";

/// The join in each view, or in a view over which they are.
async fn common(named: bool, events: u64) {
    usage::warm_memory();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log", "warn", "--parallelism", "1", "--memory", "8GB"]).await;
    let client = server.connect().await;
    run(&client, &crate::nexmark::sources(events)).await;
    run(&client, "SET background_ddl = on").await;
    if named {
        run(&client, &format!("CREATE MATERIALIZED VIEW auction_bid AS {JOIN}")).await;
    }
    let join = if named { "auction_bid".to_string() } else { format!("({JOIN})") };
    for view in 0..SHARERS {
        let query = format!(
            "SELECT category, count(*) AS n, sum(price) AS total FROM {join} AS j WHERE seller % {SHARERS} = {view} GROUP BY category"
        );
        run(&client, &format!("CREATE MATERIALIZED VIEW v{view} AS {query}")).await;
    }
    wait_for(&client, "SELECT count(*) FROM millpond.sources WHERE finished", "2").await;
    wait_for(&client, "SELECT count(*) FROM millpond.progress", "0").await;
    run(&client, "FLUSH").await;
    run(&client, "CHECKPOINT").await;
    let process = server.process_id();
    let cpu = usage::cpu_time(process).as_secs_f64();
    let state = value(&client, "SELECT sum(state_bytes)::BIGINT / 1000000 FROM millpond.operators").await;
    println!(
        "{:>22} {cpu:>9.2} {:>12.3} {state:>8} {:>8}",
        if named { "over a view of it" } else { "each with its own" },
        cpu * 1e6 / events as f64,
        usage::rss_peak(process) >> 20
    );
    let all = (0..SHARERS).map(|view| format!("(SELECT sum(n) FROM v{view})")).collect::<Vec<_>>().join(" + ");
    let expected = value(&client, &format!("SELECT count(*) FROM ({JOIN}) AS j")).await;
    assert_eq!(value(&client, &format!("SELECT {all}")).await, expected);
}

async fn one(number: usize, rows: u64, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log", "warn", "--parallelism", "1"]).await;
    let client = server.connect().await;
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let columns = "id BIGINT, account BIGINT, amount NUMERIC(12,2), kind TEXT";
    let options = format!("connector = 'file', path = '{}/*.csv', follow = 'true'", data.display());
    run(&client, &format!("CREATE SOURCE payment ({columns}) WITH ({options}) FORMAT PLAIN ENCODE CSV")).await;
    for view in 0..number {
        let query = format!(
            "SELECT (account + {view}) % {DISTINCT} AS g, count(*) AS n, sum(id) AS ids FROM payment GROUP BY (account + {view}) % {DISTINCT}"
        );
        run(&client, &format!("CREATE MATERIALIZED VIEW v{view} AS {query}")).await;
    }
    let process = server.process_id();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (cpu, started) = (usage::cpu_time(process), Instant::now());
    crate::scaling::write_csv(&dir.path().join("payment"), rows).unwrap();
    std::fs::rename(dir.path().join("payment"), data.join("payment.csv")).unwrap();
    let (first, last) = ("SELECT coalesce(sum(n), 0) FROM v0".to_string(), format!("SELECT coalesce(sum(n), 0) FROM v{}", number - 1));
    for sql in [first, last] {
        while value(&client, &sql).await != rows.to_string() {
            assert!(started.elapsed() < Duration::from_secs(600), "the views do not get there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (wall, cpu) = (started.elapsed(), usage::cpu_time(process) - cpu);
    run(&client, "CHECKPOINT").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, idle) = (usage::cpu_time(process), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let idle = (usage::cpu_time(process) - before).as_secs_f64() / idle.elapsed().as_secs_f64();
    let per_event = cpu.as_secs_f64() * 1e6 / rows as f64;
    println!(
        "{number:>6} {:>9.2} {:>9.2} {per_event:>13.3} {:>19.3} {:>8} {:>14.2} {:>10}",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        per_event / number as f64,
        usage::rss_peak(process) >> 20,
        idle * 100.0,
        usage::rss(process) >> 20
    );
}
