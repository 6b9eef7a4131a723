//! Savepoints: the whole database as a checkpoint left it, kept until it is released.
//!
//! `savepoints/NAME/` of the data directory is a data directory in small: `FORMAT`, `SAVEPOINT` (what is known of it,
//! with a list of its files) and `db/`, whose data files are further links to the live ones. It is made as `NAME.tmp`
//! and renamed when all of it is on disk; for its release it is renamed to `NAME.released` first. So a crash leaves it
//! or nothing, and something for the next start to delete.
//!
//! - `record`: names, the SAVEPOINT file; `files`: links, copies, lists of files
//! - `read`: a savepoint open for reading
//! - `restore`: the live database becomes a savepoint's; a new data directory is made of one
//! - `unlisted`: savepoints on their way to another machine, and from one

mod files;
mod read;
mod record;
mod restore;
mod unlisted;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use millpond_common::{Epoch, Error, Result, SqlState};
use parking_lot::MutexGuard;
use rocksdb::checkpoint::Checkpoint;

pub use read::SavepointReader;
pub use record::{Savepoint, SavepointKind};
pub(crate) use restore::finish;
pub use restore::{fork, restore_at_next_open};
pub(crate) use unlisted::{ARRIVED, Leaving, arrivals, discard_arrivals, is_lost};

use crate::commit::Turn;
use crate::failpoint::failpoint;
use crate::rocks::{Rocks, storage_error};
use crate::{Store, directory, file};
use files::How;

/// After the name of a directory that is being made.
const UNFINISHED: &str = ".tmp";
/// After the name of a directory that is being removed.
const RELEASED: &str = ".released";

/// What the open store knows of its savepoints. Held while one is made or released.
#[derive(Default)]
pub(crate) struct Savepoints {
    /// How many checkpoints to keep.
    pub(crate) retention: usize,
    /// Those open for reading.
    open: Vec<Open>,
}

struct Open {
    name: String,
    reader: Weak<SavepointReader>,
    /// Outlives the reader as long as there is a view.
    rocks: Weak<Rocks>,
}

impl Savepoints {
    fn reader(&self, name: &str) -> Option<Arc<SavepointReader>> {
        self.open.iter().filter(|o| o.name == name).find_map(|o| o.reader.upgrade())
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|o| o.name == name && o.rocks.strong_count() > 0)
    }
}

fn path_of(dir: &Path, name: &str) -> PathBuf {
    directory::savepoints(dir).join(record::directory_of(name))
}

/// The same with something after the directory's name.
fn path_with(dir: &Path, name: &str, suffix: &str) -> PathBuf {
    directory::savepoints(dir).join(format!("{}{suffix}", record::directory_of(name)))
}

/// The directory of a savepoint that must exist.
fn existing(dir: &Path, name: &str) -> Result<PathBuf> {
    record::check_name(name)?;
    let path = path_of(dir, name);
    if path.is_dir() { Ok(path) } else { Err(record::undefined(name)) }
}

/// Deletes what a crash has left of savepoints that were being made or released.
pub(crate) fn clean(dir: &Path) -> Result<()> {
    for name in entries(dir)? {
        if name.ends_with(UNFINISHED) || name.ends_with(RELEASED) {
            files::remove(&directory::savepoints(dir).join(name))?;
        }
    }
    Ok(())
}

/// What lies in the directory of savepoints, sorted.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let found = match fs::read_dir(directory::savepoints(dir)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        found => found?,
    };
    let mut names = found.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

impl Store {
    /// Fails if no savepoint of this name can be made.
    pub fn savepoint_check_new(&self, name: &str) -> Result<()> {
        record::check_new_name(name)?;
        match path_of(&self.dir, name).exists() {
            true => Err(Error::new(SqlState::DUPLICATE_OBJECT, format!("savepoint \"{name}\" already exists"))),
            false => Ok(()),
        }
    }

    /// Makes a savepoint of the last completed checkpoint; the table log's later entries are in it too. Takes well under
    /// a second whatever the size, but waits for a commit that is under way.
    pub fn savepoint_create(&self, name: &str, kind: SavepointKind, comment: &str) -> Result<Savepoint> {
        let rocks = self.rocks()?;
        let turn = self.turn.lock();
        let savepoints = self.savepoints.lock();
        self.savepoint_check_new(name)?;
        self.make(&rocks, Some(turn), &savepoints, |_| name.to_owned(), kind, comment)
    }

    /// Makes a full checkpoint of the last completed one: a savepoint every byte of which is written anew, and then read back
    /// and compared with its checksums, as it takes the place of the full checkpoint before it. The live database and its
    /// commits are not disturbed.
    pub fn checkpoint_full(&self) -> Result<Savepoint> {
        let rocks = self.rocks()?;
        let turn = self.turn.lock();
        let mut savepoints = self.savepoints.lock();
        let made = self.make(&rocks, Some(turn), &savepoints, record::full_name, SavepointKind::Full, "")?;
        self.keep_newest(&mut savepoints, SavepointKind::Full, 1)?;
        Ok(made)
    }

    /// All savepoints by name, each with what is known of it: damaged ones, too, so that they can be released.
    pub fn savepoint_list(&self) -> Result<Vec<(String, Result<Savepoint>)>> {
        let mut names = entries(&self.dir)?.iter().filter_map(|directory| record::name_of(directory)).collect::<Vec<_>>();
        names.sort();
        Ok(names.into_iter().map(|name| (name.clone(), record::read(&path_of(&self.dir, &name), &name))).collect())
    }

    /// Removes a savepoint. Fails while somebody reads from it.
    pub fn savepoint_release(&self, name: &str) -> Result<()> {
        existing(&self.dir, name)?;
        self.release(&mut self.savepoints.lock(), name)
    }

    /// Opens a savepoint for reading; all who have it open share it.
    pub fn savepoint_open(&self, name: &str) -> Result<Arc<SavepointReader>> {
        let path = existing(&self.dir, name)?;
        let mut savepoints = self.savepoints.lock();
        savepoints.open.retain(|o| o.rocks.strong_count() > 0);
        if let Some(reader) = savepoints.reader(name) {
            return Ok(reader);
        }
        let (reader, rocks) = SavepointReader::open(&path, name)?;
        let reader = Arc::new(reader);
        savepoints.open.push(Open { name: name.to_owned(), reader: Arc::downgrade(&reader), rocks });
        Ok(reader)
    }

    /// Writes down that the next [`Store::open`] shall continue from a savepoint; see [`restore_at_next_open`].
    pub fn savepoint_restore(&self, name: &str) -> Result<()> {
        let ordered = restore_at_next_open(&self.dir, name);
        // With an order that could not be withdrawn nobody may go on here.
        if ordered.is_err() && self.dir.join(restore::RESTORE).try_exists().unwrap_or(true) { self.poison.guard(ordered) } else { ordered }
    }

    /// From the next commit on, keeps the last `n` checkpoints as savepoints, and releases older ones.
    pub fn set_checkpoint_retention(&self, n: usize) {
        self.savepoints.lock().retention = n;
    }

    /// After a commit. Nothing that fails here makes the commit fail. Misses a checkpoint while a savepoint is being made.
    pub(crate) fn retain(&self, rocks: &Rocks) {
        let Some(mut savepoints) = self.savepoints.try_lock() else { return };
        let n = savepoints.retention;
        let kept =
            if n == 0 { Ok(()) } else { self.make(rocks, None, &savepoints, record::retained_name, SavepointKind::Retained, "").map(drop) };
        if let Err(error) = kept.and_then(|()| self.keep_newest(&mut savepoints, SavepointKind::Retained, n)) {
            tracing::warn!(%error, "the checkpoint could not be retained");
        }
    }

    /// Releases all but the newest savepoints of a kind.
    fn keep_newest(&self, savepoints: &mut Savepoints, kind: SavepointKind, n: usize) -> Result<()> {
        let of_kind = self.savepoint_list()?.into_iter().filter_map(|(_, known)| known.ok()).filter(|s| s.kind == kind);
        let mut found = of_kind.collect::<Vec<_>>();
        found.sort_by_key(|s| std::cmp::Reverse((s.created, s.epoch)));
        for old in found.iter().skip(n).filter(|s| !savepoints.is_open(&s.name)).map(|s| s.name.clone()).collect::<Vec<_>>() {
            self.release(savepoints, &old)?;
        }
        Ok(())
    }

    /// `turn`, where the caller does not hold it through: no commit may come between the links and the epoch.
    fn make(
        &self,
        rocks: &Rocks,
        turn: Option<MutexGuard<'_, Turn>>,
        savepoints: &Savepoints,
        name: impl FnOnce(Epoch) -> String,
        kind: SavepointKind,
        comment: &str,
    ) -> Result<Savepoint> {
        let (started, created) = (Instant::now(), SystemTime::now());
        self.poison.check()?;
        let (epoch, log_seq) = {
            let state = self.state.lock();
            (state.base.epoch, state.base.log_seq)
        };
        let name = name(epoch);
        if savepoints.is_open(&name) {
            return Err(in_use(&name));
        }
        let (unfinished, finished) = (path_with(&self.dir, &name, UNFINISHED), path_of(&self.dir, &name));
        let result = || -> Result<Savepoint> {
            let database = directory::database(&unfinished);
            files::remove(&unfinished)?;
            file::create_dir_all(&unfinished)?;
            failpoint("savepoint-begin");
            link_database(rocks, &database)?;
            failpoint("savepoint-linked");
            drop(turn);
            if kind == SavepointKind::Full {
                let links = unfinished.join("links");
                file::rename(&database, &links)?;
                files::clone_database(&links, &database, How::Copy)?;
                file::remove_dir_all(&links)?;
                let kept =
                    "The copy was discarded, the full checkpoint before it is kept. The live file of the same name may be damaged, too.";
                Rocks::open_read_only(&database).and_then(|copy| copy.verify()).map_err(|e| e.with_hint(kept))?;
            } else {
                files::sync_all(&database)?;
            }
            let duration = started.elapsed();
            let comment = comment.to_owned();
            let mut savepoint = Savepoint { name: name.clone(), kind, epoch, log_seq, created, duration, bytes: 0, comment };
            record::write(&unfinished, &mut savepoint)?;
            failpoint("savepoint-written");
            // A checkpoint of the server's own, of an epoch that comes for the second time after a restore.
            files::remove(&finished)?;
            file::rename(&unfinished, &finished)?;
            directory::sync(&directory::savepoints(&self.dir))?;
            directory::sync(&self.dir)?;
            failpoint("savepoint-renamed");
            Ok(savepoint)
        };
        result().inspect_err(|_| drop(files::remove(&unfinished)))
    }

    fn release(&self, savepoints: &mut Savepoints, name: &str) -> Result<()> {
        if savepoints.is_open(name) {
            return Err(in_use(name));
        }
        let released = path_with(&self.dir, name, RELEASED);
        files::remove(&released)?;
        file::rename(&path_of(&self.dir, name), &released)?;
        directory::sync(&directory::savepoints(&self.dir))?;
        failpoint("release-renamed");
        files::remove(&released)?;
        failpoint("release-removed");
        Ok(())
    }
}

/// All that the database has on disk, its log included, at one moment.
fn link_database(rocks: &Rocks, to: &Path) -> Result<()> {
    Checkpoint::new(rocks.db()).and_then(|c| c.create_checkpoint(to)).map_err(storage_error)
}

fn in_use(name: &str) -> Error {
    Error::new(SqlState("55006"), format!("savepoint \"{name}\" is being read")).with_hint("End the sessions that read it.")
}
