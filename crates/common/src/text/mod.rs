//! Values in PostgreSQL's text form, as `psql` shows them and as literals and parameters give them.
//!
//! - [`encode`]: whole columns to text ([`encode::to_text`])
//! - [`decode`]: text to columns ([`decode::from_text`], [`decode::ColumnBuilder`])
//! - [`number`], [`datetime`], [`interval`], [`mod@array`], [`json`], [`scalar`]: one kind of value each
//! - [`json_path`]: parts of JSON
//! - [`zone`]: time zones

pub mod array;
pub mod datetime;
pub mod decode;
pub mod encode;
pub mod interval;
pub mod json;
pub mod json_path;
pub mod number;
pub mod scalar;
pub mod zone;

use crate::{Error, SqlState};

/// SQLSTATE of a date or time that cannot be read.
pub const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");
/// SQLSTATE of text that is not UTF-8, or holds a zero byte.
pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState("22021");

/// `invalid input syntax for type integer: "abc"`.
pub fn invalid_syntax(type_name: &str, text: &str) -> Error {
    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {type_name}: \"{}\"", shorten(text)))
}

/// `value "99999999999" is out of range for type integer`.
pub fn out_of_range(type_name: &str, text: &str) -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{}\" is out of range for type {type_name}", shorten(text)))
}

/// A value as an error message quotes it: the beginning of a long one.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Checks that bytes are text that PostgreSQL would store.
pub fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    let invalid = |at: usize, length: usize| {
        let shown = bytes[at..].iter().take(length).map(|b| format!("0x{b:02x}")).collect::<Vec<_>>().join(" ");
        Error::new(CHARACTER_NOT_IN_REPERTOIRE, format!("invalid byte sequence for encoding \"UTF8\": {shown}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|e| invalid(e.valid_up_to(), e.error_len().unwrap_or(4)))?;
    match bytes.iter().position(|b| *b == 0) {
        Some(at) => Err(invalid(at, 1)),
        None => Ok(text),
    }
}
