//! State that expires, by hand. At random: every operator's `as_its_twin`.

use millpond_plan::{AggregateCall, AggregateFunction, JoinKind, Operator};

use super::run::{Run, plan};
use super::table::schema;
use crate::operators::expiring::Lifetime;

/// A run whose state lives 1.6 s, and is looked at every 0.1 s.
fn run(operator: Operator, append_only: bool, inputs: &[&str], output: &str) -> Run {
    let inputs = inputs.iter().map(|text| schema(text)).collect::<Vec<_>>();
    let inputs = inputs.iter().collect::<Vec<_>>();
    at(Run::new(plan(&inputs, append_only, operator, &schema(output)).expiring()), 0)
}

fn at(mut run: Run, now: u64) -> Run {
    run.lifetime = Some(Lifetime { now: 10_000 + now, ttl: Some(1600) });
    run
}

fn count_and_max() -> Operator {
    let call = |function, argument| AggregateCall { function, argument, distinct: false, filter: None };
    Operator::Aggregate { group: vec![0], calls: vec![call(AggregateFunction::Count, None), call(AggregateFunction::Max, Some(1))] }
}

#[test]
fn groups_that_nothing_touches_go() {
    for append_only in [false, true] {
        let mut run = run(count_and_max(), append_only, &["k:text v:int"], "k:text n:int m:int");
        run.expect("+1 a 1\n+1 b 5", "+1 a 1 1\n+1 b 1 5");
        run = at(run, 1000);
        run.expect("+1 a 3", "-1 a 1 1\n+1 a 2 3");
        run = at(run, 1650);
        run.expect("", ""); // not before the end of the step in which it was touched
        run = at(run, 1700);
        run.expect("", "-1 b 1 5");
        run.restart();
        run = at(run, 2600);
        run.expect("+1 b 2", "+1 b 1 2"); // it begins anew
        run = at(run, 2700);
        run.expect("", "-1 a 2 3");
        run = at(run, 9000);
        run.expect("", "-1 b 1 2");
        assert_eq!(run.state_rows(), 0);
    }
}

#[test]
fn what_is_gone_cannot_be_deleted_again() {
    let mut run = run(count_and_max(), false, &["k:text v:int"], "k:text n:int m:int");
    run.expect("+1 a 1\n+2 a 7", "+1 a 3 7");
    run = at(run, 5000);
    run.expect("", "-1 a 3 7");
    run.expect("-1 a 1", "");
    run.expect("+1 a 4", "+1 a 1 4");
    run.expect("-2 a 7\n+1 a 5", "-1 a 1 4\n+1 a 2 5");
    run.expect("-1 a 4\n-1 a 5", "-1 a 2 5");
    assert_eq!(run.state_rows(), 0);
}

#[test]
fn without_groups_it_is_as_in_the_beginning() {
    let call = AggregateCall { function: AggregateFunction::Count, argument: Some(0), distinct: true, filter: None };
    for append_only in [false, true] {
        let operator = Operator::Aggregate { group: vec![], calls: vec![call.clone()] };
        let mut run = run(operator, append_only, &["v:int"], "n:int");
        run.expect("+1 4\n+1 4\n+1 5", "+1 2");
        run = at(run, 2000);
        run.expect("", "+1 0\n-1 2");
        run.expect("+1 4", "-1 0\n+1 1");
    }
}

#[test]
fn each_row_of_a_join_goes_by_itself() {
    let operator = Operator::Join { kind: JoinKind::Left, on: vec![(0, 0)], null_equals_null: false, filter: None, numbered: true };
    let mut run = run(operator, true, &["k:int v:int", "k:int w:int"], "k:int v:int k2:int w:int");
    assert_eq!(run.step(&["+1 1 10\n+1 null 11", "+1 1 20"]), "+1 1 10 1 20\n+1 null 11 null null");
    run = at(run, 1000);
    assert_eq!(run.step(&["+1 1 12", ""]), "+1 1 12 1 20");
    run = at(run, 2000);
    assert_eq!(run.step(&["", ""]), "-1 1 10 1 20\n-1 1 12 1 20\n+1 1 12 null null\n-1 null 11 null null");
    run.restart();
    run = at(run, 3000);
    assert_eq!(run.step(&["", "+1 1 21"]), "-1 1 12 null null");
    assert_eq!(run.state_rows(), 3);
}

#[test]
fn without_a_ttl_nothing_goes() {
    let mut run = run(Operator::Distinct, false, &["a:int"], "a:int");
    run.expect("+1 1", "+1 1");
    run.lifetime = Some(Lifetime { now: 1 << 40, ttl: None });
    run.expect("", "");
    run.lifetime = Some(Lifetime { now: 1 << 40, ttl: Some(1600) });
    run.expect("", "-1 1");
}
