//! Entries that are not in memory, and which those are.

use std::ops::ControlFlow;
use std::rc::Rc;

use millpond_common::Result;

/// Is called with a key and its value.
pub type Take<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;
/// The same; says whether to go on.
pub type Walk<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'a;

/// A state table as the newest checkpoint has it.
pub trait StoredTable {
    /// Calls `take` with those of some keys that have a value. They come sorted, each once.
    fn get(&self, keys: &[&[u8]], take: &mut Take<'_>) -> Result<()>;
    /// Calls `take` with all entries whose key starts with one of `prefixes`, which come sorted, each once.
    fn prefixes(&self, prefixes: &[Vec<u8>], take: &mut Take<'_>) -> Result<()>;
    /// Calls `walk` with the entries from a key on, by ascending key, until it breaks. Returns whether it did.
    fn walk(&self, from: &[u8], walk: &mut Walk<'_>) -> Result<bool>;
}

/// What came of a look for entries to evict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Approximate bytes of memory that are free now.
    pub bytes: usize,
    /// The look has come to the end of the table; the next one begins in front.
    pub wrapped: bool,
}

/// What a hash table knows of its entries that are not in memory.
///
/// The law: an entry that is in memory is what counts; one that is not has not changed since the newest checkpoint. So an entry may
/// only leave while no change of it is on its way to a checkpoint, and a deleted one stays as a mark of its absence until then.
#[derive(Default)]
pub(super) struct Spill {
    stored: Option<Rc<dyn StoredTable>>,
    /// Entries may be stored that are not in memory.
    pub(super) partial: bool,
    /// From where on the rest is still to be read; `None`: it will not be, as something before has left.
    warm_from: Option<Vec<u8>>,
    /// Where the next look for entries to evict begins.
    hand: usize,
}

impl Spill {
    pub(super) fn attach(&mut self, stored: Rc<dyn StoredTable>, partial: bool) {
        *self = Spill { stored: Some(stored), partial, warm_from: partial.then(Vec::new), hand: 0 };
    }

    /// Where to look for what is not in memory; `None`: everything is.
    pub(super) fn beyond(&self) -> Option<Rc<dyn StoredTable>> {
        self.stored.clone().filter(|_| self.partial)
    }

    /// The place to look at next for something to evict, of `slots`; `None`: it would begin anew.
    pub(super) fn next_place(&mut self, slots: usize) -> Option<u32> {
        if self.stored.is_none() || self.hand >= slots {
            self.hand = 0;
            return None;
        }
        self.hand += 1;
        Some((self.hand - 1) as u32)
    }

    /// An entry has left.
    pub(super) fn left(&mut self) {
        (self.partial, self.warm_from) = (true, None);
    }

    /// From where to read what is not in memory yet.
    pub(super) fn warm_from(&self) -> Option<(Rc<dyn StoredTable>, Vec<u8>)> {
        Some((self.beyond()?, self.warm_from.clone()?))
    }

    /// Everything before this key is in memory; `None`: everything is. Returns whether it is.
    pub(super) fn warmed(&mut self, next: Option<Vec<u8>>) -> bool {
        self.partial = next.is_some();
        self.warm_from = next;
        !self.partial
    }
}
