//! Sessions that wait for each other: what they find when they go on, and how a wait ends.

use std::time::Duration;

use tokio_postgres::NoTls;

use super::bank::{connect, state};

/// Long enough for a statement to have reached its wait.
const REACHED: Duration = Duration::from_millis(150);

/// An UPDATE, a DELETE and an INSERT … ON CONFLICT that had to wait see what the other has left, not what they saw first.
pub async fn waits_then_looks_again(url: &str) {
    let (a, b) = (connect(url).await, connect(url).await);
    a.batch_execute("DROP TABLE IF EXISTS w; CREATE TABLE w (id INT PRIMARY KEY, n INT)").await.unwrap();
    let cases: [(&str, &str, u64, &[(i32, i32)]); 9] = [
        // What a does meanwhile, what b does, how many rows b changes, what is left.
        ("UPDATE w SET n = n + 5 WHERE id = 1", "UPDATE w SET n = n * 2 WHERE id = 1", 1, &[(1, 30), (2, 20)]),
        ("UPDATE w SET n = 11 WHERE id = 1", "UPDATE w SET n = 0 WHERE id = 1 AND n = 10", 0, &[(1, 11), (2, 20)]),
        ("UPDATE w SET n = 11 WHERE id = 1", "DELETE FROM w WHERE n < 15", 1, &[(2, 20)]),
        ("UPDATE w SET n = 99 WHERE id = 1", "DELETE FROM w WHERE n < 15", 0, &[(1, 99), (2, 20)]),
        ("DELETE FROM w WHERE id = 1", "UPDATE w SET n = n + 1", 1, &[(2, 21)]),
        ("DELETE FROM w WHERE id = 1", "INSERT INTO w VALUES (1, 77)", 1, &[(1, 77), (2, 20)]),
        ("INSERT INTO w VALUES (3, 30)", "INSERT INTO w VALUES (3, 1) ON CONFLICT DO NOTHING", 0, &[(1, 10), (2, 20), (3, 30)]),
        (
            "INSERT INTO w VALUES (3, 30)",
            "INSERT INTO w VALUES (3, 1) ON CONFLICT (id) DO UPDATE SET n = w.n + excluded.n",
            1,
            &[(1, 10), (2, 20), (3, 31)],
        ),
        ("UPDATE w SET id = 5 WHERE id = 1", "UPDATE w SET n = 0 WHERE id = 1", 0, &[(2, 20), (5, 10)]),
    ];
    for (first, second, count, left) in cases {
        a.batch_execute("TRUNCATE w; INSERT INTO w VALUES (1, 10), (2, 20)").await.unwrap();
        a.batch_execute("BEGIN").await.unwrap();
        a.batch_execute(first).await.unwrap();
        let (changed, ()) = tokio::join!(b.execute(second, &[]), async {
            tokio::time::sleep(REACHED).await;
            a.batch_execute("COMMIT").await.unwrap();
        });
        assert_eq!(changed.unwrap(), count, "{first}; {second}");
        a.batch_execute("FLUSH").await.unwrap();
        let rows = a.query("SELECT id, n FROM w ORDER BY id", &[]).await.unwrap();
        let found = rows.iter().map(|r| (r.get(0), r.get(1))).collect::<Vec<(i32, i32)>>();
        assert_eq!(found, left, "{first}; {second}");
    }
    // A key that is given back is free.
    a.batch_execute("BEGIN; INSERT INTO w VALUES (9, 1)").await.unwrap();
    let (added, ()) = tokio::join!(b.execute("INSERT INTO w VALUES (9, 2)", &[]), async {
        tokio::time::sleep(REACHED).await;
        a.batch_execute("ROLLBACK").await.unwrap();
    });
    assert_eq!(added.unwrap(), 1);
    a.batch_execute("BEGIN; INSERT INTO w VALUES (10, 1)").await.unwrap();
    let (refused, ()) = tokio::join!(b.execute("INSERT INTO w VALUES (10, 2)", &[]), async {
        tokio::time::sleep(REACHED).await;
        a.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(state(&refused.unwrap_err()), "23505");
    a.batch_execute("DROP TABLE w").await.unwrap();
}

/// Two transactions want each other's row: one gets the error, the other goes on.
pub async fn deadlock(url: &str) {
    let (a, b) = (connect(url).await, connect(url).await);
    a.batch_execute("DROP TABLE IF EXISTS d; CREATE TABLE d (id INT PRIMARY KEY, n INT); INSERT INTO d VALUES (1, 0), (2, 0)")
        .await
        .unwrap();
    a.batch_execute("BEGIN; UPDATE d SET n = 1 WHERE id = 1").await.unwrap();
    b.batch_execute("BEGIN; UPDATE d SET n = 2 WHERE id = 2").await.unwrap();
    let one = async {
        let result = a.batch_execute("UPDATE d SET n = 1 WHERE id = 2").await;
        a.batch_execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        result
    };
    let other = async {
        tokio::time::sleep(REACHED).await;
        let result = b.batch_execute("UPDATE d SET n = 2 WHERE id = 1").await;
        b.batch_execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        result
    };
    let (one, other) = tokio::join!(one, other);
    let failed = [&one, &other].into_iter().filter_map(|r| r.as_ref().err()).map(state).collect::<Vec<_>>();
    assert_eq!(failed, ["40P01"]);
    let winner = if one.is_ok() { 1 } else { 2 };
    a.batch_execute("FLUSH").await.unwrap();
    let row = a.query_one("SELECT min(n), max(n) FROM d", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (winner, winner));
    a.batch_execute("DROP TABLE d").await.unwrap();
}

/// A statement that waits for a lock ends when it is cancelled or out of time, and when its session goes its locks go.
pub async fn waits_end(url: &str) {
    let (a, b) = (connect(url).await, connect(url).await);
    a.batch_execute("DROP TABLE IF EXISTS e; CREATE TABLE e (id INT PRIMARY KEY, n INT); INSERT INTO e VALUES (1, 0)").await.unwrap();
    a.batch_execute("BEGIN; UPDATE e SET n = 1 WHERE id = 1").await.unwrap();
    let cancel = b.cancel_token();
    let (cancelled, ()) = tokio::join!(b.batch_execute("UPDATE e SET n = 2 WHERE id = 1"), async {
        tokio::time::sleep(REACHED).await;
        cancel.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(state(&cancelled.unwrap_err()), "57014");
    b.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
    assert_eq!(state(&b.batch_execute("DELETE FROM e").await.unwrap_err()), "57014");
    b.batch_execute("SET statement_timeout = 0; SET lock_timeout = '50ms'").await.unwrap();
    assert_eq!(state(&b.batch_execute("DELETE FROM e").await.unwrap_err()), "55P03");
    b.batch_execute("SET lock_timeout = 0").await.unwrap();
    // The client that holds the lock goes away.
    let (gone, ()) = tokio::join!(b.execute("UPDATE e SET n = n + 2 WHERE id = 1", &[]), async {
        tokio::time::sleep(REACHED).await;
        drop(a);
    });
    assert_eq!(gone.unwrap(), 1);
    assert_eq!(b.query_one("SELECT n FROM e", &[]).await.unwrap().get::<_, i32>(0), 2);
    // An error gives back at once what its transaction has locked, unless a savepoint could return to it.
    b.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
    for (savepoint, refused) in [("", None), ("SAVEPOINT s; ", Some("55P03"))] {
        let c = connect(url).await;
        c.batch_execute(&format!("BEGIN; {savepoint}UPDATE e SET n = 9 WHERE id = 1")).await.unwrap();
        assert_eq!(state(&c.batch_execute("SELECT 1 / 0").await.unwrap_err()), "22012");
        let changed = b.batch_execute("UPDATE e SET n = n + 1 WHERE id = 1").await;
        assert_eq!(changed.as_ref().err().map(state).as_deref(), refused);
        assert_eq!(state(&c.batch_execute("SELECT 1").await.unwrap_err()), "25P02");
        c.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(b.query_one("SELECT n FROM e", &[]).await.unwrap().get::<_, i32>(0), 3);
    b.batch_execute("SET lock_timeout = 0; DROP TABLE e").await.unwrap();
}

/// DROP waits for writers, as long as it may; who waits for a DROP finds no table. A session that idles in a transaction ends in time.
pub async fn drops_wait(url: &str) {
    let (a, b, c) = (connect(url).await, connect(url).await, connect(url).await);
    a.batch_execute("CREATE SCHEMA w").await.unwrap();
    for (drop, table) in [("DROP TABLE d", "d"), ("DROP SCHEMA w CASCADE", "w.d")] {
        a.batch_execute(&format!("CREATE TABLE {table} (id INT PRIMARY KEY)")).await.unwrap();
        a.batch_execute(&format!("BEGIN; INSERT INTO {table} VALUES (1)")).await.unwrap();
        b.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
        assert_eq!(state(&b.batch_execute(drop).await.unwrap_err()), "55P03");
        b.batch_execute("SET lock_timeout = 0").await.unwrap();
        // Meanwhile other tables come and go.
        let insert = format!("INSERT INTO {table} VALUES (2)");
        let others = async {
            tokio::time::sleep(REACHED).await;
            c.batch_execute("CREATE TABLE free (id INT); DROP TABLE free").await.unwrap();
            let ((), late) = tokio::join!(
                async {
                    tokio::time::sleep(REACHED).await;
                    a.batch_execute("COMMIT").await.unwrap();
                },
                c.batch_execute(&insert)
            );
            late
        };
        let (dropped, late) = tokio::join!(b.batch_execute(drop), others);
        dropped.unwrap();
        assert_eq!(state(&late.unwrap_err()), "42P01");
    }
    a.batch_execute("CREATE TABLE d (id INT PRIMARY KEY); SET idle_in_transaction_session_timeout = '100ms'").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.batch_execute("BEGIN; INSERT INTO d VALUES (1)").await.unwrap();
    b.batch_execute("DROP TABLE d").await.unwrap();
    assert!(a.batch_execute("SELECT 1").await.is_err());
}

/// Parameters of every statement take the types of what they are compared with or assigned to.
pub async fn parameters(url: &str) {
    let a = connect(url).await;
    a.batch_execute(
        "DROP TABLE IF EXISTS p; CREATE TABLE p (id BIGINT PRIMARY KEY, s SMALLINT, t TEXT, c VARCHAR(4), b BOOLEAN, d DOUBLE PRECISION)",
    )
    .await
    .unwrap();
    let insert = "INSERT INTO p (id, s, t, c, b, d) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, t";
    let row = a.query_one(insert, &[&1i64, &2i16, &"text", &"four", &true, &0.5f64]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (1, "text"));
    let none: Option<i16> = None;
    assert_eq!(a.execute("INSERT INTO p (id, s) VALUES ($1, $2), ($3, 7)", &[&2i64, &none, &3i64]).await.unwrap(), 2);
    let error = a.query(insert, &[&4i64, &2i16, &"text", &"five!", &true, &0.5f64]).await.unwrap_err();
    assert_eq!(state(&error), "22001");
    assert_eq!(a.execute("UPDATE p SET s = s + $1, t = $2 WHERE id = $3 AND s < $4", &[&1i16, &"new", &1i64, &5i16]).await.unwrap(), 1);
    assert_eq!(a.execute("UPDATE p SET d = id * $1::float8 WHERE id IN ($2, $3)", &[&1.5f64, &1i64, &2i64]).await.unwrap(), 2);
    let row = a.query_one("SELECT s, t, d FROM p WHERE id = $1", &[&1i64]).await.unwrap();
    assert_eq!((row.get::<_, i16>(0), row.get::<_, &str>(1), row.get::<_, f64>(2)), (3, "new", 1.5));
    let upsert = "INSERT INTO p (id, t) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET t = excluded.t || $3 WHERE p.id > $4";
    assert_eq!(a.execute(upsert, &[&1i64, &"x", &"y", &0i64]).await.unwrap(), 1);
    assert_eq!(a.execute("INSERT INTO p (id, t) SELECT id + $1, $2 FROM p WHERE t = $3", &[&10i64, &"copied", &"xy"]).await.unwrap(), 1);
    assert_eq!(a.execute("DELETE FROM p WHERE id = $1", &[&3i64]).await.unwrap(), 1);
    let rows = a.query("DELETE FROM p WHERE t = $1 RETURNING id", &[&"copied"]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(), [11]);
    a.batch_execute("DROP TABLE p").await.unwrap();
}
