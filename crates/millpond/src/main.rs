//! The `millpond` binary: configuration, wiring, HTTP port, demo.
//!
//! - `config.rs`: command line, environment, TOML file
//! - `server.rs`: opens everything in order, serves, shuts down
//! - `adapter.rs`: sessions as the wire protocol calls them
//! - `http.rs`: `/metrics` and `/healthz`
//! - `allocator.rs`: memory
//! - `demo.rs`: the demo pipeline and its live view

mod adapter;
mod allocator;
mod config;
mod demo;
mod http;
mod server;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use config::{Cli, Command, Config};
use millpond_common::{Error, Result};
use tracing_subscriber::EnvFilter;

/// Of a thread that plans and runs statements. What is not used of it takes no memory; statements are limited to what it has room for.
const STACK_BYTES: usize = 64 << 20;

/// Why the process ends, as its exit code.
#[derive(Clone, Copy, Debug)]
enum Exit {
    /// Something else.
    Failure = 1,
    /// Wrong settings (also the code of wrong command lines).
    Usage = 2,
    /// A port cannot be had.
    Port = 3,
    /// The data directory is in use by another process.
    InUse = 4,
    /// The data directory is not one, or cannot be read or written.
    Directory = 5,
    /// The data directory was written by a newer version.
    Future = 6,
    /// Storage failed while running.
    Storage = 7,
}

/// An error with the exit code that it leads to.
struct Fatal(Exit, Error);

impl From<Error> for Fatal {
    fn from(error: Error) -> Self {
        Fatal(Exit::Failure, error)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (options, demo) = match cli.command {
        Command::Serve(options) => (options, false),
        Command::Demo(options) => (options, true),
        Command::Fork { data_dir, savepoint, to } => return end(fork(&data_dir, &savepoint, &to)),
    };
    let result = configure(options, demo).map_err(|e| Fatal(Exit::Usage, e)).and_then(|config| run(&config, demo));
    end(result)
}

fn fork(data_dir: &Path, savepoint: &str, to: &Path) -> Result<(), Fatal> {
    millpond_state::fork(data_dir, savepoint, to).map_err(|e| Fatal(Exit::Directory, e))?;
    println!("made {} of savepoint \"{savepoint}\": millpond serve --data-dir {0}", to.display());
    Ok(())
}

fn end(result: Result<(), Fatal>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fatal(exit, error)) => {
            eprintln!("millpond: {}", error.message());
            for (label, text) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
                if let Some(text) = text {
                    eprintln!("{label}: {text}");
                }
            }
            ExitCode::from(exit as u8)
        }
    }
}

fn configure(options: config::Options, demo: bool) -> Result<Config> {
    let config = options.resolve(if demo { "./millpond-demo" } else { "./millpond-data" })?;
    allocator::configure(config.memory);
    let filter = EnvFilter::try_new(&config.log).map_err(|e| {
        Error::new(millpond_common::SqlState::INVALID_PARAMETER_VALUE, format!("\"{}\" is not a log filter: {e}", config.log))
            .with_hint("Use a level such as info, or parts such as millpond_engine=debug.")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        log.json().init()
    } else {
        log.with_target(false).init()
    }
    Ok(config)
}

fn run(config: &Config, demo: bool) -> Result<(), Fatal> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_name("session").thread_stack_size(STACK_BYTES).build().map_err(Error::from)?;
    let result = runtime.block_on(server::run(config, demo));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
