//! The thread that uploads regularly.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_common::{Epoch, Error};

use super::s3::{Fault, Server};
use super::support::*;
use crate::remote::uploader::CheckpointCopy;
use crate::remote::{Cancel, Uploader, UploaderOptions, UploaderStatus, Which};

struct Planted(tempfile::TempDir, u64);

impl CheckpointCopy for Planted {
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn epoch(&self) -> Epoch {
        self.1 * 10
    }

    fn version(&self) -> u64 {
        self.1
    }
}

fn wait(uploader: &Uploader, what: impl Fn(&UploaderStatus) -> bool) -> UploaderStatus {
    let started = Instant::now();
    loop {
        let status = uploader.status();
        if what(&status) {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn uploads_go_on_after_failures_and_end_with_the_claim() {
    let server = Server::start();
    let storage = Arc::new(server.open());
    let checkpoint = Arc::new(AtomicU64::new(0));
    let newest = Arc::clone(&checkpoint);
    // 0: there is no checkpoint yet; 13 is bad luck.
    let copy = move |version| match newest.load(Ordering::SeqCst) {
        0 => Ok(None),
        n if version == Some(n) => Ok(None),
        13 => Err(Error::internal("no copy")),
        n => Ok(Some(Planted(plant(&database(n)), n))),
    };
    let options = UploaderOptions { interval: Duration::from_millis(30), keep: 2 };
    let uploader = Uploader::start(Arc::clone(&storage), "db".into(), options, copy).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((uploader.status().completed, uploader.status().failed), (0, 0));

    for n in 1..=4 {
        checkpoint.store(n, Ordering::SeqCst);
        wait(&uploader, |s| s.last.is_some_and(|(u, _)| u.epoch == n * 10));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(uploader.status().completed, 4, "what is there is not uploaded again");
    checkpoint.store(13, Ordering::SeqCst);
    assert_eq!(wait(&uploader, |s| s.failed > 1).error.unwrap().message(), "no copy");
    checkpoint.store(5, Ordering::SeqCst);
    assert!(wait(&uploader, |s| s.last.is_some_and(|(u, _)| u.epoch == 50)).error.is_none());

    server.faults(|_, _| Some(Fault::Status(503)));
    checkpoint.store(7, Ordering::SeqCst);
    let failed = uploader.status().failed;
    wait(&uploader, |s| s.failed > failed && s.error.is_some());
    server.no_faults();
    checkpoint.store(6, Ordering::SeqCst);
    wait(&uploader, |s| s.last.is_some_and(|(u, _)| u.epoch == 60) && s.error.is_none());
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(6));

    storage.claim(Some("db"), &Cancel::default()).unwrap();
    checkpoint.store(8, Ordering::SeqCst);
    let status = wait(&uploader, |s| s.lost);
    assert!(status.error.unwrap().message().contains("taken over"));
    drop(uploader);
    assert!(storage.list().unwrap().len() <= 3, "what was superfluous is gone");
}

#[test]
fn a_server_that_hangs_does_not_delay_the_end() {
    let server = Server::start();
    let storage = Arc::new(server.open());
    server.faults(|_, _| Some(Fault::Delay(Duration::from_secs(60))));
    let options = UploaderOptions { interval: Duration::from_secs(3600), keep: 1 };
    let uploader = Uploader::start(storage, "db".into(), options, |_| Ok(Some(Planted(plant(&database(1)), 1)))).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    drop(uploader);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[test]
fn the_last_checkpoint_is_uploaded_at_the_end_if_it_can_be() {
    let server = Server::start();
    let storage = Arc::new(server.open());
    let checkpoint = Arc::new(AtomicU64::new(1));
    let start = || {
        let newest = Arc::clone(&checkpoint);
        let copy = move |version| match newest.load(Ordering::SeqCst) {
            n if version == Some(n) => Ok(None),
            n => Ok(Some(Planted(plant(&database(n)), n))),
        };
        let options = UploaderOptions { interval: Duration::from_secs(3600), keep: 2 };
        let uploader = Uploader::start(Arc::clone(&storage), "db".into(), options, copy).unwrap();
        wait(&uploader, |s| s.last.is_some());
        uploader
    };
    let uploader = start();
    checkpoint.store(2, Ordering::SeqCst);
    uploader.finish(Duration::from_secs(60));
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(2));

    let uploader = start();
    checkpoint.store(3, Ordering::SeqCst);
    server.faults(|_, _| Some(Fault::Delay(Duration::from_secs(60))));
    let started = Instant::now();
    uploader.finish(Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(30), "a storage that hangs does not hold up the end: {:?}", started.elapsed());
    server.no_faults();
    assert_eq!(restore(&storage, Which::Latest).unwrap().1, database(2));
}
