//! Up and down again, who may write, what is deleted.

use millpond_common::SqlState;

use super::s3::Server;
use super::support::*;
use crate::remote::manifest::{Manifest, ManifestName};
use crate::remote::{Cancel, Which};

#[test]
fn what_goes_up_comes_down_again() {
    for place in Place::all() {
        let storage = place.open();
        assert_eq!(storage.list().unwrap(), []);
        assert_eq!(restore(&storage, Which::Latest).unwrap_err().state(), SqlState::UNDEFINED_OBJECT);
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        let first = upload(&storage, &claim, 1);
        assert_eq!((first.files, first.files_sent, first.bytes), (4, 4, 10_017));
        let second = upload(&storage, &claim, 2);
        assert_eq!((second.files, second.files_sent), (5, 2), "only the new file, and the changed one");
        assert_eq!(second.bytes_sent, 2010);

        let (restored, found) = restore(&storage, Which::Latest).unwrap();
        assert_eq!(found, database(2));
        assert_eq!((restored.epoch, restored.files, restored.bytes, restored.database.as_str()), (20, 5, second.bytes, "db"));
        assert!(restored.warnings.is_empty());
        assert_eq!(restore(&storage, Which::Epoch(10)).unwrap().1, database(1));
        let error = restore(&storage, Which::Epoch(15)).unwrap_err();
        assert!(error.message().contains("no checkpoint of epoch 15"), "{error}");

        let list = storage.list().unwrap();
        assert_eq!(list.iter().map(|c| (c.epoch, c.files, c.bytes)).collect::<Vec<_>>(), [(20, 5, second.bytes), (10, 4, first.bytes)]);
        assert!(list.iter().all(|c| c.damage.is_none() && c.created.is_some() && c.generation == 1));
    }
}

#[test]
fn an_unchanged_checkpoint_is_not_written_again() {
    for place in Place::all() {
        let storage = place.open();
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        upload(&storage, &claim, 3);
        assert_eq!(upload(&storage, &claim, 3).files_sent, 0);
        assert_eq!(place.names("manifests").len(), 1);
        // The same epoch with other files: the table log went on.
        let mut tree = database(3);
        tree.insert("db/000009.log".into(), b"entry".to_vec());
        let sent = storage.upload(&claim, plant(&tree).path(), 30, &Cancel::default()).unwrap();
        assert_eq!(sent.files_sent, 1);
        assert_eq!(restore(&storage, Which::Epoch(30)).unwrap().1, tree);
    }
}

#[test]
fn the_newest_checkpoints_are_kept() {
    for place in Place::all() {
        let storage = place.open();
        storage.claim(Some("db"), &Cancel::default()).unwrap();
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        for n in 1..=4 {
            upload(&storage, &claim, n);
        }
        let collected = storage.gc(&claim, 2, &Cancel::default()).unwrap();
        // What checkpoints 1 and 2 alone needed is their CURRENT.
        assert_eq!((collected.manifests, collected.objects, collected.bytes), (2, 2, 20));
        assert_eq!(storage.list().unwrap().iter().map(|c| c.epoch).collect::<Vec<_>>(), [40, 30]);
        assert_eq!(place.names("claims"), ["claims/00000002"]);
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(4));
        assert_eq!(restore(&storage, Which::Epoch(30)).unwrap().1, database(3));
        assert_eq!(storage.gc(&claim, 2, &Cancel::default()).unwrap(), Default::default());
        // Files that the database has merged leave when their last checkpoint does.
        let mut tree = database(1);
        tree.insert("db/000099.sst".into(), bytes(99, 50));
        storage.upload(&claim, plant(&tree).path(), 50, &Cancel::default()).unwrap();
        assert_eq!(storage.gc(&claim, 1, &Cancel::default()).unwrap().manifests, 2);
        assert_eq!(place.names("objects").len(), tree.len());
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, tree);
    }
}

#[test]
fn a_displaced_server_notices_and_does_no_harm() {
    for place in Place::all() {
        let (old, new) = (place.open(), place.open());
        let old_claim = old.claim(Some("db"), &Cancel::default()).unwrap();
        upload(&old, &old_claim, 1);
        let new_claim = new.claim(None, &Cancel::default()).unwrap();
        assert_eq!((new_claim.database(), new_claim.generation()), ("db", 2));
        // The old one had already looked who owns the storage, and publishes: it is there, but older than all that follows.
        let late = ManifestName { generation: 1, sequence: 2, epoch: 9999 };
        old.shared_put(&late.to_string(), Manifest { epoch: 9999, ..Default::default() }.encode().unwrap());
        upload(&new, &new_claim, 2);

        for error in [
            old.upload(&old_claim, plant(&database(3)).path(), 30, &Cancel::default()).unwrap_err(),
            old.gc(&old_claim, 1, &Cancel::default()).unwrap_err(),
        ] {
            assert!(error.message().contains("another server has taken over"), "{error}");
            assert!(error.detail().unwrap().contains(&std::process::id().to_string()), "{error}");
        }
        let (restored, found) = restore(&old, Which::Latest).unwrap();
        assert_eq!((restored.epoch, found), (20, database(2)));
    }
}

#[test]
fn a_new_owner_reuses_what_is_there() {
    for place in Place::all() {
        let (old, new) = (place.open(), place.open());
        upload(&old, &old.claim(Some("db"), &Cancel::default()).unwrap(), 3);
        let claim = new.claim(Some("db"), &Cancel::default()).unwrap();
        assert_eq!(upload(&new, &claim, 4).files_sent, 2);
        assert_eq!(restore(&new, Which::Latest).unwrap().1, database(4));
        new.gc(&claim, 1, &Cancel::default()).unwrap();
        assert_eq!(restore(&new, Which::Latest).unwrap().1, database(4));
    }
}

#[test]
fn databases_do_not_share_a_place() {
    for place in Place::all() {
        let storage = place.open();
        storage.claim(Some("one"), &Cancel::default()).unwrap();
        let error = storage.claim(Some("two"), &Cancel::default()).unwrap_err();
        assert!(error.message().contains("belongs to another database"), "{error}");
        assert_eq!(storage.claim(None, &Cancel::default()).unwrap().database(), "one");
    }
    let place = Place::directory();
    let fresh = place.open().claim(None, &Cancel::default()).unwrap();
    assert_eq!(fresh.database().len(), 32, "nobody was here: a new identity");
}

#[test]
fn a_storage_without_conditional_writes_is_refused() {
    let server = Server::start();
    server.ignore_conditions();
    let error = server.open().claim(Some("db"), &Cancel::default()).unwrap_err();
    assert!(error.message().contains("ignores conditional writes"), "{error}");
}

#[test]
fn large_files_travel_in_parts() {
    let server = Server::start();
    let storage = server.open();
    let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
    server.take_log();
    upload(&storage, &claim, 1);
    let log = server.take_log();
    let posts = log.iter().filter(|(method, _)| method == "POST").count();
    let puts = log.iter().filter(|(method, _)| method == "PUT").count();
    // One file has 11 parts: begun, completed; the three others and the manifest are one put each.
    assert_eq!((posts, puts, server.unfinished_uploads()), (2, 11 + 3 + 1, 0));
}

#[test]
fn a_restore_needs_an_empty_directory() {
    let place = Place::directory();
    let storage = place.open();
    upload(&storage, &storage.claim(Some("db"), &Cancel::default()).unwrap(), 1);
    let dir = tempfile::tempdir().unwrap();
    let (full, empty) = (dir.path().join("full"), dir.path().join("empty"));
    std::fs::create_dir(&full).unwrap();
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(full.join("letter.txt"), "dear").unwrap();
    let error = storage.restore(Which::Latest, &full, &Cancel::default()).unwrap_err();
    assert!(error.message().contains("it is not empty"), "{error}");
    assert_eq!(tree(&full).len(), 1);
    storage.restore(Which::Latest, &empty, &Cancel::default()).unwrap();
    assert_eq!(tree(&empty), database(1));
}
