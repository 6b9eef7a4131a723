//! Starting, stopping and refusing: what an operator meets.

use std::process::Command;

use millpond_tests::server::{Server, binary, free_port, rows, run, value, wait_for};

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
    for name in ["millpond_epoch", "millpond_checkpoint_duration_seconds", "millpond_job_output_rows{schema=\"public\",view=\"n\"}"] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    run(&client, "DROP MATERIALIZED VIEW n").await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let metrics = server.get("/metrics");
    assert!(metrics.contains("millpond_epoch") && !metrics.contains("view=\"n\""), "{metrics}");
}

/// Each scalar subquery in another takes longer to plan: this many never end. There are more of them than threads.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_planned_for_long_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let endless = format!("SELECT {}1{}", "(SELECT ".repeat(40), ")".repeat(40));
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut busy = Vec::new();
    for _ in 0..=cores {
        let (client, endless) = (server.connect().await, endless.clone());
        busy.push(tokio::spawn(async move { client.simple_query(&endless).await.map(drop) }));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id INT PRIMARY KEY)").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    assert!(busy.iter().all(|statement| !statement.is_finished()), "these were to take longer");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
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

/// What a source cannot give at a start makes its view fail, with those that read from it, as it would have later.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_cannot_go_on_at_a_start_has_failed_and_can_be_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines.csv");
    std::fs::write(&file, "1,10\n2,20\n3,30\n").unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut server = Server::start(&data, &[]).await;
    let client = server.connect().await;
    for sql in [
        &format!(
            "CREATE SOURCE lines (id INT, v INT) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE CSV (header = 'false')",
            file.display()
        ),
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2)",
        "CREATE MATERIALIZED VIEW of_lines AS SELECT count(*) AS n, sum(v) AS s FROM lines",
        "CREATE MATERIALIZED VIEW of_t AS SELECT count(*) AS n FROM t",
        "CREATE MATERIALIZED VIEW both AS SELECT of_lines.s, of_t.n FROM of_lines, of_t",
    ] {
        run(&client, sql).await;
    }
    let states = "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM millpond.jobs";
    server.stop().await;
    std::fs::write(&file, "1,10\n").unwrap();
    for _ in 0..2 {
        server.restart().await;
        let client = server.connect().await;
        assert_eq!(value(&client, states).await, "both FAILED, of_lines FAILED, of_t RUNNING");
        run(&client, "INSERT INTO t SELECT max(id) + 1 FROM t").await;
        for view in ["of_lines", "both"] {
            let error = rows(&client, &format!("SELECT * FROM {view}")).await.unwrap_err();
            assert_eq!(error.code().map(|c| c.code()), Some("55000"), "{error:?}");
        }
        run(&client, "CHECKPOINT").await;
        server.kill();
    }
    std::fs::write(&file, "1,10\n2,20\n3,30\n4,40\n").unwrap();
    server.restart().await;
    let client = server.connect().await;
    run(&client, "ALTER MATERIALIZED VIEW of_lines RESTART").await;
    wait_for(&client, states, "both RUNNING, of_lines RUNNING, of_t RUNNING").await;
    assert_eq!(value(&client, "SELECT s || ' ' || n FROM both").await, "100 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_changed_at_once_are_all_in_effect() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let names = ["restart_attempts", "dead_letters_max", "restart_failure_rate_max", "transaction_rows_max"];
    for round in 1..20 {
        let change = |name: &'static str| {
            let server = &server;
            async move { run(&server.connect().await, &format!("ALTER SYSTEM SET {name} = {round}")).await }
        };
        tokio::join!(change(names[0]), change(names[1]), change(names[2]), change(names[3]));
        let client = server.connect().await;
        for name in names {
            assert_eq!(value(&client, &format!("SHOW {name}")).await, round.to_string(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_want_too_much_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--memory", "256MB"]).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id BIGINT PRIMARY KEY, x TEXT)").await;
    for (sql, state) in [
        ("INSERT INTO t SELECT value, lpad(value::text, 5000) FROM generate_series(1, 1000000)", "53200"),
        ("SELECT array_agg(value) FROM generate_series(1, 100000000)", "53200"),
        ("SELECT length(repeat('x', 500000000))", "54000"),
        ("SELECT unnest(range(1, 100000000)) LIMIT 1", "54000"),
        ("INSERT INTO t SELECT value, repeat('x', 100000000) FROM generate_series(1, 2)", "54000"),
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some(state), "{sql}: {error:?}");
    }
    // What a transaction had is free again when it has ended.
    for _ in 0..20 {
        run(&client, "BEGIN; INSERT INTO t SELECT value, lpad(value::text, 1000) FROM generate_series(1, 10000) AS g(value); ROLLBACK")
            .await;
    }
    run(&client, "INSERT INTO t SELECT value, lpad(value::text, 1000) FROM generate_series(1, 10000) AS g(value)").await;
    assert_eq!(value(&client, "SELECT count(*)::text FROM t").await, "10000");
}
