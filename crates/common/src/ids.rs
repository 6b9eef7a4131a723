//! Numbers that name things. Ids are never reused within a data directory.

use serde::{Deserialize, Serialize};

/// A consistent cut of all input. Epochs grow by one; 0 is "before anything".
pub type Epoch = u64;

/// Names a table, source or view, and its rows in the store. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RelationId(pub u32);

/// Names a streaming job: the dataflow that maintains one materialized view.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct JobId(pub u32);

/// Names one state table of one operator in the store. Shares its number space with [`RelationId`]
/// (both are the first component of a stored key) and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct StateTableId(pub u32);

/// A virtual node: the part of a relation or state table that a row belongs to.
pub type Vnode = u8;

/// How many virtual nodes there are; fixed for the life of a data directory.
pub const VNODE_COUNT: usize = 256;

/// The worker that owns a virtual node when there are `workers` of them.
#[inline]
pub fn vnode_owner(vnode: Vnode, workers: usize) -> usize {
    usize::from(vnode) * workers / VNODE_COUNT
}

/// The virtual nodes that `worker` owns, as a half-open range within `0..256`.
pub fn vnodes_of(worker: usize, workers: usize) -> std::ops::Range<usize> {
    let first = |w: usize| (w * VNODE_COUNT).div_ceil(workers);
    first(worker)..first(worker + 1)
}

/// The lane of an append-only relation to which `worker` adds rows: the first virtual node that it owns.
pub fn lane_of(worker: usize, workers: usize) -> Vnode {
    vnodes_of(worker, workers).start as Vnode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vnode_has_exactly_its_owner() {
        for workers in 1..=16 {
            for worker in 0..workers {
                for v in 0..VNODE_COUNT {
                    let inside = vnodes_of(worker, workers).contains(&v);
                    assert_eq!(inside, vnode_owner(v as u8, workers) == worker);
                }
            }
        }
    }
}
