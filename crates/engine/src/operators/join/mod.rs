//! Rows of two inputs that belong together.
//!
//! Each side keeps its rows by join key. An epoch is two phases: first the right input meets the left rows as they
//! were, then the left input meets the right rows as they are now: ΔR⋈L_old + ΔL⋈R_new. A phase is the same code for
//! either side, so the moving side is called *own* and the resting one *other*.
//!
//! Outer, semi and anti joins also need to know which rows have a match. Without a further condition a row has one
//! if the other side has any row of its key: the key's total tells. With one, matches are counted per row: see
//! [`residual`].

mod pairs;
mod residual;

use std::cell::RefCell;
use std::rc::Rc;

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result, RowCodec};
use millpond_plan::{JoinKind, PlanExpr};
use millpond_state::{KeyedState, MultiState, RowForm};

use self::pairs::Pairs;
use super::expr::{Condition, pair_schema};
use super::keys::{Interner, KeyCodec, Keys, RowBytes, WARM_KEYS};
use super::output::{BATCH_ROWS_MAX, coalesce, diffs};
use super::{EpochContext, Operator, StateHandle};

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The join of two inputs.
pub struct Join {
    shape: Shape,
    sides: [Side; 2],
    null_equals_null: bool,
}

/// What output rows look like and when there are any.
struct Shape {
    kind: JoinKind,
    filter: Option<Condition>,
    /// Left columns followed by right columns: what `filter` sees.
    pairs: SchemaRef,
    /// The output's columns: as `pairs`, or only the left ones.
    output: SchemaRef,
}

/// One input's memory.
struct Side {
    /// Key → rows.
    rows: Rc<RefCell<MultiState>>,
    /// Key and row → how many rows of the other side match it; only with a filter, only where the kind asks.
    matches: Rc<RefCell<KeyedState<i64>>>,
    keys: KeyCodec,
    codec: RowCodec,
    schema: SchemaRef,
    /// Whether rows are needed, or only how many there are per key.
    keeps_rows: bool,
}

impl Side {
    fn encode(&self, delta: &Delta) -> Result<RowBytes> {
        if self.keeps_rows { RowBytes::new(&self.codec, delta.batch.columns()) } else { Ok(RowBytes::Empty) }
    }

    /// All rows that are kept, which are forgotten.
    fn take_input(&self) -> Result<Vec<Delta>> {
        let rows = self.rows.borrow_mut().take();
        self.matches.replace(KeyedState::new());
        let all = rows.iter().map(|(_, row, weight)| (row, weight)).collect::<Vec<_>>();
        let delta = |part: &[(&[u8], i64)]| {
            let batch = self.codec.decode(part.iter().map(|(row, _)| *row))?;
            Ok(Delta::new(batch, diffs(part.iter().map(|(_, weight)| *weight).collect())))
        };
        all.chunks(BATCH_ROWS_MAX).map(delta).collect()
    }
}

impl Shape {
    /// Whether pairs come out (otherwise left rows alone).
    fn emits_pairs(&self) -> bool {
        !matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti)
    }

    /// Whether rows of `side` come out alone while they have a match (`Some(true)`), while they have none
    /// (`Some(false)`), or never.
    fn alone_if_matched(&self, side: usize) -> Option<bool> {
        match (self.kind, side) {
            (JoinKind::LeftSemi, LEFT) => Some(true),
            (JoinKind::LeftAnti | JoinKind::Left | JoinKind::Full, LEFT) | (JoinKind::Right | JoinKind::Full, RIGHT) => Some(false),
            _ => None,
        }
    }

    /// The weight with which a row comes out alone, if it is there with `weight`.
    fn alone(&self, side: usize, matched: bool, weight: i64) -> Option<i64> {
        (self.alone_if_matched(side) == Some(matched)).then_some(weight)
    }

    /// By how much a row's presence alone changes when it gains its first match or loses its last.
    fn flip(&self, side: usize, before: bool, after: bool) -> i64 {
        match self.alone_if_matched(side) {
            Some(when) => i64::from(after == when) - i64::from(before == when),
            None => 0,
        }
    }
}

impl Join {
    /// A join of rows of `inputs` (left, right).
    pub fn new(
        kind: JoinKind,
        on: &[(usize, usize)],
        null_equals_null: bool,
        filter: Option<&PlanExpr>,
        form: RowForm,
        inputs: [&SchemaRef; 2],
        output: &SchemaRef,
    ) -> Result<Self> {
        let pairs = pair_schema(inputs[LEFT], inputs[RIGHT]);
        let filter = filter.map(|f| Condition::new(f, &pairs)).transpose()?;
        let shape = Shape { kind, filter, pairs, output: SchemaRef::clone(output) };
        let side = |schema: &SchemaRef, columns: Vec<usize>, keeps_rows: bool| -> Result<Side> {
            Ok(Side {
                rows: Rc::new(RefCell::new(MultiState::new(form))),
                matches: Rc::default(),
                keys: KeyCodec::new(schema, &columns)?,
                codec: RowCodec::new(SchemaRef::clone(schema))?,
                schema: SchemaRef::clone(schema),
                keeps_rows,
            })
        };
        let right_rows = shape.emits_pairs() || shape.filter.is_some();
        let left = side(inputs[LEFT], on.iter().map(|(l, _)| *l).collect(), true)?;
        let right = side(inputs[RIGHT], on.iter().map(|(_, r)| *r).collect(), right_rows)?;
        Ok(Join { shape, sides: [left, right], null_equals_null })
    }

    /// Has the rows of both sides in memory that an epoch is about to touch.
    fn fetch(&self, side: usize, deltas: &[Delta]) -> Result<()> {
        let mut rows = self.sides.each_ref().map(|s| s.rows.borrow_mut());
        if rows.iter().all(|r| !r.is_partial()) {
            return Ok(());
        }
        for delta in deltas {
            let keys = self.sides[side].keys.encode(&delta.batch)?;
            rows.iter_mut().try_for_each(|r| r.fetch(keys.iter()))?;
        }
        Ok(())
    }

    /// One side's changes meet the other side's rows.
    fn phase(&self, side: usize, deltas: &[Delta], out: &mut Vec<Delta>) -> Result<()> {
        let (own, other) = (&self.sides[side], &self.sides[1 - side]);
        let other_rows = other.rows.borrow();
        let mut own_rows = own.rows.borrow_mut();
        let mut pairs = Pairs::new(&self.shape, side, &other.codec);
        // Keys whose rows of the other side may gain or lose their match, with this side's total before.
        let watch = self.shape.alone_if_matched(1 - side).is_some();
        let (mut touched, mut totals) = (Interner::default(), Vec::new());
        for delta in deltas {
            let keys = own.keys.encode(&delta.batch)?;
            let rows = own.encode(delta)?;
            let valid = if self.null_equals_null { None } else { own.keys.non_null(&delta.batch) };
            pairs.begin(&delta.batch);
            for i in 0..delta.len() {
                if i % WARM_KEYS == 0 {
                    warm(&own_rows, &other_rows, &keys, i);
                }
                let weight = delta.weight(i);
                if valid.as_ref().is_some_and(|v| v.is_null(i)) {
                    // Matches nothing, now or later: no need to keep it.
                    if let Some(weight) = self.shape.alone(side, false, weight) {
                        pairs.own_alone(i, weight, out)?;
                    }
                    continue;
                }
                let (hash, key) = (keys.hash(i), keys.get(i));
                if self.shape.emits_pairs() {
                    pairs.probe(i, weight, hash, key, &other_rows, out)?;
                }
                if self.shape.alone_if_matched(side).is_some()
                    && let Some(weight) = self.shape.alone(side, other_rows.total(key) > 0, weight)
                {
                    pairs.own_alone(i, weight, out)?;
                }
                if watch && touched.intern(hash, key) == totals.len() {
                    totals.push(own_rows.total(key));
                }
                own_rows.add(key, rows.get(i), weight);
            }
            pairs.end(out)?;
        }
        for (number, before) in totals.into_iter().enumerate() {
            let key = touched.get(number);
            let sign = self.shape.flip(1 - side, before > 0, own_rows.total(key) > 0);
            if sign != 0 {
                for (row, weight) in other_rows.rows(key) {
                    pairs.other_alone(row, weight * sign, out)?;
                }
            }
        }
        pairs.end(out)
    }
}

/// Reads the next keys' rows ahead of their use, see [`WARM_KEYS`].
fn warm(own: &MultiState, other: &MultiState, keys: &Keys, from: usize) {
    let next = from..(from + WARM_KEYS).min(keys.rows());
    let sum: i64 = next.map(|i| own.total(keys.get(i)) + other.rows(keys.get(i)).next().map_or(0, |(_, weight)| weight)).sum();
    std::hint::black_box(sum);
}

impl Operator for Join {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        let [left, right] = &self.sides;
        vec![
            ("left", Rc::clone(&left.rows) as StateHandle),
            ("right", Rc::clone(&right.rows) as StateHandle),
            ("left matches", Rc::clone(&left.matches) as StateHandle),
            ("right matches", Rc::clone(&right.matches) as StateHandle),
        ]
    }

    fn step(&mut self, inputs: Vec<Vec<Delta>>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let mut inputs = inputs.into_iter();
        let (left, right) = (inputs.next().unwrap_or_default(), inputs.next().unwrap_or_default());
        for (side, deltas) in [(RIGHT, right), (LEFT, left)] {
            let deltas = coalesce(&self.sides[side].schema, deltas)?;
            self.fetch(side, &deltas)?;
            // Match counts are needed only where rows come out alone.
            if self.shape.filter.is_some() && self.shape.kind != JoinKind::Inner {
                self.residual_phase(side, &deltas, out)?;
            } else {
                self.phase(side, &deltas, out)?;
            }
        }
        Ok(())
    }

    fn into_output(mut self: Box<Self>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let [left, right] = &self.sides;
        if right.keeps_rows {
            // What it was given, given to it again.
            let inputs = vec![left.take_input()?, right.take_input()?];
            return self.step(inputs, context, out);
        }
        let (rows, others) = (left.rows.borrow(), right.rows.borrow());
        let mut pairs = Pairs::new(&self.shape, RIGHT, &left.codec);
        for (key, row, weight) in rows.iter() {
            if let Some(weight) = self.shape.alone(LEFT, others.total(key) > 0, weight) {
                pairs.other_alone(row, weight, out)?;
            }
        }
        pairs.end(out)
    }
}
