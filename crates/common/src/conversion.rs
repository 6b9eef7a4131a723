//! Errors of conversions in PostgreSQL's words. Arrow tells them by their text only.

use crate::{Error, SqlState};

const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");

/// The error that Arrow's message tells, if it is one of a conversion.
pub fn in_words(message: &str) -> Option<Error> {
    let message = message.strip_prefix("Invalid argument error: ").unwrap_or(message);
    if let Some(rest) = message.strip_prefix("Cannot cast string '").or_else(|| message.strip_prefix("Cannot cast value '")) {
        let (value, arrow) = rest.rsplit_once("' to value of ")?;
        return Some(invalid(value, sql_name(arrow.trim_end_matches(" type"))?));
    }
    if let Some(rest) = message.strip_prefix("Can't cast value ") {
        let (_, arrow) = rest.rsplit_once(" to type ")?;
        return Some(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{} out of range", sql_name(arrow)?)));
    }
    if let Some(rest) = message.strip_prefix("Error parsing timestamp from '") {
        return Some(invalid(rest.rsplit_once("': ")?.0, "timestamp"));
    }
    if message.contains(" to store in a Decimal") || (message.starts_with("Cannot cast to Decimal") && message.contains("verflow")) {
        return Some(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow"));
    }
    let rest = message.strip_prefix("Invalid input syntax for type interval")?;
    Some(Error::new(INVALID_DATETIME_FORMAT, format!("invalid input syntax for type interval{rest}")))
}

/// Text that is no value of a type.
fn invalid(value: &str, sql_type: &str) -> Error {
    let syntax = format!("invalid input syntax for type {sql_type}: \"{value}\"");
    match sql_type {
        "date" | "timestamp" | "time without time zone" if looks_like_time(value) => {
            Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{value}\""))
        }
        "date" | "timestamp" | "time without time zone" => Error::new(INVALID_DATETIME_FORMAT, syntax),
        "smallint" | "integer" | "bigint" if value.trim().parse::<i128>().is_ok() => {
            Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{value}\" is out of range for type {sql_type}"))
        }
        "numeric" if value.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")
        }
        _ => Error::new(SqlState::INVALID_TEXT_REPRESENTATION, syntax),
    }
}

/// Whether a text has the form of a date or time, so that only its fields can be wrong.
fn looks_like_time(value: &str) -> bool {
    let value = value.trim();
    let first = value.split([' ', 'T']).next().unwrap_or_default();
    let numbers = |separator: char| {
        let parts = first.split(separator).collect::<Vec<_>>();
        (2..=3).contains(&parts.len()) && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    first.split('-').count() == 3 && numbers('-') || numbers(':')
}

/// What PostgreSQL calls an Arrow type.
fn sql_name(arrow: &str) -> Option<&'static str> {
    Some(match arrow {
        "Boolean" => "boolean",
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Date32" => "date",
        "Binary" => "bytea",
        other if other.starts_with("Decimal") => "numeric",
        other if other.starts_with("Timestamp") => "timestamp",
        other if other.starts_with("Time64") => "time without time zone",
        other if other.starts_with("Interval") => "interval",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_fail_as_in_postgresql() {
        let cases = [
            ("Cannot cast string 'abc' to value of Int32 type", "invalid input syntax for type integer: \"abc\" (22P02)"),
            ("Cannot cast string '99999999999' to value of Int32 type", "value \"99999999999\" is out of range for type integer (22003)"),
            ("Can't cast value 32768 to type Int16", "smallint out of range (22003)"),
            ("Cannot cast value 'x' to value of Boolean type", "invalid input syntax for type boolean: \"x\" (22P02)"),
            ("Cannot cast string '2023-02-29' to value of Date32 type", "date/time field value out of range: \"2023-02-29\" (22008)"),
            ("Cannot cast string '25:00' to value of Time64(µs) type", "date/time field value out of range: \"25:00\" (22008)"),
            ("Cannot cast string 'soon' to value of Date32 type", "invalid input syntax for type date: \"soon\" (22007)"),
            ("Error parsing timestamp from 'a: b': error parsing date", "invalid input syntax for type timestamp: \"a: b\" (22007)"),
            (
                "Invalid argument error: 1000.00 is too large to store in a Decimal128 of precision 5. Max is 999.99",
                "numeric field overflow (22003)",
            ),
            ("Cannot cast string 'x' to value of Decimal128(38, 10) type", "invalid input syntax for type numeric: \"x\" (22P02)"),
        ];
        assert!(in_words("something else").is_none());
        for (arrow, expected) in cases {
            assert_eq!(in_words(arrow).map(|e| e.to_string()).as_deref(), Some(expected));
        }
    }
}
