//! How operators whose state expires learn the time, and act in every epoch of their job.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use millpond_common::{Delta, Epoch, Result};
use timely::container::NoopBuilder;
use timely::dataflow::operators::Input;
use timely::dataflow::{InputHandle, Scope};

use super::adapter::ChunkStream;
use super::chunk::Chunk;
use crate::operators::expiring::Lifetime;

/// More than may be on their way.
const EPOCHS_KEPT: usize = 16;

/// By epoch.
#[derive(Clone, Default)]
pub(super) struct Lifetimes(Rc<RefCell<BTreeMap<Epoch, Lifetime>>>);

impl Lifetimes {
    /// That of an epoch; of one in which the job had nothing to do: the next one's.
    pub fn get(&self, epoch: Epoch) -> Option<Lifetime> {
        self.0.borrow().range(epoch..).next().map(|(_, lifetime)| *lifetime)
    }
}

/// An input without rows of its own.
pub(super) struct Ticks {
    handle: InputHandle<Epoch, NoopBuilder<Chunk>>,
    pub lifetimes: Lifetimes,
}

impl Ticks {
    pub fn new<'scope>(scope: Scope<'scope, Epoch>, from: Epoch) -> (Ticks, ChunkStream<'scope>) {
        let (mut handle, stream) = scope.new_input_with_builder::<NoopBuilder<Chunk>>();
        handle.advance_to(from);
        (Ticks { handle, lifetimes: Lifetimes::default() }, stream)
    }

    /// An epoch of the job begins.
    pub fn tick(&mut self, epoch: Epoch, lifetime: Lifetime) -> Result<()> {
        let mut lifetimes = self.lifetimes.0.borrow_mut();
        lifetimes.insert(epoch, lifetime);
        while lifetimes.len() > EPOCHS_KEPT {
            lifetimes.pop_first();
        }
        if *self.handle.time() < epoch {
            self.handle.advance_to(epoch);
        }
        // A row that nobody reads: nothing is sent where there are none.
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        self.handle.send_batch(&mut Chunk(Delta::new(batch, None)));
        self.handle.advance_to(epoch + 1);
        Ok(())
    }
}
