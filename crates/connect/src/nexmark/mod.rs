//! `connector = 'nexmark'`: the events of the Nexmark benchmark, an auction house with persons, auctions and bids.
//!
//! - [`tables`]: the columns, as the benchmark's SQL queries know them
//! - [`generator`]: events as pure functions of the seed and the event's number
//! - [`values`]: columns of many events at once
//! - [`strings`]: random texts
//!
//! Of every 50 events, numbered from 0 over all three kinds, the first is a person, three are auctions, 46 are bids. A
//! source with `type` gives one kind, without it all of them in one wide row with the columns of the other kinds NULL.
//! Every column is generated on its own, so columns that nobody reads cost nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use millpond_common::{Delta, Error, Result, SqlState, SqlType};

use crate::decode::time::timestamp;
use crate::options::{Known, Options, invalid};
use crate::{BATCH_ROWS, Chunk, FormatSpec, Poll, Position, Reader, Span};

pub mod generator;
pub mod strings;
pub mod tables;
pub mod values;

use generator::{EVENTS_PER_ROUND, Generator};
use tables::{Column, Stream};
use values::Values;

/// What `connector = 'nexmark'` takes.
pub const OPTIONS: &[Known] = &[
    ("type", "'person', 'auction' or 'bid'; without it all three in one wide row"),
    ("table", "another name of type"),
    ("seed", "events of one seed are always the same; default 0"),
    ("events", "how many events to make, over all three kinds; default without end"),
    ("rate", "events per second of wall clock, over all three kinds; default as fast as they are read"),
    ("base_time", "date_time of event 0; default '2015-07-15 00:00:00'"),
    ("event_gap", "what date_time grows by from event to event; default one second divided by rate, or '100us' without rate"),
    ("batch_rows", "rows made at a time; default 8192"),
];

const BASE_TIME: &str = "2015-07-15 00:00:00";
const EVENT_GAP: Duration = Duration::from_micros(100);
const BATCH_ROWS_MAX: u64 = 1 << 20;
/// What one call may sleep at most, and at least when it has to wait for the next event.
const SLEEP_MAX: Duration = Duration::from_millis(50);
const SLEEP_MIN: Duration = Duration::from_millis(5);
/// The first byte of a position, before the number of the next event.
const POSITION_VERSION: u8 = 1;

struct Config {
    stream: Stream,
    events: Option<u64>,
    rate: Option<u64>,
    batch_rows: usize,
    generator: Generator,
}

impl Config {
    fn new(options: &Options) -> Result<Config> {
        let stream = match (options.text("type"), options.text("table")) {
            (Some(text), None) => Stream::parse(text).ok_or(("type", text)),
            (None, Some(text)) => Stream::parse(text).ok_or(("table", text)),
            (None, None) => Ok(Stream::Combined),
            (Some(_), Some(text)) => return Err(invalid("table", text, "give type or table, not both")),
        };
        let stream = stream.map_err(|(name, text)| invalid(name, text, "give 'person', 'auction' or 'bid'"))?;
        let rate = options.number("rate", 1)?;
        let base_time = options.text("base_time").unwrap_or(BASE_TIME);
        let base_us = timestamp(base_time.as_bytes())
            .map_err(|_| invalid("base_time", base_time, "give a timestamp, for example '2015-07-15 00:00:00'"))?;
        let gap = match (options.duration("event_gap")?, rate) {
            (Some(gap), _) => gap,
            (None, Some(rate)) => Duration::from_nanos(1_000_000_000 / rate),
            (None, None) => EVENT_GAP,
        };
        Ok(Config {
            stream,
            events: options.number("events", 0)?,
            rate,
            batch_rows: options.number("batch_rows", 1)?.map_or(BATCH_ROWS, |n| n.min(BATCH_ROWS_MAX) as usize),
            generator: Generator::new(options.number("seed", 0)?.unwrap_or(0), base_us, gap),
        })
    }
}

/// Checks the definition. Columns need not be declared; those that are must be the benchmark's.
pub fn validate(options: &Options, format: &FormatSpec, schema: Option<&SchemaRef>) -> Result<SchemaRef> {
    let config = Config::new(options)?;
    if format.encode.is_some() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "connector \"nexmark\" makes rows, not text to decode")
            .with_hint("leave FORMAT … ENCODE … out"));
    }
    match schema {
        Some(declared) => columns(config.stream, declared).map(|_| Arc::clone(declared)),
        None => Ok(Arc::new(Schema::new(config.stream.columns().iter().map(Column::field).collect::<Vec<_>>()))),
    }
}

/// Opens the events.
pub fn open(options: &Options, schema: &SchemaRef, projection: &[usize], span: Span<'_>) -> Result<Box<dyn Reader>> {
    let mut config = Config::new(options)?;
    let all = columns(config.stream, schema)?;
    let columns = projection.iter().map(|c| all[*c]).collect::<Vec<_>>();
    let number = |position| {
        event_of(position).ok_or_else(|| Error::new(SqlState::DATA_CORRUPTED, "the stored position of a nexmark source cannot be read"))
    };
    let first = span.from.map_or(Ok(0), number)?;
    if let Some(until) = span.until {
        // These events have been made before: there is nothing to wait for.
        (config.events, config.rate) = (Some(number(until)?), None);
    }
    let values = Values::new(config.generator, &columns);
    Ok(Box::new(NexmarkReader {
        schema: Arc::new(schema.project(projection)?),
        stream: config.stream,
        events: config.events,
        rate: config.rate,
        batch_rows: config.batch_rows,
        columns,
        values,
        first,
        next: first,
        started: None,
        idle_first: config.events.is_none() && config.rate.is_none(),
    }))
}

/// The benchmark's columns for the declared ones.
fn columns(stream: Stream, declared: &SchemaRef) -> Result<Vec<Column>> {
    let known = stream.columns();
    let find = |field: &arrow_schema::Field| {
        let Some(column) = known.iter().find(|c| c.name() == *field.name()) else {
            let names = known.iter().map(Column::name).collect::<Vec<_>>().join(", ");
            return Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("nexmark has no column \"{}\"", field.name()))
                .with_hint(format!("the columns are: {names}; they need not be declared")));
        };
        if column.field().data_type() != field.data_type() {
            let (is, declared) = (SqlType::of(&column.field()).name(), SqlType::of(field).name());
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, format!("nexmark's column \"{}\" is {is}, not {declared}", field.name()))
                .with_hint("columns need not be declared"));
        }
        if !field.is_nullable() && column.field().is_nullable() {
            return Err(Error::new(SqlState::NOT_NULL_VIOLATION, format!("nexmark's column \"{}\" has nulls", field.name()))
                .with_hint("declare it without NOT NULL, or choose one type of event"));
        }
        Ok(*column)
    };
    declared.fields().iter().map(|f| find(f)).collect()
}

fn event_of(position: &Position) -> Option<u64> {
    match position.0.split_first() {
        Some((&POSITION_VERSION, number)) => Some(u64::from_le_bytes(number.try_into().ok()?)),
        _ => None,
    }
}

struct NexmarkReader {
    schema: SchemaRef,
    stream: Stream,
    events: Option<u64>,
    rate: Option<u64>,
    batch_rows: usize,
    columns: Vec<Column>,
    values: Values,
    first: u64,
    next: u64,
    started: Option<Instant>,
    /// Whether `Idle` has to be said before anything else: an endless flat-out source never waits, yet a view over it has
    /// caught up as soon as it begins, since no event exists before it is read.
    idle_first: bool,
}

impl NexmarkReader {
    /// The events that may be made now; empty when the next one is not yet due.
    fn due(&mut self) -> Range<u64> {
        let span = (self.batch_rows as u64 * EVENTS_PER_ROUND / self.stream.events_per_round()).max(1);
        let mut end = self.next.saturating_add(span).min(self.events.unwrap_or(u64::MAX));
        if let Some(rate) = self.rate {
            let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
            let allowed = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
            let allowed = u64::try_from(allowed).unwrap_or(u64::MAX).saturating_add(1); // the first at once
            end = end.min(self.first.saturating_add(allowed));
        }
        self.next..end
    }

    /// Sleeps until the next event is due, or for as long as one call may.
    fn wait(&self) {
        if let (Some(rate), Some(started)) = (self.rate, self.started) {
            let due = Duration::from_secs_f64((self.next - self.first) as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()).clamp(SLEEP_MIN, SLEEP_MAX));
        }
    }
}

impl Reader for NexmarkReader {
    fn next(&mut self) -> Result<Poll> {
        if std::mem::take(&mut self.idle_first) {
            return Ok(Poll::Idle);
        }
        let (events, rows) = loop {
            if self.events.is_some_and(|events| self.next >= events) {
                return Ok(Poll::End);
            }
            let mut range = self.due();
            if range.is_empty() {
                self.wait();
                range = self.due();
            }
            if range.is_empty() {
                return Ok(Poll::Idle);
            }
            self.next = range.end;
            let (events, rows) = self.stream.events(&range);
            if rows > 0 {
                break (events, rows);
            }
        };
        let arrays = self.columns.iter().map(|c| self.values.array(*c, &events)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        let mut end = vec![POSITION_VERSION];
        end.extend(self.next.to_le_bytes());
        Ok(Poll::Chunk(Chunk { delta: Delta::insert(batch), end: Position(end), bad_rows: 0, rejected: vec![] }))
    }

    fn describe(&self, position: &Position) -> String {
        match (event_of(position), self.events) {
            (Some(event), Some(events)) => format!("event {event} of {events}"),
            (Some(event), None) => format!("event {event}"),
            (None, _) => "unreadable position".to_string(),
        }
    }
}
