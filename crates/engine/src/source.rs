//! Readers of sources: one thread each, decoding ahead of the clock into a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use millpond_common::{Delta, Error, JobId, RelationId, Result};
use millpond_connect::{Poll, Position, Rejected, Span};

use crate::clock::Event;
use crate::job::SourceSpec;

/// Chunks that a reader may be ahead of the clock.
const CHUNKS_AHEAD_MAX: usize = 48;

/// What a reader thread tells.
pub(crate) enum Read {
    /// Rows, and where they end.
    Rows(Box<Rows>),
    /// All that was there has been read; more may come.
    CaughtUp,
    /// There will never be more.
    End,
    /// It cannot go on.
    Failed(Error),
}

/// A chunk with what is known of it.
pub(crate) struct Rows {
    pub delta: Delta,
    /// Reading on here gives exactly the rest.
    pub end: Position,
    /// The same in words.
    pub end_text: String,
    pub bad_rows: u64,
    pub rejected: Vec<Rejected>,
}

/// A reader and the jobs that it serves. One reader of a source leads; others, of jobs that came later, catch up with it.
pub(crate) struct SourceReader {
    pub source: RelationId,
    pub jobs: Vec<JobId>,
    /// The relation's columns that it decodes.
    pub columns: Arc<Vec<usize>>,
    /// After the last rows that an epoch has taken.
    pub position: Option<Position>,
    /// Where the leader was, for a reader that catches up: it ends there.
    pub until: Option<Position>,
    /// How often it has been sent after the leader.
    pub rounds: u32,
    /// It is about to be level: the leader waits.
    pub holds_leader: bool,
    pub started: Instant,
    pub position_text: String,
    pub queue: Receiver<Read>,
    pub rows_read: u64,
    pub bad_rows: u64,
    /// Whether it has ever read all that was there: the backfill of its jobs is over. A generator that makes its events as
    /// time passes has nothing that was there before.
    pub level: bool,
    pub finished: bool,
    pub error: Option<Error>,
    stop: Arc<AtomicBool>,
}

impl SourceReader {
    /// Opens the source and starts to decode what comes after `from`, up to `until`.
    pub fn start(
        spec: &SourceSpec,
        columns: Vec<usize>,
        from: Option<Position>,
        until: Option<Position>,
        jobs: Vec<JobId>,
        wake: Sender<Event>,
        wake_pending: Arc<AtomicBool>,
    ) -> Result<SourceReader> {
        let mut reader = millpond_connect::open(
            &spec.options,
            &spec.format,
            &spec.schema,
            &columns,
            Span { from: from.as_ref(), until: until.as_ref() },
        )?;
        let position_text = from.as_ref().map(|p| reader.describe(p)).unwrap_or_default();
        let (send, queue) = crossbeam_channel::bounded(CHUNKS_AHEAD_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let name = format!("read-{}", spec.name);
        let run = move || {
            let give = |mut read: Read| -> bool {
                loop {
                    match send.send_timeout(read, Duration::from_millis(50)) {
                        Ok(()) => break,
                        Err(SendTimeoutError::Timeout(back)) if !stopped.load(Ordering::Relaxed) => read = back,
                        Err(_) => return false,
                    }
                }
                if !wake_pending.swap(true, Ordering::AcqRel) {
                    let _ = wake.send(Event::Wake);
                }
                true
            };
            let mut told = false;
            while !stopped.load(Ordering::Relaxed) {
                let next = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.next()));
                let next = next.unwrap_or_else(|_| Err(Error::internal("a source reader panicked")));
                let go_on = match next {
                    Ok(Poll::Chunk(chunk)) => {
                        told = false;
                        let end_text = reader.describe(&chunk.end);
                        let millpond_connect::Chunk { delta, end, bad_rows, rejected } = chunk;
                        give(Read::Rows(Box::new(Rows { delta, end, end_text, bad_rows, rejected })))
                    }
                    Ok(Poll::Idle) if told => true,
                    Ok(Poll::Idle) => {
                        told = true;
                        give(Read::CaughtUp)
                    }
                    Ok(Poll::End) => {
                        give(Read::End);
                        false
                    }
                    Err(error) => {
                        give(Read::Failed(error));
                        false
                    }
                };
                if !go_on {
                    break;
                }
            }
        };
        std::thread::Builder::new().name(name).spawn(run)?;
        Ok(SourceReader {
            source: spec.id,
            jobs,
            columns: Arc::new(columns),
            position: from,
            position_text,
            queue,
            rows_read: 0,
            bad_rows: 0,
            level: until.is_none() && generates_live(spec),
            until,
            rounds: 0,
            holds_leader: false,
            started: Instant::now(),
            finished: false,
            error: None,
            stop,
        })
    }

    /// Whether an epoch could take something.
    pub fn has_input(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether it reads on for as long as there is something, and others catch up with it.
    pub fn leads(&self) -> bool {
        self.until.is_none()
    }
}

fn generates_live(spec: &SourceSpec) -> bool {
    let has = |option: &str| spec.options.contains_key(option);
    spec.options.get("connector").is_some_and(|c| c == "nexmark") && (has("rate") || !has("events"))
}

impl Drop for SourceReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
