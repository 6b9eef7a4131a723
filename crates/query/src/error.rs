//! Errors of DataFusion as clients see them, and errors that several statements share.

use datafusion::error::DataFusionError;
use millpond_common::{Error, SqlState};

/// DataFusion's error in PostgreSQL's terms.
pub fn from_datafusion(error: DataFusionError) -> Error {
    let own = match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => return out_of_memory(message),
        DataFusionError::External(inner) => inner.downcast_ref::<Error>().cloned(),
        _ => None,
    };
    let error = millpond_sql::error::from_datafusion(error);
    match own {
        // An error that several partitions share is wrapped where its kind is not seen.
        Some(own) if error.state() == SqlState::INTERNAL_ERROR => own,
        _ => error,
    }
}

fn out_of_memory(detail: &str) -> Error {
    Error::new(SqlState::OUT_OF_MEMORY, "out of memory")
        .with_detail(detail)
        .with_hint("Queries share a quarter of the server's memory: raise --memory, or read fewer rows at a time.")
}

/// Carries an own error through DataFusion.
pub fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A statement in a transaction block that an error has ended.
pub fn failed_block() -> Error {
    Error::new(SqlState::IN_FAILED_SQL_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block")
}

/// A statement that commits by itself, inside a block.
pub fn not_in_block(command: &str) -> Error {
    Error::new(SqlState::ACTIVE_SQL_TRANSACTION, format!("{command} cannot run inside a transaction block"))
        .with_hint("COMMIT or ROLLBACK first.")
}

/// A statement that only means something inside a block.
pub fn only_in_block(command: &str) -> Error {
    Error::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, format!("{command} can only be used in transaction blocks"))
}
