//! One row per group, with counts, sums, means and extremes of its rows.
//!
//! An epoch's input is first added up per touched group in [`partial`] columns, without looking at state. Then each
//! touched group is visited once: its row as it was, the contributions added, its row as it is; if they differ, the
//! old one goes and the new one comes.

mod call;
mod float_sum;
mod group;
mod partial;
mod result;
mod sets;

use std::cell::RefCell;
use std::rc::Rc;

use arrow_schema::SchemaRef;
use millpond_common::ids::vnode_owner;
use millpond_common::{Delta, Error, Result};
use millpond_plan::AggregateCall;
use millpond_state::{KeyedState, SortedState, StateTable};

use self::call::{Call, Datum, Kind};
use self::group::{Group, Slot};
use self::partial::{Partial, Routes, place_prefix, selected};
use self::result::Results;
use self::sets::{Counts, Set, Touched};
use super::keys::{Interner, KeyCodec, WARM_KEYS};
use super::{EpochContext, Operator, StateHandle};

/// Groups rows and keeps their aggregates.
pub struct Aggregate {
    /// Group key → its state.
    groups: Rc<RefCell<KeyedState<Group>>>,
    /// Group key, call, value → count: for min and max over input that may delete.
    values: Rc<RefCell<SortedState<i64>>>,
    /// Group key, set, value → counts: for DISTINCT.
    seen: Rc<RefCell<KeyedState<Counts>>>,
    /// The keys of `seen` in order, where groups are to be forgotten as a whole.
    members: Option<Rc<RefCell<SortedState<()>>>>,
    keys: KeyCodec,
    calls: Vec<Call>,
    sets: Vec<Set>,
    /// Without group columns there is one group, always.
    global: bool,
    schema: SchemaRef,
}

/// What an epoch's input adds up to.
struct Gathered {
    groups: Interner,
    rows: Vec<i64>,
    partials: Vec<Partial>,
    /// One for each of the operator's sets.
    touched: Vec<Touched>,
}

impl Gathered {
    fn grow(&mut self) {
        self.rows.resize(self.groups.len(), 0);
        self.partials.iter_mut().for_each(|p| p.grow(self.groups.len()));
    }
}

impl Aggregate {
    /// Over rows of `input`, of which `append_only` says that none is ever deleted, and `expires` that groups are forgotten.
    pub fn new(
        group: &[usize],
        calls: &[AggregateCall],
        input: &SchemaRef,
        append_only: bool,
        expires: bool,
        schema: &SchemaRef,
    ) -> Result<Self> {
        if schema.fields().len() != group.len() + calls.len() || calls.len() > usize::from(u16::MAX) {
            return Err(Error::internal("an aggregate's schema does not fit its calls"));
        }
        let outputs = schema.fields().iter().skip(group.len());
        let calls = calls.iter().zip(outputs).map(|(call, field)| Call::new(call, input, append_only, field.data_type()));
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let sets = Set::of(&calls, append_only)?;
        Ok(Aggregate {
            groups: Rc::default(),
            values: Rc::default(),
            seen: Rc::default(),
            members: (expires && append_only && !sets.is_empty()).then(Rc::default),
            keys: KeyCodec::new(input, group)?,
            sets,
            calls,
            global: group.is_empty(),
            schema: SchemaRef::clone(schema),
        })
    }

    fn gather(&self, delta: &Delta, gathered: &mut Gathered) -> Result<()> {
        let keys = self.keys.encode(&delta.batch)?;
        let groups = if self.global {
            gathered.groups.intern(keys.hash(0), keys.get(0));
            vec![0; delta.len()]
        } else {
            (0..delta.len()).map(|i| gathered.groups.intern(keys.hash(i), keys.get(i)) as u32).collect()
        };
        gathered.grow();
        let routes = Routes { groups: &groups, weights: delta.diffs.as_ref().map(|d| &d.values()[..]) };
        match routes.weights {
            Some(weights) => groups.iter().zip(weights).for_each(|(g, w)| gathered.rows[*g as usize] += w),
            None => groups.iter().for_each(|g| gathered.rows[*g as usize] += 1),
        }
        for (call, partial) in self.calls.iter().zip(&mut gathered.partials).filter(|(call, _)| !call.distinct()) {
            let argument = call.plan.argument.map(|c| delta.batch.column(c));
            partial.take_in(call, &routes, argument, selected(call, &delta.batch).as_ref())?;
        }
        for (set, touched) in self.sets.iter().zip(&mut gathered.touched) {
            set.gather(touched, &delta.batch, &routes, &self.calls)?;
        }
        Ok(())
    }

    /// The group's output columns of calls, as its state stands.
    fn results(&self, group: &Group, key: &[u8], values: &SortedState<i64>, place: &mut Vec<u8>, row: &mut Vec<Datum>) -> Result<()> {
        row.clear();
        for (number, (call, slot)) in self.calls.iter().zip(&group.slots).enumerate() {
            place_prefix(place, key, number as u16);
            row.push(call.result(slot, values, place)?);
        }
        Ok(())
    }

    /// Has all state in memory that the epoch is about to touch.
    fn fetch(&self, gathered: &Gathered) -> Result<()> {
        self.groups.borrow_mut().fetch(gathered.groups.iter())?;
        let mut seen = self.seen.borrow_mut();
        for (number, (set, touched)) in self.sets.iter().zip(&gathered.touched).enumerate() {
            if !seen.is_partial() {
                break;
            }
            let places = set.places(number as u16, touched, &gathered.groups).collect::<Vec<_>>();
            seen.fetch(places.iter().map(Vec::as_slice))?;
        }
        let mut values = self.values.borrow_mut();
        for (number, _) in self.calls.iter().enumerate().filter(|(_, call)| call.kind == Kind::Values) {
            if !values.is_partial() {
                break;
            }
            let mut place = Vec::new();
            for group in gathered.groups.iter() {
                place_prefix(&mut place, group, number as u16);
                values.fetch([place.as_slice()])?;
            }
        }
        Ok(())
    }

    fn note_member(&self, place: &[u8]) -> Result<()> {
        let Some(mut members) = self.members.as_ref().map(|m| m.borrow_mut()) else { return Ok(()) };
        members.fetch([place])?;
        if members.get(place).is_none() {
            members.insert(place, ());
        }
        Ok(())
    }

    /// Forgets the values of a group that count once.
    fn forget_members(&self, group: &[u8]) -> Result<()> {
        let Some(mut members) = self.members.as_ref().map(|m| m.borrow_mut()) else { return Ok(()) };
        let mut seen = self.seen.borrow_mut();
        members.fetch([group])?;
        let places = members.range(group).map(|(place, ())| place.to_vec()).collect::<Vec<_>>();
        seen.fetch(places.iter().map(Vec::as_slice))?;
        for place in places {
            seen.remove(&place);
            members.remove(&place);
        }
        Ok(())
    }

    fn settle(&self, mut gathered: Gathered, out: &mut Vec<Delta>) -> Result<()> {
        self.fetch(&gathered)?;
        for (number, (set, touched)) in self.sets.iter().zip(&gathered.touched).enumerate() {
            let seen = &mut self.seen.borrow_mut();
            set.settle(number as u16, touched, &gathered.groups, seen, &self.calls, &mut gathered.partials)?;
            for place in self.members.iter().flat_map(|_| set.places(number as u16, touched, &gathered.groups)) {
                self.note_member(&place)?;
            }
        }
        gathered.partials.iter_mut().for_each(Partial::close);
        let (mut states, mut values) = (self.groups.borrow_mut(), self.values.borrow_mut());
        let mut results = Results::new(&self.keys, &self.calls, &self.schema);
        let (mut place, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..gathered.groups.len() {
            if number % WARM_KEYS == 0 {
                warm(&states, &gathered.groups, number);
            }
            let key = gathered.groups.get(number);
            let state = states.get_or_insert_with(key, || Group::new(&self.calls));
            let was_shown = state.shown;
            if was_shown {
                self.results(state, key, &values, &mut place, &mut before)?;
            }
            state.rows += gathered.rows[number];
            for (call, (partial, slot)) in gathered.partials.iter_mut().zip(&mut state.slots).enumerate() {
                place_prefix(&mut place, key, call as u16);
                partial.apply(number, slot, &mut values, &place)?;
            }
            state.shown = self.global || state.rows > 0;
            let is_shown = state.shown;
            if is_shown {
                self.results(state, key, &values, &mut place, &mut after)?;
            }
            if state.rows == 0 && !is_shown {
                states.remove(key);
            }
            if !(was_shown && is_shown && before == after) {
                if was_shown {
                    results.push(key, &mut before, -1);
                }
                if is_shown {
                    results.push(key, &mut after, 1);
                }
                results.flush_if_full(out)?;
            }
        }
        results.flush(out)
    }
}

/// Reads the next groups' states ahead of their use, see [`WARM_KEYS`].
fn warm(states: &KeyedState<Group>, groups: &Interner, from: usize) {
    let to = (from + WARM_KEYS).min(groups.len());
    let held = (from..to).filter_map(|number| states.get(groups.get(number))?.slots.first());
    std::hint::black_box(held.filter(|slot| matches!(slot, Slot::Values)).count());
}

impl Operator for Aggregate {
    fn state(&self) -> Vec<(&'static str, StateHandle)> {
        let mut tables = vec![
            ("groups", Rc::clone(&self.groups) as StateHandle),
            ("values", Rc::clone(&self.values) as StateHandle),
            ("distinct", Rc::clone(&self.seen) as StateHandle),
        ];
        tables.extend(self.members.iter().map(|members| ("members", Rc::clone(members) as StateHandle)));
        tables
    }

    fn step(&mut self, inputs: Vec<Vec<Delta>>, context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let partials = self.calls.iter().map(Partial::new).collect();
        let touched = self.sets.iter().map(|_| Touched::default()).collect();
        let mut gathered = Gathered { groups: Interner::default(), rows: Vec::new(), partials, touched };
        for delta in inputs.iter().flatten().filter(|d| !d.is_empty()) {
            self.gather(delta, &mut gathered)?;
        }
        if self.global && context.first {
            let (hash, key) = self.keys.empty_key()?;
            if vnode_owner(key[0], context.workers) == context.worker {
                gathered.groups.intern(hash, &key);
                gathered.grow();
            }
        }
        if gathered.groups.is_empty() {
            return Ok(());
        }
        self.settle(gathered, out)
    }

    fn into_output(self: Box<Self>, _context: &EpochContext, out: &mut Vec<Delta>) -> Result<()> {
        let (groups, values) = (self.groups.borrow(), self.values.borrow());
        let mut results = Results::new(&self.keys, &self.calls, &self.schema);
        let (mut place, mut row) = (Vec::new(), Vec::new());
        for (key, group) in groups.iter().filter(|(_, group)| group.shown) {
            self.results(group, key, &values, &mut place, &mut row)?;
            results.push(key, &mut row, 1);
            results.flush_if_full(out)?;
        }
        results.flush(out)
    }
    fn expire(&mut self, keys: &[Vec<u8>], out: &mut Vec<Delta>) -> Result<()> {
        let (mut groups, values) = (self.groups.borrow_mut(), self.values.borrow());
        groups.fetch(keys.iter().map(Vec::as_slice))?;
        let mut results = Results::new(&self.keys, &self.calls, &self.schema);
        let (mut place, mut row) = (Vec::new(), Vec::new());
        for key in keys {
            self.forget_members(key)?;
            let Some(group) = groups.remove(key) else { continue };
            if group.shown {
                self.results(&group, key, &values, &mut place, &mut row)?;
                results.push(key, &mut row, -1);
            }
            if self.global {
                let empty = groups.get_or_insert_with(key, || Group { shown: true, ..Group::new(&self.calls) });
                self.results(empty, key, &values, &mut place, &mut row)?;
                results.push(key, &mut row, 1);
            }
            results.flush_if_full(out)?;
        }
        results.flush(out)
    }
}
