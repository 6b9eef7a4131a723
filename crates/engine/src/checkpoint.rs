//! The committer: one thread that turns frozen state into one atomic commit, and what a checkpoint records of the
//! engine itself.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use millpond_common::{Epoch, Error, JobId, RelationId, Result};
use millpond_connect::Position;
use millpond_state::{Checkpoint, Store};
use serde::{Deserialize, Serialize};

use crate::clock::Event;
use crate::job::CheckpointInfo;

/// The engine's part of a checkpoint record: format 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u8,
    pub jobs: Vec<JobMeta>,
}

/// What a checkpoint knows of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobMeta {
    pub id: JobId,
    /// Its backfill has ended: a restart continues it. Otherwise a restart begins it anew.
    pub level: bool,
    /// It has failed, with this [`error_text`].
    pub failed: Option<String>,
    /// Where it goes on reading each of its sources.
    pub positions: Vec<(RelationId, Position)>,
}

impl Meta {
    pub fn new(jobs: Vec<JobMeta>) -> Self {
        Meta { version: 1, jobs }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        Ok(bincode::serialize(self)?)
    }

    /// Nothing recorded means: before the first checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Meta::default());
        }
        let meta: Meta = bincode::deserialize(bytes)?;
        match meta.version {
            1 => Ok(meta),
            v => Err(Error::new(millpond_common::SqlState::DATA_CORRUPTED, format!("checkpoint of unknown version {v}"))
                .with_hint("This data directory was written by a newer Millpond.")),
        }
    }

    pub fn job(&self, id: JobId) -> Option<&JobMeta> {
        self.jobs.iter().find(|j| j.id == id)
    }
}

/// What is kept of the error of a job that has failed: its message, and in the next line its detail.
pub(crate) fn error_text(error: &Error) -> String {
    error.detail().map_or_else(|| error.message().to_string(), |detail| format!("{}\n{detail}", error.message()))
}

/// The error again.
pub(crate) fn error_of_text(text: &str) -> Error {
    let of = |message: &str| Error::new(millpond_common::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
    text.split_once('\n').map_or_else(|| of(text), |(message, detail)| of(message).with_detail(detail))
}

/// A checkpoint on its way to disk.
pub(crate) struct Frozen {
    pub checkpoint: Checkpoint,
    pub started: Instant,
    pub started_at: SystemTime,
    pub stall: Duration,
}

/// How a commit ended.
pub(crate) struct Committed {
    pub epoch: Epoch,
    pub info: CheckpointInfo,
    pub result: Result<()>,
}

/// The committer's loop. Ends when the clock drops its end.
pub(crate) fn run(store: &Arc<Store>, work: &Receiver<Frozen>, done: &Sender<Event>) {
    while let Ok(Frozen { checkpoint, started, started_at, stall }) = work.recv() {
        let epoch = checkpoint.epoch;
        let result = store.commit(checkpoint);
        let (bytes, entries) = result.as_ref().map_or((0, 0), |s| (s.bytes, s.entries));
        let info = CheckpointInfo {
            epoch,
            kind: "incremental",
            state: if result.is_ok() { "COMPLETED" } else { "FAILED" },
            started: started_at,
            duration: started.elapsed(),
            stall,
            bytes,
            total_bytes: store.stats().disk_bytes,
            entries,
            error: result.as_ref().err().map(|e| e.message().to_string()),
        };
        let _ = done.send(Event::Committed(Committed { epoch, info, result: result.map(|_| ()) }));
    }
}
