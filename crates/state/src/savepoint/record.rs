//! What is known of a savepoint: the SAVEPOINT file in its directory, and what names are good.

use std::path::Path;
use std::time::{Duration, SystemTime};

use millpond_common::{Epoch, Error, Result, SqlState};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::files::{self, FileEntry};
use crate::directory;
use crate::frame::Frame;

/// The name of the file.
const SAVEPOINT: &str = "SAVEPOINT";
const FRAME: Frame = Frame { magic: b"MPSP", version: 1, what: "the savepoint's description" };

/// As PostgreSQL's identifiers.
const NAME_BYTES_MAX: usize = 63;
const RETAINED: &str = "checkpoint-";
const FULL: &str = "full-";

/// Why a savepoint exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavepointKind {
    /// A user asked for it, and it stays until the user releases it.
    Manual,
    /// The server made it before something that a user may want to take back. It stays until it is released.
    Automatic,
    /// One of the last checkpoints, by the setting `checkpoint_retention`. Later ones take its place.
    Retained,
    /// A full checkpoint: its files share nothing with the live ones. The next full one takes its place.
    Full,
}

impl SavepointKind {
    /// One word, for SHOW SAVEPOINTS.
    pub fn as_str(&self) -> &'static str {
        match self {
            SavepointKind::Manual => "manual",
            SavepointKind::Automatic => "automatic",
            SavepointKind::Retained => "retained",
            SavepointKind::Full => "full",
        }
    }
}

/// A savepoint: the whole database as a checkpoint left it, with the table log and the catalog of its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Its name.
    pub name: String,
    /// Why it exists.
    pub kind: SavepointKind,
    /// Of its checkpoint.
    pub epoch: Epoch,
    /// Entries of the table log up to this one are in that epoch; later ones are in its log.
    pub log_seq: u64,
    /// When it was made.
    pub created: SystemTime,
    /// How long that took.
    pub duration: Duration,
    /// Bytes of all its files; those it shares with the live database or with other savepoints take space once.
    pub bytes: u64,
    /// What its maker had to say.
    pub comment: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    savepoint: Savepoint,
    files: Vec<FileEntry>,
}

/// The name of a retained checkpoint.
pub(super) fn retained_name(epoch: Epoch) -> String {
    format!("{RETAINED}{epoch}")
}

/// The name of a full checkpoint.
pub(super) fn full_name(epoch: Epoch) -> String {
    format!("{FULL}{epoch}")
}

/// A name is an identifier: whatever PostgreSQL takes between quotes.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let invalid = |why: String| Err(Error::new(SqlState("42602"), format!("invalid savepoint name: \"{name}\"")).with_detail(why));
    match name.len() {
        0 => invalid("It is empty.".to_owned()),
        1..=NAME_BYTES_MAX if name.contains('\0') => invalid("It has a character with the code zero.".to_owned()),
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => invalid(format!("It has {bytes} bytes, {NAME_BYTES_MAX} are allowed.")),
    }
}

/// The name of a savepoint's directory: letters, digits, `_` and `-` are themselves, everything else is written as in URLs.
pub(super) fn directory_of(name: &str) -> String {
    let mut directory = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_alphanumeric() || c == '_' || c == '-' {
            directory.push(c);
        } else {
            directory.extend(utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC));
        }
    }
    directory
}

/// The name of the savepoint in a directory; `None`: there is none in a directory of this name.
pub(super) fn name_of(directory: &str) -> Option<String> {
    let name = percent_decode_str(directory).decode_utf8().ok()?;
    (check_name(&name).is_ok() && directory_of(&name) == directory).then(|| name.into_owned())
}

/// The same for a name that somebody chose.
pub(super) fn check_new_name(name: &str) -> Result<()> {
    check_name(name)?;
    let reserved = [RETAINED, FULL].into_iter().find(|p| name.starts_with(p));
    reserved.map_or(Ok(()), |prefix| {
        Err(Error::new(SqlState("42939"), format!("savepoint name \"{name}\" is reserved"))
            .with_detail(format!("Names that begin with \"{prefix}\" are the server's own.")))
    })
}

/// Writes FORMAT and SAVEPOINT next to the savepoint's database; returns when they are on disk. `savepoint.bytes` is set here.
pub(super) fn write(dir: &Path, savepoint: &mut Savepoint) -> Result<()> {
    let files = files::describe(&directory::database(dir))?;
    savepoint.bytes = files::total_bytes(&files);
    let body = bincode::serialize(&Record { savepoint: savepoint.clone(), files })?;
    directory::write_format(dir)?;
    directory::replace_file(dir, SAVEPOINT, &FRAME.seal(&body))?;
    Ok(())
}

/// What a savepoint's directory says of itself; its files are not looked at.
pub(super) fn read(dir: &Path, name: &str) -> Result<Savepoint> {
    read_record(dir, name).map(|r| r.savepoint)
}

/// The same, once all files are found to be there and whole.
pub(super) fn read_verified(dir: &Path, name: &str) -> Result<Savepoint> {
    let record = read_record(dir, name)?;
    directory::read_format(dir).and_then(|_| files::verify(&directory::database(dir), &record.files)).map_err(|e| damaged(name, e))?;
    Ok(record.savepoint)
}

fn read_record(dir: &Path, name: &str) -> Result<Record> {
    let body = FRAME.read(&dir.join(SAVEPOINT)).map_err(|e| damaged(name, e))?;
    let mut record: Record = bincode::deserialize(&body).map_err(|_| damaged(name, FRAME.damaged()))?;
    // The directory's name counts: it may have been copied under another one.
    record.savepoint.name = name.to_owned();
    Ok(record)
}

/// The first error with the savepoint's name. One that is from the future stays what it is.
fn damaged(name: &str, error: Error) -> Error {
    if error.state() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE {
        return error;
    }
    let detail = error.detail().map_or_else(|| error.message().to_owned(), |d| format!("{}: {d}", error.message()));
    Error::new(SqlState::DATA_CORRUPTED, format!("savepoint \"{name}\" is damaged"))
        .with_detail(detail)
        .with_hint("It can only be released.")
}

/// There is no such savepoint.
pub(super) fn undefined(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("savepoint \"{name}\" does not exist")).with_hint("SHOW SAVEPOINTS lists them.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers() {
        for plain in ["a", "before_upgrade", "_x", "vor-Änderung2", "checkpoint", "1a", &"n".repeat(63)] {
            check_new_name(plain).unwrap();
            assert_eq!(directory_of(plain), plain);
        }
        for (name, directory) in
            [("a b", "a%20b"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a.tmp", "a%2Etmp"), ("50%", "50%25"), ("…", "%E2%80%A6")]
        {
            check_new_name(name).unwrap();
            assert_eq!((directory_of(name).as_str(), name_of(directory).as_deref()), (directory, Some(name)));
        }
        for other in ["a.tmp", "a.released", "a%2etmp", "a%62", "%FF", "%", "%00", ""] {
            assert_eq!(name_of(other), None, "{other}");
        }
        for bad in ["", "a\0", &"n".repeat(64)] {
            assert_eq!(check_name(bad).unwrap_err().state(), SqlState("42602"), "{bad}");
        }
        for reserved in [retained_name(7), full_name(7)] {
            check_name(&reserved).unwrap();
            assert_eq!(check_new_name(&reserved).unwrap_err().state(), SqlState("42939"));
        }
    }
}
