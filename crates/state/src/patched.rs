//! Stored rows, mostly as columns in memory, with the changes since: rows whose key has a change are taken out of the
//! batches, and what has become of them comes in batches of its own. A batch that no change concerns is not touched.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use millpond_common::{Error, Result};

use crate::columns::StoredRows;
use crate::encode::Change;
use crate::relation::RelationMeta;
use crate::run::Overlay;
use crate::scan::{RowBuffer, Strings};

/// The rows, in batches.
pub(crate) struct Patched {
    meta: Arc<RelationMeta>,
    stored: StoredRows,
    /// `stored` has ended.
    ended: bool,
    piece: Option<Piece>,
    changes: Overlay,
    /// How many stored rows have the key of the current change: known when a greater key is seen.
    copies: i64,
    /// How many rows of the current key did not fit into the batch before.
    left: Option<i64>,
    /// What changed rows have become.
    buffer: RowBuffer,
}

/// Some stored rows, by ascending key.
struct Piece {
    batch: RecordBatch,
    keys: Arc<Strings>,
    /// Rows before this one have no changes but those seen.
    at: usize,
    /// Rows that are not as they were.
    gone: Vec<usize>,
}

impl Piece {
    fn rest(self) -> Result<RecordBatch> {
        if self.gone.is_empty() {
            return Ok(self.batch);
        }
        let mut stays = vec![true; self.batch.num_rows()];
        for row in &self.gone {
            if let Some(stays) = stays.get_mut(*row) {
                *stays = false;
            }
        }
        Ok(filter_record_batch(&self.batch, &BooleanArray::from(stays))?)
    }
}

impl Patched {
    /// `buffer`: for the same columns as the stored rows, which come with their keys.
    pub(crate) fn new(meta: Arc<RelationMeta>, stored: StoredRows, changes: Overlay, buffer: RowBuffer) -> Self {
        Patched { meta, stored, ended: false, piece: None, changes, copies: 0, left: None, buffer }
    }

    fn next_piece(&mut self) -> Result<()> {
        match self.stored.next().transpose()? {
            Some((batch, Some(keys))) => self.piece = Some(Piece { batch, keys, at: 0, gone: vec![] }),
            Some((_, None)) => return Err(Error::internal("stored rows have lost their keys")),
            None => self.ended = true,
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.buffer.is_full() {
                return self.buffer.take(&self.meta).map(Some);
            }
            if self.piece.is_none() && !self.ended {
                self.next_piece()?;
            }
            let Some((key, change)) = self.changes.current() else {
                return match self.piece.take() {
                    Some(piece) => piece.rest().map(Some),
                    None if self.buffer.is_empty() => Ok(None),
                    None => self.buffer.take(&self.meta).map(Some),
                };
            };
            if let Some(piece) = &mut self.piece {
                let start = piece.keys.seek(piece.at, key);
                let mut end = start;
                while piece.keys.get(end).is_some_and(|k| k == key) {
                    end += 1;
                }
                piece.gone.extend(start..end);
                piece.at = end;
                self.copies += (end - start) as i64;
                // The next rows may have this key, too.
                let is_over = end == piece.keys.len() && (start == end || !self.meta.keyed());
                if is_over && let Some(piece) = self.piece.take() {
                    return piece.rest().map(Some);
                }
            }
            match change {
                Change::Put(value) => self.buffer.push(key, value),
                Change::Delete => {}
                Change::Add(weight) => {
                    let rows = self.left.take().unwrap_or(self.copies + weight);
                    let left = self.buffer.push_copies(key, rows);
                    if left > 0 {
                        self.left = Some(left);
                        continue;
                    }
                }
            }
            self.copies = 0;
            self.changes.advance();
        }
    }
}

impl Iterator for Patched {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance() {
                Ok(Some(batch)) if batch.num_rows() == 0 => {}
                other => return other.transpose(),
            }
        }
    }
}
