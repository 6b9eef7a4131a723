//! Random SIGKILL: a server that is killed again and again while clients write, a followed file grows and Nexmark
//! events flow. After each restart every acknowledged write must be there, and every view must equal its query.
//!
//! - `model`: random transactions, and what the tables must hold after them
//! - `large`: state that memory has no room for, and views that are being filled

mod large;
mod model;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::finding::Finding;
use crate::oracle;
use crate::server::{Server, becomes, describe, rows, run, value};
use model::Model;

/// What a run of the harness does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is random.
    pub seed: u64,
    /// How often the server is killed.
    pub kills: usize,
    /// Longest time between a restart and the next kill, in milliseconds.
    pub life_ms_max: u64,
    /// Nexmark events.
    pub events: u64,
    /// Rows of a table whose views have more state than there is memory for; 0: there is none.
    pub large_rows: i64,
    /// Views of that table are made and dropped all the time, and filled at a limited rate.
    pub fills: bool,
    /// A bug of `millpond_state::planted` that the server is to have.
    pub plant: Option<String>,
}

impl Plan {
    /// Every second seed: unaligned checkpoints.
    pub fn is_unaligned(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// Clients write and sources flow; nothing more.
    pub fn new(seed: u64, kills: usize) -> Plan {
        Plan { seed, kills, life_ms_max: 800, events: 100_000, large_rows: 0, fills: false, plant: None }
    }
}

/// What it saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Kills survived.
    pub kills: usize,
    /// Transactions that were answered.
    pub acknowledged: usize,
    /// Epochs at the end.
    pub epochs: u64,
    /// Views compared with their query.
    pub comparisons: usize,
    /// Unaligned checkpoints that were seen before a kill.
    pub unaligned: u64,
    /// Views that a kill found half filled.
    pub half_filled: usize,
    /// Rows of state in memory at the end.
    pub state_rows: u64,
}

const SCHEMA: &str = "
CREATE TABLE account (id BIGINT PRIMARY KEY, branch INT NOT NULL, balance BIGINT NOT NULL);
CREATE TABLE note (account BIGINT, text VARCHAR);
CREATE MATERIALIZED VIEW total AS SELECT branch, count(*) AS n, sum(balance) AS balance, min(balance) AS low, max(balance) AS high FROM account GROUP BY branch;
CREATE MATERIALIZED VIEW rich AS SELECT a.id, a.branch, a.balance, n.text FROM account a LEFT JOIN note n ON a.id = n.account WHERE a.balance > 100;
CREATE MATERIALIZED VIEW rich_branches AS SELECT branch, count(*) AS n, count(text) AS notes FROM rich GROUP BY branch;
CREATE MATERIALIZED VIEW best AS SELECT id, balance FROM account ORDER BY balance DESC, id LIMIT 5;
CREATE MATERIALIZED VIEW silent AS SELECT id FROM account WHERE id NOT IN (SELECT account FROM note WHERE account IS NOT NULL);
CREATE MATERIALIZED VIEW payment_copy AS SELECT * FROM payment;
CREATE MATERIALIZED VIEW paid AS SELECT account, count(*) AS n, sum(amount) AS amount FROM payment GROUP BY account;
CREATE MATERIALIZED VIEW paid_rich AS SELECT p.account, p.amount, a.branch FROM paid p JOIN account a ON p.account = a.id;
CREATE MATERIALIZED VIEW bid_copy AS SELECT auction, bidder, price FROM bid;
CREATE MATERIALIZED VIEW auction_copy AS SELECT id, category FROM auction;
CREATE MATERIALIZED VIEW bids_of_copy AS SELECT b.auction, count(*) AS n, max(b.price) AS price FROM bid_copy b GROUP BY b.auction;
CREATE MATERIALIZED VIEW sold AS SELECT b.auction, b.price, a.category FROM bid_copy b JOIN auction_copy a ON b.auction = a.id;
CREATE MATERIALIZED VIEW price AS SELECT b.auction, max(b.price) AS price, count(*) AS bids FROM bid b JOIN auction a ON b.auction = a.id GROUP BY b.auction;
CREATE MATERIALIZED VIEW price_by_category AS SELECT a.category, sum(p.price) AS price FROM price p JOIN auction a ON p.auction = a.id GROUP BY a.category;
";

/// With unaligned checkpoints there are many epochs on their way.
const UNALIGNED: &[&str] = &[
    "ALTER SYSTEM SET checkpoint_mode = 'unaligned'",
    "ALTER SYSTEM SET checkpoint_interval = '20ms'",
    "ALTER SYSTEM SET epochs_in_flight_max = 32",
];

/// Over a table of accounts with id, branch and balance: a view that needs long for each epoch, and a view over it.
pub const SLOW_VIEWS: &[&str] = &[
    "CREATE TABLE point (id BIGINT PRIMARY KEY, branch INT)",
    "INSERT INTO point SELECT v, v % 7 FROM generate_series(1, 20000) AS t(v)",
    "CREATE MATERIALIZED VIEW pair AS SELECT a.id, p.id AS point, a.balance FROM account a JOIN point p
     ON a.branch = p.branch AND (a.id * 31 + p.id * 17) % 1000 = 0",
    "CREATE MATERIALIZED VIEW pair_total AS SELECT point, count(*) AS n, sum(balance) AS balance FROM pair GROUP BY point",
];

const COPIES: &[(&str, &str)] = &[("payment", "payment_copy"), ("bid", "bid_copy"), ("auction", "auction_copy")];

/// Each start of the server has another number of workers and another budget of memory.
fn arguments(plan: &Plan, random: &mut StdRng) -> [&'static str; 4] {
    let workers = ["1", "2", "3"].choose(random).expect("not empty");
    let memory = if plan.large_rows > 0 { &["160MB", "192MB"][..] } else { &["160MB", "256MB", "1GB"] };
    ["--parallelism", workers, "--memory", memory.choose(random).expect("not empty")]
}

/// Runs the plan, with unaligned checkpoints for every second seed; an error says what was violated.
pub async fn torture(plan: &Plan, dir: &Path) -> Result<Outcome, Finding> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let payments = dir.join("payments.csv");
    std::fs::write(&payments, "payment_id,account,amount\n").expect("the temporary directory can be written");
    let mut server = Server::new(dir, &arguments(plan, &mut random));
    server.set_environment(plan.plant.as_deref().map(|bug| ("MILLPOND_PLANT", bug)).as_slice());
    server.restart().await;
    let client = server.connect().await;
    let sources = format!(
        "CREATE SOURCE payment (payment_id BIGINT, account BIGINT, amount BIGINT) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE CSV;
         CREATE SOURCE bid WITH (connector = 'nexmark', type = 'bid', events = '{events}', seed = '{seed}', rate = '20000');
         CREATE SOURCE auction WITH (connector = 'nexmark', type = 'auction', events = '{events}', seed = '{seed}', rate = '20000');",
        payments.display(),
        events = plan.events,
        seed = plan.seed
    );
    for statement in sources.split(';').chain(SCHEMA.split(';')).map(str::trim).filter(|s| !s.is_empty()) {
        run(&client, statement).await;
    }
    if plan.is_unaligned() {
        for statement in UNALIGNED.iter().chain(SLOW_VIEWS) {
            run(&client, statement).await;
        }
    }
    let mut model = Model::new(plan.large_rows);
    if plan.large_rows > 0 {
        large::make(&client, &mut model).await;
    }
    let mut outcome = Outcome::default();
    let mut paid = 0u64;
    for kill in 0..plan.kills {
        let life = Duration::from_millis(random.random_range(5..plan.life_ms_max));
        let client = server.connect().await;
        if plan.large_rows > 0 {
            large::tighten(&client, &mut random).await;
        }
        let filler = server.connect().await;
        let mut filling = StdRng::seed_from_u64(random.random());
        let fills = async { if plan.fills { large::fill(&filler, &mut filling, plan.large_rows).await } else { Ok(()) } };
        let until = tokio::time::sleep(life);
        tokio::pin!(until);
        let work = async {
            while model.transact(&client, &mut random).await {
                outcome.acknowledged += 1;
                if random.random_bool(0.5) {
                    append(&payments, &mut paid, &mut random);
                }
            }
        };
        let mut filled = Ok(());
        let both = async { ((), filled) = tokio::join!(work, fills) };
        tokio::select! { () = both => {}, () = &mut until => {} }
        if plan.is_unaligned() {
            outcome.unaligned += number(&client, "SELECT count(*) FROM millpond.checkpoints WHERE kind = 'unaligned'").await;
        }
        server.kill();
        server.set_arguments(&arguments(plan, &mut random));
        let context = |finding: Finding| finding.context(&format!("seed {} after kill {}", plan.seed, kill + 1));
        filled.map_err(context)?;
        server.try_restart().await.map_err(|e| context(Finding::Misbehaved(e)))?;
        let client = server.connect().await;
        model.compare(&client).await.map_err(context)?;
        check_prefix(&client).await.map_err(context)?;
        let half_filled = value(&client, "SELECT count(*) FROM millpond.jobs WHERE state = 'BACKFILLING' AND rows_done > 0").await;
        outcome.half_filled += half_filled.parse::<usize>().unwrap_or(0);
        let compared = if plan.fills { oracle::check_filled(&client, COPIES).await } else { oracle::check_all(&client, COPIES).await };
        outcome.comparisons += compared.map_err(|e| context(Finding::Diverged(e)))?;
        outcome.kills += 1;
    }
    let client = server.connect().await;
    let context = |e: String| Finding::Diverged(e).context(&format!("seed {} at the end", plan.seed));
    let counts = [("payment_copy", paid), ("bid_copy", plan.events / 50 * 46), ("auction_copy", plan.events / 50 * 3)];
    for (copy, count) in counts {
        // Too many do not become fewer.
        let sql = format!("SELECT CASE WHEN count(*) < {count} THEN {count} ELSE count(*) END FROM {copy}");
        let most = value(&client, &sql).await;
        if most != count.to_string() {
            return Err(context(format!("{copy} has {most} rows, its source {count}")));
        }
        becomes(&client, &format!("SELECT count(*) FROM {copy}"), &count.to_string()).await.map_err(context)?;
    }
    outcome.comparisons += oracle::check_all(&client, COPIES).await.map_err(context)?;
    // Sources that end can be read in batch from their start: the copies themselves are right, too.
    for (source, copy, columns) in [("bid", "bid_copy", "auction, bidder, price"), ("auction", "auction_copy", "id, category")] {
        oracle::check(&client, copy, &format!("SELECT {columns} FROM {source}"), &[]).await.map_err(context)?;
    }
    if plan.large_rows > 0 {
        run(&client, "CHECKPOINT").await;
        outcome.state_rows = value(&client, "SELECT sum(state_rows)::bigint FROM millpond.operators").await.parse().unwrap_or(u64::MAX);
    }
    outcome.epochs = value(&client, "SELECT max(epoch) FROM millpond.checkpoints").await.parse().unwrap_or(0);
    server.stop().await;
    Ok(outcome)
}

/// What a server that may be gone says.
async fn number(client: &Client, sql: &str) -> u64 {
    let found = rows(client, sql).await.unwrap_or_default();
    found.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0)
}

/// The followed file's lines are numbered: what was read of it has no gap and nothing twice.
async fn check_prefix(client: &Client) -> Result<(), Finding> {
    let sql = "SELECT count(*), count(DISTINCT payment_id), coalesce(max(payment_id) + 1, 0) FROM payment_copy";
    let found = rows(client, sql).await.map_err(|e| Finding::Misbehaved(describe(&e)))?;
    let row = found.first().cloned().unwrap_or_default();
    let [read, distinct, next] = row.as_slice() else { return Err(Finding::Misbehaved(format!("{sql}: {row:?}"))) };
    if read == distinct && read == next {
        return Ok(());
    }
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    Err(Finding::Diverged(format!("{} lines of the file were read, {} different ones, up to {}", text(read), text(distinct), text(next))))
}

fn append(path: &Path, paid: &mut u64, random: &mut StdRng) {
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let lines = random.random_range(1..20);
    let text = (0..lines).map(|i| format!("{},{},{}\n", *paid + i, random.random_range(0..50), random.random_range(1..1000)));
    let text = text.collect::<String>();
    // In two writes, so that a reader meets half a line now and then.
    let cut = random.random_range(0..text.len());
    file.write_all(&text.as_bytes()[..cut]).unwrap();
    file.write_all(&text.as_bytes()[cut..]).unwrap();
    *paid += lines;
}
