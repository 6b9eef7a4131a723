//! placeholder
use millpond_common::{Error, SqlState};
/// DataFusion's error in PostgreSQL's words.
pub fn from_datafusion(e: datafusion::error::DataFusionError) -> Error { Error::new(SqlState::INTERNAL_ERROR, e.to_string()) }
