//! Sources as the engine uses them: validate, open, read, and open again at any position.
#![allow(clippy::unwrap_used)]

mod csv;
mod data;
mod follow;
mod json;
mod nexmark;
mod options;
mod parquet;
mod replay;
mod support;
