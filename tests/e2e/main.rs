//! End-to-end tests: the real server, real clients.
#![allow(clippy::unwrap_used)]

mod backfills;
mod crash;
mod docs;
mod replace;
mod savepoints;
mod scripts;
mod server;
mod spill;
mod transactions;
mod ttl;
mod unaligned;
mod upgrade;
