//! Ranges of keys.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A set of disjoint ranges of byte strings, each from a key up to another one, which it excludes; `None`: without end.
#[derive(Default)]
pub(super) struct Gaps(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Gaps {
    /// All byte strings.
    pub fn all() -> Self {
        Gaps(BTreeMap::from([(Vec::new(), None)]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first range.
    pub fn first(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        self.0.first_key_value().map(|(from, to)| (from.clone(), to.clone()))
    }

    /// Adds a range; those that are in the set lie inside of it or outside. It becomes one with the one before and the one after it if
    /// `void` says of what lies between that nothing is there.
    pub fn open(&mut self, from: &[u8], to: &[u8], void: impl Fn(&[u8], &[u8]) -> bool) {
        let inside = self.0.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).map(|(start, _)| start.clone());
        for start in inside.collect::<Vec<_>>() {
            self.0.remove(&start);
        }
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(from))).next_back();
        let before = before.and_then(|(start, end)| Some((start.clone(), end.as_deref()?))).filter(|(_, end)| void(end, from));
        let start = before.map_or_else(|| from.to_vec(), |(start, _)| start);
        let after = self.0.range::<[u8], _>((Bound::Included(to), Bound::Unbounded)).next().map(|(start, _)| start.clone());
        let end = match after.filter(|start| void(to, start)) {
            Some(start) => self.0.remove(&start).flatten(),
            None => Some(to.to_vec()),
        };
        self.0.insert(start, end);
    }

    /// Takes a range out; returns the parts of it that were in the set.
    pub fn close(&mut self, from: &[u8], to: Option<&[u8]>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        if to.is_some_and(|to| to <= from) {
            return Vec::new();
        }
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(from))).next_back();
        let first = before.filter(|(_, end)| end.as_deref().is_none_or(|end| end > from));
        let inside = self.0.range::<[u8], _>((Bound::Excluded(from), to.map_or(Bound::Unbounded, Bound::Excluded)));
        let starts = first.into_iter().chain(inside).map(|(start, _)| start.clone()).collect::<Vec<_>>();
        let mut parts = Vec::with_capacity(starts.len());
        for start in starts {
            let Some(end) = self.0.remove(&start) else { continue };
            let part_end = match to {
                Some(to) if end.as_deref().is_none_or(|end| end > to) => {
                    self.0.insert(to.to_vec(), end);
                    Some(to.to_vec())
                }
                _ => end,
            };
            if start.as_slice() < from {
                self.0.insert(start, Some(from.to_vec()));
                parts.push((from.to_vec(), part_end));
            } else {
                parts.push((start, part_end));
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::Random;

    /// Against a set of bytes.
    #[test]
    fn agrees_with_a_set() {
        let mut random = Random(3);
        let mut gaps = Gaps::all();
        let mut model = [true; 256];
        for _ in 0..20_000 {
            let (a, b) = (random.below(256) as usize, random.below(257) as usize);
            let (from, to) = (a.min(b), a.max(b));
            let end = |b: usize| (b < 256).then(|| vec![b as u8]);
            if random.below(2) == 0 {
                let parts = gaps.close(&[from as u8], end(to).as_deref());
                let mut closed = [false; 256];
                for (start, stop) in parts {
                    let stop = stop.map_or(256, |s| usize::from(s[0]));
                    let start = start.first().map_or(0, |s| usize::from(*s));
                    closed[start..stop].fill(true);
                }
                for i in 0..256 {
                    assert_eq!(closed[i], model[i] && (from..to).contains(&i), "{from}..{to}: {i}");
                }
                model[from..to].fill(false);
            } else if from < to && to < 256 && !(model[from] && from > 0 && model[from - 1]) && !(model[to - 1] && model[to]) {
                // Every third byte is a key that is in memory.
                let key = |i: usize| i.is_multiple_of(3);
                gaps.open(&[from as u8], &[to as u8], |a, b| !(usize::from(a[0])..usize::from(b[0])).any(key));
                model[from..to].fill(true);
                let mut at = from;
                while at > 0 && !model[at - 1] && !key(at - 1) {
                    at -= 1;
                }
                if at > 0 && model[at - 1] {
                    model[at..from].fill(true);
                }
                at = to;
                while at < 256 && !model[at] && !key(at) {
                    at += 1;
                }
                if at < 256 && model[at] {
                    model[to..at].fill(true);
                }
            }
        }
    }
}
