//! What the engine's tests share: one table of (k, v), views made by hand.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::{col, lit};
use millpond_common::settings::Settings;
use millpond_common::{Delta, JobId, RelationId, RelationSpec, StateTableId};
use millpond_connect::FormatSpec;
use millpond_engine::{Engine, EngineConfig, JobSpec, JobState, SourceSpec};
use millpond_plan::{Node, Operator, PlanExpr, StreamPlan};
use millpond_state::{Scan, Store, StoreOptions};

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, true)]))
}

pub fn table() -> RelationSpec {
    RelationSpec { id: RelationId(1), schema: schema(), key: Some(vec![0]), appended: false }
}

pub fn rows(rows: &[(i64, i64)]) -> RecordBatch {
    let column = |f: &dyn Fn(&(i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(f)));
    RecordBatch::try_new(schema(), vec![column(&|r| r.0), column(&|r| r.1)]).unwrap()
}

pub fn node(operator: Operator, inputs: Vec<usize>) -> Node {
    Node { operator, inputs, schema: schema(), append_only: false, expires: Vec::new() }
}

/// Rows of `input` with v above `limit`, v doubled.
pub fn view(id: u32, input: u32, limit: i64) -> JobSpec {
    let nodes = vec![
        node(Operator::Scan { relation: RelationId(input), projection: vec![0, 1] }, vec![]),
        node(Operator::Filter { predicate: PlanExpr(col("c1").gt(lit(limit))) }, vec![0]),
        node(Operator::Project { exprs: vec![PlanExpr(col("c0")), PlanExpr(col("c1") + col("c1"))] }, vec![1]),
        node(Operator::Distinct, vec![2]),
    ];
    JobSpec {
        id: JobId(id),
        name: format!("v{id}"),
        namespace: "public".into(),
        output: RelationSpec { id: RelationId(id), schema: schema(), key: Some(vec![0]), appended: false },
        plan: StreamPlan { nodes, key: Some(vec![0]), append_only: false },
        state_tables: vec![StateTableId(id * 100)],
        options: Settings::default(),
    }
}

fn open(dir: &Path, workers: usize, settings: Settings, tables: Vec<RelationSpec>, sources: Vec<SourceSpec>, jobs: Vec<JobSpec>) -> Engine {
    let (store, recovered) = Store::open(dir, &StoreOptions { memory: 1 << 28, workers, ..StoreOptions::default() }).unwrap();
    let config = EngineConfig { workers, memory: 1 << 28, settings };
    Engine::start(config, store, &recovered, tables, sources, jobs).unwrap()
}

pub async fn start_with(
    dir: &Path,
    workers: usize,
    settings: Settings,
    tables: Vec<RelationSpec>,
    sources: Vec<SourceSpec>,
    jobs: Vec<JobSpec>,
) -> Engine {
    let dir = dir.to_path_buf();
    tokio::task::spawn_blocking(move || open(&dir, workers, settings, tables, sources, jobs)).await.unwrap()
}

pub async fn start(dir: &Path, workers: usize, jobs: Vec<JobSpec>) -> Engine {
    let mut settings = Settings::default();
    settings.set("checkpoint_interval", Some("50ms")).unwrap();
    start_with(dir, workers, settings, vec![table()], vec![], jobs).await
}

/// A CSV file of (k, v) that is followed as it grows.
pub fn source(id: u32, file: &Path) -> SourceSpec {
    let option = |k: &str, v: &str| (k.to_string(), v.to_string());
    SourceSpec {
        id: RelationId(id),
        name: format!("s{id}"),
        namespace: "public".into(),
        schema: schema(),
        options: [option("connector", "file"), option("path", file.to_str().unwrap()), option("follow", "true")].into(),
        format: FormatSpec::new("PLAIN", "CSV", &[option("header", "false")].into()).unwrap(),
    }
}

pub fn read(engine: &Engine, id: u32) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    for batch in engine.store().read_view().scan(RelationId(id), Scan::default()).unwrap() {
        let batch = batch.unwrap();
        let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().clone();
        found.extend(column(0).values().iter().copied().zip(column(1).values().iter().copied()));
    }
    found.sort_unstable();
    found
}

pub async fn insert(engine: &Engine, list: &[(i64, i64)]) {
    let seq = engine.commit_transaction(vec![(RelationId(1), Delta::insert(rows(list)))]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
}

/// Net changes of rows (k, v) with their weights, in one transaction.
pub async fn update(engine: &Engine, list: &[(i64, i64, i64)]) {
    let batch = rows(&list.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
    let delta = Delta::new(batch, Some(Int64Array::from_iter_values(list.iter().map(|r| r.2))));
    let seq = engine.commit_transaction(vec![(RelationId(1), delta)]).await.unwrap();
    engine.wait_visible(seq).await.unwrap();
}

pub async fn create(engine: &Engine, spec: JobSpec) {
    let mut progress = engine.create_job(spec).await.unwrap().progress;
    let done = progress.wait_for(|p| !matches!(p.state, JobState::Backfilling)).await.unwrap().clone();
    assert!(matches!(done.state, JobState::Running), "{done:?}");
}

/// Waits until a job runs.
pub async fn level(engine: &Engine, id: u32) {
    while !engine.jobs().iter().any(|j| j.id == JobId(id) && matches!(j.state, JobState::Running)) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
