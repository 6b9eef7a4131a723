//! The live database becomes a savepoint's: decided now, written down, done by the next start before anything is
//! opened. Each step can be interrupted and is taken up again. Also: a new data directory made of a savepoint.
//!
//! | step | a crash here leaves | the next start |
//! |---|---|---|
//! | write `RESTORE` | nothing, or the decision | goes on as before, or restores |
//! | link `savepoints/NAME/db` to `db.restoring` | an incomplete one | makes it anew |
//! | rename it to `db.restored` | a complete one | goes on from here |
//! | rename `db` to `db.old` | no `db` | goes on from here |
//! | rename `db.restored` to `db` | the decision still stands | restores again, to the same |
//! | remove `RESTORE` | `db.old` | removes it |

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use millpond_common::{Error, Result, SqlState};

use super::files::{self, How};
use super::{existing, record};
use crate::failpoint::failpoint;
use crate::frame::Frame;
use crate::{directory, file, reached};

/// The decision: a file of the data directory whose body is the savepoint's name.
pub(super) const RESTORE: &str = "RESTORE";
const FRAME: Frame = Frame { magic: b"MPRS", version: 1, what: "the order to restore a savepoint" };

/// Writes down that the next [`Store::open`](crate::Store::open) of this data directory shall continue from a savepoint.
/// What was done since the savepoint is lost then; savepoints stay. The directory may be open. After an error the order is not there.
pub fn restore_at_next_open(dir: &Path, name: &str) -> Result<()> {
    record::read_verified(&existing(dir, name)?, name)?;
    failpoint("restore-unrecorded");
    if let Err(error) = directory::replace_file(dir, RESTORE, &FRAME.seal(name.as_bytes())) {
        // It may have got its name before the failure; what was refused must not happen later.
        let removed = match file::remove_file(&dir.join(RESTORE)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let withdrawn = removed.and_then(|()| directory::sync(dir));
        let error = Error::from(error);
        return Err(match withdrawn {
            Ok(()) => error,
            Err(_) => error.with_hint(format!("To keep the present database, remove the file \"{}\".", dir.join(RESTORE).display())),
        });
    }
    failpoint("restore-recorded");
    Ok(())
}

/// Does what was decided, if anything was. The directory is locked and its database closed.
pub(crate) fn finish(dir: &Path) -> Result<()> {
    let order = dir.join(RESTORE);
    let (restoring, restored, old) = (dir.join("db.restoring"), dir.join("db.restored"), dir.join("db.old"));
    if order.try_exists()? {
        let hint = |e: Error| e.with_hint(format!("To keep the present database, remove the file \"{}\".", order.display()));
        let name = String::from_utf8(FRAME.read(&order).map_err(hint)?).map_err(|_| hint(FRAME.damaged()))?;
        if !restored.try_exists()? {
            let savepoint = existing(dir, &name).map_err(hint)?;
            record::read_verified(&savepoint, &name).map_err(hint)?;
            files::remove(&restoring)?;
            files::clone_database(&directory::database(&savepoint), &restoring, How::Link)?;
            rename(dir, &restoring, &restored)?;
        }
        failpoint("restore-linked");
        reached::forget(dir)?;
        let live = directory::database(dir);
        if live.try_exists()? {
            files::remove(&old)?;
            rename(dir, &live, &old)?;
        }
        failpoint("restore-moved");
        // Files of a checkpoint of the database that was.
        files::remove(&directory::staging(dir))?;
        file::create_dir_all(&directory::staging(dir))?;
        rename(dir, &restored, &live)?;
        failpoint("restore-swapped");
        file::remove_file(&order)?;
        directory::sync(dir)?;
        failpoint("restore-done");
        tracing::info!(savepoint = name, "restored");
    }
    [restoring, restored, old].iter().try_for_each(|leftover| Ok(files::remove(leftover)?))
}

fn rename(dir: &Path, from: &Path, to: &Path) -> Result<()> {
    file::rename(from, to)?;
    Ok(directory::sync(dir)?)
}

/// Makes a new data directory of a savepoint of another one, which may be open. Data files are linked where both are on one file
/// system, else copied. `to` must be empty or not exist; a crash leaves it so.
pub fn fork(from: &Path, name: &str, to: &Path) -> Result<()> {
    let savepoint = existing(from, name)?;
    record::read_verified(&savepoint, name)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
        return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("\"{}\" is not an empty directory", to.display())));
    }
    let (parent, unfinished) = beside(to)?;
    file::create_dir_all(&parent)?;
    files::remove(&unfinished)?;
    files::clone_database(&directory::database(&savepoint), &directory::database(&unfinished), How::Link)?;
    directory::write_format(&unfinished)?;
    failpoint("fork-linked");
    file::rename(&unfinished, to)?;
    directory::sync(&parent)?;
    failpoint("fork-done");
    Ok(())
}

/// The parent of a directory, and a name beside it to build it under.
fn beside(to: &Path) -> Result<(PathBuf, PathBuf)> {
    let absolute = std::path::absolute(to)?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("\"{}\" cannot be a data directory", to.display())));
    };
    Ok((parent.to_owned(), parent.join(format!(".{}.forking", name.to_string_lossy()))))
}
