//! Values in PostgreSQL's binary form, big-endian and exact.
//!
//! - [`encode`]: columns to binary values
//! - [`decode`]: binary parameters to columns
//! - [`numeric`]: the base-10000 form of numeric

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod numeric;

pub use decode::FromBinary;
pub use encode::ToBinary;

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub(crate) const EPOCH_US: i64 = EPOCH_DAYS as i64 * crate::text::datetime::DAY_US;
