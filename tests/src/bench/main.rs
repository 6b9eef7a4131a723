//! The benchmark: `cargo run --release -p millpond-tests --bin millpond-bench`. A flag names one of its parts; without
//! one all are measured. Every view is compared with its query before its time counts.
//!
//! - `nexmark.rs`: Nexmark flat out, over the whole server and in process (`process.rs`)
//! - `side/`: Nexmark from files beside other engines, with a plot (`plot.rs`)
//! - `serving.rs`: prepared lookups and small aggregates beside PostgreSQL
//! - `state_size.rs`: more and more keys
//! - `scaling.rs`: an aggregate over a file and over a table, with one worker and with two
//! - `views.rs`: many views over one source
//! - `baseline.rs`: Nexmark against a recorded baseline
//! - `flame.rs`: flame graphs
//! - `checkpoint_mode.rs`: aligned and unaligned checkpoints behind a slow view
//! - `idle.rs`: what a server costs to which nothing happens
//! - `freshness.rs`: from a write to its visibility in a view
//! - `soak.rs`: checkpoints for hours; only when asked for
//! - `usage.rs`: what the kernel says that a process used
#![allow(clippy::unwrap_used)] // a failed step is the measurement's end

#[path = "../../../crates/millpond/src/allocator.rs"]
mod allocator; // the server's
mod baseline;
mod checkpoint_mode;
mod flame;
mod freshness;
mod idle;
mod nexmark;
mod plot;
mod process;
mod scaling;
mod serving;
mod side;
mod soak;
mod state_size;
mod usage;
mod views;

use std::path::PathBuf;

use clap::Parser;

/// The memory budget of every database that is measured, unless its measurement is about memory.
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
    /// Only checkpoints behind a slow view, aligned and unaligned.
    #[arg(long)]
    unaligned: bool,
    /// Only the time from a write to its visibility.
    #[arg(long)]
    freshness: bool,
    /// Only Nexmark from files, side by side with other engines that are installed.
    #[arg(long)]
    side_by_side: bool,
    /// Only serving, beside PostgreSQL if it is installed.
    #[arg(long)]
    serving: bool,
    /// Only many views over one source: how many.
    #[arg(long, value_delimiter = ',', num_args = 0..=1, default_missing_value = "1,10,100,500")]
    views: Option<Vec<usize>>,
    /// Only state sizes: numbers of keys.
    #[arg(long, value_delimiter = ',', num_args = 0..=1, default_missing_value = "1e5,1e6,1e7")]
    state_size: Option<Vec<f64>>,
    /// State sizes: each once more with a quarter of the memory that it took.
    #[arg(long)]
    spill: bool,
    /// Only a server that is written to all the time, for so many seconds.
    #[arg(long, num_args = 0..=1, default_missing_value = "3600")]
    soak: Option<u64>,
    /// Only Nexmark in process, compared with a recorded file.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Only Nexmark in process, recorded into a file for comparisons.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Only flame graphs of Nexmark's queries, into a directory; needs perf.
    #[arg(long)]
    profile: Option<PathBuf>,
    #[command(flatten)]
    side: side::Options,
    #[command(flatten)]
    serve: serving::Options,
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
    /// Nexmark: the server's or the process's `--memory`, in MB.
    #[arg(long, default_value_t = MEMORY_BYTES >> 20)]
    memory_mb: u64,
    /// Runs of each query; the median counts.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Nexmark: checkpoint intervals.
    #[arg(long, value_delimiter = ',', default_value = "1s,10s")]
    checkpoint_intervals: Vec<String>,
    /// Nexmark: leave out the comparison with the batch answer.
    #[arg(long)]
    unchecked: bool,
    /// Scaling: rows of the input.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Idle, unaligned: seconds of watching.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Freshness: writes.
    #[arg(long, default_value_t = 500)]
    writes: usize,
    /// One query in this process, as JSON.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// One query in DataFusion, told by standard input, as JSON.
    #[arg(long, hide = true)]
    datafusion_child: bool,
    #[arg(long, hide = true)]
    touch_memory: bool,
}

fn main() {
    let arguments = Arguments::parse();
    allocator::configure(arguments.memory_mb << 20);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure(arguments));
}

async fn measure(arguments: Arguments) {
    if let Some(query) = &arguments.child {
        return nexmark::child(query, &arguments).await;
    }
    if arguments.touch_memory {
        return usage::touch_memory();
    }
    if arguments.datafusion_child {
        return side::peers::datafusion_child().await;
    }
    let (compare, record) = (arguments.baseline.as_deref(), arguments.record.as_deref());
    let parts = [
        arguments.nexmark,
        arguments.side_by_side,
        arguments.serving,
        arguments.scaling,
        arguments.idle,
        arguments.freshness,
        arguments.unaligned,
    ];
    let parts = parts.contains(&true)
        || arguments.views.is_some()
        || arguments.state_size.is_some()
        || compare.or(record).is_some()
        || arguments.soak.is_some()
        || arguments.profile.is_some();
    if !parts || arguments.nexmark {
        nexmark::measure(&arguments).await;
    }
    if !parts || arguments.side_by_side {
        side::measure(&arguments).await;
    }
    if !parts || arguments.serving {
        serving::measure(&arguments.serve).await;
    }
    if !parts || arguments.state_size.is_some() {
        let sizes = arguments.state_size.as_deref().unwrap_or(&[1e5, 1e6, 1e7]);
        state_size::measure(sizes, arguments.events, arguments.spill || !parts).await;
    }
    if !parts || arguments.scaling {
        scaling::measure(arguments.rows, arguments.repeat.max(1)).await;
    }
    if !parts || arguments.views.is_some() {
        views::measure(arguments.views.as_deref().unwrap_or(&[1, 10, 100, 500]), arguments.rows, arguments.seconds).await;
    }
    if !parts || arguments.unaligned {
        checkpoint_mode::measure(arguments.seconds).await;
    }
    if !parts || arguments.idle {
        idle::measure(arguments.seconds).await;
    }
    if !parts || arguments.freshness {
        freshness::measure(arguments.writes).await;
    }
    if compare.or(record).is_some() {
        baseline::measure(&arguments, compare, record).await;
    }
    if let Some(seconds) = arguments.soak {
        soak::measure(seconds).await;
    }
    if let Some(directory) = &arguments.profile {
        flame::measure(&arguments, directory).await;
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn options_have_names_of_their_own() {
        super::Arguments::command().debug_assert();
    }
}
