//! A store and its remote storage: what is uploaded is a savepoint, and what is restored becomes one, from which the next
//! start continues.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_common::{Epoch, Error, Result, SqlState};

use super::claim::new_identity;
use super::uploader::CheckpointCopy;
use super::{Cancel, RemoteStorage, Restored, Uploader, UploaderOptions, Which};
use crate::failpoint::failpoint;
use crate::frame::Frame;
use crate::savepoint::{self, ARRIVED, Leaving};
use crate::{Recovered, Store, StoreOptions, directory, file};

/// Says which database a data directory holds: made with the first upload, and restored with the database.
const IDENTITY: &str = "IDENTITY";
const FRAME: Frame = Frame { magic: b"MPID", version: 1, what: "the identity of the database" };
/// Where a database goes that could not be opened and was restored.
const DAMAGED: &str = "db.damaged";

impl CheckpointCopy for Leaving {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl Store {
    /// Uploads the store's checkpoints from now on, until what this returns is dropped.
    pub fn upload_to(self: &Arc<Self>, storage: Arc<RemoteStorage>, options: UploaderOptions) -> Result<Uploader> {
        let database = match identity(&self.dir)? {
            Some(database) => database,
            None => {
                let new = new_identity()?;
                write_identity(&self.dir, &new)?;
                new
            }
        };
        let store = Arc::downgrade(self);
        Uploader::start(storage, database, options, move |version| match store.upgrade() {
            Some(store) => store.savepoint_leaving(version),
            None => Ok(None),
        })
    }
}

/// Which database a data directory holds, if that was ever asked.
fn identity(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(IDENTITY);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        read => file::named(&path, read)?,
    };
    // Before there was a checksum.
    let bare = bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit);
    let body = if bare { bytes } else { FRAME.read(&path)? };
    String::from_utf8(body).map(Some).map_err(|_| FRAME.damaged())
}

fn write_identity(dir: &Path, identity: &str) -> Result<()> {
    Ok(directory::replace_file(dir, IDENTITY, &FRAME.seal(identity.as_bytes()))?)
}

/// A store, open.
pub struct Opened {
    /// The store.
    pub store: Arc<Store>,
    /// What it knows of the time before.
    pub recovered: Recovered,
    /// If its database was lost or damaged: what was restored.
    pub restored: Option<Restored>,
}

/// [`Store::open`], but where the data directory has no database, or one that cannot be opened because it is damaged, it
/// continues from the newest whole checkpoint in the storage: what was done after that checkpoint is lost. A damaged
/// database is kept as `db.damaged`. The storage is not asked as long as the directory is good. If it is asked and cannot
/// be reached, that is an error: an empty database would look as if all was lost.
pub fn open_or_restore(dir: &Path, options: &StoreOptions, storage: &RemoteStorage, cancel: &Cancel) -> Result<Opened> {
    let mut damage = None;
    if !savepoint::is_lost(dir)? {
        match Store::open(dir, options) {
            Err(error) if is_damage(&error) => damage = Some(error),
            opened => return finish(opened?, None),
        }
    }
    match damage {
        Some(damage) => restore_damaged(dir, options, storage, cancel, damage),
        None if storage.list()?.is_empty() => finish(Store::open(dir, options)?, None),
        None => {
            tracing::warn!(storage = storage.url(), "the data directory has no database: restoring it");
            open_restored(dir, options, storage, cancel)
        }
    }
}

/// The second half of [`open_or_restore`]: also for a store that did open, and is closed, if reading it has given an error that
/// [`is_damaged_file`] says is of that kind. That error is given back if the storage has nothing.
pub fn restore_damaged(dir: &Path, options: &StoreOptions, storage: &RemoteStorage, cancel: &Cancel, damage: Error) -> Result<Opened> {
    if storage.list()?.is_empty() {
        return Err(damage);
    }
    let what = damage.detail().map_or_else(|| damage.to_string(), |detail| format!("{damage}: {detail}"));
    tracing::warn!(damage = what, storage = storage.url(), "the data directory's database is damaged: restoring it");
    open_restored(dir, options, storage, cancel)
}

fn open_restored(dir: &Path, options: &StoreOptions, storage: &RemoteStorage, cancel: &Cancel) -> Result<Opened> {
    let restored = restore(dir, storage, cancel)?;
    tracing::warn!(
        epoch = restored.epoch,
        files = restored.files,
        bytes = restored.bytes,
        "restored; what was done after this epoch is lost"
    );
    finish(Store::open(dir, options)?, Some(restored))
}

/// Whether reading a database that did open has found a file of it damaged, in RocksDB's words. Whatever else is wrong in it
/// would be in a copy, too, which is older.
pub fn is_damaged_file(error: &Error) -> bool {
    error.state() == SqlState::DATA_CORRUPTED && error.detail().is_some_and(|detail| detail.starts_with("Corruption: "))
}

/// Whether a database did not open because of what is, or is not, in its directory.
fn is_damage(error: &Error) -> bool {
    let missing = error.detail().is_some_and(|detail| detail.contains("No such file or directory"));
    error.state() == SqlState::DATA_CORRUPTED || error.state() == SqlState::IO_ERROR && missing
}

/// A checkpoint arrives as a savepoint, from which the next start is to continue.
fn restore(dir: &Path, storage: &RemoteStorage, cancel: &Cancel) -> Result<Restored> {
    let _lock = directory::claim(dir)?;
    // Before anything is downloaded: if another server still writes there, it is not to go on.
    let claim = storage.claim(identity(dir)?.as_deref(), cancel)?;
    let restored = storage.restore(Which::Latest, &savepoint::arrivals(dir)?, cancel)?;
    write_identity(dir, claim.database())?;
    failpoint("remote-arrived");
    savepoint::restore_at_next_open(dir, ARRIVED)?;
    let (database, damaged) = (directory::database(dir), dir.join(DAMAGED));
    if fs::read_dir(&database).is_ok_and(|mut entries| entries.next().is_some()) {
        if damaged.try_exists()? {
            fs::remove_dir_all(&damaged)?;
        }
        fs::rename(database, damaged)?;
        directory::sync(dir)?;
    }
    failpoint("remote-ordered");
    Ok(restored)
}

fn finish((store, recovered): (Arc<Store>, Recovered), restored: Option<Restored>) -> Result<Opened> {
    // The files of what has arrived are the live ones now.
    if let Err(error) = savepoint::discard_arrivals(&store.dir) {
        tracing::warn!(%error, "the restored checkpoint could not be deleted; the next start does it");
    }
    Ok(Opened { store, recovered, restored })
}
