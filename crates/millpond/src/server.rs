//! Opens everything in order, serves, and shuts down in the reverse order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use millpond_common::{Error, Result, SqlState};
use millpond_engine::Engine;
use millpond_query::{CancelToken, Database, DatabaseOptions, Response, Session, Startup};
use millpond_wire::ServeOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::config::Config;
use crate::{Exit, Fatal, demo, http};

/// Runs the server until a signal ends it or storage fails. When a savepoint is restored, another database takes the place of the one
/// before; the sockets stay, and who connects meanwhile waits.
pub async fn run(config: &Config, demo: bool) -> Result<(), Fatal> {
    let listener = Arc::new(listen(config.listen, "--listen").await?);
    let http_listener = listen(config.http_listen, "--http-listen").await?;
    if let Some(name) = &config.from_savepoint {
        millpond_state::restore_at_next_open(&config.data_dir, name).map_err(|e| Fatal(exit_of(&e), e))?;
    }
    let (engine, shown) = watch::channel(None);
    let mut process = Process {
        address: listener.local_addr().map_err(Error::from)?,
        http_address: http_listener.local_addr().map_err(Error::from)?,
        listener,
        engine,
        terminate: signal(SignalKind::terminate()).map_err(Error::from)?,
        interrupt: signal(SignalKind::interrupt()).map_err(Error::from)?,
    };
    let http = tokio::spawn(http::serve(http_listener, shown));
    let result = loop {
        match process.serve(config, demo).await {
            Ok(Next::Again) => {}
            Ok(Next::End) => break Ok(()),
            Err(fatal) => break Err(fatal),
        }
    };
    http.abort();
    result
}

/// What follows when a database has ended in good order.
enum Next {
    End,
    /// The one that a savepoint has made.
    Again,
}

/// What outlives a database.
struct Process {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    http_address: SocketAddr,
    /// Whose figures the HTTP port shows.
    engine: watch::Sender<Option<Engine>>,
    terminate: Signal,
    interrupt: Signal,
}

impl Process {
    async fn serve(&mut self, config: &Config, demo: bool) -> Result<Next, Fatal> {
        let started = Instant::now();
        let database = tokio::select! {
            opened = open(config, demo) => opened?,
            // As after a crash: the next start finishes what this one has begun.
            _ = self.terminate.recv() => return Ok(Next::End),
            _ = self.interrupt.recv() => return Ok(Next::End),
        };
        let engine = database.engine().clone();
        self.engine.send_replace(Some(engine.clone()));
        let (stop, stopping) = watch::channel(false);
        let adapter = Arc::new(Adapter(Arc::clone(&database)));
        let mut serve = tokio::spawn(millpond_wire::serve(Arc::clone(&self.listener), adapter, ServeOptions::default(), stopping));
        let (host, port) = (self.address.ip(), self.address.port());
        tracing::info!(
            address = %self.address, http = %self.http_address, data_dir = %config.data_dir.display(), workers = config.parallelism,
            started_in = ?started.elapsed(), "ready: psql -h {host} -p {port} -U {} dev", user()
        );
        let show = demo.then(|| tokio::spawn(demo::show(Arc::clone(&database), self.address)));
        let storage = tokio::select! {
            _ = self.terminate.recv() => Ok(Next::End),
            _ = self.interrupt.recv() => Ok(Next::End),
            () = database.reopening() => Ok(Next::Again),
            result = engine.ended() => result.map(|()| Next::End),
            result = &mut serve => result.unwrap_or_else(|e| Err(Error::internal(e.to_string()))).map(|()| Next::End),
        };
        if let Some(show) = show {
            show.abort();
        }
        self.engine.send_replace(None);
        let next = storage.map_err(|e| Fatal(Exit::Storage, e))?;
        tracing::info!("stopping: sessions end, then a final checkpoint");
        stop.send_replace(true);
        if !serve.is_finished() {
            let _ = serve.await;
        }
        database.shutdown().await.map_err(|e| Fatal(Exit::Storage, e))?;
        tracing::info!("stopped");
        Ok(next)
    }
}

/// Opens the database; if it is new, its script runs.
async fn open(config: &Config, demo: bool) -> Result<Arc<Database>, Fatal> {
    let options = DatabaseOptions {
        directory: config.data_dir.clone(),
        workers: config.parallelism,
        memory: config.shared_memory(),
        storage: config.storage.clone(),
    };
    let opened = tokio::task::spawn_blocking(move || Database::open(&options)).await;
    let opened = opened.map_err(|e| Error::internal(format!("opening the database ended early: {e}")))?;
    let database = opened.map_err(|e| Fatal(exit_of(&e), e))?;
    let script = match (&config.init, demo) {
        (Some(path), _) => Some(read_script(path)?),
        (None, true) => Some(demo::SCRIPT.to_string()),
        (None, false) => None,
    };
    if let Some(script) = script.filter(|_| database.is_new()) {
        initialise(&database, &script).await?;
    }
    Ok(database)
}

/// Until there are roles, everybody who can connect may do everything: so only this machine may.
async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener, Fatal> {
    if !address.ip().is_loopback() {
        let error = Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("will not listen on {address}: it is not a loopback address"))
            .with_detail("There are no roles and passwords yet, so anybody who can connect may do everything.")
            .with_hint(format!("Use {option} 127.0.0.1:{}, and a tunnel for other machines.", address.port()));
        return Err(Fatal(Exit::Usage, error));
    }
    TcpListener::bind(address).await.map_err(|e| {
        let error = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("the address {address} is in use"))
                    .with_hint(format!("Another server runs there. Stop it, or name another address with {option}."))
            }
            _ => Error::new(SqlState::IO_ERROR, format!("cannot listen on {address}: {e}"))
                .with_hint(format!("Name another address with {option}.")),
        };
        Fatal(Exit::Port, error)
    })
}

/// Why a data directory could not be opened.
fn exit_of(error: &Error) -> Exit {
    let text = error.message();
    if text.contains("in use") {
        Exit::InUse
    } else if error.hint().is_some_and(|h| h.contains("newer version")) {
        Exit::Future
    } else if error.state() == SqlState::INTERNAL_ERROR {
        Exit::Failure
    } else {
        Exit::Directory
    }
}

fn read_script(path: &Path) -> Result<String, Fatal> {
    std::fs::read_to_string(path).map_err(|e| {
        let error = Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("cannot read the script {}: {e}", path.display()));
        Fatal(Exit::Usage, error.with_hint("Check the path given with --init."))
    })
}

/// Runs the script of a new database. A script that fails is run again at the next start, so it stops the server.
async fn initialise(database: &Arc<Database>, script: &str) -> Result<()> {
    let mut session = session(database, "init")?;
    for statement in session.parse(script)? {
        let text =
            statement.text().lines().find(|l| !l.trim().is_empty() && !l.trim_start().starts_with("--")).unwrap_or_default().to_string();
        tracing::info!("init: {text}");
        let result = session.execute(&statement, vec![], false).await;
        if let Err(error) = result {
            return Err(Error::new(error.state(), format!("the script for new databases failed: {}", error.message())).with_detail(text));
        }
        session.finish_implicit(true).await?;
    }
    database.set_initialised()
}

/// A session of the server's own.
pub fn session(database: &Arc<Database>, name: &str) -> Result<Session> {
    let startup = Startup {
        user: "millpond".into(),
        database: None,
        parameters: [("application_name".to_string(), format!("millpond {name}"))].into(),
        process_id: 0,
        client: None,
    };
    database.connect(startup, Arc::new(|n| tracing::info!("{}", n.message)), CancelToken::new())
}

/// All rows of a query, in the server itself.
pub async fn query(session: &mut Session, sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
    let mut batches = Vec::new();
    for statement in session.parse(sql)? {
        if let Response::Rows { mut rows, .. } = session.execute(&statement, vec![], false).await? {
            while let Some(batch) = rows.next().await {
                batches.push(batch?);
            }
        }
        session.finish_implicit(true).await?;
    }
    Ok(batches)
}

fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "you".into())
}
