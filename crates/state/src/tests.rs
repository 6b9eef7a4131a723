//! The store against a model: a map of rows per relation and epoch, kept by hand.

mod basics;
mod model;
mod support;
mod tables;
