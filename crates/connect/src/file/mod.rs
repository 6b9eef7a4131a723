//! `connector = 'file'`: the files of a glob, in the order of their names, once or for as long as they grow.
//!
//! - [`discover`]: which files there are now
//! - [`follow`]: the reader over all of them, and its positions
//! - [`mark`]: a position: how far each file was read, and how to notice that it is no longer the same file
//! - [`lines`]: a text file as complete records, with byte offsets and line numbers
//! - [`csv`], [`json`], [`parquet`]: one decoder a format
//! - [`rows`]: rows under construction, and what happens to bad ones
//! - `watch`: being told when something happens to the files
//!
//! Guarantees. Files are read in the order of their paths' bytes, each from its start. Without `follow` that is all.
//! With `follow = true` lines appended to any file and files that appear are read as they come; only complete lines
//! count, so the last line of a file needs its line end. A file that became shorter, or whose bytes before the place
//! reached are not what they were, is an error: rows that views already hold cannot be unread. Names of deleted files
//! must not be used again.

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use millpond_common::{Error, Result, SqlState};

use crate::options::{Known, Options, invalid};
use crate::{BATCH_ROWS, Encode, FormatSpec, Reader, Span};

pub mod csv;
pub mod discover;
pub mod follow;
pub mod json;
pub mod lines;
pub mod mark;
pub mod parquet;
pub mod rows;
#[cfg_attr(not(target_os = "linux"), path = "watch_nothing.rs")]
mod watch;

/// What `connector = 'file'` takes.
pub const OPTIONS: &[Known] = &[
    ("path", "a file or a glob such as 'data/orders/*.csv'"),
    ("follow", "whether to keep reading files that grow and files that appear; default false"),
    ("batch_rows", "rows read at a time; default 8192"),
    ("on_error", "what a record that cannot be read does: 'fail' (default), 'skip', which counts it, or 'dead_letter', which keeps it"),
];

const BATCH_ROWS_MAX: u64 = 1 << 20;

/// What reading needs to know of a source; shared by all its files.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The glob.
    pub pattern: String,
    /// Whether reading never ends.
    pub follow: bool,
    /// Rows of a chunk.
    pub batch_rows: usize,
    /// Whether bad records are counted and left out.
    pub skip_bad: bool,
    /// Whether they are kept.
    pub keep_bad: bool,
    /// How records are written.
    pub encode: Encode,
    /// All declared columns.
    pub schema: SchemaRef,
    /// The declared columns that are wanted, in order.
    pub projection: Vec<usize>,
}

impl Plan {
    fn new(options: &Options, format: &FormatSpec, schema: &SchemaRef, projection: &[usize]) -> Result<Plan> {
        let pattern = options.required("path", "give a file or a glob, for example path = 'data/orders/*.csv'")?.to_string();
        let batch_rows = options.number("batch_rows", 1)?.map_or(BATCH_ROWS, |n| n.min(BATCH_ROWS_MAX) as usize);
        let (skip_bad, keep_bad) = match options.text("on_error").unwrap_or("fail") {
            "fail" => (false, false),
            "skip" => (true, false),
            "dead_letter" => (true, true),
            other => return Err(invalid("on_error", other, "give 'fail', 'skip' or 'dead_letter'")),
        };
        let encode = encoding(&pattern, format)?;
        let follow = options.flag("follow", false)?;
        Ok(Plan { pattern, follow, batch_rows, skip_bad, keep_bad, encode, schema: Arc::clone(schema), projection: projection.to_vec() })
    }

    /// The schema of the chunks.
    pub fn projected(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.schema.project(&self.projection)?))
    }

    /// The columns that are decoded: the wanted ones; all when bad rows are left out, so that which rows there are does
    /// not depend on which columns are wanted.
    pub fn decoded(&self) -> Vec<usize> {
        if self.skip_bad {
            return (0..self.schema.fields().len()).collect();
        }
        let mut columns = self.projection.clone();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Checks the definition, and the first file where there is one.
pub fn validate(options: &Options, format: &FormatSpec, schema: Option<&SchemaRef>) -> Result<SchemaRef> {
    let empty = Arc::new(Schema::empty());
    let mut plan = Plan::new(options, format, schema.unwrap_or(&empty), &[])?;
    let files = discover::files(&plan.pattern)?;
    if files.is_empty() && !plan.follow {
        return Err(discover::none(&plan.pattern));
    }
    let first = files.first().map(|f| f.path.as_str());
    if schema.is_none() {
        plan.schema = match (&plan.encode, first) {
            (Encode::Parquet, Some(path)) => parquet::schema(path)?,
            (Encode::Parquet, None) => return Err(undeclared("no file is there yet that could tell them")),
            _ => return Err(undeclared("only Parquet files tell their columns' types")),
        };
    }
    match (&plan.encode, first) {
        (Encode::Csv { .. }, Some(path)) => csv::check(&plan, path)?,
        (Encode::Parquet, Some(path)) => parquet::check(&plan, path)?,
        _ => {}
    }
    Ok(plan.schema)
}

/// Opens the files.
pub fn open(options: &Options, format: &FormatSpec, schema: &SchemaRef, projection: &[usize], span: Span<'_>) -> Result<Box<dyn Reader>> {
    let plan = Plan::new(options, format, schema, projection)?;
    Ok(Box::new(follow::FileReader::new(plan, span)?))
}

fn undeclared(why: &str) -> Error {
    Error::new(SqlState::INVALID_TABLE_DEFINITION, "the source's columns must be declared")
        .with_detail(why)
        .with_hint("CREATE SOURCE name (column type, …) WITH (…)")
}

fn encoding(pattern: &str, format: &FormatSpec) -> Result<Encode> {
    if let Some(encode) = &format.encode {
        return Ok(encode.clone());
    }
    let lower = pattern.to_ascii_lowercase();
    match lower.rsplit('.').next() {
        Some("csv") => Ok(Encode::csv()),
        Some("tsv") => Ok(Encode::Csv { header: true, delimiter: b'\t', null: String::new() }),
        Some("json" | "jsonl" | "ndjson") => Ok(Encode::Json),
        Some("parquet") => Ok(Encode::Parquet),
        _ => Err(Error::new(SqlState::SYNTAX_ERROR, format!("the format of \"{pattern}\" is not declared"))
            .with_hint("add FORMAT PLAIN ENCODE CSV, JSON or PARQUET")),
    }
}

/// An I/O error with the file it concerns.
pub(crate) fn io(path: &str, error: &std::io::Error) -> Error {
    Error::new(SqlState::IO_ERROR, format!("file \"{path}\" cannot be read: {error}"))
}
