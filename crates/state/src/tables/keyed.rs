//! State with one value per key: groups of an aggregate, rows seen, positions.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::slab::{Place, Slab};
use super::stored::{Evicted, Spill, StoredTable};
use super::{Entries, Generations, Mark, StateTable, StateValue, TableStats};
use crate::ahead::{AHEAD, look};
use millpond_common::Result;

/// A hash map from key bytes (first byte: virtual node) to values, which knows what has changed. Where entries have been evicted,
/// all but [`fetch`](Self::fetch) sees what is in memory alone.
pub struct KeyedState<V> {
    slab: Slab<Entry<V>>,
    changes: Generations<Place>,
    /// Entries that have a value.
    live: usize,
    spill: Spill,
}

struct Entry<V> {
    /// `None`: removed, but the checkpoint still has it; leaves when that is encoded, or later where entries may be evicted.
    value: Option<V>,
    mark: Mark,
    /// It was fetched since it was last looked at for eviction.
    used: bool,
    /// The checkpoint has (or is about to get) a value for this key.
    stored: bool,
}

impl<V: StateValue> Entry<V> {
    /// The entry is about to change: it belongs to the open generation from now on.
    #[inline]
    fn touch(&mut self, changes: &mut Generations<Place>, place: Place, key: &[u8]) {
        if self.mark == changes.open {
            return;
        }
        if changes.is_sealed(self.mark) {
            self.encode(key, &mut changes.early);
        }
        self.mark = changes.open;
        changes.touched.push(place);
    }

    fn encode(&mut self, key: &[u8], out: &mut Entries) {
        self.mark = Mark::Clean;
        self.stored = self.value.is_some();
        match &self.value {
            Some(value) => out.put(|out| out.extend_from_slice(key), |out| value.encode(out)),
            None => out.delete(|out| out.extend_from_slice(key)),
        }
    }
}

impl<V: StateValue> KeyedState<V> {
    /// An empty table.
    pub fn new() -> Self {
        KeyedState { slab: Slab::new(), changes: Generations::new(), live: 0, spill: Spill::default() }
    }

    /// Makes sure that the values of these keys are in memory; to be called for all that is about to be asked for.
    pub fn fetch<'k>(&mut self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<()> {
        let Some(stored) = self.spill.beyond() else { return Ok(()) };
        let mut missing = Vec::new();
        for key in keys {
            match self.slab.find(key).and_then(|place| self.slab.get_mut(place)) {
                Some(entry) => entry.used = true,
                None => missing.push(key),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        stored.get(&missing, &mut |key, value| self.load(key, value))
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.slab.get(self.slab.find(key)?)?.value.as_ref()
    }

    /// The value of a key, to change it: it counts as changed.
    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let place = self.slab.find(key)?;
        let entry = self.slab.get_mut(place)?;
        if entry.value.is_some() {
            entry.touch(&mut self.changes, place, key);
        }
        entry.value.as_mut()
    }

    /// The value of a key, to change it; made by `default` if there is none. It counts as changed.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: &[u8], default: impl FnOnce() -> V) -> &mut V {
        let place = match self.slab.find(key) {
            Some(place) => place,
            None => {
                let place = self.slab.insert(key, Entry { value: None, mark: self.changes.open, used: true, stored: false });
                self.changes.touched.push(place);
                place
            }
        };
        let entry = self.slab.get_mut(place).expect("this place was found or filled above");
        entry.touch(&mut self.changes, place, key);
        if entry.value.is_none() {
            self.live += 1;
        }
        entry.value.get_or_insert_with(default)
    }

    /// Sets the value of a key; gives back the one before.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let mut fresh = Some(value);
        let slot = self.get_or_insert_with(key, || fresh.take().expect("called once"));
        fresh.map(|value| std::mem::replace(slot, value))
    }

    /// Removes a key; gives back its value.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let place = self.slab.find(key)?;
        let entry = self.slab.get_mut(place)?;
        entry.value.as_ref()?;
        entry.touch(&mut self.changes, place, key);
        let value = entry.value.take()?;
        self.live -= 1;
        if !entry.stored && !self.spill.partial {
            self.slab.remove(place);
        }
        Some(value)
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.slab.iter().filter_map(|(key, entry)| Some((key, entry.value.as_ref()?)))
    }
}

impl<V: StateValue> Default for KeyedState<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: StateValue> StateTable for KeyedState<V> {
    fn seal(&mut self) {
        self.changes.seal();
    }

    fn drain(&mut self, max: usize) -> Option<Entries> {
        let mut out = self.changes.begin_piece(max);
        for number in 0..max {
            if number % AHEAD == 0 {
                let value = |place: &Place| Some(self.slab.get(*place)?.value.as_ref()?.bytes());
                look(self.changes.sealed.iter().rev().take(AHEAD).map(value));
            }
            let Some(place) = self.changes.sealed.pop() else { break };
            let Some((key, entry)) = self.slab.entry_mut(place).filter(|(_, e)| self.changes.is_sealed(e.mark)) else { continue };
            entry.encode(key, &mut out);
            if entry.value.is_none() && !self.spill.partial {
                self.slab.remove(place);
            }
        }
        self.changes.end_piece(out)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let value = V::decode(value)?;
        self.slab.insert(key, Entry { value: Some(value), mark: Mark::Clean, used: true, stored: true });
        self.live += 1;
        Ok(())
    }

    fn attach(&mut self, stored: Rc<dyn StoredTable>, partial: bool) {
        self.spill.attach(stored, partial);
    }

    fn is_partial(&self) -> bool {
        self.spill.partial
    }

    fn warm(&mut self, max: usize) -> Result<bool> {
        let Some((stored, from)) = self.spill.warm_from() else { return Ok(true) };
        let (mut rows, mut next) = (0, None);
        stored.walk(&from, &mut |key, value| {
            if rows >= max {
                next = Some(key.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            rows += 1;
            if self.slab.find(key).is_none() {
                self.load(key, value)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(self.spill.warmed(next))
    }

    fn evict(&mut self, visits: usize) -> Evicted {
        let mut evicted = Evicted::default();
        for _ in 0..visits {
            let Some(place) = self.spill.next_place(self.slab.slots()) else {
                evicted.wrapped = true;
                break;
            };
            let Some((key, entry)) = self.slab.entry_mut(place).filter(|(_, e)| e.mark == Mark::Clean) else { continue };
            if std::mem::take(&mut entry.used) {
                continue;
            }
            evicted.bytes += Slab::<Entry<V>>::bytes_of(key) + entry.value.as_ref().map_or(0, |v| v.bytes().saturating_sub(size_of::<V>()));
            self.live -= usize::from(entry.value.is_some());
            self.slab.remove(place);
            self.spill.left();
        }
        let changes = &mut self.changes;
        self.slab.shrink(|place, entry| {
            if entry.mark == changes.open {
                changes.touched.push(place)
            }
        });
        evicted
    }

    fn stats(&self) -> TableStats {
        let values = self.slab.sample().filter_map(|entry| entry.value.as_ref());
        let heap = sampled(self.len(), values.map(|v| v.bytes().saturating_sub(size_of::<V>())));
        TableStats { rows: self.len() as u64, bytes: (self.slab.bytes() + heap) as u64 }
    }
}

/// A sum over `count` items, extrapolated from the first few.
pub(super) fn sampled(count: usize, items: impl Iterator<Item = usize>) -> usize {
    const SAMPLE: usize = 64;
    let (mut seen, mut sum) = (0, 0);
    for item in items.take(SAMPLE) {
        seen += 1;
        sum += item;
    }
    (sum * count).checked_div(seen).unwrap_or(0)
}
