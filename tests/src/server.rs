//! A server as a child process, in a directory of its own.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long a server may take to accept connections, and a client to get an answer that is surely coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    port: u16,
    http_port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// The folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The server's binary: built beside the tests, or named by `MILLPOND_BIN`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MILLPOND_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().skip(1).take(3).map(|d| d.join("millpond")).find(|p| p.is_file());
    found.expect("the millpond binary is built: run ./test.sh, or cargo build --release -p millpond")
}

/// What a server says that finds one of its ports taken.
const PORT_TAKEN: &str = "HINT: Another server runs there.";

/// A port that is free now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a server on a directory and waits until it answers.
    pub async fn start(dir: &Path, arguments: &[&str]) -> Server {
        let mut server = Server::new(dir, arguments);
        server.restart().await;
        server
    }

    /// A server that has not been started yet.
    pub fn new(dir: &Path, arguments: &[&str]) -> Server {
        Server {
            child: Command::new("true").spawn().unwrap(),
            port: 0,
            http_port: 0,
            dir: dir.to_path_buf(),
            arguments: arguments.iter().map(|a| (*a).to_string()).collect(),
            environment: vec![],
        }
    }

    /// Starts it again on the same directory. The old process must be gone.
    pub async fn restart(&mut self) {
        self.try_restart().await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// The same; an error if the server ends instead of answering.
    pub async fn try_restart(&mut self) -> Result<(), String> {
        let _ = self.child.wait();
        (self.port, self.http_port) = (free_port(), free_port());
        let length = self.log_length();
        self.child = self.command().spawn().unwrap();
        let started = Instant::now();
        while self.try_connect().await.is_none() {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Ports are free when they are chosen; another process may be faster.
                if self.log_since(length).contains(PORT_TAKEN) {
                    return Box::pin(self.try_restart()).await;
                }
                return Err(format!("the server ended at its start: {status}\n{}", self.log()));
            }
            if started.elapsed() >= PATIENCE {
                return Err(format!("the server does not answer\n{}", self.log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// What the next start is to be given.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| (*a).to_string()).collect();
    }

    /// The environment of the next starts, beside that of the tests.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        command
            .current_dir(repository())
            .args(["serve", "--data-dir", self.dir.join("db").to_str().unwrap()])
            .args(["--listen", &format!("127.0.0.1:{}", self.port), "--http-listen", &format!("127.0.0.1:{}", self.http_port)])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// What the server wrote to its log, the last part of it.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let from = text.char_indices().rev().nth(8000).map_or(0, |(i, _)| i);
        text[from..].to_string()
    }

    /// How long its log is.
    pub fn log_length(&self) -> usize {
        std::fs::metadata(self.log_path()).map_or(0, |m| m.len() as usize)
    }

    /// What it has written to its log since then.
    pub fn log_since(&self, length: usize) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(length..).unwrap_or_default()).into_owned()
    }

    /// Whether it has written a text to its log since then, or does so in time.
    pub async fn logs(&self, length: usize, text: &str, patience: Duration) -> bool {
        let started = Instant::now();
        loop {
            match self.log_since(length).contains(text) {
                true => return true,
                false if started.elapsed() >= patience => return false,
                false => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// How clients reach it.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=tester dbname=dev", self.port)
    }

    /// The port for PostgreSQL clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for `/metrics`.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// What it answers to a browser.
    pub fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.http_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// A new session, if the server gives one.
    pub async fn try_connect(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.ok()?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await.ok()?;
        Some(client)
    }

    /// A new session.
    pub async fn connect(&self) -> Client {
        self.try_connect().await.unwrap_or_else(|| panic!("cannot connect\n{}", self.log()))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; the exit code must be 0.
    pub async fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "SIGTERM must end the server with 0, not {status}\n{}", self.log());
                return;
            }
            assert!(started.elapsed() < PATIENCE, "SIGTERM does not end the server\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The process's number.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The rows of a query as texts; NULL is `None`.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let row = |m| match m {
        SimpleQueryMessage::Row(r) => Some((0..r.len()).map(|i| r.get(i).map(str::to_string)).collect()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// The first value of a query's only row.
pub async fn value(client: &Client, sql: &str) -> String {
    let found = rows(client, sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
    found.first().and_then(|r| r.first().cloned()).flatten().unwrap_or_else(|| "NULL".into())
}

/// Runs statements whose result does not matter.
pub async fn run(client: &Client, sql: &str) {
    client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)));
}

/// An error with its SQLSTATE, detail and hint.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => {
            let part = |name: &str, text: Option<&str>| text.map(|t| format!("\n{name}: {t}")).unwrap_or_default();
            format!("{} {}{}{}", e.code().code(), e.message(), part("DETAIL", e.detail()), part("HINT", e.hint()))
        }
        None => error.to_string(),
    }
}

/// Waits until a query's first value is as expected.
pub async fn wait_for(client: &Client, sql: &str, expected: &str) {
    becomes(client, sql, expected).await.unwrap_or_else(|e| panic!("{e}"));
}

/// The same; an error if it does not come to that.
pub async fn becomes(client: &Client, sql: &str, expected: &str) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let found = rows(client, sql).await.map_err(|e| format!("{sql}: {}", describe(&e)))?;
        let found = found.first().and_then(|r| r.first().cloned()).flatten().unwrap_or_else(|| "NULL".into());
        if found == expected {
            return Ok(());
        }
        if started.elapsed() >= PATIENCE {
            return Err(format!("{sql}: {found}, expected {expected}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
