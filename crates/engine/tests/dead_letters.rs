//! Records that cannot be read are kept once, whatever reads them how often.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::io::Write;

use common::{create, level, read, source, start_with, table, view};
use millpond_common::settings::Settings;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_kept_once_across_readers_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.csv");
    let append = |text: &str| {
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        out.write_all(text.as_bytes()).unwrap();
    };
    append("1,1\n2,two\n3,3\nfour\n5,5\n");
    let mut bad = source(2, &file);
    bad.options.insert("on_error".into(), "dead_letter".into());
    let mut settings = Settings::default();
    settings.set("checkpoint_interval", Some("1h")).unwrap();
    let db = dir.path().join("db");
    let engine = start_with(&db, 2, settings.clone(), vec![table()], vec![bad.clone()], vec![]).await;
    create(&engine, view(10, 2, 0)).await;
    let places = |engine: &millpond_engine::Engine| {
        let letters = engine.dead_letters().unwrap();
        letters
            .iter()
            .map(|l| (l.position.rsplit_once(' ').unwrap().1.to_string(), String::from_utf8(l.raw.clone()).unwrap()))
            .collect::<Vec<_>>()
    };
    let expected = |n: usize| {
        [("2", "2,two"), ("4", "four"), ("6", "x,y")].iter().take(n).map(|(p, r)| (p.to_string(), r.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(places(&engine), expected(2));
    assert!(engine.dead_letters().unwrap()[0].error.contains("invalid input syntax for type bigint: \"two\""));
    create(&engine, view(20, 2, 0)).await;
    assert_eq!(places(&engine), expected(2), "the second view read them again");
    engine.checkpoint().await.unwrap();
    append("x,y\n7,7\n");
    while read(&engine, 20).len() < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(places(&engine), expected(3));
    assert_eq!(engine.sources()[0].dead_letters, 3);
    // Nothing after the checkpoint is on disk: what is read again is kept again.
    let copy = dir.path().join("copy");
    copy_directory(&dir.path().join("db"), &copy);
    engine.shutdown().await.unwrap();
    drop(engine);
    for place in ["db", "copy"] {
        let jobs = vec![view(10, 2, 0), view(20, 2, 0)];
        let engine = start_with(&dir.path().join(place), 1, settings.clone(), vec![table()], vec![bad.clone()], jobs).await;
        level(&engine, 20).await;
        while read(&engine, 20).len() < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert_eq!(places(&engine), expected(3), "{place}");
        engine.shutdown().await.unwrap();
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if std::fs::copy(entry.path(), &target).is_err() {
            // a file that storage has just deleted
        }
    }
}
