//! The `WITH (…)` of CREATE SOURCE: every connector lists its options, and what it does not list is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_common::{Error, Result, SqlState};

/// An option's name and what it means.
pub type Known = (&'static str, &'static str);

/// The options of one source, all of them known to its connector.
pub struct Options<'a> {
    connector: &'static str,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    /// Refuses names that are neither `connector` nor in `known`.
    pub fn new(connector: &'static str, values: &'a BTreeMap<String, String>, known: &[Known]) -> Result<Self> {
        for name in values.keys() {
            if name != "connector" && !known.iter().any(|(k, _)| k == name) {
                return Err(unknown(&format!("connector \"{connector}\""), name, known));
            }
        }
        Ok(Options { connector, values })
    }

    /// The text of an option.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(String::as_str)
    }

    /// The text of an option that must be there.
    pub fn required(&self, name: &str, hint: &str) -> Result<&'a str> {
        match self.text(name) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(missing(name, hint).with_detail(format!("connector \"{}\" needs it", self.connector))),
        }
    }

    /// A boolean option.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.text(name).map_or(Ok(default), |text| flag(name, text))
    }

    /// A whole number of at least `least`.
    pub fn number(&self, name: &str, least: u64) -> Result<Option<u64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().replace('_', "").parse::<u64>() {
            Ok(n) if n >= least => Ok(Some(n)),
            _ => Err(invalid(name, text, &format!("give a whole number of at least {least}"))),
        }
    }

    /// A duration such as `100us`, `5 ms`, `1s`, `2min`.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match duration(text) {
            Some(d) => Ok(Some(d)),
            None => Err(invalid(name, text, "give a number and a unit: ns, us, ms, s, min or h, for example '100us'")),
        }
    }
}

/// A boolean as PostgreSQL's settings take it.
pub fn flag(name: &str, text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "yes" | "1" => Ok(true),
        "false" | "f" | "off" | "no" | "0" => Ok(false),
        _ => Err(invalid(name, text, "give 'true' or 'false'")),
    }
}

/// A value that the option does not take.
pub fn invalid(name: &str, value: &str, hint: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for option \"{name}\": \"{value}\"")).with_hint(hint)
}

/// An option that must be given.
pub fn missing(name: &str, hint: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("option \"{name}\" is required")).with_hint(hint)
}

/// An option that does not exist.
pub fn unknown(owner: &str, name: &str, known: &[Known]) -> Error {
    let names = known.iter().map(|(k, _)| *k).collect::<Vec<_>>().join(", ");
    let hint = if names.is_empty() { "it has no options".to_string() } else { format!("the options are: {names}") };
    Error::new(SqlState::SYNTAX_ERROR, format!("{owner} has no option \"{name}\"")).with_hint(hint)
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let nanos: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "ns" => 1,
        "us" | "µs" | "microseconds" | "microsecond" => 1_000,
        "ms" | "milliseconds" | "millisecond" => 1_000_000,
        "s" | "sec" | "seconds" | "second" => 1_000_000_000,
        "min" | "minutes" | "minute" => 60_000_000_000,
        "h" | "hours" | "hour" => 3_600_000_000_000,
        _ => return None,
    };
    number.checked_mul(nanos).map(Duration::from_nanos)
}
