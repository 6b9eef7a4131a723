//! Operator state in memory: maps from key bytes to values, each of which knows what has changed since it was last frozen.
//!
//! Keys start with the virtual node's byte; what is frozen is what the checkpoint stores, and [`StateTable::load`] takes it
//! back. Which structure holds an operator's state decides what it can be asked: [`KeyedState`] point reads, [`MultiState`]
//! all rows of a key, [`SortedState`] ranges in order.
//!
//! Freezing takes no time at the barrier: [`StateTable::seal`] ends a generation of changes by swapping two lists. The
//! sealed changes are encoded afterwards, in slices between the steps of the dataflow ([`StateTable::drain`]); an entry that is to
//! change before its turn has come is encoded first. That costs the worker less than handing the values over would: each
//! changed entry is visited once more, and never copied or merged back. Sorting, writing and syncing are the committer's.
//!
//! A table need not be in memory as a whole. After a start it is [attached](StateTable::attach) to what the newest checkpoint has of it, and read
//! when it is asked for, and meanwhile little by little ([`StateTable::warm`]); when memory is short, entries that have not changed since
//! the newest checkpoint leave ([`StateTable::evict`]). An operator fetches the keys of its epoch before it asks for any of them: many at a
//! time, and once. See `stored` for the law that keeps this right.

mod bytes;
mod entries;
mod gaps;
mod keyed;
mod multi;
mod slab;
mod sorted;
mod stored;
mod value;

pub use entries::Entries;
pub use keyed::KeyedState;
pub use multi::{MultiState, RowForm};
pub use sorted::SortedState;
pub use stored::{Evicted, StoredTable, Take, Walk};
pub use value::StateValue;

use std::rc::Rc;

use millpond_common::Result;

/// Size of a state table in memory, for metrics and memory control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Live rows in memory (for [`MultiState`]: distinct rows).
    pub rows: u64,
    /// Approximate bytes of memory.
    pub bytes: u64,
}

/// What the driver needs of any operator's state.
pub trait StateTable {
    /// What has changed since the last call (or since it was made or loaded) is to be drained; later changes belong to the
    /// next call. The last call's changes must have been drained. Takes no time to speak of.
    fn seal(&mut self);
    /// Encodes sealed changes, at most about `max`; `None` when there are no more. Each key comes at most once, in no order. Applying
    /// these entries to what earlier calls gave yields the whole state as it was when it was sealed.
    fn drain(&mut self, max: usize) -> Option<Entries>;
    /// Both at once: appends what has changed to `out`.
    fn freeze(&mut self, out: &mut Entries) {
        self.seal();
        while let Some(entries) = self.drain(usize::MAX) {
            out.append(entries);
        }
    }
    /// Puts back one stored entry. Only on a table that nothing else has touched yet.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// From now on entries may be evicted. `partial`: none of what is stored is in memory yet; only on a table that nothing else has touched.
    fn attach(&mut self, stored: Rc<dyn StoredTable>, partial: bool);
    /// Whether entries may be stored that are not in memory.
    fn is_partial(&self) -> bool;
    /// Reads more of what is stored, about `max` entries. Returns whether there is nothing more to be read this way: all is in memory, or
    /// some has been evicted meanwhile.
    fn warm(&mut self, max: usize) -> Result<bool>;
    /// Looks at about so many entries, and evicts those that have neither changed since they were encoded nor been fetched since they were looked
    /// at last. Only while nothing that was sealed is on its way to a checkpoint; does nothing on a table that is not attached.
    fn evict(&mut self, visits: usize) -> Evicted;
    /// Its size.
    fn stats(&self) -> TableStats;
}

/// Whether an entry has changed since it was last encoded, and in which generation. There are never more than two: the
/// open one and the sealed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Clean,
    Even,
    Odd,
}

impl Mark {
    /// The other generation.
    fn other(self) -> Mark {
        if self == Mark::Even { Mark::Odd } else { Mark::Even }
    }
}

/// The changes of a table's two generations. `H` is a hint where a changed entry is: entries move and places are used
/// again, so its [`Mark`] decides.
struct Generations<H> {
    /// Of entries that change now.
    open: Mark,
    touched: Vec<H>,
    /// Hints of the sealed generation that are still to be looked at.
    sealed: Vec<H>,
    /// Entries of the sealed generation that had to be encoded before their turn.
    early: Entries,
    /// What an entry of the last piece that had any took.
    entry_bytes: usize,
}

impl<H> Generations<H> {
    fn new() -> Self {
        Generations { open: Mark::Even, touched: Vec::new(), sealed: Vec::new(), early: Entries::new(), entry_bytes: 0 }
    }

    fn seal(&mut self) {
        debug_assert!(self.sealed.is_empty() && self.early.is_empty(), "the last generation has been drained");
        self.open = self.open.other();
        std::mem::swap(&mut self.touched, &mut self.sealed); // both keep their capacity
    }

    /// What the next piece begins with, with room for about so many more.
    fn begin_piece(&mut self, max: usize) -> Entries {
        let mut piece = std::mem::take(&mut self.early);
        piece.reserve(max.min(self.sealed.len()), self.entry_bytes);
        piece
    }

    /// The piece, if there is anything in it or after it.
    fn end_piece(&mut self, piece: Entries) -> Option<Entries> {
        if !piece.is_empty() {
            self.entry_bytes = piece.bytes_each();
        }
        (!piece.is_empty() || !self.sealed.is_empty()).then_some(piece)
    }

    /// Whether an entry with this mark must be encoded before it may change.
    #[inline]
    fn is_sealed(&self, mark: Mark) -> bool {
        mark == self.open.other()
    }
}
