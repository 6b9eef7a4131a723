//! Tests of operators: tables of deltas in and deltas out, and random runs against slow twins.

#![allow(clippy::unwrap_used)]

mod aggregate;
mod bench;
mod distinct;
mod expiring;
mod join;
mod run;
mod stateless;
pub mod table;
mod top_n;
