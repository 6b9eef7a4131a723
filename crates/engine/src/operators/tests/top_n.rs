use millpond_plan::{Operator, SortKey};
use rand::Rng;

use super::run::{Run, plan, random};
use super::table::{Row, Rows, Val, accumulate, schema};

fn top(partition: &[usize], order: &[SortKey], offset: u64, limit: Option<u64>, row_number: bool) -> Operator {
    Operator::TopN { partition: partition.to_vec(), order: order.to_vec(), offset, limit, row_number }
}

const fn by(column: usize, descending: bool) -> SortKey {
    SortKey { column, descending, nulls_first: descending }
}

#[test]
fn the_window_moves() {
    let columns = schema("k:int v:int");
    let mut run = Run::new(plan(&[&columns], false, top(&[0], &[by(1, true)], 0, Some(2), false), &columns));
    run.expect("+1 1 10\n+1 1 30\n+1 1 20\n+1 2 5", "+1 1 20\n+1 1 30\n+1 2 5");
    run.expect("+1 1 25", "-1 1 20\n+1 1 25");
    run.expect("-1 1 30", "+1 1 20\n-1 1 30");
    run.expect("+1 1 1", "");
    run.expect("+5 1 25", "-1 1 20\n+1 1 25");
    run.expect("-6 1 25\n-1 2 5", "+1 1 10\n+1 1 20\n-2 1 25\n-1 2 5");
}

#[test]
fn rows_are_numbered() {
    let (columns, numbered) = (schema("k:int v:text"), schema("k:int v:text n:int"));
    let mut run = Run::new(plan(&[&columns], false, top(&[0], &[by(1, false)], 1, Some(2), true), &numbered));
    run.expect("+1 1 a\n+1 1 b\n+1 1 d", "+1 1 b 2\n+1 1 d 3");
    run.expect("+1 1 c", "+1 1 c 3\n-1 1 d 3");
    run.expect("-1 1 a", "-1 1 b 2\n+1 1 c 2\n-1 1 c 3\n+1 1 d 3");
}

#[test]
fn without_deletions_only_the_window_is_kept() {
    let columns = schema("k:int v:int");
    let mut run = Run::new(plan(&[&columns], true, top(&[], &[by(1, true)], 0, Some(2), false), &columns));
    run.expect("+1 1 1\n+1 1 2\n+1 1 3\n+1 1 4", "+1 1 3\n+1 1 4");
    run.freeze();
    let two_rows = run.stored_bytes();
    run.expect("+1 7 5\n+1 7 0", "-1 1 3\n+1 7 5");
    run.expect("+9 7 -1", "");
    run.freeze();
    assert_eq!((run.state_rows(), run.stored_bytes()), (1, two_rows));
}

#[test]
fn ties_are_told_apart_by_whole_rows() {
    let columns = schema("k:int v:int t:text");
    let mut run = Run::new(plan(&[&columns], true, top(&[0], &[by(1, true)], 0, Some(1), false), &columns));
    run.expect("+1 1 5 c\n+1 1 5 b\n+1 1 5 d\n+1 2 1 x", "+1 1 5 b\n+1 2 1 x");
    run.expect("+1 1 5 a\n+1 1 4 a", "+1 1 5 a\n-1 1 5 b");
}

fn twin(input: &Rows, partition: &[usize], order: &[SortKey], offset: u64, limit: Option<u64>, row_number: bool) -> Rows {
    let mut sorted = input.iter().flat_map(|(row, n)| std::iter::repeat_n(row.clone(), *n as usize)).collect::<Vec<_>>();
    let key = |row: &Row| partition.iter().map(|c| row[*c].clone()).collect::<Vec<_>>();
    sorted.sort_by(|a, b| {
        let mut result = key(a).cmp(&key(b));
        for k in order {
            let (x, y) = (&a[k.column], &b[k.column]);
            // NULL is the greatest value here.
            let natural = if k.descending { y.cmp(x) } else { x.cmp(y) };
            let nulls = if k.nulls_first { (*y == Val::Null).cmp(&(*x == Val::Null)) } else { (*x == Val::Null).cmp(&(*y == Val::Null)) };
            result = result.then(nulls).then(natural);
        }
        result.then_with(|| a.cmp(b))
    });
    let mut out = Rows::new();
    for rows in sorted.chunk_by(|a, b| key(a) == key(b)) {
        let numbered = rows.iter().enumerate().skip(offset as usize).take(limit.unwrap_or(u64::MAX) as usize);
        accumulate(
            &mut out,
            numbered.map(|(i, row)| {
                let number = row_number.then_some(Val::Int(i as i128 + 1));
                (row.iter().cloned().chain(number).collect(), 1)
            }),
        );
    }
    out
}

#[test]
fn as_its_twin() {
    let (columns, numbered) = (schema("k:int v:int t:text"), schema("k:int v:int t:text n:int"));
    for seed in 0..120u64 {
        let partition: &[usize] = [&[0][..], &[], &[0, 2]][seed as usize % 3];
        let order = [
            vec![by(1, true)],
            vec![by(2, false), by(1, true)],
            vec![SortKey { column: 1, descending: false, nulls_first: true }, by(0, true)],
        ];
        let order = &order[seed as usize / 3 % 3];
        let (offset, limit) = [(0, Some(1)), (0, Some(3)), (2, Some(2)), (1, None), (0, Some(0))][seed as usize % 5];
        let (row_number, append_only) = (seed % 2 == 0, seed % 4 == 1);
        let output = if row_number { &numbered } else { &columns };
        let operator = top(partition, order, offset, limit, row_number);
        let row = |_: usize, rng: &mut rand::rngs::StdRng| {
            vec![
                Val::Int(rng.random_range(0..2)),
                if rng.random_range(0..5) == 0 { Val::Null } else { Val::Int(rng.random_range(-3..3)) },
                Val::Text(["x", "y"][rng.random_range(0..2)].into()),
            ]
        };
        random(seed, plan(&[&columns], append_only, operator, output), row, |i| twin(&i[0], partition, order, offset, limit, row_number));
    }
}
