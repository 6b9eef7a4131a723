//! Columns that queries have read of a relation's stored rows, kept in memory with the rows' keys. A checkpoint that changes
//! some of the rows leaves them there: its changes are kept beside them, and readers patch what they get, until the
//! changes are many. What was used longest ago leaves when there is no room.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use millpond_common::{Result, VNODE_COUNT};
use parking_lot::Mutex;

use crate::appended::AppendedScan;
use crate::patched::Patched;
use crate::read_view::Scan;
use crate::relation::Relation;
use crate::rocks::Base;
use crate::run::{Overlay, SortedRun};
use crate::scan::{Keyed, RowBuffer, ScanStream, Strings, Wanted};

/// One reader's columns may take this part of the room, so that a single large read does not drive out the others.
const READER_PART: u64 = 2;

/// When more rows have changed since they were read than this part of them, and than so many, the next reader reads them anew.
const CHANGED_PART: usize = 8;
const CHANGED_MIN: usize = 128;

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
    /// What is being read, to be kept at the end.
    reads: Vec<Weak<Mutex<Read>>>,
}

/// Rows that are being read, and what has changed of them meanwhile.
struct Read {
    rows: Rows,
    /// About how many there are.
    count: usize,
    since: Vec<Arc<SortedRun>>,
}

/// Columns of the same rows, cut into the same batches.
struct Part {
    batch_rows: Vec<usize>,
    columns: BTreeMap<usize, Vec<ArrayRef>>,
    /// Of each batch.
    keys: Vec<Arc<Strings>>,
    /// What checkpoints have changed since they were read, the newest last.
    since: Vec<Arc<SortedRun>>,
    bytes: u64,
    used: u64,
}

impl Part {
    fn rows(&self) -> usize {
        self.batch_rows.iter().sum()
    }

    fn weigh(&mut self) {
        let columns = self.columns.values().flatten().map(|a| a.get_array_memory_size() as u64).sum::<u64>();
        let keys = self.keys.iter().map(|k| k.memory() as u64).sum::<u64>();
        self.bytes = columns + keys + self.since.iter().map(|run| run.memory() as u64).sum::<u64>();
    }
}

/// Adds newer changes, which are merged with older ones if these are not many more.
fn add_changes(since: &mut Vec<Arc<SortedRun>>, changes: &[Arc<SortedRun>]) {
    since.extend(changes.iter().cloned());
    while let [.., older, newer] = since.as_slice()
        && older.len() <= 2 * newer.len()
    {
        let merged = Arc::new(SortedRun::merge(&[Arc::clone(older), Arc::clone(newer)]));
        since.truncate(since.len() - 2);
        since.push(merged);
    }
}

fn count(changes: &[Arc<SortedRun>]) -> usize {
    changes.iter().map(|run| run.len()).sum()
}

/// What is kept of some rows: they are those of the batches, with these changes.
type Found = (Vec<Keyed>, Vec<Arc<SortedRun>>);

impl ColumnCache {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(ColumnCache { bytes_max, kept: Mutex::default() })
    }

    /// All batches of some columns, if each of them is there.
    fn get(&self, rows: &Rows, columns: &[usize], schema: &SchemaRef) -> Option<Found> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let part = kept.parts.get_mut(rows)?;
        let wanted = columns.iter().map(|c| part.columns.get(c)).collect::<Option<Vec<_>>>()?;
        part.used = clock;
        let batch = |(i, (rows, keys)): (usize, (&usize, &Arc<Strings>))| {
            let arrays = wanted.iter().map(|c| c.get(i).cloned()).collect::<Option<Vec<_>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(*rows));
            let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).ok()?;
            Some((batch, Some(Arc::clone(keys))))
        };
        let batches = part.batch_rows.iter().zip(&part.keys).enumerate().map(batch).collect::<Option<Vec<_>>>()?;
        Some((batches, part.since.clone()))
    }

    /// The columns that are kept of some rows.
    fn columns(&self, rows: &Rows) -> Vec<usize> {
        self.kept.lock().parts.get(rows).map(|part| part.columns.keys().copied().collect()).unwrap_or_default()
    }

    /// A read begins.
    fn begin(&self, rows: Rows, count: usize) -> Arc<Mutex<Read>> {
        let read = Arc::new(Mutex::new(Read { rows, count, since: vec![] }));
        let mut kept = self.kept.lock();
        kept.reads.retain(|r| r.strong_count() > 0);
        kept.reads.push(Arc::downgrade(&read));
        read
    }

    /// A read has come to its end.
    fn put(&self, read: &Mutex<Read>, columns: &[usize], batches: &[Keyed]) {
        let batch_rows = batches.iter().map(|(batch, _)| batch.num_rows()).collect::<Vec<_>>();
        let Some(keys) = batches.iter().map(|(_, keys)| keys.clone()).collect::<Option<Vec<_>>>() else { return };
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let used = kept.clock;
        // Nobody changes the read any more: that needs the same lock.
        let (rows, since) = {
            let mut read = read.lock();
            (read.rows.clone(), std::mem::take(&mut read.since))
        };
        let before = kept.parts.remove(&rows);
        kept.bytes -= before.as_ref().map_or(0, |part| part.bytes);
        // Columns of before a change are not of the same rows.
        let fits = |part: &Part| part.since.is_empty() && since.is_empty() && part.batch_rows == batch_rows;
        let mut columns_kept = before.filter(fits).map(|part| part.columns).unwrap_or_default();
        for (i, column) in columns.iter().enumerate() {
            columns_kept.entry(*column).or_insert_with(|| batches.iter().map(|(batch, _)| Arc::clone(batch.column(i))).collect());
        }
        let mut part = Part { batch_rows, columns: columns_kept, keys, since, bytes: 0, used };
        part.weigh();
        kept.bytes += part.bytes;
        kept.parts.insert(rows, part);
        while kept.bytes > self.bytes_max {
            let oldest = kept.parts.iter().min_by_key(|(_, part)| part.used).map(|(rows, _)| rows.clone());
            let Some(part) = oldest.and_then(|rows| kept.parts.remove(&rows)) else { break };
            kept.bytes -= part.bytes;
        }
    }

    /// Whether a version's columns stay when so many rows of it change.
    pub(crate) fn follows(&self, version: StoredVersion, changes: u64) -> bool {
        let kept = self.kept.lock();
        let parts = kept.parts.iter().filter(|(rows, _)| rows.version == version).map(|(_, part)| (part.rows(), count(&part.since)));
        let reads = kept.reads.iter().filter_map(Weak::upgrade);
        let reads = reads.filter_map(|r| {
            let read = r.lock();
            (read.rows.version == version).then(|| (read.count, count(&read.since)))
        });
        let (rows, changed) = parts.chain(reads).fold((0, 0), |(rows, changed), (r, c)| (rows + r, changed.max(c)));
        rows > 0 && changed as u64 + changes <= CHANGED_MIN.max(rows / CHANGED_PART) as u64
    }

    /// A checkpoint has made a version from another one by these changes. Gives what has to be dropped, which may take a while.
    pub(crate) fn carry(&self, from: StoredVersion, to: StoredVersion, changes: &[Arc<SortedRun>]) -> Vec<Arc<SortedRun>> {
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        for read in kept.reads.iter().filter_map(Weak::upgrade) {
            let mut read = read.lock();
            if read.rows.version == from {
                read.rows.version = to;
                add_changes(&mut read.since, changes);
            }
        }
        let parts = kept.parts.extract_if(|rows, _| rows.version == from).collect::<Vec<_>>();
        for (rows, mut part) in parts {
            kept.bytes -= part.bytes;
            gone.extend(part.since.iter().cloned());
            add_changes(&mut part.since, changes);
            part.weigh();
            kept.bytes += part.bytes;
            kept.parts.insert(Rows { version: to, ..rows }, part);
        }
        gone
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

/// Rows as a checkpoint has stored them, with their keys as long as somebody needs these.
pub(crate) enum StoredRows {
    Kept(std::vec::IntoIter<Keyed>),
    Read {
        scan: Box<ScanStream>,
        /// Which of the columns that are read are wanted.
        wanted: Vec<usize>,
        keeping: Option<Keeping>,
        with_keys: bool,
    },
}

/// What has been read so far, to be kept when it is all.
pub(crate) struct Keeping {
    cache: Arc<ColumnCache>,
    read: Arc<Mutex<Read>>,
    columns: Vec<usize>,
    batches: Vec<Keyed>,
    bytes: u64,
}

impl Keeping {
    /// Whether there is room for more.
    fn add(&mut self, (batch, keys): &Keyed) -> bool {
        self.bytes += (batch.get_array_memory_size() + keys.as_ref().map_or(0, |k| k.memory())) as u64;
        self.batches.push((batch.clone(), keys.clone()));
        self.bytes <= self.cache.bytes_max / READER_PART
    }
}

impl StoredRows {
    pub(crate) fn next(&mut self) -> Option<Result<Keyed>> {
        let (scan, wanted, keeping, with_keys) = match self {
            StoredRows::Kept(batches) => return batches.next().map(Ok),
            StoredRows::Read { scan, wanted, keeping, with_keys } => (scan, wanted, keeping, *with_keys),
        };
        match scan.next_keyed() {
            Some(Ok(next)) => {
                if keeping.as_mut().is_some_and(|k| !k.add(&next)) {
                    *keeping = None;
                    scan.want_keys(with_keys);
                }
                let (batch, keys) = next;
                Some(batch.project(wanted).map(|batch| (batch, keys)).map_err(Into::into))
            }
            Some(Err(error)) => {
                *keeping = None;
                Some(Err(error))
            }
            None => {
                if let Some(k) = keeping.take() {
                    k.cache.put(&k.read, &k.columns, &k.batches);
                }
                None
            }
        }
    }
}

/// The rows of a scan, in batches. Holds what its view holds.
pub struct RowStream {
    schema: SchemaRef,
    rest: Rest,
}

enum Rest {
    Made(std::vec::IntoIter<RecordBatch>),
    Read(Box<ScanStream>),
    Stored(StoredRows),
    Patched(Box<Patched>),
    Appended(Box<AppendedScan>),
}

impl RowStream {
    /// Rows that are there.
    pub(crate) fn made(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        RowStream { schema, rest: Rest::Made(batches.into_iter()) }
    }

    /// Rows in the order in which they came.
    pub(crate) fn appended(scan: AppendedScan) -> Self {
        RowStream { schema: Arc::clone(&scan.schema), rest: Rest::Appended(Box::new(scan)) }
    }

    /// Rows that are never kept.
    pub(crate) fn read(scan: ScanStream) -> Self {
        RowStream { schema: scan.schema(), rest: Rest::Read(Box::new(scan)) }
    }

    /// Stored rows with changes: from the cache, or by a scan and into the cache.
    pub(crate) fn stored(
        cache: &Arc<ColumnCache>,
        rows: Rows,
        columns: Vec<usize>,
        changes: Vec<Arc<SortedRun>>,
        (base, relation): (&Arc<Base>, &Relation),
    ) -> Result<Self> {
        let buffer = RowBuffer::new(Wanted::new(&relation.meta, Some(columns.clone())));
        let (schema, vnodes) = (buffer.schema(), rows.vnodes.clone());
        let (stored, mut all_changes) = match cache.get(&rows, &columns, &schema) {
            Some((batches, since)) => (StoredRows::Kept(batches.into_iter()), since),
            None => {
                // What is kept already of the rows stays together with what is read now.
                let mut all = columns.clone();
                all.extend(cache.columns(&rows).into_iter().filter(|c| !columns.contains(c)));
                let scan = Scan { projection: Some(all.clone()), vnodes: vnodes.clone(), keys: None };
                let mut scan = Box::new(ScanStream::new(base, relation, vec![], scan, &[])?);
                scan.want_keys(true);
                let count = base.rows.get(&relation.meta.spec.id.0).map_or(0, |n| *n as usize) * vnodes.len() / VNODE_COUNT;
                let read = cache.begin(rows, count);
                let keeping = Some(Keeping { cache: Arc::clone(cache), read, columns: all, batches: vec![], bytes: 0 });
                let (wanted, with_keys) = ((0..columns.len()).collect(), !changes.is_empty());
                (StoredRows::Read { scan, wanted, keeping, with_keys }, vec![])
            }
        };
        all_changes.extend(changes);
        let rest = match all_changes.is_empty() {
            true => Rest::Stored(stored),
            false => {
                let changes = Overlay::new(all_changes, vnodes);
                Rest::Patched(Box::new(Patched::new(Arc::clone(&relation.meta), stored, changes, buffer)))
            }
        };
        Ok(RowStream { schema, rest })
    }

    /// The columns of its batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Iterator for RowStream {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rest {
            Rest::Made(batches) => batches.next().map(Ok),
            Rest::Read(scan) => scan.next(),
            Rest::Stored(rows) => rows.next().map(|next| next.map(|(batch, _)| batch)),
            Rest::Patched(rows) => rows.next(),
            Rest::Appended(rows) => rows.next(),
        }
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

    fn put(cache: &ColumnCache, version: u64, columns: &[usize]) {
        cache.put(&cache.begin(rows(version), 100), columns, &[(batch(columns), Some(Arc::default()))]);
    }

    fn rows(version: u64) -> Rows {
        Rows { version: StoredVersion(version), vnodes: 0..256 }
    }

    #[test]
    fn columns_of_several_reads_are_put_together() {
        let cache = ColumnCache::new(1 << 20);
        put(&cache, 1, &[0, 2]);
        put(&cache, 1, &[1]);
        let found = |columns: &[usize]| {
            let (batches, _) = cache.get(&rows(1), columns, &batch(columns).schema())?;
            Some(batches.into_iter().map(|(batch, _)| batch).collect::<Vec<_>>())
        };
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
        put(&cache, 1, &[0]);
        put(&cache, 2, &[0]);
        assert!(there(1) && there(2) && there(1));
        put(&cache, 3, &[0]);
        assert_eq!([1, 2, 3].map(there), [true, false, true]);
    }
}
