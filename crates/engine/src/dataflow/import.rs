//! How a relation's rows enter a job: live deltas epoch by epoch, and before them, for a new job, the rows that
//! the relation already held, a bounded number in each epoch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_common::{Delta, Epoch, RelationId, Result};
use millpond_state::{ReadView, Scan};
use timely::container::NoopBuilder;
use timely::dataflow::InputHandle;

use super::chunk::Chunk;
use crate::job::OperatorStats;

pub(super) struct Import {
    pub relation: RelationId,
    projection: Vec<usize>,
    schema: arrow_schema::SchemaRef,
    handle: Option<InputHandle<Epoch, NoopBuilder<Chunk>>>,
    stats: Arc<OperatorStats>,
    backfill: Option<Backfill>,
}

/// What a relation held already, in parts.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Delta>>>;

struct Backfill {
    /// `None`: they are still to come.
    rows: Option<Rows>,
    done: u64,
    /// Deltas newer than the rows being read; they follow when all rows are in.
    held: Vec<Delta>,
}

impl Import {
    pub fn new(
        relation: RelationId,
        projection: Vec<usize>,
        schema: arrow_schema::SchemaRef,
        handle: InputHandle<Epoch, NoopBuilder<Chunk>>,
        stats: Arc<OperatorStats>,
    ) -> Self {
        Import { relation, projection, schema, handle: Some(handle), stats, backfill: None }
    }

    /// First feeds this worker's part of the rows that `view` holds.
    pub fn start_backfill(&mut self, view: &ReadView, vnodes: std::ops::Range<usize>) -> Result<()> {
        let rows = view.scan(self.relation, Scan { projection: Some(self.projection.clone()), vnodes })?;
        self.await_backfill();
        self.feed_backfill(Box::new(rows.map(|batch| Ok(Delta::insert(batch?)))));
        Ok(())
    }

    /// Holds live deltas back: what was there before them will come.
    pub fn await_backfill(&mut self) {
        self.backfill = Some(Backfill { rows: None, done: 0, held: Vec::new() });
    }

    /// Here it is: all columns that the scan gives.
    pub fn feed_backfill(&mut self, rows: Rows) {
        if let Some(backfill) = &mut self.backfill {
            backfill.rows = Some(rows);
        }
    }

    /// Rows that a backfill has read so far; `None`: there is none, or it has ended.
    pub fn backfill_progress(&self) -> Option<u64> {
        self.backfill.as_ref().map(|b| b.done)
    }

    /// Takes a live delta of an epoch, with the given columns of the relation (`None`: all).
    pub fn push(&mut self, epoch: Epoch, delta: &Delta, columns: Option<&[usize]>) -> Result<()> {
        self.enter(epoch);
        let positions = match columns {
            None => self.projection.clone(),
            Some(have) => {
                let find = |c: &usize| have.iter().position(|h| h == c);
                let missing = || millpond_common::Error::internal("a source chunk lacks a column that its job reads");
                self.projection.iter().map(find).collect::<Option<Vec<_>>>().ok_or_else(missing)?
            }
        };
        let delta = delta.project(&positions)?.with_schema(Arc::clone(&self.schema))?;
        match &mut self.backfill {
            Some(backfill) => backfill.held.push(delta),
            None => self.send(delta),
        }
        Ok(())
    }

    /// Ends the epoch: feeds the next part of a backfill, of about so many rows, then lets the frontier pass. Returns the rows
    /// that a backfill has read in all when this call ended it.
    pub fn finish_epoch(&mut self, epoch: Epoch, rows_max: usize) -> Result<Option<u64>> {
        self.enter(epoch);
        let mut ended = None;
        if let Some(backfill) = &mut self.backfill {
            let mut part = Vec::new();
            let mut rows = 0;
            let mut more = true;
            while let Some(stream) = backfill.rows.as_mut().filter(|_| rows < rows_max) {
                match stream.next() {
                    Some(delta) => {
                        let delta = delta?;
                        rows += delta.len();
                        part.push(delta);
                    }
                    None => {
                        more = false;
                        break;
                    }
                }
            }
            backfill.done += rows as u64;
            if !more {
                part.append(&mut backfill.held);
                ended = Some(backfill.done);
            }
            for delta in part {
                let delta = delta.with_schema(Arc::clone(&self.schema))?;
                self.send(delta);
            }
        }
        if ended.is_some() {
            self.backfill = None;
        }
        if let Some(handle) = &mut self.handle {
            handle.advance_to(epoch + 1);
        }
        Ok(ended)
    }

    /// Rows carry the epoch in which they are sent; epochs in which the job did nothing are skipped.
    fn enter(&mut self, epoch: Epoch) {
        if let Some(handle) = &mut self.handle
            && *handle.time() < epoch
        {
            handle.advance_to(epoch);
        }
    }

    fn send(&mut self, delta: Delta) {
        if let Some(handle) = &mut self.handle
            && !delta.is_empty()
        {
            self.stats.rows_out.fetch_add(delta.len() as u64, Ordering::Relaxed);
            handle.send_batch(&mut Chunk(delta));
        }
    }
}
