//! Any operator whose state expires (`state_ttl`).
//!
//! What an input has not touched for the ttl is taken back from the operator, as if it had been deleted: so the output is always that
//! of one input, of the rows that are left. In front of each port stands a [`Guard`] that knows these rows. It adds their
//! deletions to the input when they expire, and stops a deletion that comes later, as the row is gone already. What expires
//! together is a *key*: for an aggregate the group, for other operators each row by itself.
//!
//! An aggregate over rows that nobody ever deletes is not given deletions, so its guard needs to know groups only, and the
//! operator [forgets](Operator::expire) them itself. Otherwise a group that lives forever would be a list that grows forever.

mod touched;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::UInt32Array;
use millpond_common::hash::hash_bytes;
use millpond_common::ids::vnodes_of;
use millpond_common::{Delta, Error, Result, RowCodec};
use millpond_plan::{Node, Operator as PlanOperator};
use millpond_state::SortedState;

pub use self::touched::Time;
use self::touched::Touched;
use super::keys::{Interner, KeyCodec, RowBytes};
use super::output::{BATCH_ROWS_MAX, diffs};
use super::{EpochContext, Operator, StateHandle, distribution};

/// The least time between two looks for what has expired.
const STEP_MIN: Time = 100;
/// How many looks there are in the time to live.
const STEPS: Time = 16;

/// What an operator with a time to live is told of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// The time at its barrier; never earlier than at the one before.
    pub now: Time,
    /// How long state lives that nothing touches; `None`: forever.
    pub ttl: Option<Time>,
}

impl Lifetime {
    /// Time is kept in whole steps: `now` is in the step of this number.
    pub fn step(&self) -> Time {
        self.now / self.step_length()
    }

    /// Until the next step.
    pub fn rest(&self) -> Time {
        self.step_length() - self.now % self.step_length()
    }

    fn step_length(&self) -> Time {
        self.ttl.map_or(60_000, |ttl| (ttl / STEPS).max(STEP_MIN))
    }

    /// What is touched now counts as touched at the step's beginning.
    fn at(&self) -> Time {
        self.step() * self.step_length()
    }

    /// What has not been touched after this time expires: in a step that ended before the ttl began.
    fn last(&self) -> Option<Time> {
        self.now.checked_sub(self.ttl? + self.step_length())
    }
}

/// An operator with guards.
pub struct Expiring {
    inner: Box<dyn Operator>,
    guards: Vec<Guard>,
    /// The step in which it has looked for what has expired.
    looked: Time,
}

/// Knows what a port has given and not taken back.
struct Guard {
    port: usize,
    keys: KeyCodec,
    touched: Touched,
    held: Held,
}

/// The rows of a guard's keys.
enum Held {
    /// None is ever deleted, and they are not known.
    Unknown,
    /// Each is a key: its virtual node and the whole row.
    Keys(RowCodec),
    /// Key and row → how often it is there.
    Rows(RowCodec, Rc<RefCell<SortedState<i64>>>),
}

/// What an epoch changes of one row.
struct Change {
    chunk: usize,
    row: u32,
    key: usize,
    weight: i64,
}

impl Expiring {
    /// Around the operator of a node with these inputs.
    pub fn new(inner: Box<dyn Operator>, node: &Node, inputs: &[&Node]) -> Result<Self> {
        let guard = |port: &usize| -> Result<Guard> {
            let input = inputs.get(*port).ok_or_else(|| Error::internal("an input that is not there expires"))?;
            let codec = RowCodec::new(Arc::clone(&input.schema))?;
            let held = match node.operator {
                PlanOperator::Aggregate { .. } if input.append_only => Held::Unknown,
                PlanOperator::Aggregate { .. } => Held::Rows(codec, Rc::default()),
                _ => Held::Keys(codec),
            };
            let columns = distribution(node, *port).unwrap_or_default();
            Ok(Guard { port: *port, keys: KeyCodec::new(&input.schema, &columns)?, touched: Touched::default(), held })
        };
        Ok(Expiring { inner, guards: node.expires.iter().map(guard).collect::<Result<_>>()?, looked: 0 })
    }
}

impl Operator for Expiring {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        let mut tables = self.inner.state();
        for guard in &self.guards {
            tables.extend(guard.touched.state());
            if let Held::Rows(_, rows) = &guard.held {
                tables.push(("rows", Rc::clone(rows) as StateHandle));
            }
        }
        tables
    }

    fn step(&mut self, mut inputs: Vec<Vec<Delta>>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let lifetime = context.lifetime.ok_or_else(|| Error::internal("an epoch without a time"))?;
        for guard in &self.guards {
            if let Some(input) = inputs.get_mut(guard.port) {
                *input = guard.admit(std::mem::take(input), lifetime.at())?;
            }
        }
        let mut gone = Vec::new();
        if let Some(last) = lifetime.last().filter(|_| lifetime.step() != self.looked) {
            self.looked = lifetime.step();
            let vnodes = vnodes_of(context.worker, context.workers);
            for guard in &self.guards {
                let keys = guard.touched.take(last, vnodes.clone())?;
                match &guard.held {
                    Held::Unknown => gone.extend(keys.into_iter().map(|(key, _)| key)),
                    _ => inputs.get_mut(guard.port).into_iter().try_for_each(|input| guard.take_back(keys.as_slice(), input))?,
                }
            }
        }
        self.inner.step(inputs, context, out)?;
        if gone.is_empty() { Ok(()) } else { self.inner.expire(&gone, out) }
    }

    fn into_output(self: Box<Self>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        self.inner.into_output(context, out)
    }

    fn will_expire(&self) -> bool {
        self.guards.iter().any(|g| g.touched.has_keys())
    }
}

impl Guard {
    /// An epoch's input without the deletions of rows that are gone; what it changes is touched.
    fn admit(&self, deltas: Vec<Delta>, at: Time) -> Result<Vec<Delta>> {
        let mut keys = Interner::default();
        let (Held::Keys(codec) | Held::Rows(codec, _)) = &self.held else {
            for delta in &deltas {
                let encoded = self.keys.encode(&delta.batch)?;
                for i in 0..delta.len() {
                    keys.intern(encoded.hash(i), encoded.get(i));
                }
            }
            self.touched.fetch(keys.iter())?;
            // That there is a row is all that is known.
            keys.iter().try_for_each(|key| self.touched.touch(key, i64::from(self.touched.rows(key) == 0), at))?;
            return Ok(deltas);
        };
        // An epoch's rows come in no order, so their net changes tell what is there in the end.
        let (mut rows, mut changes, mut place) = (Interner::default(), Vec::<Change>::new(), Vec::new());
        for (chunk, delta) in deltas.iter().enumerate() {
            let encoded = self.keys.encode(&delta.batch)?;
            let bytes = RowBytes::new(codec, delta.batch.columns())?;
            for i in 0..delta.len() {
                place.clear();
                place.extend_from_slice(self.prefix(encoded.get(i)));
                place.extend_from_slice(bytes.get(i));
                let number = rows.intern(hash_bytes(&place), &place);
                if number == changes.len() {
                    let key = if let Held::Keys(_) = self.held { number } else { keys.intern(encoded.hash(i), encoded.get(i)) };
                    changes.push(Change { chunk, row: i as u32, key, weight: 0 });
                }
                changes[number].weight += delta.weight(i);
            }
        }
        self.settle(&rows, &keys, &mut changes, at)?;
        let mut chosen = deltas.iter().map(|_| (Vec::new(), Vec::new())).collect::<Vec<_>>();
        for change in changes.into_iter().filter(|change| change.weight != 0) {
            chosen[change.chunk].0.push(change.row);
            chosen[change.chunk].1.push(change.weight);
        }
        let some = deltas.iter().zip(chosen).filter(|(_, (rows, _))| !rows.is_empty());
        some.map(|(delta, (rows, weights))| Ok(Delta::new(delta.take(&UInt32Array::from(rows))?.batch, diffs(weights)))).collect()
    }

    /// How a row's place begins.
    fn prefix<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if let Held::Keys(_) = self.held { &key[..1] } else { key }
    }

    /// Cuts changes to what is possible, no row being there less than not at all, and makes them known.
    fn settle(&self, rows: &Interner, keys: &Interner, changes: &mut [Change], at: Time) -> Result<()> {
        match &self.held {
            Held::Rows(_, held) => {
                let mut held = held.borrow_mut();
                held.fetch(rows.iter())?;
                self.touched.fetch(keys.iter())?;
                let mut totals = vec![None; keys.len()];
                for (change, place) in changes.iter_mut().zip(rows.iter()) {
                    change.weight = possible(held.get(place).copied().unwrap_or_default(), change.weight);
                    super::top_n::add(&mut held, place, change.weight);
                    if change.weight != 0 {
                        *totals[change.key].get_or_insert(0) += change.weight;
                    }
                }
                for (key, total) in keys.iter().zip(totals) {
                    total.into_iter().try_for_each(|total| self.touched.touch(key, total, at))?;
                }
            }
            _ => {
                self.touched.fetch(rows.iter())?;
                for (change, place) in changes.iter_mut().zip(rows.iter()) {
                    change.weight = possible(self.touched.rows(place), change.weight);
                    if change.weight != 0 {
                        self.touched.touch(place, change.weight, at)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the deletions of all rows of these keys to the input.
    fn take_back(&self, keys: &[(Vec<u8>, i64)], input: &mut Vec<Delta>) -> Result<()> {
        match &self.held {
            Held::Unknown => Ok(()),
            Held::Keys(codec) => {
                let rows = keys.iter().map(|(key, count)| (&key[1..], *count)).collect::<Vec<_>>();
                deletions(codec, &rows, input)
            }
            Held::Rows(codec, held) => {
                let mut held = held.borrow_mut();
                for (key, _) in keys {
                    held.fetch([key.as_slice()])?;
                    let places = held.range(key).map(|(place, count)| (place.to_vec(), *count)).collect::<Vec<_>>();
                    for (place, _) in &places {
                        held.remove(place);
                    }
                    let rows = places.iter().map(|(place, count)| (&place[key.len()..], *count)).collect::<Vec<_>>();
                    deletions(codec, &rows, input)?;
                }
                Ok(())
            }
        }
    }
}

/// What a change of a row that is there so often can be.
fn possible(held: i64, change: i64) -> i64 {
    change.max(-held)
}

fn deletions(codec: &RowCodec, rows: &[(&[u8], i64)], input: &mut Vec<Delta>) -> Result<()> {
    for part in rows.chunks(BATCH_ROWS_MAX) {
        let batch = codec.decode(part.iter().map(|(row, _)| *row))?;
        input.push(Delta::new(batch, diffs(part.iter().map(|(_, count)| -count).collect())));
    }
    Ok(())
}
