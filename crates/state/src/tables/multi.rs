//! State with many weighted rows per key: one side of a join.

mod form;

use std::ops::ControlFlow;
use std::rc::Rc;

use ahash::RandomState;
use hashbrown::HashTable;
use millpond_common::Result;

pub use self::form::RowForm;
use super::slab::{Place, Slab, spread};
use super::stored::{Evicted, Spill, StoredTable};
use super::{Entries, Generations, Mark, StateTable, TableStats};
use crate::ahead::{AHEAD, look};

/// A key with more rows than this gets a hash index over them.
const INDEX_ABOVE: usize = 16;

/// A map from key bytes (first byte: virtual node) to a multiset of rows, which knows what has changed.
///
/// One entry is stored per distinct row, in a [`RowForm`]; the rows of a key lie side by side. All rows of a key are in
/// memory, or none is; where keys have been evicted, all but [`fetch`](Self::fetch) sees what is in memory alone.
pub struct MultiState {
    form: RowForm,
    slab: Slab<Group>,
    /// Hints are a key's place and a row's position there.
    changes: Generations<(Place, u32)>,
    /// Distinct rows with a weight.
    live: usize,
    row_bytes: usize,
    /// Of rows, for the groups' indexes.
    hasher: RandomState,
    spill: Spill,
}

/// All rows of one key. Their bytes lie end to end, so that reading them all costs few cache misses.
#[derive(Default)]
struct Group {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    /// How many of `bytes` belong to no row any more.
    garbage: usize,
    /// For keys with many rows.
    index: Option<Box<HashTable<Indexed>>>,
    total: i64,
    /// The least number that no row has had.
    next: u32,
    /// It was fetched since it was last looked at for eviction.
    used: bool,
    /// Numbers of rows that are gone.
    #[allow(clippy::box_collection)] // few groups have any, and there are many groups
    free: Option<Box<Vec<u32>>>,
}

/// A row's position, and its hash, so that growing the index does not visit the rows.
struct Indexed {
    hash: u32,
    position: u32,
}

fn hash(hasher: &RandomState, row: &[u8]) -> u32 {
    (hasher.hash_one(row) >> 32) as u32
}

struct Row {
    /// Little-endian.
    offset: [u8; 5],
    /// Of its hash: rows with another one are others.
    tag: u8,
    length: u32,
    /// No other row of its key has it while this one is stored or about to be.
    number: u32,
    mark: Mark,
    /// The checkpoint has (or is about to get) this row.
    stored: bool,
    /// 0: removed, but the checkpoint still has it; leaves when that is encoded.
    weight: i64,
}

impl Row {
    fn new(offset: usize, row: &[u8], hash: u32, number: u32, stored: bool) -> Self {
        let length = u32::try_from(row.len()).expect("a row is shorter than 4 GiB");
        Row { offset: five_bytes(offset), tag: hash as u8, length, number, mark: Mark::Clean, stored, weight: 0 }
    }

    #[inline]
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let [a, b, c, d, e] = self.offset;
        let start = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) as usize;
        bytes.get(start..start + self.length as usize).unwrap_or_default()
    }

    fn encode(&mut self, form: RowForm, key: &[u8], bytes: &[u8], out: &mut Entries) {
        self.mark = Mark::Clean;
        self.stored = self.weight != 0;
        let row = self.of(bytes);
        let stored = |out: &mut Vec<u8>| form.push_key(out, key, row, self.number);
        if self.stored { out.put(stored, |out| form.push_value(out, row, self.weight)) } else { out.delete(stored) }
    }
}

/// An offset within the rows of one key: a terabyte is more than there is memory.
fn five_bytes(offset: usize) -> [u8; 5] {
    let [a, b, c, d, e, ..] = (offset as u64).to_le_bytes();
    [a, b, c, d, e]
}

impl MultiState {
    /// An empty table.
    pub fn new(form: RowForm) -> Self {
        let hasher = RandomState::new();
        MultiState { form, slab: Slab::new(), changes: Generations::new(), live: 0, row_bytes: 0, hasher, spill: Spill::default() }
    }

    /// Makes sure that the rows of these keys are in memory; to be called for all that is about to be asked for or added to.
    pub fn fetch<'k>(&mut self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<()> {
        let Some(stored) = self.spill.beyond() else { return Ok(()) };
        let mut missing = Vec::new();
        for key in keys {
            match self.slab.find(key).and_then(|place| self.slab.get_mut(place)) {
                Some(group) => group.used = true,
                None => missing.push(key),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let prefixes = missing.iter().map(|key| {
            self.slab.insert(key, Group { used: true, ..Group::default() }); // without rows: that is known then, too
            self.form.prefix(key)
        });
        let mut prefixes = prefixes.collect::<Vec<_>>();
        prefixes.sort_unstable();
        stored.prefixes(&prefixes, &mut |key, value| self.load(key, value))
    }

    /// Whether keys may be stored that are not in memory.
    pub fn is_partial(&self) -> bool {
        self.spill.partial
    }

    /// The rows of a key with their weights (never 0), in no order.
    pub fn rows(&self, key: &[u8]) -> impl Iterator<Item = (&[u8], i64)> + use<'_> {
        let group = self.slab.find(key).and_then(|place| self.slab.get(place));
        let (rows, bytes) = group.map(|g| (g.rows.as_slice(), g.bytes.as_slice())).unwrap_or_default();
        rows.iter().filter(|r| r.weight != 0).map(|r| (r.of(bytes), r.weight))
    }

    /// The sum of the weights of a key's rows.
    pub fn total(&self, key: &[u8]) -> i64 {
        self.slab.find(key).and_then(|place| self.slab.get(place)).map_or(0, |g| g.total)
    }

    /// The weight of one row.
    pub fn weight(&self, key: &[u8], row: &[u8]) -> i64 {
        let group = self.slab.find(key).and_then(|place| self.slab.get(place));
        group.and_then(|g| g.rows.get(g.find(hash(&self.hasher, row), row)? as usize)).map_or(0, |r| r.weight)
    }

    /// Adds to the weight of a row; at 0 the row is gone. Weights may be negative for a while.
    pub fn add(&mut self, key: &[u8], row: &[u8], weight: i64) {
        if weight == 0 {
            return;
        }
        let place = match self.slab.find(key) {
            Some(place) => place,
            None => self.slab.insert(key, Group::default()),
        };
        let group = self.slab.get_mut(place).expect("this place was found or filled above");
        group.total += weight;
        let hash = hash(&self.hasher, row);
        let position = match group.find(hash, row) {
            Some(position) => position,
            None => {
                self.row_bytes += row.len();
                group.push(&self.hasher, row, hash, None)
            }
        };
        let Some(found) = group.rows.get_mut(position as usize) else { return };
        let before = found.weight;
        if found.mark != self.changes.open {
            if self.changes.is_sealed(found.mark) {
                found.encode(self.form, key, &group.bytes, &mut self.changes.early);
            }
            found.mark = self.changes.open;
            self.changes.touched.push((place, position));
        }
        found.weight += weight;
        if before == 0 {
            self.live += 1;
        } else if found.weight == 0 {
            self.live -= 1;
            if !found.stored {
                self.drop_row(place, position);
            }
        }
    }

    /// Takes a row out for good. The row that moves to its position keeps being found.
    fn drop_row(&mut self, place: Place, position: u32) {
        let Some(group) = self.slab.get_mut(place) else { return };
        self.row_bytes -= group.swap_remove(&self.hasher, position);
        match group.rows.get(position as usize) {
            Some(moved) if moved.mark == self.changes.open => self.changes.touched.push((place, position)),
            Some(moved) if self.changes.is_sealed(moved.mark) => self.changes.sealed.push((place, position)),
            Some(_) => {}
            None if group.rows.is_empty() && !self.spill.partial => drop(self.slab.remove(place)),
            None => {}
        }
    }

    /// What it holds, and nothing is left in it.
    pub fn take(&mut self) -> MultiState {
        std::mem::replace(self, MultiState::new(self.form))
    }

    /// How many distinct rows have a weight.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All (key, row, weight), in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], i64)> {
        self.slab.iter().flat_map(|(key, group)| {
            let rows = group.rows.iter().filter(|r| r.weight != 0);
            rows.map(move |r| (key, r.of(&group.bytes), r.weight))
        })
    }
}

impl Group {
    /// A row's position, by its hash.
    fn find(&self, hash: u32, row: &[u8]) -> Option<u32> {
        let equal = |r: &Row| r.tag == hash as u8 && r.length as usize == row.len() && r.of(&self.bytes) == row;
        match &self.index {
            Some(index) => {
                let is_it = |i: &Indexed| i.hash == hash && self.rows.get(i.position as usize).is_some_and(equal);
                index.find(spread(hash), is_it).map(|i| i.position)
            }
            None => self.rows.iter().position(equal).map(|p| p as u32),
        }
    }

    fn first_byte(&self, position: u32) -> Option<u8> {
        self.rows.get(position as usize)?.of(&self.bytes).first().copied()
    }

    /// Adds a row that is not there, and says where. It has no weight yet.
    fn push(&mut self, hasher: &RandomState, row: &[u8], row_hash: u32, stored_as: Option<u32>) -> u32 {
        if self.rows.len() < 4 {
            // Most keys have very few rows.
            self.rows.reserve_exact(1);
            self.bytes.reserve_exact(row.len());
        }
        let position = self.rows.len() as u32;
        let number = stored_as.or_else(|| self.free.as_mut()?.pop()).unwrap_or(self.next);
        self.next = self.next.max(number.checked_add(1).expect("a key has fewer than 2^32 rows"));
        self.rows.push(Row::new(self.bytes.len(), row, row_hash, number, stored_as.is_some()));
        self.bytes.extend_from_slice(row);
        match &mut self.index {
            Some(index) => {
                index.insert_unique(spread(row_hash), Indexed { hash: row_hash, position }, |i| spread(i.hash));
            }
            None if self.rows.len() > INDEX_ABOVE => {
                let mut index = HashTable::with_capacity(self.rows.len() * 2);
                for (position, row) in self.rows.iter().enumerate() {
                    let hash = hash(hasher, row.of(&self.bytes));
                    index.insert_unique(spread(hash), Indexed { hash, position: position as u32 }, |i| spread(i.hash));
                }
                self.index = Some(Box::new(index));
            }
            None => {}
        }
        position
    }

    /// Takes a row out; the last one moves to its position. Returns its length.
    fn swap_remove(&mut self, hasher: &RandomState, position: u32) -> usize {
        let row = self.rows.swap_remove(position as usize);
        if let Some(index) = &mut self.index {
            if let Ok(found) = index.find_entry(spread(hash(hasher, row.of(&self.bytes))), |i| i.position == position) {
                found.remove();
            }
            let moved_from = self.rows.len() as u32;
            if let Some(moved) = self.rows.get(position as usize)
                && let Some(i) = index.find_mut(spread(hash(hasher, moved.of(&self.bytes))), |i| i.position == moved_from)
            {
                i.position = position;
            }
        }
        self.free.get_or_insert_default().push(row.number);
        self.garbage += row.length as usize;
        if self.garbage > 64 && self.garbage > self.bytes.len() / 2 {
            self.collect_garbage();
        }
        row.length as usize
    }

    fn collect_garbage(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for row in &mut self.rows {
            let offset = five_bytes(bytes.len());
            bytes.extend_from_slice(row.of(&self.bytes));
            row.offset = offset;
        }
        self.bytes = bytes;
        self.garbage = 0;
    }
}

impl StateTable for MultiState {
    fn seal(&mut self) {
        self.changes.seal();
    }

    fn drain(&mut self, max: usize) -> Option<Entries> {
        let mut out = self.changes.begin_piece(max);
        for number in 0..max {
            if number % AHEAD == 0 {
                look(self.changes.sealed.iter().rev().take(AHEAD).map(|(place, at)| self.slab.get(*place)?.first_byte(*at)));
            }
            let Some((place, position)) = self.changes.sealed.pop() else { break };
            let Some((key, group)) = self.slab.entry_mut(place) else { continue };
            let row = group.rows.get_mut(position as usize).filter(|r| self.changes.is_sealed(r.mark));
            let Some(row) = row else { continue };
            row.encode(self.form, key, &group.bytes, &mut out);
            if row.weight == 0 {
                self.drop_row(place, position);
            }
        }
        self.changes.end_piece(out)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let stored = self.form.read(key, value)?;
        let place = match self.slab.find(&stored.key) {
            Some(place) => place,
            None => self.slab.insert(&stored.key, Group::default()),
        };
        let group = self.slab.get_mut(place).expect("this place was found or filled above");
        let number = stored.number.unwrap_or(group.next);
        let position = group.push(&self.hasher, stored.row, hash(&self.hasher, stored.row), Some(number));
        if let Some(row) = group.rows.get_mut(position as usize) {
            row.weight = stored.weight;
        }
        group.total += stored.weight;
        self.row_bytes += stored.row.len();
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
        // A key that is in memory is so with all its rows.
        let (mut rows, mut next, mut last, mut known) = (0, None, Vec::new(), false);
        stored.walk(&from, &mut |key, value| {
            rows += 1;
            let prefix = self.form.prefix_of(key)?;
            if prefix != last {
                if rows > max {
                    next = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                known = self.slab.find(&self.form.key(prefix)).is_some();
                prefix.clone_into(&mut last);
            }
            if !known {
                self.load(key, value)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(self.spill.warmed(next))
    }

    fn evict(&mut self, visits: usize) -> Evicted {
        let mut evicted = Evicted::default();
        let mut left = visits;
        while left > 0 {
            let Some(place) = self.spill.next_place(self.slab.slots()) else {
                evicted.wrapped = true;
                break;
            };
            left -= 1;
            let Some((key, group)) = self.slab.entry_mut(place) else { continue };
            left = left.saturating_sub(group.rows.len());
            if std::mem::take(&mut group.used) || group.rows.iter().any(|r| r.mark != Mark::Clean) {
                continue;
            }
            let rows = group.rows.capacity() * size_of::<Row>() + group.bytes.capacity();
            evicted.bytes += Slab::<Group>::bytes_of(key) + rows;
            self.live -= group.rows.iter().filter(|r| r.weight != 0).count();
            self.row_bytes -= group.rows.iter().map(|r| r.length as usize).sum::<usize>();
            self.slab.remove(place);
            self.spill.left();
        }
        let changes = &mut self.changes;
        self.slab.shrink(|place, group| {
            let changed = group.rows.iter().enumerate().filter(|(_, row)| row.mark == changes.open);
            changes.touched.extend(changed.map(|(position, _)| (place, position as u32)));
        });
        evicted
    }

    fn stats(&self) -> TableStats {
        let rows = self.live * size_of::<Row>() + self.row_bytes * 5 / 4;
        TableStats { rows: self.live as u64, bytes: (self.slab.bytes() + rows) as u64 }
    }
}
