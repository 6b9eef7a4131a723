//! What is damaged is not restored, and what is whole is found.

use millpond_common::SqlState;

use super::support::*;
use crate::frame::Frame;
use crate::remote::manifest::{Manifest, ManifestName};
use crate::remote::{Cancel, RemoteStorage, Which};

const NEWEST: &str = "manifests/00000001-0000000002-00000000000000000020";

/// Two checkpoints, and the object that only the second one has.
fn two(place: &Place) -> (RemoteStorage, String) {
    let storage = place.open();
    let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
    upload(&storage, &claim, 1);
    let before = place.names("objects");
    upload(&storage, &claim, 2);
    let new = place.names("objects").into_iter().filter(|n| !before.contains(n)).collect::<Vec<_>>();
    assert_eq!(new.len(), 2);
    (storage, new[0].clone())
}

fn flip(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Some(bytes)
}

fn truncate(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    bytes.pop();
    Some(bytes)
}

#[test]
fn a_damaged_checkpoint_leads_to_the_one_before() {
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let changes: [(Change, &str); 3] =
        [(flip, "another content"), (truncate, "missing or has another size"), (|_| None, "missing or has another size")];
    for (change, expected) in changes {
        for place in Place::all() {
            let (storage, object) = two(&place);
            place.tamper(&object, change);
            let (restored, found) = restore(&storage, Which::Latest).unwrap();
            assert_eq!((restored.epoch, found), (10, database(1)));
            assert!(restored.warnings[0].contains("epoch 20") && restored.warnings[0].contains(expected), "{:?}", restored.warnings);
            // Nobody gets another epoch than the one that was asked for.
            assert_eq!(restore(&storage, Which::Epoch(20)).unwrap_err().state(), SqlState::DATA_CORRUPTED);
            assert_eq!(restore(&storage, Which::Epoch(10)).unwrap().1, database(1));
        }
    }
    for (change, expected) in [(flip as Change, "manifest is damaged"), (truncate, "manifest is damaged")] {
        for place in Place::all() {
            let (storage, _) = two(&place);
            place.tamper(NEWEST, change);
            let (restored, found) = restore(&storage, Which::Latest).unwrap();
            assert_eq!((restored.epoch, found), (10, database(1)));
            assert!(restored.warnings[0].contains(expected), "{:?}", restored.warnings);
            assert!(storage.list().unwrap()[0].damage.as_ref().unwrap().contains(expected));
        }
    }
}

#[test]
fn a_manifest_of_another_checkpoint_is_not_believed() {
    let place = Place::directory();
    let (storage, _) = two(&place);
    place.tamper(NEWEST, |_| Some(Manifest { epoch: 10, ..Default::default() }.encode().unwrap()));
    assert_eq!(restore(&storage, Which::Latest).unwrap().0.epoch, 10);
    assert!(storage.list().unwrap()[0].damage.is_some());
}

#[test]
fn if_nothing_is_whole_everything_is_said() {
    for place in Place::all() {
        let (storage, _) = two(&place);
        for object in place.names("objects") {
            place.tamper(&object, |_| None);
        }
        let error = restore(&storage, Which::Latest).unwrap_err();
        assert_eq!(error.state(), SqlState::DATA_CORRUPTED);
        assert!(error.detail().is_some_and(|d| d.contains("epoch 20") && d.contains("epoch 10")), "{error}");
    }
}

#[test]
fn what_a_later_version_wrote_is_not_skipped() {
    let place = Place::directory();
    let (storage, _) = two(&place);
    let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
    let later = ManifestName { generation: 2, sequence: 1, epoch: 30 };
    let bytes = Frame { magic: b"MPRM", version: 9, what: "" }.seal(&[]);
    storage.shared_put(&later.to_string(), bytes);
    for error in
        [restore(&storage, Which::Latest).unwrap_err(), storage.gc(&claim, 1, &Cancel::default()).unwrap_err(), storage.list().unwrap_err()]
    {
        assert!(error.message().contains("has format 9"), "{error}");
    }
    assert_eq!(restore(&storage, Which::Epoch(20)).unwrap().1, database(2));
}

#[test]
fn an_upload_replaces_what_was_lost() {
    for place in Place::all() {
        let (storage, object) = two(&place);
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        place.tamper(&object, |_| None);
        assert_eq!(upload(&storage, &claim, 3).files_sent, 2 + usize::from(object_is_sst(&object)));
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(3));
    }
}

/// Of the two objects of checkpoint 2, one is its file of rows, which the next checkpoint needs too.
fn object_is_sst(object: &str) -> bool {
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes(2, 2 * PART));
    object.ends_with(&digest.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

#[test]
fn damaged_checkpoints_do_not_count_as_kept() {
    for place in Place::all() {
        let (storage, object) = two(&place);
        place.tamper(&object, |_| None);
        let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
        storage.gc(&claim, 1, &Cancel::default()).unwrap();
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(1));
    }
}

#[test]
fn an_interrupted_restore_goes_on() {
    let place = Place::directory();
    let (storage, _) = two(&place);
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join("restored.restoring");
    std::fs::create_dir_all(partial.join("db")).unwrap();
    std::fs::write(partial.join("db/000001.sst"), &database(2)["db/000001.sst"]).unwrap(); // whole
    std::fs::write(partial.join("db/000002.sst"), vec![0; 2 * PART]).unwrap(); // the right size only
    std::fs::write(partial.join("db/000777.sst"), "of another checkpoint").unwrap();
    let into = dir.path().join("restored");
    let restored = storage.restore(Which::Latest, &into, &Cancel::default()).unwrap();
    assert_eq!((restored.files_resumed, tree(&into)), (1, database(2)));
}
