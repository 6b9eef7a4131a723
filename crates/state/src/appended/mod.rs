//! Append-only relations without a key, called relations that only grow. Their rows stay in the order in which they came, by column, many to a block: nothing is
//! encoded row by row, nothing is sorted, and no row is ever looked for.
//!
//! Each worker appends to a *lane*: the first virtual node that it owns. In its lane a row has a *place*, the number of rows before it, for ever:
//! a checkpoint writes a lane's rows in the order of its runs. A block is an entry for each column: its key is `id | lane u8 | end u64 BE |
//! column u16 BE`, with the place after the block's last row as the end.
//!
//! - `block`: a column of a block as a stored value; reading some columns of a block
//! - `write`: what a checkpoint writes
//! - `scan`: reading all rows, by several readers at once
//! - `part`: reading in parts, from one view after another

mod block;
mod part;
mod scan;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use millpond_common::Delta;

pub(crate) use self::part::{Cursor, Part, read_part};
pub use self::scan::AppendedScan;
pub(crate) use self::write::write;
use crate::format;
use crate::relation::Run;

/// Rows of a block at most, and about how many bytes.
const BLOCK_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 1 << 20;

/// A place in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    lane: u8,
    place: u64,
}

impl Position {
    fn key(self) -> [u8; 9] {
        let mut key = [self.lane; 9];
        if let Some(place) = key.last_chunk_mut() {
            *place = self.place.to_be_bytes();
        }
        key
    }

    /// The least key of blocks that end here or later in the lane.
    fn bound(self, id: u32) -> Vec<u8> {
        [&format::id_prefix(id)[..], &self.key()].concat()
    }

    /// The end of the block at which an iterator stands.
    fn at(iterator: &rocksdb::DBRawIterator<'_>) -> Option<Self> {
        let (lane, rest) = iterator.key()?.get(4..)?.split_first()?;
        Some(Position { lane: *lane, place: u64::from_be_bytes(*rest.first_chunk()?) })
    }
}

/// The same rows, each as often as its weight says, which is never negative: see [`Store::publish`](crate::Store::publish).
pub(crate) fn repeated(delta: Delta) -> Delta {
    let Some(weights) = &delta.diffs else { return delta };
    if weights.values().iter().all(|w| *w == 1) {
        return Delta::insert(delta.batch);
    }
    let rows = weights.values().iter().enumerate().flat_map(|(row, weight)| std::iter::repeat_n(row as u32, (*weight).max(0) as usize));
    let rows = UInt32Array::from_iter_values(rows);
    Delta::insert(delta.take(&rows).expect("rows are within the batch").batch)
}

fn by_lane(runs: &[Arc<Run>]) -> BTreeMap<u8, Vec<&RecordBatch>> {
    let mut lanes: BTreeMap<u8, Vec<&RecordBatch>> = BTreeMap::new();
    for run in runs {
        lanes.entry(run.lane).or_default().extend(run.deltas.iter().map(|d| &d.batch));
    }
    lanes
}
