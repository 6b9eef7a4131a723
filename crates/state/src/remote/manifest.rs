//! What a checkpoint consists of, as bytes; and the names under which things lie in the storage.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use millpond_common::{Epoch, Result};
use serde::{Deserialize, Serialize};

use super::digest::{Digest, hex};
use crate::frame::Frame;

pub(super) const MANIFESTS: &str = "manifests";
pub(super) const OBJECTS: &str = "objects";
pub(super) const CLAIMS: &str = "claims";

const FRAME: Frame = Frame { magic: b"MPRM", version: 1, what: "a checkpoint's manifest" };

/// A manifest's place in the order of all: whoever claims later has a higher generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ManifestName {
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MANIFESTS}/{:08}-{:010}-{:020}", self.generation, self.sequence, self.epoch)
    }
}

impl FromStr for ManifestName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix(MANIFESTS).and_then(|t| t.strip_prefix('/')).ok_or(())?;
        let mut numbers = text.split('-').map(|n| n.parse::<u64>().map_err(|_| ()));
        let mut next = || numbers.next().ok_or(())?;
        let name = ManifestName { generation: next()?, sequence: next()?, epoch: next()? };
        if numbers.next().is_some() { Err(()) } else { Ok(name) }
    }
}

/// The name of the object that this generation writes for this content.
pub(super) fn object_name(generation: u64, digest: &Digest) -> String {
    format!("{OBJECTS}/{generation:08}/{}", hex(digest))
}

/// Under which claim an object was written; `None`: it is none of ours.
pub(super) fn object_generation(name: &str) -> Option<u64> {
    let (generation, digest) = name.strip_prefix(OBJECTS)?.strip_prefix('/')?.split_once('/')?;
    let ours = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    generation.parse().ok().filter(|_| ours)
}

/// Under which claim an object or a manifest was written.
pub(super) fn written_under(name: &str) -> Option<u64> {
    object_generation(name).or_else(|| name.parse::<ManifestName>().ok().map(|n| n.generation))
}

/// A checkpoint: its files, and where their content is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The identity of the database.
    pub(super) database: String,
    pub(super) epoch: Epoch,
    /// Milliseconds since 1970.
    pub(super) created_ms: u64,
    pub(super) files: Vec<FileEntry>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Path in the checkpoint's directory.
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
    pub(super) object: String,
}

impl Manifest {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        Ok(FRAME.seal(&bincode::serialize(self)?))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest: Manifest = bincode::deserialize(FRAME.open(bytes)?).map_err(|_| FRAME.damaged())?;
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            // It came over a network: it must not make us write elsewhere.
            let mut parts = Path::new(&file.name).components();
            let inside = !file.name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)));
            if !inside || !names.insert(&file.name) || object_generation(&file.object).is_none() {
                return Err(FRAME.damaged().with_detail(format!("It names the file \"{}\".", file.name.escape_default())));
            }
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use millpond_common::SqlState;

    use super::*;

    fn manifest() -> Manifest {
        let object = object_name(2, &[0xab; 32]);
        let file = FileEntry { name: "db/000012.sst".into(), size: 77, digest: [0xab; 32], object };
        Manifest { database: "d".into(), epoch: 5, created_ms: 1000, files: vec![file] }
    }

    #[test]
    fn survives_and_damage_is_found() {
        let good = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(&good).unwrap(), manifest());
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(Manifest::decode(&bad).is_err(), "flipped byte {i}");
            assert!(Manifest::decode(&good[..i]).is_err());
        }
        let future = Frame { version: 2, ..FRAME }.seal(&[]);
        assert_eq!(Manifest::decode(&future).unwrap_err().state(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    }

    /// These bytes are version 1 of the format: they must stay readable.
    #[test]
    fn version_1_is_read() {
        let encoded = manifest().encode().unwrap();
        assert_eq!(encoded.iter().map(|b| format!("{b:02x}")).collect::<String>(), GOLDEN);
    }
    const GOLDEN: &str = concat!(
        "4d50524d010005abfee6390278790100000000000000640500000000000000e80300000000000001000000000000000d0000000000000064622f",
        "3030303031322e7373744d00000000000000abababababababababababababababababababababababababababababababab5100000000000000",
        "6f626a656374732f30303030303030322f6162616261626162616261626162616261626162616261626162616261626162616261626162616261",
        "6261626162616261626162616261626162616261626162",
    );

    #[test]
    fn stays_in_its_directory() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", ".", "a/./b/.."] {
            let mut bad = manifest();
            bad.files[0].name = name.into();
            assert!(Manifest::decode(&bad.encode().unwrap()).is_err(), "{name}");
        }
        let mut twice = manifest();
        twice.files.push(twice.files[0].clone());
        assert!(Manifest::decode(&twice.encode().unwrap()).is_err());
        let mut elsewhere = manifest();
        elsewhere.files[0].object = "claims/00000001".into();
        assert!(Manifest::decode(&elsewhere.encode().unwrap()).is_err());
    }

    #[test]
    fn names_are_in_order() {
        let name = ManifestName { generation: 3, sequence: 12, epoch: 345 };
        assert_eq!(name.to_string(), "manifests/00000003-0000000012-00000000000000000345");
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in ["manifests/3-1", "manifests/3-1-2-3", "objects/3-1-2", "manifests/a-1-2", "manifests"] {
            assert_eq!(text.parse::<ManifestName>(), Err(()), "{text}");
        }
        let later = ManifestName { generation: 4, sequence: 1, epoch: 300 };
        assert!(name < later && name.to_string() < later.to_string());
        assert_eq!(object_generation(&object_name(7, &[1; 32])), Some(7));
        assert_eq!(object_generation("objects/00000007/readme"), None);
        assert_eq!(object_generation("manifests/1-1-1"), None);
        assert_eq!((written_under("manifests/4-1-1"), written_under("claims/4")), (Some(4), None));
    }
}
