//! JSON lines: one object a line. Keys go to the columns of their name; other keys are passed over.

use std::ops::Range;

use millpond_common::{Result, SqlState};

use super::Plan;
use super::lines::Step;
use super::rows::{Place, Rows};
use crate::decode::json::{push, skip_space, string_end, value_end};
use crate::decode::{Bad, shown};

/// The state of decoding one file.
pub struct Json {
    /// The names of the decoded columns.
    names: Vec<String>,
    /// For each decoded column where its value is in the line, and whether the key was written exactly as the name.
    found: Vec<Option<(Range<usize>, bool)>>,
    /// The line has neither backslashes nor control characters.
    plain: bool,
    /// The keys of the line before: lines of one file mostly have the same keys in the same order.
    keys: Vec<Key>,
}

/// The decoded column that a key names, and whether the key is written exactly as the name.
type Target = (usize, bool);

/// A key as it was written, with its quotes, and its column.
struct Key {
    text: Vec<u8>,
    /// Its first bytes as a number, and which bytes of a number those are: one comparison decides about most keys.
    head: u128,
    mask: u128,
    target: Option<Target>,
}

impl Key {
    const HEAD_BYTES: usize = size_of::<u128>();

    fn new(text: &[u8], target: Option<Target>) -> Key {
        let padded = |byte: fn(u8) -> u8| {
            let mut bytes = [0; Key::HEAD_BYTES];
            bytes.iter_mut().zip(text).for_each(|(to, from)| *to = byte(*from));
            u128::from_le_bytes(bytes)
        };
        Key { text: text.to_vec(), head: padded(|byte| byte), mask: padded(|_| u8::MAX), target }
    }

    /// Whether the text begins with it.
    fn begins(&self, text: &[u8]) -> bool {
        match text.first_chunk() {
            Some(head) => {
                u128::from_le_bytes(*head) & self.mask == self.head && (self.text.len() <= Key::HEAD_BYTES || text.starts_with(&self.text))
            }
            None => text.starts_with(&self.text),
        }
    }
}

impl Json {
    /// Decoding of the plan's columns.
    pub fn new(plan: &Plan) -> Json {
        let names = plan.decoded().into_iter().map(|c| plan.schema.field(c).name().clone()).collect::<Vec<_>>();
        Json { found: vec![None; names.len()], plain: false, names, keys: vec![] }
    }

    /// Takes one line.
    pub fn decode(&mut self, pending: &[u8], last: bool, place: Place, rows: &mut Rows) -> Result<Step> {
        let (line, bytes) = match memchr::memchr(b'\n', pending) {
            Some(end) => (&pending[..end], end + 1),
            None if last && !pending.is_empty() => (pending, pending.len()),
            None => return Ok(Step::Partial),
        };
        if skip_space(line, 0) < line.len() {
            self.line(line, place, rows)?;
        }
        Ok(Step::Took { bytes, lines: 1 })
    }

    fn line(&mut self, line: &[u8], place: Place, rows: &mut Rows) -> Result<()> {
        if let Err(at) = self.object(line) {
            let reason = format!("invalid JSON object, at byte {}: {}", at + 1, shown(&line[at.min(line.len())..]));
            return rows.reject(place, None, Bad::new(SqlState::INVALID_TEXT_REPRESENTATION, reason), line);
        }
        for (column, found) in self.found.iter().enumerate() {
            let pushed = match found {
                Some((range, _)) if line[range.start] != b'n' => rows.push(column, |c| push(c, &line[range.clone()], self.plain)),
                _ => rows.push_null(column),
            };
            if let Err((column, bad)) = pushed {
                return rows.reject(place, Some(column), bad, line);
            }
        }
        rows.commit();
        Ok(())
    }

    /// Finds the columns' values; the error is the place where the line stops being an object.
    fn object(&mut self, line: &[u8]) -> Result<(), usize> {
        self.found.fill(None);
        self.plain = is_plain(line);
        let mut at = skip_space(line, 0);
        if line.get(at) != Some(&b'{') {
            return Err(at);
        }
        at = skip_space(line, at + 1);
        let mut member = 0;
        let mut more = line.get(at) != Some(&b'}');
        while more {
            let (target, key_end) = self.key(line, at, member)?;
            at = skip_space(line, key_end);
            if line.get(at) != Some(&b':') {
                return Err(at);
            }
            let from = skip_space(line, at + 1);
            let to = match line.get(from) {
                Some(b'"') if self.plain => from + 2 + memchr::memchr(b'"', &line[from + 1..]).ok_or(line.len())?,
                Some(b'1'..=b'9') => {
                    let end = from + line[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    if matches!(line.get(end), Some(b',' | b'}')) { end } else { value_end(line, from)? }
                }
                _ => value_end(line, from)?,
            };
            if let Some((column, exact)) = target
                && (exact || !matches!(self.found[column], Some((_, true))))
            {
                self.found[column] = Some((from..to, exact));
            }
            at = skip_space(line, to);
            more = match line.get(at) {
                Some(b',') => true,
                Some(b'}') => false,
                _ => return Err(at),
            };
            if more {
                at = skip_space(line, at + 1);
            }
            member += 1;
        }
        at = skip_space(line, at + 1);
        if at == line.len() { Ok(()) } else { Err(at) }
    }

    /// The column that the object's `member`-th key, which begins at `at`, names, and the key's end.
    fn key(&mut self, line: &[u8], at: usize, member: usize) -> Result<(Option<Target>, usize), usize> {
        if let Some(known) = self.keys.get(member)
            && known.begins(&line[at..])
        {
            return Ok((known.target, at + known.text.len()));
        }
        let end = string_end(line, at)?;
        let target = self.find(&line[at + 1..end - 1]);
        self.keys.truncate(member);
        if self.keys.len() == member {
            self.keys.push(Key::new(&line[at..end], target));
        }
        Ok((target, end))
    }

    fn find(&self, key: &[u8]) -> Option<Target> {
        let written;
        let key = if key.contains(&b'\\') {
            written = serde_json::from_slice::<String>(&[b"\"", key, b"\""].concat()).ok()?;
            written.as_bytes()
        } else {
            key
        };
        let exact = self.names.iter().position(|n| n.as_bytes() == key).map(|c| (c, true));
        exact.or_else(|| self.names.iter().position(|n| n.as_bytes().eq_ignore_ascii_case(key)).map(|c| (c, false)))
    }
}

/// Whether no string in the line can have an escape or a character that is not allowed: then each ends at the next quote.
fn is_plain(line: &[u8]) -> bool {
    const WIDTH: usize = 32;
    // Without an end in between, so that the compiler makes few comparisons of many bytes.
    let special = |bytes: &[u8; WIDTH]| bytes.iter().fold(false, |any, byte| any | (*byte < 0x20) | (*byte == b'\\'));
    let (blocks, rest) = line.as_chunks();
    let rest = match line.last_chunk() {
        Some(last) => special(last),
        None => rest.iter().any(|byte| *byte < 0x20 || *byte == b'\\'),
    };
    !rest && !blocks.iter().any(special)
}
