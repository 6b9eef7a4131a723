//! The long form of the crash test: `cargo run --release -p millpond-tests --bin millpond-crash -- --kills 200`.
//! Prints a table with one line per seed. With `--random-views N` it compares random views over random histories instead,
//! N runs of them.

use clap::Parser;
use millpond_tests::crash::{Plan, torture};
use millpond_tests::random;

/// Kills a server again and again and compares what is left with the truth.
#[derive(Parser)]
struct Arguments {
    /// Kills in all.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Kills per data directory.
    #[arg(long, default_value_t = 20)]
    kills_per_run: usize,
    /// The first seed; each run takes the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest life of a server in milliseconds.
    #[arg(long, default_value_t = 800)]
    life_ms_max: u64,
    /// Nexmark events per run.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Runs of random views over random histories, instead of kills.
    #[arg(long)]
    random_views: Option<u64>,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let failures = match arguments.random_views {
        Some(runs) => random_views(arguments.seed, runs).await,
        None => kills(&arguments).await,
    };
    println!("{failures} failures");
    if failures == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

async fn random_views(first: u64, runs: u64) -> usize {
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

async fn kills(arguments: &Arguments) -> usize {
    println!("{:>6} {:>6} {:>12} {:>12} {:>8}  result", "seed", "kills", "acknowledged", "comparisons", "epochs");
    let (mut left, mut seed, mut failures) = (arguments.kills, arguments.seed, 0);
    while left > 0 {
        let kills = left.min(arguments.kills_per_run);
        let plan = Plan { seed, kills, life_ms_max: arguments.life_ms_max, events: arguments.events };
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        match torture(&plan, dir.path(), &["--parallelism", if seed % 2 == 0 { "1" } else { "2" }]).await {
            Ok(o) => println!("{seed:>6} {:>6} {:>12} {:>12} {:>8}  ok", o.kills, o.acknowledged, o.comparisons, o.epochs),
            Err(error) => {
                failures += 1;
                println!("{seed:>6} {kills:>6} {:>12} {:>12} {:>8}  FAILED: {error}", "", "", "");
            }
        }
        left -= kills;
        seed += 1;
    }
    failures
}
