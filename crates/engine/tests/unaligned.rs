//! Checkpoints that do not wait for a slow operator: shorter, and a start from one loses and doubles nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use common::{create, node, read, rows, start_with, table, view};
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::prelude::{col, lit};
use millpond_common::settings::Settings;
use millpond_common::{Delta, RelationId};
use millpond_engine::{CheckpointInfo, Engine, JobSpec, STASH};
use millpond_plan::{JoinKind, Node, Operator, PlanExpr};
use millpond_state::{Store, StoreOptions, StoredTable, TableLookup};

/// The table joined with itself, whose operator needs some time for every epoch: rows (k, 2 v).
fn slow_join(id: u32, pause: Duration) -> JobSpec {
    let mut spec = view(id, 1, 0);
    let sleep = move |args: &[ColumnarValue]| {
        std::thread::sleep(pause);
        Ok(args[0].clone())
    };
    let udf = create_udf("slow", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(sleep));
    let call = Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(Arc::new(udf), vec![col("c0")]));
    let scan = || node(Operator::Scan { relation: RelationId(1), projection: vec![0, 1] }, vec![]);
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let pairs: SchemaRef = Arc::new(Schema::new(vec![field("k"), field("v"), field("l"), field("w")]));
    let filter = Some(PlanExpr(call.gt_eq(lit(-1_000_000i64))));
    let join = Operator::Join { kind: JoinKind::Inner, on: vec![(0, 0)], null_equals_null: false, filter };
    spec.plan.nodes = vec![
        scan(),
        scan(),
        Node { operator: join, inputs: vec![0, 1], schema: pairs, append_only: false },
        node(Operator::Project { exprs: vec![PlanExpr(col("c0")), PlanExpr(col("c1") + col("c3"))] }, vec![2]),
    ];
    spec
}

fn jobs(pause: Duration) -> Vec<JobSpec> {
    vec![slow_join(10, pause), view(20, 10, 100), view(30, 1, 50)]
}

async fn open(dir: &Path, workers: usize, mode: &str, interval: &str, jobs: Vec<JobSpec>) -> Engine {
    start_with(dir, workers, settings(mode, interval), vec![table()], vec![], jobs).await
}

fn settings(mode: &str, interval: &str) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [("checkpoint_mode", mode), ("checkpoint_interval", interval), ("epochs_in_flight_max", "64")] {
        settings.set(name, Some(value)).unwrap();
    }
    settings
}

/// One transaction: a new row, an old one changed, an older one gone. Nobody waits until it is visible.
async fn change(engine: &Engine, at: i64) {
    let list = [(at, at, 1), (at - 10, at - 10, -1), (at - 10, -at, 1), (at - 50, -(at - 40), -1)];
    let list = list.into_iter().filter(|r| r.0 >= 0 && (r.2 > 0 || r.1 < 0 || at >= 10)).collect::<Vec<_>>();
    let batch = rows(&list.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
    let delta = Delta::new(batch, Some(Int64Array::from_iter_values(list.iter().map(|r| r.2))));
    engine.commit_transaction(vec![(RelationId(1), delta)]).await.unwrap();
}

/// What [`change`] leaves of so many transactions.
fn expected(changes: i64) -> Vec<(i64, i64)> {
    let row = |k: i64| (k, if k + 10 < changes { -(k + 10) } else { k });
    ((changes - 50).max(0)..changes).map(row).collect()
}

fn periodic(engine: &Engine, kind: &str) -> Vec<CheckpointInfo> {
    engine.checkpoints().into_iter().filter(|c| c.kind == kind && c.state == "COMPLETED").collect()
}

/// A copy of a directory, as a crash would leave it now.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn check(engine: &Engine, changes: i64) {
    let double = |list: &[(i64, i64)], above: i64| list.iter().filter(|r| r.1 > above).map(|r| (r.0, 2 * r.1)).collect::<Vec<_>>();
    let held = expected(changes);
    assert_eq!(read(engine, 1), held);
    let joined = double(&held, i64::MIN);
    assert_eq!(read(engine, 10), joined);
    assert_eq!(read(engine, 20), double(&joined, 100));
    assert_eq!(read(engine, 30), double(&held, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_where_epochs_were_on_their_way() {
    for (workers, later) in [(1, 2), (2, 1), (3, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, crashed) = (dir.path().join("db"), dir.path().join("crashed"));
        let pause = Duration::from_millis(5);
        let engine = open(&path, workers, "unaligned", "50ms", vec![]).await;
        for spec in jobs(pause) {
            create(&engine, spec).await;
        }
        let mut changes = 0;
        let start = Instant::now();
        // With a queue, and no later checkpoint: what is copied is the newest one and the log.
        while periodic(&engine, "unaligned").len() < 3 {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", engine.checkpoints());
            change(&engine, changes).await;
            changes += 1;
        }
        eprintln!("{workers}: {changes} changes {:?} {:?}", start.elapsed(), engine.checkpoints().last());
        engine.set_settings(settings("unaligned", "1h")).unwrap();
        change(&engine, changes).await;
        changes += 1;
        copy(&path, &crashed);
        engine.flush().await.unwrap();
        eprintln!("flushed {:?}", start.elapsed());
        check(&engine, changes);
        engine.shutdown().await.unwrap();
        drop(engine);
        eprintln!("shut {:?}", start.elapsed());

        let waiting = {
            let (store, _) = Store::open(&crashed, &StoreOptions::default()).unwrap();
            let mut count = 0;
            let mut each = |_: &[u8], _: &[u8]| {
                count += 1;
                Ok(std::ops::ControlFlow::Continue(()))
            };
            TableLookup::new(&store, STASH, 0..256).walk(&[], &mut each).unwrap();
            count
        };
        assert!(waiting > 0, "nothing waited at operators");
        eprintln!("waiting {waiting} {:?}", start.elapsed());
        // At once: nobody is let in before the epochs are complete.
        let engine = open(&crashed, later, "unaligned", "30ms", jobs(Duration::from_millis(1))).await;
        eprintln!("opened {:?}", start.elapsed());
        check(&engine, changes);
        for _ in 0..100 {
            change(&engine, changes).await;
            changes += 1;
        }
        engine.flush().await.unwrap();
        check(&engine, changes);
        // An aligned checkpoint leaves nothing of the stash, and all state is taken back with the rows.
        let held = expected(changes);
        let gone = Delta::new(rows(&held), Some(Int64Array::from(vec![-1; held.len()])));
        engine.commit_transaction(vec![(RelationId(1), gone)]).await.unwrap();
        engine.checkpoint().await.unwrap();
        assert_eq!((read(&engine, 10), read(&engine, 20), read(&engine, 30)), (vec![], vec![], vec![]));
        assert_eq!(engine.operators().iter().map(|o| o.state_rows).sum::<u64>(), 0);
        engine.shutdown().await.unwrap();
        drop(engine);
        let engine = open(&crashed, later, "aligned", "30ms", jobs(Duration::ZERO)).await;
        assert!(read(&engine, 1).is_empty() && read(&engine, 20).is_empty());
        engine.shutdown().await.unwrap();
    }
}

/// The table of docs/performance.md: `cargo test -p millpond-engine --release --test unaligned -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_both_modes() {
    println!("| mode | epochs in flight, about | checkpoints | median | longest |\n|---|---|---|---|---|");
    for (mode, kind) in [("aligned", "incremental"), ("unaligned", "unaligned")] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), 2, mode, "1s", vec![]).await;
        create(&engine, slow_join(10, Duration::from_millis(20))).await;
        engine.checkpoint().await.unwrap();
        let before = periodic(&engine, kind).len();
        let (start, mut changes, mut queue) = (Instant::now(), 0, Vec::new());
        while start.elapsed() < Duration::from_secs(20) {
            change(&engine, changes).await;
            changes += 1;
            queue.push(engine.epoch() - engine.store().visible_epoch());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut times = periodic(&engine, kind).into_iter().skip(before).map(|c| c.duration.as_millis()).collect::<Vec<_>>();
        times.sort_unstable();
        queue.sort_unstable();
        println!(
            "| {mode} | {} | {} | {} ms | {} ms |",
            queue[queue.len() / 2],
            times.len(),
            times[times.len() / 2],
            times.last().unwrap()
        );
        drop(engine);
    }
}
