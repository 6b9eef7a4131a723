//! A checkpoint's files: sorted, written and synced by RocksDB's own writer, ready to be ingested.

use std::path::{Path, PathBuf};

use millpond_common::Result;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use crate::encode::Change;
use crate::failpoint::failpoint;
use crate::format;
use crate::rocks::{Rocks, in_directory, storage_error};

/// A file is closed when it has reached this size.
const FILE_BYTES_MAX: u64 = 128 << 20;
/// So many bytes are written before the size is looked at again.
const LOOK_BYTES: usize = 1 << 20;

/// Writes one checkpoint's changes in ascending key order.
pub(crate) struct SstWriter<'a> {
    options: &'a Options,
    staging: &'a Path,
    number: u64,
    /// The number of its first file within the checkpoint.
    first: usize,
    writer: Option<SstFileWriter<'a>>,
    files: Vec<String>,
    key: Vec<u8>,
    /// Bytes of entries since the size was looked at.
    unseen: usize,
    entries: u64,
    bytes: u64,
}

/// The files of what is written beside another part, and after it in key order, are numbered from here.
const LATER_FIRST: usize = 1 << 16;

/// What was written.
pub(crate) struct Written {
    pub(crate) files: Vec<String>,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl Written {
    /// With what was written beside it.
    pub(crate) fn and(mut self, later: Written) -> Written {
        self.files.extend(later.files);
        Written { files: self.files, entries: self.entries + later.entries, bytes: self.bytes + later.bytes }
    }
}

impl<'a> SstWriter<'a> {
    pub(crate) fn new(options: &'a Options, staging: &'a Path, number: u64) -> Self {
        SstWriter { options, staging, number, first: 0, writer: None, files: vec![], key: vec![], unseen: 0, entries: 0, bytes: 0 }
    }

    /// For changes of the same checkpoint with greater keys, to be written at the same time.
    pub(crate) fn after(&self) -> Self {
        SstWriter { first: LATER_FIRST, ..SstWriter::new(self.options, self.staging, self.number) }
    }

    /// For an entry of so many bytes.
    fn writer(&mut self, bytes: usize) -> Result<&mut SstFileWriter<'a>> {
        if self.unseen >= LOOK_BYTES {
            self.unseen = 0;
            if self.writer.as_ref().is_some_and(|w| w.file_size() >= FILE_BYTES_MAX) {
                self.finish_file()?;
            }
        }
        self.unseen += bytes;
        if self.writer.is_none() {
            let name = format!("{:010}-{}.sst", self.number, self.first + self.files.len());
            let writer = SstFileWriter::create(self.options);
            writer.open(self.staging.join(&name)).map_err(storage_error)?;
            self.files.push(name);
            self.writer = Some(writer);
        }
        self.entries += 1;
        Ok(self.writer.as_mut().expect("made above if there was none"))
    }

    /// Also syncs the file.
    fn finish_file(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.finish().map_err(storage_error)?;
            self.bytes += writer.file_size();
            failpoint("commit-file-written");
        }
        Ok(())
    }

    /// One change of a relation. Its key comes in two parts.
    pub(crate) fn change(&mut self, id: u32, head: &[u8], key: &[u8], change: Change<'_>) -> Result<()> {
        let mut whole = std::mem::take(&mut self.key);
        whole.clear();
        whole.extend_from_slice(&format::id_prefix(id));
        whole.extend_from_slice(head);
        whole.extend_from_slice(key);
        let value = if let Change::Put(value) = change { value.len() } else { 0 };
        let writer = self.writer(whole.len() + value)?;
        match change {
            Change::Put(value) => writer.put(&whole, value),
            Change::Delete => writer.delete(&whole),
            Change::Add(0) => Ok(()),
            Change::Add(weight) => writer.merge(&whole, weight.to_le_bytes()),
        }
        .map_err(storage_error)?;
        self.key = whole;
        Ok(())
    }

    /// One entry of a state table.
    pub(crate) fn entry(&mut self, id: u32, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.change(id, &[], key, value.map_or(Change::Delete, Change::Put))
    }

    /// Everything stored under an id goes.
    pub(crate) fn delete_id(&mut self, id: u32) -> Result<()> {
        let writer = self.writer(0)?;
        writer.delete_range(format::vnode_bound(id, 0), format::vnode_bound(id, 256)).map_err(storage_error)
    }

    /// Adds the marker that says that this checkpoint was ingested, and closes the last file. Without changes there is none.
    pub(crate) fn finish(mut self) -> Result<Written> {
        let entries = self.entries;
        if entries > 0 {
            let number = self.number;
            self.writer(0)?.put(format::MARKER_KEY, number.to_le_bytes()).map_err(storage_error)?;
        }
        Ok(Written { entries, ..self.finish_unmarked()? })
    }

    /// Closes the last file; the marker is in one after it.
    pub(crate) fn finish_unmarked(mut self) -> Result<Written> {
        self.finish_file()?;
        Ok(Written { files: self.files, entries: self.entries, bytes: self.bytes })
    }
}

/// Moves files into the data family, all or none.
pub(crate) fn ingest(rocks: &Rocks, staging: &Path, files: &[String]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    let paths = files.iter().map(|f| staging.join(f)).collect::<Vec<PathBuf>>();
    rocks.db().ingest_external_file_cf_opts(rocks.data(), &options, paths).map_err(|e| in_directory(rocks.db().path(), storage_error(e)))
}
