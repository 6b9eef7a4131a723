//! What the tests share: directories to upload, places to upload them to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::s3::Server;
use crate::remote::{Cancel, RemoteOptions, RemoteStorage, Restored, Uploaded, Which};

/// Files larger than this travel in parts.
pub(super) const PART: usize = 1000;

/// Names and contents of a directory's files.
pub(super) type Tree = BTreeMap<String, Vec<u8>>;

/// Where checkpoints go.
pub(super) enum Place {
    Directory(tempfile::TempDir),
    Server(Server),
}

impl Place {
    pub(super) fn directory() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        Place::Directory(dir)
    }

    /// One of each kind.
    pub(super) fn all() -> [Place; 3] {
        [Place::directory(), Place::Server(Server::of("s3")), Place::Server(Server::of("gs"))]
    }

    pub(super) fn open(&self) -> RemoteStorage {
        match self {
            Place::Directory(dir) => RemoteStorage::open(&format!("file://{}/a/b", dir.path().display()), options(None)).unwrap(),
            Place::Server(server) => server.open(),
        }
    }

    /// The names of all objects that begin so, relative to the URL.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let names = match self {
            Place::Directory(dir) => tree(&dir.path().join("a/b")).into_keys().collect::<Vec<_>>(),
            Place::Server(server) => server.objects().into_keys().map(|n| n.strip_prefix("a/b/").unwrap().to_owned()).collect(),
        };
        names.into_iter().filter(|n| n.starts_with(prefix)).collect()
    }

    /// Replaces an object behind everybody's back; `None` deletes it.
    pub(super) fn tamper(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        match self {
            Place::Directory(dir) => {
                let path = dir.path().join("a/b").join(name);
                match change(fs::read(&path).unwrap()) {
                    Some(bytes) => fs::write(path, bytes).unwrap(),
                    None => fs::remove_file(path).unwrap(),
                }
            }
            Place::Server(server) => server.tamper(&format!("a/b/{name}"), change),
        }
    }
}

pub(super) fn options(endpoint: Option<&str>) -> RemoteOptions {
    let mut config = vec![("aws_access_key_id", "testkey"), ("aws_secret_access_key", "testsecret"), ("aws_region", "test")];
    config.extend(endpoint.map(|e| ("aws_endpoint", e)));
    with_config(&config)
}

pub(super) fn google_options(endpoint: &str) -> RemoteOptions {
    let key = r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#;
    with_config(&[("google_service_account_key", key), ("google_base_url", endpoint)])
}

fn with_config(config: &[(&str, &str)]) -> RemoteOptions {
    RemoteOptions {
        config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        parallelism: 3,
        part_bytes: PART,
        request_timeout: Duration::from_millis(700),
        retry_timeout: Duration::from_millis(600),
        retry_pause: Duration::from_millis(5),
    }
}

/// Bytes that differ from other seeds'.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| millpond_common::hash::mix(seed << 32 | i) as u8).collect()
}

/// What a database looks like after some checkpoints: two old files, one for each, one that changes.
pub(super) fn database(checkpoint: u64) -> Tree {
    let mut tree = Tree::from([
        ("FORMAT".to_owned(), b"format".to_vec()),
        ("empty".to_owned(), vec![]),
        ("db/000001.sst".to_owned(), bytes(1, 10 * PART + 1)),
        ("db/CURRENT".to_owned(), format!("MANIFEST-{checkpoint}").into_bytes()),
    ]);
    for n in 2..=checkpoint {
        tree.insert(format!("db/{n:06}.sst"), bytes(n, 2 * PART));
    }
    tree
}

/// A directory with these files.
pub(super) fn plant(tree: &Tree) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in tree {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// All files below a directory.
pub(super) fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                tree.insert(name, fs::read(path).unwrap());
            }
        }
    }
    tree
}

/// Uploads the database as it is after a checkpoint, whose epoch is ten times its number.
pub(super) fn upload(storage: &RemoteStorage, claim: &crate::remote::Claim, checkpoint: u64) -> Uploaded {
    let dir = plant(&database(checkpoint));
    storage.upload(claim, dir.path(), checkpoint * 10, &Cancel::default()).unwrap()
}

/// Restores a checkpoint, and gives the directory's content.
pub(super) fn restore(storage: &RemoteStorage, which: Which) -> millpond_common::Result<(Restored, Tree)> {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("restored");
    let restored = storage.restore(which, &into, &Cancel::default())?;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    Ok((restored, tree(&into)))
}
