//! A source under test: files in a temporary directory, and rows as texts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{Schema, SchemaRef};
use millpond_common::{Error, Result, SqlType};
use millpond_connect::{Encode, FormatSpec, Poll, Position, Reader, Span, open, validate};

/// A source's definition.
pub struct Source {
    pub options: BTreeMap<String, String>,
    pub format: FormatSpec,
    pub schema: SchemaRef,
}

pub fn numeric(precision: u8, scale: i8) -> SqlType {
    SqlType::Numeric { precision, scale }
}

/// Nullable columns.
pub fn schema(columns: &[(&str, SqlType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(n, t)| t.field(n, true)).collect::<Vec<_>>()))
}

pub fn map(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

impl Source {
    pub fn file(dir: &Dir, pattern: &str, encode: Encode, columns: &[(&str, SqlType)]) -> Source {
        let path = dir.path(pattern).display().to_string();
        Source {
            options: map(&[("connector", "file"), ("path", &path)]),
            format: FormatSpec { encode: Some(encode) },
            schema: schema(columns),
        }
    }

    pub fn nexmark(options: &[(&str, &str)]) -> Source {
        let mut options = map(options);
        options.insert("connector".into(), "nexmark".into());
        let format = FormatSpec::default();
        let schema = validate(&options, &format, None).unwrap();
        Source { options, format, schema }
    }

    pub fn with(mut self, option: &str, value: &str) -> Source {
        self.options.insert(option.into(), value.into());
        self
    }

    pub fn open(&self, from: Option<&Position>) -> Result<Box<dyn Reader>> {
        self.open_columns(&(0..self.schema.fields().len()).collect::<Vec<_>>(), from)
    }

    pub fn open_columns(&self, projection: &[usize], from: Option<&Position>) -> Result<Box<dyn Reader>> {
        open(&self.options, &self.format, &self.schema, projection, Span::after(from))
    }

    /// The rows between two places.
    pub fn between(&self, from: Option<&Position>, until: &Position) -> Vec<String> {
        let columns = (0..self.schema.fields().len()).collect::<Vec<_>>();
        let mut reader = open(&self.options, &self.format, &self.schema, &columns, Span { from, until: Some(until) }).unwrap();
        all(reader.as_mut()).unwrap().rows
    }

    pub fn validate(&self) -> Result<SchemaRef> {
        validate(&self.options, &self.format, Some(&self.schema))
    }

    /// All rows of a source that ends.
    pub fn rows(&self) -> Vec<String> {
        all(self.open(None).unwrap().as_mut()).unwrap().rows
    }

    pub fn columns(&self, projection: &[usize]) -> Vec<String> {
        all(self.open_columns(projection, None).unwrap().as_mut()).unwrap().rows
    }

    /// The error that reading ends with.
    pub fn error(&self) -> Error {
        match self.open(None) {
            Ok(mut reader) => all(reader.as_mut()).expect_err("the source is bad"),
            Err(e) => e,
        }
    }
}

/// What a reader gave.
#[derive(Debug, Default)]
pub struct Read {
    pub rows: Vec<String>,
    pub bad_rows: u64,
    /// After each chunk: how many rows there were, and the position.
    pub ends: Vec<(usize, Position)>,
}

impl Read {
    fn add(&mut self, poll: Poll) -> bool {
        let Poll::Chunk(chunk) = poll else { return false };
        assert!(chunk.delta.diffs.is_none());
        self.rows.extend(texts(&chunk.delta.batch));
        self.bad_rows += chunk.bad_rows;
        self.ends.push((self.rows.len(), chunk.end));
        true
    }
}

/// Reads to the end.
pub fn all(reader: &mut dyn Reader) -> Result<Read> {
    let mut read = Read::default();
    loop {
        let poll = reader.next()?;
        if matches!(poll, Poll::End) {
            assert!(matches!(reader.next()?, Poll::End), "the end stays the end");
            return Ok(read);
        }
        read.add(poll);
    }
}

/// Reads until the source has nothing more for now.
pub fn present(reader: &mut dyn Reader) -> Result<Read> {
    let mut read = Read::default();
    while read.add(reader.next()?) {}
    Ok(read)
}

/// Rows as texts, fields between bars, NULL as ∅.
pub fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("∅");
    let zoned = |c: &ArrayRef| match c.as_primitive_opt::<TimestampMicrosecondType>() {
        // Arrow shows named zones only with a feature that nothing else needs
        Some(times) if times.timezone().is_some() => Arc::new(times.clone().with_timezone("+00:00")),
        _ => Arc::clone(c),
    };
    let shown = batch.columns().iter().map(zoned).collect::<Vec<_>>();
    let columns = shown.iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect::<Vec<_>>();
    (0..batch.num_rows()).map(|r| columns.iter().map(|c| c.value(r).to_string()).collect::<Vec<_>>().join("|")).collect()
}

/// A temporary directory with files.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new(files: &[(&str, &str)]) -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| dir.write(name, text));
        dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn append(&self, name: &str, text: &str) {
        std::fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }
}
