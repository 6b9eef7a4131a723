//! Skeleton.
#![allow(missing_docs)]
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use millpond_common::{Delta, Epoch, Error, RelationId, RelationSpec, Result, StateTableId};
use crate::ReadView;

pub struct StoreOptions {
    pub memory: u64,
    pub workers: usize,
}
pub struct Recovered {
    pub epoch: Epoch,
    pub meta: Vec<u8>,
    pub catalog: Vec<(Vec<u8>, Vec<u8>)>,
    pub log_tail: Vec<(u64, Vec<u8>)>,
}
pub struct Checkpoint {
    pub epoch: Epoch,
    pub log_seq: u64,
    pub meta: Vec<u8>,
    pub frozen: Vec<FrozenTable>,
}
pub struct FrozenTable {
    pub table: StateTableId,
    pub entries: crate::Entries,
}
pub struct CommitStats {
    pub entries: u64,
    pub bytes: u64,
    pub duration: Duration,
}
pub struct StoreStats {
    pub disk_bytes: u64,
    pub files: u64,
    pub overlay_rows: u64,
    pub overlay_bytes: u64,
}
pub struct Store {}
impl Store {
    pub fn open(_dir: &Path, _options: &StoreOptions) -> Result<(Arc<Store>, Recovered)> {
        Err(Error::internal("skeleton"))
    }
    pub fn catalog_write(&self, _puts: &[(Vec<u8>, Vec<u8>)], _deletes: &[Vec<u8>]) -> Result<()> {
        Ok(())
    }
    pub fn log_append(&self, _entries: &[Vec<u8>]) -> Result<Vec<u64>> {
        Ok(vec![])
    }
    pub fn relation_add(&self, _spec: RelationSpec) {}
    pub fn relation_remove(&self, _id: RelationId) -> Result<()> {
        Ok(())
    }
    pub fn publish(&self, _relation: RelationId, _epoch: Epoch, _deltas: Vec<Delta>) {}
    pub fn set_visible(&self, _epoch: Epoch, _log_seq: u64) {}
    pub fn visible_epoch(&self) -> Epoch {
        0
    }
    pub fn pending_add(&self, _seq: u64, _changes: Vec<(RelationId, Delta)>) {}
    pub fn read_view(&self) -> ReadView {
        ReadView {}
    }
    pub fn newest_view(&self) -> ReadView {
        ReadView {}
    }
    pub fn durable_view(&self) -> ReadView {
        ReadView {}
    }
    pub fn state_load(
        &self,
        _table: StateTableId,
        _vnodes: Range<usize>,
        _f: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        Ok(())
    }
    pub fn state_remove(&self, _tables: &[StateTableId]) -> Result<()> {
        Ok(())
    }
    /// Deletes everything stored under numbers that are not in `known` (what a crash left behind).
    pub fn remove_unknown(&self, _known: &std::collections::BTreeSet<u32>) -> Result<usize> {
        Ok(0)
    }
    pub fn commit(&self, _checkpoint: Checkpoint) -> Result<CommitStats> {
        Err(Error::internal("skeleton"))
    }
    pub fn close(&self) {}
    pub fn stats(&self) -> StoreStats {
        StoreStats { disk_bytes: 0, files: 0, overlay_rows: 0, overlay_bytes: 0 }
    }
}
