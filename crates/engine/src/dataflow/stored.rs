//! What an operator has given so far, as its state in a checkpoint tells it: a virtual node at a time, each time by a fresh
//! operator with that part of the state alone.

use std::ops::Range;
use std::sync::Arc;

use millpond_common::{Delta, Error, Result, StateTableId};
use millpond_state::ReadView;

use crate::job::JobSpec;
use crate::operators::{self, Built, EpochContext};

/// The output of a stateful node of a job's plan, as of the last checkpoint before `view`, for some virtual nodes.
pub(super) fn output(
    spec: Arc<JobSpec>,
    node: usize,
    tables: Vec<StateTableId>,
    view: ReadView,
    context: EpochContext,
    vnodes: Range<usize>,
) -> Box<dyn Iterator<Item = Result<Delta>>> {
    let part = move |vnode: usize| -> Result<Vec<Delta>> {
        let Built::Stateful(operator) = operators::build(&spec.plan, node)? else {
            return Err(Error::internal("an operator without state is asked for its output"));
        };
        for (table, (_, handle)) in tables.iter().zip(operator.state()) {
            view.state_load(*table, vnode..vnode + 1, &mut |key, value| handle.borrow_mut().load(key, value))?;
        }
        let mut out = Vec::new();
        operator.into_output(&context, &mut out)?;
        Ok(out)
    };
    Box::new(vnodes.flat_map(move |vnode| match part(vnode) {
        Ok(deltas) => deltas.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}
