//! Entries of a state table as the newest checkpoint has them, for what is not in memory.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use millpond_common::{Result, StateTableId};

use crate::rocks::{Base, BaseIterator, KEYS_PER_CALL, storage_error};
use crate::tables::{StoredTable, Take, Walk};
use crate::{Store, format};

/// One worker's part of a state table in the store.
pub struct TableLookup {
    store: Arc<Store>,
    table: StateTableId,
    vnodes: Range<usize>,
}

impl TableLookup {
    /// The entries of a table in a range of virtual nodes.
    pub fn new(store: &Arc<Store>, table: StateTableId, vnodes: Range<usize>) -> Self {
        TableLookup { store: Arc::clone(store), table, vnodes }
    }

    /// The newest checkpoint; `None`: what it has is about to be deleted.
    fn base(&self) -> Option<Arc<Base>> {
        let state = self.store.state.lock();
        (!self.vnodes.is_empty() && !state.drops.contains(&self.table.0)).then(|| Arc::clone(&state.base))
    }

    fn whole_key(&self, key: &[u8]) -> Vec<u8> {
        [&format::id_prefix(self.table.0), key].concat()
    }

    fn iterator(&self, base: &Arc<Base>, fill_cache: bool) -> Result<BaseIterator> {
        let bound = |vnode| format::vnode_bound(self.table.0, vnode);
        BaseIterator::new(base, bound(self.vnodes.start), bound(self.vnodes.end), fill_cache)
    }
}

impl StoredTable for TableLookup {
    fn get(&self, keys: &[&[u8]], take: &mut Take<'_>) -> Result<()> {
        let Some(base) = self.base() else { return Ok(()) };
        for keys in keys.chunks(KEYS_PER_CALL) {
            let whole = keys.iter().map(|key| self.whole_key(key)).collect::<Vec<_>>();
            for (key, value) in keys.iter().zip(base.get_many(&whole)?) {
                value.map_or(Ok(()), |value| take(key, &value))?;
            }
        }
        Ok(())
    }

    fn prefixes(&self, prefixes: &[Vec<u8>], take: &mut Take<'_>) -> Result<()> {
        let Some(base) = self.base().filter(|_| !prefixes.is_empty()) else { return Ok(()) };
        self.iterator(&base, true)?.with(|it| {
            for prefix in prefixes {
                let whole = self.whole_key(prefix);
                it.seek(&whole);
                while let Some((key, value)) = it.item().filter(|(key, _)| key.starts_with(&whole)) {
                    take(key.get(4..).unwrap_or_default(), value)?;
                    it.next();
                }
                it.status().map_err(storage_error)?;
            }
            Ok(())
        })
    }

    fn walk(&self, from: &[u8], walk: &mut Walk<'_>) -> Result<bool> {
        let Some(base) = self.base() else { return Ok(false) };
        self.iterator(&base, false)?.with(|it| {
            if !from.is_empty() {
                it.seek(self.whole_key(from));
            }
            while let Some((key, value)) = it.item() {
                if walk(key.get(4..).unwrap_or_default(), value)? == ControlFlow::Break(()) {
                    return Ok(true);
                }
                it.next();
            }
            it.status().map_err(storage_error)?;
            Ok(false)
        })
    }
}
