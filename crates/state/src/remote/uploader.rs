//! A thread that keeps the storage up to date.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use millpond_common::{Epoch, Error, Result};
use parking_lot::Mutex;

use super::claim::is_lost;
use super::{Cancel, Claim, RemoteStorage, Uploaded};

/// How often to upload, and what to keep.
#[derive(Clone, Copy, Debug)]
pub struct UploaderOptions {
    /// From the begin of one upload to the begin of the next.
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
    /// Another server has claimed the storage: nothing more is uploaded.
    pub lost: bool,
}

/// A copy of the last checkpoint, which is not changed by what comes after. Whoever makes it deletes it when dropped.
pub trait CheckpointCopy {
    /// Where its files are.
    fn path(&self) -> PathBuf;
    /// Of the checkpoint.
    fn epoch(&self) -> Epoch;
}

/// Uploads checkpoints at intervals until dropped. A failure is tried again after the interval, with a newer checkpoint;
/// what has been sent already is not sent again.
pub struct Uploader {
    cancel: Cancel,
    /// `None`: being dropped.
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<UploaderStatus>>,
}

impl Uploader {
    /// Starts the thread. `copy` makes a copy of the last checkpoint, `None` if there is none yet.
    pub fn start<C: CheckpointCopy>(
        storage: Arc<RemoteStorage>,
        claim: Claim,
        options: UploaderOptions,
        mut copy: impl FnMut() -> Result<Option<C>> + Send + 'static,
    ) -> Result<Uploader> {
        let (wake, woken) = bounded(1);
        let (cancel, status) = (Cancel::default(), Arc::new(Mutex::new(UploaderStatus::default())));
        let (cancelled, shown) = (cancel.clone(), Arc::clone(&status));
        let work = move || {
            loop {
                match woken.recv_timeout(options.interval) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                }
                let result = upload(&storage, &claim, &cancelled, &mut copy);
                let sent = matches!(result, Ok(Some(_)));
                let mut go_on = note(&shown, storage.url(), result);
                if sent && let Err(error) = storage.gc(&claim, options.keep, &cancelled) {
                    go_on = note(&shown, storage.url(), Err(error));
                }
                if cancelled.is_cancelled() || !go_on {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("uploader".into()).spawn(work)?;
        Ok(Uploader { cancel, wake: Some(wake), thread: Some(thread), status })
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

/// The last checkpoint, if there is one, as a copy that exists only meanwhile.
fn upload<C: CheckpointCopy>(
    storage: &RemoteStorage,
    claim: &Claim,
    cancel: &Cancel,
    copy: &mut impl FnMut() -> Result<Option<C>>,
) -> Result<Option<Uploaded>> {
    let Some(copy) = copy()? else { return Ok(None) };
    storage.upload(claim, &copy.path(), copy.epoch(), cancel).map(Some)
}

/// Remembers how it went; whether to go on.
fn note(status: &Mutex<UploaderStatus>, url: &str, result: Result<Option<Uploaded>>) -> bool {
    let mut status = status.lock();
    match result {
        Ok(None) => true,
        Ok(Some(uploaded)) => {
            if status.error.take().is_some() {
                tracing::info!(storage = url, "checkpoints are uploaded again");
            }
            status.completed += 1;
            status.last = Some((uploaded, SystemTime::now()));
            true
        }
        Err(error) => {
            status.lost = is_lost(&error);
            tracing::warn!(storage = url, %error, lost = status.lost, "a checkpoint could not be uploaded");
            status.failed += 1;
            status.error = Some(error);
            !status.lost
        }
    }
}
