//! Operator state against ordered maps, through freezing and loading.

use std::collections::{BTreeMap, BTreeSet};

use super::support::Random;
use crate::{Entries, KeyedState, MultiState, RowForm, SortedState, StateTable};

type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

/// Takes what a table freezes, in slices between its changes, and compares each generation with what the table held when it
/// was sealed.
#[derive(Default)]
struct Checkpoints {
    stored: Stored,
    /// What is to be in there when the generation has been drained.
    expected: Option<Stored>,
    /// Keys of this generation.
    seen: BTreeSet<Vec<u8>>,
    early: usize,
    /// Makes of what is stored what is expected, where many forms say the same.
    read: Option<fn(&Stored) -> Stored>,
}

impl Checkpoints {
    /// Goes on a little, or not.
    fn step(&mut self, random: &mut Random, table: &mut dyn StateTable, form: impl FnOnce() -> Stored) {
        if self.expected.is_none() {
            if random.below(100) == 0 {
                table.seal();
                self.expected = Some(form());
            }
        } else if random.below(8) == 0 {
            let max = 1 + random.below(30) as usize;
            self.drain(table, max);
        }
    }

    fn drain(&mut self, table: &mut dyn StateTable, max: usize) {
        let Some(entries) = table.drain(max) else {
            let stored = self.read.map_or_else(|| self.stored.clone(), |read| read(&self.stored));
            assert_eq!(Some(stored), self.expected);
            (self.expected, self.seen) = (None, BTreeSet::new());
            return;
        };
        self.early += entries.len().saturating_sub(max);
        for (key, value) in entries.iter() {
            assert!(self.seen.insert(key.to_vec()), "a key comes once");
            match value {
                Some(value) => drop(self.stored.insert(key.to_vec(), value.to_vec())),
                None => assert!(self.stored.remove(key).is_some(), "only what is stored is deleted"),
            }
        }
    }

    /// Everything, up to now.
    fn finish(&mut self, table: &mut dyn StateTable, form: impl FnOnce() -> Stored) {
        while self.expected.is_some() {
            self.drain(table, 1000);
        }
        table.seal();
        self.expected = Some(form());
        while self.expected.is_some() {
            self.drain(table, 1000);
        }
        let mut entries = Entries::new();
        table.freeze(&mut entries);
        assert!(entries.is_empty(), "nothing has changed since");
    }

    fn load(&self, table: &mut dyn StateTable) {
        for (key, value) in &self.stored {
            table.load(key, value).unwrap();
        }
    }
}

fn stored_form(model: &BTreeMap<Vec<u8>, i64>) -> Stored {
    model.iter().map(|(k, v)| (k.clone(), v.to_le_bytes().to_vec())).collect()
}

/// What a table of these rows alone would store, if they were not numbered.
pub(super) fn stored_rows(model: &BTreeMap<(Vec<u8>, Vec<u8>), i64>) -> Stored {
    let (mut table, mut entries) = (MultiState::new(RowForm::Itself), Entries::new());
    model.iter().for_each(|((key, row), weight)| table.add(key, row, *weight));
    table.freeze(&mut entries);
    entries.iter().map(|(k, v)| (k.to_vec(), v.unwrap().to_vec())).collect()
}

/// The same of stored rows with numbers, of which no two of a key may be the same.
pub(super) fn without_numbers(stored: &Stored) -> Stored {
    let mut table = MultiState::new(RowForm::Numbered);
    stored.iter().for_each(|(key, value)| table.load(key, value).unwrap());
    assert_eq!(table.len(), stored.len());
    stored_rows(&table.iter().map(|(key, row, weight)| ((key.to_vec(), row.to_vec()), weight)).collect())
}

fn key(random: &mut Random, distinct: u64) -> Vec<u8> {
    let n = random.below(distinct);
    let mut key = vec![n as u8];
    key.extend_from_slice(n.to_string().repeat(1 + (n % 12) as usize).as_bytes());
    key
}

#[test]
fn keyed_state_agrees_with_a_map() {
    let mut random = Random(7);
    let mut table = KeyedState::<i64>::new();
    let (mut model, mut stored) = (BTreeMap::new(), Checkpoints::default());
    for step in 0..40_000i64 {
        let k = key(&mut random, 500);
        match random.below(6) {
            0 => assert_eq!(table.remove(&k), model.remove(&k)),
            1 => assert_eq!(table.insert(&k, step), model.insert(k, step)),
            2 => {
                *table.get_or_insert_with(&k, || 10) += 1;
                *model.entry(k).or_insert(10) += 1;
            }
            3 => {
                if let Some(value) = table.get_mut(&k) {
                    *value -= 1;
                    *model.get_mut(&k).unwrap() -= 1;
                }
            }
            _ => assert_eq!(table.get(&k), model.get(&k)),
        }
        assert_eq!(table.len(), model.len());
        stored.step(&mut random, &mut table, || stored_form(&model));
        if random.below(2000) == 0 {
            stored.finish(&mut table, || stored_form(&model));
            assert_eq!(table.iter().map(|(k, v)| (k.to_vec(), *v)).collect::<BTreeMap<_, _>>(), model);
            table = KeyedState::new();
            stored.load(&mut table);
        }
    }
    assert_eq!(table.stats().rows, model.len() as u64);
    assert!(stored.early > 0, "entries were changed before their turn");
}

#[test]
fn sorted_state_agrees_with_a_map() {
    let mut random = Random(8);
    let mut table = SortedState::<i64>::new();
    let (mut model, mut stored) = (BTreeMap::new(), Checkpoints::default());
    for step in 0..30_000i64 {
        let k = key(&mut random, 400);
        match random.below(6) {
            0 | 1 => assert_eq!(table.remove(&k), model.remove(&k)),
            2 => assert_eq!(table.insert(&k, step), model.insert(k, step)),
            3 => {
                if let Some(value) = table.get_mut(&k) {
                    *value -= 1;
                    *model.get_mut(&k).unwrap() -= 1;
                }
            }
            4 => {
                let prefix = &k[..(1 + random.below(2) as usize).min(k.len())];
                let expected = model.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.as_slice(), v));
                assert!(table.range(prefix).eq(expected.clone()));
                assert!(table.range(prefix).rev().eq(expected.rev()));
            }
            _ => assert_eq!(table.get(&k), model.get(&k)),
        }
        assert_eq!(table.len(), model.len());
        stored.step(&mut random, &mut table, || stored_form(&model));
        if random.below(2000) == 0 {
            stored.finish(&mut table, || stored_form(&model));
            table = SortedState::new();
            stored.load(&mut table);
        }
    }
    assert!(table.range(&[0xff, 0xff]).next().is_none());
    assert_eq!(table.range(&[]).count(), model.len());
}

#[test]
fn multi_state_agrees_with_a_map() {
    multi_state(RowForm::Numbered, Checkpoints { read: Some(without_numbers), ..Checkpoints::default() });
}

#[test]
fn multi_state_of_earlier_formats_agrees_with_a_map() {
    multi_state(RowForm::Itself, Checkpoints::default());
}

fn multi_state(form: RowForm, mut stored: Checkpoints) {
    let mut random = Random(9);
    let mut table = MultiState::new(form);
    let mut model = BTreeMap::<(Vec<u8>, Vec<u8>), i64>::new();
    for _ in 0..60_000 {
        // Few keys have many rows, many have few.
        let k = if random.below(2) == 0 { vec![1, 1] } else { key(&mut random, 200) };
        let row = random.below(if k.len() == 2 { 90 } else { 3 });
        let row = row.to_string().repeat(1 + (row % 9) as usize).into_bytes();
        let old = model.get(&(k.clone(), row.clone())).copied().unwrap_or(0);
        let weight = if random.below(2) == 0 { -old } else { random.below(5) as i64 - 2 };
        table.add(&k, &row, weight);
        model.insert((k.clone(), row.clone()), old + weight);
        model.retain(|_, w| *w != 0);
        assert_eq!(table.weight(&k, &row), old + weight);
        assert_eq!(table.len(), model.len());
        if random.below(100) == 0 {
            let of_key = || model.iter().filter(|((key, _), _)| *key == k).map(|((_, row), w)| (row.clone(), *w));
            assert_eq!(table.rows(&k).map(|(r, w)| (r.to_vec(), w)).collect::<BTreeMap<_, _>>(), of_key().collect());
            assert_eq!(table.total(&k), of_key().map(|(_, w)| w).sum::<i64>());
        }
        stored.step(&mut random, &mut table, || stored_rows(&model));
        if random.below(3000) == 0 {
            stored.finish(&mut table, || stored_rows(&model));
            assert_eq!(table.iter().map(|(k, r, w)| ((k.to_vec(), r.to_vec()), w)).collect::<BTreeMap<_, _>>(), model);
            table = MultiState::new(form);
            stored.load(&mut table);
        }
    }
}

/// Rows that come and go for ever need no more numbers than there ever were rows at once.
#[test]
fn numbers_are_given_again() {
    let mut table = MultiState::new(RowForm::Numbered);
    for round in 0..1000u32 {
        for row in 0..3 {
            table.add(b"\x07k", &(3 * round + row).to_be_bytes(), 1);
        }
        let mut entries = Entries::new();
        table.freeze(&mut entries);
        let greatest = entries.iter().filter_map(|(key, _)| key.last_chunk().copied().map(u32::from_be_bytes)).max();
        assert!(greatest < Some(6), "{greatest:?}");
        for row in 0..3 {
            table.add(b"\x07k", &(3 * round + row).to_be_bytes(), -1);
        }
    }
}

/// A hundred thousand keys cost what the design promises.
#[test]
fn keyed_state_is_small() {
    let mut table = KeyedState::<i64>::new();
    for i in 0..100_000u64 {
        let mut key = vec![i as u8, 1];
        key.extend_from_slice(&i.to_be_bytes());
        table.insert(&key, 1);
    }
    let per_key = table.stats().bytes / 100_000;
    assert!(per_key <= 100, "{per_key} bytes per key");
}
