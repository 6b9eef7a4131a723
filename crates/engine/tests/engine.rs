//! The engine over a real store, with plans made by hand: tables, views over views, backfill, checkpoints, restarts.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use arrow::array::Int64Array;
use common::{create, insert, read, rows, start, update, view};
use datafusion::prelude::{col, lit};
use millpond_common::{Delta, JobId, RelationId};
use millpond_engine::JobState;
use millpond_plan::{Operator, PlanExpr};
use millpond_state::Scan;

#[tokio::test(flavor = "multi_thread")]
async fn views_over_views_follow_their_tables_across_restarts() {
    for workers in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let engine = start(&path, workers, vec![]).await;
        insert(&engine, &(0..1000).map(|i| (i, i)).collect::<Vec<_>>()).await;
        create(&engine, view(10, 1, 499)).await;
        create(&engine, view(20, 10, 1989)).await;
        assert_eq!(read(&engine, 10).len(), 500);
        assert_eq!(read(&engine, 20), (995..1000).map(|i| (i, i * 4)).collect::<Vec<_>>());
        // An update is the old row out and the new row in.
        let change = Delta::new(rows(&[(999, 999), (999, 5000), (3, 3)]), Some(Int64Array::from(vec![-1, 1, -1])));
        let seq = engine.commit_transaction(vec![(RelationId(1), change)]).await.unwrap();
        engine.wait_visible(seq).await.unwrap();
        assert_eq!(read(&engine, 20).last(), Some(&(999, 20000)));
        engine.checkpoint().await.unwrap();
        insert(&engine, &[(5000, 1_000_000)]).await;
        engine.shutdown().await.unwrap();
        drop(engine);

        let workers = 4 - workers;
        let engine = start(&path, workers, vec![view(10, 1, 499), view(20, 10, 1989)]).await;
        engine.flush().await.unwrap();
        assert_eq!(read(&engine, 1).len(), 1000);
        assert_eq!(read(&engine, 20).last(), Some(&(5000, 4_000_000)));
        // State is there, too: taking the row away takes its views' rows away.
        let change = Delta::new(rows(&[(5000, 1_000_000)]), Some(Int64Array::from(vec![-1])));
        let seq = engine.commit_transaction(vec![(RelationId(1), change)]).await.unwrap();
        engine.wait_visible(seq).await.unwrap();
        assert_eq!(read(&engine, 20).last(), Some(&(999, 20000)));
        engine.drop_relations(vec![RelationId(20)], vec![JobId(20)]).await.unwrap();
        assert_eq!(engine.jobs().len(), 1);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_stops_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(&dir.path().join("db"), 2, vec![]).await;
    let mut divides = view(10, 1, -1);
    divides.plan.nodes[2].operator = Operator::Project { exprs: vec![PlanExpr(col("c0")), PlanExpr(lit(100i64) / col("c1"))] };
    create(&engine, divides).await;
    create(&engine, view(20, 10, 0)).await;
    create(&engine, view(30, 1, 0)).await;
    insert(&engine, &[(1, 10), (2, 0), (3, 20)]).await;
    engine.flush().await.unwrap();
    let state = |id| engine.jobs().into_iter().find(|j| j.id == JobId(id)).unwrap().state;
    let JobState::Failed(error) = state(10) else { panic!("{:?}", state(10)) };
    assert_eq!(error.state().0, "22012");
    assert!(matches!(state(20), JobState::Failed(_)), "a view over a failed view has failed");
    assert!(matches!(state(30), JobState::Running));
    insert(&engine, &[(4, 7)]).await;
    assert_eq!(read(&engine, 30), vec![(1, 20), (3, 40), (4, 14)]);
    engine.shutdown().await.unwrap();
}

/// A plan that is wrong about itself stops its job; its relation stays as the last checkpoint has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_that_only_grows_is_not_deleted_from() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(&dir.path().join("db"), 2, vec![]).await;
    let mut wrong = view(10, 1, 0);
    wrong.output.key = None;
    wrong.output.appended = true;
    create(&engine, wrong).await;
    insert(&engine, &[(1, 10), (2, 20)]).await;
    engine.checkpoint().await.unwrap();
    assert_eq!(read(&engine, 10), vec![(1, 20), (2, 40)]);
    update(&engine, &[(2, 20, -1)]).await;
    engine.flush().await.unwrap();
    let job = engine.jobs().remove(0);
    let (JobState::Restarting(error) | JobState::Failed(error)) = &job.state else { panic!("{job:?}") };
    assert!(error.state().0 == "XX000" && error.message().contains("deleted"), "{error}");
    assert_eq!(read(&engine, 10), vec![(1, 20), (2, 40)]);
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_view_is_whole_when_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(&dir.path().join("db"), 2, vec![]).await;
    // Each worker reads its half in several epochs, of which two are on their way at a time.
    let list = (0..200_000).map(|i| (i, i)).collect::<Vec<_>>();
    let seq = engine.commit_transaction(vec![(RelationId(1), Delta::insert(rows(&list)))]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
    for id in 10..25 {
        create(&engine, view(id, 1, -1)).await;
        let view = engine.store().read_view();
        let counts = view.scan(RelationId(id), Scan::default()).unwrap().map(|b| b.unwrap().num_rows());
        assert_eq!(counts.sum::<usize>(), list.len(), "view {id}");
        engine.drop_relations(vec![RelationId(id)], vec![JobId(id)]).await.unwrap();
    }
    engine.shutdown().await.unwrap();
}
