//! Sorting stored keys, which lie all over memory, with few looks at them.

use std::cmp::Ordering;

use crate::ahead::{AHEAD, ends, look};

/// Bytes of a key that a [`SortKey`] has: enough for the columns by which rows of a join's key mostly differ.
const HEAD: usize = 23;
/// So many keys that are alike so far are compared one by one.
const FEW: usize = 16;
/// So often are keys looked at further in; only keys that were made for it need more.
const LEVELS: usize = 64;
/// So many keys tell how many bytes all begin with, mostly.
const SAMPLE: usize = 64;
/// Fewer items are sorted by comparing their sort keys, more are dealt out first.
const MANY: usize = 512;

/// Of each key of a sort: its first byte, the virtual node, and of what follows the 22 bytes in which the keys begin to differ, filled up with zeros;
/// then how many bytes these were, or 24 if there are more. So keys in this order are in theirs, and equal ones that are whole are equal keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey([u64; 3]);

impl SortKey {
    /// What of a key comes after the first bytes that all have.
    fn after(self, shared: usize, key: &[u8]) -> Self {
        let rest = key.get(shared..).unwrap_or_default();
        let mut bytes = [0u8; HEAD + 1];
        let head = &rest[..rest.len().min(HEAD - 1)];
        bytes[0] = self.vnode();
        bytes[1..=head.len()].copy_from_slice(head);
        bytes[HEAD] = (rest.len() + 1).min(HEAD + 1) as u8;
        let mut words = [0; 3];
        words.iter_mut().zip(bytes.as_chunks().0).for_each(|(word, bytes)| *word = u64::from_be_bytes(*bytes));
        SortKey(words)
    }

    #[inline]
    fn vnode(self) -> u8 {
        self.byte(0)
    }

    #[inline]
    fn byte(self, number: usize) -> u8 {
        (self.0[number / 8] >> (56 - number % 8 * 8)) as u8
    }

    fn is_whole(self) -> bool {
        self.0[2] as u8 <= HEAD as u8
    }
}

/// What is sorted: where a key is, with what it is sorted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item<T> {
    sort: SortKey,
    pub(crate) place: T,
}

impl<T> Item<T> {
    /// Not sorted yet.
    pub(crate) fn new(vnode: u8, place: T) -> Self {
        Item { sort: SortKey([u64::from(vnode) << 56, 0, 0]), place }
    }

    /// The key's virtual node.
    #[inline]
    pub(crate) fn vnode(&self) -> u8 {
        self.sort.vnode()
    }
}

/// Sorts by virtual node and key, of which `key` gives all but the virtual node; equal keys by their places. Items are brought in order by the
/// bytes in which their keys begin to differ, then those that are alike in these by the bytes after them. So each key is looked at a few times, one after
/// the other, and not at every comparison.
pub(crate) fn sort<'k, T: Ord>(items: &mut [Item<T>], key: &impl Fn(&T) -> &'k [u8]) {
    sort_level(items, key, LEVELS);
}

fn sort_level<'k, T: Ord>(items: &mut [Item<T>], key: &impl Fn(&T) -> &'k [u8], levels: usize) {
    if items.len() <= FEW || levels == 0 {
        return items.sort_unstable_by(|a, b| order(a, b, key).then_with(|| a.place.cmp(&b.place)));
    }
    let some = items.iter().step_by(items.len().div_ceil(SAMPLE)).map(|item| key(&item.place));
    if !set(items, key, shared(some)) {
        let all = shared(items.iter().map(|item| key(&item.place)));
        set(items, key, all);
    }
    deal(items, 0);
    for alike in items.chunk_by_mut(|a, b| a.sort == b.sort) {
        if let [first, _, ..] = alike
            && !first.sort.is_whole()
        {
            sort_level(alike, key, levels - 1);
        }
    }
}

/// Makes all sort keys of what comes after so many bytes; `false`: not all keys begin alike.
fn set<'k, T>(items: &mut [Item<T>], key: &impl Fn(&T) -> &'k [u8], shared: usize) -> bool {
    let begin = items.first().and_then(|first| key(&first.place).get(..shared)).unwrap_or_default();
    items.chunks_mut(AHEAD).all(|next| {
        look(next.iter().map(|item| ends(key(&item.place))));
        next.iter_mut().all(|item| {
            let key = key(&item.place);
            item.sort = item.sort.after(shared, key);
            key.starts_with(begin)
        })
    })
}

/// Sorts by sort keys that are alike in all bytes before this one: items are dealt out to piles by this byte, then each pile by the next. In place, as memory
/// for a copy of all items would have to be got first (American flag sort: McIlroy, Bostic and McIlroy, "Engineering Radix Sort", 1993).
fn deal<T: Ord>(items: &mut [Item<T>], byte: usize) {
    if items.len() < MANY || byte > HEAD {
        return items.sort_unstable();
    }
    let pile_of = |item: &Item<T>| usize::from(item.sort.byte(byte));
    let mut sizes = [0; 256];
    items.iter().for_each(|item| sizes[pile_of(item)] += 1);
    if sizes.contains(&items.len()) {
        return deal(items, byte + 1);
    }
    // Of each pile: where its next item goes, and where it ends.
    let mut free = [0; 256];
    let mut end = [0; 256];
    let mut before = 0;
    for (pile, size) in sizes.iter().enumerate() {
        free[pile] = before;
        before += size;
        end[pile] = before;
    }
    for pile in 0..256 {
        while free[pile] < end[pile] {
            let at = free[pile];
            let mut goes_to = pile_of(&items[at]);
            while goes_to != pile {
                items.swap(at, free[goes_to]);
                free[goes_to] += 1;
                goes_to = pile_of(&items[at]);
            }
            free[pile] += 1;
        }
    }
    let mut rest = items;
    for size in sizes {
        let (pile, others) = rest.split_at_mut(size);
        deal(pile, byte + 1);
        rest = others;
    }
}

/// Orders two items by virtual node and key.
fn order<'k, T>(a: &Item<T>, b: &Item<T>, key: &impl Fn(&T) -> &'k [u8]) -> Ordering {
    a.vnode().cmp(&b.vnode()).then_with(|| key(&a.place).cmp(key(&b.place)))
}

/// Whether two sorted items have the same key. Equal keys were sorted by the same bytes; where that does not decide, neighbours begin alike, and so
/// their second halves are compared first.
pub(crate) fn same<'k, T>(a: &Item<T>, b: &Item<T>, key: &impl Fn(&T) -> &'k [u8]) -> bool {
    if a.sort != b.sort {
        return false;
    }
    let (first, second) = (key(&a.place), key(&b.place));
    let half = first.len() / 2;
    let parts = |bytes: &'k [u8]| bytes.split_at_checked(half).unwrap_or_default();
    let ((a_begin, a_end), (b_begin, b_end)) = (parts(first), parts(second));
    first.len() == second.len() && a_end == b_end && a_begin == b_begin
}

/// How many bytes all of these begin with.
fn shared<'k>(mut all: impl Iterator<Item = &'k [u8]>) -> usize {
    let Some(first) = all.next() else { return 0 };
    let mut shared = first.len();
    while shared > 0
        && let Some(next) = all.next()
    {
        shared = first.iter().zip(next).take(shared).take_while(|(a, b)| a == b).count();
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of few different bytes, so that many are alike far in, some the same, some the beginnings of others.
    #[test]
    fn sorts_as_comparing_whole_keys_does() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = millpond_common::hash::mix(random);
            random % below
        };
        for round in 0..300 {
            let (count, length) = (next([200, 3000][usize::from(round % 8 == 5)]), [3, 20, 60, 1500][round % 4]);
            let begin = vec![7u8; next(40) as usize];
            let letters = 1 + next(3);
            let keys = (0..count).map(|_| {
                let tail = (0..next(length)).map(|at| if at % 17 == 16 { next(letters) as u8 } else { 0 }).collect::<Vec<_>>();
                (next(2) as u8, [begin.as_slice(), &tail].concat())
            });
            let keys = keys.collect::<Vec<_>>();
            let mut expected = keys.iter().enumerate().map(|(number, (vnode, key))| (*vnode, key.as_slice(), number)).collect::<Vec<_>>();
            expected.sort();
            let items = keys.iter().enumerate().map(|(number, (vnode, key))| Item::new(*vnode, (key.as_slice(), number)));
            let mut items = items.collect::<Vec<_>>();
            sort(&mut items, &|(key, _)| *key);
            let found = items.iter().map(|i| (i.vnode(), i.place.0, i.place.1)).collect::<Vec<_>>();
            assert_eq!(found, expected);
            let is_same = items.windows(2).map(|pair| same(&pair[0], &pair[1], &|(key, _)| *key));
            let expected = expected.windows(2).map(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
            assert!(is_same.eq(expected));
        }
    }

    /// The keys that tell how all begin are not those that begin otherwise.
    #[test]
    fn few_may_begin_otherwise() {
        for odd in [1, 500, 998] {
            let mut keys =
                (0..1000u16).map(|number| [b"all but one begin so".as_slice(), &number.to_be_bytes()].concat()).collect::<Vec<_>>();
            keys[odd][3] = b'!';
            let mut items = keys.iter().rev().map(|key| Item::new(7, key.as_slice())).collect::<Vec<_>>();
            sort(&mut items, &|key| *key);
            let found = items.iter().map(|item| item.place.to_vec()).collect::<Vec<_>>();
            keys.sort();
            assert_eq!(found, keys);
        }
    }

    #[test]
    fn what_all_begin_with() {
        let table: &[(&[&[u8]], usize)] =
            &[(&[], 0), (&[b"abc"], 3), (&[b"abc", b"abd"], 2), (&[b"abc", b"ab"], 2), (&[b"abc", b"abc", b"x"], 0), (&[b"a", b""], 0)];
        for (keys, expected) in table {
            assert_eq!(shared(keys.iter().copied()), *expected, "{keys:?}");
        }
    }
}
