//! Costs per row, printed by `cargo test --release -p millpond-engine bench -- --ignored --nocapture`.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use millpond_common::Delta;
use millpond_common::hash::mix;
use millpond_plan::{AggregateCall, AggregateFunction, JoinKind, Operator, SortKey, StreamPlan};

use super::run::{Run, plan};
use super::table::schema;

const ROWS: usize = 1_000_000;
const CHUNK: usize = 8192;

/// Rows (key of `keys`, number), in chunks.
fn chunks(schema: &SchemaRef, keys: u64) -> Vec<Delta> {
    let chunk = |start: usize| {
        let range = start..(start + CHUNK).min(ROWS);
        let key = range.clone().map(|i| mix(i as u64) % keys);
        let key: arrow::array::ArrayRef = match schema.field(0).data_type() {
            arrow_schema::DataType::Utf8 => Arc::new(key.map(|k| Some(format!("key {k}"))).collect::<StringArray>()),
            _ => Arc::new(key.map(|k| k as i64).collect::<Int64Array>()),
        };
        let value = range.map(|i| i as i64 % 1000).collect::<Int64Array>();
        Delta::insert(RecordBatch::try_new(Arc::clone(schema), vec![key, Arc::new(value)]).unwrap())
    };
    (0..ROWS).step_by(CHUNK).map(chunk).collect()
}

/// Time on a CPU, as others may be busy on this machine.
fn cpu_nanos() -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn measure(name: &str, plan: StreamPlan, inputs: Vec<Vec<Delta>>, epochs: usize) {
    let mut run = Run::new(plan);
    let rows: usize = inputs.iter().flatten().map(Delta::len).sum();
    let mut steps = (0..epochs).map(|_| vec![Vec::new(); inputs.len()]).collect::<Vec<_>>();
    for (port, deltas) in inputs.into_iter().enumerate() {
        for (i, delta) in deltas.into_iter().enumerate() {
            steps[i % epochs][port].push(delta);
        }
    }
    let start = cpu_nanos();
    let out: usize = steps.into_iter().map(|step| run.try_step(step).unwrap().iter().map(Delta::len).sum::<usize>()).sum();
    let nanos = cpu_nanos() - start;
    println!("{name:50} {:5} ns/row, {out} rows out, {} rows of state", nanos / rows, run.state_rows());
}

fn calls() -> Vec<AggregateCall> {
    let call = |function, argument| AggregateCall { function, argument, distinct: false, filter: None };
    vec![call(AggregateFunction::Count, None), call(AggregateFunction::Sum, Some(1))]
}

#[test]
#[ignore = "a measurement, not a test"]
fn bench() {
    let (ints, texts) = (schema("k:int v:int"), schema("k:text v:int"));
    let counted = [schema("k:int n:int s:int"), schema("k:text n:int s:int")];
    let group = |calls| Operator::Aggregate { group: vec![0], calls };
    for keys in [1000, 100_000, 1_000_000] {
        for epochs in [2, 60] {
            let name = format!("count, sum by int, {keys} keys, {epochs} epochs");
            measure(&name, plan(&[&ints], true, group(calls()), &counted[0]), vec![chunks(&ints, keys)], epochs);
        }
    }
    measure(
        "count, sum by text, 100000 keys, 60 epochs",
        plan(&[&texts], true, group(calls()), &counted[1]),
        vec![chunks(&texts, 100_000)],
        60,
    );
    for append_only in [true, false] {
        let max = vec![AggregateCall { function: AggregateFunction::Max, argument: Some(1), distinct: false, filter: None }];
        let name = format!("max by int, 100000 keys, append only: {append_only}");
        measure(&name, plan(&[&ints], append_only, group(max), &schema("k:int m:int")), vec![chunks(&ints, 100_000)], 60);
    }
    let distinct = vec![AggregateCall { function: AggregateFunction::Count, argument: Some(1), distinct: true, filter: None }];
    measure("count distinct, 1000 keys", plan(&[&ints], true, group(distinct), &schema("k:int m:int")), vec![chunks(&ints, 1000)], 60);
    measure("distinct", plan(&[&ints], true, Operator::Distinct, &ints), vec![chunks(&ints, 100_000)], 60);
    let order = vec![SortKey { column: 1, descending: true, nulls_first: true }];
    for append_only in [true, false] {
        let top = Operator::TopN { partition: vec![0], order: order.clone(), offset: 0, limit: Some(3), row_number: false };
        let name = format!("top 3 of 10000 partitions, append only: {append_only}");
        measure(&name, plan(&[&ints], append_only, top, &ints), vec![chunks(&ints, 10_000)], 60);
    }
    let join = Operator::Join { kind: JoinKind::Inner, on: vec![(0, 0)], null_equals_null: false, filter: None, numbered: true };
    let pairs = schema("k:int v:int k2:int w:int");
    let sides = vec![chunks(&ints, 1_000_000), chunks(&ints, 1_000_000)];
    measure("inner join, 1000000 keys", plan(&[&ints, &ints], true, join.clone(), &pairs), sides, 60);
    let few = vec![chunks(&ints, 1000), chunks(&ints, 1_000_000).into_iter().take(1).collect()];
    measure("inner join with a small side", plan(&[&ints, &ints], true, join, &pairs), few, 60);
}
