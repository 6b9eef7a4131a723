//! Checkpoints on another machine: in a bucket (`s3://`, `gs://`, `az://`) or in a directory (`file://`).
//!
//! What lies there, below the URL:
//!
//! - `objects/<generation>/<sha-256>`: the content of files, never overwritten with anything else
//! - `manifests/<generation>-<sequence>-<epoch>`: one for each checkpoint: which files it has and which objects hold them
//! - `claims/<generation>`: one for each time that a server began to write here
//!
//! **One writer.** A server first creates the claim with the next generation (a put that fails if somebody else was
//! faster); the newest claim owns the storage. Manifests are ordered by generation first, so whatever a server publishes
//! after it was displaced is older than everything the new owner publishes; and it notices with its next upload.
//!
//! **A checkpoint is there, or not.** An upload writes the objects first and the manifest last, in one put. It reuses an
//! object only if the newest manifest names it, or if it wrote it itself since. Deletion takes expired manifests first,
//! then the objects that no manifest names; the newest manifest never expires, objects of later generations are never
//! touched, and deletion and upload of one server take turns: what an upload reuses is never being deleted.
//!
//! **A restore believes nothing.** The manifest has a checksum, its name says the epoch, each file's size and digest are
//! compared; what is damaged or missing leads to the checkpoint before it, with a warning. A storage that cannot be
//! reached is an error, never a reason to take an older checkpoint.
//!
//! In reading order: `options`, `backend` (object stores as used here), `runtime` (a thread for them), `manifest` and
//! `claim` (formats, ownership), `decide` (what to send, to choose, to delete: functions on values), `digest`, `upload`,
//! `restore`, `gc`; `uploader`, which does it all regularly; and `store`, which does it with a [`Store`](crate::Store).

mod backend;
mod claim;
mod decide;
mod digest;
mod gc;
mod manifest;
mod options;
mod restore;
mod runtime;
mod store;
mod upload;
mod uploader;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond_common::{Epoch, Result};
use tokio::sync::Mutex;

pub use claim::Claim;
pub use options::RemoteOptions;
pub(crate) use restore::partial;
pub use runtime::Cancel;
pub use store::{Opened, is_damaged_file, open_or_restore, restore_damaged};
pub use uploader::{Uploader, UploaderOptions, UploaderStatus};

use backend::Backend;
use digest::Digests;
use runtime::Runtime;

/// Every failpoint of this module, for tests that visit them all.
pub const FAILPOINTS: [&str; 11] = [
    "remote-claimed",
    "remote-upload-begin",
    "remote-object-written",
    "remote-objects-written",
    "remote-manifest-written",
    "remote-gc-manifests-deleted",
    "remote-gc-objects-deleted",
    "remote-restore-begin",
    "remote-restore-file",
    "remote-restore-verified",
    "remote-restore-renamed",
];

/// A place for checkpoints, with a thread that talks to it. All calls block until done.
pub struct RemoteStorage {
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// What the tasks on the thread work with.
struct Shared {
    backend: Backend,
    options: RemoteOptions,
    /// Held by uploads and deletions: they take turns.
    writer: Mutex<Writer>,
}

/// What the writer knows from its last uploads.
#[derive(Default)]
struct Writer {
    /// Objects that it has written and no manifest names yet: an upload that is tried again has them already.
    fresh: BTreeSet<String>,
    digests: Digests,
}

/// Which checkpoint is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest that is whole.
    Latest,
    /// The one of this epoch.
    Epoch(Epoch),
}

/// A checkpoint in the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCheckpoint {
    /// All relations are as of this epoch.
    pub epoch: Epoch,
    /// Of the claim under which it was written.
    pub generation: u64,
    /// When it was written; `None` if it is damaged.
    pub created: Option<SystemTime>,
    /// How many files it has.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// Why it cannot be restored.
    pub damage: Option<String>,
}

/// What an upload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Of the checkpoint.
    pub epoch: Epoch,
    /// How many files the checkpoint has.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// How many of them were sent.
    pub files_sent: usize,
    /// The size of what was sent.
    pub bytes_sent: u64,
    /// From the call to the published manifest.
    pub duration: Duration,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Of the checkpoint.
    pub epoch: Epoch,
    /// Whose checkpoint it is: the identity of the database.
    pub database: String,
    /// How many files it has.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// How many of them were already there from an attempt that was interrupted.
    pub files_resumed: usize,
    /// From the call to the end.
    pub duration: Duration,
    /// Newer checkpoints that could not be taken, and why.
    pub warnings: Vec<String>,
}

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Checkpoints deleted.
    pub manifests: usize,
    /// Objects deleted.
    pub objects: usize,
    /// Their size together.
    pub bytes: u64,
}

impl RemoteStorage {
    /// Prepares to use the storage at a URL. Asks it nothing yet.
    pub fn open(url: &str, options: RemoteOptions) -> Result<RemoteStorage> {
        let backend = Backend::open(url, &options)?;
        let shared = Shared { backend, options, writer: Mutex::default() };
        Ok(RemoteStorage { shared: Arc::new(shared), runtime: Runtime::start()? })
    }

    /// All checkpoints, the newest first.
    pub fn list(&self) -> Result<Vec<RemoteCheckpoint>> {
        let shared = Arc::clone(&self.shared);
        self.runtime.run(async move { restore::list(&shared).await })?
    }

    /// Makes this server the one that writes here. `database` is the identity of its data; `None`: there is no data
    /// yet, so it takes over whatever database is here. Fails if the storage belongs to another database.
    pub fn claim(&self, database: Option<&str>, cancel: &Cancel) -> Result<Claim> {
        let (shared, cancel) = (Arc::clone(&self.shared), cancel.clone());
        let database = database.map(str::to_owned);
        self.runtime.run(async move { cancel.limit(claim::claim(&shared, database)).await })?
    }

    /// Uploads a directory, whose files must not change meanwhile, as the checkpoint of an epoch. Sends only what the
    /// storage does not have.
    pub fn upload(&self, claim: &Claim, dir: &Path, epoch: Epoch, cancel: &Cancel) -> Result<Uploaded> {
        let (shared, claim, dir, cancel) = (Arc::clone(&self.shared), claim.clone(), dir.to_owned(), cancel.clone());
        self.runtime.run(async move { cancel.limit(upload::upload(&shared, &claim, &dir, epoch)).await })?
    }

    /// Downloads a checkpoint into a directory, which must be empty or not exist: it appears there whole, or not at all.
    /// A restore that was interrupted goes on where it was.
    pub fn restore(&self, which: Which, into: &Path, cancel: &Cancel) -> Result<Restored> {
        let (shared, into, cancel): (_, PathBuf, _) = (Arc::clone(&self.shared), into.to_owned(), cancel.clone());
        self.runtime.run(async move { cancel.limit(restore::restore(&shared, which, &into)).await })?
    }

    /// Deletes all checkpoints but the newest `keep` (at least one), and what only they need.
    pub fn gc(&self, claim: &Claim, keep: usize, cancel: &Cancel) -> Result<Collected> {
        let (shared, claim, cancel) = (Arc::clone(&self.shared), claim.clone(), cancel.clone());
        self.runtime.run(async move { cancel.limit(gc::gc(&shared, &claim, keep)).await })?
    }

    /// Writes an object past all rules, for tests.
    #[cfg(test)]
    fn shared_put(&self, name: &str, bytes: Vec<u8>) {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.runtime.run(async move { shared.backend.put(&name, bytes.into()).await }).and_then(|r| r).expect("a test's write");
    }

    /// The URL, as it may be shown.
    pub fn url(&self) -> &str {
        self.shared.backend.url()
    }
}

#[cfg(test)]
mod tests;
