//! Faults in the middle of statements of every kind. Each module is a harness with a table of its own.
//!
//! - `victim`: the server, what was answered, and whether it is there
//! - `points`: the server ends at each named step
//! - `disk`: a disk that fails; `errors`: a write, sync or read fails; `power`: what was not synced is lost
//! - `full`: a file system without space
//! - `three_way`: straight, restarted, rescaled and batch are equal

pub mod disk;
pub mod errors;
pub mod full;
pub mod points;
pub mod power;
pub mod three_way;
pub mod victim;
