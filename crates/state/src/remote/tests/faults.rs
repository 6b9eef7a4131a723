//! An object store that is slow, refuses, dies and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use millpond_common::{Error, SqlState};

use super::s3::{Fault, Server};
use super::support::*;
use crate::remote::{Cancel, Claim, RemoteStorage, Which};

/// A server with one checkpoint.
fn one() -> (Server, RemoteStorage, Claim) {
    let server = Server::start();
    let storage = server.open();
    let claim = storage.claim(Some("db"), &Cancel::default()).unwrap();
    upload(&storage, &claim, 1);
    server.take_log();
    (server, storage, claim)
}

fn try_upload(storage: &RemoteStorage, claim: &Claim, checkpoint: u64) -> Result<crate::remote::Uploaded, Error> {
    storage.upload(claim, plant(&database(checkpoint)).path(), checkpoint * 10, &Cancel::default())
}

/// Every other request fails.
fn every_other(fault: Fault) -> impl FnMut(&Method, &str) -> Option<Fault> + Send + 'static {
    let mut count = 0;
    move |_, _| {
        count += 1;
        (count % 2 == 1).then_some(fault)
    }
}

#[test]
fn passing_failures_are_overcome() {
    for fault in [
        Fault::Status(503),
        Fault::Status(500),
        Fault::Status(429),
        Fault::Close,
        Fault::LoseAnswer,
        Fault::Delay(Duration::from_millis(50)),
    ] {
        let (server, storage, claim) = one();
        server.faults(every_other(fault));
        let uploaded = match try_upload(&storage, &claim, 3) {
            // Not all requests may be repeated without knowing what became of them; then the next upload goes on.
            Err(error) if matches!(fault, Fault::Close | Fault::LoseAnswer) => {
                assert_eq!(error.state(), SqlState::IO_ERROR, "{error}");
                server.no_faults();
                try_upload(&storage, &claim, 3).unwrap()
            }
            result => result.unwrap(),
        };
        assert_eq!(uploaded.files, 6, "{fault:?}");
        server.no_faults();
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(3), "{fault:?}");
        server.faults(every_other(fault));
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(3), "{fault:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let (server, storage, _) = one();
    let mut broken = 0;
    server.faults(move |method, key| {
        let object = *method == Method::GET && key.contains("objects/");
        broken += usize::from(object);
        (object && broken % 3 == 0).then_some(Fault::Truncate)
    });
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(1));
}

#[test]
fn a_manifest_whose_answer_is_lost_counts_once() {
    let (server, storage, claim) = one();
    let mut lost = false;
    server.faults(move |method, key| {
        let first = *method == Method::PUT && key.contains("manifests/") && !std::mem::replace(&mut lost, true);
        first.then_some(Fault::LoseAnswer)
    });
    // Whether the client repeats the put or gives up, the next upload finds the checkpoint.
    let first = try_upload(&storage, &claim, 2);
    server.no_faults();
    assert!(first.as_ref().map_or_else(|e| e.state() == SqlState::IO_ERROR, |u| u.epoch == 20), "{first:?}");
    let second = try_upload(&storage, &claim, 2).unwrap();
    assert_eq!(second.files_sent, 0);
    assert_eq!(storage.list().unwrap().iter().map(|c| c.epoch).collect::<Vec<_>>(), [20, 10]);
}

#[test]
fn a_server_that_stays_away_is_an_error_and_no_reason_for_an_old_checkpoint() {
    let (mut server, storage, claim) = one();
    upload(&storage, &claim, 2);
    for fault in [Fault::Status(503), Fault::Close, Fault::Delay(Duration::from_secs(60))] {
        let newest = move |_: &Method, key: &str| key.contains("manifests/00000001-0000000002").then_some(fault);
        server.faults(newest);
        let started = Instant::now();
        let error = restore(&storage, Which::Latest).unwrap_err();
        assert_eq!(error.state(), SqlState::IO_ERROR, "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        server.faults(move |_, _| Some(fault));
        assert_eq!(try_upload(&storage, &claim, 3).unwrap_err().state(), SqlState::IO_ERROR);
    }
    server.no_faults();
    server.stop();
    assert_eq!(restore(&storage, Which::Latest).unwrap_err().state(), SqlState::IO_ERROR);
    assert_eq!(try_upload(&storage, &claim, 3).unwrap_err().state(), SqlState::IO_ERROR);
    assert_eq!(storage.list().unwrap_err().state(), SqlState::IO_ERROR);
    server.listen();
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(2));
    upload(&storage, &claim, 3);
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(3));
}

#[test]
fn what_was_sent_before_a_failure_is_not_sent_again() {
    let (server, storage, claim) = one();
    for die_at in [0, 1, 3, 5, 8] {
        // The server dies for good at the n-th write of the upload.
        let checkpoint = 10 + 5 * die_at as u64;
        let (mut writes, mut dead) = (0, false);
        server.faults(move |method, _| {
            writes += usize::from(*method == Method::PUT);
            dead |= *method == Method::PUT && writes > die_at;
            dead.then_some(Fault::Status(503))
        });
        assert!(try_upload(&storage, &claim, checkpoint).is_err());
        let (restored, found) = restore_after(&server, &storage);
        assert_eq!(found, database(restored / 10), "the checkpoint before is whole");
        assert!(restored < checkpoint * 10);
        let sent_before = sent(&server);
        server.take_log();
        assert_eq!(try_upload(&storage, &claim, checkpoint).unwrap().epoch, checkpoint * 10);
        assert!(sent(&server).iter().all(|key| !sent_before.contains(key)));
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(checkpoint));
        // What is left of unfinished parts was taken away as far as the server could be reached.
        storage.gc(&claim, 1, &Cancel::default()).unwrap();
        assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(checkpoint));
        server.take_log();
    }
}

/// The newest checkpoint, once the server is well again.
fn restore_after(server: &Server, storage: &RemoteStorage) -> (u64, Tree) {
    server.no_faults();
    let (restored, found) = restore(storage, Which::Latest).unwrap();
    (restored.epoch, found)
}

/// Objects that were written whole, as the server's log has it.
fn sent(server: &Server) -> Vec<String> {
    let log = server.take_log();
    let objects = server.objects();
    // Parts and whole objects are both puts; only what is there counts as sent.
    log.into_iter().filter(|(m, k)| *m == Method::PUT && k.contains("/objects/") && objects.contains_key(k)).map(|(_, k)| k).collect()
}

#[test]
fn failed_parts_are_taken_away() {
    let (server, storage, claim) = one();
    let mut tree = database(1);
    tree.insert("db/000050.sst".into(), bytes(50, 20 * PART));
    let mut parts = 0;
    server.faults(move |method, key| {
        parts += usize::from(*method == Method::PUT && key.contains("/objects/"));
        (*method == Method::PUT && parts > 5).then_some(Fault::Status(403))
    });
    let error = storage.upload(&claim, plant(&tree).path(), 50, &Cancel::default()).unwrap_err();
    assert_eq!(error.state(), SqlState::IO_ERROR);
    assert!(error.hint().is_some_and(|h| h.contains("keys")), "{error}");
    assert_eq!(server.unfinished_uploads(), 0);
    let text = error.to_string();
    assert!(!text.contains("testkey") && text.contains("Injected"), "{text}");
}

#[test]
fn wrong_keys_are_said_without_repeating_them() {
    let server = Server::start();
    let mut options = options(None);
    options.config = vec![("aws_access_key_id".into(), "wrongkey".into()), ("aws_secret_access_key".into(), "wrongsecret".into())];
    options.config.push(("aws_endpoint".into(), server.endpoint()));
    let storage = RemoteStorage::open("s3://bucket/a/b", options).unwrap();
    let error = storage.list().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("InvalidAccessKeyId") && error.hint().is_some(), "{text}");
    assert!(!text.contains("testkey") && !text.contains("wrongkey") && !text.contains("wrongsecret"), "{text}");
}

#[test]
fn a_transfer_can_be_stopped() {
    let (server, storage, claim) = one();
    for restoring in [false, true] {
        let reached = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reached);
        server.faults(move |_, key| {
            let object = key.contains("/objects/");
            counter.fetch_add(usize::from(object), Ordering::SeqCst);
            object.then_some(Fault::Delay(Duration::from_secs(60)))
        });
        let cancel = Cancel::default();
        let canceller = {
            let cancel = cancel.clone();
            std::thread::spawn(move || {
                while reached.load(Ordering::SeqCst) == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                cancel.cancel();
                Instant::now()
            })
        };
        let dir = tempfile::tempdir().unwrap();
        let error = if restoring {
            storage.restore(Which::Latest, &dir.path().join("x"), &cancel).unwrap_err()
        } else {
            storage.upload(&claim, plant(&database(5)).path(), 50, &cancel).unwrap_err()
        };
        assert_eq!(error.state(), SqlState::QUERY_CANCELED);
        assert!(canceller.join().unwrap().elapsed() < Duration::from_millis(500));
    }
    server.no_faults();
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(1));
    upload(&storage, &claim, 5);
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(5));
}
