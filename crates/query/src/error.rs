//! Errors of DataFusion as clients see them, and errors that several statements share.

use datafusion::error::DataFusionError;
use millpond_common::{Error, SqlState};

/// DataFusion's error in PostgreSQL's terms.
pub fn from_datafusion(error: DataFusionError) -> Error {
    let error = millpond_sql::error::from_datafusion(error);
    cast_error(error.message()).unwrap_or(error)
}

/// A text that is no value of a type, as PostgreSQL says it.
fn cast_error(message: &str) -> Option<Error> {
    const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");
    if let Some(rest) = message.split_once("Error parsing timestamp from '").map(|(_, rest)| rest) {
        let (value, _) = rest.split_once("': ")?;
        return Some(Error::new(INVALID_DATETIME_FORMAT, format!("invalid input syntax for type timestamp: \"{value}\"")));
    }
    let (_, rest) = message.split_once("Cannot cast string '").or_else(|| message.split_once("Cannot cast value '"))?;
    let (value, arrow) = rest.rsplit_once("' to value of ")?;
    let known = [
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("Int64", "bigint"),
        ("Float32", "real"),
        ("Float64", "double precision"),
        ("Decimal", "numeric"),
        ("Boolean", "boolean"),
        ("Date", "date"),
        ("Timestamp", "timestamp"),
        ("Time", "time"),
        ("Interval", "interval"),
    ];
    let (_, name) = known.iter().find(|(start, _)| arrow.starts_with(start))?;
    let digits = value.trim().trim_start_matches(['+', '-']);
    if arrow.starts_with("Int") && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{value}\" is out of range for type {name}")));
    }
    let state = match *name {
        "date" | "timestamp" | "time" | "interval" => INVALID_DATETIME_FORMAT,
        _ => SqlState::INVALID_TEXT_REPRESENTATION,
    };
    Some(Error::new(state, format!("invalid input syntax for type {name}: \"{value}\"")))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn casts_fail_in_postgresqls_words() {
        let said = |message: &str| {
            let error = cast_error(message).unwrap();
            (error.state().0, error.message().to_string())
        };
        assert_eq!(said("Cannot cast string 'x' to value of Int32 type"), ("22P02", "invalid input syntax for type integer: \"x\"".into()));
        assert_eq!(said("Cannot cast string '1e' to value of Date32 type"), ("22007", "invalid input syntax for type date: \"1e\"".into()));
        let large = said("Cannot cast string '99999999999' to value of Int32 type");
        assert_eq!(large, ("22003", "value \"99999999999\" is out of range for type integer".into()));
        let timestamp = said("Error parsing timestamp from 'abc': error parsing date");
        assert_eq!(timestamp, ("22007", "invalid input syntax for type timestamp: \"abc\"".into()));
        assert!(cast_error("something else").is_none());
    }
}
