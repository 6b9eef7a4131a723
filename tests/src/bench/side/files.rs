//! Nexmark's events as files, one for each kind of event and format, the same for all engines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millpond_common::SqlType;
use millpond_connect::{FormatSpec, Poll, Span};
use parquet::arrow::ArrowWriter;

/// The kinds of events, as the sources are called.
pub const KINDS: [&str; 3] = ["person", "auction", "bid"];

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Without a header, since one of the engines cannot skip it.
    Csv,
    /// One object a line.
    Json,
    /// As the format's library writes it by default.
    Parquet,
}

impl Format {
    /// Its name, which is also the files' ending.
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Parquet => "parquet",
        }
    }
}

/// The columns of a kind of event.
pub fn columns(kind: &str) -> SchemaRef {
    millpond_connect::validate(&options(kind, 1), &FormatSpec::default(), None).unwrap()
}

/// The file of a kind of event.
pub fn path(dir: &Path, kind: &str, format: Format) -> PathBuf {
    dir.join(format!("{kind}.{}", format.name()))
}

/// Writes all files.
pub fn write(dir: &Path, events: u64, formats: &[Format]) {
    for kind in KINDS {
        let schema = columns(kind);
        let mut sinks = formats.iter().map(|f| Sink::create(&path(dir, kind, *f), *f, &schema)).collect::<Vec<_>>();
        let all = (0..schema.fields().len()).collect::<Vec<_>>();
        let mut reader = millpond_connect::open(&options(kind, events), &FormatSpec::default(), &schema, &all, Span::default()).unwrap();
        loop {
            match reader.next().unwrap() {
                Poll::Chunk(chunk) => sinks.iter_mut().for_each(|s| s.write(&chunk.delta.batch)),
                Poll::Idle => {}
                Poll::End => break,
            }
        }
        sinks.into_iter().for_each(Sink::finish);
    }
}

/// The statements that make sources of the files.
pub fn sources(dir: &Path, format: Format) -> String {
    let source = |kind: &str| {
        let columns =
            columns(kind).fields().iter().map(|f| format!("{} {}", f.name(), SqlType::of(f).name())).collect::<Vec<_>>().join(", ");
        let encode = match format {
            Format::Csv => "CSV (header = 'false')",
            Format::Json => "JSON",
            Format::Parquet => "PARQUET",
        };
        let path = path(dir, kind, format);
        format!("CREATE SOURCE {kind} ({columns}) WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE {encode};", path.display())
    };
    KINDS.map(source).join("\n")
}

fn options(kind: &str, events: u64) -> BTreeMap<String, String> {
    [("connector", "nexmark"), ("type", kind), ("events", &events.to_string())].map(|(k, v)| (k.to_string(), v.to_string())).into()
}

enum Sink {
    Csv(Box<arrow::csv::Writer<BufWriter<File>>>),
    Json(arrow::json::LineDelimitedWriter<BufWriter<File>>),
    Parquet(Box<ArrowWriter<File>>),
}

impl Sink {
    fn create(path: &Path, format: Format, schema: &SchemaRef) -> Sink {
        let file = File::create(path).unwrap();
        match format {
            Format::Csv => {
                let writer = arrow::csv::WriterBuilder::new().with_header(false).with_timestamp_format("%Y-%m-%d %H:%M:%S%.6f".into());
                Sink::Csv(Box::new(writer.build(BufWriter::new(file))))
            }
            Format::Json => Sink::Json(arrow::json::LineDelimitedWriter::new(BufWriter::new(file))),
            Format::Parquet => Sink::Parquet(Box::new(ArrowWriter::try_new(file, SchemaRef::clone(schema), None).unwrap())),
        }
    }

    fn write(&mut self, batch: &RecordBatch) {
        match self {
            Sink::Csv(writer) => writer.write(batch).unwrap(),
            Sink::Json(writer) => writer.write(batch).unwrap(),
            Sink::Parquet(writer) => writer.write(batch).unwrap(),
        }
    }

    fn finish(self) {
        match self {
            Sink::Csv(writer) => drop(writer.into_inner().into_inner().unwrap()),
            Sink::Json(mut writer) => {
                writer.finish().unwrap();
                drop(writer.into_inner().into_inner().unwrap());
            }
            Sink::Parquet(writer) => drop(writer.close().unwrap()),
        }
    }
}
