use std::collections::BTreeMap;

use millpond_common::SqlState;
use millpond_plan::{AggregateCall, AggregateFunction, Operator};
use rand::Rng;
use rand::rngs::StdRng;

use super::run::{Run, plan, random};
use super::table::{Ordered, Row, Rows, Val, accumulate, delta, schema};
use AggregateFunction::{Avg, Count, Max, Min, Sum};

fn call(function: AggregateFunction, argument: usize) -> AggregateCall {
    AggregateCall { function, argument: Some(argument), distinct: false, filter: None }
}

fn count_rows() -> AggregateCall {
    AggregateCall { function: Count, argument: None, distinct: false, filter: None }
}

fn distinct(call: AggregateCall) -> AggregateCall {
    AggregateCall { distinct: true, ..call }
}

fn filtered(call: AggregateCall, column: usize) -> AggregateCall {
    AggregateCall { filter: Some(column), ..call }
}

fn run(input: &str, group: &[usize], calls: Vec<AggregateCall>, output: &str) -> Run {
    Run::new(plan(&[&schema(input)], false, Operator::Aggregate { group: group.to_vec(), calls }, &schema(output)))
}

#[test]
fn counts_and_sums_by_group() {
    let mut run = run("k:text v:int", &[0], vec![count_rows(), call(Count, 1), call(Sum, 1)], "k:text n:int c:int s:int");
    run.expect("+1 a 1\n+2 a 5\n+1 b null", "+1 a 3 3 11\n+1 b 1 0 null");
    run.expect("-1 a 5\n+1 null 9", "+1 a 2 2 6\n-1 a 3 3 11\n+1 null 1 1 9");
    run.expect("+1 a 3\n-1 a 3", "");
    run.expect("-1 b null\n-1 a 1\n-1 a 5", "-1 a 2 2 6\n-1 b 1 0 null");
}

#[test]
fn without_groups_there_is_always_one_row() {
    let mut run = run("v:int", &[], vec![count_rows(), call(Sum, 0), call(Min, 0)], "n:int s:int m:int");
    run.expect("", "+1 0 null null");
    run.expect("", "");
    run.expect("+1 4\n+1 2", "-1 0 null null\n+1 2 6 2");
    run.restart();
    run.expect("-1 4\n-1 2", "+1 0 null null\n-1 2 6 2");
    run.expect("+1 1\n-1 1", "");
}

#[test]
fn extremes_step_back() {
    let mut run = run("k:int v:text", &[0], vec![call(Min, 1), call(Max, 1)], "k:int a:text z:text");
    run.expect("+1 1 b\n+1 1 c\n+2 1 d\n+1 1 null", "+1 1 b d");
    run.expect("-1 1 d\n-1 1 b", "-1 1 b d\n+1 1 c d");
    run.expect("-1 1 d\n-1 1 c", "-1 1 c d\n+1 1 null null");
}

#[test]
fn distinct_and_filter() {
    let calls = vec![distinct(call(Count, 1)), distinct(call(Sum, 1)), filtered(call(Sum, 1), 2), filtered(count_rows(), 2)];
    let mut run = run("k:int v:int b:bool", &[0], calls, "k:int n:int s:int f:int c:int");
    run.expect("+1 1 5 true\n+3 1 5 false\n+1 1 7 null", "+1 1 2 12 5 1");
    run.expect("-2 1 5 false\n-1 1 5 true", "-1 1 2 12 5 1\n+1 1 2 12 null 0");
    run.expect("-1 1 5 false", "+1 1 1 7 null 0\n-1 1 2 12 null 0");
}

#[test]
fn means_of_decimals_and_floats() {
    let mut run =
        run("d:dec f:float i:i32", &[], vec![call(Avg, 0), call(Avg, 1), call(Avg, 2), call(Sum, 0)], "a:avg b:float c:avg s:dec");
    run.expect("+1 1.00 1 1\n+1 0.01 2 1\n+1 0.00 2.5 0", "+1 0.336667 1.8333333333333333 0.666667 1.01");
    run.expect("-1 1.00 1 1\n-1 0.01 2 1", "+1 0.000000 2.5 0.000000 0.00\n-1 0.336667 1.8333333333333333 0.666667 1.01");
}

#[test]
fn float_sums_leave_no_trace() {
    let mut run = run("f:float", &[], vec![call(Sum, 0)], "s:float");
    run.expect("+1 0.1", "+1 0.1");
    run.expect("+1 1e17\n+1 inf", "-1 0.1\n+1 inf");
    run.restart();
    run.expect("-1 inf", "+1 100000000000000000\n-1 inf");
    run.expect("-1 1e17", "+1 0.1\n-1 100000000000000000");
}

#[test]
fn overflow_is_reported_when_it_is_the_result() {
    let mut first = run("v:int", &[], vec![call(Sum, 0)], "s:int");
    first.expect("+1 9223372036854775807\n+1 5\n-1 5", "+1 9223372036854775807");
    let more = vec![vec![delta(first.input_schema(0), "+1 1")]];
    assert_eq!(first.try_step(more).map(|_| ()).map_err(|e| e.state()), Err(SqlState::NUMERIC_VALUE_OUT_OF_RANGE));
    let mut wide = run("v:int", &[], vec![call(Sum, 0)], "s:big");
    wide.expect("+3 9223372036854775807", "+1 27670116110564327421");
}

#[test]
fn sums_of_intervals_and_texts_are_refused() {
    let operator = Operator::Aggregate { group: vec![], calls: vec![call(Sum, 0)] };
    let plan = plan(&[&schema("t:text")], false, operator, &schema("s:text"));
    let error = crate::operators::build(&plan, 1).err().unwrap();
    assert_eq!((error.state(), error.message()), (SqlState::FEATURE_NOT_SUPPORTED, "sum(text) in a materialized view"));
}

/// The call's value over a group's rows, the slow way.
fn evaluate(call: &AggregateCall, rows: &[(&Row, i64)]) -> Val {
    let mut arguments: BTreeMap<Val, i64> = BTreeMap::new();
    for (row, n) in rows.iter().filter(|(row, _)| call.filter.is_none_or(|c| row[c] == Val::Bool(true))) {
        let value = call.argument.map_or(Val::Bool(true), |c| row[c].clone());
        if value != Val::Null {
            *arguments.entry(value).or_default() += if call.distinct { 0 } else { *n };
        }
    }
    if call.distinct {
        arguments.values_mut().for_each(|n| *n = 1);
    }
    let count = arguments.values().sum::<i64>();
    // Floats in these tests are multiples of a quarter, so that this is exact.
    let quarters = |v: &Val| match v {
        Val::Float(f) => (f.0 * 4.0) as i128,
        Val::Int(i) => *i,
        _ => 0,
    };
    let float = matches!(arguments.keys().next(), Some(Val::Float(_)));
    let sum = arguments.iter().map(|(v, n)| quarters(v) * i128::from(*n)).sum::<i128>();
    match call.function {
        Count => Val::Int(count.into()),
        _ if count == 0 => Val::Null,
        Min => arguments.keys().next().cloned().unwrap(),
        Max => arguments.keys().next_back().cloned().unwrap(),
        Sum if float => Val::Float(Ordered(sum as f64 / 4.0)),
        Avg if float => Val::Float(Ordered(sum as f64 / 4.0 / count as f64)),
        Sum => Val::Int(sum),
        Avg => {
            let (scaled, count) = (sum * 10_000, i128::from(count));
            let half = if scaled < 0 { -count / 2 } else { count / 2 };
            // Half away from zero; an odd count has no half.
            Val::Int((scaled + half) / count)
        }
    }
}

fn twin(input: &Rows, group: &[usize], calls: &[AggregateCall]) -> Rows {
    let mut groups: BTreeMap<Row, Vec<(&Row, i64)>> = BTreeMap::new();
    if group.is_empty() {
        groups.insert(vec![], vec![]);
    }
    for (row, n) in input {
        groups.entry(group.iter().map(|c| row[*c].clone()).collect()).or_default().push((row, *n));
    }
    let mut out = Rows::new();
    for (key, rows) in groups {
        let results = calls.iter().map(|c| evaluate(c, &rows));
        accumulate(&mut out, [(key.into_iter().chain(results).collect(), 1)]);
    }
    out
}

#[test]
fn as_its_twin() {
    // k, t: groups; v int, d decimal(10,2), f float, s text, b boolean.
    let input = schema("k:int t:text v:int d:dec f:float s:text b:bool");
    let functions = [(Count, "int", "int"), (Sum, "int", "int"), (Sum, "dec", "dec"), (Avg, "dec", "avg"), (Sum, "float", "float")];
    let more = [(Avg, "float", "float"), (Min, "int", "int"), (Max, "int", "int"), (Max, "text", "text"), (Min, "float", "float")];
    let columns = |kind: &str| ["int", "dec", "float", "text"].iter().position(|k| *k == kind).unwrap() + 2;
    for seed in 0..150u64 {
        let mut pick: StdRng = rand::SeedableRng::seed_from_u64(seed + 1000);
        let group: &[usize] = [&[0][..], &[0, 1], &[], &[1]][seed as usize % 4];
        let names = ["k:int", "t:text"];
        let mut output = group.iter().map(|g| names[*g].to_string()).collect::<Vec<_>>();
        let mut calls = vec![count_rows()];
        output.push("n:int".into());
        for i in 0..pick.random_range(1..6) {
            let at = pick.random_range(0..functions.len() + more.len());
            let (function, argument, result) = *functions.iter().chain(&more).nth(at).unwrap();
            let mut one = call(function, columns(argument));
            one.distinct = pick.random_range(0..3) == 0;
            one.filter = (pick.random_range(0..3) == 0).then_some(6);
            calls.push(one);
            output.push(format!("c{i}:{result}"));
        }
        let operator = Operator::Aggregate { group: group.to_vec(), calls: calls.clone() };
        let row = |_: usize, rng: &mut StdRng| {
            let null = |rng: &mut StdRng, v: Val| if rng.random_range(0..6) == 0 { Val::Null } else { v };
            let values = [
                Val::Int(rng.random_range(0..3)),
                Val::Text(["a", "b"][rng.random_range(0..2)].into()),
                Val::Int(rng.random_range(-4..4)),
                Val::Int(rng.random_range(-400..400)),
                Val::Float(Ordered(f64::from(rng.random_range(-8..8)) / 4.0 + 0.125 * 2.0)),
                Val::Text(["p", "q", "rr"][rng.random_range(0..3)].into()),
                Val::Bool(rng.random_range(0..2) == 0),
            ];
            values.into_iter().map(|v| null(rng, v)).collect()
        };
        let append_only = seed % 5 == 0;
        random(seed, plan(&[&input], append_only, operator, &schema(&output.join(" "))), row, |i| twin(&i[0], group, &calls));
    }
}
