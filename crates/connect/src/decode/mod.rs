//! Texts to columns, by the rules of PostgreSQL's input functions. CSV fields and JSON values both end here.
//!
//! - [`column`]: a growing column of any SQL type that can take back its last values
//! - [`number`], [`time`], [`interval`], [`text`]: one parser a type
//! - [`json`]: the JSON grammar, and JSON values into columns

use millpond_common::SqlState;

pub mod column;
pub mod interval;
pub mod json;
pub mod number;
pub mod text;
pub mod time;

pub use column::Column;

/// Why a text is no value of its type.
#[derive(Clone, Debug)]
pub struct Bad {
    /// The SQLSTATE that PostgreSQL would give.
    pub state: SqlState,
    /// The primary message.
    pub message: String,
}

impl Bad {
    /// `invalid input syntax for type …`.
    pub fn syntax(type_name: &str, text: &[u8]) -> Bad {
        Bad {
            state: SqlState::INVALID_TEXT_REPRESENTATION,
            message: format!("invalid input syntax for type {type_name}: \"{}\"", shown(text)),
        }
    }

    /// `value … is out of range for type …`.
    pub fn range(type_name: &str, text: &[u8]) -> Bad {
        Bad {
            state: SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            message: format!("value \"{}\" is out of range for type {type_name}", shown(text)),
        }
    }

    /// Any other reason.
    pub fn new(state: SqlState, message: impl Into<String>) -> Bad {
        Bad { state, message: message.into() }
    }
}

/// A value as messages show it: readable, and not longer than a line.
pub fn shown(text: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS_MAX)]);
    let mut short = text.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
