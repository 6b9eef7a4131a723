//! Nexmark flat out: one fresh data directory and process per run; the generator is part of it, checkpoints each second.
//! Wall time ends when the view holds all events, CPU time when a checkpoint after that has made all of it durable.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millpond_connect::{FormatSpec, Poll, Span};
use millpond_tests::oracle;
use millpond_tests::server::{Server, repository, rows, run};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::process::InProcess;
use crate::side::files;
use crate::{Arguments, usage};

/// How a query runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Form {
    /// Planner and engine in one process with the benchmark.
    InProcess,
    /// The server, by the wire protocol.
    Server,
}

/// What one run of one query cost; see the module for where the two times end.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cost {
    /// Until the view holds all events.
    pub wall: Duration,
    /// Until all of it is durable.
    pub cpu: Duration,
    /// Peak resident bytes.
    pub rss_peak: u64,
    /// What the generator alone takes for the columns that the query reads; of [`Form::InProcess`] only.
    generator: Duration,
    epochs: u64,
    checkpoints: Checkpoints,
}

/// Checkpoints of a run, the one at its end included.
#[derive(Clone, Serialize, Deserialize)]
struct Checkpoints {
    number: usize,
    mean_ms: f64,
    stall_ms: f64,
    megabytes: f64,
}

impl Checkpoints {
    /// Of durations and stalls in milliseconds, and bytes.
    fn of(list: &[(f64, f64, f64)]) -> Self {
        let number = list.len();
        Checkpoints {
            number,
            mean_ms: list.iter().map(|c| c.0).sum::<f64>() / number.max(1) as f64,
            stall_ms: list.iter().map(|c| c.1).fold(0.0, f64::max),
            megabytes: list.iter().map(|c| c.2).sum::<f64>() / 1e6,
        }
    }
}

/// What Feldera's dbsp takes for an event above its q0, in us of CPU: its own benchmark on a machine of this kind, in memory, without checkpoints.
const DBSP: [(&str, f64); 12] = [
    ("q3", 0.26),
    ("q4", 1.03),
    ("q5", 0.63),
    ("q7", 0.87),
    ("q9", 4.74),
    ("q15", 1.18),
    ("q16", 3.65),
    ("q17", 2.17),
    ("q18", 1.80),
    ("q19", 1.95),
    ("q20", 1.68),
    ("q22", 0.86),
];

/// Prints a line for each query, number of workers and form.
pub async fn measure(arguments: &Arguments) {
    println!("{} Nexmark events per query (persons, auctions, bids 1:3:46); load {}", arguments.events, usage::load());
    println!("us above: CPU time per event without that of the generator for the columns that the query reads");
    println!(
        "{:<5} {:>2} {:>8} {:<10} {:>11} {:>12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7}  checkpoints: number, mean ms, worst stall ms, MB",
        "query", "W", "interval", "form", "events/s", "events/CPU-s", "us/event", "generator", "us above", "of dbsp", "peak MB", "epochs"
    );
    for workers in &arguments.parallelism {
        for interval in &arguments.checkpoint_intervals {
            let mut of_dbsp = Vec::new();
            for query in &arguments.queries {
                for form in &arguments.forms {
                    let cost = median(query, *workers, *form, interval, arguments).await;
                    of_dbsp.extend(print(query, *workers, interval, *form, &cost, arguments.events));
                }
            }
            if !of_dbsp.is_empty() {
                let mean = (of_dbsp.iter().map(|r| r.ln()).sum::<f64>() / of_dbsp.len() as f64).exp();
                println!("{} queries, {workers} workers, checkpoints each {interval}: geometric mean of dbsp's {mean:.2}", of_dbsp.len());
            }
        }
    }
}

/// Prints a line; the ratio to dbsp's figure.
fn print(query: &str, workers: usize, interval: &str, form: Form, cost: &Cost, events: u64) -> Option<f64> {
    let us = |d: Duration| d.as_secs_f64() * 1e6 / events as f64;
    let above = (form == Form::InProcess).then(|| us(cost.cpu.saturating_sub(cost.generator)));
    let dbsp = DBSP.iter().find(|(q, _)| *q == query).map(|(_, us)| *us);
    let ratio = above.zip(dbsp).map(|(above, dbsp)| above.max(0.01) / dbsp);
    let number = |n: Option<f64>| n.map_or("-".into(), |n| format!("{n:.2}"));
    let c = &cost.checkpoints;
    println!(
        "{query:<5} {workers:>2} {interval:>8} {:<10} {:>11.0} {:>12.0} {:>9.3} {:>9} {:>8} {:>8} {:>8} {:>7}  {}, {:.1}, {:.1}, {:.1}",
        if form == Form::Server { "server" } else { "in process" },
        events as f64 / cost.wall.as_secs_f64(),
        events as f64 / cost.cpu.as_secs_f64(),
        us(cost.cpu),
        number((form == Form::InProcess).then(|| us(cost.generator))),
        number(above),
        number(ratio),
        cost.rss_peak >> 20,
        cost.epochs,
        c.number,
        c.mean_ms,
        c.stall_ms,
        c.megabytes
    );
    ratio
}

async fn median(query: &str, workers: usize, form: Form, interval: &str, arguments: &Arguments) -> Cost {
    let mut costs = Vec::new();
    for _ in 0..arguments.repeat.max(1) {
        costs.push(match form {
            Form::Server => {
                let setting = format!("ALTER SYSTEM SET checkpoint_interval = '{interval}';");
                over_server(&(setting + &sources(arguments.events)), query, workers, arguments).await.0
            }
            Form::InProcess => in_child(query, workers, interval, arguments.events, arguments.unchecked, arguments.memory_mb),
        });
    }
    costs.sort_by_key(|c| c.cpu);
    costs.swap_remove(costs.len() / 2)
}

/// A file of `sql/nexmark/`.
pub fn text(name: &str) -> String {
    let path = repository().join("sql/nexmark").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The three streams, with an end.
pub fn sources(events: u64) -> String {
    text("sources.sql").replace("connector = 'nexmark'", &format!("connector = 'nexmark', events = '{events}'"))
}

/// One query over the sources that some statements make; with the server that has the view, which ends when it is dropped.
pub async fn over_server(sources: &str, query: &str, workers: usize, arguments: &Arguments) -> (Cost, Client, Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (workers, memory) = (workers.to_string(), format!("{}MB", arguments.memory_mb));
    usage::warm_memory();
    let server = Server::start(dir.path(), &["--parallelism", &workers, "--memory", &memory, "--log", "warn"]).await;
    let client = server.connect().await;
    run(&client, sources).await;
    let create = text(&format!("{query}.sql"));
    let cpu = usage::cpu_time(server.process_id());
    let started = Instant::now();
    run(&client, &create).await;
    let wall = started.elapsed();
    run(&client, "CHECKPOINT").await;
    let cpu = usage::cpu_time(server.process_id()) - cpu;
    let rss_peak = usage::rss_peak(server.process_id());
    let sql = "SELECT epoch, extract(epoch FROM duration) * 1000, extract(epoch FROM stall) * 1000, bytes FROM millpond.checkpoints";
    let list = rows(&client, sql).await.unwrap();
    let number = |row: &Vec<Option<String>>, i: usize| row.get(i).cloned().flatten().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    let epochs = list.iter().map(|r| number(r, 0)).fold(0.0, f64::max) as u64;
    let checkpoints = Checkpoints::of(&list.iter().map(|r| (number(r, 1), number(r, 2), number(r, 3))).collect::<Vec<_>>());
    if !arguments.unchecked {
        oracle::check_all(&client, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}"));
    }
    (Cost { wall, cpu, rss_peak, generator: Duration::ZERO, epochs, checkpoints }, client, server, dir)
}

/// A process of its own for each run, so that memory and CPU time are this run's.
pub fn in_child(query: &str, workers: usize, interval: &str, events: u64, unchecked: bool, memory_mb: u64) -> Cost {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", query, "--parallelism", &workers.to_string(), "--events", &events.to_string()]);
    command.args(["--checkpoint-intervals", interval, "--memory-mb", &memory_mb.to_string()]);
    if unchecked {
        command.arg("--unchecked");
    }
    usage::warm_memory();
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{query} in process: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One query in this process; prints its cost.
pub async fn child(query: &str, arguments: &Arguments) {
    let dir = tempfile::tempdir().unwrap();
    let workers = arguments.parallelism.first().copied().unwrap_or(1);
    let mut own = InProcess::open(dir.path(), workers, arguments.memory_mb << 20).await;
    own.run(&sources(arguments.events)).await;
    let interval = arguments.checkpoint_intervals.first().map_or("1s", String::as_str);
    own.run(&format!("ALTER SYSTEM SET checkpoint_interval = '{interval}'")).await;
    let create = text(&format!("{query}.sql"));
    let process = std::process::id();
    let read = own.run(&create.replace("CREATE MATERIALIZED VIEW", "EXPLAIN CREATE MATERIALIZED VIEW")).await;
    let generator = generate(&read.into_iter().flatten().flatten().collect::<Vec<_>>(), arguments.events);
    let cpu = usage::cpu_time(process);
    let started = Instant::now();
    own.run(&create).await;
    let wall = started.elapsed();
    own.run("CHECKPOINT").await;
    let cpu = usage::cpu_time(process) - cpu;
    let rss_peak = usage::rss_peak(process);
    let engine = own.database.engine();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let list = engine.checkpoints().iter().map(|c| (ms(c.duration), ms(c.stall), c.bytes as f64)).collect::<Vec<_>>();
    let cost = Cost { wall, cpu, rss_peak, generator, epochs: engine.epoch(), checkpoints: Checkpoints::of(&list) };
    if !arguments.unchecked {
        own.check_all().await.unwrap_or_else(|e| panic!("{query}: {e}"));
    }
    println!("{}", serde_json::to_string(&cost).unwrap());
    own.database.shutdown().await.unwrap();
}

/// What the generator takes for the columns that a plan's scans read, each source once: nobody takes what it makes.
fn generate(plan: &[String], events: u64) -> Duration {
    let mut read = BTreeMap::<&str, BTreeSet<&str>>::new();
    for line in plan {
        let Some((kind, columns)) = line.trim().strip_prefix("Scan ").and_then(|l| l.split_once(" columns=[")) else { continue };
        read.entry(kind).or_default().extend(columns.trim_end_matches(']').split(", "));
    }
    assert!(!read.is_empty(), "a plan without sources: {plan:?}");
    let process = std::process::id();
    let before = usage::cpu_time(process);
    for (kind, columns) in read {
        let options = files::options(kind, events);
        let schema = files::columns(kind);
        let wanted = columns.iter().filter_map(|c| schema.index_of(c).ok()).collect::<Vec<_>>();
        let mut reader = millpond_connect::open(&options, &FormatSpec::default(), &schema, &wanted, Span::default()).unwrap();
        while !matches!(reader.next().unwrap(), Poll::End) {}
    }
    usage::cpu_time(process) - before
}
