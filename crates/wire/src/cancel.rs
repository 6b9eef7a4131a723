//! How a running statement learns that its client gave up: a cancel request, or a closed connection.

use millpond_common::{Error, Result, SqlState};
use tokio::sync::watch;

/// A session's handle, shared by its clones. The session checks it; the protocol sets and resets it.
#[derive(Clone, Debug)]
pub struct CancelHandle(watch::Sender<bool>);

impl CancelHandle {
    /// A handle that is not cancelled.
    pub fn new() -> Self {
        CancelHandle(watch::Sender::new(false))
    }

    /// The sender under it, for a session that has its own form of this handle: `true` cancels.
    pub fn sender(&self) -> watch::Sender<bool> {
        self.0.clone()
    }

    /// Asks the running statement to stop. Without one, the request is forgotten.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// A new statement begins: earlier requests do not concern it.
    pub fn reset(&self) {
        self.0.send_if_modified(std::mem::take);
    }

    /// Whether the running statement should stop.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Fails with 57014 if the running statement should stop. For loops: cheap enough to call per batch.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Self::error()) } else { Ok(()) }
    }

    /// Completes as soon as the running statement should stop. Cancel-safe.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.subscribe();
        if receiver.wait_for(|cancelled| *cancelled).await.is_err() {
            // Unreachable while `self` lives, since it holds a sender.
            std::future::pending::<()>().await;
        }
    }

    /// The error of a cancelled statement.
    pub fn error() -> Error {
        Error::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
}

impl Default for CancelHandle {
    fn default() -> Self {
        CancelHandle::new()
    }
}
