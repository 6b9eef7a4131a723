//! Checkpoints that do not wait for a slow operator: shorter, and a start from one loses and doubles nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use common::{create, level, node, read, rows, source, start_with, table, view};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::prelude::{col, lit};
use millpond_common::settings::Settings;
use millpond_common::{Delta, Error, RelationId, StateTableId};
use millpond_engine::{CheckpointInfo, Engine, EngineConfig, JobSpec, STASH, state_tables_needed};
use millpond_plan::{JoinKind, Node, Operator, PlanExpr};
use millpond_state::{Checkpoint, Entries, FrozenTable, Recovered, Store, StoreOptions, StoredTable, TableLookup};

/// `f(x) = x`, which needs some time for every batch, and fails once when the switch is on.
fn slow(pause: Duration, fails: &Arc<AtomicBool>) -> Expr {
    let fails = Arc::clone(fails);
    let body = move |args: &[ColumnarValue]| {
        std::thread::sleep(pause);
        match fails.swap(false, Ordering::SeqCst) {
            true => Err(DataFusionError::External(Box::new(Error::internal("the test wants a failure")))),
            false => Ok(args[0].clone()),
        }
    };
    let udf = create_udf("slow", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(body));
    Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(Arc::new(udf), vec![col("c0")]))
}

/// The table joined with itself, whose operator needs some time for every epoch: rows (k, 2 v).
fn slow_join(id: u32, pause: Duration, fails: &Arc<AtomicBool>) -> JobSpec {
    let mut spec = view(id, 1, 0);
    let scan = || node(Operator::Scan { relation: RelationId(1), projection: vec![0, 1] }, vec![]);
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let pairs: SchemaRef = Arc::new(Schema::new(vec![field("k"), field("v"), field("l"), field("w")]));
    let filter = Some(PlanExpr(slow(pause, fails).gt_eq(lit(-1_000_000i64))));
    let join = Operator::Join { kind: JoinKind::Inner, on: vec![(0, 0)], null_equals_null: false, filter, numbered: true };
    spec.plan.nodes = vec![
        scan(),
        scan(),
        Node { operator: join, inputs: vec![0, 1], schema: pairs, append_only: false, expires: Vec::new() },
        node(Operator::Project { exprs: vec![PlanExpr(col("c0")), PlanExpr(col("c1") + col("c3"))] }, vec![2]),
    ];
    spec.state_tables = (0..state_tables_needed(&spec.plan).unwrap()).map(|n| StateTableId(id * 100 + n)).collect();
    spec
}

fn jobs(pause: Duration) -> Vec<JobSpec> {
    failing_jobs(pause, &Arc::default(), &Arc::default())
}

/// The slow join, a view over it, and one over the table. The first two can be made to fail.
fn failing_jobs(pause: Duration, first: &Arc<AtomicBool>, second: &Arc<AtomicBool>) -> Vec<JobSpec> {
    let mut over = view(20, 10, 100);
    for node in &mut over.plan.nodes {
        if let Operator::Project { exprs } = &mut node.operator {
            exprs[0] = PlanExpr(slow(Duration::ZERO, second));
        }
    }
    vec![slow_join(10, pause, first), over, view(30, 1, 50)]
}

async fn open(dir: &Path, workers: usize, mode: &str, interval: &str, jobs: Vec<JobSpec>) -> Engine {
    start_with(dir, workers, settings(mode, interval), vec![table()], vec![], jobs).await
}

fn settings(mode: &str, interval: &str) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [
        ("checkpoint_mode", mode),
        ("checkpoint_interval", interval),
        ("epochs_in_flight_max", "64"),
        ("restart_delay", "5ms"),
        ("restart_attempts", "1000"),
    ] {
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
            // Storage may have deleted it since it was listed.
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))),
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
        engine.set_settings(settings("unaligned", "1h")).unwrap();
        change(&engine, changes).await;
        changes += 1;
        copy(&path, &crashed);
        engine.flush().await.unwrap();
        check(&engine, changes);
        engine.shutdown().await.unwrap();
        drop(engine);

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
        // At once: nobody is let in before the epochs are complete.
        let engine = open(&crashed, later, "unaligned", "30ms", jobs(Duration::from_millis(1))).await;
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

/// A view that fails goes on from an unaligned checkpoint like from another, also when what it reads does not fail, and with what
/// operators of several views had waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_fails_goes_on_from_an_unaligned_checkpoint() {
    for workers in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), workers, "unaligned", "10ms", vec![]).await;
        let fails = [Arc::default(), Arc::default()];
        for spec in failing_jobs(Duration::from_millis(1), &fails[0], &fails[1]) {
            create(&engine, spec).await;
        }
        let (mut changes, mut failures, mut random) = (0, 0, 17u64 * workers as u64);
        while failures < 12 {
            // After a checkpoint with a queue, a failure; and the next one after that is over.
            let before = periodic(&engine, "unaligned").len();
            let start = Instant::now();
            while periodic(&engine, "unaligned").len() < before + 2 {
                assert!(start.elapsed() < Duration::from_secs(60), "{:?}", engine.checkpoints());
                change(&engine, changes).await;
                changes += 1;
            }
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let which = &fails[(random >> 40) as usize % 2];
            which.store(true, Ordering::SeqCst);
            while which.load(Ordering::SeqCst) {
                assert!(start.elapsed() < Duration::from_secs(60), "no failure");
                change(&engine, changes).await;
                changes += 1;
            }
            failures += 1;
            // The epoch that failed is over with this.
            engine.flush().await.unwrap();
            level(&engine, 10).await;
            level(&engine, 20).await;
            // It was not filled anew: the table was empty when it was made.
            assert!(engine.jobs().iter().all(|j| j.rows_done == 0), "{:?}", engine.jobs());
        }
        engine.flush().await.unwrap();
        check(&engine, changes);
        engine.shutdown().await.unwrap();
    }
}

/// Bad records are kept once, too, if their epoch was on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_read_once_around_an_unaligned_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (db, crashed, file) = (dir.path().join("db"), dir.path().join("crashed"), dir.path().join("in.csv"));
    let mut lines = 0;
    let mut append = |count: i64| {
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        let text = (lines..lines + count).map(|i| if i % 10 == 9 { format!("bad{i},0\n") } else { format!("{i},{i}\n") });
        out.write_all(text.collect::<String>().as_bytes()).unwrap();
        lines += count;
        lines
    };
    append(100);
    let mut bad = source(2, &file);
    bad.options.insert("on_error".into(), "dead_letter".into());
    let mut join = slow_join(10, Duration::from_millis(20), &Arc::default());
    join.plan.nodes[0] = node(Operator::Scan { relation: RelationId(2), projection: vec![0, 1] }, vec![]);
    join.plan.nodes[1] = join.plan.nodes[0].clone();
    let start = |path: &Path, jobs: Vec<JobSpec>, workers: usize| {
        let path = path.to_path_buf();
        let sources = vec![bad.clone()];
        async move { start_with(&path, workers, settings("unaligned", "30ms"), vec![table()], sources, jobs).await }
    };
    let engine = start(&db, vec![], 2).await;
    create(&engine, join.clone()).await;
    create(&engine, view(20, 10, -1)).await;
    let begun = Instant::now();
    let mut all = 100;
    while periodic(&engine, "unaligned").len() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", engine.checkpoints());
        all = append(10);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    engine.set_settings(settings("unaligned", "1h")).unwrap();
    copy(&db, &crashed);
    engine.shutdown().await.unwrap();
    drop(engine);
    let expected = |times: i64| (0..all).filter(|i| i % 10 != 9).map(|i| (i, times * i)).collect::<Vec<_>>();
    for (path, workers) in [(&crashed, 1), (&db, 3)] {
        let engine = start(path, vec![join.clone(), view(20, 10, -1)], workers).await;
        let begun = Instant::now();
        while read(&engine, 20).len() < expected(4).len() || engine.sources()[0].dead_letters < all as u64 / 10 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {all}, {:?}", read(&engine, 20).len(), engine.sources());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(read(&engine, 10), expected(2));
        assert_eq!(read(&engine, 20), expected(4));
        let letters = engine.dead_letters().unwrap().iter().map(|l| String::from_utf8(l.raw.clone()).unwrap()).collect::<Vec<_>>();
        let mut once = letters.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((letters.len() as i64, once.len() as i64, engine.sources()[0].dead_letters as i64), (all / 10, all / 10, all / 10));
        engine.shutdown().await.unwrap();
    }
}

/// The entries of a checkpoint's stash.
fn stash_in(store: &Arc<Store>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut stored = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        stored.push((key.to_vec(), value.to_vec()));
        Ok(std::ops::ControlFlow::Continue(()))
    };
    TableLookup::new(store, STASH, 0..256).walk(&[], &mut each).unwrap();
    stored
}

/// A stash from which something is missing, or whose bytes are others, is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_stash_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let engine = open(&db, 2, "unaligned", "30ms", vec![]).await;
    for spec in jobs(Duration::from_millis(5)) {
        create(&engine, spec).await;
    }
    // What waits when a checkpoint begins is up to the machine: until one holds some of it.
    let (mut changes, mut seen) = (0, 0);
    let whole = dir.path().join("whole");
    loop {
        while periodic(&engine, "unaligned").len() <= seen {
            change(&engine, changes).await;
            changes += 1;
        }
        engine.set_settings(settings("unaligned", "1h")).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await; // a checkpoint that is on its way
        seen = periodic(&engine, "unaligned").len();
        copy(&db, &whole);
        if Store::open(&whole, &StoreOptions::default()).is_ok_and(|(store, _)| !stash_in(&store).is_empty()) {
            break;
        }
        std::fs::remove_dir_all(&whole).unwrap();
        engine.set_settings(settings("unaligned", "30ms")).unwrap();
    }
    for damage in ["lost", "changed"] {
        let crashed = dir.path().join(damage);
        copy(&whole, &crashed);
        let (store, recovered) = Store::open(&crashed, &StoreOptions::default()).unwrap();
        let mut stored = stash_in(&store);
        let mut entries = Entries::new();
        let (key, mut value) = stored.swap_remove(stored.len() / 2);
        match damage {
            "lost" => entries.delete(|out| out.extend(&key)),
            _ => {
                let at = value.len() / 2;
                value[at] ^= 1;
                entries.put(|out| out.extend(&key), |out| out.extend(&value));
            }
        }
        let frozen = vec![FrozenTable { table: STASH, entries }];
        let Recovered { epoch, meta, .. } = recovered;
        store.commit(Checkpoint { epoch, log_seq: 0, meta, frozen }).unwrap();
        store.close();
        drop(store);
        let (store, recovered) = Store::open(&crashed, &StoreOptions::default()).unwrap();
        let config = EngineConfig { workers: 2, memory: 1 << 28, settings: Settings::default() };
        let all = jobs(Duration::ZERO);
        let error =
            tokio::task::spawn_blocking(move || Engine::start(config, store, &recovered, vec![table()], vec![], all).err()).await.unwrap();
        assert_eq!(error.unwrap().message(), "a checkpoint's stash is damaged", "{damage}");
    }
    engine.shutdown().await.unwrap();
}
