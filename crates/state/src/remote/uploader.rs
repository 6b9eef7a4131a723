//! A thread that keeps the storage up to date.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use millpond_common::{Epoch, Error, Result};
use parking_lot::Mutex;

use super::claim::is_lost;
use super::{Cancel, Claim, RemoteStorage, Uploaded};

/// How often to upload, and what to keep.
#[derive(Clone, Copy, Debug)]
pub struct UploaderOptions {
    /// From the end of one upload to the begin of the next.
    pub interval: Duration,
    /// How many checkpoints stay in the storage.
    pub keep: usize,
}

/// How the uploads go.
#[derive(Clone, Debug, Default)]
pub struct UploaderStatus {
    /// The last upload that succeeded, and when it ended.
    pub last: Option<(Uploaded, SystemTime)>,
    /// How many have succeeded.
    pub completed: u64,
    /// How many have failed.
    pub failed: u64,
    /// Why the last one failed; `None` once one has succeeded again.
    pub error: Option<Error>,
    /// The storage belongs to somebody else: nothing more is uploaded.
    pub lost: bool,
}

/// A copy of a checkpoint, which nothing changes. Whoever makes it deletes it when dropped.
pub(super) trait CheckpointCopy {
    /// Where its files are.
    fn path(&self) -> PathBuf;
    /// Of the checkpoint.
    fn epoch(&self) -> Epoch;
    /// Another one if anything is different.
    fn version(&self) -> u64;
}

/// Uploads checkpoints until dropped: the first one at once, the others at intervals. A failure is tried again after the
/// interval, with a newer checkpoint; what has been sent already is not sent again.
pub struct Uploader {
    cancel: Cancel,
    /// `None`: it is to end.
    wake: Option<Sender<()>>,
    /// Closed by the thread's end.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<UploaderStatus>>,
}

impl Uploader {
    /// Starts the thread, which first claims the storage for the database. `copy` makes a copy of the last checkpoint;
    /// `None` if there is none yet, or if it is the version that it is called with.
    pub(super) fn start<C: CheckpointCopy>(
        storage: Arc<RemoteStorage>,
        database: String,
        options: UploaderOptions,
        copy: impl FnMut(Option<u64>) -> Result<Option<C>> + Send + 'static,
    ) -> Result<Uploader> {
        let ((wake, woken), (ends, ended)) = (bounded(1), bounded(0));
        let (cancel, status) = (Cancel::default(), Arc::new(Mutex::new(UploaderStatus::default())));
        let shown = Arc::clone(&status);
        let mut work = Work { storage, database, copy, cancel: cancel.clone(), claim: None, version: None };
        let run = move || {
            let _ends: Sender<()> = ends;
            while work.once(options.keep, &shown) {
                if woken.recv_timeout(options.interval) == Err(RecvTimeoutError::Disconnected) {
                    // What was committed since, unless it is to end at once.
                    work.once(options.keep, &shown);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("uploader".into()).spawn(run)?;
        Ok(Uploader { cancel, wake: Some(wake), ended, thread: Some(thread), status })
    }

    /// The end in good order: uploads the last checkpoint, if that takes no longer than this. Nothing may be committed any more.
    pub fn finish(mut self, patience: Duration) {
        self.wake = None;
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last checkpoint was not uploaded: that takes too long");
        }
    }

    /// Uploads soon, not only when the interval has passed.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            _ = wake.try_send(());
        }
    }

    /// How it goes.
    pub fn status(&self) -> UploaderStatus {
        self.status.lock().clone()
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What the thread has.
struct Work<F> {
    storage: Arc<RemoteStorage>,
    database: String,
    copy: F,
    cancel: Cancel,
    /// `None`: not yet claimed.
    claim: Option<Claim>,
    /// Of the last upload that succeeded.
    version: Option<u64>,
}

impl<F> Work<F> {
    /// An upload, and the deletion of what it made superfluous; whether to go on.
    fn once<C: CheckpointCopy>(&mut self, keep: usize, status: &Mutex<UploaderStatus>) -> bool
    where
        F: FnMut(Option<u64>) -> Result<Option<C>>,
    {
        if self.cancel.is_cancelled() {
            return false;
        }
        let uploaded = self.upload();
        let sent = matches!(uploaded, Ok(Some(_)));
        let mut go_on = note(&mut status.lock(), self.storage.url(), uploaded);
        if let (true, Some(claim)) = (sent, &self.claim)
            && let Err(error) = self.storage.gc(claim, keep, &self.cancel)
        {
            go_on = note(&mut status.lock(), self.storage.url(), Err(error));
        }
        go_on && !self.cancel.is_cancelled()
    }

    /// `None`: there was nothing to upload.
    fn upload<C: CheckpointCopy>(&mut self) -> Result<Option<Uploaded>>
    where
        F: FnMut(Option<u64>) -> Result<Option<C>>,
    {
        let claim = match &mut self.claim {
            Some(claim) => claim,
            none => none.insert(self.storage.claim(Some(&self.database), &self.cancel)?),
        };
        let Some(copy) = (self.copy)(self.version)? else { return Ok(None) };
        let uploaded = self.storage.upload(claim, &copy.path(), copy.epoch(), &self.cancel)?;
        self.version = Some(copy.version());
        Ok(Some(uploaded))
    }
}

/// Remembers how it went; whether to go on.
fn note(status: &mut UploaderStatus, url: &str, result: Result<Option<Uploaded>>) -> bool {
    match result {
        Ok(None) => {}
        Ok(Some(uploaded)) => {
            if status.error.take().is_some() {
                tracing::info!(storage = url, "checkpoints are uploaded again");
            }
            status.completed += 1;
            status.last = Some((uploaded, SystemTime::now()));
        }
        Err(error) => {
            status.lost = is_lost(&error);
            tracing::warn!(storage = url, %error, lost = status.lost, "a checkpoint could not be uploaded");
            status.failed += 1;
            status.error = Some(error);
        }
    }
    !status.lost
}
