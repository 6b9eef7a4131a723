//! Digests of files. A file that was digested before is known again by its inode: hard links share it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use millpond_common::{Error, Result, SqlState};
use ring::digest::{Context, SHA256};

/// SHA-256.
pub(super) type Digest = [u8; 32];

/// What stays the same as long as a file's content does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Digests of files that were seen by the last upload.
#[derive(Default)]
pub(super) struct Digests(HashMap<Identity, Digest>);

/// A file in a checkpoint's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalFile {
    /// Path in the directory.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

impl Digests {
    /// All files below a directory, by name.
    pub(super) fn scan(&mut self, dir: &Path) -> Result<Vec<LocalFile>> {
        let mut seen = HashMap::new();
        let mut files = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in std::fs::read_dir(&next)? {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let name = path.strip_prefix(dir).ok().and_then(Path::to_str);
                let name = name.ok_or_else(|| Error::internal(format!("a checkpoint has the file {}", path.display())))?.to_owned();
                let meta = entry.metadata()?;
                let modified = (meta.mtime(), meta.mtime_nsec());
                let identity = Identity { device: meta.dev(), inode: meta.ino(), size: meta.len(), modified };
                let digest = match self.0.get(&identity) {
                    Some(known) => *known,
                    None => digest_file(&path, meta.len())?,
                };
                seen.insert(identity, digest);
                files.push(LocalFile { name, size: meta.len(), digest });
            }
        }
        self.0 = seen;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

/// The digest of a file, which must have this size.
pub(super) fn digest_file(path: &Path, size: u64) -> Result<Digest> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut read = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        context.update(buffer.get(..n).unwrap_or_default());
        read += n as u64;
    }
    if read != size {
        let message = format!("\"{}\" has {read} bytes instead of {size}", path.display());
        return Err(Error::new(SqlState::IO_ERROR, message));
    }
    finish(context)
}

/// The digest of what was added to a context.
pub(super) fn finish(context: Context) -> Result<Digest> {
    context.finish().as_ref().try_into().map_err(|_| Error::internal("a digest has another size"))
}

pub(super) fn hex(digest: &Digest) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        std::fs::create_dir_all(first.join("db")).unwrap();
        std::fs::create_dir(&second).unwrap();
        std::fs::write(first.join("db/a.sst"), "abc").unwrap();
        std::fs::write(first.join("empty"), "").unwrap();
        let mut digests = Digests::default();
        let files = digests.scan(&first).unwrap();
        assert_eq!(files.iter().map(|f| (f.name.as_str(), f.size)).collect::<Vec<_>>(), [("db/a.sst", 3), ("empty", 0)]);
        assert_eq!(hex(&files[0].digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // A planted wrong answer shows that the link is not read again, and that another file is.
        digests.0.values_mut().for_each(|d| *d = [7; 32]);
        std::fs::hard_link(first.join("db/a.sst"), second.join("b.sst")).unwrap();
        std::fs::write(second.join("c.sst"), "abc").unwrap();
        let files = digests.scan(&second).unwrap();
        assert_eq!(
            (files[0].digest, hex(&files[1].digest).as_str()),
            ([7; 32], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(digests.0.len(), 2, "what is gone is forgotten");
    }
}
