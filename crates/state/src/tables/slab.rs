//! A hash map from byte strings to items which live at fixed places, so that lists of places can say what changed.

use ahash::RandomState;
use hashbrown::HashTable;

use super::bytes::SmallBytes;

/// Items per chunk. The first chunk grows on demand, further ones are allocated whole: growing never moves more.
const CHUNK: usize = 4096;

/// Names an item's place until it is removed.
pub(crate) type Place = u32;

struct Slot<T> {
    key: SmallBytes,
    /// `None`: the place is free.
    item: Option<T>,
}

/// What the index keeps of an item. The hash is there so that growing the index does not visit the items.
struct Reference {
    hash: u32,
    place: Place,
}

/// See the module.
pub(crate) struct Slab<T> {
    index: HashTable<Reference>,
    chunks: Vec<Vec<Slot<T>>>,
    free: Vec<Place>,
    hasher: RandomState,
    key_heap_bytes: usize,
}

/// Spreads 32 bits of hash to where the index looks: the lowest bits and the highest seven.
#[inline]
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        // Seeded at random, so that nobody can choose keys that collide. Order comes from places, never from hashes.
        let hasher = RandomState::new();
        Slab { index: HashTable::new(), chunks: Vec::new(), free: Vec::new(), hasher, key_heap_bytes: 0 }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    #[inline]
    fn slot(&self, place: Place) -> Option<&Slot<T>> {
        let place = place as usize;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    #[inline]
    fn slot_mut(&mut self, place: Place) -> Option<&mut Slot<T>> {
        let place = place as usize;
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Where the item of this key is.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        let hash = self.hash(key);
        let equal = |r: &Reference| r.hash == hash && self.slot(r.place).is_some_and(|s| s.key.as_slice() == key);
        self.index.find(spread(hash), equal).map(|r| r.place)
    }

    #[inline]
    pub(crate) fn get(&self, place: Place) -> Option<&T> {
        self.slot(place)?.item.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        self.slot_mut(place)?.item.as_mut()
    }

    /// The key and the item at a place.
    #[cfg(test)]
    pub(crate) fn entry(&self, place: Place) -> Option<(&[u8], &T)> {
        let slot = self.slot(place)?;
        Some((slot.key.as_slice(), slot.item.as_ref()?))
    }

    /// The key and the item at a place, to change.
    pub(crate) fn entry_mut(&mut self, place: Place) -> Option<(&[u8], &mut T)> {
        let slot = self.slot_mut(place)?;
        Some((slot.key.as_slice(), slot.item.as_mut()?))
    }

    /// Adds an item under a key that is not present.
    pub(crate) fn insert(&mut self, key: &[u8], item: T) -> Place {
        let hash = self.hash(key);
        let slot = Slot { key: SmallBytes::new(key), item: Some(item) };
        self.key_heap_bytes += slot.key.heap_bytes();
        let place = match self.pop_free() {
            Some(place) => {
                if let Some(target) = self.slot_mut(place) {
                    *target = slot;
                }
                place
            }
            None => self.append(slot),
        };
        self.index.insert_unique(spread(hash), Reference { hash, place }, |r| spread(r.hash));
        place
    }

    /// A free place. Places that went with their chunk are forgotten here.
    fn pop_free(&mut self) -> Option<Place> {
        while let Some(place) = self.free.pop() {
            if self.slot(place).is_some() {
                return Some(place);
            }
        }
        None
    }

    fn append(&mut self, slot: Slot<T>) -> Place {
        let full = self.chunks.last().is_none_or(|c| c.len() == CHUNK);
        if full {
            let capacity = if self.chunks.is_empty() { 4 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let place = self.chunks.last_mut().map_or(before, |chunk| {
            chunk.push(slot);
            before + chunk.len() - 1
        });
        Place::try_from(place).expect("a state table of one worker holds fewer than 2^32 keys")
    }

    /// Removes the item at a place, which may be used again.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let slot = self.slot_mut(place)?;
        let item = slot.item.take()?;
        let key = std::mem::replace(&mut slot.key, SmallBytes::new(&[]));
        self.key_heap_bytes -= key.heap_bytes();
        let hash = self.hash(key.as_slice());
        if let Ok(found) = self.index.find_entry(spread(hash), |r| r.place == place) {
            found.remove();
        }
        self.free.push(place);
        Some(item)
    }

    /// How many places there are, free ones included.
    pub(crate) fn slots(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Gives the memory of the last chunk back where less than half of all places are used: what is in it moves to free places
    /// before it. Calls `moved` with the new places.
    pub(crate) fn shrink(&mut self, mut moved: impl FnMut(Place, &mut T)) {
        let last = match self.chunks.len() {
            count if count >= 4 && self.index.len() * 2 < self.slots() => self.chunks.pop().unwrap_or_default(),
            _ => return,
        };
        for (at, slot) in last.into_iter().enumerate().filter(|(_, slot)| slot.item.is_some()) {
            let from = (self.chunks.len() * CHUNK + at) as Place;
            let hash = self.hash(slot.key.as_slice());
            let to = self.pop_free().expect("less than half of the places are used");
            if let Some(reference) = self.index.find_mut(spread(hash), |r| r.place == from) {
                reference.place = to;
            }
            if let Some(target) = self.slot_mut(to) {
                *target = slot;
                target.item.iter_mut().for_each(|item| moved(to, item));
            }
        }
        if self.index.capacity() > 4 * self.index.len() {
            self.index.shrink_to(2 * self.index.len(), |r| spread(r.hash));
        }
        if self.free.len() > self.slots() {
            let slots = self.slots();
            self.free.retain(|place| (*place as usize) < slots);
            self.free.shrink_to(2 * self.free.len());
        }
    }

    /// How many items there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// All keys and items, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.chunks.iter().flatten().filter_map(|s| Some((s.key.as_slice(), s.item.as_ref()?)))
    }

    /// Some of the items, from all over.
    pub(crate) fn sample(&self) -> impl Iterator<Item = &T> {
        const ITEMS: usize = 64;
        let slots = self.slots();
        let near = move |at: usize| (at..slots.min(at + ITEMS)).find_map(|place| self.get(place as Place));
        (0..ITEMS.min(slots)).filter_map(move |i| near(i * slots / ITEMS.min(slots)))
    }

    /// Bytes that an item with this key takes, without what it holds outside of itself.
    pub(crate) fn bytes_of(key: &[u8]) -> usize {
        size_of::<Slot<T>>() + 2 * size_of::<Reference>() + if key.len() > 22 { key.len() } else { 0 }
    }

    /// Bytes of memory, without what the items hold outside of themselves.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self.chunks.iter().map(|c| c.capacity() * size_of::<Slot<T>>()).sum();
        slots + self.index.capacity() * (size_of::<Reference>() + 1) + self.key_heap_bytes + self.free.capacity() * size_of::<Place>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn agrees_with_a_map_while_places_are_reused() {
        let mut slab = Slab::new();
        let mut model = HashMap::new();
        let mut random = 1u64;
        for step in 0..60_000u64 {
            random = millpond_common::hash::mix(random + step);
            let key = (random % 9000).to_string().repeat(1 + (random % 7) as usize);
            match slab.find(key.as_bytes()) {
                Some(place) => {
                    assert_eq!(slab.entry(place).map(|(k, v)| (k.to_vec(), *v)), Some((key.clone().into_bytes(), model[&key])));
                    if step % 3 == 0 {
                        assert_eq!(slab.remove(place), model.remove(&key));
                    } else {
                        *slab.get_mut(place).unwrap() = step;
                        model.insert(key, step);
                    }
                }
                None => {
                    assert!(!model.contains_key(&key));
                    slab.insert(key.as_bytes(), step);
                    model.insert(key, step);
                }
            }
        }
        assert_eq!(slab.len(), model.len());
        assert_eq!(slab.iter().count(), model.len());
        assert!(slab.chunks.len() > 1, "the test should fill more than one chunk");
    }

    #[test]
    fn gives_memory_back_and_grows_again() {
        let (mut slab, mut model) = (Slab::new(), HashMap::new());
        for round in 0..3u32 {
            for i in 0..40_000u32 {
                slab.insert(&(round, i).1.to_be_bytes(), i);
                model.insert(i, i);
            }
            let full = slab.bytes();
            for i in (0..40_000u32).filter(|i| i % 16 != round) {
                slab.remove(slab.find(&i.to_be_bytes()).unwrap());
                model.remove(&i);
            }
            let mut moves = 0;
            for _ in 0..20 {
                slab.shrink(|_, _| moves += 1);
            }
            assert!(slab.bytes() * 2 < full && moves > 0, "{} of {full} bytes after {moves} moves", slab.bytes());
            for i in 0..40_000u32 {
                let found = slab.find(&i.to_be_bytes()).and_then(|p| slab.get(p)).copied();
                assert_eq!(found, model.get(&i).copied());
            }
            model.drain().for_each(|(i, _)| assert!(slab.remove(slab.find(&i.to_be_bytes()).unwrap()).is_some()));
        }
    }
}
