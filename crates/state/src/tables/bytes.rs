//! Short byte strings without an allocation.

use std::borrow::Borrow;
use std::cmp::Ordering;

const INLINE: usize = 22;

/// An immutable byte string of 24 bytes, of which up to 22 are content; longer ones live on the heap.
/// Keys of one or two numbers, the common case, fit inside.
#[derive(Clone)]
pub(crate) enum SmallBytes {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl SmallBytes {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        match inline.get_mut(..bytes.len()) {
            Some(target) => {
                target.copy_from_slice(bytes);
                SmallBytes::Inline(bytes.len() as u8, inline)
            }
            None => SmallBytes::Heap(bytes.into()),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            SmallBytes::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            SmallBytes::Heap(bytes) => bytes,
        }
    }

    /// Bytes outside of itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            SmallBytes::Inline(..) => 0,
            SmallBytes::Heap(bytes) => bytes.len(),
        }
    }
}

impl Borrow<[u8]> for SmallBytes {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}
impl PartialEq for SmallBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for SmallBytes {}
impl PartialOrd for SmallBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for SmallBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_any_length_and_stays_small() {
        assert_eq!(size_of::<SmallBytes>(), 24);
        for length in 0..60u8 {
            let bytes = (0..length).collect::<Vec<_>>();
            let small = SmallBytes::new(&bytes);
            assert_eq!(small.as_slice(), bytes);
            assert_eq!(small.heap_bytes() > 0, length > 22);
        }
    }
}
