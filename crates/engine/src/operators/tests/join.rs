use datafusion::prelude::col;
use millpond_plan::{JoinKind, Operator, PlanExpr};
use rand::Rng;

use super::run::{Run, plan, random};
use super::table::{Row, Rows, Val, accumulate, lines, schema};

const KINDS: [JoinKind; 6] = [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::LeftSemi, JoinKind::LeftAnti];

fn join(kind: JoinKind, on: &[(usize, usize)], null_equals_null: bool, filter: bool) -> Operator {
    // Left (k, v), right (k, w): v < w.
    let filter = filter.then(|| PlanExpr(col("c1").lt(col("c3"))));
    Operator::Join { kind, on: on.to_vec(), null_equals_null, filter, numbered: true }
}

fn run(kind: JoinKind, filter: bool) -> Run {
    let (left, right) = (schema("k:int v:int"), schema("k:int w:int"));
    let output =
        if matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) { schema("k:int v:int") } else { schema("k:int v:int k2:int w:int") };
    Run::new(plan(&[&left, &right], false, join(kind, &[(0, 0)], false, filter), &output))
}

fn check(run: &mut Run, left: &str, right: &str, output: &str) {
    assert_eq!(run.step(&[left, right]), lines(output), "after left\n{}\nright\n{}", lines(left), lines(right));
}

#[test]
fn inner() {
    let mut run = run(JoinKind::Inner, false);
    check(&mut run, "+1 1 10\n+1 null 5", "+2 1 7\n+1 null 5", "+2 1 10 1 7");
    check(&mut run, "+1 1 11", "", "+2 1 11 1 7");
    check(&mut run, "-1 1 10", "-1 1 7", "-2 1 10 1 7\n-1 1 11 1 7");
    check(&mut run, "", "+1 1 8\n-1 1 7", "-1 1 11 1 7\n+1 1 11 1 8");
}

#[test]
fn left_outer() {
    let mut run = run(JoinKind::Left, false);
    check(&mut run, "+1 1 10\n+1 null 5", "+1 2 7", "+1 1 10 null null\n+1 null 5 null null");
    check(&mut run, "", "+1 1 7\n+1 1 8", "+1 1 10 1 7\n+1 1 10 1 8\n-1 1 10 null null");
    check(&mut run, "+1 1 11", "-1 1 7\n-1 1 8", "-1 1 10 1 7\n-1 1 10 1 8\n+1 1 10 null null\n+1 1 11 null null");
    check(&mut run, "-1 null 5\n-1 1 11", "", "-1 1 11 null null\n-1 null 5 null null");
}

#[test]
fn anti_with_a_condition() {
    let mut run = run(JoinKind::LeftAnti, true);
    check(&mut run, "+1 1 10\n+1 1 20", "+1 1 15", "+1 1 20");
    check(&mut run, "", "+1 1 25\n-1 1 15", "-1 1 20");
    check(&mut run, "-1 1 10", "-1 1 25", "+1 1 20");
}

#[test]
fn wide_fan_out_is_cut_into_batches() {
    let (left, right) = (schema("k:int v:int"), schema("k:int w:int"));
    let output = schema("k:int v:int k2:int w:int");
    let mut run = Run::new(plan(&[&left, &right], false, join(JoinKind::Inner, &[], false, false), &output));
    let rows = |n: i64| (0..n).map(|i| format!("+1 {i} {i}")).collect::<Vec<_>>().join("\n");
    run.step(&["", &rows(3000)]);
    let left = super::table::delta(run.input_schema(0), &rows(20));
    let out = run.try_step(vec![vec![left], vec![]]).unwrap();
    assert_eq!(out.iter().map(|d| d.len()).sum::<usize>(), 60_000);
    assert!(out.iter().all(|d| d.len() <= 8192));
}

/// Every pair, judged.
fn twin(inputs: &[Rows], kind: JoinKind, on: &[(usize, usize)], null_equals_null: bool, filter: bool) -> Rows {
    let matches = |l: &Row, r: &Row| {
        let equal = on.iter().all(|(i, j)| l[*i] == r[*j] && (null_equals_null || l[*i] != Val::Null));
        equal && (!filter || (l[1] != Val::Null && r[1] != Val::Null && l[1] < r[1]))
    };
    let mut out = Rows::new();
    let nulls = vec![Val::Null; 2];
    for (l, n) in &inputs[0] {
        let partners = inputs[1].iter().filter(|(r, _)| matches(l, r)).collect::<Vec<_>>();
        match kind {
            JoinKind::LeftSemi if !partners.is_empty() => accumulate(&mut out, [(l.clone(), *n)]),
            JoinKind::LeftAnti if partners.is_empty() => accumulate(&mut out, [(l.clone(), *n)]),
            JoinKind::LeftSemi | JoinKind::LeftAnti => {}
            JoinKind::Left | JoinKind::Full if partners.is_empty() => accumulate(&mut out, [([l.clone(), nulls.clone()].concat(), *n)]),
            _ => accumulate(&mut out, partners.into_iter().map(|(r, m)| ([l.clone(), r.clone()].concat(), n * m))),
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        for (r, m) in inputs[1].iter().filter(|(r, _)| !inputs[0].keys().any(|l| matches(l, r))) {
            accumulate(&mut out, [([nulls.clone(), r.clone()].concat(), *m)]);
        }
    }
    out
}

#[test]
fn as_its_twin() {
    let (left, right) = (schema("k:int v:int"), schema("k:int w:int"));
    let pairs = schema("k:int v:int k2:int w:int");
    for seed in 0..240u64 {
        let kind = KINDS[seed as usize % 6];
        let filter = seed / 6 % 2 == 1;
        let on: &[(usize, usize)] = [&[(0, 0)][..], &[(0, 0)], &[], &[(0, 0), (1, 1)]][seed as usize / 12 % 4];
        let null_equals_null = seed / 48 % 2 == 1;
        let output = if matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) { &left } else { &pairs };
        let row = |_: usize, rng: &mut rand::rngs::StdRng| {
            let mut value = |n: i128| if rng.random_range(0..6) == 0 { Val::Null } else { Val::Int(rng.random_range(0..n)) };
            vec![value(3), value(4)]
        };
        let operator = join(kind, on, null_equals_null, filter);
        random(seed, plan(&[&left, &right], false, operator, output), row, |i| twin(i, kind, on, null_equals_null, filter));
    }
}
