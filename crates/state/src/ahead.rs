//! Looks at memory ahead of its use, where what comes next lies all over it.

/// How many entries are looked at ahead of their use. Such looks do not depend on each other, so the processor waits for memory once for
/// several of them.
pub(crate) const AHEAD: usize = 32;

/// Makes the looks of which these are the outcomes.
#[inline]
pub(crate) fn look<T>(outcomes: impl Iterator<Item = T>) {
    outcomes.for_each(|outcome| drop(std::hint::black_box(outcome)));
}

/// First and last byte of some bytes: mostly they bring all of them.
#[inline]
pub(crate) fn ends(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or(0) ^ bytes.last().copied().unwrap_or(0)
}
