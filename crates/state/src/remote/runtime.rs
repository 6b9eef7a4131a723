//! A thread that talks to the network, for callers that block; and how to stop what it does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use millpond_common::{Error, Result, SqlState};
use tokio::sync::{mpsc, watch};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An asynchronous runtime on a thread of its own.
pub(super) struct Runtime {
    /// `None`: being dropped.
    tasks: Option<mpsc::UnboundedSender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(super) fn start() -> Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
        let (tasks, mut received) = mpsc::unbounded_channel::<Task>();
        let work = move || {
            runtime.block_on(async {
                while let Some(task) = received.recv().await {
                    tokio::spawn(task);
                }
            });
            // A file system that hangs must not keep the server from ending.
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread = std::thread::Builder::new().name("remote".into()).spawn(work)?;
        Ok(Runtime { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Runs a future on the thread and waits for its result.
    pub(super) fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let gone = || Error::internal("the thread of the remote storage has ended");
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let task = Box::pin(async move { drop(sender.send(future.await)) });
        self.tasks.as_ref().and_then(|tasks| tasks.send(task).ok()).ok_or_else(gone)?;
        receiver.recv().map_err(|_| gone())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Ends an upload or a restore from another thread.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Cancel(Arc::new(watch::Sender::new(false)))
    }
}

impl Cancel {
    /// Whatever runs with this, or starts with it later, ends with an error.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// The future's result, or an error as soon as this is cancelled.
    pub(super) async fn limit<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut changes = self.0.subscribe();
        tokio::select! {
            biased;
            _ = changes.wait_for(|cancelled| *cancelled) => Err(Error::new(SqlState::QUERY_CANCELED, "the transfer of a checkpoint was stopped")),
            result = future => result,
        }
    }
}

/// Runs what blocks (files) where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("a thread for files failed: {e}")))?
}
