//! The benchmark: `cargo run --release -p millpond-tests --bin millpond-bench -- --events 1000000`.
//!
//! Nexmark over the whole server, one fresh data directory per query: events per second and per CPU-second, peak memory,
//! epochs, checkpoints; the engine's share as microseconds of CPU per event above q0. Then freshness: from the durable answer
//! to an INSERT to visible in a view over a join and an aggregate. Every view is compared with its query before its time counts.

use std::time::{Duration, Instant};

use clap::Parser;
use millpond_tests::oracle;
use millpond_tests::server::{Server, repository, run, value};

/// Measures a server built in the same profile.
#[derive(Parser)]
struct Arguments {
    /// Nexmark events per query.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Queries, for example q0,q4.
    #[arg(long, value_delimiter = ',', default_value = "q0,q1,q2,q3,q4,q5,q7,q8")]
    queries: Vec<String>,
    /// Workers.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    parallelism: Vec<usize>,
    /// Runs of each query; the median counts.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// INSERTs for the freshness measurement; 0 leaves it out.
    #[arg(long, default_value_t = 500)]
    inserts: usize,
    /// Leave out the comparison with the batch answer.
    #[arg(long)]
    unchecked: bool,
}

/// What one run of one query cost.
#[derive(Clone, Default)]
struct Cost {
    wall: Duration,
    cpu: Duration,
    rss_peak: u64,
    epochs: u64,
    checkpoints: String,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    println!("{} Nexmark events per query (persons, auctions, bids 1:3:46), checkpoints each second", arguments.events);
    println!(
        "{:<5} {:>3} {:>12} {:>14} {:>10} {:>9} {:>8}  checkpoints: number, mean ms, worst stall ms, MB",
        "query", "W", "events/s", "events/CPU-s", "us > q0", "peak MB", "epochs"
    );
    for workers in &arguments.parallelism {
        let mut base = None;
        for query in &arguments.queries {
            let mut costs = Vec::new();
            for _ in 0..arguments.repeat.max(1) {
                costs.push(measure(query, *workers, &arguments).await);
            }
            costs.sort_by_key(|c| c.cpu);
            let Some(cost) = costs.get(costs.len() / 2).cloned() else { continue };
            let per_event = cost.cpu.as_secs_f64() * 1e6 / arguments.events as f64;
            if query == "q0" {
                base = Some(per_event);
            }
            println!(
                "{query:<5} {workers:>3} {:>12.0} {:>14.0} {:>10} {:>9} {:>8}  {}",
                arguments.events as f64 / cost.wall.as_secs_f64(),
                arguments.events as f64 / cost.cpu.as_secs_f64(),
                base.map_or("-".into(), |b| format!("{:.2}", per_event - b)),
                cost.rss_peak >> 20,
                cost.epochs,
                cost.checkpoints
            );
        }
    }
    if arguments.inserts > 0 {
        freshness(arguments.inserts).await;
    }
}

async fn measure(query: &str, workers: usize, arguments: &Arguments) -> Cost {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let server = Server::start(dir.path(), &["--parallelism", &workers.to_string(), "--log", "warn"]).await;
    let client = server.connect().await;
    let text = |name: &str| {
        let path = repository().join("sql/nexmark").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let sources = text("sources.sql").replace("connector = 'nexmark'", &format!("connector = 'nexmark', events = '{}'", arguments.events));
    run(&client, &sources).await;
    let (cpu, epoch) = (cpu_time(&server), value(&client, "SELECT coalesce(max(epoch), 0) FROM millpond.checkpoints").await);
    let started = Instant::now();
    run(&client, &text(&format!("{query}.sql"))).await;
    let wall = started.elapsed();
    let spent = cpu_time(&server) - cpu;
    let rss_peak = rss_peak(&server);
    run(&client, "CHECKPOINT").await;
    let epochs = value(&client, "SELECT max(epoch) FROM millpond.checkpoints").await;
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let checkpoints = value(
        &client,
        "SELECT count(*) || ', ' || round(avg(extract(epoch FROM duration)) * 1000, 1) || ', ' || round(max(extract(epoch FROM stall)) * 1000, 1) || ', ' || round(sum(bytes) / 1000000.0, 1) FROM millpond.checkpoints",
    )
    .await;
    if !arguments.unchecked {
        oracle::check_all(&client, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}"));
    }
    Cost { wall, cpu: spent, rss_peak, epochs: number(&epochs) - number(&epoch), checkpoints }
}

/// User and system time of the server so far.
fn cpu_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.process_id())).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Peak resident memory in bytes.
fn rss_peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")).and_then(|k| k.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// One INSERT after the other at low load; the SELECT behind it waits until the view contains the row.
async fn freshness(inserts: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let server = Server::start(dir.path(), &["--log", "warn"]).await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE account (id INT PRIMARY KEY, branch INT); CREATE TABLE payment (id INT PRIMARY KEY, account INT, amount INT)",
    )
    .await;
    run(&client, "INSERT INTO account SELECT v, v % 10 FROM generate_series(1, 1000) AS t(v)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW by_branch AS SELECT a.branch, count(*) AS n, sum(p.amount) AS amount FROM payment p JOIN account a ON a.id = p.account GROUP BY a.branch",
    )
    .await;
    let insert = client.prepare("INSERT INTO payment VALUES ($1, $2, $3)").await.expect("INSERT can be prepared");
    let select = client.prepare("SELECT n FROM by_branch WHERE branch = $1").await.expect("SELECT can be prepared");
    let (mut durable, mut visible, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..inserts as i32 {
        let account = i % 1000 + 1;
        let at = Instant::now();
        client.execute(&insert, &[&i, &account, &1]).await.expect("INSERT works");
        durable.push(at.elapsed());
        let at = Instant::now();
        client.query(&select, &[&(account % 10)]).await.expect("SELECT works");
        visible.push(at.elapsed());
        let at = Instant::now();
        client.query(&select, &[&(account % 10)]).await.expect("SELECT works");
        read.push(at.elapsed());
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    println!("\nfreshness over a join and an aggregate, {inserts} INSERTs at about 100 per second, milliseconds");
    println!("{:<52} {:>8} {:>8} {:>8}", "", "p50", "p99", "p99.9");
    for (what, list) in [
        ("INSERT to durable answer (fsync)", durable),
        ("durable answer to visible in SELECT", visible),
        ("the same SELECT with nothing to wait for", read),
    ] {
        println!("{what:<52} {:>8.2} {:>8.2} {:>8.2}", quantile(&list, 0.5), quantile(&list, 0.99), quantile(&list, 0.999));
    }
}

fn quantile(list: &[Duration], q: f64) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort();
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
}
