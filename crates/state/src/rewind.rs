//! What a job needs that goes on from the last checkpoint while everything else has gone on from there.

use std::sync::Arc;

use millpond_common::{Delta, Epoch, RelationId, Result, StateTableId};
use parking_lot::Mutex;

use crate::Store;
use crate::relation::runs_between;
use crate::tiers::Tiers;

impl Store {
    /// A relation's changes with `after < epoch <= until`, as they were published. A checkpoint forgets those that it holds.
    pub fn changes(&self, relation: RelationId, after: Epoch, until: Epoch) -> Vec<Delta> {
        let relations = Arc::clone(&self.state.lock().relations);
        let runs = relations.get(&relation).map(|r| runs_between(&r.runs, after, until)).unwrap_or_default();
        runs.iter().flat_map(|r| r.deltas.iter().cloned()).collect()
    }

    /// Takes back what was published of a relation after an epoch. No commit of a later epoch may be under way.
    pub fn rewind(&self, relation: RelationId, epoch: Epoch) {
        let mut state = self.state.lock();
        let base = state.base.epoch;
        let mut gone = Vec::new();
        if let Some(relation) = Arc::make_mut(&mut state.relations).get_mut(&relation) {
            let end = relation.runs.partition_point(|r| r.epoch <= epoch);
            gone = Arc::make_mut(&mut relation.runs).split_off(end);
            // Views that exist keep what they share; it may hold what is gone.
            relation.tiers = Arc::new(Mutex::new(Tiers::new(base)));
        }
        let view = state.view.take();
        drop(state);
        drop((gone, view)); // this may take a while
    }

    /// Whether a relation's stored rows are to be deleted by the next commit.
    pub fn is_emptied(&self, relation: RelationId) -> bool {
        self.state.lock().drops.contains(&relation.0)
    }

    /// Empties a relation and state tables, which are to be filled anew under their numbers. No commit may be under way.
    pub fn clear(&self, relation: RelationId, tables: &[StateTableId]) -> Result<()> {
        let ids = tables.iter().map(|t| t.0).chain([relation.0]).collect::<Vec<_>>();
        self.delete_ids(&ids)?;
        self.rewind(relation, 0);
        let mut state = self.state.lock();
        for id in &ids {
            state.removed.remove(id);
        }
        if let Some(relation) = Arc::make_mut(&mut state.relations).get_mut(&relation) {
            relation.stored_is_void = true;
        }
        state.view = None;
        Ok(())
    }
}
