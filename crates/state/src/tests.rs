//! The store against a model: a map of rows per relation and epoch, kept by hand.

mod appended;
mod basics;
mod columns;
mod crash;
mod damage;
mod golden;
mod measure;
mod model;
mod part;
mod pending;
mod rewind;
mod sample;
mod savepoints;
mod spill;
mod storage;
pub(crate) mod support;
mod tables;
mod tuning;
