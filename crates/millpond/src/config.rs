//! Configuration: command line over environment over TOML file over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millpond_common::settings::{parse_duration, parse_size};
use millpond_common::{Error, Result, SqlState};
use millpond_query::CheckpointStorage;
use serde::Deserialize;

/// A SQL-first streaming database: live, always-exact materialized views over the PostgreSQL protocol.
#[derive(Parser, Debug)]
#[command(name = "millpond", version, about, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the database server.
    Serve(Options),
    /// Run the server with the demo pipeline and show a view as it changes.
    Demo(Options),
    /// Make a second database directory of a savepoint, by hard links where the file system has them.
    Fork {
        /// Directory that holds the database; its server may be running.
        #[arg(long, env = "MILLPOND_DATA_DIR", value_name = "DIR", default_value = "./millpond-data")]
        data_dir: PathBuf,
        /// The savepoint.
        #[arg(long, value_name = "NAME")]
        savepoint: String,
        /// The new directory; it must not exist, or be empty.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// Settings of the server as given; what is missing comes from the file or the defaults.
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Options {
    /// Directory that holds the database; made if it does not exist [default: ./millpond-data].
    #[arg(long, env = "MILLPOND_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for PostgreSQL clients [default: 127.0.0.1:5433].
    #[arg(long, env = "MILLPOND_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address for /metrics and /healthz [default: 127.0.0.1:5480].
    #[arg(long, env = "MILLPOND_HTTP_LISTEN", value_name = "ADDR:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// Worker threads [default: the number of cores].
    #[arg(long, env = "MILLPOND_PARALLELISM", value_name = "N")]
    pub parallelism: Option<usize>,
    /// Memory budget, for example 2GB [default: half of the machine's].
    #[arg(long, env = "MILLPOND_MEMORY", value_name = "SIZE")]
    pub memory: Option<String>,
    /// TOML file with the same settings (data-dir, listen, http-listen, parallelism, memory, init, log, log-format).
    #[arg(long, env = "MILLPOND_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where checkpoints are uploaded to: s3://bucket/prefix, gs://…, az://… or file:///directory. Credentials come from the
    /// environment (AWS_ACCESS_KEY_ID, …). A lost or damaged data directory is restored from there.
    #[arg(long, env = "MILLPOND_CHECKPOINT_STORAGE", value_name = "URL")]
    pub checkpoint_storage: Option<String>,
    /// Time between two uploads [default: 10s]: what a lost disk can cost at most.
    #[arg(long, env = "MILLPOND_CHECKPOINT_STORAGE_INTERVAL", value_name = "TIME")]
    pub checkpoint_storage_interval: Option<String>,
    /// Checkpoints that stay there [default: 3].
    #[arg(long, env = "MILLPOND_CHECKPOINT_STORAGE_KEEP", value_name = "N")]
    pub checkpoint_storage_keep: Option<usize>,
    /// Savepoint to continue from: it takes the place of what the database is now, which is lost unless it has a savepoint, too.
    #[arg(long, value_name = "NAME")]
    #[serde(skip)]
    pub from_savepoint: Option<String>,
    /// SQL to run once, when the database is new.
    #[arg(long, env = "MILLPOND_INIT", value_name = "FILE.sql")]
    pub init: Option<PathBuf>,
    /// Log filter, as in `info` or `millpond_engine=debug` [default: info].
    #[arg(long, env = "MILLPOND_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// `text` or `json` lines on standard error [default: text].
    #[arg(long, env = "MILLPOND_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Settings of the server, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory that holds the database.
    pub data_dir: PathBuf,
    /// Address for PostgreSQL clients.
    pub listen: SocketAddr,
    /// Address for `/metrics` and `/healthz`.
    pub http_listen: SocketAddr,
    /// Worker threads.
    pub parallelism: usize,
    /// Memory budget in bytes, of the whole process.
    pub memory: u64,
    /// Where checkpoints are uploaded to.
    pub storage: Option<CheckpointStorage>,
    /// Savepoint to continue from.
    pub from_savepoint: Option<String>,
    /// SQL to run once.
    pub init: Option<PathBuf>,
    /// Log filter.
    pub log: String,
    /// JSON lines instead of text.
    pub log_json: bool,
}

const STORAGE_INTERVAL: Duration = Duration::from_secs(10);
const STORAGE_KEEP: usize = 3;
const PARALLELISM_MAX: usize = 256;
const MEMORY_MIN: u64 = 160 << 20;
/// What the process takes apart from what is shared out: program, threads, plans, readers.
const OWN_MEMORY: u64 = 128 << 20;

impl Config {
    /// The part of the memory budget that is shared out between state, changes, caches and queries.
    pub fn shared_memory(&self) -> u64 {
        self.memory.saturating_sub(OWN_MEMORY).max(self.memory / 4)
    }
}

fn invalid(message: String, hint: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint)
}

impl Options {
    /// Fills in what the file and the defaults give, and checks it. `data_dir` is the default directory.
    pub fn resolve(self, data_dir: &str) -> Result<Config> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Options::default(),
        };
        let parallelism = self.parallelism.or(file.parallelism);
        let parallelism = parallelism.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        if !(1..=PARALLELISM_MAX).contains(&parallelism) {
            return Err(invalid(format!("parallelism {parallelism} is out of range"), "Use a number from 1 to 256."));
        }
        let memory = match self.memory.or(file.memory) {
            Some(text) => {
                parse_size(&text).ok_or_else(|| invalid(format!("\"{text}\" is not a memory size"), "Use a size such as 512MB or 4GB."))?
            }
            None => (machine_memory() / 2).max(MEMORY_MIN),
        };
        if memory < MEMORY_MIN {
            return Err(invalid(format!("memory of {memory} bytes is too little"), "Use at least 160MB."));
        }
        let log_json = match self.log_format.or(file.log_format).as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(invalid(format!("unknown log format \"{other}\""), "Use text or json.")),
        };
        let address = |a: Option<SocketAddr>, port| a.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
        let interval = match self.checkpoint_storage_interval.or(file.checkpoint_storage_interval) {
            Some(text) => {
                parse_duration(&text).ok_or_else(|| invalid(format!("\"{text}\" is not a time"), "Use a time such as 10s or 5min."))?
            }
            None => STORAGE_INTERVAL,
        };
        let keep = self.checkpoint_storage_keep.or(file.checkpoint_storage_keep).unwrap_or(STORAGE_KEEP).max(1);
        let storage = self.checkpoint_storage.or(file.checkpoint_storage).map(|url| CheckpointStorage { url, interval, keep });
        Ok(Config {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| data_dir.into()),
            listen: address(self.listen.or(file.listen), 5433),
            http_listen: address(self.http_listen.or(file.http_listen), 5480),
            parallelism,
            memory,
            storage,
            from_savepoint: self.from_savepoint,
            init: self.init.or(file.init),
            log: self.log.or(file.log).unwrap_or_else(|| "info".into()),
            log_json,
        })
    }
}

fn read_file(path: &Path) -> Result<Options> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        invalid(format!("cannot read the configuration file {}: {e}", path.display()), "Check the path given with --config.")
    })?;
    toml::from_str(&text).map_err(|e| {
        invalid(format!("the configuration file {} is not valid", path.display()), "See `millpond serve --help` for the settings.")
            .with_detail(e.to_string().trim().to_string())
    })
}

/// The machine's memory in bytes; 4 GiB where the system does not tell.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.map_or(4 << 30, |k| k * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn command_line_wins_over_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("millpond.toml");
        std::fs::write(&path, "parallelism = 3\nmemory = \"1GB\"\nlisten = \"127.0.0.1:7000\"\n").unwrap();
        let options = Options { config: Some(path.clone()), parallelism: Some(2), ..Options::default() };
        let config = options.resolve("d").unwrap();
        assert_eq!((config.parallelism, config.memory, config.shared_memory()), (2, 1 << 30, (1 << 30) - OWN_MEMORY));
        assert_eq!(config.listen.port(), 7000);
        assert_eq!(config.http_listen.port(), 5480);
        std::fs::write(&path, "no-such-setting = 1\n").unwrap();
        let error = Options { config: Some(path), ..Options::default() }.resolve("d").unwrap_err();
        assert!(error.detail().unwrap().contains("no-such-setting"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        for options in [
            Options { parallelism: Some(0), ..Options::default() },
            Options { memory: Some("lots".into()), ..Options::default() },
            Options { memory: Some("159MB".into()), ..Options::default() },
            Options { log_format: Some("xml".into()), ..Options::default() },
            Options { config: Some("/no/such/file".into()), ..Options::default() },
        ] {
            assert!(options.resolve("d").is_err());
        }
    }
}
