//! State with one value per key: groups of an aggregate, rows seen, positions.

use super::slab::{Place, Slab};
use super::{Entries, Generations, Mark, StateTable, StateValue, TableStats};
use millpond_common::Result;

/// A hash map from key bytes (first byte: virtual node) to values, which knows what has changed.
pub struct KeyedState<V> {
    slab: Slab<Entry<V>>,
    changes: Generations<Place>,
    /// Entries that have a value.
    live: usize,
}

struct Entry<V> {
    /// `None`: removed, but the checkpoint still has it; leaves when that is encoded.
    value: Option<V>,
    mark: Mark,
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
        KeyedState { slab: Slab::new(), changes: Generations::new(), live: 0 }
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
                let place = self.slab.insert(key, Entry { value: None, mark: self.changes.open, stored: false });
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
        if !entry.stored {
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
        let mut out = std::mem::take(&mut self.changes.early);
        for _ in 0..max {
            let Some(place) = self.changes.sealed.pop() else { break };
            let Some((key, entry)) = self.slab.entry_mut(place).filter(|(_, e)| self.changes.is_sealed(e.mark)) else { continue };
            entry.encode(key, &mut out);
            if entry.value.is_none() {
                self.slab.remove(place);
            }
        }
        (!out.is_empty() || !self.changes.sealed.is_empty()).then_some(out)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let value = V::decode(value)?;
        self.slab.insert(key, Entry { value: Some(value), mark: Mark::Clean, stored: true });
        self.live += 1;
        Ok(())
    }

    fn stats(&self) -> TableStats {
        let heap = sampled(self.len(), self.iter().map(|(_, v)| v.bytes().saturating_sub(size_of::<V>())));
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
