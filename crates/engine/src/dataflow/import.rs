//! How a relation's changes enter a job, epoch by epoch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millpond_common::{Delta, Epoch, RelationId, Result};
use timely::container::NoopBuilder;
use timely::dataflow::InputHandle;

use super::backfill::Backfill;
use super::chunk::Chunk;
use crate::job::OperatorStats;

pub(super) struct Import {
    pub relation: RelationId,
    pub projection: Vec<usize>,
    pub schema: arrow_schema::SchemaRef,
    pub handle: InputHandle<Epoch, NoopBuilder<Chunk>>,
    pub stats: Arc<OperatorStats>,
    /// The operator behind it, which projects and counts.
    pub backfill: Option<Backfill>,
    /// For one that stands for another job's operator: what that has given already.
    pub fill: Option<Fill>,
}

/// What an operator has given already comes first, a part in each epoch, while what it gives now waits.
#[derive(Default)]
pub(super) struct Fill {
    /// `None`: it is still to come.
    pub rows: Option<Box<dyn Iterator<Item = Result<Delta>>>>,
    /// How much of it an epoch gets.
    pub rows_max: usize,
    /// Rows that have been read.
    pub read: u64,
    /// The epoch that took the last of them.
    pub ended: Option<Epoch>,
    held: Vec<Delta>,
}

impl Fill {
    /// What an epoch gets.
    fn step(&mut self, epoch: Epoch) -> Result<Vec<Delta>> {
        let (mut part, mut rows) = (Vec::new(), 0);
        while let Some(stream) = self.rows.as_mut().filter(|_| rows < self.rows_max && self.ended.is_none()) {
            match stream.next() {
                Some(delta) => {
                    part.push(delta?);
                    rows += part.last().map_or(0, Delta::len);
                }
                None => {
                    part.append(&mut self.held);
                    self.ended = Some(epoch);
                }
            }
        }
        self.read += rows as u64;
        Ok(part)
    }
}

impl Import {
    /// Takes a live delta of an epoch, with the given columns of the relation (`None`: all).
    pub fn push(&mut self, epoch: Epoch, delta: &Delta, columns: Option<&[usize]>) -> Result<()> {
        self.enter(epoch);
        if delta.is_empty() {
            return Ok(());
        }
        if self.backfill.is_some() {
            self.handle.send_batch(&mut Chunk(delta.clone()));
            return Ok(());
        }
        let positions = match columns {
            None => self.projection.clone(),
            Some(have) => {
                let find = |c: &usize| have.iter().position(|h| h == c);
                let missing = || millpond_common::Error::internal("a source chunk lacks a column that its job reads");
                self.projection.iter().map(find).collect::<Option<Vec<_>>>().ok_or_else(missing)?
            }
        };
        let delta = delta.project(&positions)?;
        match self.fill.as_mut().filter(|f| f.ended.is_none()) {
            Some(fill) => fill.held.push(delta),
            None => self.send(delta)?,
        }
        Ok(())
    }

    fn send(&mut self, delta: Delta) -> Result<()> {
        let delta = delta.with_schema(Arc::clone(&self.schema))?;
        self.stats.rows_out.fetch_add(delta.len() as u64, Ordering::Relaxed);
        self.handle.send_batch(&mut Chunk(delta));
        Ok(())
    }

    /// Ends the epoch: lets the frontier pass, whatever happens.
    pub fn finish_epoch(&mut self, epoch: Epoch) -> Result<()> {
        self.enter(epoch);
        let part = self.fill.as_mut().map(|f| f.step(epoch)).transpose();
        let sent = part.and_then(|part| part.into_iter().flatten().filter(|d| !d.is_empty()).try_for_each(|delta| self.send(delta)));
        self.handle.advance_to(epoch + 1);
        sent
    }

    /// Rows carry the epoch in which they are sent; epochs in which the job did nothing are skipped.
    fn enter(&mut self, epoch: Epoch) {
        if *self.handle.time() < epoch {
            self.handle.advance_to(epoch);
        }
    }
}
