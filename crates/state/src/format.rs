//! The bytes on disk: the FORMAT file, the keys of both column families, the checkpoint record.
//!
//! Data family: `id u32 BE | virtual node u8 | key`. A relation with a key stores its value columns as an encoded row;
//! one without a key has the whole row as its key and a weight (i64 LE, summed by the merge operator) as its value; one that
//! only grows has columns of blocks of rows ([`appended`](crate::appended)), with a lane in place of the virtual node.
//! One key stands outside, above all ids: [`MARKER_KEY`], the number of the last checkpoint whose file was ingested.
//!
//! Log family: one letter, then what it says: `c` catalog record, `d` a number whose data is to be deleted, `k` the
//! checkpoint record, `l` an entry of the table log.

use millpond_common::hash::hash_bytes;
use millpond_common::{Epoch, Error, Result, SqlState};
use serde::{Deserialize, Serialize};

use crate::frame::Frame;

const FORMAT_MAGIC: &[u8; 8] = b"MILLPOND";
/// The newest data format that this program reads, and the one it writes. It reads all before it, and makes a directory that it opens one of this
/// version. 2: relations that only grow are stored by column, in blocks. 3: rows of new joins are numbered.
const FORMAT_VERSION: u32 = 3;

const RECORD: Frame = Frame { magic: b"MPCK", version: 1, what: "the checkpoint record" };

/// Where the data family says which checkpoint was ingested last. No id reaches `u32::MAX`.
pub(crate) const MARKER_KEY: &[u8] = b"\xff\xff\xff\xffcheckpoint";

pub(crate) const CHECKPOINT_KEY: &[u8] = b"k";

/// What the FORMAT file says.
pub(crate) fn format_file() -> Vec<u8> {
    let mut bytes = FORMAT_MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let checksum = hash_bytes(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The version of a data directory with this FORMAT file, if this program can read it.
pub(crate) fn check_format_file(bytes: &[u8]) -> Result<u32> {
    let damaged = || Error::new(SqlState::DATA_CORRUPTED, "the data directory's FORMAT file is damaged");
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let checksum = rest.try_into().map(u64::from_le_bytes).map_err(|_| damaged())?;
    if magic != FORMAT_MAGIC || Some(checksum) != bytes.get(..12).map(hash_bytes) {
        return Err(damaged());
    }
    let version = u32::from_le_bytes(*version);
    if version > FORMAT_VERSION {
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the data directory has format {version}, this program reads up to {FORMAT_VERSION}"),
        )
        .with_hint("Start it with the newer version of Millpond that wrote it."));
    }
    Ok(version)
}

/// Whether a directory of this version is as this program writes it.
pub(crate) fn is_current(version: u32) -> bool {
    version == FORMAT_VERSION
}

/// The part of a data key that says whose it is.
#[inline]
pub(crate) fn id_prefix(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

/// The first key of a virtual node; with 256, the end of the id's keys.
pub(crate) fn vnode_bound(id: u32, vnode: usize) -> Vec<u8> {
    match u8::try_from(vnode) {
        Ok(vnode) => [&id.to_be_bytes()[..], &[vnode]].concat(),
        Err(_) => (id.saturating_add(1)).to_be_bytes().to_vec(),
    }
}

pub(crate) fn catalog_key(key: &[u8]) -> Vec<u8> {
    [b"c", key].concat()
}

pub(crate) fn drop_key(id: u32) -> Vec<u8> {
    [&b"d"[..], &id.to_be_bytes()].concat()
}

pub(crate) fn log_key(seq: u64) -> Vec<u8> {
    [&b"l"[..], &seq.to_be_bytes()].concat()
}

/// A key of the log family, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LogFamilyKey<'a> {
    Catalog(&'a [u8]),
    Drop(u32),
    Checkpoint,
    Entry(u64),
}

impl<'a> LogFamilyKey<'a> {
    pub(crate) fn parse(key: &'a [u8]) -> Option<Self> {
        let (letter, rest) = key.split_first()?;
        match letter {
            b'c' => Some(LogFamilyKey::Catalog(rest)),
            b'd' => rest.try_into().ok().map(|id| LogFamilyKey::Drop(u32::from_be_bytes(id))),
            b'k' if rest.is_empty() => Some(LogFamilyKey::Checkpoint),
            b'l' => rest.try_into().ok().map(|seq| LogFamilyKey::Entry(u64::from_be_bytes(seq))),
            _ => None,
        }
    }
}

/// What makes a checkpoint complete: once this is synced, the checkpoint counts, and start-up finishes what is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointRecord {
    /// Counts commits, from 1.
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    /// Entries of the table log up to this one are contained.
    pub(crate) log_seq: u64,
    /// Files in the staging directory, sorted; empty if nothing had changed.
    pub(crate) files: Vec<String>,
    /// How many rows each relation has.
    pub(crate) rows: Vec<(u32, i64)>,
    /// The engine's part.
    pub(crate) meta: Vec<u8>,
}

impl CheckpointRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        Ok(RECORD.seal(&bincode::serialize(self)?))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        bincode::deserialize(RECORD.open(bytes)?).map_err(|_| RECORD.damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_file_is_checked() {
        let good = format_file();
        assert!(check_format_file(&good).is_ok());
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert!(check_format_file(&bad).is_err(), "flipped byte {i}");
            assert!(check_format_file(&good[..i]).is_err());
        }
        let mut future = b"MILLPOND\x09\0\0\0".to_vec();
        future.extend_from_slice(&hash_bytes(&future).to_le_bytes());
        let error = check_format_file(&future).unwrap_err();
        assert!(error.message().contains("format 9"), "{error}");
    }

    fn record() -> CheckpointRecord {
        CheckpointRecord { number: 3, epoch: 77, log_seq: 5, files: vec!["00000003-0.sst".into()], rows: vec![(1, 10)], meta: vec![1, 2] }
    }

    #[test]
    fn record_survives_and_damage_is_found() {
        let good = record().encode().unwrap();
        assert_eq!(CheckpointRecord::decode(&good).unwrap(), record());
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(CheckpointRecord::decode(&bad).is_err(), "flipped byte {i}");
            assert!(CheckpointRecord::decode(&good[..i]).is_err());
        }
    }

    /// These bytes are version 1 of the format: they must stay readable.
    #[test]
    fn record_of_version_1_is_read() {
        let hex = record().encode().unwrap().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex, GOLDEN);
    }
    const GOLDEN: &str = concat!(
        "4d50434b01008eb33c1baefb3ab903000000000000004d00000000000000050000000000000001000000000000000e00000000000000",
        "30303030303030332d302e7373740100000000000000010000000a0000000000000002000000000000000102",
    );

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(LogFamilyKey::parse(&catalog_key(b"view")), Some(LogFamilyKey::Catalog(b"view")));
        assert_eq!(LogFamilyKey::parse(&drop_key(7)), Some(LogFamilyKey::Drop(7)));
        assert_eq!(LogFamilyKey::parse(CHECKPOINT_KEY), Some(LogFamilyKey::Checkpoint));
        assert_eq!(LogFamilyKey::parse(&log_key(1 << 40)), Some(LogFamilyKey::Entry(1 << 40)));
        assert_eq!(LogFamilyKey::parse(b"l123"), None);
        assert_eq!(LogFamilyKey::parse(b""), None);
        assert!(vnode_bound(3, 255) < vnode_bound(3, 256) && vnode_bound(3, 256) < vnode_bound(4, 0));
        assert!(vnode_bound(u32::MAX - 1, 256).as_slice() <= MARKER_KEY);
    }
}
