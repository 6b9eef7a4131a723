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

/// By epoch, of those that are on their way.
#[derive(Clone, Default)]
pub(super) struct Lifetimes(Rc<RefCell<BTreeMap<Epoch, Lifetime>>>);

impl Lifetimes {
    /// An epoch begins; those before `open` are complete.
    fn begin(&self, epoch: Epoch, lifetime: Lifetime, open: Epoch) {
        let mut all = self.0.borrow_mut();
        *all = all.split_off(&open);
        all.insert(epoch, lifetime);
    }

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

    /// An epoch of the job begins; those before `open` are complete.
    pub fn tick(&mut self, epoch: Epoch, lifetime: Lifetime, open: Epoch) -> Result<()> {
        self.lifetimes.begin(epoch, lifetime, open);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However many epochs are on their way, each has its own time, on every worker.
    #[test]
    fn an_epoch_has_its_time_until_it_is_complete() {
        let (lifetimes, at) = (Lifetimes::default(), |now| Lifetime { now, ttl: Some(10) });
        (1..=100).for_each(|epoch| lifetimes.begin(epoch, at(1000 + epoch), 1));
        let now = |epoch| lifetimes.get(epoch).map(|l| l.now);
        assert_eq!([1, 50, 100, 101].map(now), [Some(1001), Some(1050), Some(1100), None]);
        lifetimes.begin(103, at(1103), 90);
        assert_eq!([90, 102, 103].map(now), [Some(1090), Some(1103), Some(1103)], "an epoch without work has the next one's");
        assert_eq!(lifetimes.0.borrow().len(), 12, "complete ones are forgotten");
    }
}
