//! Arguments that count once per group (DISTINCT).
//!
//! Calls with the same argument share one set, with a count for each call: their filters differ, the values do not. An
//! epoch's rows are first added up per group and value; then the set is asked once for each of these, and what enters or
//! leaves it for a call goes to that call's [`Partial`].

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use millpond_common::hash::{hash_columns, mix};
use millpond_common::{Result, RowCodec};
use millpond_state::{KeyedState, StateValue};

use super::super::keys::{Interner, RowBytes, normalize};
use super::call::Call;
use super::partial::{Partial, Routes, place_prefix, selected};

/// The values of one argument column, by group.
pub struct Set {
    argument: usize,
    codec: RowCodec,
    /// The calls that count them.
    calls: Vec<usize>,
    /// Nothing ever leaves: what is in it for a call needs no further counting.
    append_only: bool,
}

/// How often a value is there for each call.
pub struct Counts(Box<[i64]>);

impl StateValue for Counts {
    fn encode(&self, out: &mut Vec<u8>) {
        bincode::serialize_into(out, &self.0).expect("numbers can be written to memory");
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Counts(bincode::deserialize(bytes)?))
    }

    fn bytes(&self) -> usize {
        size_of::<Counts>() + size_of_val(&*self.0)
    }
}

/// An epoch's values with their weights, in the order of their first rows.
#[derive(Default)]
pub struct Touched {
    index: HashTable<u32>,
    values: Vec<Value>,
    /// By value and, within it, by call.
    weights: Vec<i64>,
    chunks: Vec<(RowBytes, ArrayRef)>,
}

struct Value {
    hash: u64,
    group: u32,
    chunk: u32,
    row: u32,
}

/// A value that enters or leaves the set for a call.
struct Move {
    value: u32,
    weight: i64,
}

impl Touched {
    /// The number of a row's value, which may be new.
    fn number(&mut self, new: Value, bytes: &RowBytes, calls: usize) -> usize {
        let Touched { index, values, weights, chunks } = self;
        let of = |v: &Value| chunks.get(v.chunk as usize).map_or(bytes, |(held, _)| held).get(v.row as usize);
        let same = |v: &Value| v.hash == new.hash && v.group == new.group && of(v) == bytes.get(new.row as usize);
        match index.entry(new.hash, |i| same(&values[*i as usize]), |i| values[*i as usize].hash) {
            Entry::Occupied(found) => *found.get() as usize,
            Entry::Vacant(vacant) => {
                let number = values.len();
                vacant.insert(number as u32);
                values.push(new);
                weights.resize(weights.len() + calls, 0);
                number
            }
        }
    }
}

impl Set {
    /// One set for each argument that is counted once.
    pub fn of(calls: &[Call], append_only: bool) -> Result<Vec<Set>> {
        let mut sets: Vec<Set> = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            let Some(argument) = call.plan.argument.filter(|_| call.distinct()) else { continue };
            match sets.iter_mut().find(|s| s.argument == argument) {
                Some(set) => set.calls.push(number),
                None => sets.push(Set { argument, codec: call.value_codec()?, calls: vec![number], append_only }),
            }
        }
        Ok(sets)
    }

    /// Takes in a chunk.
    pub fn gather(&self, touched: &mut Touched, batch: &RecordBatch, routes: &Routes<'_>, calls: &[Call]) -> Result<()> {
        let column = normalize(batch.column(self.argument));
        let hashes = hash_columns(std::slice::from_ref(&column), batch.num_rows())?;
        let bytes = RowBytes::new(&self.codec, std::slice::from_ref(&column))?;
        let masks = self.calls.iter().map(|c| selected(&calls[*c], batch)).collect::<Vec<_>>();
        let chunk = touched.chunks.len() as u32;
        for (row, group) in routes.groups.iter().enumerate() {
            let mut at = None;
            for (call, mask) in masks.iter().enumerate() {
                if mask.as_ref().is_none_or(|m| m.value(row)) {
                    let value = || Value { hash: mix(hashes[row] ^ u64::from(*group)), group: *group, chunk, row: row as u32 };
                    let number = *at.get_or_insert_with(|| touched.number(value(), &bytes, masks.len()));
                    touched.weights[number * masks.len() + call] += routes.weight(row);
                }
            }
        }
        touched.chunks.push((bytes, column));
        Ok(())
    }

    /// Where the epoch's values are kept.
    pub fn places<'a>(&self, number: u16, touched: &'a Touched, groups: &'a Interner) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        touched.values.iter().map(move |value| {
            let mut place = Vec::new();
            place_prefix(&mut place, groups.get(value.group as usize), number);
            place.extend_from_slice(touched.chunks[value.chunk as usize].0.get(value.row as usize));
            place
        })
    }

    /// All chunks are in: brings the set up to date, and tells the calls' `partials` what enters or leaves it.
    /// `number` tells this set from the operator's others.
    pub fn settle(
        &self,
        number: u16,
        touched: &Touched,
        groups: &Interner,
        seen: &mut KeyedState<Counts>,
        calls: &[Call],
        partials: &mut [Partial],
    ) -> Result<()> {
        let (mut place, mut moves) = (Vec::new(), self.calls.iter().map(|_| Vec::new()).collect::<Vec<_>>());
        for (i, (value, weights)) in touched.values.iter().zip(touched.weights.chunks_exact(self.calls.len())).enumerate() {
            place_prefix(&mut place, groups.get(value.group as usize), number);
            place.extend_from_slice(touched.chunks[value.chunk as usize].0.get(value.row as usize));
            let known = |held: &Counts| weights.iter().zip(&held.0).all(|(w, c)| *w == 0 || (self.append_only && *c > 0));
            if weights.iter().all(|w| *w == 0) || seen.get(&place).is_some_and(known) {
                continue;
            }
            let held = seen.get_or_insert_with(&place, || Counts(vec![0; weights.len()].into()));
            for ((count, weight), moves) in held.0.iter_mut().zip(weights).zip(&mut moves) {
                let before = *count > 0;
                *count += weight;
                if before != (*count > 0) {
                    moves.push(Move { value: i as u32, weight: if before { -1 } else { 1 } });
                }
            }
            if held.0.iter().all(|c| *c == 0) {
                seen.remove(&place);
            }
        }
        for (call, moves) in self.calls.iter().zip(moves) {
            let value = |m: &Move| &touched.values[m.value as usize];
            for moves in moves.chunk_by(|a, b| value(a).chunk == value(b).chunk) {
                let rows = UInt32Array::from_iter_values(moves.iter().map(|m| value(m).row));
                let argument = take(&touched.chunks[value(&moves[0]).chunk as usize].1, &rows, None)?;
                let (groups, weights): (Vec<_>, Vec<_>) = moves.iter().map(|m| (value(m).group, m.weight)).unzip();
                partials[*call].take_in(&calls[*call], &Routes { groups: &groups, weights: Some(&weights) }, Some(&argument), None)?;
            }
        }
        Ok(())
    }
}
