//! The gain of a second worker: an aggregate view over a file and over a table, with one worker and with two.
//!
//! Both wall time and CPU time are printed, and how long threads waited for a core: on a machine that others use too,
//! wall time alone says little.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use millpond_tests::oracle;
use millpond_tests::server::{Server, run, value};

use crate::usage;

const ACCOUNTS: u64 = 10_000;
/// Rows of one INSERT.
const INSERT_ROWS: u64 = 100_000;
/// Threads that used less are not shown.
const SHOWN_MIN: Duration = Duration::from_millis(20);

/// Prints a line for each input and number of workers.
pub async fn measure(rows: u64, repeat: usize) {
    println!("\nan aggregate over {rows} rows in {ACCOUNTS} groups; waited: threads that were ready while others had the cores");
    println!(
        "{:<6} {:>2} {:>8} {:>8} {:>9} {:>10} {:>12} {:>9}  CPU s of threads",
        "input", "W", "wall s", "CPU s", "CPU/wall", "rows/s", "rows/CPU-s", "waited s"
    );
    for input in ["file", "table"] {
        let mut first = None;
        for workers in [1, 2] {
            let mut runs = Vec::new();
            for _ in 0..repeat {
                runs.push(once(input, workers, rows).await);
            }
            runs.sort_by_key(|r| r.wall);
            let run = runs.swap_remove(repeat / 2);
            let (wall, cpu) = (run.wall.as_secs_f64(), run.cpu.as_secs_f64());
            println!(
                "{input:<6} {workers:>2} {wall:>8.3} {cpu:>8.2} {:>9.2} {:>10.0} {:>12.0} {:>9.2}  {}",
                cpu / wall,
                rows as f64 / wall,
                rows as f64 / cpu,
                run.waited.as_secs_f64(),
                run.threads
            );
            match first {
                None => first = Some(wall),
                Some(one) => println!("{input:<6} wall time with W = 1 is {:.2} of that with W = 2", one / wall),
            }
        }
    }
}

struct Run {
    wall: Duration,
    cpu: Duration,
    waited: Duration,
    threads: String,
}

async fn once(input: &str, workers: usize, rows: u64) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--parallelism", &workers.to_string(), "--log", "warn"]).await;
    let client = server.connect().await;
    let columns = "id BIGINT, account BIGINT, amount NUMERIC(12,2), kind TEXT";
    if input == "file" {
        let path = dir.path().join("payments.csv");
        write_csv(&path, rows).unwrap();
        let options = format!("connector = 'file', path = '{}'", path.display());
        run(&client, &format!("CREATE SOURCE payment ({columns}) WITH ({options}) FORMAT PLAIN ENCODE CSV")).await;
    } else {
        run(&client, &format!("CREATE TABLE payment ({columns})")).await;
        for start in (0..rows).step_by(INSERT_ROWS as usize) {
            let values = format!(
                "SELECT v, v * 7919 % {ACCOUNTS}, (v % 100000)::NUMERIC(12,2) / 100, CASE v % 2 WHEN 0 THEN 'card' ELSE 'transfer' END"
            );
            let last = (start + INSERT_ROWS).min(rows) - 1;
            run(&client, &format!("INSERT INTO payment {values} FROM generate_series({start}, {last}) AS t(v)")).await;
        }
        run(&client, "CHECKPOINT").await;
    }
    let process = server.process_id();
    let (cpu, threads) = (usage::cpu_time(process), usage::threads(process));
    let started = Instant::now();
    let query = "SELECT account, count(*) AS payments, sum(amount) AS amount, max(amount) AS highest FROM payment GROUP BY account";
    run(&client, &format!("CREATE MATERIALIZED VIEW by_account AS {query}")).await;
    let wall = started.elapsed();
    let (cpu, used) = (usage::cpu_time(process) - cpu, usage::since(&threads, usage::threads(process)));
    assert_eq!(value(&client, "SELECT sum(payments) FROM by_account").await, rows.to_string());
    oracle::check_all(&client, &[]).await.unwrap_or_else(|e| panic!("{input}: {e}"));
    let ended = cpu.saturating_sub(used.iter().map(|t| t.ran).sum());
    let shown = used.iter().filter(|t| t.ran >= SHOWN_MIN).map(|t| format!("{} {:.2}", t.name, t.ran.as_secs_f64()));
    let shown = shown.chain((ended >= SHOWN_MIN).then(|| format!("ended (readers) {:.2}", ended.as_secs_f64())));
    Run { wall, cpu, waited: used.iter().map(|t| t.waited).sum(), threads: shown.collect::<Vec<_>>().join(", ") }
}

/// Payments as a CSV file.
pub fn write_csv(path: &Path, rows: u64) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(out, "id,account,amount,kind")?;
    for v in 0..rows {
        let kind = if v % 2 == 0 { "card" } else { "transfer" };
        writeln!(out, "{v},{},{}.{:02},{kind}", v * 7919 % ACCOUNTS, v % 100_000 / 100, v % 100)?;
    }
    out.flush()
}
