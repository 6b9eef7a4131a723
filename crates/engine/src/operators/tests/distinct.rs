use millpond_plan::Operator;
use rand::Rng;

use super::run::{Run, plan, random};
use super::table::{Ordered, Rows, Val, schema};

#[test]
fn a_row_comes_and_goes_once() {
    let columns = schema("a:int b:text");
    let mut run = Run::new(plan(&[&columns], false, Operator::Distinct, &columns));
    run.expect("+1 1 x\n+2 1 x\n+1 2 null", "+1 1 x\n+1 2 null");
    run.expect("-2 1 x\n+1 3 y\n-1 3 y", "");
    run.expect("-1 1 x\n+1 2 null", "-1 1 x");
    run.expect("-2 2 null", "-1 2 null");
}

#[test]
fn equal_numbers_are_one_row() {
    let columns = schema("f:float");
    let mut run = Run::new(plan(&[&columns], false, Operator::Distinct, &columns));
    run.expect("+1 0\n+1 -0\n+1 NaN\n+1 NaN", "+1 0\n+1 NaN");
    run.expect("-1 0", "");
    run.expect("-1 -0", "-1 0");
}

#[test]
fn rows_without_columns() {
    let columns = schema("");
    let mut run = Run::new(plan(&[&columns], false, Operator::Distinct, &columns));
    run.expect("+1\n+1", "+1");
    run.expect("-2", "-1");
}

#[test]
fn as_its_twin() {
    let columns = schema("a:int b:text c:float");
    for seed in 0..40 {
        let row = |_: usize, rng: &mut rand::rngs::StdRng| {
            let text = ["", "a", "a longer text than a block of the row encoding has"][rng.random_range(0..3)];
            vec![
                if rng.random_range(0..4) == 0 { Val::Null } else { Val::Int(rng.random_range(0..3)) },
                Val::Text(text.into()),
                Val::Float(Ordered([0.5, f64::INFINITY][rng.random_range(0..2)])),
            ]
        };
        let twin = |inputs: &[Rows]| inputs[0].keys().map(|row| (row.clone(), 1)).collect();
        random(seed, plan(&[&columns], false, Operator::Distinct, &columns), row, twin);
    }
}
