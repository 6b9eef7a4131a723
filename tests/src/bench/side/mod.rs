//! Nexmark side by side: the same event files read by Millpond as a view, and by other engines where these are
//! installed. DataFusion (linked in) and DuckDB run the query once, in batch: the floor of the work. Flink maintains it.
//!
//! Numbers of rows and sums of integer columns must agree before a time counts, and Millpond's view must equal its query;
//! Flink's results go nowhere, so they are not compared.
//!
//! - `files.rs`: the event files
//! - `dialect.rs`: the queries in the words of the others
//! - `peers.rs`: how the others are run

pub mod dialect;
pub mod files;
pub mod peers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plot::{self, Series};
use crate::{Arguments, nexmark};
use files::Format;

/// What one engine needed for one query.
#[derive(Clone, Serialize, Deserialize)]
pub struct Run {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub rss_peak: u64,
    /// Number of rows, then the sums of the integer columns.
    #[serde(default)]
    pub found: Vec<String>,
}

/// Options of this part.
#[derive(clap::Args)]
#[group(id = "side-options")]
pub struct Options {
    /// Side by side: formats of the event files.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "csv,json,parquet")]
    formats: Vec<Format>,
    /// Side by side: a Python with the package duckdb.
    #[arg(long, default_value = "python3")]
    duckdb_python: PathBuf,
    /// Side by side: a Python with the package apache-flink.
    #[arg(long, default_value = "python3")]
    flink_python: PathBuf,
    /// Side by side: where the plot of rows per CPU-second goes (SVG); one for each format, named after it.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Median and spread of several runs.
struct Summary {
    rate: f64,
    spread: f64,
    wall_s: f64,
    rss_peak: u64,
}

impl Summary {
    fn of(mut runs: Vec<Run>, events: u64) -> Option<Summary> {
        let rate = |run: &Run| events as f64 / run.cpu_s.max(0.01);
        runs.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
        let spread = rate(runs.first()?) / rate(runs.last()?);
        let run = runs.get(runs.len() / 2)?;
        Some(Summary { rate: rate(run), spread, wall_s: run.wall_s, rss_peak: run.rss_peak })
    }
}

type Results = BTreeMap<&'static str, BTreeMap<String, Summary>>;

/// Prints a table for each format, and draws the plots.
pub async fn measure(arguments: &Arguments) {
    let options = &arguments.side;
    let dir = tempfile::tempdir().unwrap();
    println!("\n{} Nexmark events side by side, {} runs each; load {}", arguments.events, arguments.repeat, crate::usage::load());
    files::write(dir.path(), arguments.events, &options.formats);
    let duckdb = peers::has_module(&options.duckdb_python, "duckdb");
    let flink = peers::has_module(&options.flink_python, "pyflink");
    for (missing, name) in [(!duckdb, "DuckDB (--duckdb-python)"), (!flink, "Flink (--flink-python)")] {
        if missing {
            println!("{name} is not installed and is left out");
        }
    }
    for format in &options.formats {
        let mut results = Results::new();
        for query in &arguments.queries {
            let create = nexmark::text(&format!("{query}.sql"));
            let (runs, integers) = ours(query, *format, arguments, dir.path()).await;
            let expected = runs.first().map(|r| r.found.clone()).unwrap_or_default();
            add(&mut results, "Millpond", query, runs, arguments);
            let mut batch = vec![];
            if *format != Format::Parquet {
                batch.push("DataFusion");
            }
            if duckdb {
                batch.push("DuckDB");
            }
            for engine in batch {
                let job = peers::Job { dir: dir.path(), format: *format, create: &create, integers: &integers };
                let runs = (0..arguments.repeat.max(1)).map(|_| match engine {
                    "DuckDB" => peers::duckdb(&options.duckdb_python, &job),
                    _ => peers::datafusion(&job),
                });
                match runs.collect::<Result<Vec<_>, _>>() {
                    Ok(runs) => {
                        let found = runs.first().map(|r| r.found.clone()).unwrap_or_default();
                        assert_eq!(found, expected, "{query}: {engine} finds other rows than Millpond");
                        add(&mut results, engine, query, runs, arguments);
                    }
                    Err(error) => println!("{query}: {engine} fails: {error}"),
                }
            }
        }
        if flink && *format != Format::Parquet {
            for (query, runs) in peers::flink(&options.flink_python, dir.path(), *format, arguments) {
                add(&mut results, "Flink", &query, runs, arguments);
            }
        }
        print(*format, &results, arguments);
        if let Some(path) = &options.plot {
            draw(path, *format, &results, arguments);
        }
    }
}

fn add(results: &mut Results, engine: &'static str, query: &str, runs: Vec<Run>, arguments: &Arguments) {
    if let Some(summary) = Summary::of(runs, arguments.events) {
        results.entry(engine).or_default().insert(query.to_string(), summary);
    }
}

/// Millpond's runs, and which of the view's columns are integers.
async fn ours(query: &str, format: Format, arguments: &Arguments, dir: &std::path::Path) -> (Vec<Run>, Vec<usize>) {
    let mut runs = vec![];
    let mut integers = vec![];
    for _ in 0..arguments.repeat.max(1) {
        let (cost, client, _server, _directory) = nexmark::over_server(&files::sources(dir, format), query, 1, arguments).await;
        let columns = client.prepare(&format!("SELECT * FROM {query}")).await.unwrap();
        let columns = columns.columns().iter().enumerate().filter(|(_, c)| c.type_().name() == "int8");
        let (places, names): (Vec<_>, Vec<_>) = columns.map(|(i, c)| (i, c.name().to_string())).unzip();
        let sums = names.iter().map(|n| format!(", coalesce(sum(\"{n}\"), 0)")).collect::<String>();
        let found = millpond_tests::server::rows(&client, &format!("SELECT count(*){sums} FROM {query}")).await.unwrap();
        let found = found.into_iter().flatten().map(Option::unwrap_or_default).collect();
        integers = places;
        let seconds = |d: Duration| d.as_secs_f64();
        runs.push(Run { wall_s: seconds(cost.wall), cpu_s: seconds(cost.cpu), rss_peak: cost.rss_peak, found });
    }
    (runs, integers)
}

fn print(format: Format, results: &Results, arguments: &Arguments) {
    println!("\n{}: rows per CPU-second (best run of several over the worst; rows per second of wall time; peak MB)", format.name());
    print!("{:<6}", "query");
    results.keys().for_each(|engine| print!(" {engine:>40}"));
    println!("  Millpond against each");
    let mut ratios = BTreeMap::<&str, Vec<f64>>::new();
    for query in &arguments.queries {
        print!("{query:<6}");
        for of in results.values() {
            match of.get(query) {
                Some(s) => {
                    let detail =
                        format!("{:.0} ({:.2}; {:.0}; {})", s.rate, s.spread, arguments.events as f64 / s.wall_s, s.rss_peak >> 20);
                    print!(" {detail:>40}");
                }
                None => print!(" {:>40}", "-"),
            }
        }
        let own = results.get("Millpond").and_then(|r| r.get(query));
        for (engine, of) in results.iter().filter(|(e, _)| **e != "Millpond") {
            if let (Some(own), Some(other)) = (own, of.get(query)) {
                print!("  {engine} {:.2}", own.rate / other.rate);
                ratios.entry(engine).or_default().push(own.rate / other.rate);
            }
        }
        println!();
    }
    for (engine, list) in ratios {
        let mean = (list.iter().map(|r| r.ln()).sum::<f64>() / list.len() as f64).exp();
        let worst = list.iter().copied().fold(f64::MAX, f64::min);
        println!("Millpond against {engine}, {} queries: geometric mean {mean:.2}, worst {worst:.2}", list.len());
    }
}

fn draw(path: &std::path::Path, format: Format, results: &Results, arguments: &Arguments) {
    let series = results
        .iter()
        .map(|(engine, of)| Series { name: engine, values: arguments.queries.iter().map(|q| of.get(q).map(|s| s.rate)).collect() });
    let title = format!("Nexmark from {} files: rows per CPU-second (logarithmic)", format.name());
    let svg = plot::bars(&title, &arguments.queries, &series.collect::<Vec<_>>());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let file = path.with_file_name(format!("{stem}-{}.svg", format.name()));
    std::fs::write(&file, svg).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}
