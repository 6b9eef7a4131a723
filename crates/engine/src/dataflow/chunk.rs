//! The container that timely moves between operators and workers: one delta.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_schema::Schema;
use millpond_common::Delta;
use millpond_common::hash::{hash_columns, vnode};
use millpond_common::ids::vnode_owner;
use timely::communication::Push;
use timely::container::Accountable;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};

use super::unaligned::Traffic;

/// A delta in flight. Between threads it moves by pointer; between processes as Arrow IPC.
#[derive(Clone)]
pub(super) struct Chunk(pub Delta);

impl Default for Chunk {
    fn default() -> Self {
        Chunk(Delta::empty(Arc::new(Schema::empty())))
    }
}

impl Accountable for Chunk {
    fn record_count(&self) -> i64 {
        self.0.len() as i64
    }
}

impl Chunk {
    /// The weights travel as one more column at the end.
    fn encode(&self) -> Result<Vec<u8>, arrow_schema::ArrowError> {
        let mut fields = self.0.schema().fields().iter().cloned().collect::<Vec<_>>();
        let mut columns = self.0.batch.columns().to_vec();
        let weights = (0..self.0.len()).map(|i| self.0.weight(i)).collect::<Vec<_>>();
        fields.push(Arc::new(arrow_schema::Field::new("diff", arrow_schema::DataType::Int64, false)));
        columns.push(Arc::new(Int64Array::from(weights)));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Chunk, arrow_schema::ArrowError> {
        let missing = || arrow_schema::ArrowError::IpcError("an empty chunk".into());
        let batch = StreamReader::try_new(bytes, None)?.next().ok_or_else(missing)??;
        let last = batch.num_columns().checked_sub(1).ok_or_else(missing)?;
        let diffs = Int64Array::from(batch.column(last).to_data());
        let batch = batch.project(&(0..last).collect::<Vec<_>>())?;
        Ok(Chunk(Delta::new(batch, Some(diffs))))
    }
}

impl ContainerBytes for Chunk {
    fn from_bytes(bytes: timely::bytes::arc::Bytes) -> Self {
        // Timely's interface has no way to report an error here; it is caught around the worker's step.
        Chunk::decode(&bytes).expect("a chunk from another process is readable")
    }
    fn length_in_bytes(&self) -> usize {
        self.encode().map_or(0, |b| b.len().next_multiple_of(8))
    }
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let mut bytes = self.encode().unwrap_or_default();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        // As above: a failed write shows as a broken connection at the other side.
        let _ = writer.write_all(&bytes);
    }
}

/// Sends each row to the worker that owns the virtual node of these columns.
pub(super) struct ByHash {
    pub columns: Vec<usize>,
    /// Once this is set, rows stay on this worker.
    pub stay: Option<(Rc<Cell<bool>>, usize)>,
    pub traffic: Traffic,
}

impl Distributor<Chunk> for ByHash {
    fn partition<T: Clone, P: Push<Message<T, Chunk>>>(&mut self, container: &mut Chunk, time: &T, pushers: &mut [P]) {
        let Chunk(delta) = std::mem::take(container);
        if delta.is_empty() {
            return;
        }
        if let Some((_, here)) = self.stay.as_ref().filter(|(stay, _)| stay.get()) {
            return self.push(delta, time, *here, pushers);
        }
        let columns = &self.columns;
        let workers = pushers.len();
        if columns.is_empty() {
            let owner = vnode_owner(vnode(constant_hash()), workers);
            return self.push(delta, time, owner, pushers);
        }
        let mut rows = vec![Vec::with_capacity(delta.len() / workers + 16); workers];
        for (row, owner) in owners(&delta, columns, workers).into_iter().enumerate() {
            rows[owner].push(row as u32);
        }
        for (worker, rows) in rows.into_iter().enumerate() {
            if rows.len() == delta.len() {
                return self.push(delta, time, worker, pushers);
            }
            if !rows.is_empty() {
                let part = delta.take(&UInt32Array::from(rows)).expect("rows are within the batch");
                self.push(part, time, worker, pushers);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Chunk>>>(&mut self, _time: &T, _pushers: &mut [P]) {}
}

/// The hash that every row has when there are no distribution columns.
pub(super) fn constant_hash() -> u64 {
    hash_columns(&[], 1).ok().and_then(|h| h.first().copied()).unwrap_or(0)
}

impl ByHash {
    fn push<T: Clone, P: Push<Message<T, Chunk>>>(&self, delta: Delta, time: &T, worker: usize, pushers: &mut [P]) {
        if let Some(pusher) = pushers.get_mut(worker) {
            self.traffic.send(worker);
            let mut chunk = Chunk(delta);
            Message::push_at(&mut chunk, time.clone(), pusher);
        }
    }
}

/// For each row, the worker that owns the virtual node of these columns.
pub(super) fn owners(delta: &Delta, columns: &[usize], workers: usize) -> Vec<usize> {
    let arrays = columns.iter().map(|c| Arc::clone(delta.batch.column(*c))).collect::<Vec<_>>();
    let hashes = hash_columns(&arrays, delta.len()).expect("distribution columns are hashable");
    hashes.into_iter().map(|hash| vnode_owner(vnode(hash), workers)).collect()
}

/// A delta as Arrow IPC.
pub(crate) fn encode_chunk(delta: &Delta) -> Result<Vec<u8>, arrow_schema::ArrowError> {
    Chunk(delta.clone()).encode()
}

/// The delta again.
pub(crate) fn decode_chunk(bytes: &[u8]) -> Result<Delta, arrow_schema::ArrowError> {
    Chunk::decode(bytes).map(|chunk| chunk.0)
}
