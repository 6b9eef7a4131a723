//! A session's connection while its statements run: notices flow, a client that goes away or a server that
//! shuts down cancels the statement, a panic stays inside.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use millpond_common::{Error, SqlState};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::backend::Output;
use crate::cancel::CancelHandle;
use crate::frame::{Frame, FrameError, FrameReader};
use crate::notice::Notice;

/// Why something did not succeed, and with it what becomes of the connection.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The statement failed; the session goes on.
    Statement(Error),
    /// The session ends with this error.
    Fatal(Error),
    /// There is nobody to tell.
    Gone,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Statement(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Fault::Gone
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Closed => Fault::Gone,
            FrameError::Violation(error) => Fault::Fatal(error),
        }
    }
}

/// The connection's two directions and what can interrupt its statements.
pub(crate) struct Io {
    pub(crate) input: FrameReader<OwnedReadHalf>,
    pub(crate) output: Output<OwnedWriteHalf>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) cancel: CancelHandle,
    pub(crate) shutdown: watch::Receiver<bool>,
    /// Nobody reads any more.
    pub(crate) gone: bool,
}

/// The error of a session that the server's shutdown ends.
pub(crate) fn shutdown_error() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

/// Completes when the server shuts down.
pub(crate) async fn shut_down(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|down| *down).await.is_err() {
        // Nobody is left who could ask for it.
        std::future::pending::<()>().await;
    }
}

impl Io {
    /// Whether the server is shutting down.
    pub(crate) fn shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Awaits the session's work, and meanwhile passes notices on and watches for reasons to cancel it.
    /// The work always runs to its own end, since what it does may not be left half done.
    pub(crate) async fn during<F: Future>(&mut self, work: F) -> Result<F::Output, Fault> {
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::pin!(work);
        let mut told = false;
        let output = loop {
            tokio::select! {
                biased;
                output = &mut work => break output,
                Some(notice) = self.notices.recv() => {
                    self.output.notice(&notice);
                    if !self.gone && self.output.flush().await.is_err() {
                        self.gone = true;
                        self.cancel.cancel();
                    }
                }
                () = self.input.until_closed(), if !self.gone => {
                    self.gone = true;
                    self.cancel.cancel();
                }
                () = shut_down(&mut self.shutdown), if !told => {
                    told = true;
                    self.cancel.cancel();
                }
            }
        };
        self.pass_notices();
        match output {
            Ok(output) => Ok(output),
            // The panic's message has reached the log through the panic hook. What the session holds may be damaged.
            Err(_) => Err(Fault::Fatal(
                Error::internal("the session failed unexpectedly").with_hint("The server's log tells more. Connect again."),
            )),
        }
    }

    /// Puts waiting notices before what is written next.
    pub(crate) fn pass_notices(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            self.output.notice(&notice);
        }
    }

    /// The next message of an idle session.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, Fault> {
        loop {
            tokio::select! {
                biased;
                () = shut_down(&mut self.shutdown) => return Err(Fault::Fatal(shutdown_error())),
                frame = self.input.frame() => return Ok(frame?),
                Some(notice) = self.notices.recv() => {
                    self.output.notice(&notice);
                    self.output.flush().await?;
                }
            }
        }
    }

    /// The type of the next message.
    pub(crate) async fn peek_kind(&mut self) -> Result<u8, Fault> {
        tokio::select! {
            biased;
            () = shut_down(&mut self.shutdown) => Err(Fault::Fatal(shutdown_error())),
            kind = self.input.peek_kind() => Ok(kind?),
        }
    }
}
