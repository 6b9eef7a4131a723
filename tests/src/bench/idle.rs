//! What a server costs to which nothing happens: tables, followed files, sources that have ended, and twenty views.

use std::io::Write;
use std::time::{Duration, Instant};

use millpond_tests::server::{Server, run, value};

use crate::usage;

/// Threads that used a smaller part of a core are not shown.
const SHOWN_MIN: f64 = 0.0002;

/// Prints the part of a core that the server used, and which threads.
pub async fn measure(seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["payment", "account"] {
        let mut file = std::fs::File::create(dir.path().join(format!("{name}.csv"))).unwrap();
        writeln!(file, "id,account,amount").unwrap();
        for i in 0..1000 {
            writeln!(file, "{i},{},{}.50", i % 100, i % 37).unwrap();
        }
    }
    let server = Server::start(dir.path(), &["--parallelism", "2", "--log", "warn"]).await;
    let client = server.connect().await;
    for name in ["payment", "account"] {
        let options = format!("connector = 'file', path = '{}', follow = 'true'", dir.path().join(format!("{name}.csv")).display());
        let columns = "id BIGINT, account BIGINT, amount NUMERIC(12,2)";
        run(&client, &format!("CREATE SOURCE {name} ({columns}) WITH ({options}) FORMAT PLAIN ENCODE CSV")).await;
    }
    run(&client, "CREATE TABLE branch (id INT PRIMARY KEY, name TEXT); CREATE TABLE entry (id INT PRIMARY KEY, branch INT, amount INT)")
        .await;
    run(&client, "INSERT INTO branch SELECT v, 'branch ' || v FROM generate_series(1, 10) AS t(v)").await;
    run(&client, "INSERT INTO entry SELECT v, v % 10 + 1, v FROM generate_series(1, 1000) AS t(v)").await;
    run(&client, "CREATE SOURCE bid WITH (connector = 'nexmark', type = 'bid', events = '10000')").await;
    let views = [
        "SELECT account, count(*) AS n, sum(amount) AS amount FROM payment GROUP BY account",
        "SELECT a.account, count(*) AS n FROM payment p JOIN account a ON a.id = p.id GROUP BY a.account",
        "SELECT b.name, sum(e.amount) AS amount FROM entry e JOIN branch b ON b.id = e.branch GROUP BY b.name",
        "SELECT channel, count(*) AS n, avg(price) AS price FROM bid GROUP BY channel",
        "SELECT * FROM entry ORDER BY amount DESC LIMIT 10",
    ];
    for number in 0..20 {
        // Every fifth view reads another one.
        let query = match number % 5 {
            4 => format!("SELECT n, count(*) AS accounts FROM v{} GROUP BY n", number - 4),
            kind => views.get(kind + usize::from(kind == 3 && number > 10)).copied().unwrap_or_default().to_string(),
        };
        run(&client, &format!("CREATE MATERIALIZED VIEW v{number} AS {query}")).await;
    }
    run(&client, "CHECKPOINT").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let process = server.process_id();
    let (epoch, before, started) = (value(&client, "SELECT max(epoch) FROM millpond.jobs").await, usage::threads(process), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (used, elapsed) = (usage::since(&before, usage::threads(process)), started.elapsed().as_secs_f64());
    let part = |d: Duration| d.as_secs_f64() / elapsed;
    let all = part(used.iter().map(|t| t.ran).sum());
    println!(
        "\nidle for {seconds} s with 20 views, 2 followed files, 2 tables: {:.2} % of a core, {} MB",
        all * 100.0,
        usage::rss(process) >> 20
    );
    for thread in used.iter().filter(|t| part(t.ran) >= SHOWN_MIN) {
        println!("  {:<16} {:.2} %", thread.name, part(thread.ran) * 100.0);
    }
    println!("  epochs meanwhile: from {epoch} to {}", value(&client, "SELECT max(epoch) FROM millpond.jobs").await);
}
