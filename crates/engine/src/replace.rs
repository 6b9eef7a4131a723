//! Replacing a view's query while the view is read.
//!
//! The new plan is compared with the old one: operators that compute the same from the same are *kept*. The rest of the new plan
//! becomes a job of its own, which fills a relation of its own, while the old job runs on as if nothing were. Where that rest reads
//! what a kept operator gives, it taps the operator in the old job: first it gets all that the operator has given so far, which is
//! read from its state in a checkpoint, a virtual node at a time, and then the changes since. So kept operators see no row twice.
//!
//! When the new job is level and a checkpoint has it, the catalog's record of the view is exchanged in one write, and between two epochs
//! the kept operators move from the old job's dataflow to the new one's, with their state as it is. A crash before that write leaves
//! the old view, one after it the new view; what belongs to neither is deleted by the next start, as nothing names it.

use millpond_common::{JobId, Result, StateTableId};
use millpond_plan::{Kept, StreamPlan};

use crate::job::JobSpec;
use crate::{dataflow, operators};

/// What becomes of a view's job.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The job that is replaced.
    pub old: JobId,
    /// The one that takes its place, with a relation of its own.
    pub spec: JobSpec,
    /// Which operators it takes over; see [`kept`].
    pub kept: Kept,
}

/// Which operators of a new plan can go on with the state of an old one's.
pub fn kept(new: &StreamPlan, old: &StreamPlan) -> Kept {
    new.keep_from(old, &|at| operators::tells_output(new, at))
}

/// The numbers of a new job's state tables: kept operators have theirs, the others get new ones from `fresh` on.
pub fn state_tables(new: &StreamPlan, kept: &Kept, old: &JobSpec, fresh: u32) -> Result<Vec<StateTableId>> {
    let known = tables_by_node(&old.plan, &old.state_tables)?;
    let mut fresh = (fresh..).map(StateTableId);
    let counts = dataflow::state_table_counts(new)?;
    let of_node = |(at, count): (usize, usize)| match kept.get(at).copied().flatten().and_then(|old| known.get(old)) {
        Some(tables) => tables.clone(),
        None => fresh.by_ref().take(count).collect(),
    };
    Ok(counts.into_iter().enumerate().flat_map(of_node).collect())
}

/// For each node of a plan the numbers of its tables.
pub(crate) fn tables_by_node(plan: &StreamPlan, tables: &[StateTableId]) -> Result<Vec<Vec<StateTableId>>> {
    let mut tables = tables.iter().copied();
    Ok(dataflow::state_table_counts(plan)?.into_iter().map(|count| tables.by_ref().take(count).collect()).collect())
}
