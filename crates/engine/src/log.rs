//! Transactions of tables: encoded, made durable with one fsync for all that wait, and handed to the clock in the
//! order of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::Int64Array;
use crossbeam_channel::{Receiver, Sender};
use millpond_common::{Delta, Error, RelationId, RelationSpec, Result, RowCodec};
use millpond_state::Store;
use millpond_state::failpoint::failpoint;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// The net changes of one transaction.
pub(crate) type Changes = Vec<(RelationId, Delta)>;

/// A transaction that wants to be durable.
pub(crate) struct LogRequest {
    pub changes: Changes,
    pub done: oneshot::Sender<Result<u64>>,
}

/// A transaction in the log: format 1.
#[derive(Serialize, Deserialize)]
struct Entry {
    version: u8,
    changes: Vec<(RelationId, Vec<(Vec<u8>, i64)>)>,
}

/// Rows as [`RowCodec`] bytes with weights.
fn encode(changes: &Changes) -> Result<Vec<u8>> {
    let mut entry = Entry { version: 1, changes: Vec::with_capacity(changes.len()) };
    for (relation, delta) in changes {
        let rows = RowCodec::new(delta.schema())?.encode_batch(&delta.batch)?;
        let rows = rows.iter().enumerate().map(|(i, row)| (row.data().to_vec(), delta.weight(i))).collect();
        entry.changes.push((*relation, rows));
    }
    Ok(bincode::serialize(&entry)?)
}

/// Reads a logged transaction back; changes of relations that are gone are left out.
pub(crate) fn decode(bytes: &[u8], spec: &dyn Fn(RelationId) -> Option<RelationSpec>) -> Result<Changes> {
    let entry: Entry = bincode::deserialize(bytes)?;
    if entry.version != 1 {
        return Err(Error::new(millpond_common::SqlState::DATA_CORRUPTED, format!("log entry of unknown version {}", entry.version)));
    }
    let mut changes = Vec::new();
    for (relation, rows) in entry.changes {
        let Some(spec) = spec(relation) else { continue };
        let batch = RowCodec::new(spec.schema)?.decode(rows.iter().map(|(row, _)| row.as_slice()))?;
        let diffs = Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w));
        changes.push((relation, Delta::new(batch, Some(diffs))));
    }
    Ok(changes)
}

/// The log writer's loop: takes all that wait, writes them with one fsync, answers. Ends when all senders are gone.
pub(crate) fn run(store: &Arc<Store>, requests: &Receiver<LogRequest>, commit: &Sender<crate::clock::Event>, acknowledged: &AtomicU64) {
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        group.extend(requests.try_iter().take(1023));
        let mut entries = Vec::with_capacity(group.len());
        let mut accepted = Vec::with_capacity(group.len());
        for request in group {
            match encode(&request.changes) {
                Ok(entry) => {
                    entries.push(entry);
                    accepted.push(request);
                }
                Err(error) => drop(request.done.send(Err(error))),
            }
        }
        match store.log_append(&entries) {
            Ok(numbers) => {
                // Readable for other transactions first, then applied, then answered.
                let mut transactions = Vec::with_capacity(accepted.len());
                let mut answers = Vec::with_capacity(accepted.len());
                for (request, seq) in accepted.into_iter().zip(numbers) {
                    store.pending_add(seq, request.changes.clone());
                    transactions.push((seq, request.changes));
                    answers.push((request.done, seq));
                }
                let _ = commit.send(crate::clock::Event::Transactions(transactions));
                failpoint("transaction-logged");
                for (done, seq) in answers {
                    acknowledged.fetch_max(seq, Ordering::AcqRel);
                    let _ = done.send(Ok(seq));
                }
            }
            Err(error) => {
                for request in accepted {
                    let _ = request.done.send(Err(error.clone()));
                }
                let _ = commit.send(crate::clock::Event::Poisoned(error));
            }
        }
    }
}
