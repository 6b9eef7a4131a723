//! State with one value per key, in key order: ranks, timers, windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::bytes::SmallBytes;
use super::keyed::sampled;
use super::{Entries, Generations, Mark, StateTable, StateValue, TableStats};
use millpond_common::Result;

/// An ordered map from key bytes (first byte: virtual node) to values, which knows what has changed.
pub struct SortedState<V> {
    map: BTreeMap<SmallBytes, Entry<V>>,
    changes: Generations<SmallBytes>,
    /// Removed keys that the checkpoint still has. Apart from `map`, so that ranges do not wade through them.
    removed: BTreeSet<SmallBytes>,
    /// Those of the sealed generation.
    sealed_removed: BTreeSet<SmallBytes>,
    heap_bytes: usize,
}

struct Entry<V> {
    value: V,
    mark: Mark,
    /// The checkpoint has (or is about to get) a value for this key.
    stored: bool,
}

impl<V: StateValue> Entry<V> {
    /// The entry is about to change: it belongs to the open generation from now on.
    fn touch(&mut self, changes: &mut Generations<SmallBytes>, key: &[u8]) {
        if self.mark == changes.open {
            return;
        }
        if changes.is_sealed(self.mark) {
            self.encode(key, &mut changes.early);
        }
        self.mark = changes.open;
        changes.touched.push(SmallBytes::new(key));
    }

    fn encode(&mut self, key: &[u8], out: &mut Entries) {
        self.mark = Mark::Clean;
        self.stored = true;
        out.put(|out| out.extend_from_slice(key), |out| self.value.encode(out));
    }
}

impl<V: StateValue> SortedState<V> {
    /// An empty table.
    pub fn new() -> Self {
        let (removed, sealed_removed) = (BTreeSet::new(), BTreeSet::new());
        SortedState { map: BTreeMap::new(), changes: Generations::new(), removed, sealed_removed, heap_bytes: 0 }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.map.get(key).map(|e| &e.value)
    }

    /// The value of a key, to change it: it counts as changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let entry = self.map.get_mut(key)?;
        entry.touch(&mut self.changes, key);
        Some(&mut entry.value)
    }

    /// Sets the value of a key; gives back the one before.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        if let Some(slot) = self.get_mut(key) {
            return Some(std::mem::replace(slot, value));
        }
        let stored = self.removed.remove(key);
        let key = SmallBytes::new(key);
        self.heap_bytes += key.heap_bytes();
        self.changes.touched.push(key.clone());
        self.map.insert(key, Entry { value, mark: self.changes.open, stored });
        None
    }

    /// Removes a key; gives back its value.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let (key, mut entry) = self.map.remove_entry(key)?;
        if self.changes.is_sealed(entry.mark) {
            entry.encode(key.as_slice(), &mut self.changes.early);
        }
        self.heap_bytes -= key.heap_bytes();
        if entry.stored {
            self.removed.insert(key);
        }
        Some(entry.value)
    }

    /// All keys that start with `prefix`, ascending (or from the back, descending).
    pub fn range(&self, prefix: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], &V)> {
        let end = successor(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.between(Bound::Included(prefix), end)
    }

    /// All keys between two bounds, ascending. The lower bound must not lie above the upper one.
    pub fn between(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> impl DoubleEndedIterator<Item = (&[u8], &V)> + use<'_, V> {
        self.map.range::<[u8], _>((lower, upper)).map(|(k, e)| (k.as_slice(), &e.value))
    }

    /// All keys and values, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &V)> {
        self.map.iter().map(|(k, e)| (k.as_slice(), &e.value))
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl<V: StateValue> Default for SortedState<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The first byte string after all that start with `prefix`; `None` if there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

impl<V: StateValue> StateTable for SortedState<V> {
    fn seal(&mut self) {
        self.changes.seal();
        std::mem::swap(&mut self.removed, &mut self.sealed_removed);
    }

    fn drain(&mut self, max: usize) -> Option<Entries> {
        let mut out = std::mem::take(&mut self.changes.early);
        for _ in 0..max {
            let Some(key) = self.changes.sealed.pop() else { break };
            let entry = self.map.get_mut(key.as_slice()).filter(|e| self.changes.is_sealed(e.mark));
            entry.into_iter().for_each(|e| e.encode(key.as_slice(), &mut out));
        }
        for _ in 0..max {
            let Some(key) = self.sealed_removed.pop_first() else { break };
            out.delete(|out| out.extend_from_slice(key.as_slice()));
        }
        (!out.is_empty() || !self.changes.sealed.is_empty() || !self.sealed_removed.is_empty()).then_some(out)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let key = SmallBytes::new(key);
        self.heap_bytes += key.heap_bytes();
        self.map.insert(key, Entry { value: V::decode(value)?, mark: Mark::Clean, stored: true });
        Ok(())
    }

    fn stats(&self) -> TableStats {
        let heap = sampled(self.len(), self.map.values().map(|e| e.value.bytes().saturating_sub(size_of::<V>())));
        // A B-tree's nodes are about three quarters full.
        let nodes = self.len() * (size_of::<SmallBytes>() + size_of::<Entry<V>>()) * 4 / 3;
        TableStats { rows: self.len() as u64, bytes: (nodes + self.heap_bytes + heap) as u64 }
    }
}
