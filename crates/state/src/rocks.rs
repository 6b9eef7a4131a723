//! RocksDB as it is configured here, and its errors in our terms.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_common::{Epoch, Error, Result, SqlState};
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompactionStyle,
    DBCompressionType, DBRawIterator, DBRecoveryMode, ErrorKind, LogLevel, MergeOperands, Options, ReadOptions, Snapshot,
    UniversalCompactOptions, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use crate::options::{Compression, Tuning};
use crate::planted::planted;
use crate::{format, rescue};

const DATA: &str = "data";
const LOG: &str = "log";
const MIB: usize = 1 << 20;
const LZ4_ACCELERATION: i32 = 10;
/// How often a write that has to wait for a flush looks whether it must still, and how long it waits if flushes have failed before.
const STALL_LOOK: Duration = Duration::from_millis(1);
const STALL_MAX: Duration = Duration::from_secs(1);

type Weighted = Arc<RwLock<HashSet<u32>>>;

/// The open database. Whoever reads from it holds it open, and the directory's lock with it.
pub(crate) struct Rocks {
    db: DB,
    cache: Cache,
    tuning: Mutex<Tuning>,
    /// Ids of relations without a key, whose values are weights: compaction drops the zeros.
    pub(crate) weighted: Weighted,
    /// The log's last record was incomplete when it was opened.
    pub(crate) log_torn: bool,
    _lock: Option<File>,
}

impl Rocks {
    /// Opens the database in a directory, or creates it. `memory`: how many bytes it may use, roughly.
    pub(crate) fn open(dir: &Path, staging: &Path, memory: u64, tuning: &Tuning, lock: File) -> Result<Rocks> {
        let (weighted, cache) = (Arc::default(), Cache::new_lru_cache(tuning.cache_bytes(memory)));
        let open = |mode| DB::open_cf_descriptors(&database_options(memory, mode), dir, families(&cache, &weighted, tuning));
        // A torn last record was never acknowledged, but a record of a wrong length looks the same: so it is told.
        let (db, log_torn) = match open(DBRecoveryMode::AbsoluteConsistency) {
            Ok(db) => (db, false),
            Err(_) => match open(DBRecoveryMode::TolerateCorruptedTailRecords) {
                Ok(db) => (db, true),
                Err(error) => {
                    let open = || open(DBRecoveryMode::TolerateCorruptedTailRecords);
                    (rescue::reopen(dir, staging, error.as_ref(), open).ok_or_else(|| storage_error(error))?, false)
                }
            },
        };
        Ok(Rocks { db, cache, tuning: Mutex::new(*tuning), weighted, log_torn, _lock: Some(lock) })
    }

    /// Opens a database that is never written again. Others may have it open, too.
    pub(crate) fn open_read_only(dir: &Path) -> Result<Rocks> {
        let (weighted, tuning) = (Arc::default(), Tuning::default());
        let cache = Cache::new_lru_cache(tuning.cache_bytes(0));
        let mut options = database_options(0, DBRecoveryMode::TolerateCorruptedTailRecords);
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let families = families(&cache, &weighted, &tuning);
        let db = DB::open_cf_descriptors_read_only(&options, dir, families, false).map_err(storage_error)?;
        Ok(Rocks { db, cache, tuning: Mutex::new(tuning), weighted, log_torn: false, _lock: None })
    }

    /// Changes what can be changed while it is open; it holds for files written from now on.
    ///
    /// After a failed write to its list of files (MANIFEST) RocksDB keeps the files of both outcomes; but setting options makes it
    /// forget which they are, and then it deletes those that its memory does not know, though the list on disk may name them. So
    /// nothing is deleted meanwhile, nor ever after if there was such a failure before.
    pub(crate) fn tune(&self, memory: u64, tuning: &Tuning) -> Result<()> {
        let mut current = self.tuning.lock();
        if (current.compression, current.write_buffer_bytes) != (tuning.compression, tuning.write_buffer_bytes) {
            self.keep_files()?;
            let set = self.set_options(tuning);
            if self.background_failures()? != 0 {
                // A write says what it was.
                self.write_synced(WriteBatch::default())?;
                return Err(Error::new(SqlState::IO_ERROR, "storage has failed in the background, its settings stay as they are"));
            }
            self.db.enable_file_deletions().map_err(storage_error)?;
            set?;
        }
        self.cache.clone().set_capacity(tuning.cache_bytes(memory));
        *current = *tuning;
        Ok(())
    }

    fn set_options(&self, tuning: &Tuning) -> Result<()> {
        let compression = [("compression", compression_name(tuning.compression))];
        for family in [self.data(), self.log()] {
            self.db.set_options_cf(family, &compression).map_err(storage_error)?;
        }
        let bytes = tuning.write_buffer_bytes.to_string();
        self.db.set_options_cf(self.log(), &[("write_buffer_size", &bytes)]).map_err(storage_error)
    }

    /// From now on no file is deleted that RocksDB takes for obsolete, until it is opened again.
    pub(crate) fn keep_files(&self) -> Result<()> {
        self.db.disable_file_deletions().map_err(storage_error)
    }

    /// For writing files that the data family ingests: they must be as it would have written them, but that LZ4 looks less closely. Compaction
    /// compresses them again soon, and so 5 to 10 % more bytes save a tenth of the CPU time of a view of wide rows.
    pub(crate) fn file_options(&self) -> Options {
        let compression = self.tuning.lock().compression;
        let mut options = data_options(&self.cache, &self.weighted, compression);
        if compression == Compression::Lz4 {
            // RocksDB takes a negative level as LZ4's acceleration; the other numbers are its defaults.
            options.set_compression_options(-14, -LZ4_ACCELERATION, 0, 0);
        }
        options
    }

    /// The database itself.
    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    /// The family of all relations and operator state: written by ingestion only.
    pub(crate) fn data(&self) -> &ColumnFamily {
        self.db.cf_handle(DATA).expect("opened with this family")
    }

    /// The family of the table log, the catalog and the checkpoint record: written by synced batches only.
    pub(crate) fn log(&self) -> &ColumnFamily {
        self.db.cf_handle(LOG).expect("opened with this family")
    }

    /// Writes a batch and returns when it is on disk.
    pub(crate) fn write_synced(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(!planted("sync-omitted"));
        // Left to itself, RocksDB waits as long as a memtable cannot be written out: for ever, if there is no space.
        options.set_no_slowdown(true);
        let bytes = batch.data().to_vec();
        let mut written = self.db.write_opt(batch, &options);
        let mut stalled = None;
        while written.as_ref().is_err_and(|e| e.kind() == ErrorKind::Incomplete) {
            let failures = self.background_failures()?;
            let (failures_before, since) = *stalled.get_or_insert_with(|| (failures, Instant::now()));
            if failures > failures_before || failures > 0 && since.elapsed() > STALL_MAX {
                return Err(self.background_error());
            }
            std::thread::sleep(STALL_LOOK);
            written = self.db.write_opt(WriteBatch::from_data(&bytes), &options);
        }
        if planted("error-ignored") { Ok(()) } else { written.map_err(|e| in_directory(self.db.path(), storage_error(e))) }
    }

    /// How many of its flushes and compactions have failed.
    fn background_failures(&self) -> Result<u64> {
        Ok(self.db.property_int_value("rocksdb.background-errors").map_err(storage_error)?.unwrap_or(0))
    }

    /// The last of these failures, from RocksDB's own messages: it tells nobody else.
    fn background_error(&self) -> Error {
        let log = self.db.path().join("LOG");
        let text = std::fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let (_, what) = text.lines().rev().find_map(|line| line.split_once("Background IO error ")).unwrap_or_default();
        let state = if what.contains("No space left") { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
        let detail = if what.is_empty() { format!("\"{}\" says why.", log.display()) } else { what.to_owned() };
        Error::new(state, "the data directory's storage failed in the background").with_detail(detail)
    }

    /// The number of the last ingested checkpoint.
    pub(crate) fn marker(&self) -> Result<Option<u64>> {
        let Some(value) = self.db.get_cf(self.data(), format::MARKER_KEY).map_err(storage_error)? else { return Ok(None) };
        let number = value.as_slice().try_into().map(u64::from_le_bytes);
        number.map(Some).map_err(|_| Error::new(SqlState::DATA_CORRUPTED, "the checkpoint marker is damaged"))
    }

    /// Reads all of its entries, and so compares every block with its checksum; what is cached stays.
    pub(crate) fn verify(&self) -> Result<()> {
        for family in [self.data(), self.log()] {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            options.set_readahead_size(2 * MIB);
            let mut entries = self.db.raw_iterator_cf_opt(family, options);
            entries.seek_to_first();
            while entries.valid() {
                entries.next();
            }
            entries.status().map_err(|e| in_directory(self.db.path(), storage_error(e)))?;
        }
        Ok(())
    }

    /// An integer property, summed over both families.
    pub(crate) fn property(&self, name: &str) -> u64 {
        let of = |family| self.db.property_int_value_cf(family, name).ok().flatten().unwrap_or(0);
        of(self.data()) + of(self.log())
    }
}

/// What a compaction reads ahead of each of its files, of which there may be dozens: RocksDB's default, if there is memory for it.
fn read_ahead_bytes(memory: u64) -> usize {
    usize::try_from(memory / 256).unwrap_or(usize::MAX).clamp(MIB / 8, 2 * MIB)
}

fn database_options(memory: u64, recovery: DBRecoveryMode) -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.create_missing_column_families(true);
    // The log is short: its entries leave with the next checkpoint. Replaying it is most of a start after a crash.
    o.set_max_total_wal_size(16 * MIB as u64);
    o.set_wal_recovery_mode(recovery);
    o.set_track_and_verify_wals_in_manifest(true);
    o.set_max_background_jobs(2);
    o.set_compaction_readahead_size(read_ahead_bytes(memory));
    o.set_max_open_files(1000);
    o.set_skip_stats_update_on_db_open(true);
    // RocksDB's own message log: warnings, little of them kept.
    o.set_log_level(LogLevel::Warn);
    o.set_max_log_file_size(MIB);
    o.set_keep_log_file_num(3);
    o.set_stats_dump_period_sec(0);
    o.set_stats_persist_period_sec(0);
    o.set_bytes_per_sync(MIB as u64);
    o
}

fn table_options(cache: &Cache) -> BlockBasedOptions {
    let mut t = BlockBasedOptions::default();
    t.set_block_cache(cache);
    t.set_block_size(16 << 10);
    t.set_bloom_filter(10.0, false);
    t.set_whole_key_filtering(true);
    // In parts: the filter of a whole file, some megabytes, is more than a small cache has room for, and would be read anew for each look-up.
    t.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    t.set_partition_filters(true);
    t.set_metadata_block_size(4 << 10);
    t.set_cache_index_and_filter_blocks(true);
    t.set_pin_top_level_index_and_filter(true);
    t.set_pin_l0_filter_and_index_blocks_in_cache(true);
    t.set_format_version(6);
    t
}

fn families(cache: &Cache, weighted: &Weighted, tuning: &Tuning) -> [ColumnFamilyDescriptor; 2] {
    let data = ColumnFamilyDescriptor::new(DATA, data_options(cache, weighted, tuning.compression));
    [data, ColumnFamilyDescriptor::new(LOG, log_options(cache, tuning))]
}

fn compression_type(compression: Compression) -> DBCompressionType {
    match compression {
        Compression::None => DBCompressionType::None,
        Compression::Snappy => DBCompressionType::Snappy,
        Compression::Lz4 => DBCompressionType::Lz4,
        Compression::Zstd => DBCompressionType::Zstd,
    }
}

/// As RocksDB's options in text have it.
fn compression_name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "kNoCompression",
        Compression::Snappy => "kSnappyCompression",
        Compression::Lz4 => "kLZ4Compression",
        Compression::Zstd => "kZSTD",
    }
}

fn data_options(cache: &Cache, weighted: &Weighted, compression: Compression) -> Options {
    let mut o = Options::default();
    o.set_block_based_table_factory(&table_options(cache));
    o.set_compression_type(compression_type(compression));
    o.set_merge_operator_associative("millpond.weight", add_weights);
    let weighted = Arc::clone(weighted);
    o.set_compaction_filter("millpond.weight", move |_, key, value| {
        // Cheap test first: hardly any value is a zero weight.
        let zero = value == [0; 8] && key.first_chunk::<4>().is_some_and(|id| weighted.read().contains(&u32::from_be_bytes(*id)));
        if zero { CompactionDecision::Remove } else { CompactionDecision::Keep }
    });
    // Never written through a memtable: what there is of one can be small.
    o.set_write_buffer_size(MIB);
    // One ingested file per checkpoint, each across the whole key range: files of about one size are merged with each other, and with the large
    // rest only when all that has changed since is as much. Compaction by levels would write the rest anew for every eighth checkpoint.
    o.set_compaction_style(DBCompactionStyle::Universal);
    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(100);
    universal.set_size_ratio(20);
    o.set_universal_compaction_options(&universal);
    // Runs of files; and never stall the log (a stall would hold every family's writes) while compaction catches up.
    o.set_level_zero_file_num_compaction_trigger(8);
    o.set_level_zero_slowdown_writes_trigger(1 << 20);
    o.set_level_zero_stop_writes_trigger(1 << 20);
    o.set_soft_pending_compaction_bytes_limit(0);
    o.set_hard_pending_compaction_bytes_limit(0);
    o.set_target_file_size_base(64 * MIB as u64);
    o
}

fn log_options(cache: &Cache, tuning: &Tuning) -> Options {
    let mut o = Options::default();
    o.set_block_based_table_factory(&table_options(cache));
    o.set_compression_type(compression_type(tuning.compression));
    o.set_write_buffer_size(usize::try_from(tuning.write_buffer_bytes).unwrap_or(usize::MAX));
    o.set_max_write_buffer_number(2);
    o
}

/// The sum of weights; used for full and partial merges alike.
fn add_weights(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut sum = 0i64;
    for weight in existing.into_iter().chain(operands) {
        sum = sum.wrapping_add(i64::from_le_bytes(weight.try_into().ok()?));
    }
    Some(sum.to_le_bytes().to_vec())
}

/// A RocksDB error as ours. The bytes of a file may be in its text, never a row's.
pub(crate) fn storage_error(error: rocksdb::Error) -> Error {
    let state = match error.kind() {
        ErrorKind::Corruption => SqlState::DATA_CORRUPTED,
        _ if error.as_ref().contains("No space left") => SqlState::DISK_FULL,
        _ => SqlState::IO_ERROR,
    };
    Error::new(state, "the data directory's storage failed").with_detail(error.into_string())
}

/// With the directory's name, which RocksDB does not tell when it could not sync one.
pub(crate) fn in_directory(dir: &Path, error: Error) -> Error {
    let Some(detail) = error.detail().filter(|detail| !detail.contains(&*dir.to_string_lossy())) else { return error };
    let detail = format!("{detail} (in \"{}\")", dir.display());
    error.with_detail(detail)
}

self_cell!(
    /// A snapshot that keeps its database open.
    pub(crate) struct OwnedSnapshot {
        owner: Arc<Rocks>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// Keys that are looked up together. All blocks that this reads, up to one of 16 KB for each key, are in memory until the last value is let go.
pub(crate) const KEYS_PER_CALL: usize = 128;

/// The database as the last checkpoint left it.
pub(crate) struct Base {
    pub(crate) epoch: Epoch,
    /// Entries of the table log up to this one are contained.
    pub(crate) log_seq: u64,
    /// How many rows each relation has.
    pub(crate) rows: std::collections::HashMap<u32, i64>,
    /// `None`: the store is closed.
    snapshot: Option<OwnedSnapshot>,
}

impl Base {
    pub(crate) fn new(rocks: &Arc<Rocks>, epoch: Epoch, log_seq: u64, rows: std::collections::HashMap<u32, i64>) -> Arc<Base> {
        let snapshot = OwnedSnapshot::new(Arc::clone(rocks), |rocks| rocks.db().snapshot());
        Arc::new(Base { epoch, log_seq, rows, snapshot: Some(snapshot) })
    }

    pub(crate) fn closed(epoch: Epoch) -> Arc<Base> {
        Arc::new(Base { epoch, log_seq: 0, rows: Default::default(), snapshot: None })
    }

    fn snapshot(&self) -> Result<(&Rocks, &Snapshot<'_>)> {
        let cell = self.snapshot.as_ref().ok_or_else(closed)?;
        Ok((cell.borrow_owner(), cell.borrow_dependent()))
    }

    /// The values of some data keys, [`KEYS_PER_CALL`] at most.
    pub(crate) fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<rocksdb::DBPinnableSlice<'_>>>> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let (rocks, snapshot) = self.snapshot()?;
        let mut options = ReadOptions::default();
        options.set_snapshot(snapshot);
        let values = rocks.db().batched_multi_get_cf_opt(rocks.data(), keys.iter().map(Vec::as_slice), false, &options);
        values.into_iter().map(|v| v.map_err(storage_error)).collect()
    }
}

/// What every call gets once the store is closed.
pub(crate) fn closed() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "the data directory has been closed")
}

self_cell!(
    struct IteratorCell {
        owner: Arc<Base>,
        #[covariant]
        dependent: DBRawIterator,
    }
);

/// A walk through data keys between two bounds, which keeps its snapshot.
pub(crate) struct BaseIterator(IteratorCell);

impl BaseIterator {
    /// Stands before the first key in `lower..upper`.
    pub(crate) fn new(base: &Arc<Base>, lower: Vec<u8>, upper: Vec<u8>, fill_cache: bool) -> Result<Self> {
        let cell = IteratorCell::try_new(Arc::clone(base), |base| {
            let (rocks, snapshot) = base.snapshot()?;
            let mut options = ReadOptions::default();
            options.set_iterate_lower_bound(lower);
            options.set_iterate_upper_bound(upper);
            options.fill_cache(fill_cache);
            let mut iterator = snapshot.raw_iterator_cf_opt(rocks.data(), options);
            iterator.seek_to_first();
            Ok::<_, Error>(iterator)
        })?;
        Ok(BaseIterator(cell))
    }

    /// Calls `f` with the iterator itself: reaching it costs a little, so many rows should share one call.
    pub(crate) fn with<T>(&mut self, f: impl FnOnce(&mut DBRawIterator<'_>) -> T) -> T {
        self.0.with_dependent_mut(|_, iterator| f(iterator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(false);
        let error = storage_error(DB::open(&options, dir.path().join("none")).err().unwrap());
        assert_eq!(error.state(), SqlState::IO_ERROR);
        assert!(error.detail().is_some());
    }

    #[test]
    fn directories_are_named() {
        let error = |detail: &str| Error::new(SqlState::IO_ERROR, "failed").with_detail(detail);
        for (detail, expected) in [
            ("While fsync: a directory: failed", "While fsync: a directory: failed (in \"/data/db\")"),
            ("While appending to /data/db/1.sst", "While appending to /data/db/1.sst"),
        ] {
            assert_eq!(in_directory(Path::new("/data/db"), error(detail)).detail(), Some(expected));
        }
    }
}
