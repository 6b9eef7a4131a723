//! The dataflow on timely workers: the only place that names timely.
//!
//! - [`worker`]: a worker thread's loop: commands in, reports out
//! - [`job`]: a job at work on one worker
//! - [`graph`]: how its dataflow is built from its stream plan
//! - [`adapter`]: how an [`crate::operators::Operator`] becomes a timely operator that acts once per epoch
//! - [`import`]: how a relation's changes enter a job
//! - [`backfill`]: how a new job gets what a relation already holds
//! - [`stored`]: what an operator has given so far, from a checkpoint
//! - [`ticks`]: how operators learn the time
//! - [`unaligned`]: how a checkpoint overtakes what waits
//! - [`chunk`]: the container that moves between operators, and its exchange by hash

mod adapter;
mod backfill;
mod chunk;
mod graph;
mod import;
mod job;
mod residency;
mod stored;
mod ticks;
mod unaligned;
mod worker;

pub(crate) use chunk::{decode_chunk, encode_chunk};
pub(crate) use graph::state_table_counts;
pub(crate) use worker::{Workers, spawn};
