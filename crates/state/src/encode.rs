//! Runs, encoded and brought into key order: the step from Arrow batches to stored bytes.

use millpond_common::{Epoch, Result};

use crate::ahead::{AHEAD, ends, look};
use crate::relation::{EncodedRows, RelationMeta, Run};
use crate::sort_key::{Item, same, sort};

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// Its row has these value columns (relations with a key).
    Put(&'a [u8]),
    /// It has no row (relations with a key).
    Delete,
    /// This is added to its weight, not 0 (relations without a key).
    Add(i64),
}

/// The encoded rows of one delta.
struct Part {
    epoch: Epoch,
    keys: EncodedRows,
    /// Relations with a key only.
    values: Option<EncodedRows>,
}

impl Part {
    /// Whether a row and the next one have the same key and different values.
    fn is_update(&self, row: usize) -> bool {
        let differ = |values: &EncodedRows| values.get(row) != values.get(row + 1);
        self.values.as_ref().is_some_and(differ) && self.keys.get(row) == self.keys.get(row + 1)
    }
}

/// One row of one part.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    part: u32,
    row: u32,
    /// Of a relation with a key 1, -1 or [`UPDATE`].
    weight: i64,
}

/// The weight of a row that stands for two: itself, and the deletion of its key's old row, another one, right before it. An update is sorted as one then.
const UPDATE: i64 = i64::MAX;

/// All rows of some runs, sorted by key and, within a key, in the order of the runs.
pub(crate) struct Encoded {
    parts: Vec<Part>,
    items: Vec<Item<Row>>,
    pub(crate) keyed: bool,
}

impl Encoded {
    /// Encodes and sorts runs, which come by ascending epoch.
    pub(crate) fn new<'r>(meta: &RelationMeta, runs: impl IntoIterator<Item = &'r Run>) -> Result<Self> {
        let keyed = meta.keyed();
        let (mut parts, mut rows) = (Vec::new(), Vec::new());
        for (run, delta) in runs.into_iter().flat_map(|r| r.deltas.iter().map(move |d| (r, d))) {
            let (vnodes, keys) = meta.encode_keys(&delta.batch)?;
            let values = if keyed { Some(meta.encode_values(&delta.batch)?) } else { None };
            parts.push(Part { epoch: run.epoch, keys, values });
            rows.push((vnodes, delta));
        }
        let mut items = Vec::with_capacity(rows.iter().map(|(_, delta)| delta.len()).sum());
        for (number, (vnodes, delta)) in rows.iter().enumerate() {
            let (mut row, part) = (0, parts.get(number));
            while let Some(vnode) = vnodes.get(row) {
                let mut weight = delta.weight(row);
                if weight == -1
                    && vnodes.get(row + 1) == Some(vnode)
                    && delta.weight(row + 1) == 1
                    && part.is_some_and(|part: &Part| part.is_update(row))
                {
                    (row, weight) = (row + 1, UPDATE);
                }
                items.push(Item::new(*vnode, Row { part: number as u32, row: row as u32, weight }));
                row += 1;
            }
        }
        let encoded = Encoded { parts, items: vec![], keyed };
        // Rows of one key come in the order of their runs, which is that of their places.
        sort(&mut items, &|row| encoded.key(row));
        Ok(Encoded { items, ..encoded })
    }

    fn key(&self, row: &Row) -> &[u8] {
        self.parts.get(row.part as usize).map_or(&[], |p| p.keys.get(row.row as usize))
    }

    fn value(&self, row: &Row) -> &[u8] {
        self.value_at(row.part, row.row)
    }

    fn value_at(&self, part: u32, row: u32) -> &[u8] {
        let values = self.parts.get(part as usize).and_then(|p| p.values.as_ref());
        values.map_or(&[], |v| v.get(row as usize))
    }

    fn epoch(&self, item: &Item<Row>) -> Epoch {
        self.parts.get(item.place.part as usize).map_or(0, |p| p.epoch)
    }

    /// An upper bound of how many changes there are, and of their bytes' sum.
    pub(crate) fn size_hint(&self) -> (usize, usize) {
        let sample = self.items.iter().take(256).map(|i| 1 + self.key(&i.place).len() + self.value(&i.place).len());
        let (count, sum) = sample.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        (self.items.len(), (sum * self.items.len()).checked_div(count).unwrap_or(0))
    }

    /// Calls `f` with virtual node, key and net change, by ascending key, each key once.
    pub(crate) fn for_each<E>(&self, mut f: impl FnMut(u8, &[u8], Change<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut done = 0;
        let mut seen = 0;
        for group in self.items.chunk_by(|a, b| same(a, b, &|row| self.key(row))) {
            let Some(first) = group.first() else { continue };
            if done + group.len() > seen {
                let next = self.items.iter().skip(done).take(AHEAD.max(group.len()));
                look(next.map(|item| ends(self.key(&item.place)) ^ ends(self.value(&item.place))));
                seen = done + AHEAD.max(group.len());
            }
            done += group.len();
            let change = if self.keyed {
                self.net_of_keyed(group)
            } else {
                Some(group.iter().map(|i| i.place.weight).sum()).filter(|w| *w != 0).map(Change::Add)
            };
            if let Some(change) = change {
                f(first.vnode(), self.key(&first.place), change)?;
            }
        }
        Ok(())
    }

    /// The last epoch in which the key's rows do not cancel out decides: its insertion, or deletion if there is none.
    fn net_of_keyed(&self, group: &[Item<Row>]) -> Option<Change<'_>> {
        if let [only] = group {
            return self.net_of_epoch(std::slice::from_ref(only));
        }
        let mut epochs = group.chunk_by(|a, b| self.epoch(a) == self.epoch(b));
        while let Some(epoch) = epochs.next_back() {
            if let Some(change) = self.net_of_epoch(epoch) {
                return Some(change);
            }
        }
        None
    }

    fn net_of_epoch(&self, group: &[Item<Row>]) -> Option<Change<'_>> {
        if let [only] = group {
            return match only.place.weight {
                0 => None,
                w if w > 0 => Some(Change::Put(self.value(&only.place))),
                _ => Some(Change::Delete),
            };
        }
        let mut sums: Vec<(&[u8], i64)> = Vec::with_capacity(2 * group.len());
        let mut add = |value, weight| match sums.iter_mut().find(|(v, _)| *v == value) {
            Some((_, sum)) => *sum += weight,
            None => sums.push((value, weight)),
        };
        for Row { part, row, weight } in group.iter().map(|item| &item.place) {
            if *weight == UPDATE {
                add(self.value_at(*part, row - 1), -1);
                add(self.value_at(*part, *row), 1);
            } else {
                add(self.value_at(*part, *row), *weight);
            }
        }
        let put = sums.iter().rev().find(|(_, sum)| *sum > 0).map(|(value, _)| Change::Put(value));
        put.or_else(|| sums.iter().any(|(_, sum)| *sum < 0).then_some(Change::Delete))
    }
}
