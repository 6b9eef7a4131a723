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
        let delta = delta.project(&positions)?.with_schema(Arc::clone(&self.schema))?;
        self.stats.rows_out.fetch_add(delta.len() as u64, Ordering::Relaxed);
        self.handle.send_batch(&mut Chunk(delta));
        Ok(())
    }

    /// Ends the epoch: lets the frontier pass.
    pub fn finish_epoch(&mut self, epoch: Epoch) {
        self.enter(epoch);
        self.handle.advance_to(epoch + 1);
    }

    /// Rows carry the epoch in which they are sent; epochs in which the job did nothing are skipped.
    fn enter(&mut self, epoch: Epoch) {
        if *self.handle.time() < epoch {
            self.handle.advance_to(epoch);
        }
    }
}
