//! The `FORMAT … ENCODE … (…)` of CREATE SOURCE.

use std::collections::BTreeMap;

use millpond_common::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::options::{self, Known, flag, invalid};

/// How one record is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encode {
    /// Comma-separated values, quoted with `"` where needed.
    Csv {
        /// Whether a file's first record names the columns. Without it, columns are taken by place.
        header: bool,
        /// The byte between fields.
        delimiter: u8,
        /// The unquoted text that means NULL.
        null: String,
    },
    /// One JSON object a line.
    Json,
    /// Apache Parquet.
    Parquet,
}

impl Encode {
    /// CSV with a header, commas, and NULL as the empty unquoted text.
    pub fn csv() -> Encode {
        Encode::Csv { header: true, delimiter: b',', null: String::new() }
    }
}

/// What a source's definition says of its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatSpec {
    /// The encoding, if it is declared. Files without it are told by their name's ending.
    pub encode: Option<Encode>,
}

const CSV_OPTIONS: &[Known] = &[
    ("header", "whether the first record of a file names the columns; default true"),
    ("delimiter", "the character between fields; default ','"),
    ("null", "the unquoted text that means NULL; default the empty one"),
];

impl FormatSpec {
    /// From the words of a statement: `FORMAT format ENCODE encode (options)`.
    pub fn new(format: &str, encode: &str, options: &BTreeMap<String, String>) -> Result<FormatSpec> {
        if !format.eq_ignore_ascii_case("plain") {
            return Err(Error::unsupported(format!("FORMAT {} is not supported", format.to_ascii_uppercase()), "use FORMAT PLAIN"));
        }
        let name = encode.to_ascii_uppercase();
        let known = if name == "CSV" { CSV_OPTIONS } else { &[] };
        let encode = match name.as_str() {
            "CSV" => csv(options)?,
            "JSON" => Encode::Json,
            "PARQUET" => Encode::Parquet,
            _ => return Err(Error::unsupported(format!("ENCODE {name} is not supported"), "the encodings are: CSV, JSON, PARQUET")),
        };
        if let Some(name_of_option) = options.keys().find(|o| !known.iter().any(|(k, _)| k == o)) {
            return Err(options::unknown(&format!("ENCODE {name}"), name_of_option, known));
        }
        Ok(FormatSpec { encode: Some(encode) })
    }
}

fn csv(options: &BTreeMap<String, String>) -> Result<Encode> {
    let header = options.get("header").map_or(Ok(true), |t| flag("header", t))?;
    let delimiter = match options.get("delimiter").map(String::as_str) {
        None => b',',
        Some("\\t" | "tab") => b'\t',
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
            _ => return Err(invalid("delimiter", text, "give one ASCII character other than a quote or a line end; '\\t' is a tab")),
        },
    };
    Ok(Encode::Csv { header, delimiter, null: options.get("null").cloned().unwrap_or_default() })
}
