//! What every file and record of ours begins with: magic (4 bytes), version (u16), checksum of the rest (u64), all
//! little-endian. The FORMAT file, which came first, has a shape of its own.

use std::path::Path;

use millpond_common::hash::hash_bytes;
use millpond_common::{Error, Result, SqlState};

use crate::planted::planted;

/// One kind of file or record.
pub struct Frame {
    /// The first bytes.
    pub magic: &'static [u8; 4],
    /// The newest version that this program reads, and the one it writes.
    pub version: u16,
    /// What it is, for errors.
    pub what: &'static str,
}

impl Frame {
    /// The body with what goes before it.
    pub fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(14 + body.len());
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&hash_bytes(body).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// The body of what was sealed, if it is whole and of a known version.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| self.damaged())?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| self.damaged())?;
        let (checksum, body) = rest.split_first_chunk::<8>().ok_or_else(|| self.damaged())?;
        let version = u16::from_le_bytes(*version);
        if magic != self.magic || version == 0 {
            return Err(self.damaged());
        }
        if version > self.version {
            let message = format!("{} has format {version}, this program reads up to {}", self.what, self.version);
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_hint("Start it with the newer version of Millpond that wrote it."));
        }
        if u64::from_le_bytes(*checksum) == hash_bytes(body) || planted("checksum-ignored") { Ok(body) } else { Err(self.damaged()) }
    }

    /// The body of a file. Errors name it.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let named = |e: Error| e.with_detail(format!("The file is \"{}\".", path.display()));
        let bytes = std::fs::read(path).map_err(|e| named(e.into()))?;
        self.open(&bytes).map(<[u8]>::to_vec).map_err(named)
    }

    /// It is not what was sealed.
    pub fn damaged(&self) -> Error {
        Error::new(SqlState::DATA_CORRUPTED, format!("{} is damaged", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: Frame = Frame { magic: b"NOTE", version: 2, what: "the note" };

    #[test]
    fn a_body_survives_and_damage_is_found() {
        let good = NOTE.seal(b"some text");
        assert_eq!(NOTE.open(&good).unwrap(), b"some text");
        for i in 0..good.len() {
            assert_eq!(NOTE.open(&good[..i]).unwrap_err().state(), SqlState::DATA_CORRUPTED);
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[i] ^= 1 << bit;
                match NOTE.open(&bad) {
                    Ok(body) => assert!(i == 4 && body == b"some text", "byte {i}, bit {bit}: version 1 wrote the same"),
                    Err(error) => assert!(error.message().starts_with("the note "), "{error}"),
                }
            }
        }
        let future = Frame { version: 3, ..NOTE }.seal(b"");
        assert!(NOTE.open(&future).unwrap_err().message().contains("format 3"));
    }
}
