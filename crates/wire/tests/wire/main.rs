//! The protocol against a database that only pretends: see [`fake`] for what its statements do.

#![allow(clippy::unwrap_used)]

mod extended;
mod fake;
mod golden;
mod malformed;
mod raw;
mod sessions;
mod values;
