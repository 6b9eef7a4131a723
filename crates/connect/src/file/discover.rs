//! Which files a glob names now.

use std::os::unix::fs::MetadataExt;

use glob::MatchOptions;
use millpond_common::{Error, Result, SqlState};

use super::io;
use crate::options::invalid;

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path, as the glob gives it.
    pub path: String,
    /// What tells whether it changed.
    pub state: State,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last written to: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Device and inode: which file it is, whatever its name.
    pub identity: (u64, u64),
}

impl From<&std::fs::Metadata> for State {
    fn from(m: &std::fs::Metadata) -> Self {
        State { bytes: m.len(), modified: (m.mtime(), m.mtime_nsec()), identity: (m.dev(), m.ino()) }
    }
}

/// The regular files that the pattern names, in the order of their paths' bytes. Names that begin with a dot are found
/// only when the pattern says the dot, so that writers have a way to hide unfinished files.
pub fn files(pattern: &str) -> Result<Vec<Found>> {
    if !pattern.contains(['*', '?', '[']) {
        return one(pattern);
    }
    let options = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(pattern, options).map_err(|e| invalid("path", pattern, &format!("the pattern is wrong: {e}")))?;
    let mut found = vec![];
    for path in paths {
        let path = path.map_err(|e| io(&e.path().display().to_string(), e.error()))?;
        let name = path.into_os_string().into_string().map_err(|p| {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("file name {p:?} is not valid UTF-8")).with_hint("rename the file")
        })?;
        // Some were deleted a moment ago.
        let Some(metadata) = metadata(&name)? else { continue };
        if metadata.is_file() {
            found.push(Found { path: name, state: State::from(&metadata) });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The file of a pattern that is a plain path: asking for it costs a tenth of a search.
fn one(path: &str) -> Result<Vec<Found>> {
    match metadata(path)? {
        Some(m) if m.is_dir() => Err(invalid("path", path, "it is a directory; name its files, for example 'dir/*.csv'")),
        Some(m) if m.is_file() => Ok(vec![Found { path: path.to_string(), state: State::from(&m) }]),
        _ => Ok(vec![]),
    }
}

fn metadata(path: &str) -> Result<Option<std::fs::Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(io(path, &e)),
    }
}

/// The error of a pattern that names nothing.
pub fn none(pattern: &str) -> Error {
    let here = std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default();
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("no file matches \"{pattern}\""))
        .with_detail(format!("relative paths begin at the server's working directory, {here}"))
        .with_hint("correct the path, or set follow = 'true' to wait for files")
}
