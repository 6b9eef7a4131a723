//! The benchmark: `cargo run --release -p millpond-tests --bin millpond-bench`. A flag names one of its parts; without
//! one all are measured. Every view is compared with its query before its time counts.
//!
//! - `nexmark.rs`: Nexmark flat out, over the whole server and in process (`process.rs`)
//! - `scaling.rs`: an aggregate over a file and over a table, with one worker and with two
//! - `idle.rs`: what a server costs to which nothing happens
//! - `freshness.rs`: from a write to its visibility in a view
//! - `usage.rs`: what the kernel says that a process used
#![allow(clippy::unwrap_used)] // a failed step is the measurement's end

mod freshness;
mod idle;
mod nexmark;
mod process;
mod scaling;
mod usage;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // as in the server

/// The memory budget of every database that is measured.
const MEMORY_BYTES: u64 = 4 << 30;

/// Measures a server built in the same profile.
#[derive(Parser)]
struct Arguments {
    /// Only Nexmark: events per second and per CPU-second, memory, epochs, checkpoints.
    #[arg(long)]
    nexmark: bool,
    /// Only the gain of a second worker.
    #[arg(long)]
    scaling: bool,
    /// Only the idle server.
    #[arg(long)]
    idle: bool,
    /// Only the time from a write to its visibility.
    #[arg(long)]
    freshness: bool,
    /// Nexmark: events per query.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Nexmark: queries. The suite's q6, q10, q11, q13, q14 and q21 are not among them.
    #[arg(long, value_delimiter = ',', default_value = "q0,q1,q2,q3,q4,q5,q7,q8,q9,q12,q15,q16,q17,q18,q19,q20,q22")]
    queries: Vec<String>,
    /// Nexmark: numbers of workers.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    parallelism: Vec<usize>,
    /// Nexmark: in one process without the wire protocol, or over the whole server.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "in-process,server")]
    forms: Vec<nexmark::Form>,
    /// Runs of each query; the median counts.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Nexmark: leave out the comparison with the batch answer.
    #[arg(long)]
    unchecked: bool,
    /// Scaling: rows of the input.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Idle: seconds of watching.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Freshness: writes.
    #[arg(long, default_value_t = 500)]
    writes: usize,
    /// One query in this process, as JSON.
    #[arg(long, hide = true)]
    child: Option<String>,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if let Some(query) = &arguments.child {
        return nexmark::child(query, &arguments).await;
    }
    let all = !(arguments.nexmark || arguments.scaling || arguments.idle || arguments.freshness);
    if all || arguments.nexmark {
        nexmark::measure(&arguments).await;
    }
    if all || arguments.scaling {
        scaling::measure(arguments.rows, arguments.repeat.max(1)).await;
    }
    if all || arguments.idle {
        idle::measure(arguments.seconds).await;
    }
    if all || arguments.freshness {
        freshness::measure(arguments.writes).await;
    }
}
