//! What an unaligned checkpoint holds of epochs that were on their way, and how it is stored: one state table for all
//! jobs, which is written anew with every such checkpoint and emptied by the next aligned one.

use millpond_common::{Delta, Epoch, JobId, RelationId, Result, StateTableId, VNODE_COUNT};
use millpond_state::{Entries, FrozenTable, Store, StoredTable, TableLookup};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

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

/// The same in the store: format 1.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    job: JobId,
    place: Place,
    epoch: Epoch,
    /// Arrow IPC.
    rows: Vec<u8>,
}

fn key(number: u32) -> Vec<u8> {
    [&[0], &number.to_be_bytes()[..]].concat()
}

/// The table's change from so many entries to these.
pub(crate) fn encode(stash: &[Stashed], before: u32) -> Result<FrozenTable> {
    let mut entries = Entries::new();
    for (number, Stashed { job, place, epoch, delta }) in (0..).zip(stash) {
        let stored = Stored { version: 1, job: *job, place: *place, epoch: *epoch, rows: encode_chunk(delta)? };
        let value = bincode::serialize(&stored)?;
        entries.put(|out| out.extend(key(number)), |out| out.extend(value));
    }
    for number in (stash.len() as u32)..before {
        entries.delete(|out| out.extend(key(number)));
    }
    Ok(FrozenTable { table: STASH, entries })
}

/// What the last checkpoint has.
pub(crate) fn load(store: &Arc<Store>) -> Result<Vec<Stashed>> {
    let mut stash = Vec::new();
    TableLookup::new(store, STASH, 0..VNODE_COUNT).walk(&[], &mut |_, value| {
        let Stored { version, job, place, epoch, rows } = bincode::deserialize(value)?;
        if version != 1 {
            let message = format!("waiting rows of unknown version {version}");
            return Err(millpond_common::Error::new(millpond_common::SqlState::DATA_CORRUPTED, message));
        }
        stash.push(Stashed { job, place, epoch, delta: decode_chunk(&rows)? });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(stash)
}
