//! Jobs that fail and come back: exact, and without disturbing others.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_schema::DataType;
use common::{create, insert, read, source, start_with, table, update, view};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::col;
use millpond_common::settings::Settings;
use millpond_common::{Error, JobId, RelationId};
use millpond_engine::{Engine, JobSpec, JobState};
use millpond_plan::{Operator, PlanExpr};

/// `f(x) = x`, which fails for `x` as long as that is the number in it.
#[derive(Debug)]
struct FailsFor(Arc<AtomicI64>, Signature);

impl PartialEq for FailsFor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for FailsFor {}
impl std::hash::Hash for FailsFor {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl ScalarUDFImpl for FailsFor {
    fn name(&self) -> &str {
        "fails_for"
    }
    fn signature(&self) -> &Signature {
        &self.1
    }
    fn return_type(&self, _: &[DataType]) -> datafusion::error::Result<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::error::Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&args.args)?.remove(0);
        let bad = self.0.load(Ordering::SeqCst);
        if values.as_primitive::<Int64Type>().values().contains(&bad) {
            return Err(DataFusionError::External(Box::new(Error::internal(format!("the test wants {bad} to fail")))));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// The view with its values going through a function that fails for the number in the switch.
fn failing(mut spec: JobSpec, switch: &Arc<AtomicI64>) -> JobSpec {
    let udf = Arc::new(ScalarUDF::from(FailsFor(Arc::clone(switch), Signature::exact(vec![DataType::Int64], Volatility::Immutable))));
    let call = Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(udf, vec![col("c1")]));
    for node in &mut spec.plan.nodes {
        if let Operator::Project { exprs } = &mut node.operator {
            exprs[1] = PlanExpr(call.clone() + col("c1"));
        }
    }
    spec
}

fn switch() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(i64::MIN))
}

fn settings(list: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [("checkpoint_interval", "20ms"), ("restart_delay", "100ms")].iter().chain(list) {
        settings.set(name, Some(value)).unwrap();
    }
    settings
}

fn state(engine: &Engine, id: u32) -> JobState {
    engine.jobs().into_iter().find(|j| j.id == JobId(id)).unwrap().state
}

async fn wait_for(engine: &Engine, id: u32, name: &str) {
    let start = Instant::now();
    while state(engine, id).name() != name {
        assert!(start.elapsed() < Duration::from_secs(20), "job {id} is {:?}, not {name}", state(engine, id));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a view over the table, and one over that view, must hold.
fn expected(table: &[(i64, i64)], limits: &[i64]) -> Vec<(i64, i64)> {
    let mut rows = table.to_vec();
    for limit in limits {
        rows = rows.into_iter().filter(|r| r.1 > *limit).map(|r| (r.0, 2 * r.1)).collect();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_from_its_checkpoint_and_others_do_not_notice() {
    for workers in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let engine = start_with(dir.path(), workers, settings(&[]), vec![table()], vec![], vec![]).await;
        let switch = switch();
        insert(&engine, &(0..500).map(|i| (i, i)).collect::<Vec<_>>()).await;
        create(&engine, failing(view(10, 1, 99), &switch)).await;
        create(&engine, view(20, 10, 299)).await;
        create(&engine, view(30, 1, 399)).await;
        engine.checkpoint().await.unwrap();
        insert(&engine, &[(1000, 1000)]).await;
        switch.store(777, Ordering::SeqCst);
        update(&engine, &[(7, 7, -1), (7, 777, 1), (450, 450, -1)]).await;
        wait_for(&engine, 10, "RESTARTING").await;
        assert_eq!(state(&engine, 20).name(), "RESTARTING");
        let job = engine.jobs().into_iter().find(|j| j.id == JobId(10)).unwrap();
        assert!(job.attempts == 1 && job.next_try.is_some(), "{job:?}");
        // Others go on, checkpoints are completed, and the job misses changes, also of rows that it has.
        assert_eq!(state(&engine, 30).name(), "RUNNING");
        update(&engine, &[(1000, 1000, -1), (1001, 1001, 1), (100, 100, -1), (100, 101, 1)]).await;
        engine.checkpoint().await.unwrap();
        engine.checkpoint().await.unwrap();
        update(&engine, &[(1001, 1001, -1), (1002, 1002, 1)]).await;
        let held = read(&engine, 1);
        assert_eq!(read(&engine, 30), expected(&held, &[399]));
        switch.store(i64::MIN, Ordering::SeqCst);
        wait_for(&engine, 10, "RUNNING").await;
        wait_for(&engine, 20, "RUNNING").await;
        assert_eq!(read(&engine, 10), expected(&held, &[99]));
        assert_eq!(read(&engine, 20), expected(&held, &[99, 299]));
        // Its state is right, too: it takes rows away that it got before and after.
        update(&engine, &[(1002, 1002, -1), (300, 300, -1), (7, 777, -1)]).await;
        engine.checkpoint().await.unwrap();
        let held = read(&engine, 1);
        assert_eq!(read(&engine, 20), expected(&held, &[99, 299]));
        assert_eq!(engine.jobs().iter().find(|j| j.id == JobId(10)).unwrap().attempts, 0, "a checkpoint found it running");
        engine.shutdown().await.unwrap();
        drop(engine);
        let jobs = vec![view(10, 1, 99), view(20, 10, 299), view(30, 1, 399)];
        let engine = start_with(dir.path(), 2, settings(&[]), vec![table()], vec![], jobs).await;
        assert_eq!(read(&engine, 10), expected(&held, &[99]));
        assert_eq!(read(&engine, 20), expected(&held, &[99, 299]));
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_limit_it_has_failed_and_restart_fills_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start_with(dir.path(), 2, settings(&[]), vec![table()], vec![], vec![]).await;
    let switch = switch();
    let mut spec = failing(view(10, 1, -1), &switch);
    spec.options.set("restart_attempts", Some("2")).unwrap();
    spec.options.set("restart_delay", Some("10ms")).unwrap();
    create(&engine, spec).await;
    create(&engine, view(20, 10, 0)).await;
    create(&engine, view(30, 1, 0)).await;
    switch.store(5, Ordering::SeqCst);
    insert(&engine, &(1..10).map(|i| (i, i)).collect::<Vec<_>>()).await;
    wait_for(&engine, 10, "FAILED").await;
    wait_for(&engine, 20, "FAILED").await;
    assert_eq!(engine.jobs().iter().find(|j| j.id == JobId(10)).unwrap().attempts, 2);
    assert!(state(&engine, 10).error().unwrap().message().contains("wants 5 to fail"));
    assert!(engine.restart_job(JobId(20)).await.is_err(), "its input has failed");
    assert!(engine.create_job(view(40, 10, 0)).await.is_err(), "nothing can be built on a failed view");
    insert(&engine, &[(20, 20)]).await;
    assert_eq!(read(&engine, 30).len(), 10);
    switch.store(i64::MIN, Ordering::SeqCst);
    let mut progress = engine.restart_job(JobId(10)).await.unwrap().progress;
    progress.wait_for(|p| matches!(p.state, JobState::Running)).await.unwrap();
    wait_for(&engine, 20, "RUNNING").await;
    let held = read(&engine, 1);
    assert_eq!(read(&engine, 10), expected(&held, &[-1]));
    assert_eq!(read(&engine, 20), expected(&held, &[-1, 0]));
    // A running one can be filled anew as well.
    engine.checkpoint().await.unwrap();
    let mut progress = engine.restart_job(JobId(10)).await.unwrap().progress;
    assert_eq!(state(&engine, 20).name(), "BACKFILLING");
    progress.wait_for(|p| matches!(p.state, JobState::Running)).await.unwrap();
    wait_for(&engine, 20, "RUNNING").await;
    update(&engine, &[(20, 20, -1)]).await;
    assert_eq!(read(&engine, 20), expected(&read(&engine, 1), &[-1, 0]));
    // A failure of the data is not tried again.
    let mut divides = view(50, 1, -1);
    divides.plan.nodes[2].operator =
        Operator::Project { exprs: vec![PlanExpr(col("c0")), PlanExpr(datafusion::prelude::lit(100i64) / col("c1"))] };
    create(&engine, divides).await;
    insert(&engine, &[(70, 0), (71, 1)]).await;
    wait_for(&engine, 50, "FAILED").await;
    let error = state(&engine, 50).error().unwrap().clone();
    assert_eq!((error.state().0, error.detail()), ("22012", Some("Failing row contains (70, 0).")));
    engine.shutdown().await.unwrap();
    drop(engine);
    let jobs = vec![view(10, 1, -1), view(20, 10, 0), view(30, 1, 0), view(50, 1, -1)];
    let engine = start_with(dir.path(), 1, settings(&[]), vec![table()], vec![], jobs).await;
    assert_eq!(state(&engine, 50).error().unwrap().detail(), Some("Failing row contains (70, 0)."), "a start does not try it again");
    assert_eq!(read(&engine, 20), expected(&read(&engine, 1), &[-1, 0]));
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_too_much_or_lived_through_a_crash_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start_with(dir.path(), 2, settings(&[("restart_log_bytes_max", "100B")]), vec![table()], vec![], vec![]).await;
    let switch = switch();
    create(&engine, failing(view(10, 1, -1), &switch)).await;
    create(&engine, view(20, 10, 0)).await;
    engine.checkpoint().await.unwrap();
    switch.store(5, Ordering::SeqCst);
    insert(&engine, &[(5, 5)]).await;
    wait_for(&engine, 10, "RESTARTING").await;
    insert(&engine, &(100..1000).map(|i| (i, i)).collect::<Vec<_>>()).await;
    switch.store(i64::MIN, Ordering::SeqCst);
    wait_for(&engine, 10, "RUNNING").await;
    wait_for(&engine, 20, "RUNNING").await;
    assert_eq!(read(&engine, 20), expected(&read(&engine, 1), &[-1, 0]));
    engine.checkpoint().await.unwrap();
    // It waits when the server ends, and begins anew with the next start.
    engine.set_settings(settings(&[("restart_delay", "1h")])).unwrap();
    switch.store(6, Ordering::SeqCst);
    insert(&engine, &[(6, 6)]).await;
    wait_for(&engine, 10, "RESTARTING").await;
    insert(&engine, &[(2000, 2000)]).await;
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = start_with(dir.path(), 1, settings(&[]), vec![table()], vec![], vec![view(10, 1, -1), view(20, 10, 0)]).await;
    wait_for(&engine, 20, "RUNNING").await;
    assert_eq!(read(&engine, 20), expected(&read(&engine, 1), &[-1, 0]));
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_read_again_from_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.csv");
    let append = |from: i64, to: i64| {
        use std::io::Write;
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        let text = (from..to).map(|i| format!("{i},{i}\n")).collect::<String>();
        out.write_all(text.as_bytes()).unwrap();
    };
    append(0, 1000);
    let sources = vec![source(2, &file)];
    let db = dir.path().join("db");
    let engine = start_with(&db, 2, settings(&[]), vec![table()], sources, vec![]).await;
    let switch = switch();
    create(&engine, failing(view(10, 2, 100), &switch)).await;
    create(&engine, view(30, 2, 100)).await;
    create(&engine, view(20, 10, 1000)).await;
    let held = |to: i64| (0..to).map(|i| (i, i)).collect::<Vec<_>>();
    let read_up_to = async |id: u32, to: i64, limits: &[i64]| {
        let start = Instant::now();
        while read(&engine, id) != expected(&held(to), limits) {
            assert!(start.elapsed() < Duration::from_secs(20), "{} rows", read(&engine, id).len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    for round in 1..4 {
        engine.checkpoint().await.unwrap();
        let base = round * 1000;
        switch.store(base + 500, Ordering::SeqCst);
        append(base, base + 300);
        read_up_to(30, base + 300, &[100]).await;
        append(base + 300, base + 600);
        wait_for(&engine, 10, "RESTARTING").await;
        read_up_to(30, base + 600, &[100]).await;
        engine.checkpoint().await.unwrap();
        append(base + 600, base + 1000);
        read_up_to(30, base + 1000, &[100]).await;
        switch.store(i64::MIN, Ordering::SeqCst);
        wait_for(&engine, 10, "RUNNING").await;
        wait_for(&engine, 20, "RUNNING").await;
        read_up_to(10, base + 1000, &[100]).await;
        read_up_to(20, base + 1000, &[100, 1000]).await;
    }
    // The only job of a source: the reader waits for it.
    engine.drop_relations(vec![RelationId(30)], vec![JobId(30)]).await.unwrap();
    engine.checkpoint().await.unwrap();
    switch.store(4500, Ordering::SeqCst);
    append(4000, 5000);
    wait_for(&engine, 10, "RESTARTING").await;
    switch.store(i64::MIN, Ordering::SeqCst);
    wait_for(&engine, 20, "RUNNING").await;
    assert_eq!(read(&engine, 10), expected(&held(5000), &[100]), "level means: where it was before");
    assert_eq!(read(&engine, 20), expected(&held(5000), &[100, 1000]));
    engine.shutdown().await.unwrap();
}

/// Failures at any time, under load, with checkpoints as fast as they come.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_view_is_its_query() {
    for seed in 0..6u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = seed * 7919 + 1;
        let mut next = move |n: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % n
        };
        let options =
            [("checkpoint_interval", "3ms"), ("restart_delay", "7ms"), ("restart_attempts", "1000"), ("checkpoint_max_concurrent", "3")];
        let workers = 1 + (seed % 3) as usize;
        let engine = start_with(dir.path(), workers, settings(&options), vec![table()], vec![], vec![]).await;
        let switches = [switch(), switch(), switch()];
        create(&engine, failing(view(10, 1, 10), &switches[0])).await;
        create(&engine, failing(view(20, 10, 30), &switches[1])).await;
        create(&engine, failing(view(30, 20, 90), &switches[2])).await;
        create(&engine, view(40, 1, 10)).await;
        let mut model = std::collections::BTreeMap::new();
        for step in 0..300 {
            let mut changes = Vec::new();
            for _ in 0..=next(4) {
                let (k, v) = (next(50) as i64, next(200) as i64);
                if changes.iter().any(|c: &(i64, i64, i64)| c.0 == k) {
                    continue;
                }
                if let Some(old) = model.insert(k, v) {
                    changes.push((k, old, -1));
                }
                changes.push((k, v, 1));
            }
            update(&engine, &changes).await;
            if next(8) == 0 {
                // The second and third see doubled values.
                let at = next(3) as usize;
                switches[at].store(changes[0].1 << at, Ordering::SeqCst);
            }
            if next(6) == 0 {
                switches.iter().for_each(|s| s.store(i64::MIN, Ordering::SeqCst));
            }
            if step % 40 == 39 {
                tokio::time::sleep(Duration::from_millis(next(30))).await;
            }
        }
        switches.iter().for_each(|s| s.store(i64::MIN, Ordering::SeqCst));
        for id in [10, 20, 30] {
            wait_for(&engine, id, "RUNNING").await;
        }
        engine.flush().await.unwrap();
        let held = model.into_iter().collect::<Vec<_>>();
        assert_eq!(read(&engine, 1), held);
        for (id, limits) in [(10, &[10][..]), (20, &[10, 30]), (30, &[10, 30, 90]), (40, &[10])] {
            assert_eq!(read(&engine, id), expected(&held, limits), "view {id}, seed {seed}");
        }
        engine.checkpoint().await.unwrap();
        engine.shutdown().await.unwrap();
    }
}
