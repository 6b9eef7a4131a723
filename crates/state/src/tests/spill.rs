//! State tables of which only a part is in memory, against ordered maps: entries are evicted, fetched and warmed while checkpoints are on their
//! way, and nobody can tell.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use millpond_common::{Result, StateTableId};

use super::support::{Random, open};
use super::tables::{stored_rows, without_numbers};
use crate::{
    Checkpoint, Entries, FrozenTable, KeyedState, MultiState, RowForm, SortedState, StateTable, StoredTable, TableLookup, Take, Walk,
};

/// What the newest checkpoint holds.
#[derive(Clone, Default)]
struct Committed(Rc<RefCell<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl StoredTable for Committed {
    fn get(&self, keys: &[&[u8]], take: &mut Take<'_>) -> Result<()> {
        assert!(keys.is_sorted());
        let map = self.0.borrow();
        keys.iter().filter_map(|key| map.get_key_value(*key)).try_for_each(|(key, value)| take(key, value))
    }

    fn prefixes(&self, prefixes: &[Vec<u8>], take: &mut Take<'_>) -> Result<()> {
        assert!(prefixes.is_sorted());
        let map = self.0.borrow();
        prefixes.iter().flat_map(|p| map.iter().filter(|(k, _)| k.starts_with(p))).try_for_each(|(key, value)| take(key, value))
    }

    fn walk(&self, from: &[u8], walk: &mut Walk<'_>) -> Result<bool> {
        for (key, value) in self.0.borrow().range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if walk(key, value)? == ControlFlow::Break(()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Checkpoints that take their time, and what may happen between them.
#[derive(Default)]
struct Life {
    committed: Committed,
    /// Sealed, and still being drained.
    draining: bool,
    /// Drained, and not committed yet.
    pending: Option<Entries>,
    evicted: usize,
    warmed: usize,
    restarts: usize,
}

impl Life {
    /// `fresh`: a new table; what is in the old one and not committed is lost then, so only when all is.
    fn step<T: StateTable>(&mut self, random: &mut Random, table: &mut T, fresh: impl FnOnce() -> T) {
        match random.below(20) {
            0 if !self.draining && self.pending.is_none() => {
                table.seal();
                (self.draining, self.pending) = (true, Some(Entries::new()));
            }
            1..6 if self.draining => match table.drain(1 + random.below(20) as usize) {
                Some(entries) => self.pending.as_mut().unwrap().append(entries),
                None => self.draining = false,
            },
            6 if !self.draining => self.commit(),
            7 | 8 if !self.draining && self.pending.is_none() => self.evicted += table.evict(1 + random.below(60) as usize).bytes,
            9 => self.warmed += usize::from(table.warm(1 + random.below(10) as usize).unwrap()),
            10 if random.below(40) == 0 => {
                self.finish(table);
                *table = fresh();
                table.attach(Rc::new(self.committed.clone()), true);
                self.restarts += 1;
            }
            _ => {}
        }
    }

    fn commit(&mut self) {
        for (key, value) in self.pending.take().iter().flat_map(Entries::iter) {
            match value {
                Some(value) => drop(self.committed.0.borrow_mut().insert(key.to_vec(), value.to_vec())),
                None => drop(self.committed.0.borrow_mut().remove(key)),
            }
        }
    }

    fn finish(&mut self, table: &mut impl StateTable) {
        if self.draining {
            self.pending.get_or_insert_default().append(std::iter::from_fn(|| table.drain(100)).fold(Entries::new(), appended));
            self.draining = false;
        }
        self.commit();
        let mut rest = Entries::new();
        table.freeze(&mut rest);
        self.pending = Some(rest);
        self.commit();
    }

    fn end(&mut self, table: &mut impl StateTable) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.finish(table);
        assert!(self.evicted > 0 && self.warmed > 0 && self.restarts > 3, "{} {} {}", self.evicted, self.warmed, self.restarts);
        self.committed.0.borrow().clone()
    }
}

fn appended(mut all: Entries, more: Entries) -> Entries {
    all.append(more);
    all
}

fn key(random: &mut Random, distinct: u64) -> Vec<u8> {
    let n = random.below(distinct);
    [&[n as u8], n.to_string().repeat(1 + (n % 12) as usize).as_bytes()].concat()
}

#[test]
fn keyed_state_may_be_elsewhere() {
    let (mut random, mut life) = (Random(21), Life::default());
    let mut table = KeyedState::<i64>::new();
    table.attach(Rc::new(life.committed.clone()), false);
    let mut model = BTreeMap::new();
    for step in 0..150_000i64 {
        let keys = (0..random.below(4)).map(|_| key(&mut random, 300)).collect::<Vec<_>>();
        table.fetch(keys.iter().map(Vec::as_slice)).unwrap();
        for k in keys {
            match random.below(5) {
                0 => assert_eq!(table.remove(&k), model.remove(&k)),
                1 => assert_eq!(table.insert(&k, step), model.insert(k, step)),
                2 => {
                    *table.get_or_insert_with(&k, || 10) += 1;
                    *model.entry(k).or_insert(10) += 1;
                }
                _ => assert_eq!(table.get(&k), model.get(&k)),
            }
        }
        life.step(&mut random, &mut table, KeyedState::new);
    }
    assert_eq!(life.end(&mut table), model.iter().map(|(k, v)| (k.clone(), v.to_le_bytes().to_vec())).collect());
}

#[test]
fn sorted_state_may_be_elsewhere() {
    let (mut random, mut life) = (Random(22), Life::default());
    let mut table = SortedState::<i64>::new();
    table.attach(Rc::new(life.committed.clone()), false);
    let mut model = BTreeMap::new();
    for step in 0..150_000i64 {
        let k = key(&mut random, 400);
        let prefix = &k[..(1 + random.below(2) as usize).min(k.len())];
        if random.below(3) == 0 {
            table.fetch([prefix]).unwrap();
            let expected = model.iter().filter(|(k, _): &(&Vec<u8>, _)| k.starts_with(prefix)).map(|(k, v)| (k.as_slice(), v));
            assert!(table.range(prefix).eq(expected));
            match random.below(3) {
                0 => assert_eq!(table.remove(&k), model.remove(&k)),
                1 => assert_eq!(table.insert(&k, step), model.insert(k, step)),
                _ => assert_eq!(table.get(&k), model.get(&k)),
            }
        }
        life.step(&mut random, &mut table, SortedState::new);
    }
    assert_eq!(life.end(&mut table), model.iter().map(|(k, v)| (k.clone(), v.to_le_bytes().to_vec())).collect());
}

#[test]
fn multi_state_may_be_elsewhere() {
    let (model, stored) = multi_state(RowForm::Numbered);
    assert_eq!(without_numbers(&stored), stored_rows(&model));
}

#[test]
fn multi_state_of_earlier_formats_may_be_elsewhere() {
    let (model, stored) = multi_state(RowForm::Itself);
    assert_eq!(stored, stored_rows(&model));
}

type Rows = BTreeMap<(Vec<u8>, Vec<u8>), i64>;

/// The rows, and what is stored of them, after a life.
fn multi_state(form: RowForm) -> (Rows, BTreeMap<Vec<u8>, Vec<u8>>) {
    let (mut random, mut life) = (Random(23), Life::default());
    let mut table = MultiState::new(form);
    table.attach(Rc::new(life.committed.clone()), false);
    let mut model = Rows::new();
    for _ in 0..50_000 {
        let k = if random.below(6) == 0 { vec![1, 1] } else { key(&mut random, 150) };
        table.fetch([k.as_slice()]).unwrap();
        let row = random.below(if k.len() == 2 { 60 } else { 3 }).to_string().into_bytes();
        let old = model.get(&(k.clone(), row.clone())).copied().unwrap_or(0);
        let weight = if random.below(2) == 0 { -old } else { random.below(5) as i64 - 2 };
        table.add(&k, &row, weight);
        model.insert((k.clone(), row.clone()), old + weight);
        model.retain(|_, w| *w != 0);
        let of_key = || model.iter().filter(|((key, _), _)| *key == k).map(|((_, row), w)| (row.clone(), *w));
        assert_eq!(table.rows(&k).map(|(r, w)| (r.to_vec(), w)).collect::<BTreeMap<_, _>>(), of_key().collect());
        assert_eq!(table.total(&k), of_key().map(|(_, w)| w).sum::<i64>());
        life.step(&mut random, &mut table, || MultiState::new(form));
    }
    (model, life.end(&mut table))
}

/// The store's tables, by worker.
#[test]
fn a_checkpoint_is_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let entry = |i: u32| (vec![(i % 256) as u8, (i / 256) as u8], i.to_string().into_bytes());
    let entries = (0..2000).map(entry).map(|(k, v)| (k, Some(v))).collect();
    let table = StateTableId(7);
    let frozen = vec![FrozenTable { table, entries }];
    store.commit(Checkpoint { epoch: 1, log_seq: 0, meta: vec![], frozen }).unwrap();
    let lookup = TableLookup::new(&store, table, 128..256);
    let mut found = Vec::new();
    let keys = [entry(128).0, entry(200).0, vec![200, 99], entry(255 + 256).0];
    let refs = keys.iter().map(Vec::as_slice).collect::<Vec<_>>();
    lookup
        .get(&refs, &mut |k, v| {
            found.push((k.to_vec(), v.to_vec()));
            Ok(())
        })
        .unwrap();
    assert_eq!(found, [entry(128), entry(200), entry(511)]);

    found.clear();
    lookup
        .prefixes(&[vec![130], vec![140, 3]], &mut |k, v| {
            found.push((k.to_vec(), v.to_vec()));
            Ok(())
        })
        .unwrap();
    assert_eq!(found, (0..8).map(|i| entry(130 + i * 256)).filter(|(k, _)| k[1] < 8).chain([entry(140 + 3 * 256)]).collect::<Vec<_>>());

    let (mut walked, mut from) = (BTreeSet::new(), Vec::new());
    loop {
        let (mut left, mut next) = (100, None);
        let more = lookup.walk(&from, &mut |k, _| {
            if left == 0 {
                next = Some(k.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            left -= 1;
            assert!(walked.insert(k.to_vec()));
            Ok(ControlFlow::Continue(()))
        });
        assert_eq!(more.unwrap(), next.is_some());
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(walked, (0..2000).map(|i| entry(i).0).filter(|k| k[0] >= 128).collect());

    store.state_remove(&[table]).unwrap();
    lookup.get(&refs, &mut |_, _| panic!("it is about to be deleted")).unwrap();
}
