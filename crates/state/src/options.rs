//! How to open a store, and what of it can be changed while it is open.

use millpond_common::{Error, Result, SqlState};

const MIB: u64 = 1 << 20;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of memory that the server may use; storage takes a quarter of it for its cache.
    pub memory: u64,
    /// How many workers will publish; a hint.
    pub workers: usize,
    /// RocksDB's settings.
    pub tuning: Tuning,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { memory: 256 * MIB, workers: 1, tuning: Tuning::default() }
    }
}

/// Settings `rocksdb_…`. They can be changed while the store is open and hold for what is written from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Of data files.
    pub compression: Compression,
    /// Bytes of the table log that RocksDB gathers in memory before it writes a file of them.
    pub write_buffer_bytes: u64,
    /// Bytes of memory for blocks of data files; `None`: a share of the server's memory.
    pub block_cache_bytes: Option<u64>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { compression: Compression::default(), write_buffer_bytes: 8 * MIB, block_cache_bytes: None }
    }
}

impl Tuning {
    /// Bytes for the block cache, where storage has `memory` bytes in all.
    pub(crate) fn cache_bytes(&self, memory: u64) -> usize {
        let bytes = self.block_cache_bytes.unwrap_or_else(|| memory.saturating_sub(32 * MIB).max(8 * MIB));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Setting `rocksdb_compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Blocks as they are.
    None,
    /// Refused by a server that was built without it.
    Snappy,
    /// Quick.
    #[default]
    Lz4,
    /// Smaller, for more CPU.
    Zstd,
}

impl Compression {
    /// The value of the setting.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Compression::None),
            "snappy" => Ok(Compression::Snappy),
            "lz4" => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd),
            _ => {
                let message = format!("invalid value for parameter \"rocksdb_compression\": \"{text}\"");
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message).with_hint("Available values: lz4, snappy, zstd, none."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_settings_are_read() {
        assert_eq!(Compression::parse("ZSTD").unwrap(), Compression::Zstd);
        assert!(Compression::parse("gzip").unwrap_err().hint().unwrap().contains("lz4"));
        assert_eq!(Tuning::default().cache_bytes(0), 8 << 20);
        assert_eq!(Tuning { block_cache_bytes: Some(5), ..Tuning::default() }.cache_bytes(1 << 40), 5);
    }
}
