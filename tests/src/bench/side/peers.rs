//! The other engines, each in a process of its own, so that CPU time and memory are the query's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use arrow::array::AsArray;
use arrow::compute::{cast, sum};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, SessionConfig, SessionContext};
use serde::{Deserialize, Serialize};

use super::Run;
use super::dialect::{Dialect, query};
use super::files::{self, Format, KINDS};
use crate::{Arguments, nexmark, usage};

/// Threads of an engine in batch.
const THREADS: usize = 2;

/// A query over the files of a directory.
pub struct Job<'a> {
    pub dir: &'a Path,
    pub format: Format,
    /// The view's statement.
    pub create: &'a str,
    /// Which columns of the result are summed up.
    pub integers: &'a [usize],
}

/// What the scripts read: they take from it what they need.
#[derive(Serialize, Deserialize, Default)]
struct Input {
    files: BTreeMap<String, String>,
    columns: BTreeMap<String, Columns>,
    format: String,
    query: String,
    sums: Vec<usize>,
    queries: serde_json::Map<String, serde_json::Value>,
    repeat: usize,
    directory: String,
}

/// Names and types, in their order.
type Columns = Vec<(String, String)>;

impl Input {
    fn new(dir: &Path, format: Format) -> Input {
        let type_of = |t: &DataType| match t {
            DataType::Int64 => "BIGINT",
            DataType::Timestamp(..) => "TIMESTAMP",
            _ => "VARCHAR",
        };
        let columns =
            |kind: &str| files::columns(kind).fields().iter().map(|f| (f.name().clone(), type_of(f.data_type()).into())).collect();
        Input {
            files: KINDS.iter().map(|k| (k.to_string(), files::path(dir, k, format).display().to_string())).collect(),
            columns: KINDS.iter().map(|k| (k.to_string(), columns(k))).collect(),
            format: format.name().into(),
            ..Input::default()
        }
    }
}

/// Whether a Python is there and has a package.
pub fn has_module(python: &Path, module: &str) -> bool {
    let status = Command::new(python).args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

/// One run in DuckDB.
pub fn duckdb(python: &Path, job: &Job<'_>) -> Result<Run, String> {
    let input = Input { query: query(job.create, Dialect::DuckDb), sums: job.integers.to_vec(), ..Input::new(job.dir, job.format) };
    let output = ask(Command::new(python).args(["-c", include_str!("duckdb.py")]), &input)?;
    serde_json::from_str(&output).map_err(|e| e.to_string())
}

/// One run in DataFusion.
pub fn datafusion(job: &Job<'_>) -> Result<Run, String> {
    let input = Input { query: query(job.create, Dialect::DataFusion), sums: job.integers.to_vec(), ..Input::new(job.dir, job.format) };
    let output = ask(Command::new(std::env::current_exe().unwrap()).arg("--datafusion-child"), &input)?;
    serde_json::from_str(&output).map_err(|e| e.to_string())
}

/// All queries in Flink, several times each.
pub fn flink(python: &Path, dir: &Path, format: Format, arguments: &Arguments) -> BTreeMap<String, Vec<Run>> {
    #[derive(Deserialize)]
    struct Line {
        query: String,
        #[serde(flatten)]
        run: Run,
    }
    let texts = arguments.queries.iter().map(|q| (q.clone(), query(&nexmark::text(&format!("{q}.sql")), Dialect::Flink).into()));
    let input = Input {
        queries: texts.collect(),
        repeat: arguments.repeat.max(1),
        directory: dir.display().to_string(),
        ..Input::new(dir, format)
    };
    let output = ask(Command::new(python).args(["-c", include_str!("flink.py")]), &input);
    let mut found = BTreeMap::<String, Vec<Run>>::new();
    match output {
        Ok(output) => {
            for line in output.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok()) {
                found.entry(line.query).or_default().push(line.run);
            }
        }
        Err(error) => println!("Flink fails: {error}"),
    }
    found
}

fn ask(command: &mut Command, input: &Input) -> Result<String, String> {
    usage::warm_memory();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().map_err(|e| e.to_string())?;
    let text = serde_json::to_vec(input).map_err(|e| e.to_string())?;
    child.stdin.take().map(|mut stdin| stdin.write_all(&text)).transpose().map_err(|e| e.to_string())?;
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => String::from_utf8(output.stdout).map_err(|e| e.to_string()),
        false => Err(output.status.to_string()),
    }
}

/// DataFusion, in this process: reads what is to be done from standard input, prints what it cost.
pub async fn datafusion_child() {
    let input: Input = serde_json::from_reader(std::io::stdin()).unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(THREADS));
    for (table, path) in &input.files {
        let schema = files::columns(table);
        let done = match input.format.as_str() {
            "csv" => context.register_csv(table.as_str(), path, CsvReadOptions::new().has_header(false).schema(&schema)).await,
            _ => context.register_json(table.as_str(), path, JsonReadOptions::default().file_extension(".json").schema(&schema)).await,
        };
        done.unwrap();
    }
    let process = std::process::id();
    let (cpu, started) = (usage::cpu_time(process), Instant::now());
    let batches = context.sql(&input.query).await.unwrap().collect().await.unwrap();
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), (usage::cpu_time(process) - cpu).as_secs_f64());
    let mut found = vec![batches.iter().map(|b| b.num_rows() as i128).sum::<i128>()];
    for column in &input.sums {
        let parts = batches.iter().map(|b| {
            let values = cast(b.column(*column), &DataType::Int64).unwrap();
            i128::from(sum(values.as_primitive::<Int64Type>()).unwrap_or(0))
        });
        found.push(parts.sum());
    }
    let found = found.iter().map(i128::to_string).collect();
    println!("{}", serde_json::to_string(&Run { wall_s, cpu_s, rss_peak: usage::rss_peak(process), found }).unwrap());
}
