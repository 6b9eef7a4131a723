//! The accept loop: one task a connection, limits, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millpond_common::{Error, Result, SqlState};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backend::Output;
use crate::cancel::CancelHandle;
use crate::connection::Connection;
use crate::database::{Database, Startup};
use crate::frame::{FrameError, FrameReader};
use crate::io::{Fault, Io, shut_down, shutdown_error};
use crate::notice::NoticeSender;
use crate::registry::Registry;
use crate::startup::{self, Opening, Packet};
use crate::status;

/// Limits of the server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Sessions at a time; further clients are refused with 53300.
    pub connections_max: usize,
    /// How long a client may take until it is a session.
    pub startup_timeout: Duration,
    /// The largest message of a session: a statement's text, a set of parameters.
    pub message_bytes_max: usize,
    /// How long running statements may take to end after shutdown was asked for.
    pub shutdown_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            connections_max: 1000,
            startup_timeout: Duration::from_secs(60),
            message_bytes_max: 64 << 20,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// Connections beyond [`ServeOptions::connections_max`] that may be open until they are refused: clients that
/// have not said yet whether they want a session or only to cancel a statement.
const UNDECIDED_MAX: usize = 100;

/// How long, and up to how many bytes, a refused client is listened to, so that it gets to read the reason.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What all connections share.
struct Server {
    database: Arc<dyn Database>,
    options: ServeOptions,
    registry: Registry,
    sessions: Semaphore,
    shutdown: watch::Receiver<bool>,
}

/// Serves `database` on `listener` until `shutdown` turns true, and until the sessions have ended:
/// idle ones at once, with 57P01, running ones when their statement has been cancelled. Who connects after that waits in
/// the listener for whoever serves it next.
pub async fn serve(
    listener: Arc<TcpListener>,
    database: Arc<dyn Database>,
    options: ServeOptions,
    shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let connections = Arc::new(Semaphore::new(options.connections_max.saturating_add(UNDECIDED_MAX).min(Semaphore::MAX_PERMITS)));
    let sessions = Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS));
    let shutdown_timeout = options.shutdown_timeout;
    let mut down = shutdown.clone();
    let server = Arc::new(Server { database, options, registry: Registry::default(), sessions, shutdown });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shut_down(&mut down) => break,
            Some(ended) = tasks.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Beyond the bound there is not even an answer: an answer needs a task.
                    if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                        let server = Arc::clone(&server);
                        tasks.spawn(async move {
                            server.connection(stream, peer).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    // Out of file descriptors, for example: others may close soon.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(shutdown_timeout, all).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections did not end in time");
        tasks.shutdown().await;
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection failed; the others are not concerned");
    }
}

impl Server {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (read, write) = stream.into_split();
        let mut input = FrameReader::new(read, self.options.message_bytes_max);
        let mut output = Output::new(write);
        let mut down = self.shutdown.clone();
        let opening = {
            let opening = timeout(self.options.startup_timeout, startup::open(&mut input, &mut output));
            tokio::pin!(opening);
            tokio::select! {
                opening = &mut opening => opening,
                // It may be about to say who it is, and can only be told then.
                () = shut_down(&mut down) => timeout(LINGER, opening).await.unwrap_or(Ok(Err(FrameError::Closed))),
            }
        };
        let packet = match opening {
            Ok(Ok(Opening::Session(packet))) => packet,
            Ok(Ok(Opening::Cancel { process_id, secret })) => return self.registry.cancel(process_id, &secret),
            Ok(Err(FrameError::Violation(error))) => return refuse(&mut input, &mut output, &error).await,
            Ok(Err(FrameError::Closed)) => return,
            Err(_) => {
                tracing::debug!(%peer, "a client took too long to start up");
                return;
            }
        };
        let admitted = startup::authorize(peer, &packet.user).and_then(|()| {
            if *down.borrow() {
                return Err(Error::new(SqlState::CANNOT_CONNECT_NOW, "the database system is shutting down"));
            }
            self.sessions.try_acquire().map_err(|_| Error::new(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already"))
        });
        match admitted {
            Ok(_permit) => self.session(input, output, packet, peer).await,
            Err(error) => {
                tracing::debug!(%peer, %error, "a client was refused");
                refuse(&mut input, &mut output, &error).await;
            }
        }
    }

    async fn session(
        &self,
        mut input: FrameReader<tokio::net::tcp::OwnedReadHalf>,
        mut output: Output<tokio::net::tcp::OwnedWriteHalf>,
        packet: Packet,
        peer: SocketAddr,
    ) {
        // Protocol 3.2 has room for secrets that cannot be guessed.
        let secret: Vec<u8> = if packet.minor >= 2 { rand::random::<[u8; 32]>().to_vec() } else { rand::random::<[u8; 4]>().to_vec() };
        let registration = self.registry.register(secret.clone());
        if let Some(unsupported) = &packet.negotiate {
            output.negotiate_protocol_version(packet.version(), unsupported.clone());
        }
        output.authentication_ok();
        let (sender, notices) = NoticeSender::channel();
        let Packet { user, database, parameters, .. } = packet;
        let startup = Startup { user: user.clone(), database, parameters, peer, process_id: registration.process_id };
        let mut session = match self.database.connect(startup, sender).await {
            Ok(session) => session,
            Err(error) => return refuse(&mut input, &mut output, &error).await,
        };
        let cancel: CancelHandle = session.cancel_handle();
        registration.set_cancel(cancel.clone());
        for (name, value) in status::initial(&user, session.parameter_status_changes()) {
            output.parameter_status(&name, &value);
        }
        output.backend_key_data(registration.process_id, &secret);
        tracing::debug!(%peer, %user, process_id = registration.process_id, "connected");
        let io = Io { input, output, notices, cancel, shutdown: self.shutdown.clone(), gone: false };
        let mut connection = Connection::new(io, session);
        let fault = connection.run().await;
        tracing::debug!(%peer, process_id = registration.process_id, ?fault, "disconnected");
        let Connection { mut io, session, prepared, .. } = connection;
        // Row streams first, then the session, whose end rolls back what is open; the goodbye comes last.
        drop(prepared);
        drop(session);
        match fault {
            Fault::Fatal(error) | Fault::Statement(error) => refuse(&mut io.input, &mut io.output, &error).await,
            Fault::Gone => {}
        }
    }
}

/// Ends a connection with an error. The client's unread bytes are taken first: closing a socket on
/// them would make the system throw the error away.
async fn refuse(
    input: &mut FrameReader<tokio::net::tcp::OwnedReadHalf>,
    output: &mut Output<tokio::net::tcp::OwnedWriteHalf>,
    error: &Error,
) {
    output.error("FATAL", error);
    let goodbye = async {
        if output.flush().await.is_ok() && output.shutdown().await.is_ok() && error.state() != shutdown_error().state() {
            input.drain(LINGER_BYTES_MAX).await;
        }
    };
    if timeout(LINGER, goodbye).await.is_err() {
        tracing::debug!("a client did not read why it was refused");
    }
}
