//! Starting, stopping and refusing: what an operator meets.

use std::process::Command;

use millpond_tests::server::{Server, binary, free_port, run, value};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_takes_a_final_checkpoint_and_a_restart_continues() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    run(&client, "CREATE MATERIALIZED VIEW s AS SELECT sum(v) AS s FROM t").await;
    run(&client, "INSERT INTO t VALUES (1, 2), (2, 3)").await;
    assert_eq!(value(&client, "SELECT s FROM s").await, "5");
    drop(client);
    server.stop().await;
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(value(&client, "SELECT s FROM s").await, "5");
    assert_eq!(value(&client, "SELECT count(*) FROM t").await, "2");
}

fn refused(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(binary()).arg("serve").args(arguments).output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let db = dir.path().join("db");
    let (db, other) = (db.to_str().unwrap(), dir.path().join("other"));
    let listen = |port: u16| format!("127.0.0.1:{port}");
    let free = || listen(free_port());

    let (code, text) = refused(&["--data-dir", db, "--listen", &free(), "--http-listen", &free()]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("in use"), "{text}");

    let (code, text) = refused(&["--data-dir", other.to_str().unwrap(), "--listen", &listen(server.port()), "--http-listen", &free()]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("in use") && text.contains(&server.port().to_string()), "{text}");

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "Dear Sir").unwrap();
    let (code, text) = refused(&["--data-dir", foreign.to_str().unwrap(), "--listen", &free(), "--http-listen", &free()]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("not a Millpond data directory"), "{text}");
    assert_eq!(std::fs::read_to_string(foreign.join("letter.txt")).unwrap(), "Dear Sir");

    let (code, text) = refused(&["--memory", "lots"]);
    assert_eq!(code, 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY)").await;
    run(&client, "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    run(&client, "CHECKPOINT").await;
    assert!(server.get("/healthz").contains("200 OK"));
    let metrics = server.get("/metrics");
    for name in ["millpond_epoch", "millpond_checkpoint_duration_seconds", "millpond_job_output_rows{view=\"n\"}"] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
}

/// PREPARE and the protocol's Parse share one space of names.
#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_are_forgotten_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.connect().await;
    for forget in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s0"] {
        // Its name is the client's: s0, s1, …
        let statement = client.prepare("SELECT 1").await.unwrap();
        assert_eq!(client.query(&statement, &[]).await.unwrap().len(), 1);
        let name = format!("s{}", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s0"].iter().position(|f| *f == forget).unwrap());
        assert_eq!(value(&client, &format!("EXECUTE {name}")).await, "1");
        run(&client, &forget.replace("s0", &name)).await;
        let error = client.query(&statement, &[]).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("26000"), "{forget}: {error}");
    }
    run(&client, "PREPARE s3 AS SELECT 2").await;
    assert_eq!(client.prepare("SELECT 3").await.unwrap_err().code().map(|c| c.code()), Some("42P05"));
    let address =
        "SELECT client_addr || ' ' || (client_port > 0)::text || ' ' || (inet_client_port() = client_port)::text FROM pg_stat_activity";
    assert_eq!(value(&client, address).await, "127.0.0.1 true true");
}
