//! Everything that Millpond keeps: one RocksDB that is, at any time, exactly the last completed checkpoint
//! plus the tail of the table log; and in memory what has changed since. In reading order:
//!
//! - [`store`]: opening a data directory, the [`Store`]
//! - `directory`, `format`, `frame`: the directory and its lock; the bytes on disk: FORMAT file, stored keys, checkpoint record;
//!   what our files begin with
//! - `file`: `std::fs` whose errors name the file
//! - `options`: how to open a store, and what can be changed later ([`Store::tune`])
//! - `rocks`, `poison`, `rescue`: RocksDB as it is configured here; what happens when it fails; opening after that
//! - `reached`: a note of how far the database had come
//! - `log`: the table log with its group commit, the catalog's records
//! - `commit`, `write`, `sst`: the checkpoint's protocol, what it writes in what order, its files; the decision what to redo at start
//! - `relation`: the registered relations with their runs of changes, pending transactions
//! - `rewind`: back to the last checkpoint, for a job that is restarted
//! - `encode`, `sort_key`, `ahead`, `run`, `tiers`: runs encoded and sorted (and how keys are sorted); sorted runs; merged so that reads stay cheap
//! - `appended`: relations that only grow: rows in the order in which they came, by column
//! - [`read_view`], `scan`: one epoch for all relations: point reads and scans of base and changes
//! - `key_range`: reading a range of keys
//! - `columns`, `patched`: columns of stored rows that queries have read, kept in memory; with the changes since
//! - `part`: reading a relation in parts, from one view after another
//! - [`savepoint`]: copies of the whole database by hard links, kept until released: [`Store::savepoint_create`], `_list`,
//!   `_release`, `_open` (for reading), `_restore`; [`Store::checkpoint_full`] writes every byte;
//!   [`Store::set_checkpoint_retention`] keeps the last checkpoints; [`fork`] makes a new data directory of one
//! - [`tables`]: operator state in memory, which freezes what has changed; `lookup`: the part of it that is not in memory
//! - [`remote`]: checkpoints on another machine, and back
//! - [`failpoint`]: places where a crash test ends the process; [`planted`]: bugs that a test plants to see that its harness finds them

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ahead;
mod appended;
mod columns;
mod commit;
mod directory;
mod encode;
pub mod failpoint;
mod file;
mod format;
mod frame;
pub mod key_range;
mod log;
mod lookup;
mod options;
mod part;
mod patched;
pub mod planted;
mod poison;
mod reached;
pub mod read_view;
mod relation;
pub mod remote;
mod rescue;
mod rewind;
mod rocks;
mod run;
pub mod savepoint;
mod scan;
mod sort_key;
mod sst;
pub mod store;
pub mod tables;
mod tiers;
mod write;

pub use frame::Frame;
pub use key_range::{KeyBound, KeyRange};
pub use lookup::TableLookup;
pub use options::{Compression, StoreOptions, Tuning};
pub use part::{KeySplitter, Unread};
pub use read_view::{ReadView, RowStream, Scan};
pub use savepoint::{Savepoint, SavepointKind, SavepointReader, fork, restore_at_next_open};
pub use store::{Checkpoint, CommitStats, FrozenTable, Recovered, Store, StoreStats};
pub use tables::{
    Entries, Evicted, KeyedState, MultiState, RowForm, SortedState, StateTable, StateValue, StoredTable, TableStats, Take, Walk,
};

#[cfg(test)]
mod tests;
