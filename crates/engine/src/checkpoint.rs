//! The committer: one thread that turns frozen state into one atomic commit, and what a checkpoint records of the
//! engine itself.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use millpond_common::{Epoch, Error, JobId, RelationId, Result, SqlState};
use millpond_connect::Position;
use millpond_state::{Checkpoint, Store, Unread};
use serde::{Deserialize, Serialize};

use crate::clock::Event;
use crate::job::CheckpointInfo;
use crate::stash::{self, Stashed};

/// The engine's part of a checkpoint record: format 3.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u8,
    pub jobs: Vec<JobMeta>,
    /// Where the readers are that lead; those of jobs that are being filled may be behind.
    pub leaders: Vec<(RelationId, Position)>,
    /// Of an unaligned checkpoint: the epochs that were on their way, and up to where the log is in them.
    pub epochs: Vec<(Epoch, u64)>,
    /// Entries of its stash.
    pub stashed: u32,
}

/// What a checkpoint knows of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobMeta {
    pub id: JobId,
    /// Its backfill has ended: a restart continues it. Otherwise a restart goes on with the backfill, or begins it anew.
    pub level: bool,
    /// It has failed, with this [`error_text`].
    pub failed: Option<String>,
    /// Where it goes on reading each of its sources.
    pub positions: Vec<(RelationId, Position)>,
    /// How far its backfill has come, if a restart can go on with it.
    pub backfilled: Option<Backfilled>,
}

/// How far a backfill has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Backfilled {
    /// What its scans have yet to read, by scan; of sources, nothing.
    pub unread: Vec<Unread>,
    /// Rows that have been read.
    pub rows: u64,
}

impl Backfilled {
    /// Adds another worker's part.
    pub fn append(&mut self, scans: Vec<Unread>, rows: u64) {
        self.unread.resize_with(self.unread.len().max(scans.len()), Unread::default);
        self.unread.iter_mut().zip(scans).for_each(|(all, part)| all.append(part));
        self.rows += rows;
    }
}

/// What checkpoints of format 2 held: all were aligned.
#[derive(Deserialize)]
struct Meta2 {
    _version: u8,
    jobs: Vec<JobMeta>,
    leaders: Vec<(RelationId, Position)>,
}

/// What checkpoints of format 1 held: backfills began anew.
#[derive(Deserialize)]
struct Meta1 {
    _version: u8,
    jobs: Vec<JobMeta1>,
}

#[derive(Deserialize)]
struct JobMeta1 {
    id: JobId,
    level: bool,
    failed: Option<String>,
    positions: Vec<(RelationId, Position)>,
}

impl From<JobMeta1> for JobMeta {
    fn from(JobMeta1 { id, level, failed, positions }: JobMeta1) -> Self {
        JobMeta { id, level, failed, positions, backfilled: None }
    }
}

impl Meta {
    /// Of an aligned checkpoint.
    pub fn new(jobs: Vec<JobMeta>, leaders: Vec<(RelationId, Position)>) -> Self {
        Meta { version: 3, jobs, leaders, epochs: vec![], stashed: 0 }
    }

    /// Of an unaligned one.
    pub fn with_stash(self, epochs: Vec<(Epoch, u64)>, stashed: u32) -> Self {
        Meta { epochs, stashed, ..self }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        Ok(bincode::serialize(self)?)
    }

    /// Nothing recorded means: before the first checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            None => Ok(Meta::default()),
            Some(1) => {
                let meta: Meta1 = bincode::deserialize(bytes)?;
                Ok(Meta::new(meta.jobs.into_iter().map(JobMeta::from).collect(), vec![]))
            }
            Some(2) => {
                let Meta2 { jobs, leaders, .. } = bincode::deserialize(bytes)?;
                Ok(Meta::new(jobs, leaders))
            }
            Some(3) => Ok(bincode::deserialize(bytes)?),
            Some(v) => Err(Error::new(millpond_common::SqlState::DATA_CORRUPTED, format!("checkpoint of unknown version {v}"))
                .with_hint("This data directory was written by a newer Millpond.")),
        }
    }

    pub fn job(&self, id: JobId) -> Option<&JobMeta> {
        self.jobs.iter().find(|j| j.id == id)
    }
}

/// What is kept of the error of a job that has failed: an empty line, its SQLSTATE, its message, and from the next line on its detail.
pub(crate) fn error_text(error: &Error) -> String {
    let text = format!("\n{}\n{}", error.state().0, error.message());
    error.detail().map_or_else(|| text.clone(), |detail| format!("{text}\n{detail}"))
}

/// The error again. Earlier versions wrote neither the empty line nor a SQLSTATE.
pub(crate) fn error_of_text(text: &str) -> Error {
    let known = text.strip_prefix('\n').and_then(|rest| rest.split_once('\n'));
    let (state, text) = match known {
        Some((state, rest)) => (SqlState::of(state), rest),
        None => (SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text),
    };
    text.split_once('\n').map_or_else(|| Error::new(state, text), |(message, detail)| Error::new(state, message).with_detail(detail))
}

/// A checkpoint on its way to disk.
pub(crate) struct Frozen {
    pub checkpoint: Checkpoint,
    pub started: Instant,
    pub started_at: SystemTime,
    pub stall: Duration,
    pub is_aligned: bool,
    /// What waited in the jobs.
    pub stash: Arc<Vec<Stashed>>,
}

/// How a commit ended.
pub(crate) struct Committed {
    pub epoch: Epoch,
    pub info: CheckpointInfo,
    pub result: Result<()>,
}

/// The committer's loop. Ends when the clock drops its end. `stashed`: entries of the stash that the last checkpoint has.
pub(crate) fn run(store: &Arc<Store>, work: &Receiver<Frozen>, done: &Sender<Event>, mut stashed: u32) {
    while let Ok(Frozen { mut checkpoint, started, started_at, stall, is_aligned, stash }) = work.recv() {
        let epoch = checkpoint.epoch;
        let result = stash::encode(&stash, stashed).and_then(|table| {
            checkpoint.frozen.push(table);
            store.commit(checkpoint)
        });
        stashed = stash.len() as u32;
        let (bytes, entries) = result.as_ref().map_or((0, 0), |s| (s.bytes, s.entries));
        let info = CheckpointInfo {
            epoch,
            kind: if is_aligned { "incremental" } else { "unaligned" },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_failed_jobs() {
        let error = Error::new(SqlState::DIVISION_BY_ZERO, "division by zero");
        for error in [error.clone(), error.with_detail("row (1, 0)\nof table t")] {
            let again = error_of_text(&error_text(&error));
            assert_eq!((again.state(), again.message(), again.detail()), (error.state(), error.message(), error.detail()));
        }
        let before = error_of_text("division by zero\nrow (1, 0)");
        assert_eq!((before.state(), before.detail()), (SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, Some("row (1, 0)")));
        assert_eq!(error_of_text("\n..\nmessage").state(), SqlState::INTERNAL_ERROR);
    }

    #[test]
    fn formats_of_the_engines_part() {
        // Version 1: one job, number 7, level, reading source 3 from the place [9].
        let one = b"\x01\x01\0\0\0\0\0\0\0\x07\0\0\0\x01\0\x01\0\0\0\0\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\x09";
        let meta = Meta::decode(one).ok();
        let job = meta.as_ref().and_then(|m| m.job(JobId(7)));
        assert!(job.is_some_and(|j| j.level && j.backfilled.is_none() && j.positions == [(RelationId(3), Position(vec![9]))]));
        let mut backfilled = Backfilled::default();
        backfilled.append(vec![Unread::default(), Unread::all(5..9)], 100);
        backfilled.append(vec![Unread::default(), Unread::all(200..256)], 11);
        let job = JobMeta { id: JobId(7), level: false, failed: None, positions: vec![], backfilled: Some(backfilled) };
        let meta = Meta::new(vec![job], vec![(RelationId(3), Position(vec![1]))]).with_stash(vec![(8, 1)], 5);
        let again = meta.encode().and_then(|bytes| Meta::decode(&bytes)).ok();
        let job = again.as_ref().and_then(|m| m.job(JobId(7))?.backfilled.as_ref());
        assert!(job.is_some_and(|b| b.rows == 111 && b.unread.len() == 2 && b.unread[0].is_empty()), "{again:?}");
        assert_eq!(
            job.map(|b| b.unread[1].within(&(0..210))),
            Some({
                let mut both = Unread::all(5..9);
                both.append(Unread::all(200..210));
                both
            })
        );
        assert_eq!(again.map(|m| (m.leaders.len(), m.epochs, m.stashed)), Some((1, vec![(8, 1)], 5)));
        // Version 2: no jobs, and a leader at the place [9] of source 3.
        let two = b"\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\x09";
        assert!(Meta::decode(two).is_ok_and(|m| m.leaders == [(RelationId(3), Position(vec![9]))] && m.epochs.is_empty()));
        assert!(Meta::decode(&[4, 0]).is_err_and(|e| e.hint().is_some()));
    }
}
