//! Where rows come from. A *connector* says how bytes are found and in which order ([`file`], [`nexmark`]);
//! a *format* says how they become columns ([`format`], with one decoder a file under [`file`]).
//!
//! - [`options`]: the `WITH (…)` of CREATE SOURCE: known names, typed values, errors with a hint
//! - [`format`]: the `FORMAT … ENCODE … (…)` of CREATE SOURCE
//! - [`file`]: CSV, JSON lines and Parquet files of a glob, once or for as long as they grow
//! - [`nexmark`]: the Nexmark benchmark's persons, auctions and bids, made from event numbers
//! - [`decode`]: texts to columns, by PostgreSQL's rules
//!
//! A [`Reader`] is replayable: every [`Chunk`] carries the [`Position`] after it, and [`open`] at that position
//! gives exactly the rows that followed. Exactly-once needs nothing more of a source.

use std::collections::BTreeMap;

use arrow_schema::SchemaRef;
use millpond_common::{Delta, Error, Result};
use serde::{Deserialize, Serialize};

pub mod decode;
pub mod file;
pub mod format;
pub mod nexmark;
pub mod options;

pub use format::{Encode, FormatSpec};

use options::Options;

/// The connectors that exist, for messages.
pub const CONNECTORS: [&str; 2] = ["file", "nexmark"];

/// Rows of a chunk unless the option `batch_rows` says otherwise.
pub const BATCH_ROWS: usize = 8192;

/// A place in a source's input, opaque to everybody but the connector that made it. Equal bytes are equal places.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Position(pub Vec<u8>);

/// What to read of a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span<'a> {
    /// After this place; `None`: from the start.
    pub from: Option<&'a Position>,
    /// Up to this place, which a reader of the same source has come to and `from` has not passed: as fast as can be, then
    /// the reader ends, whether or not the source does. `None`: all there is and will be.
    pub until: Option<&'a Position>,
}

impl<'a> Span<'a> {
    /// All after a place.
    pub fn after(from: Option<&'a Position>) -> Span<'a> {
        Span { from, until: None }
    }
}

/// Some rows, and where they end.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The rows; their schema is the projected declared columns. May be empty when all were bad.
    pub delta: Delta,
    /// Opening here gives exactly the rest.
    pub end: Position,
    /// Records that were left out of `delta` because `on_error = 'skip'` or `'dead_letter'` allows it.
    pub bad_rows: u64,
    /// The same, with `on_error = 'dead_letter'`.
    pub rejected: Vec<Rejected>,
}

/// Bytes of a rejected record that are kept.
pub const REJECTED_BYTES_MAX: usize = 4096;

/// A record that could not be read.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Where it is in its source. Reading it again gives the same.
    pub place: String,
    /// How it was written there, at most [`REJECTED_BYTES_MAX`] of it.
    pub raw: Vec<u8>,
    /// What is wrong with it.
    pub error: Error,
}

/// What a reader has to say when asked for rows.
#[derive(Debug)]
pub enum Poll {
    /// Here are some.
    Chunk(Chunk),
    /// Nothing now; more may come.
    Idle,
    /// There will never be more.
    End,
}

/// An open source. It is called by one thread, which may be any.
pub trait Reader: Send {
    /// The next rows. Blocks for at most some 50 ms. After `End` it keeps answering `End`; after an error the reader
    /// is of no more use, but opening anew at the last chunk's end is sound.
    fn next(&mut self) -> Result<Poll>;

    /// A position in words, for `SHOW SOURCES` and logs.
    fn describe(&self, position: &Position) -> String;
}

/// Checks a source's definition when it is created, and gives its columns: the declared ones, or the connector's or
/// the file's own where none are declared.
pub fn validate(options: &BTreeMap<String, String>, format: &FormatSpec, schema: Option<&SchemaRef>) -> Result<SchemaRef> {
    match connector(options)? {
        Connector::File => file::validate(&Options::new("file", options, file::OPTIONS)?, format, schema),
        Connector::Nexmark => nexmark::validate(&Options::new("nexmark", options, nexmark::OPTIONS)?, format, schema),
    }
}

/// Opens a source for reading the columns `projection` of `schema`, in that order.
pub fn open(
    options: &BTreeMap<String, String>,
    format: &FormatSpec,
    schema: &SchemaRef,
    projection: &[usize],
    span: Span<'_>,
) -> Result<Box<dyn Reader>> {
    match connector(options)? {
        Connector::File => file::open(&Options::new("file", options, file::OPTIONS)?, format, schema, projection, span),
        Connector::Nexmark => nexmark::open(&Options::new("nexmark", options, nexmark::OPTIONS)?, schema, projection, span),
    }
}

/// Whether reading comes to an end, so that a SELECT outside a view can answer. False for definitions that are not valid.
pub fn is_bounded(options: &BTreeMap<String, String>) -> bool {
    match connector(options) {
        Ok(Connector::File) => Options::new("file", options, file::OPTIONS).is_ok_and(|o| !o.flag("follow", false).unwrap_or(true)),
        Ok(Connector::Nexmark) => options.contains_key("events"),
        Err(_) => false,
    }
}

enum Connector {
    File,
    Nexmark,
}

fn connector(options: &BTreeMap<String, String>) -> Result<Connector> {
    let hint = || format!("the connectors are: {}", CONNECTORS.join(", "));
    match options.get("connector").map(|c| c.to_ascii_lowercase()).as_deref() {
        Some("file") => Ok(Connector::File),
        Some("nexmark") => Ok(Connector::Nexmark),
        Some(other) => Err(Error::unsupported(format!("unknown connector \"{other}\""), hint())),
        None => Err(options::missing("connector", &hint())),
    }
}
