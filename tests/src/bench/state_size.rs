//! The same stream over states of different sizes: what an event, a key, a checkpoint, a savepoint and a restart cost.
//! With `--spill`, each size once more with a quarter of the memory that its state took.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millpond_tests::server::{Server, rows, run, value, wait_for};
use tokio_postgres::Client;

use crate::usage;

const QUERY: &str = "SELECT key, count(*) AS n, sum(amount) AS amount FROM event GROUP BY key";
/// Spreads keys over their range; coprime to powers of ten.
const STRIDE: u64 = 7_368_787;
/// Events of each tenth of a second, and how many of these there are, where they come evenly.
const STEADY_ROWS: u64 = 10_000;
const STEADY_TICKS: u64 = 150;
/// The least that a server takes.
const MEMORY_MIN: u64 = 160 << 20;

/// Prints a block for each number of keys.
pub async fn measure(sizes: &[f64], events: u64, spill: bool) {
    println!("\nstate sizes: count and sum by key, then {events} events over all keys; load {}", usage::load());
    let mut base = None;
    for keys in sizes.iter().map(|s| *s as u64) {
        let state = one(keys, events, crate::MEMORY_BYTES.max(keys * 1024), &mut base).await;
        if spill {
            one(keys, events, (state / 4).max(MEMORY_MIN), &mut base).await;
        }
    }
}

/// The memory that the state took.
async fn one(keys: u64, events: u64, memory: u64, base: &mut Option<f64>) -> u64 {
    usage::warm_memory();
    let dir = tempfile::tempdir().unwrap();
    let memory_text = memory.to_string();
    let arguments = ["--log", "warn", "--parallelism", "1", "--memory", &memory_text];
    let mut server = Server::start(dir.path(), &arguments).await;
    let mut client = server.connect().await;
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let options = format!("connector = 'file', path = '{}/*.csv', follow = 'true'", data.display());
    run(&client, &format!("CREATE SOURCE event (key BIGINT, amount BIGINT) WITH ({options}) FORMAT PLAIN ENCODE CSV (header = 'false')"))
        .await;
    run(&client, &format!("CREATE MATERIALIZED VIEW by_key AS {QUERY}")).await;
    run(&client, "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM event").await;
    let empty = usage::rss(server.process_id());
    println!("{keys} keys, memory {} MB", memory >> 20);

    let mut input = Input { dir: dir.path().to_path_buf(), rows: 0, files: 0 };
    let used = input.add(&server, &client, (0..keys).map(|i| i.wrapping_mul(STRIDE) % keys)).await;
    run(&client, "CHECKPOINT").await;
    let state = usage::rss(server.process_id()).saturating_sub(empty);
    println!(
        "  load: {:.3} us CPU per event; state {} bytes a key; memory {} MB, {:.0} bytes a key; peak {} MB",
        used.as_secs_f64() * 1e6 / keys as f64,
        value(&client, &format!("SELECT sum(state_bytes)::BIGINT / {keys} FROM millpond.operators")).await,
        usage::rss(server.process_id()) >> 20,
        state as f64 / keys as f64,
        usage::rss_peak(server.process_id()) >> 20
    );

    let any_key = |i: u64| i.wrapping_mul(i).wrapping_add(i * STRIDE) % keys;
    let used = input.add(&server, &client, (0..events).map(any_key)).await;
    run(&client, "CHECKPOINT").await;
    let cost = used.as_secs_f64() * 1e6 / events as f64;
    let ratio = cost / *base.get_or_insert(cost);
    println!("  {events} events: {cost:.3} us CPU per event, {ratio:.2} of the first size; checkpoints each second meanwhile");
    print_stalls(&client, 0).await;
    steady(&server, &client, &mut input, any_key).await;

    run(&client, "ALTER SYSTEM SET checkpoint_interval = '1h'").await;
    let full = timed_checkpoint(&client, "CHECKPOINT (FULL)", "full").await;
    let changed = (keys / 100).max(1);
    input.add(&server, &client, (0..changed).map(|i| i * 100 % keys)).await;
    let part = timed_checkpoint(&client, "CHECKPOINT", "incremental").await;
    let before = checkpoints(&client, "incremental").await.len();
    input.add(&server, &client, 0..keys).await;
    timed_checkpoint(&client, "CHECKPOINT", "incremental").await;
    // Short of memory, the server makes some before it is asked.
    let mut list = checkpoints(&client, "incremental").await;
    list.truncate(list.len().saturating_sub(before).max(1));
    let all = list.iter().fold(Checkpoint::default(), |all, one| Checkpoint {
        seconds: all.seconds + one.seconds,
        stall_ms: all.stall_ms.max(one.stall_ms),
        megabytes: all.megabytes + one.megabytes,
    });
    println!(
        "  checkpoint: 1 % changed {:.3} s, {:.1} MB, stall {:.2} ms; all changed {:.3} s, {:.1} MB in {}; full, a copy of the files that is read back, {:.3} s, {:.1} MB",
        part.seconds,
        part.megabytes,
        part.stall_ms,
        all.seconds,
        all.megabytes,
        list.len(),
        full.seconds,
        full.megabytes,
    );
    for (name, whole) in [("all changed", all), ("full", full)] {
        let (time, bytes) = (part.seconds / whole.seconds * 100.0, part.megabytes / whole.megabytes * 100.0);
        println!("  1 % changed against {name}: {time:.1} % of the time, {bytes:.1} % of the bytes");
    }

    let (disk, started) = (usage::disk(&dir.path().join("db")), Instant::now());
    run(&client, "SAVEPOINT before").await;
    let (time, grown) = (started.elapsed(), usage::disk(&dir.path().join("db")).saturating_sub(disk));
    println!("  savepoint: {:.3} s, {:.2} % more disk", time.as_secs_f64(), grown as f64 / disk as f64 * 100.0);

    run(&client, "ALTER SYSTEM SET checkpoint_interval = '1s'").await;
    input.add(&server, &client, 0..1000.min(keys)).await;
    drop(client);
    server.kill();
    let started = Instant::now();
    server.restart().await;
    client = server.connect().await;
    while rows(&client, "SELECT n FROM by_key WHERE key = 1").await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(300), "no answer after the restart");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = started.elapsed();
    wait_for(&client, "SELECT n FROM total", &input.rows.to_string()).await;
    let caught_up = started.elapsed();
    println!("  kill -9: first answer after {:.3} s, caught up after {:.3} s", first.as_secs_f64(), caught_up.as_secs_f64());
    assert_eq!(value(&client, "SELECT sum(n) FROM by_key").await, input.rows.to_string());
    assert_eq!(value(&client, "SELECT count(*) FROM by_key").await, keys.to_string());
    state
}

/// A hundred thousand events a second for some seconds, with a checkpoint each second.
async fn steady(server: &Server, client: &Client, input: &mut Input, any_key: impl Fn(u64) -> u64) {
    let before = checkpoints(client, "incremental").await.len();
    // Made beforehand, as the server has the cores to itself where its input comes from elsewhere.
    let files = (0..STEADY_TICKS).map(|part| input.make((part * STEADY_ROWS..(part + 1) * STEADY_ROWS).map(|i| any_key(i + 17))));
    let files = files.collect::<Vec<_>>();
    let (cpu, threads, started) = (usage::cpu_time(server.process_id()), usage::threads(server.process_id()), Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for file in files {
        tick.tick().await;
        input.show(&file);
    }
    input.wait(server, client).await;
    let used = usage::since(&threads, usage::threads(server.process_id()));
    let waited: Duration = used.iter().filter(|t| t.name.starts_with("timely")).map(|t| t.waited).sum();
    println!(
        "  {} events a second for {:.0} s: {:.0} % of a core; the worker waited {:.2} s for a core",
        STEADY_ROWS * 10,
        started.elapsed().as_secs_f64(),
        (usage::cpu_time(server.process_id()) - cpu).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0,
        waited.as_secs_f64()
    );
    print_stalls(client, before).await;
}

/// Files of events, each of them new to a followed source.
struct Input {
    dir: PathBuf,
    rows: u64,
    files: usize,
}

impl Input {
    /// Writes a file that the source does not see yet.
    fn make(&mut self, keys: impl Iterator<Item = u64>) -> PathBuf {
        let path = self.dir.join(format!("{:06}.csv", self.files));
        self.rows += write(&path, keys).unwrap();
        self.files += 1;
        path
    }

    /// Has the source see it.
    fn show(&self, file: &Path) {
        let name = file.file_name().expect("made with a name");
        std::fs::rename(file, self.dir.join("data").join(name)).unwrap();
    }

    /// Waits until all that was written is visible.
    async fn wait(&self, server: &Server, client: &Client) {
        let started = Instant::now();
        while value(client, "SELECT n FROM total").await != self.rows.to_string() {
            assert!(started.elapsed() < Duration::from_secs(1800), "the events are not read\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Both; the CPU time that took.
    async fn add(&mut self, server: &Server, client: &Client, keys: impl Iterator<Item = u64>) -> Duration {
        let file = self.make(keys);
        let before = usage::cpu_time(server.process_id());
        self.show(&file);
        self.wait(server, client).await;
        usage::cpu_time(server.process_id()) - before
    }
}

fn write(path: &Path, keys: impl Iterator<Item = u64>) -> std::io::Result<u64> {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut rows = 0;
    for key in keys {
        writeln!(out, "{key},{}", rows % 1000)?;
        rows += 1;
    }
    out.flush()?;
    Ok(rows)
}

#[derive(Default)]
struct Checkpoint {
    seconds: f64,
    stall_ms: f64,
    megabytes: f64,
}

/// The newest first; of a kind: `incremental` or `full`.
async fn checkpoints(client: &Client, kind: &str) -> Vec<Checkpoint> {
    let sql = "SELECT extract(epoch FROM duration), extract(epoch FROM stall) * 1000, bytes FROM millpond.checkpoints";
    let list = rows(client, &format!("{sql} WHERE error IS NULL AND kind = '{kind}' ORDER BY epoch DESC")).await.unwrap();
    let number = |row: &[Option<String>], i: usize| row.get(i).cloned().flatten().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    list.iter().map(|r| Checkpoint { seconds: number(r, 0), stall_ms: number(r, 1), megabytes: number(r, 2) / 1e6 }).collect()
}

async fn timed_checkpoint(client: &Client, statement: &str, kind: &str) -> Checkpoint {
    run(client, statement).await;
    checkpoints(client, kind).await.into_iter().next().expect("a checkpoint was made")
}

/// Of the checkpoints after the first ones.
async fn print_stalls(client: &Client, first: usize) {
    let list = checkpoints(client, "incremental").await;
    let list = &list[..list.len().saturating_sub(first)]; // the newest come first
    let quantiles = |of: fn(&Checkpoint) -> f64| {
        let mut all = list.iter().map(of).collect::<Vec<_>>();
        all.sort_by(f64::total_cmp);
        [0.5, 0.99].map(|q| all.get((all.len() as f64 * q) as usize).copied().unwrap_or(0.0))
    };
    let ([stall, stall_most], [seconds, seconds_most]) = (quantiles(|c| c.stall_ms), quantiles(|c| c.seconds));
    println!(
        "  {} checkpoints: stall p50 {stall:.2} ms, p99 {stall_most:.2} ms; duration p50 {seconds:.3} s, p99 {seconds_most:.3} s",
        list.len()
    );
}
