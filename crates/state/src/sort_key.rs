//! What settles most comparisons of stored keys while they are sorted, without a look at the keys, which lie all over memory.

use std::cmp::Ordering;

/// Bytes of a key that it has.
const HEAD: usize = 15;

/// A key's first 15 bytes, filled up with zeros, and then its length, or 16 if that is more. So keys in this order are in theirs, and
/// equal ones of up to 15 bytes are equal keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SortKey(u128);

impl SortKey {
    /// Of a key in two parts, the first of which has one byte.
    pub(crate) fn of_parts(first: u8, rest: &[u8]) -> Self {
        let mut bytes = [0u8; HEAD + 1];
        let head = &rest[..rest.len().min(HEAD - 1)];
        bytes[0] = first;
        bytes[1..=head.len()].copy_from_slice(head);
        bytes[HEAD] = (rest.len() + 1).min(HEAD + 1) as u8;
        SortKey(u128::from_be_bytes(bytes))
    }

    /// Of a key that is not empty.
    pub(crate) fn of(key: &[u8]) -> Self {
        let (first, rest) = key.split_first().unwrap_or((&0, &[]));
        SortKey::of_parts(*first, rest)
    }

    /// The key's first byte.
    pub(crate) fn first(self) -> u8 {
        (self.0 >> (8 * HEAD)) as u8
    }

    /// Orders two keys; calls `rest` where they must be compared themselves.
    #[inline]
    pub(crate) fn order(self, other: SortKey, rest: impl FnOnce() -> Ordering) -> Ordering {
        let is_whole = self.0 as u8 <= HEAD as u8;
        self.cmp(&other).then_with(|| if is_whole { Ordering::Equal } else { rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_the_keys_do() {
        let mut keys = vec![];
        for length in [1, 2, 14, 15, 16, 17, 40] {
            for (at, byte) in [(0, 1), (0, 255), (13, 7), (14, 7), (15, 7), (39, 7)] {
                let mut key = vec![0u8; length];
                key.get_mut(at).into_iter().for_each(|b| *b = byte);
                keys.push(key);
            }
        }
        for a in &keys {
            for b in &keys {
                assert_eq!(SortKey::of(a).order(SortKey::of(b), || a.cmp(b)), a.cmp(b), "{a:?} {b:?}");
            }
            assert_eq!(SortKey::of(a).first(), a[0]);
        }
        let short = SortKey::of(&[7; 15]);
        assert_eq!(short.order(SortKey::of(&[7; 15]), || unreachable!("15 bytes are enough")), Ordering::Equal);
    }
}
