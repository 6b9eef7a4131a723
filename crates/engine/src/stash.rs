//! What an unaligned checkpoint holds of epochs that were on their way, and how it is stored: one state table for all
//! jobs, which is written anew with every such checkpoint and emptied by the next aligned one.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::Int64Array;
use millpond_common::{Delta, Epoch, JobId, RelationId, Result, StateTableId, VNODE_COUNT};
use millpond_state::{Entries, Frame, FrozenTable, Store, StoredTable, TableLookup};
use serde::{Deserialize, Serialize};

use crate::dataflow::{decode_chunk, encode_chunk};

/// The number of the table, which no other has.
pub const STASH: StateTableId = StateTableId(u32::MAX - 1);

/// Where rows waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// At an input of an operator.
    Port { node: u32, port: u32 },
    /// At the end of the job, before they were published.
    Output,
    /// Nowhere: they were published, in an epoch that nobody saw yet.
    Published(RelationId),
}

/// Some rows of an epoch on its way.
#[derive(Clone, Debug)]
pub(crate) struct Stashed {
    pub job: JobId,
    pub place: Place,
    pub epoch: Epoch,
    pub delta: Delta,
}

/// What each entry in the store begins with.
const FRAME: Frame = Frame { magic: b"MPST", version: 1, what: "a checkpoint's stash" };

/// The same in the store.
#[derive(Serialize, Deserialize)]
struct Stored {
    job: JobId,
    place: Place,
    epoch: Epoch,
    /// Arrow IPC.
    rows: Vec<u8>,
}

/// Behind the virtual node that all keys begin with.
fn key(number: u32) -> Vec<u8> {
    [&[0], &number.to_be_bytes()[..]].concat()
}

/// The table's change from so many entries to these.
pub(crate) fn encode(stash: &[Stashed], before: u32) -> Result<FrozenTable> {
    let mut entries = Entries::new();
    for (number, Stashed { job, place, epoch, delta }) in (0..).zip(stash) {
        let stored = Stored { job: *job, place: *place, epoch: *epoch, rows: encode_chunk(delta)? };
        let value = FRAME.seal(&bincode::serialize(&stored)?);
        entries.put(|out| out.extend(key(number)), |out| out.extend(value));
    }
    for number in (stash.len() as u32)..before {
        entries.delete(|out| out.extend(key(number)));
    }
    Ok(FrozenTable { table: STASH, entries })
}

/// What the last checkpoint has, which says how many entries these are.
pub(crate) fn load(store: &Arc<Store>, count: u32) -> Result<Vec<Stashed>> {
    let mut stash = Vec::new();
    TableLookup::new(store, STASH, 0..VNODE_COUNT).walk(&[], &mut |_, value| {
        let Stored { job, place, epoch, rows } = bincode::deserialize(FRAME.open(value)?)?;
        stash.push(Stashed { job, place, epoch, delta: decode_chunk(&rows)? });
        Ok(ControlFlow::Continue(()))
    })?;
    if stash.len() == count as usize { Ok(stash) } else { Err(FRAME.damaged()) }
}

/// What a job's inputs had given it in epochs that their relations, as they were committed, do not contain, with the opposite sign:
/// their changes after the commit are, together with this, what the job has not got.
pub(crate) fn received(stash: &[Stashed], reads: &[RelationId]) -> Vec<(RelationId, Delta)> {
    let of_input = |s: &Stashed| match s.place {
        Place::Published(relation) if reads.contains(&relation) => {
            let weights = Int64Array::from_iter_values((0..s.delta.len()).map(|i| -s.delta.weight(i)));
            Some((relation, Delta::new(s.delta.batch.clone(), Some(weights))))
        }
        _ => None,
    };
    stash.iter().filter_map(of_input).collect()
}
