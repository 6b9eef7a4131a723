//! New views over relations that already hold rows and change meanwhile: throttled, resumed after a crash, cancelled.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use common::{create, insert, level, read, rows, schema, start_with, view};
use millpond_common::settings::Settings;
use millpond_common::{Delta, JobId, RelationId, RelationSpec};
use millpond_engine::{Engine, JobInfo, JobSpec, JobState};
use millpond_plan::{Operator, PlanExpr};
use millpond_state::{SavepointKind, Store, StoreOptions};

const ROWS: i64 = 20_000;

fn table(keyed: bool) -> RelationSpec {
    RelationSpec { id: RelationId(1), schema: schema(), key: keyed.then(|| vec![0]), appended: false }
}

async fn open(dir: &Path, workers: usize, keyed: bool, jobs: Vec<JobSpec>) -> Engine {
    let mut settings = Settings::default();
    settings.set("checkpoint_interval", Some("20ms")).unwrap();
    start_with(dir, workers, settings, vec![table(keyed)], vec![], jobs).await
}

fn limited(mut spec: JobSpec, rate: &str) -> JobSpec {
    spec.options.set("backfill_rate_limit", Some(rate)).unwrap();
    spec
}

fn job(engine: &Engine, id: u32) -> JobInfo {
    engine.jobs().into_iter().find(|j| j.id == JobId(id)).unwrap()
}

async fn wait(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Changes some rows all over the table (all are (k, k + 5 n), without a key k twice each), and adds one.
async fn change(engine: &Engine, round: i64, copies: i64) {
    let held = read(engine, 1);
    let mut list: Vec<(i64, i64, i64)> = Vec::new();
    for at in 0..20 {
        let (k, v) = held[(at * 997 + round * 131) as usize % held.len()];
        if !list.iter().any(|(other, ..)| *other == k) {
            list.extend([(k, v, -copies), (k, v + 5, copies)]);
        }
    }
    list.push((ROWS + round, 7, copies));
    let batch = rows(&list.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
    let delta = Delta::new(batch, Some(Int64Array::from_iter_values(list.iter().map(|r| r.2))));
    let seq = engine.commit_transaction(vec![(RelationId(1), delta)]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
}

/// What view 10, v doubled for v above 99, must hold.
fn expected(engine: &Engine) -> Vec<(i64, i64)> {
    let mut rows = read(engine, 1).into_iter().filter(|r| r.1 > 99).map(|r| (r.0, 2 * r.1)).collect::<Vec<_>>();
    rows.dedup();
    rows
}

/// What is in one list of sorted rows alone: some of it.
fn difference(is: &[(i64, i64)], want: &[(i64, i64)]) -> Vec<(&'static str, (i64, i64))> {
    let lacks = |list: &[(i64, i64)], row: &(i64, i64)| list.binary_search(row).is_err();
    let missing = want.iter().filter(|r| lacks(is, r)).map(|r| ("missing", *r));
    let extra = is.iter().filter(|r| lacks(want, r)).map(|r| ("extra", *r));
    let repeated = is.windows(2).filter(|w| w[0] == w[1]).map(|w| ("repeated", w[0]));
    missing.take(5).chain(extra.take(5)).chain(repeated.take(5)).collect()
}

/// Views 10 and 20, 20 over 10, are exact; when the table is emptied, so are they and their state.
async fn check(engine: &Engine, copies: i64) {
    for id in [10, 20, 30] {
        level(engine, id).await;
    }
    engine.flush().await.unwrap();
    let want = expected(engine);
    assert_eq!(difference(&read(engine, 10), &want), vec![]);
    let want = want.iter().filter(|r| r.1 > 150).map(|r| (r.0, 2 * r.1)).collect::<Vec<_>>();
    assert_eq!(difference(&read(engine, 20), &want), vec![]);
    let mut held = read(engine, 1);
    held.dedup();
    let weights = Int64Array::from(vec![-copies; held.len()]);
    let seq = engine.commit_transaction(vec![(RelationId(1), Delta::new(rows(&held), Some(weights)))]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
    assert_eq!((read(engine, 1), read(engine, 10), read(engine, 20)), (vec![], vec![], vec![]));
    assert_eq!(engine.operators().iter().map(|o| o.state_rows).sum::<u64>(), 0, "no row was left in any state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_is_gone_on_from() {
    for (keyed, workers, later) in [(true, 1, 2), (false, 2, 3), (true, 3, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
        let copies = if keyed { 1 } else { 3 };
        let engine = open(&path, workers, keyed, vec![]).await;
        let first = Delta::new(rows(&(0..ROWS).map(|k| (k, k)).collect::<Vec<_>>()), Some(Int64Array::from(vec![copies; ROWS as usize])));
        let seq = engine.commit_transaction(vec![(RelationId(1), first)]).await.unwrap();
        engine.wait_visible(seq).await.unwrap();
        create(&engine, view(30, 1, 1_000_000)).await;
        let specs = || vec![limited(view(10, 1, 99), "10000"), view(20, 10, 150), view(30, 1, 1_000_000)];
        engine.create_job(specs().remove(0)).await.unwrap();
        engine.create_job(specs().remove(1)).await.unwrap();
        let mut round = 0;
        while job(&engine, 10).rows_done < ROWS as u64 / 2 {
            // View 30 is not held up: every change is visible in epochs of their own.
            change(&engine, round, copies).await;
            round += 1;
        }
        assert!(round > 5, "{round} changes in half a second or more");
        assert_eq!(job(&engine, 10).state.name(), "BACKFILLING");
        // A copy of the checkpoint is what a crash would leave behind.
        engine.savepoint_create("middle".into(), SavepointKind::Manual, String::new()).await.unwrap();
        change(&engine, round, copies).await;
        millpond_state::fork(&path, "middle", &copy).unwrap();

        let crashed = open(&copy, later, keyed, specs()).await;
        let found = job(&crashed, 10);
        assert!(found.creating && matches!(found.state, JobState::Backfilling), "{found:?}");
        assert!(found.rows_done >= ROWS as u64 / 3, "{found:?}");
        let before = found.rows_done;
        for round in 0..5 {
            change(&crashed, 1000 + round, copies).await;
        }
        check(&crashed, copies).await;
        let read_again = job(&crashed, 10).rows_done - before;
        assert!(read_again < 2 * ROWS as u64 / 3, "{read_again} of {ROWS} rows were read after the crash");
        crashed.shutdown().await.unwrap();
        drop(crashed);

        // The one that did not crash goes on with less patience.
        engine.set_job_options(JobId(10), Settings::default()).unwrap();
        check(&engine, copies).await;
        // Whoever was level stays so.
        engine.shutdown().await.unwrap();
        drop(engine);
        let engine = open(&path, later, keyed, specs()).await;
        assert!([10, 20, 30].iter().all(|id| matches!(job(&engine, *id).state, JobState::Running)));
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_backfill_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, true, vec![]).await;
    insert(&engine, &(0..ROWS).map(|k| (k, k)).collect::<Vec<_>>()).await;
    create(&engine, view(30, 1, 10)).await;
    engine.create_job(limited(view(10, 1, 99), "5000")).await.unwrap();
    wait("rows are read", || job(&engine, 10).rows_done > 1000).await;
    engine.checkpoint().await.unwrap();
    engine.drop_relations(vec![RelationId(10)], vec![JobId(10)]).await.unwrap();
    engine.checkpoint().await.unwrap();
    insert(&engine, &[(-5, 500)]).await;
    assert_eq!(read(&engine, 30).len() as i64, ROWS - 10);
    assert!(engine.store().read_view().spec(RelationId(10)).is_none());
    engine.shutdown().await.unwrap();
    drop(engine);
    let (store, _) = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let known = [1, 30, 3000, millpond_engine::DEAD_LETTERS.0].into();
    assert_eq!(store.remove_unknown(&known).unwrap(), 0, "neither its rows nor its state are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_fails_begins_anew_when_it_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), 2, true, vec![]).await;
    insert(&engine, &(0..1000).map(|k| (k, k - 500)).collect::<Vec<_>>()).await;
    let mut divides = view(10, 1, -1000);
    divides.plan.nodes[2].operator = Operator::Project {
        exprs: vec![PlanExpr(datafusion::prelude::col("c0")), PlanExpr(datafusion::prelude::lit(7i64) / datafusion::prelude::col("c1"))],
    };
    let mut progress = engine.create_job(divides).await.unwrap().progress;
    progress.wait_for(|p| matches!(p.state, JobState::Failed(_))).await.unwrap();
    common::update(&engine, &[(500, 0, -1)]).await;
    let mut progress = engine.restart_job(JobId(10)).await.unwrap().progress;
    progress.wait_for(|p| matches!(p.state, JobState::Running)).await.unwrap();
    assert_eq!(read(&engine, 10).len(), 999);
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_catches_up_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy, file) = (dir.path().join("db"), dir.path().join("copy"), dir.path().join("rows.csv"));
    let append = |from: i64, to: i64| {
        let lines = (from..to).map(|k| format!("{k},{k}\n")).collect::<String>();
        let mut file = std::fs::File::options().create(true).append(true).open(&file).unwrap();
        std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
    };
    append(0, ROWS);
    let mut source = common::source(2, &file);
    source.options.insert("batch_rows".into(), "100".into());
    // Not in the order in which they were made: the one that was behind is continued first.
    let specs = || vec![limited(view(10, 2, 99), "5000"), view(30, 2, -1)];
    let engine = start_with(&path, 2, Settings::default(), vec![], vec![source.clone()], vec![]).await;
    create(&engine, specs().remove(1)).await;
    engine.create_job(specs().remove(0)).await.unwrap();
    wait("rows are read", || job(&engine, 10).rows_done > ROWS as u64 / 3).await;
    engine.savepoint_create("middle".into(), SavepointKind::Manual, String::new()).await.unwrap();
    millpond_state::fork(&path, "middle", &copy).unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);

    let engine = start_with(&copy, 1, Settings::default(), vec![], vec![source], specs()).await;
    let found = job(&engine, 10);
    assert!(found.creating && found.rows_done >= ROWS as u64 / 3, "{found:?}");
    append(ROWS, ROWS + 500);
    engine.set_job_options(JobId(10), Settings::default()).unwrap();
    level(&engine, 10).await;
    let all = |from: i64| (from..ROWS + 500).map(|k| (k, 2 * k)).collect::<Vec<_>>();
    wait("the lines of the end", || read(&engine, 30).len() as i64 == ROWS + 500).await;
    assert_eq!(difference(&read(&engine, 30), &all(0)), vec![]);
    assert_eq!(difference(&read(&engine, 10), &all(100)), vec![]);
    let read_again = job(&engine, 10).input_rows;
    assert!(read_again < ROWS as u64 * 3 / 4, "{read_again} of {ROWS} rows were read after the crash");
    engine.shutdown().await.unwrap();
}
