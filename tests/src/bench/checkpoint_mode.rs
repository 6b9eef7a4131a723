//! Checkpoints behind a slow view, in both modes: how long they take when so many epochs may be on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millpond_tests::oracle;
use millpond_tests::server::{Server, rows, run};

/// A new row is compared with a quarter of these.
const POINTS: u64 = 2_000_000;
/// Between two new rows: less than the view needs for one, and enough that each has an epoch of its own.
const PAUSE: Duration = Duration::from_millis(2);
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Prints a line for each mode and number of epochs.
pub async fn measure(seconds: u64) {
    println!("\ncheckpoints, one each second at most, while a view needs long for every epoch; {seconds} s each");
    println!(
        "one session writes rows while fewer epochs are in flight, which is between barrier and completion; seen every {} ms\n",
        LOOK.as_millis()
    );
    println!(
        "| mode | epochs_in_flight_max | in flight, median | checkpoints | median ms | longest ms | median KB | epochs/s | worst stall ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for epochs in [2, 32, 128] {
        for mode in ["aligned", "unaligned"] {
            once(mode, epochs, seconds).await;
        }
    }
}

async fn once(mode: &str, epochs: u64, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--parallelism", "2", "--log", "warn"]).await;
    let client = server.connect().await;
    run(&client, &format!("ALTER SYSTEM SET checkpoint_mode = '{mode}'; ALTER SYSTEM SET epochs_in_flight_max = {epochs}")).await;
    run(&client, "CREATE TABLE point (id BIGINT PRIMARY KEY, place INT); CREATE TABLE event (id BIGINT PRIMARY KEY, place INT)").await;
    run(&client, &format!("INSERT INTO point SELECT v, v % 4 FROM generate_series(1, {POINTS}) AS t(v)")).await;
    // Every event meets a quarter of all points; few of these pairs are kept.
    let pairs = "SELECT e.id, e.place, p.id AS point FROM event e JOIN point p ON e.place = p.place AND (e.id * 31 + p.id * 17) % 1000 = 0";
    run(&client, &format!("CREATE MATERIALIZED VIEW pair AS {pairs}")).await;
    run(&client, "CREATE MATERIALIZED VIEW place AS SELECT place, count(*) AS n, max(id) AS newest FROM pair GROUP BY place").await;
    run(&client, "CHECKPOINT").await;
    let room = Arc::new(AtomicBool::new(true));
    let (writing, has_room) = (server.connect().await, Arc::clone(&room));
    let writer = tokio::spawn(async move {
        for id in 0.. {
            while !has_room.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            run(&writing, &format!("INSERT INTO event VALUES ({id}, {})", id % 4)).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
    let mut queue = Vec::new();
    let (started, first) = (Instant::now(), figure(&server, "millpond_visible_epoch"));
    while started.elapsed() < Duration::from_secs(seconds) {
        let in_flight = figure(&server, "millpond_epoch").saturating_sub(figure(&server, "millpond_visible_epoch"));
        room.store(in_flight < epochs, Ordering::Relaxed);
        queue.push(in_flight);
        tokio::time::sleep(LOOK).await;
    }
    let rate = (figure(&server, "millpond_visible_epoch") - first) as f64 / started.elapsed().as_secs_f64();
    writer.abort();
    let _ = writer.await;
    let kind = if mode == "aligned" { "incremental" } else { "unaligned" };
    let sql = format!(
        "SELECT extract(epoch FROM duration) * 1000, extract(epoch FROM stall) * 1000, bytes / 1000.0 \
         FROM millpond.checkpoints WHERE kind = '{kind}' AND epoch > {first}"
    );
    let found = rows(&client, &sql).await.unwrap();
    let column = |at: usize| {
        let mut list = found.iter().filter_map(|r| r[at].as_deref()?.parse::<f64>().ok()).collect::<Vec<_>>();
        list.sort_by(f64::total_cmp);
        (list.get(list.len() / 2).copied().unwrap_or(f64::NAN), list.last().copied().unwrap_or(f64::NAN))
    };
    let ((median, longest), (_, stall), (bytes, _)) = (column(0), column(1), column(2));
    queue.sort_unstable();
    println!(
        "| {mode} | {epochs} | {} | {} | {median:.0} | {longest:.0} | {bytes:.0} | {rate:.0} | {stall:.1} |",
        queue[queue.len() / 2],
        found.len()
    );
    run(&client, "FLUSH").await;
    assert_eq!(oracle::check_all(&client, &[]).await, Ok(2));
}

/// One of the figures for Prometheus.
fn figure(server: &Server, name: &str) -> u64 {
    let metrics = server.get("/metrics");
    let line = metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    line.parse::<f64>().unwrap_or(0.0) as u64
}
