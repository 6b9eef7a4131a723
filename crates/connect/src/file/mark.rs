//! Positions in files.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use millpond_common::{Error, Result, SqlState};
use serde::{Deserialize, Serialize};

use crate::Position;

const VERSION: u8 = 1;
const HEAD_BYTES: u64 = 1024;
const TAIL_BYTES: u64 = 256;

/// How far one file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The next byte of a text file, the next row of a Parquet file.
    pub offset: u64,
    /// The number of the next line, for messages.
    pub line: u64,
    /// Fingerprint of bytes already read: it notices that another file is under the name.
    pub check: u64,
}

impl Mark {
    /// A file's start.
    pub const START: Mark = Mark { offset: 0, line: 1, check: 0 };
}

/// How far all files were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Every file up to this name is done (reading once only: nothing is noted of those files).
    pub through: Option<String>,
    /// Files that were begun, and when following also files read to their present end.
    pub files: BTreeMap<String, Mark>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    through: Option<String>,
    files: Vec<StoredMark>,
}

/// Names come sorted, so each is stored as what differs from the one before.
#[derive(Serialize, Deserialize)]
struct StoredMark {
    shared_bytes: u32,
    rest: String,
    mark: Mark,
}

impl Marks {
    /// As an opaque position.
    pub fn encode(&self) -> Result<Position> {
        let mut before = "";
        let mut files = Vec::with_capacity(self.files.len());
        for (path, mark) in &self.files {
            let mut shared = path.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
            while !path.is_char_boundary(shared) {
                shared -= 1;
            }
            files.push(StoredMark { shared_bytes: shared as u32, rest: path[shared..].to_string(), mark: *mark });
            before = path;
        }
        let stored = Stored { version: VERSION, through: self.through.clone(), files };
        Ok(Position(bincode::serialize(&stored)?))
    }

    /// From an opaque position.
    pub fn decode(position: &Position) -> Result<Marks> {
        let broken = || Error::new(SqlState::DATA_CORRUPTED, "the stored position of a file source cannot be read");
        if position.0.first() != Some(&VERSION) {
            return Err(broken());
        }
        let stored: Stored = bincode::deserialize(&position.0)?;
        let mut files = BTreeMap::new();
        let mut before = String::new();
        for file in stored.files {
            let shared = before.get(..file.shared_bytes as usize).ok_or_else(broken)?;
            let path = format!("{shared}{}", file.rest);
            before.clone_from(&path);
            files.insert(path, file.mark);
        }
        Ok(Marks { through: stored.through, files })
    }

    /// In words.
    pub fn describe(&self, unit: &str) -> String {
        let at = |(path, mark): (&String, &Mark)| format!("{path}: {unit} {}", mark.offset);
        match (self.files.len(), &self.through) {
            (0, None) => "start".to_string(),
            (0, Some(path)) => format!("all of {path}"),
            (n @ 1..=3, _) => self.files.iter().map(at).take(n).collect::<Vec<_>>().join(", "),
            (n, _) => format!("{}, and {} files before", self.files.iter().next_back().map(at).unwrap_or_default(), n - 1),
        }
    }
}

/// The fingerprint of a text file of which `offset` bytes were read: of its first and of the last of these bytes.
pub fn text_check(file: &File, offset: u64) -> std::io::Result<u64> {
    let mut hash = fnv(FNV_START, file, 0, offset.min(HEAD_BYTES))?;
    let tail = offset.min(TAIL_BYTES);
    hash = fnv(hash, file, offset - tail, tail)?;
    Ok(hash)
}

/// The fingerprint of a finished file, such as Parquet: of its length and its end, which holds its metadata.
pub fn whole_check(file: &File) -> std::io::Result<u64> {
    let bytes = file.metadata()?.len();
    let tail = bytes.min(HEAD_BYTES);
    fnv(FNV_START ^ bytes, file, bytes - tail, tail)
}

/// The error of a file that is not what it was.
pub fn replaced(path: &str, what: &str) -> Error {
    Error::new(SqlState::DATA_EXCEPTION, format!("file \"{path}\" {what} after it was read"))
        .with_detail("rows already read from it may be in views and cannot be unread")
        .with_hint("files may only be appended to; give new content a new name, or drop and create the source to read everything anew")
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(mut hash: u64, file: &File, offset: u64, length: u64) -> std::io::Result<u64> {
    let mut bytes = [0u8; HEAD_BYTES as usize];
    let bytes = &mut bytes[..length as usize];
    file.read_exact_at(bytes, offset)?;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints hold positions: what this version writes must be read by every later one.
    #[test]
    fn stored_form() {
        let mark = |offset| Mark { offset, line: offset / 10, check: 7 };
        let files = [("data/a-1.csv", 100), ("data/a-2.csv", 2000), ("data/ä.csv", 3), ("data/å.csv", 4)];
        let files = files.into_iter().map(|(path, offset)| (path.to_string(), mark(offset))).collect();
        let marks = Marks { through: Some("data/0.csv".into()), files };
        let Ok(position) = marks.encode() else { panic!("marks are encoded") };
        let text =
            position.0.iter().map(|b| if b.is_ascii_graphic() { char::from(*b).to_string() } else { format!(" {b} ") }).collect::<String>();
        // lengths are 64 bits wide; their zero bytes are left out here
        let expected = " 1  1  10 data/0.csv 4  12 data/a-1.csvd 10  7  7  5 2.csv 208  7  200  7  5  6  195  164 .csv 3  7  5  6  195  165 .csv 4  7 ";
        assert_eq!(text.replace(" 0 ", ""), expected);
        assert!(Marks::decode(&position).is_ok_and(|decoded| decoded == marks));
    }
}
