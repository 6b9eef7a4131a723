//! A bank: many sessions move money between few accounts. Whatever they do, none is made and none is lost.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, NoTls};

/// How many accounts there are: few, so that sessions meet.
const ACCOUNTS: i32 = 8;
/// What each account has at first.
const BALANCE: i64 = 1000;

/// A connection of its own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The SQLSTATE of a failed statement; empty if the connection itself has failed.
pub fn state(error: &tokio_postgres::Error) -> String {
    error.code().map(|c| c.code().to_string()).unwrap_or_default()
}

/// Money moves between random accounts, in transactions of two UPDATEs; deadlocks are retried. Meanwhile the sum over
/// the accounts, and the view of it, never differ from what it was. At the end every account has exactly what the
/// acknowledged transfers left it.
pub async fn bank(url: &str, sessions: usize, transfers: usize, seed: u64) {
    let setup = connect(url).await;
    setup
        .batch_execute(
            "DROP TABLE IF EXISTS accounts CASCADE; CREATE TABLE accounts (id INT PRIMARY KEY, bal BIGINT NOT NULL CHECK (bal >= 0))",
        )
        .await
        .unwrap();
    setup.batch_execute("CREATE MATERIALIZED VIEW wealth AS SELECT sum(bal) AS total, count(*) AS accounts FROM accounts").await.unwrap();
    for id in 0..ACCOUNTS {
        setup.execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &BALANCE]).await.unwrap();
    }
    let running = (0..sessions).map(|i| tokio::spawn(session(url.to_string(), transfers, seed.wrapping_add(i as u64)))).collect::<Vec<_>>();
    let total = BALANCE * i64::from(ACCOUNTS);
    while running.iter().any(|r| !r.is_finished()) {
        for sql in ["SELECT sum(bal)::bigint FROM accounts", "SELECT total::bigint FROM wealth"] {
            let found: i64 = setup.query_one(sql, &[]).await.unwrap().get(0);
            assert_eq!(found, total, "{sql}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut expected = vec![BALANCE; ACCOUNTS as usize];
    for session in running {
        for (account, change) in session.await.unwrap() {
            expected[account as usize] += change;
        }
    }
    // What other sessions have written is visible soon after their answer; FLUSH waits for it.
    setup.batch_execute("FLUSH").await.unwrap();
    let rows = setup.query("SELECT id, bal FROM accounts ORDER BY id", &[]).await.unwrap();
    let found = rows.iter().map(|r| r.get::<_, i64>(1)).collect::<Vec<_>>();
    assert_eq!(found, expected);
    let wealth: i64 = setup.query_one("SELECT total::bigint FROM wealth", &[]).await.unwrap().get(0);
    assert_eq!(wealth, total);
    setup.batch_execute("DROP TABLE accounts CASCADE").await.unwrap();
}

/// One session's transfers. Returns what the committed ones have changed.
async fn session(url: String, transfers: usize, seed: u64) -> Vec<(i32, i64)> {
    let client = connect(&url).await;
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = Vec::new();
    let take = client.prepare("UPDATE accounts SET bal = bal - $2 WHERE id = $1").await.unwrap();
    let give = client.prepare("UPDATE accounts SET bal = bal + $2 WHERE id = $1").await.unwrap();
    for _ in 0..transfers {
        let (from, to) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
        let amount: i64 = random.random_range(1..50);
        loop {
            let moved = async {
                client.batch_execute("BEGIN").await?;
                client.execute(&take, &[&from, &amount]).await?;
                client.execute(&give, &[&to, &amount]).await?;
                client.batch_execute(if amount % 7 == 0 { "ROLLBACK" } else { "COMMIT" }).await
            };
            match moved.await {
                Ok(()) if amount % 7 == 0 => break,
                Ok(()) => {
                    done.extend([(from, -amount), (to, amount)]);
                    break;
                }
                Err(e) => {
                    client.batch_execute("ROLLBACK").await.unwrap();
                    match state(&e).as_str() {
                        "40P01" => continue,
                        "23514" => break, // The account is empty.
                        _ => panic!("{e}: {:?}", e.as_db_error()),
                    }
                }
            }
        }
    }
    done
}

/// Sessions count up one row, each statement by itself or in a transaction of the given isolation. No step is lost.
pub async fn counter(url: &str, sessions: usize, steps: usize, isolation: &str) {
    let setup = connect(url).await;
    setup
        .batch_execute(
            "DROP TABLE IF EXISTS counter; CREATE TABLE counter (id INT PRIMARY KEY, n BIGINT); INSERT INTO counter VALUES (1, 0)",
        )
        .await
        .unwrap();
    let run = |url: String, isolation: String| async move {
        let client = connect(&url).await;
        for _ in 0..steps {
            loop {
                let step = format!("BEGIN ISOLATION LEVEL {isolation}; UPDATE counter SET n = n + 1 WHERE id = 1; COMMIT");
                match client.batch_execute(&step).await {
                    Ok(()) => break,
                    Err(e) if state(&e) == "40001" => client.batch_execute("ROLLBACK").await.unwrap(),
                    Err(e) => panic!("{e}: {:?}", e.as_db_error()),
                }
            }
        }
    };
    let running = (0..sessions).map(|_| tokio::spawn(run(url.to_string(), isolation.to_string()))).collect::<Vec<_>>();
    for session in running {
        session.await.unwrap();
    }
    setup.batch_execute("FLUSH").await.unwrap();
    let found: i64 = setup.query_one("SELECT n FROM counter", &[]).await.unwrap().get(0);
    assert_eq!(found, (sessions * steps) as i64);
    setup.batch_execute("DROP TABLE counter").await.unwrap();
}

/// Sessions insert the same keys: of each key one succeeds. With ON CONFLICT, all count.
pub async fn same_keys(url: &str, sessions: usize, keys: i32) {
    let setup = connect(url).await;
    setup.batch_execute("DROP TABLE IF EXISTS winners; DROP TABLE IF EXISTS visits").await.unwrap();
    setup
        .batch_execute("CREATE TABLE winners (k INT PRIMARY KEY, session INT); CREATE TABLE visits (k INT PRIMARY KEY, n INT)")
        .await
        .unwrap();
    let run = |url: String, session: i32| async move {
        let client = connect(&url).await;
        let mut won = 0;
        for key in 0..keys {
            match client.execute("INSERT INTO winners VALUES ($1, $2)", &[&key, &session]).await {
                Ok(n) => won += n,
                Err(e) => assert_eq!(state(&e), "23505"),
            }
            let visit = "INSERT INTO visits VALUES ($1, 1) ON CONFLICT (k) DO UPDATE SET n = visits.n + excluded.n";
            assert_eq!(client.execute(visit, &[&key]).await.unwrap(), 1);
        }
        won
    };
    let running = (0..sessions).map(|i| tokio::spawn(run(url.to_string(), i as i32))).collect::<Vec<_>>();
    let mut won = 0;
    for session in running {
        won += session.await.unwrap();
    }
    assert_eq!(won, keys as u64);
    setup.batch_execute("FLUSH").await.unwrap();
    let row = setup.query_one("SELECT count(*), min(n), max(n) FROM visits", &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (i64::from(keys), sessions as i32, sessions as i32));
    setup.batch_execute("DROP TABLE winners; DROP TABLE visits").await.unwrap();
}
