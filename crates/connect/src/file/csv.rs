//! CSV as RFC 4180 and PostgreSQL's COPY have it. Quoted and unquoted empty fields are different things (an empty text
//! and NULL), so the records are split here and not by a library that forgets the quotes.

use millpond_common::{Error, Result, SqlState};

use super::Plan;
use super::lines::{Step, TextFile};
use super::mark::Mark;
use super::rows::{Place, Rows};
use crate::decode::{Bad, shown};

/// The state of decoding one file.
pub struct Csv {
    delimiter: u8,
    null: Vec<u8>,
    has_header: bool,
    /// All declared columns' names, and those of them that are decoded.
    names: Vec<String>,
    decoded: Vec<usize>,
    /// For each field of a record the decoded column it goes to. Known after the header.
    targets: Vec<Option<usize>>,
    fields: Vec<Field>,
    unescaped: Vec<u8>,
}

/// A field's place in the bytes of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    from: usize,
    to: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Quoted,
    /// Quoted, with doubled quotes inside.
    Escaped,
}

/// Opens the file and reads its header, which must have all declared columns.
pub fn check(plan: &Plan, path: &str) -> Result<()> {
    let mut plan = plan.clone();
    plan.projection.clear();
    plan.skip_bad = true;
    TextFile::open(&plan, path, &Mark::START)?.begin_only()
}

impl Csv {
    /// Decoding of the plan's columns.
    pub fn new(plan: &Plan, has_header: bool, delimiter: u8, null: &str) -> Csv {
        Csv {
            delimiter,
            null: null.as_bytes().to_vec(),
            has_header,
            names: plan.schema.fields().iter().map(|f| f.name().clone()).collect(),
            decoded: plan.decoded(),
            targets: vec![],
            fields: vec![],
            unescaped: vec![],
        }
    }

    /// Finds the columns' places, from the file's first record or from their order.
    pub fn header(&mut self, pending: &[u8], last: bool, path: &str) -> Result<Step> {
        if !self.has_header {
            self.targets = (0..self.names.len()).map(|c| self.decoded.iter().position(|d| *d == c)).collect();
            return Ok(Step::Took { bytes: 0, lines: 0 });
        }
        if pending.is_empty() {
            return Ok(Step::Partial);
        }
        let (bytes, lines) = match split(pending, self.delimiter, last, &mut self.fields) {
            Split::Record { bytes, lines } => (bytes, lines),
            Split::Partial => return Ok(Step::Partial),
            Split::Malformed { reason, .. } => {
                return Err(Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("file \"{path}\" has a malformed header: {reason}")));
            }
        };
        let header = self.fields.iter().map(|f| String::from_utf8_lossy(&pending[f.from..f.to]).trim().to_string()).collect::<Vec<_>>();
        self.targets = vec![None; header.len()];
        for (column, name) in self.names.iter().enumerate() {
            let place = header.iter().position(|h| h == name).or_else(|| header.iter().position(|h| h.eq_ignore_ascii_case(name)));
            let Some(place) = place else {
                return Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("file \"{path}\" has no column \"{name}\""))
                    .with_detail(format!("its header is: {}", header.join(", ")))
                    .with_hint("correct the column's name, or set header = 'false' if the file has no header"));
            };
            self.targets[place] = self.decoded.iter().position(|d| *d == column);
        }
        Ok(Step::Took { bytes, lines })
    }

    /// Takes one record.
    pub fn decode(&mut self, pending: &[u8], last: bool, place: Place, rows: &mut Rows) -> Result<Step> {
        if pending.is_empty() {
            return Ok(Step::Partial);
        }
        match split(pending, self.delimiter, last, &mut self.fields) {
            Split::Partial => Ok(Step::Partial),
            Split::Malformed { bytes, lines, reason } => {
                rows.reject(place, None, Bad::new(SqlState::INVALID_TEXT_REPRESENTATION, reason), trim(&pending[..bytes]))?;
                Ok(Step::Took { bytes, lines })
            }
            Split::Record { bytes, lines } => {
                // a blank line is no record, but for a single column, where it is its NULL
                let blank = matches!(self.fields[..], [Field { from, to, form: Form::Plain }] if from == to);
                if !blank || self.targets.len() == 1 {
                    self.record(&pending[..bytes], place, rows)?;
                }
                Ok(Step::Took { bytes, lines })
            }
        }
    }

    fn record(&mut self, bytes: &[u8], place: Place, rows: &mut Rows) -> Result<()> {
        if self.fields.len() != self.targets.len() {
            let reason = format!("the record has {} fields where {} are expected", self.fields.len(), self.targets.len());
            return rows.reject(place, None, Bad::new(SqlState::INVALID_TEXT_REPRESENTATION, reason), trim(bytes));
        }
        for (field, target) in self.fields.iter().zip(&self.targets) {
            let Some(column) = *target else { continue };
            let text = &bytes[field.from..field.to];
            let pushed = match field.form {
                Form::Plain if text == self.null => rows.push_null(column),
                Form::Escaped => {
                    unescape(text, &mut self.unescaped);
                    rows.push(column, |c| c.push_text(&self.unescaped))
                }
                Form::Plain | Form::Quoted => rows.push(column, |c| c.push_text(text)),
            };
            if let Err((column, bad)) = pushed {
                return rows.reject(place, Some(column), bad, trim(bytes));
            }
        }
        rows.commit();
        Ok(())
    }
}

/// A record without its line end.
fn trim(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

fn unescape(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut quote_before = false;
    for byte in text {
        let doubled = *byte == b'"' && quote_before;
        if !doubled {
            out.push(*byte);
        }
        quote_before = *byte == b'"' && !doubled;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Split {
    Record { bytes: usize, lines: u64 },
    Malformed { bytes: usize, lines: u64, reason: String },
    Partial,
}

/// Finds the fields of the record that the bytes begin with. With `last` the bytes' end is the record's end too.
fn split(bytes: &[u8], delimiter: u8, last: bool, fields: &mut Vec<Field>) -> Split {
    fields.clear();
    // Nearly every record is a line without quotes.
    if let Some(end) = memchr::memchr(b'\n', bytes)
        && let line = &bytes[..end]
        && memchr::memchr(b'"', line).is_none()
    {
        let mut from = 0;
        for to in memchr::memchr_iter(delimiter, line) {
            fields.push(Field { from, to, form: Form::Plain });
            from = to + 1;
        }
        fields.push(Field { from, to: end, form: Form::Plain });
        strip_return(bytes, fields);
        return Split::Record { bytes: end + 1, lines: 1 };
    }
    let mut at = 0;
    let mut lines = 1;
    loop {
        let end;
        if bytes.get(at) == Some(&b'"') {
            let Some(quoted) = quoted(bytes, at) else {
                if !last {
                    return Split::Partial;
                }
                let reason = format!("a quoted field is not closed: {}", shown(&bytes[at..]));
                return Split::Malformed { bytes: bytes.len(), lines, reason };
            };
            lines += quoted.lines;
            fields.push(quoted.field);
            end = quoted.field.to + 1;
            let follows = &bytes[end..];
            let closed = matches!(follows, [] | [b'\n', ..] | [b'\r', b'\n', ..] | [b'\r']) || follows[0] == delimiter;
            if !closed {
                let Some(line_end) = follows.iter().position(|b| *b == b'\n').map(|p| end + p + 1).or(last.then_some(bytes.len())) else {
                    return Split::Partial;
                };
                return Split::Malformed { bytes: line_end, lines, reason: "text follows the closing quote of a field".to_string() };
            }
        } else {
            end = at + bytes[at..].iter().position(|b| *b == delimiter || *b == b'\n').unwrap_or(bytes.len() - at);
            fields.push(Field { from: at, to: end, form: Form::Plain });
        }
        match &bytes[end..] {
            [byte, ..] if *byte == delimiter => at = end + 1,
            [b'\n', ..] => {
                strip_return(bytes, fields);
                return Split::Record { bytes: end + 1, lines };
            }
            [b'\r', b'\n', ..] => return Split::Record { bytes: end + 2, lines },
            _ if last => {
                strip_return(bytes, fields);
                return Split::Record { bytes: bytes.len(), lines };
            }
            _ => return Split::Partial,
        }
    }
}

/// The carriage return before a line feed belongs to the line end.
fn strip_return(bytes: &[u8], fields: &mut [Field]) {
    if let Some(field) = fields.last_mut().filter(|f| f.form == Form::Plain)
        && bytes[field.from..field.to].last() == Some(&b'\r')
    {
        field.to -= 1;
    }
}

struct Quoted {
    field: Field,
    /// Line ends inside.
    lines: u64,
}

/// The field whose opening quote is at `open`, without its quotes; `None` if it is not closed.
fn quoted(bytes: &[u8], open: usize) -> Option<Quoted> {
    let mut at = open + 1;
    let mut lines = 0;
    let mut form = Form::Quoted;
    loop {
        match bytes.get(at)? {
            b'"' if bytes.get(at + 1) == Some(&b'"') => {
                form = Form::Escaped;
                at += 2;
            }
            b'"' => return Some(Quoted { field: Field { from: open + 1, to: at, form }, lines }),
            b'\n' => {
                lines += 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
}
