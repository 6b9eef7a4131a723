//! What needs the whole server: a harness that starts, kills and restarts it, the batch oracle, and workloads.
#![allow(clippy::unwrap_used)] // a failed step of a test is the test's failure

pub mod crash;
pub mod faults;
pub mod finding;
pub mod oracle;
pub mod random;
pub mod server;
pub mod slt;
pub mod workload;
