//! The long forms of the tests that break things: `cargo run --release -p millpond-tests --bin millpond-crash -- --kills 200`.
//! Each prints a table with its seeds.

use clap::Parser;
use millpond_tests::crash::{Plan, torture};
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
    /// Compares every query of the SQL scripts and of Nexmark: straight, restarted, with another parallelism, in batch.
    #[arg(long)]
    three_way: bool,
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

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let a = Arguments::parse();
    let long = |number: Option<u64>, long_form: u64| number.or(a.all.then_some(long_form));
    let plant = a.plant.as_deref();
    let mut failures = 0;
    if let Some(kills) = long(a.kills, 1000) {
        failures += random_kills(&a, kills).await;
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
    if a.three_way || a.all {
        println!("\nThree ways to one answer");
        failures += three_way::table().await.total();
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

async fn random_kills(arguments: &Arguments, number: u64) -> usize {
    println!("\nThe server is killed, {number} times");
    let line = |seed: &str, kills: usize, epochs: u64, answered: usize, comparisons: usize, found: &Tally| {
        let (diverged, lost, other) = (found.diverged, found.lost, found.misbehaved);
        println!("{seed:>6} {kills:>6} {epochs:>8} {answered:>10} {comparisons:>12} {diverged:>12} {lost:>6} {other:>6}");
    };
    println!(
        "{:>6} {:>6} {:>8} {:>10} {:>12} {:>12} {:>6} {:>6}",
        "seed", "kills", "epochs", "answered", "comparisons", "divergences", "lost", "other"
    );
    let (mut left, mut seed, mut found) = (number, arguments.seed, Tally::default());
    let mut sum = (0, 0, 0, 0);
    while left > 0 {
        let kills = left.min(arguments.kills_per_run);
        let plan = Plan {
            seed,
            kills: kills as usize,
            life_ms_max: arguments.life_ms_max,
            events: arguments.events,
            plant: arguments.plant.clone(),
        };
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match torture(&plan, dir.path()).await {
            Ok(o) => {
                line(&seed.to_string(), o.kills, o.epochs, o.acknowledged, o.comparisons, &Tally::default());
                sum = (sum.0 + o.kills, sum.1 + o.epochs, sum.2 + o.acknowledged, sum.3 + o.comparisons);
            }
            Err(finding) => found.add(&finding),
        }
        left -= kills;
        seed += 1;
    }
    line("all", sum.0, sum.1, sum.2, sum.3, &found);
    found.total()
}
