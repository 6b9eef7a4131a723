//! Sorted runs: changes by key, compact, immutable; and the walk through several of them at once.

use std::ops::Range;
use std::sync::Arc;

use crate::encode::{Change, Encoded};

/// Marks a deletion in [`Entry::value`].
const DELETED: u32 = u32::MAX;
/// More runs than this are not merged in one go.
const WALK_MAX: usize = 8;

#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    key: u32,
    /// Length of the value, or [`DELETED`].
    value: u32,
}

/// Changes of one relation by ascending key (virtual node first), each key once.
pub(crate) struct SortedRun {
    /// Key, value, key, value, …
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    keyed: bool,
}

impl SortedRun {
    pub(crate) fn new(encoded: &Encoded) -> Self {
        let (entries, bytes) = encoded.size_hint();
        let mut run = SortedRun { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(entries), keyed: encoded.keyed };
        let never_fails = encoded.for_each(|vnode, key, change| {
            run.push(&[vnode], key, change);
            Ok::<_, std::convert::Infallible>(())
        });
        match never_fails {
            Ok(()) => run,
            Err(impossible) => match impossible {},
        }
    }

    /// Several runs as one; a later run overrides an earlier one, or adds to it.
    pub(crate) fn merge(runs: &[Arc<SortedRun>]) -> Self {
        if runs.len() > WALK_MAX {
            // The walk looks at every run for every key: many runs are merged by halves.
            let (older, newer) = runs.split_at(runs.len() / 2);
            return SortedRun::merge(&[Arc::new(SortedRun::merge(older)), Arc::new(SortedRun::merge(newer))]);
        }
        let bytes = runs.iter().map(|r| r.bytes.len()).sum();
        let entries = runs.iter().map(|r| r.entries.len()).sum();
        let keyed = runs.first().is_some_and(|r| r.keyed);
        let mut merged = SortedRun { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(entries), keyed };
        let mut walk = Overlay::new(runs.to_vec(), 0..256);
        while let Some((key, change)) = walk.current() {
            if change != Change::Add(0) {
                merged.push(&[], key, change);
            }
            walk.advance();
        }
        merged
    }

    fn push(&mut self, head: &[u8], key: &[u8], change: Change<'_>) {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(key);
        let value = match change {
            Change::Put(value) => {
                self.bytes.extend_from_slice(value);
                value.len() as u32
            }
            Change::Delete => DELETED,
            Change::Add(weight) => {
                self.bytes.extend_from_slice(&weight.to_le_bytes());
                8
            }
        };
        self.entries.push(Entry { offset, key: (head.len() + key.len()) as u32, value });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    #[inline]
    fn key_of(&self, entry: &Entry) -> &[u8] {
        let start = entry.offset as usize;
        self.bytes.get(start..start + entry.key as usize).unwrap_or_default()
    }

    fn key(&self, i: usize) -> Option<&[u8]> {
        self.entries.get(i).map(|e| self.key_of(e))
    }

    fn change(&self, i: usize) -> Option<Change<'_>> {
        let entry = self.entries.get(i)?;
        if entry.value == DELETED {
            return Some(Change::Delete);
        }
        let start = entry.offset as usize + entry.key as usize;
        let value = self.bytes.get(start..start + entry.value as usize)?;
        Some(if self.keyed { Change::Put(value) } else { Change::Add(i64::from_le_bytes(value.try_into().ok()?)) })
    }

    /// What happens to a key (virtual node first).
    pub(crate) fn get(&self, key: &[u8]) -> Option<Change<'_>> {
        let i = self.entries.binary_search_by(|e| self.key_of(e).cmp(key)).ok()?;
        self.change(i)
    }

    /// The positions of keys of some virtual nodes.
    fn range(&self, vnodes: &Range<usize>) -> Range<usize> {
        let before = |end: usize| self.entries.partition_point(|e| self.key_of(e).first().is_some_and(|v| usize::from(*v) < end));
        before(vnodes.start)..before(vnodes.end)
    }
}

struct Layer {
    run: Arc<SortedRun>,
    rest: Range<usize>,
}

/// A walk through several runs of one relation at once, the newest last. There are few of them, so the next key is
/// found by looking at each.
pub(crate) struct Overlay {
    layers: Vec<Layer>,
    /// Which layer has the current key (of several, the last), and the sum of its weights.
    current: Option<(usize, i64)>,
}

impl Overlay {
    /// Stands at the first key of these virtual nodes.
    pub(crate) fn new(runs: Vec<Arc<SortedRun>>, vnodes: Range<usize>) -> Self {
        let layer = |run: Arc<SortedRun>| Layer { rest: run.range(&vnodes), run };
        let layers = runs.into_iter().map(layer).filter(|l| !l.rest.is_empty()).collect();
        let mut overlay = Overlay { layers, current: None };
        overlay.settle();
        overlay
    }

    /// Goes on to the first key (virtual node first) that is not below this one.
    pub(crate) fn skip_to(&mut self, key: &[u8]) {
        for Layer { run, rest } in &mut self.layers {
            let start = run.entries.partition_point(|e| run.key_of(e) < key);
            rest.start = rest.start.max(start).min(rest.end);
        }
        self.settle();
    }

    /// The current key (virtual node first) and what happens to it; weights may sum to 0.
    #[inline]
    pub(crate) fn current(&self) -> Option<(&[u8], Change<'_>)> {
        let (layer, weight) = self.current?;
        let Layer { run, rest } = self.layers.get(layer)?;
        let change = if run.keyed { run.change(rest.start)? } else { Change::Add(weight) };
        Some((run.key(rest.start)?, change))
    }

    /// Goes on to the next key.
    pub(crate) fn advance(&mut self) {
        let Some((winner, _)) = self.current else { return };
        if let [only] = self.layers.as_mut_slice() {
            only.rest.next();
        } else {
            let (before, from) = self.layers.split_at_mut(winner);
            let Some((last, _)) = from.split_first_mut() else { return };
            let key = last.run.key(last.rest.start);
            for layer in before.iter_mut().filter(|l| !l.rest.is_empty()) {
                if layer.run.key(layer.rest.start) == key {
                    layer.rest.next();
                }
            }
            last.rest.next();
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut best: Option<(usize, &[u8], i64)> = None;
        for (i, Layer { run, rest }) in self.layers.iter().enumerate().filter(|(_, l)| !l.rest.is_empty()) {
            let Some(key) = run.key(rest.start) else { continue };
            let weight = || match run.change(rest.start) {
                Some(Change::Add(weight)) => weight,
                _ => 0,
            };
            match &mut best {
                Some((_, least, _)) if key > *least => {}
                Some((winner, least, sum)) if key == *least => {
                    *winner = i;
                    *sum += weight();
                }
                _ => best = Some((i, key, weight())),
            }
        }
        self.current = best.map(|(winner, _, weight)| (winner, weight));
    }
}
