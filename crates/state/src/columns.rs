//! Columns that queries have read of a relation's stored rows, kept in memory: until a checkpoint changes the relation, they
//! are read again without looking at a row. What was used longest ago leaves when there is no room.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use millpond_common::Result;
use parking_lot::Mutex;

use crate::scan::ScanStream;

/// One reader's columns may take this part of the room, so that a single large read does not drive out the others.
const READER_PART: u64 = 2;

/// What one checkpoint left of a relation: as long as no other changes it, the number stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredVersion(u64);

impl StoredVersion {
    /// One that nothing is kept of.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        StoredVersion(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which rows: of a version, those of some virtual nodes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    pub(crate) version: StoredVersion,
    pub(crate) vnodes: Range<usize>,
}

/// The columns of all relations.
pub(crate) struct ColumnCache {
    bytes_max: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    parts: HashMap<Rows, Part>,
    bytes: u64,
    /// Counts uses.
    clock: u64,
}

/// Columns of the same rows, cut into the same batches.
struct Part {
    batch_rows: Vec<usize>,
    columns: BTreeMap<usize, Vec<ArrayRef>>,
    bytes: u64,
    used: u64,
}

impl ColumnCache {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(ColumnCache { bytes_max, kept: Mutex::default() })
    }

    /// All batches of some columns, if each of them is there.
    fn get(&self, rows: &Rows, columns: &[usize], schema: &SchemaRef) -> Option<Vec<RecordBatch>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let part = kept.parts.get_mut(rows)?;
        let wanted = columns.iter().map(|c| part.columns.get(c)).collect::<Option<Vec<_>>>()?;
        part.used = clock;
        let batch = |(i, rows): (usize, &usize)| {
            let arrays = wanted.iter().map(|c| c.get(i).cloned()).collect::<Option<Vec<_>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(*rows));
            RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).ok()
        };
        part.batch_rows.iter().enumerate().map(batch).collect()
    }

    fn put(&self, rows: &Rows, columns: &[usize], batches: &[RecordBatch]) {
        let batch_rows = batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let part = kept.parts.entry(rows.clone());
        let part = part.or_insert_with(|| Part { batch_rows: batch_rows.clone(), columns: BTreeMap::new(), bytes: 0, used: clock });
        if part.batch_rows != batch_rows {
            return;
        }
        part.used = clock;
        let before = part.bytes;
        for (i, column) in columns.iter().enumerate() {
            part.columns.entry(*column).or_insert_with(|| {
                let arrays = batches.iter().map(|b| Arc::clone(b.column(i))).collect::<Vec<_>>();
                part.bytes += arrays.iter().map(|a| a.get_array_memory_size() as u64).sum::<u64>();
                arrays
            });
        }
        let grown = part.bytes - before;
        kept.bytes += grown;
        while kept.bytes > self.bytes_max {
            let oldest = kept.parts.iter().min_by_key(|(_, part)| part.used).map(|(rows, _)| rows.clone());
            let Some(part) = oldest.and_then(|rows| kept.parts.remove(&rows)) else { break };
            kept.bytes -= part.bytes;
        }
    }

    /// Drops what is kept of versions that nobody will read again.
    pub(crate) fn forget(&self, versions: &[StoredVersion]) {
        let mut kept = self.kept.lock();
        let gone = kept.parts.extract_if(|rows, _| versions.contains(&rows.version)).collect::<Vec<_>>();
        kept.bytes -= gone.iter().map(|(_, part)| part.bytes).sum::<u64>();
        drop(kept);
        drop(gone); // this may take a while
    }
}

/// The rows of a scan, in batches. Holds what its view holds.
pub struct RowStream(Rest);

enum Rest {
    Kept(SchemaRef, std::vec::IntoIter<RecordBatch>),
    Read(Box<ScanStream>, Option<Keeping>),
}

/// What has been read so far, to be kept when it is all.
struct Keeping {
    cache: Arc<ColumnCache>,
    rows: Rows,
    columns: Vec<usize>,
    batches: Vec<RecordBatch>,
    bytes: u64,
}

impl RowStream {
    /// Rows that are never kept.
    pub(crate) fn read(scan: ScanStream) -> Self {
        RowStream(Rest::Read(Box::new(scan), None))
    }

    /// Stored rows, of which nothing has changed: from the cache, or by the scan and into the cache.
    pub(crate) fn stored(cache: &Arc<ColumnCache>, rows: Rows, columns: Vec<usize>, scan: ScanStream) -> Self {
        let schema = scan.schema();
        if let Some(batches) = cache.get(&rows, &columns, &schema) {
            return RowStream(Rest::Kept(schema, batches.into_iter()));
        }
        let keeping = Keeping { cache: Arc::clone(cache), rows, columns, batches: vec![], bytes: 0 };
        RowStream(Rest::Read(Box::new(scan), Some(keeping)))
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        match &self.0 {
            Rest::Kept(schema, _) => Arc::clone(schema),
            Rest::Read(scan, _) => scan.schema(),
        }
    }
}

impl Iterator for RowStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let (scan, keeping) = match &mut self.0 {
            Rest::Kept(_, batches) => return batches.next().map(Ok),
            Rest::Read(scan, keeping) => (scan, keeping),
        };
        let next = scan.next();
        match &next {
            Some(Ok(batch)) => {
                if let Some(k) = keeping {
                    k.bytes += batch.get_array_memory_size() as u64;
                    k.batches.push(batch.clone());
                }
                if keeping.as_ref().is_some_and(|k| k.bytes > k.cache.bytes_max / READER_PART) {
                    *keeping = None;
                }
            }
            Some(Err(_)) => *keeping = None,
            None => {
                if let Some(k) = keeping.take() {
                    k.cache.put(&k.rows, &k.columns, &k.batches);
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};

    fn batch(columns: &[usize]) -> RecordBatch {
        let fields = columns.iter().map(|c| Field::new(c.to_string(), DataType::Int64, false)).collect::<Vec<_>>();
        let arrays = columns.iter().map(|c| Arc::new(Int64Array::from(vec![*c as i64; 100])) as ArrayRef).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(100));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).unwrap()
    }

    fn rows(version: u64) -> Rows {
        Rows { version: StoredVersion(version), vnodes: 0..256 }
    }

    #[test]
    fn columns_of_several_reads_are_put_together() {
        let cache = ColumnCache::new(1 << 20);
        cache.put(&rows(1), &[0, 2], &[batch(&[0, 2])]);
        cache.put(&rows(1), &[1], &[batch(&[1])]);
        let found = |columns: &[usize]| cache.get(&rows(1), columns, &batch(columns).schema());
        assert_eq!(found(&[2, 1, 0]), Some(vec![batch(&[2, 1, 0])]));
        assert_eq!(found(&[]), Some(vec![batch(&[])]), "the number of rows alone");
        assert_eq!(found(&[3]), None);
        cache.forget(&[StoredVersion(1)]);
        assert_eq!(found(&[0]), None);
        assert_eq!(cache.kept.lock().bytes, 0);
    }

    #[test]
    fn what_was_used_longest_ago_leaves() {
        let one = batch(&[0]).get_array_memory_size() as u64;
        let cache = ColumnCache::new(one * 2);
        let there = |version| cache.get(&rows(version), &[0], &batch(&[0]).schema()).is_some();
        cache.put(&rows(1), &[0], &[batch(&[0])]);
        cache.put(&rows(2), &[0], &[batch(&[0])]);
        assert!(there(1) && there(2) && there(1));
        cache.put(&rows(3), &[0], &[batch(&[0])]);
        assert_eq!([1, 2, 3].map(there), [true, false, true]);
    }
}
