//! State with one value per key, in key order: ranks, timers, windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use super::bytes::SmallBytes;
use super::gaps::Gaps;
use super::keyed::sampled;
use super::stored::{Evicted, StoredTable};
use super::{Entries, Generations, Mark, StateTable, StateValue, TableStats};
use millpond_common::Result;

/// An ordered map from key bytes (first byte: virtual node) to values, which knows what has changed. Where entries have been evicted,
/// all but [`fetch`](Self::fetch) sees what is in memory alone.
pub struct SortedState<V> {
    map: BTreeMap<SmallBytes, Entry<V>>,
    changes: Generations<SmallBytes>,
    /// Removed keys that the checkpoint still has. Apart from `map`, so that ranges do not wade through them.
    removed: BTreeSet<SmallBytes>,
    /// Those of the sealed generation.
    sealed_removed: BTreeSet<SmallBytes>,
    heap_bytes: usize,
    stored: Option<Rc<dyn StoredTable>>,
    /// Which keys are not in memory. As in the hash tables, what is stored of them has not changed since the newest checkpoint.
    gaps: Gaps,
    /// Where the next look for entries to evict begins.
    hand: Vec<u8>,
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
        SortedState {
            map: BTreeMap::new(),
            changes: Generations::new(),
            removed,
            sealed_removed,
            heap_bytes: 0,
            stored: None,
            gaps: Gaps::default(),
            hand: Vec::new(),
        }
    }

    /// Makes sure that all keys that start with one of `prefixes` are in memory; to be called for all that is about to be asked for.
    pub fn fetch<'k>(&mut self, prefixes: impl IntoIterator<Item = &'k [u8]>) -> Result<()> {
        if self.gaps.is_empty() {
            return Ok(());
        }
        prefixes.into_iter().try_for_each(|prefix| self.fetch_between(prefix, successor(prefix).as_deref()))
    }

    /// The same for all keys from one on, up to another one (`None`: without end).
    pub fn fetch_between(&mut self, from: &[u8], to: Option<&[u8]>) -> Result<()> {
        let Some(stored) = self.stored.clone().filter(|_| !self.gaps.is_empty()) else { return Ok(()) };
        for (from, to) in self.gaps.close(from, to) {
            self.read(&*stored, &from, to.as_deref(), usize::MAX)?;
        }
        Ok(())
    }

    /// Reads the stored entries of a range that was a gap, about `max` of them; returns where it stopped.
    fn read(&mut self, stored: &dyn StoredTable, from: &[u8], to: Option<&[u8]>, max: usize) -> Result<Option<Vec<u8>>> {
        let (mut rows, mut next) = (0, None);
        stored.walk(from, &mut |key, value| {
            if to.is_some_and(|to| key >= to) {
                return Ok(ControlFlow::Break(()));
            }
            if rows >= max {
                next = Some(key.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            rows += 1;
            self.load(key, value)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(next)
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
        let mut out = self.changes.begin_piece(max);
        for _ in 0..max {
            let Some(key) = self.changes.sealed.pop() else { break };
            let entry = self.map.get_mut(key.as_slice()).filter(|e| self.changes.is_sealed(e.mark));
            entry.into_iter().for_each(|e| e.encode(key.as_slice(), &mut out));
        }
        for _ in 0..max {
            let Some(key) = self.sealed_removed.pop_first() else { break };
            out.delete(|out| out.extend_from_slice(key.as_slice()));
        }
        let more = !self.sealed_removed.is_empty();
        self.changes.end_piece(out).or_else(|| more.then(Entries::new))
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let key = SmallBytes::new(key);
        self.heap_bytes += key.heap_bytes();
        self.map.insert(key, Entry { value: V::decode(value)?, mark: Mark::Clean, stored: true });
        Ok(())
    }

    fn attach(&mut self, stored: Rc<dyn StoredTable>, partial: bool) {
        self.stored = Some(stored);
        self.gaps = if partial { Gaps::all() } else { Gaps::default() };
    }

    fn is_partial(&self) -> bool {
        !self.gaps.is_empty()
    }

    fn warm(&mut self, max: usize) -> Result<bool> {
        let Some((from, to)) = self.gaps.first() else { return Ok(true) };
        let Some(stored) = self.stored.clone() else { return Ok(true) };
        let next = self.read(&*stored, &from, to.as_deref(), max)?;
        let end = next.as_deref().or(to.as_deref());
        self.gaps.close(&from, end);
        Ok(self.gaps.is_empty())
    }

    fn evict(&mut self, visits: usize) -> Evicted {
        let mut evicted = Evicted::default();
        if self.stored.is_none() {
            return Evicted { wrapped: true, ..evicted };
        }
        // Neighbours that leave together make one gap; an entry that has changed, or was deleted, ends it.
        let (mut run, mut runs) = (Vec::new(), Vec::new());
        let mut next = None;
        for (at, (key, entry)) in self.map.range::<[u8], _>((Bound::Included(self.hand.as_slice()), Bound::Unbounded)).enumerate() {
            if at == visits {
                next = Some(key.as_slice().to_vec());
                break;
            }
            let deleted =
                |last: &SmallBytes| self.removed.range::<[u8], _>((Bound::Excluded(last.as_slice()), Bound::Excluded(key.as_slice())));
            if run.last().is_some_and(|last| deleted(last).next().is_some()) || entry.mark != Mark::Clean {
                runs.push(std::mem::take(&mut run));
            }
            if entry.mark == Mark::Clean {
                run.push(key.clone());
            }
        }
        runs.push(run);
        for run in runs {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let end = [last.as_slice(), &[0]].concat();
            self.gaps.open(first.as_slice(), &end, |from, to| {
                let between = (Bound::Included(from), Bound::Excluded(to));
                self.map.range::<[u8], _>(between).next().is_none() && self.removed.range::<[u8], _>(between).next().is_none()
            });
            for key in &run {
                if let Some(entry) = self.map.remove(key.as_slice()) {
                    self.heap_bytes -= key.heap_bytes();
                    evicted.bytes +=
                        size_of::<SmallBytes>() + size_of::<Entry<V>>() + key.heap_bytes() + entry.value.bytes() - size_of::<V>();
                }
            }
        }
        evicted.wrapped = next.is_none();
        self.hand = next.unwrap_or_default();
        evicted
    }

    fn stats(&self) -> TableStats {
        let heap = sampled(self.len(), self.map.values().map(|e| e.value.bytes().saturating_sub(size_of::<V>())));
        // A B-tree's nodes are about three quarters full.
        let nodes = self.len() * (size_of::<SmallBytes>() + size_of::<Entry<V>>()) * 4 / 3;
        TableStats { rows: self.len() as u64, bytes: (nodes + self.heap_bytes + heap) as u64 }
    }
}
