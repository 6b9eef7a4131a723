//! Serving: prepared point lookups and small aggregates over a view of many rows, over several connections, while
//! nothing else happens and while rows come in; the same of PostgreSQL, where it is installed. The clients share the
//! machine with the server, so the server's CPU time per query says more than queries per second.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millpond_tests::server::{Server, free_port, run};
use tokio_postgres::{Client, NoTls};

use crate::usage;

const BRANCHES: i64 = 1000;
const POINT: &str = "SELECT n, amount FROM by_account WHERE account = $1";
const SMALL: &str = "SELECT count(*) AS n, sum(amount) AS amount FROM by_branch WHERE branch < $1";
const GROUPS: &str = "SELECT n, count(*) AS accounts, sum(amount) AS amount FROM by_account GROUP BY n";
/// Rows of one INSERT while rows come in, and how many of these a second.
const INGEST_ROWS: i64 = 500;
const INGEST_PAUSE: Duration = Duration::from_millis(100);

/// Options of this part.
#[derive(clap::Args)]
#[group(id = "serving-options")]
pub struct Options {
    /// Serving: rows of the view.
    #[arg(long, default_value_t = 1_000_000)]
    view_rows: i64,
    /// Serving: numbers of connections.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    connections: Vec<usize>,
    /// Serving: seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    serving_seconds: u64,
    /// Serving: where PostgreSQL's initdb and postgres are.
    #[arg(long, default_value = "/usr/lib/postgresql/15/bin")]
    postgres: PathBuf,
}

/// A database under measurement.
struct Database {
    name: &'static str,
    url: String,
    process: u32,
    /// Adds the rows from `{first}` to `{last}` to what is served.
    ingest: &'static str,
}

/// Prints a line for each database, query, number of connections, idle or not.
pub async fn measure(options: &Options) {
    println!("\nserving from {} rows, prepared statements, {} s each; load {}", options.view_rows, options.serving_seconds, usage::load());
    println!(
        "{:<11} {:<16} {:<10} {:>11} {:>10} {:>9} {:>9} {:>16}",
        "", "query", "meanwhile", "connections", "queries/s", "p50 ms", "p99 ms", "server CPU us"
    );
    let dir = tempfile::tempdir().unwrap();
    {
        let server = Server::start(dir.path(), &["--log", "warn"]).await;
        let database = Database {
            name: "Millpond",
            url: server.url(),
            process: server.process_id(),
            ingest: "INSERT INTO payment SELECT v, v % 1000000, v % 7 FROM generate_series({first}, {last}) AS t(v)",
        };
        load(&database, options, true).await;
        all(&database, options).await;
    }
    match Postgres::start(&options.postgres) {
        Ok(postgres) => {
            let ingest = "INSERT INTO by_account SELECT v % 1000000, 1, v % 7 FROM generate_series({first}, {last}) AS t(v) \
                          ON CONFLICT (account) DO UPDATE SET n = by_account.n + 1, amount = by_account.amount + excluded.amount";
            let database = Database { name: "PostgreSQL", url: postgres.url.clone(), process: postgres.child.id(), ingest };
            load(&database, options, false).await;
            all(&database, options).await;
        }
        Err(error) => println!("PostgreSQL is left out: {error} (--postgres)"),
    }
}

async fn connect(database: &Database) -> Client {
    let started = Instant::now();
    loop {
        match tokio_postgres::connect(&database.url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{}: {error}", database.name),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same rows: views of a table here, tables there.
async fn load(database: &Database, options: &Options, views: bool) {
    let client = connect(database).await;
    let rows = options.view_rows;
    run(&client, "CREATE TABLE payment (id BIGINT PRIMARY KEY, account BIGINT, amount BIGINT)").await;
    for first in (0..rows).step_by(100_000) {
        let last = (first + 100_000).min(rows) - 1;
        run(&client, &format!("INSERT INTO payment SELECT v, v, v % 9973 FROM generate_series({first}, {last}) AS t(v)")).await;
    }
    let account = "SELECT account, count(*) AS n, CAST(sum(amount) AS BIGINT) AS amount FROM payment GROUP BY account";
    let branch =
        format!("SELECT account % {BRANCHES} AS branch, CAST(sum(amount) AS BIGINT) AS amount FROM payment GROUP BY account % {BRANCHES}");
    let kind = if views { "MATERIALIZED VIEW" } else { "TABLE" };
    run(&client, &format!("CREATE {kind} by_account AS {account}")).await;
    run(&client, &format!("CREATE {kind} by_branch AS {branch}")).await;
    match views {
        true => run(&client, "CHECKPOINT").await,
        false => {
            run(&client, "ALTER TABLE by_account ADD PRIMARY KEY (account); ALTER TABLE by_branch ADD PRIMARY KEY (branch)").await;
            run(&client, "VACUUM ANALYZE by_account").await;
            run(&client, "VACUUM ANALYZE by_branch").await;
        }
    }
}

async fn all(database: &Database, options: &Options) {
    let mut next = 10_000_000_i64;
    for busy in [false, true] {
        for (name, sql, limit) in [("point lookup", POINT, options.view_rows), ("small aggregate", SMALL, BRANCHES)] {
            for connections in &options.connections {
                one(database, options, (name, sql, limit), *connections, busy, &mut next).await;
            }
        }
    }
    let client = connect(database).await;
    // The first reading finds the rows on disk, later ones what the database has kept of them in memory.
    for (reading, times) in [("the first time", 1), ("again", 10)] {
        let (cpu, started) = (usage::cpu_time_of_family(database.process), Instant::now());
        for _ in 0..times {
            client.query(GROUPS, &[]).await.unwrap();
        }
        let (wall, cpu) = (started.elapsed() / times, (usage::cpu_time_of_family(database.process) - cpu) / times);
        let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
        println!("{:<11} GROUP BY over all rows, {reading}: {wall:.4} s, server CPU {cpu:.4} s", database.name);
    }
}

async fn one(database: &Database, options: &Options, query: (&str, &'static str, i64), connections: usize, busy: bool, next: &mut i64) {
    let (name, sql, limit) = query;
    let stop = Arc::new(AtomicBool::new(false));
    let ingest = match busy {
        true => Some(tokio::spawn(ingest(connect(database).await, database.ingest, *next, Arc::clone(&stop)))),
        false => None,
    };
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(connect(database).await);
    }
    let (cpu, started) = (usage::cpu_time_of_family(database.process), Instant::now());
    let until = started + Duration::from_secs(options.serving_seconds);
    let tasks = clients.into_iter().enumerate().map(|(i, client)| tokio::spawn(ask(client, sql, limit, i as u64, until)));
    let tasks = tasks.collect::<Vec<_>>();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let (wall, cpu) = (started.elapsed(), usage::cpu_time_of_family(database.process) - cpu);
    stop.store(true, Ordering::Relaxed);
    if let Some(task) = ingest {
        *next = task.await.unwrap();
    }
    times.sort_unstable();
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    println!(
        "{:<11} {name:<16} {:<10} {connections:>11} {:>10.0} {:>9.3} {:>9.3} {:>16.1}",
        database.name,
        if busy { "ingesting" } else { "idle" },
        times.len() as f64 / wall.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        cpu.as_secs_f64() * 1e6 / times.len().max(1) as f64
    );
}

/// One connection's queries, one after the other, with other parameters each time.
async fn ask(client: Client, sql: &str, limit: i64, seed: u64, until: Instant) -> Vec<Duration> {
    let statement = client.prepare(sql).await.unwrap();
    let mut times = Vec::new();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while Instant::now() < until {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let parameter = (random >> 33) as i64 % limit;
        let started = Instant::now();
        let rows = client.query(&statement, &[&parameter]).await.unwrap();
        times.push(started.elapsed());
        assert_eq!(rows.len(), 1, "{sql} with {parameter}");
    }
    times
}

async fn ingest(client: Client, sql: &'static str, first: i64, stop: Arc<AtomicBool>) -> i64 {
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        let last = next + INGEST_ROWS - 1;
        run(&client, &sql.replace("{first}", &next.to_string()).replace("{last}", &last.to_string())).await;
        next += INGEST_ROWS;
        tokio::time::sleep(INGEST_PAUSE).await;
    }
    next
}

/// A PostgreSQL server of its own, with its defaults. Dropping it ends it.
struct Postgres {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Postgres {
    fn start(bin: &Path) -> Result<Postgres, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        // It refuses to run as root.
        let user = match std::fs::metadata(dir.path()).is_ok_and(|own| own.uid() == 0) {
            true => user("postgres"),
            false => None,
        };
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).map_err(|e| e.to_string())?;
        }
        let data = dir.path().join("data");
        let made =
            command("initdb").arg("-D").arg(&data).args(["-U", "tester", "-A", "trust"]).status().map_err(|e| format!("initdb: {e}"))?;
        if !made.success() {
            return Err(format!("initdb: {made}"));
        }
        let port = free_port();
        let listen = ["-h", "127.0.0.1", "-k", "", "-p", &port.to_string()].map(str::to_string);
        let memory = ["-c", "shared_buffers=512MB", "-c", "max_connections=200"];
        let child = command("postgres").arg("-D").arg(&data).args(listen).args(memory).spawn().map_err(|e| format!("postgres: {e}"))?;
        Ok(Postgres { child, url: format!("host=127.0.0.1 port={port} user=tester dbname=postgres"), _dir: dir })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT: disconnects clients and ends.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// A user's numbers.
fn user(name: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|l| l.starts_with(&format!("{name}:")))?;
    let mut fields = line.split(':').skip(2).map(|f| f.parse().ok());
    Some((fields.next()??, fields.next()??))
}
