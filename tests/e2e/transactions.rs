//! Sessions against each other: locks, isolation, no lost updates.

use millpond_tests::server::Server;
use millpond_tests::workload::{bank, isolation};

async fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    (dir, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_neither_makes_nor_loses_money() {
    let (_dir, server) = server().await;
    bank::bank(&server.url(), 16, 40, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    let (_dir, server) = server().await;
    bank::counter(&server.url(), 16, 25, "READ COMMITTED").await;
    bank::counter(&server.url(), 4, 25, "REPEATABLE READ").await;
    bank::same_keys(&server.url(), 8, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_wait_for_each_other() {
    let (_dir, server) = server().await;
    isolation::waits_then_looks_again(&server.url()).await;
    isolation::deadlock(&server.url()).await;
    isolation::waits_end(&server.url()).await;
    isolation::drops_wait(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_statements_that_write() {
    let (_dir, server) = server().await;
    isolation::parameters(&server.url()).await;
}
