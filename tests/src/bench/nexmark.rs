//! Nexmark flat out: one fresh data directory and process per run; the generator is part of it, checkpoints each second.
//! Wall time ends when the view holds all events, CPU time when a checkpoint after that has made all of it durable.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millpond_tests::oracle;
use millpond_tests::server::{Server, repository, rows, run};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::process::InProcess;
use crate::{Arguments, MEMORY_BYTES, usage};

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

/// Prints a line for each query, number of workers and form.
pub async fn measure(arguments: &Arguments) {
    println!("{} Nexmark events per query (persons, auctions, bids 1:3:46), checkpoints each second", arguments.events);
    println!(
        "{:<5} {:>2} {:<10} {:>11} {:>12} {:>9} {:>8} {:>7} {:>10} {:>8} {:>7}  checkpoints: number, mean ms, worst stall ms, MB",
        "query", "W", "form", "events/s", "events/CPU-s", "us/event", "us > q0", "of q0", "in process", "peak MB", "epochs"
    );
    for workers in &arguments.parallelism {
        let mut base = BTreeMap::new();
        for query in &arguments.queries {
            let mut in_process = None;
            for form in &arguments.forms {
                let cost = median(query, *workers, *form, arguments).await;
                let per_event = cost.cpu.as_secs_f64() * 1e6 / arguments.events as f64;
                if query == "q0" {
                    base.insert(*form, per_event);
                }
                let base = base.get(form);
                let ratio = match form {
                    Form::InProcess => {
                        in_process = Some(per_event);
                        "1".into()
                    }
                    Form::Server => in_process.map_or("-".into(), |p| format!("{:.2}", per_event / p)),
                };
                let c = &cost.checkpoints;
                println!(
                    "{query:<5} {workers:>2} {:<10} {:>11.0} {:>12.0} {per_event:>9.3} {:>8} {:>7} {ratio:>10} {:>8} {:>7}  {}, {:.1}, {:.1}, {:.1}",
                    if *form == Form::Server { "server" } else { "in process" },
                    arguments.events as f64 / cost.wall.as_secs_f64(),
                    arguments.events as f64 / cost.cpu.as_secs_f64(),
                    base.map_or("-".into(), |b| format!("{:.3}", per_event - b)),
                    base.map_or("-".into(), |b| format!("{:.2}", per_event / b)),
                    cost.rss_peak >> 20,
                    cost.epochs,
                    c.number,
                    c.mean_ms,
                    c.stall_ms,
                    c.megabytes
                );
            }
        }
    }
}

async fn median(query: &str, workers: usize, form: Form, arguments: &Arguments) -> Cost {
    let mut costs = Vec::new();
    for _ in 0..arguments.repeat.max(1) {
        costs.push(match form {
            Form::Server => over_server(&sources(arguments.events), query, workers, arguments).await.0,
            Form::InProcess => in_child(query, workers, arguments.events, arguments.unchecked),
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
    let (workers, memory) = (workers.to_string(), MEMORY_BYTES.to_string());
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
    (Cost { wall, cpu, rss_peak, epochs, checkpoints }, client, server, dir)
}

/// A process of its own for each run, so that memory and CPU time are this run's.
pub fn in_child(query: &str, workers: usize, events: u64, unchecked: bool) -> Cost {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", query, "--parallelism", &workers.to_string(), "--events", &events.to_string()]);
    if unchecked {
        command.arg("--unchecked");
    }
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{query} in process: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One query in this process; prints its cost.
pub async fn child(query: &str, arguments: &Arguments) {
    let dir = tempfile::tempdir().unwrap();
    let workers = arguments.parallelism.first().copied().unwrap_or(1);
    let mut own = InProcess::open(dir.path(), workers).await;
    own.run(&sources(arguments.events)).await;
    let create = text(&format!("{query}.sql"));
    let process = std::process::id();
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
    let cost = Cost { wall, cpu, rss_peak, epochs: engine.epoch(), checkpoints: Checkpoints::of(&list) };
    if !arguments.unchecked {
        own.check_all().await.unwrap_or_else(|e| panic!("{query}: {e}"));
    }
    println!("{}", serde_json::to_string(&cost).unwrap());
    own.database.shutdown().await.unwrap();
}
