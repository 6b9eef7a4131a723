//! Operator state in memory: maps from key bytes to values, each of which knows what has changed since it was last frozen.
//!
//! Keys start with the virtual node's byte; what [`StateTable::freeze`] gives is what the checkpoint stores, and
//! [`StateTable::load`] takes it back. Which structure holds an operator's state decides what it can be asked:
//! [`KeyedState`] point reads, [`MultiState`] all rows of a key, [`SortedState`] ranges in order.

mod bytes;
mod keyed;
mod multi;
mod slab;
mod sorted;
mod value;

pub use keyed::KeyedState;
pub use multi::MultiState;
pub use sorted::SortedState;
pub use value::StateValue;

use millpond_common::Result;

/// Changes of a state table: stored key (first byte: virtual node) and its value, `None` = deleted.
pub type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Size of a state table, for metrics and memory control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Live rows (for [`MultiState`]: distinct rows).
    pub rows: u64,
    /// Approximate bytes of memory.
    pub bytes: u64,
}

/// What the driver needs of any operator's state.
pub trait StateTable {
    /// Appends what has changed since the last call (or since it was made or loaded); each key at most once, in no order.
    /// Applying these entries to what earlier calls gave yields the whole state.
    fn freeze(&mut self, out: &mut Entries);
    /// Puts back one stored entry. Only on a table that nothing else has touched yet.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Its size.
    fn stats(&self) -> TableStats;
}
