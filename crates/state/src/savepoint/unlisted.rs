//! Savepoints that are on their way: to another machine, where a copy is made only to be sent; or from one, where what
//! arrives becomes the live database.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use millpond_common::{Epoch, Result};

use super::{Savepoint, SavepointKind, UNFINISHED, files, link_database, path_of, path_with, record, restore};
use crate::{Store, directory};

/// The name under which a savepoint arrives: none that a user may choose.
pub(crate) const ARRIVED: &str = "checkpoint-arrived";
const LEAVING: &str = "checkpoint-leaving";

/// A savepoint that no list shows; it goes when this is dropped, or with the next start.
pub(crate) struct Leaving {
    pub(crate) path: PathBuf,
    pub(crate) epoch: Epoch,
    /// Grows with everything that is written to the database.
    pub(crate) version: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.path) {
            tracing::warn!(%error, "a copy of a checkpoint could not be deleted; the next start does it");
        }
    }
}

impl Store {
    /// A copy of the last completed checkpoint, to be sent away; `None` if there is none, or if nothing was written since
    /// `version`. There can be one at a time.
    pub(crate) fn savepoint_leaving(&self, version: Option<u64>) -> Result<Option<Leaving>> {
        let rocks = self.rocks()?;
        let (created, path) = (SystemTime::now(), path_with(&self.dir, LEAVING, UNFINISHED));
        files::remove(&path)?;
        let turn = self.turn.lock();
        self.poison.check()?;
        let (epoch, log_seq) = {
            let state = self.state.lock();
            (state.base.epoch, state.base.log_seq)
        };
        let leaving = Leaving { path, epoch, version: rocks.db().latest_sequence_number() };
        if epoch == 0 || version == Some(leaving.version) {
            return Ok(None);
        }
        fs::create_dir_all(&leaving.path)?;
        link_database(&rocks, &directory::database(&leaving.path))?;
        drop(turn);
        let (name, comment) = (ARRIVED.to_owned(), String::new());
        let duration = created.elapsed().unwrap_or(Duration::ZERO);
        let mut savepoint = Savepoint { name, kind: SavepointKind::Automatic, epoch, log_seq, created, duration, bytes: 0, comment };
        record::write(&leaving.path, &mut savepoint)?;
        Ok(Some(leaving))
    }
}

/// Where a savepoint is to arrive, in a data directory; what arrived there earlier is deleted.
pub(crate) fn arrivals(dir: &Path) -> Result<PathBuf> {
    let path = path_of(dir, ARRIVED);
    files::remove(&path)?;
    fs::create_dir_all(directory::savepoints(dir))?;
    directory::sync(dir)?;
    Ok(path)
}

/// Deletes what has arrived, or was about to.
pub(crate) fn discard_arrivals(dir: &Path) -> Result<()> {
    files::remove(&path_of(dir, ARRIVED))?;
    Ok(files::remove(&crate::remote::partial(&path_of(dir, ARRIVED))?)?)
}

/// Whether a data directory has no database, and no order to make one of a savepoint.
pub(crate) fn is_lost(dir: &Path) -> Result<bool> {
    Ok(!directory::database(dir).join("CURRENT").try_exists()? && !dir.join(restore::RESTORE).try_exists()?)
}
