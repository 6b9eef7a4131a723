//! The dataflow on timely workers: the only place that names timely.
//!
//! - [`worker`]: a worker thread's loop: commands in, reports out
//! - [`job`]: a job's dataflow, built from its stream plan
//! - [`adapter`]: how an [`crate::operators::Operator`] becomes a timely operator that acts once per epoch
//! - [`import`]: how a relation's changes enter a job
//! - [`backfill`]: how a new job gets what a relation already holds
//! - [`stored`]: what an operator has given so far, from a checkpoint
//! - [`ticks`]: how operators learn the time
//! - [`chunk`]: the container that moves between operators, and its exchange by hash

mod adapter;
mod backfill;
mod chunk;
mod import;
mod job;
mod residency;
mod stored;
mod ticks;
mod worker;

pub(crate) use job::state_table_counts;
pub(crate) use worker::{Workers, spawn};
