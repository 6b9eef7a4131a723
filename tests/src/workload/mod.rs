//! Work that clients do, with what must hold afterwards.

pub mod bank;
pub mod isolation;
pub mod queries;
pub mod statements;
