//! When checkpoints are made, and what happens to one that takes too long.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_schema::DataType;
use common::{create, insert, read, rows, start_with, table, view};
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::prelude::col;
use millpond_common::settings::Settings;
use millpond_common::{Delta, RelationId, SqlState};
use millpond_engine::{Engine, JobSpec};
use millpond_plan::{Operator, PlanExpr};

fn settings(list: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    list.iter().for_each(|(name, value)| settings.set(name, Some(value)).unwrap());
    settings
}

async fn engine(dir: &std::path::Path, list: &[(&str, &str)], jobs: Vec<JobSpec>) -> Engine {
    start_with(dir, 2, settings(list), vec![table()], vec![], jobs).await
}

fn states(engine: &Engine) -> Vec<&'static str> {
    engine.checkpoints().iter().map(|c| c.state).collect()
}

/// A view whose operator needs 400 ms for every chunk.
fn slow(mut spec: JobSpec) -> JobSpec {
    let sleep = |args: &[ColumnarValue]| {
        std::thread::sleep(Duration::from_millis(400));
        Ok(args[0].clone())
    };
    let udf = create_udf("slow", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(sleep));
    let call = Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(Arc::new(udf), vec![col("c1")]));
    for node in &mut spec.plan.nodes {
        if let Operator::Project { exprs } = &mut node.operator {
            exprs[1] = PlanExpr(call.clone() + col("c1"));
        }
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn interval_and_pause() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path(), &[("checkpoint_interval", "1ms"), ("checkpoint_min_pause", "200ms")], vec![]).await;
    let started = Instant::now();
    for i in 0.. {
        insert(&engine, &[(i, i)]).await;
        if started.elapsed() > Duration::from_millis(900) {
            break;
        }
    }
    let paused = engine.checkpoints().len();
    assert!((2..=5).contains(&paused), "{paused} checkpoints in 0.9 s with pauses of 0.2 s");
    // In effect at once. A checkpoint that is asked for does not wait for either.
    engine.set_settings(settings(&[("checkpoint_interval", "1h"), ("checkpoint_min_pause", "1h")])).unwrap();
    engine.checkpoint().await.unwrap();
    let before = engine.checkpoints().len();
    insert(&engine, &[(-1, 1)]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(engine.checkpoints().len(), before);
    engine.set_settings(settings(&[("checkpoint_interval", "20ms"), ("checkpoint_max_concurrent", "3")])).unwrap();
    for i in 0..200 {
        insert(&engine, &[(-2 - i, 1)]).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let epochs = engine.checkpoints().iter().map(|c| c.epoch).collect::<Vec<_>>();
    assert!(epochs.len() > before && epochs.is_sorted(), "{epochs:?}");
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_takes_too_long_fails_and_the_next_contains_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path(), &[("checkpoint_interval", "1h"), ("checkpoint_timeout", "100ms")], vec![]).await;
    create(&engine, slow(view(10, 1, -1))).await;
    engine.checkpoint().await.unwrap();
    let change = vec![(RelationId(1), Delta::insert(rows(&[(1, 1), (2, 2)])))];
    engine.commit_transaction(change).await.unwrap();
    let error = engine.checkpoint().await.expect_err("it takes 400 ms");
    assert_eq!(error.state(), SqlState::QUERY_CANCELED);
    assert!(error.message().contains("timed out"), "{error}");
    assert_eq!(states(&engine).last(), Some(&"FAILED"));
    engine.set_settings(settings(&[("checkpoint_interval", "1h")])).unwrap();
    engine.flush().await.unwrap();
    engine.checkpoint().await.unwrap();
    assert_eq!(states(&engine).last(), Some(&"COMPLETED"));
    engine.shutdown().await.unwrap();
    drop(engine);
    // The operator's state of the abandoned checkpoint is there.
    let engine = self::engine(dir.path(), &[], vec![view(10, 1, -1)]).await;
    let change = Delta::new(rows(&[(1, 1)]), Some(arrow::array::Int64Array::from(vec![-1])));
    let seq = engine.commit_transaction(vec![(RelationId(1), change)]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
    assert_eq!(read(&engine, 10), vec![(2, 4)]);
    assert_eq!(engine.operators().iter().map(|o| o.state_rows).sum::<u64>(), 1);
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_stop_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let options = [("checkpoint_interval", "1h"), ("checkpoint_timeout", "50ms"), ("checkpoint_tolerable_failures", "1")];
    let engine = engine(dir.path(), &options, vec![]).await;
    create(&engine, slow(view(10, 1, -1))).await;
    insert(&engine, &[(1, 1)]).await;
    for at in 2..4 {
        engine.commit_transaction(vec![(RelationId(1), Delta::insert(rows(&[(at, at)])))]).await.unwrap();
        engine.checkpoint().await.expect_err("it takes 400 ms");
        if at == 2 {
            engine.flush().await.unwrap();
        }
    }
    let end = tokio::time::timeout(Duration::from_secs(10), engine.ended()).await.expect("it ends");
    assert!(end.unwrap_err().message().contains("timed out"));
    drop(engine);
    let engine = self::engine(dir.path(), &[], vec![view(10, 1, -1)]).await;
    common::level(&engine, 10).await;
    assert_eq!(read(&engine, 10), vec![(1, 2), (2, 4), (3, 6)], "what was answered is there");
    engine.shutdown().await.unwrap();
}
