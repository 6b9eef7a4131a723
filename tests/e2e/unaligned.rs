//! Checkpoints that were made in the middle of things, and kept: whatever is made of one is exact.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millpond_tests::crash::SLOW_VIEWS;
use millpond_tests::oracle;
use millpond_tests::server::{Server, binary, rows, run, value, wait_for};
use tokio_postgres::{Client, NoTls};

/// Unaligned checkpoints all the time, of which three are kept.
const SETUP: &[&str] = &[
    "ALTER SYSTEM SET checkpoint_mode = 'unaligned'",
    "ALTER SYSTEM SET checkpoint_interval = '30ms'",
    "ALTER SYSTEM SET epochs_in_flight_max = 32",
    "ALTER SYSTEM SET checkpoint_retention = 3",
    "CREATE TABLE account (id BIGINT PRIMARY KEY, branch INT, balance BIGINT)",
    "CREATE MATERIALIZED VIEW total AS SELECT branch, count(*) AS n, sum(balance) AS balance FROM account GROUP BY branch",
];

/// Accounts whose balance is not what this many transactions leave.
const WRONG: &str = "SELECT count(*) FROM account WHERE balance <>
    CASE WHEN id + 10 < (SELECT count(*) FROM account) THEN -id ELSE id END OR id >= (SELECT count(*) FROM account)";

/// The transaction of this number: a new account, and an older one's balance.
async fn transact(client: &Client, number: i64) {
    let older = number - 10;
    run(
        client,
        &format!("INSERT INTO account VALUES ({number}, {number} % 7, {number}); UPDATE account SET balance = -id WHERE id = {older}"),
    )
    .await;
}

/// Fails unless everything is as some number of whole transactions leaves it; returns how many.
async fn check(client: &Client) -> i64 {
    assert_eq!(value(client, WRONG).await, "0");
    assert!(oracle::check_all(client, &[]).await.unwrap_or_else(|e| panic!("{e}")) >= 3);
    value(client, "SELECT count(*) FROM account").await.parse().unwrap()
}

/// The same now, after more transactions, and after a kill.
async fn goes_on(server: &mut Server) -> i64 {
    let client = server.connect().await;
    let found = check(&client).await;
    for number in found..found + 20 {
        transact(&client, number).await;
    }
    assert_eq!(check(&client).await, found + 20);
    server.kill();
    server.restart().await;
    assert_eq!(check(&server.connect().await).await, found + 20);
    found
}

/// Whether the server, since its log was so long, has started from a checkpoint with epochs on their way.
async fn had_epochs(server: &Server, length: usize) -> bool {
    server.logs(length, "its epochs come first", Duration::ZERO).await
}

/// Writes until so many unaligned checkpoints are complete; returns the number of the next transaction.
async fn write(client: &Client, from: i64, checkpoints: i64) -> i64 {
    let sql = "SELECT count(*) FROM millpond.checkpoints WHERE kind = 'unaligned' AND state = 'COMPLETED'";
    run(client, "SET consistency = 'relaxed'").await;
    let mut number = from;
    while value(client, sql).await.parse::<i64>().unwrap() < checkpoints {
        for _ in 0..20 {
            transact(client, number).await;
            number += 1;
        }
    }
    number
}

async fn start(dir: &Path, arguments: &[&str]) -> Server {
    let server = Server::start(dir, arguments).await;
    let client = server.connect().await;
    for statement in SETUP.iter().chain(SLOW_VIEWS) {
        run(&client, statement).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_unaligned_checkpoint_can_be_read_forked_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    let retained = "SELECT name FROM millpond.savepoints WHERE kind = 'retained' ORDER BY epoch";
    let (mut written, mut checkpoints) = (0, 0);
    // What is on its way at a checkpoint is up to the machine: until one of those that are kept has something.
    let (wanted, found) = loop {
        checkpoints += 5;
        written = write(&client, written, checkpoints).await;
        run(&client, "ALTER SYSTEM SET checkpoint_interval = '1h'").await;
        run(&client, "SET consistency = 'session'").await;
        check(&client).await;
        let mut chosen = None;
        for row in rows(&client, retained).await.unwrap() {
            let name = row[0].clone().unwrap();
            let saved = connect_to(&server, &format!("dev@{name}")).await;
            let read = check(&saved).await;
            let other = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("db"), other.path().join("db"));
            let arguments = ["fork", "--savepoint", &name, "--data-dir", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
            assert!(Command::new(binary()).args(arguments).status().unwrap().success());
            let mut fork = Server::start(other.path(), &["--parallelism", "1"]).await;
            let had_epochs = had_epochs(&fork, 0).await;
            let found = goes_on(&mut fork).await;
            // It goes on with what was on its way, and with what was in the log.
            assert!(0 < read && read <= found && found <= written, "{read} {found} {written}");
            if had_epochs && chosen.is_none() {
                chosen = Some((name, found));
            }
        }
        match chosen {
            Some(chosen) => break chosen,
            None => run(&client, "ALTER SYSTEM SET checkpoint_interval = '30ms'").await,
        }
    };
    // The checkpoints that come before it do not release it, though it may be the oldest.
    let length = server.log_length();
    run(&client, "ALTER SYSTEM SET checkpoint_retention = 1").await;
    run(&client, &format!("RESTORE SAVEPOINT \"{wanted}\"")).await;
    assert!(server.logs(length, "ready:", Duration::from_secs(60)).await);
    assert!(had_epochs(&server, length).await);
    run(&server.connect().await, "ALTER SYSTEM SET checkpoint_interval = '1h'").await;
    assert_eq!(goes_on(&mut server).await, found);
    server.kill();
    server.set_arguments(&["--parallelism", "3", "--from-savepoint", &wanted]);
    let length = server.log_length();
    server.restart().await;
    assert!(had_epochs(&server, length).await);
    assert_eq!(check(&server.connect().await).await, found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_data_directory_comes_back_from_an_unaligned_checkpoint() {
    let (dir, remote) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", remote.path().display());
    let mut server = start(dir.path(), &["--checkpoint-storage", &url, "--checkpoint-storage-interval", "20ms"]).await;
    let mut next = 0;
    // The last one that was uploaded had epochs on their way.
    for round in 0.. {
        assert!(round < 20, "no uploaded checkpoint had epochs on their way");
        let client = server.connect().await;
        wait_for(&client, "SELECT last_epoch > 0 FROM millpond.checkpoint_storage", "t").await;
        let written = write(&client, next, 4).await;
        server.kill();
        std::fs::remove_dir_all(dir.path().join("db")).unwrap();
        let length = server.log_length();
        server.restart().await;
        next = check(&server.connect().await).await;
        assert!(next <= written, "{next} {written}");
        if had_epochs(&server, length).await {
            break;
        }
    }
    goes_on(&mut server).await;
}

async fn connect_to(server: &Server, database: &str) -> Client {
    let url = server.url().replace("dbname=dev", &format!("dbname={database}"));
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
