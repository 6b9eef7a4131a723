//! State that memory has no room for.

use millpond_tests::oracle;
use millpond_tests::server::{Server, run, value, wait_for};

/// Views with every kind of state, over rows that come, change and go, while hardly any state may stay in memory.
#[tokio::test(flavor = "multi_thread")]
async fn views_are_exact_when_their_state_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--parallelism", "2"]).await;
    let client = server.connect().await;
    run(&client, "ALTER SYSTEM SET state_memory = '64kB'").await;
    run(&client, "ALTER SYSTEM SET checkpoint_interval = '100ms'").await;
    run(
        &client,
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT, amount BIGINT);
         CREATE TABLE customers (id BIGINT PRIMARY KEY, city TEXT);
         CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS n, sum(amount) AS total, min(amount) AS least,
             count(DISTINCT amount) AS amounts FROM orders GROUP BY customer;
         CREATE MATERIALIZED VIEW cities AS SELECT city, count(*) AS n, max(amount) AS most
             FROM orders JOIN customers ON customer = customers.id GROUP BY city;
         CREATE MATERIALIZED VIEW without AS SELECT c.id, o.id AS big FROM customers c
             LEFT JOIN orders o ON o.customer = c.id AND o.amount > 900;
         CREATE MATERIALIZED VIEW ever AS SELECT DISTINCT amount FROM orders;
         CREATE MATERIALIZED VIEW best AS SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY amount DESC, id) AS place
             FROM orders) AS ranked WHERE place <= 2;",
    )
    .await;
    run(&client, "INSERT INTO customers SELECT i, 'city ' || i % 7 FROM generate_series(1, 2000) AS t(i)").await;
    for round in 0..6i64 {
        let statements = [
            format!(
                "INSERT INTO orders SELECT i + {round} * 3000, (i * 7919 + {round}) % 2500, (i * 31) % 1000 FROM generate_series(1, 3000) AS t(i)"
            ),
            format!("UPDATE orders SET amount = (amount * 3 + 1) % 1000 WHERE id % 11 = {round}"),
            format!("DELETE FROM orders WHERE id % 13 = {round}"),
            format!("UPDATE customers SET city = 'new ' || id % 5 WHERE id % 17 = {round}"),
        ];
        for statement in &statements {
            run(&client, statement).await;
        }
        run(&client, "CHECKPOINT").await;
        assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 5);
    }
    wait_for(&client, "SELECT sum(state_rows) < 10000 FROM millpond.operators", "t").await; // of more than 60000
    drop(client);

    server.kill();
    server.restart().await;
    let client = server.connect().await;
    assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 5);
    run(&client, "UPDATE orders SET customer = customer + 1 WHERE id % 3 = 0").await;
    run(&client, "DELETE FROM customers WHERE id % 2 = 0").await;
    assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 5);

    // With room for it, all of it comes back.
    run(&client, "ALTER SYSTEM SET state_backend = 'memory'").await;
    server.kill();
    server.set_arguments(&["--parallelism", "1"]);
    server.restart().await;
    let client = server.connect().await;
    wait_for(&client, "SELECT sum(state_rows) > 40000 FROM millpond.operators", "t").await;
    assert_eq!(oracle::check_all(&client, &[]).await.unwrap(), 5);
    assert!(value(&client, "SELECT count(*) FROM totals").await.parse::<i64>().unwrap() > 1000);
}

/// Groups, each with a row of a view, that take several times what `--memory` has for them, and then changes all over them.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_limit() {
    const KEYS: i64 = 600_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--parallelism", "2", "--memory", "192MB"]).await;
    let client = server.connect().await;
    let (data, part) = (dir.path().join("events"), dir.path().join("part"));
    std::fs::create_dir(&data).unwrap();
    let options = format!("connector = 'file', path = '{}/*.csv', follow = 'true'", data.display());
    run(&client, &format!("CREATE SOURCE event (key BIGINT, amount BIGINT) WITH ({options}) FORMAT PLAIN ENCODE CSV (header = 'false')"))
        .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW by_key AS SELECT key, count(*) AS n, sum(amount) AS total, max(amount) AS most FROM event GROUP BY key",
    )
    .await;
    run(&client, "CREATE MATERIALIZED VIEW read AS SELECT count(*) AS n, count(DISTINCT key) AS keys FROM event").await;
    for (number, rows) in [KEYS, KEYS / 4].into_iter().enumerate() {
        std::fs::write(&part, (0..rows).map(|i| format!("{},{}\n", i * 7919 % KEYS, i % 100)).collect::<String>()).unwrap();
        std::fs::rename(&part, data.join(format!("{number}.csv"))).unwrap();
    }
    wait_for(&client, "SELECT n || ' ' || keys FROM read", &format!("{} {KEYS}", KEYS + KEYS / 4)).await;
    assert_eq!(value(&client, "SELECT count(*) || ' ' || sum(n) FROM by_key").await, format!("{KEYS} {}", KEYS + KEYS / 4));

    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap();
    assert!(peak <= 192 * 1024 / 10 * 12, "resident memory was {} MB", peak / 1024);
}
