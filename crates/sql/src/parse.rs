//! placeholder
use millpond_common::{Error, Result};
use crate::statement::Statement;
/// Splits and parses a client's text.
pub fn parse(_sql: &str) -> Result<Vec<Statement>> { Err(Error::internal("not yet")) }
