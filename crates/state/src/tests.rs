//! The store against a model: a map of rows per relation and epoch, kept by hand.

mod basics;
mod crash;
mod model;
mod pending;
mod rewind;
mod storage;
mod support;
mod tables;
