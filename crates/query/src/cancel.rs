//! How a running statement learns that it should stop.

use std::future::Future;
use std::time::Instant;

use millpond_common::{Error, Result, SqlState};
use tokio::sync::watch;

/// A session's token, shared by its clones. Whoever serves the session cancels it.
#[derive(Clone, Debug)]
pub struct CancelToken(watch::Sender<bool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        CancelToken(watch::Sender::new(false))
    }

    /// A token that is cancelled by sending `true`.
    pub fn from_sender(sender: watch::Sender<bool>) -> Self {
        CancelToken(sender)
    }

    /// Asks the running statement to stop.
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

    /// Fails with 57014 if the running statement should stop. Cheap enough for every batch.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Self::error()) } else { Ok(()) }
    }

    /// Completes as soon as the running statement should stop.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.subscribe();
        if receiver.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await; // Not while `self` lives: it holds the sender.
        }
    }

    /// The error of a cancelled statement.
    pub fn error() -> Error {
        Error::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        CancelToken::new()
    }
}

/// What ends a statement early: its token, or its time limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Cancelled by the client.
    pub cancel: CancelToken,
    /// `statement_timeout` after the statement's start.
    pub deadline: Option<Instant>,
}

impl Limits {
    /// Fails if the statement should end. Cheap enough for every batch.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()?;
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(late()),
            _ => Ok(()),
        }
    }

    /// Completes with the error when the statement should end.
    pub async fn exceeded(&self) -> Error {
        let too_late = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.cancel.cancelled() => CancelToken::error(),
            _ = too_late => late(),
        }
    }

    /// Runs `work` until it ends or the limits do.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            error = self.exceeded() => Err(error),
            result = work => result,
        }
    }
}

fn late() -> Error {
    Error::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn limits_end_work() {
        let limits = Limits { cancel: CancelToken::new(), deadline: Some(Instant::now() + Duration::from_millis(5)) };
        let late = limits.run(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(late.state(), SqlState::QUERY_CANCELED);
        let limits = Limits { cancel: CancelToken::new(), deadline: None };
        assert_eq!(limits.run(async { Ok(1) }).await.unwrap(), 1);
        limits.cancel.cancel();
        assert!(limits.run(async { Ok(1) }).await.is_err());
        limits.cancel.reset();
        assert!(limits.cancel.check().is_ok());
    }
}
