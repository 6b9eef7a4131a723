//! The long forms of the tests that break things: `cargo run --release -p millpond-tests --bin millpond-crash -- --kills 200`.
//! Each prints a table with its seeds.

use clap::Parser;
use millpond_tests::crash::{Outcome, Plan, torture};
use millpond_tests::faults::{errors, full, points, power, three_way};
use millpond_tests::finding::Tally;
use millpond_tests::random;

/// Breaks a server again and again and compares what is left with the truth.
#[derive(Parser)]
struct Arguments {
    /// Kills a server that often, while clients write and sources flow.
    #[arg(long)]
    kills: Option<u64>,
    /// Kills per data directory.
    #[arg(long, default_value_t = 20)]
    kills_per_run: u64,
    /// Longest life of a server in milliseconds.
    #[arg(long, default_value_t = 800)]
    life_ms_max: u64,
    /// Nexmark events per data directory.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// With --kills: rows of a table whose views have several times more state than --memory 160MB has room for.
    #[arg(long, default_value_t = 0)]
    large_rows: i64,
    /// With --large-rows: views of it are made, dropped and filled at a limited rate all the time.
    #[arg(long)]
    fills: bool,
    /// Compares random views over random histories with their queries, in so many runs.
    #[arg(long)]
    random_views: Option<u64>,
    /// Ends the server at each named step that often, while statements of every kind run.
    #[arg(long)]
    points: Option<u64>,
    /// Lets so many writes, syncs and reads fail.
    #[arg(long)]
    io_errors: Option<u64>,
    /// Takes away the power that often.
    #[arg(long)]
    power_losses: Option<u64>,
    /// Fills the disk that often (needs `unshare -Urm`).
    #[arg(long)]
    disk_full: Option<u64>,
    /// Compares every query of the SQL scripts and of Nexmark: straight, restarted, with another parallelism, in batch. A value: only
    /// scripts whose names have this part.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    three_way: Option<String>,
    /// All of these in their long form.
    #[arg(long)]
    all: bool,
    /// Plants a bug, to see that it is found: see `crates/state/src/planted.rs`.
    #[arg(long)]
    plant: Option<String>,
    /// The first seed; each run takes the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Their views have several times more state than 160 MB has room for.
const LARGE_ROWS: i64 = 200_000;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let a = Arguments::parse();
    let long = |number: Option<u64>, long_form: u64| number.or(a.all.then_some(long_form));
    let plant = a.plant.as_deref();
    let mut failures = 0;
    if let Some(kills) = long(a.kills, 1000) {
        failures += random_kills(&a, kills, a.large_rows, a.fills).await;
    }
    if a.all {
        failures += random_kills(&a, 200, LARGE_ROWS, false).await;
        failures += random_kills(&a, 200, LARGE_ROWS, true).await;
    }
    if let Some(runs) = long(a.random_views, 60) {
        failures += random_views(a.seed, runs).await;
    }
    if let Some(rounds) = long(a.points, 20) {
        println!("\nThe server ends at each named step, {rounds} times");
        failures += points::table(rounds, a.seed, plant).await.total();
    }
    if let Some(rounds) = long(a.io_errors, 200) {
        println!("\nThe n-th write, sync or read fails, {rounds} times each");
        failures += errors::table(rounds, a.seed, plant).await.total();
    }
    if let Some(losses) = long(a.power_losses, 500) {
        println!("\nThe power fails, {losses} times");
        failures += power::table(losses, a.seed, plant).await.total();
    }
    if let Some(rounds) = long(a.disk_full, 100) {
        println!("\nThe disk is full, {rounds} times");
        failures += disk_full(rounds, a.seed, plant).await;
    }
    if let Some(part) = a.three_way.as_deref().or(a.all.then_some("")) {
        println!("\nThree ways to one answer");
        failures += three_way::table(part).await.total();
    }
    println!("{failures} failures");
    if failures == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

async fn random_views(first: u64, runs: u64) -> usize {
    println!("\nRandom views over random histories");
    println!("{:>6} {:>6} {:>8} {:>12} {:>12}  result", "seed", "views", "refused", "transactions", "comparisons");
    let mut failures = 0;
    for seed in first..first + runs {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match random::run_plan(&random::Plan { seed, views: 16, comparisons: 12 }, dir.path()).await {
            Ok(o) => println!("{seed:>6} {:>6} {:>8} {:>12} {:>12}  ok", o.views, o.refused, o.transactions, o.comparisons),
            Err(error) => {
                failures += 1;
                println!("{seed:>6} FAILED: {error}");
            }
        }
    }
    failures
}

/// In a namespace of its own, where file systems can be mounted.
async fn disk_full(rounds: u64, seed: u64, plant: Option<&str>) -> usize {
    match full::enter() {
        Ok(None) => full::table(rounds, seed, plant).await.total(),
        Ok(Some(mut inside)) => {
            inside.args(["--disk-full", &rounds.to_string(), "--seed", &seed.to_string()]);
            inside.args(plant.into_iter().flat_map(|bug| ["--plant", bug]));
            usize::from(!inside.status().is_ok_and(|status| status.success()))
        }
        Err(why) => {
            println!("{why}");
            0
        }
    }
}

async fn random_kills(arguments: &Arguments, number: u64, large_rows: i64, fills: bool) -> usize {
    let with = if large_rows > 0 { format!(", with {large_rows} rows and little memory") } else { String::new() };
    println!("\nThe server is killed, {number} times{with}{}", if fills { ", while views are filled" } else { "" });
    let line = |seed: &str, o: &Outcome, found: &Tally| {
        let (diverged, lost, other) = (found.diverged, found.lost, found.misbehaved);
        println!(
            "{seed:>6} {:>6} {:>8} {:>10} {:>12} {:>12} {diverged:>12} {lost:>6} {other:>6}",
            o.kills, o.epochs, o.acknowledged, o.comparisons, o.half_filled
        );
    };
    println!(
        "{:>6} {:>6} {:>8} {:>10} {:>12} {:>12} {:>12} {:>6} {:>6}",
        "seed", "kills", "epochs", "answered", "comparisons", "half filled", "divergences", "lost", "other"
    );
    let (mut left, mut seed, mut found) = (number, arguments.seed, Tally::default());
    let mut sum = Outcome::default();
    while left > 0 {
        let kills = left.min(arguments.kills_per_run);
        let plan = Plan {
            seed,
            kills: kills as usize,
            life_ms_max: arguments.life_ms_max,
            events: arguments.events,
            large_rows,
            fills: fills && large_rows > 0,
            plant: arguments.plant.clone(),
        };
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match torture(&plan, dir.path()).await {
            Ok(o) => {
                line(&seed.to_string(), &o, &Tally::default());
                sum.kills += o.kills;
                sum.epochs += o.epochs;
                sum.acknowledged += o.acknowledged;
                sum.comparisons += o.comparisons;
                sum.half_filled += o.half_filled;
            }
            Err(finding) => found.add(&finding),
        }
        left -= kills;
        seed += 1;
    }
    line("all", &sum, &found);
    found.total()
}
