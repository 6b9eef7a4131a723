//! Everything that Millpond keeps: one RocksDB that is, at any time, exactly the last completed checkpoint
//! plus the tail of the table log; and in memory what has changed since. In reading order:
//!
//! - [`store`]: opening a data directory, the [`Store`], its poison switch
//! - `format`: the bytes on disk: the FORMAT file, stored keys, the checkpoint record
//! - `rocks`: RocksDB as it is configured here
//! - `log`: the table log with its group commit, the catalog's records
//! - `commit`: the checkpoint's protocol, and the decision what to redo at start
//! - `relation`: the relations registered, their runs, the visible epoch, pending transactions
//! - `run`, `encode`, `tiers`: one epoch's changes; encoded and sorted; merged so that reads stay cheap
//! - [`read_view`], `scan`: one epoch for all relations: scans and point reads of base and changes
//! - [`tables`]: operator state in memory, which freezes what has changed
//! - `failpoint`: places where a crash test ends the process

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod read_view;
pub mod store;
pub mod tables;

pub use read_view::{ReadView, Scan, ScanStream};
pub use store::{Checkpoint, CommitStats, FrozenTable, Recovered, Store, StoreOptions, StoreStats};
pub use tables::{Entries, KeyedState, MultiState, SortedState, StateTable, StateValue, TableStats};
