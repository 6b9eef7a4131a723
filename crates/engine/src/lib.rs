//! Runs stream plans. A map, in the order in which a row meets it:
//!
//! - [`Engine`] (`handle.rs`): what sessions call
//! - `log.rs`: transactions of tables, made durable with group commit
//! - `source.rs`: readers of sources, decoding ahead on their own threads
//! - `dead_letters.rs`: records that could not be read, kept
//! - `clock.rs`: makes the barriers: which rows, which transactions, which jobs make up an epoch
//! - `pipeline.rs`: which jobs are connected and therefore step together
//! - `replace.rs`: what a view's new query takes over from the old one
//! - `restart.rs`: restart strategies: whether a failed job is tried again, and when
//! - `dataflow/`: jobs as timely dataflows on worker threads; nothing else names timely
//! - [`operators`]: the incremental operators, one a file
//! - `checkpoint.rs`: the committer thread, and what a checkpoint records of the engine
//! - `messages.rs`: what clock and workers say to each other
//! - [`job`]: jobs, sources, checkpoints as callers see them

mod checkpoint;
mod clock;
mod consolidate;
mod dataflow;
mod dead_letters;
mod handle;
pub mod job;
mod log;
mod messages;
pub mod operators;
mod pipeline;
mod replace;
mod restart;
mod source;

pub use consolidate::consolidate;
pub use dead_letters::{DEAD_LETTERS, DeadLetter};
pub use handle::{Engine, EngineConfig, running_in, state_tables_needed};
pub use job::{CheckpointInfo, JobHandle, JobInfo, JobProgress, JobSpec, JobState, OperatorInfo, SourceInfo, SourceSpec};
pub use replace::{Replacement, kept, state_tables};
