//! Messages that reach the client while its statement still runs.

use millpond_common::SqlState;
use tokio::sync::mpsc;

/// A message beside the result, such as the progress of a long statement.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO`, `LOG` or `DEBUG`.
    pub severity: &'static str,
    /// Its SQLSTATE; `00000` for mere information.
    pub state: SqlState,
    /// One line.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Notice {
    /// A NOTICE with SQLSTATE 00000.
    pub fn new(message: impl Into<String>) -> Self {
        Notice { severity: "NOTICE", state: SqlState("00000"), message: message.into(), detail: None, hint: None }
    }

    /// A WARNING.
    pub fn warning(state: SqlState, message: impl Into<String>) -> Self {
        Notice { severity: "WARNING", state, message: message.into(), detail: None, hint: None }
    }
}

/// How many notices wait for a slow client before further ones are dropped.
const NOTICES_WAITING_MAX: usize = 1024;

/// Sends notices to one session's client. Never blocks: what a client is too slow to read is dropped.
#[derive(Clone, Debug)]
pub struct NoticeSender(mpsc::Sender<Notice>);

impl NoticeSender {
    /// A sender and the end from which the connection takes its notices.
    pub fn channel() -> (NoticeSender, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(NOTICES_WAITING_MAX);
        (NoticeSender(sender), receiver)
    }

    /// Hands a notice over; `false` if it was dropped.
    pub fn send(&self, notice: Notice) -> bool {
        self.0.try_send(notice).is_ok()
    }
}
