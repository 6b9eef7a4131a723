//! A text file as complete records, with byte offsets and line numbers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use millpond_common::{Error, Result, SqlState};

use super::csv::Csv;
use super::json::Json;
use super::mark::{self, Mark};
use super::rows::{Decoded, Place, Rows};
use super::{Plan, io};
use crate::Encode;

const BLOCK_BYTES: usize = 1 << 20;
/// A record larger than this is an error: most likely a quote that is never closed.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// A chunk ends when it has read this much, however few rows that are.
const CHUNK_BYTES_MAX: u64 = 8 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a decoder made of the bytes it was shown.
pub enum Step {
    /// It took a record (or a blank line, or a bad record).
    Took {
        /// Bytes of it, with its line end.
        bytes: usize,
        /// Lines of it.
        lines: u64,
    },
    /// The bytes do not hold a whole record.
    Partial,
}

/// A CSV or JSON lines file that is being read.
pub struct TextFile {
    path: String,
    file: File,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that are read from the file but not decoded.
    from: usize,
    to: usize,
    /// Where in the file `buffer[from]` is.
    offset: u64,
    line: u64,
    format: Format,
    rows: Rows,
}

enum Format {
    Csv(Csv),
    Json(Json),
}

impl TextFile {
    /// Opens a file at a mark, which must be one of this file.
    pub fn open(plan: &Plan, path: &str, mark: &Mark) -> Result<TextFile> {
        let file = File::open(path).map_err(|e| io(path, &e))?;
        let format = match &plan.encode {
            Encode::Csv { header, delimiter, null } => Format::Csv(Csv::new(plan, *header, *delimiter, null)),
            _ => Format::Json(Json::new(plan)),
        };
        let mut opened =
            TextFile { path: path.to_string(), file, buffer: vec![], from: 0, to: 0, offset: 0, line: 1, format, rows: Rows::new(plan)? };
        if mark.offset > 0 {
            opened.verify(mark)?;
            opened.begin(true)?; // the header, if there is one
            (opened.from, opened.to) = (0, 0);
            (opened.offset, opened.line) = (mark.offset + opened.line_end(mark.offset)?, mark.line);
            opened.file.seek(SeekFrom::Start(opened.offset)).map_err(|e| io(path, &e))?;
        }
        Ok(opened)
    }

    /// Checks that the file still begins with what was read of it.
    pub fn verify(&self, mark: &Mark) -> Result<()> {
        let bytes = self.file.metadata().map_err(|e| io(&self.path, &e))?.len();
        if bytes < mark.offset {
            return Err(mark::replaced(&self.path, "became shorter")
                .with_detail(format!("{} bytes of it were read, now it has {bytes}", mark.offset)));
        }
        match mark::text_check(&self.file, mark.offset) {
            Ok(check) if check == mark.check => Ok(()),
            Ok(_) => Err(mark::replaced(&self.path, "was replaced or rewritten")),
            Err(e) => Err(io(&self.path, &e)),
        }
    }

    /// The length of the line end at `offset`, if it is that of the line before: the last line of a file counts without
    /// one, and it may have been written since. More than the line end must not.
    fn line_end(&self, offset: u64) -> Result<u64> {
        let mut around = [0u8; 3];
        let count = self.file.read_at(&mut around, offset - 1).map_err(|e| io(&self.path, &e))?;
        match around[..count] {
            [b'\n', ..] | [_] | [] => Ok(0),
            [_, b'\n', ..] => Ok(1),
            [_, b'\r', b'\n'] => Ok(2),
            _ => Err(mark::replaced(&self.path, "was continued within its last line")),
        }
    }

    /// Reads only what stands before the first record.
    pub fn begin_only(&mut self) -> Result<()> {
        self.begin(true).map(|_| ())
    }

    /// How far it was read.
    pub fn mark(&self) -> Result<Mark> {
        let check = mark::text_check(&self.file, self.offset).map_err(|e| io(&self.path, &e))?;
        Ok(Mark { offset: self.offset, line: self.line, check })
    }

    /// The next rows and the bad records among them; `None`: no more complete records now, or none before `end`.
    /// With `whole` the file's end ends its last record, without it only a line end does.
    pub fn read(&mut self, batch_rows: usize, whole: bool, end: Option<u64>) -> Result<Option<Decoded>> {
        if !self.begin(whole)? {
            return Ok(None);
        }
        let start = self.offset;
        let mut last = false;
        while self.rows.len() < batch_rows && self.offset - start < CHUNK_BYTES_MAX && end.is_none_or(|end| self.offset < end) {
            let pending = &self.buffer[self.from..self.to];
            let place = Place { path: &self.path, unit: "line", number: self.line };
            let step = match &mut self.format {
                Format::Csv(csv) => csv.decode(pending, last, place, &mut self.rows)?,
                Format::Json(json) => json.decode(pending, last, place, &mut self.rows)?,
            };
            match step {
                Step::Took { bytes, lines } => self.advance(bytes, lines),
                Step::Partial if last => break,
                Step::Partial => {
                    if !self.fill()? {
                        if !whole {
                            break;
                        }
                        last = true;
                    }
                }
            }
        }
        if self.rows.is_empty() {
            self.release();
            return Ok(None);
        }
        self.rows.finish().map(Some)
    }

    /// Reads what stands before the first record. False: it is not all there yet.
    fn begin(&mut self, whole: bool) -> Result<bool> {
        if self.offset > 0 {
            return Ok(true);
        }
        let mut last = false;
        loop {
            let pending = &self.buffer[self.from..self.to];
            let undecided = pending.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(pending);
            let ready = last || !undecided;
            if ready {
                let mark_bytes = if pending.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
                let step = match &mut self.format {
                    Format::Csv(csv) => csv.header(&pending[mark_bytes..], last, &self.path)?,
                    Format::Json(_) => Step::Took { bytes: 0, lines: 0 },
                };
                match step {
                    Step::Took { bytes, lines } => {
                        self.advance(mark_bytes + bytes, lines);
                        return Ok(true);
                    }
                    Step::Partial if last => return Ok(false),
                    Step::Partial => {}
                }
            }
            if !self.fill()? {
                if !whole {
                    return Ok(false);
                }
                last = true;
            }
        }
    }

    fn advance(&mut self, bytes: usize, lines: u64) {
        self.from += bytes;
        self.offset += bytes as u64;
        self.line += lines;
    }

    /// Reads more of the file behind the pending bytes. False: there is no more now.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to >= RECORD_BYTES_MAX {
            return Err(Error::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("file \"{}\", line {}: a record is longer than {} MiB", self.path, self.line, RECORD_BYTES_MAX >> 20),
            )
            .with_hint("look for a quote that is never closed"));
        }
        let wanted = (2 * self.to).max(BLOCK_BYTES);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let count = self.file.read(&mut self.buffer[self.to..]).map_err(|e| io(&self.path, &e))?;
        self.to += count;
        Ok(count > 0)
    }

    /// Gives the buffer's memory back while there is nothing to read. Pending bytes are read again later.
    fn release(&mut self) {
        if self.from < self.to && self.file.seek(SeekFrom::Start(self.offset)).is_err() {
            return; // the bytes stay in the buffer
        }
        self.buffer = vec![];
        (self.from, self.to) = (0, 0);
    }
}
