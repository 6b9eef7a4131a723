//! Everything that Millpond keeps: one RocksDB that is, at any time, exactly the last completed checkpoint
//! plus the tail of the table log; and in memory what has changed since. In reading order:
//!
//! - [`store`]: opening a data directory, the [`Store`]
//! - `directory`, `format`: the directory and its lock; the bytes on disk: FORMAT file, stored keys, checkpoint record
//! - `rocks`, `poison`, `rescue`: RocksDB as it is configured here; what happens when it fails; opening after that
//! - `log`: the table log with its group commit, the catalog's records
//! - `commit`, `sst`: the checkpoint's protocol and files, and the decision what to redo at start
//! - `relation`: the registered relations with their runs of changes, pending transactions
//! - `rewind`: back to the last checkpoint, for a job that is restarted
//! - `encode`, `run`, `tiers`: runs encoded and sorted; sorted runs; merged so that reads stay cheap
//! - [`read_view`], `scan`: one epoch for all relations: point reads and scans of base and changes
//! - [`tables`]: operator state in memory, which freezes what has changed
//! - [`failpoint`]: places where a crash test ends the process

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commit;
mod directory;
mod encode;
pub mod failpoint;
mod format;
mod log;
mod poison;
pub mod read_view;
mod relation;
mod rescue;
mod rewind;
mod rocks;
mod run;
mod scan;
mod sst;
pub mod store;
pub mod tables;
mod tiers;

pub use read_view::{ReadView, Scan, ScanStream};
pub use store::{Checkpoint, CommitStats, FrozenTable, Recovered, Store, StoreOptions, StoreStats, Visit};
pub use tables::{Entries, KeyedState, MultiState, SortedState, StateTable, StateValue, TableStats};

#[cfg(test)]
mod tests;
