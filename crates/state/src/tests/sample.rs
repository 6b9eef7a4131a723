//! A small data directory with everything in it, and a look at all of that.

use std::collections::BTreeMap;
use std::path::Path;

use millpond_common::{Error, RelationId, Result, SqlState, StateTableId};

use super::support::*;
use crate::{FrozenTable, ReadView, SavepointKind, Scan, Store};

const KEYED: u32 = 1;
const BAG: u32 = 2;
const STATE: StateTableId = StateTableId(3);
/// Grows only; from version 2 of the format on.
const LOG: u32 = 4;
pub(super) const VERSION: u32 = 3;
pub(super) const EPOCHS: u64 = 4;
pub(super) const LOGGED: u64 = 6;

/// A data directory as a crash leaves it: checkpoints, a table log with a tail, a savepoint of epoch 2 and a full checkpoint.
/// Everything in it follows from the epoch.
pub(super) fn make(dir: &Path) {
    let live = dir.with_extension("live");
    let (store, _) = open(&live);
    register(&store);
    for epoch in 1..=EPOCHS {
        let (old, new) = (format!("v{}", epoch - 1), format!("v{epoch}"));
        let keyed = (0..40).flat_map(|k| [(k, new.as_str(), 1), (k, old.as_str(), -1)]).filter(|(_, v, _)| *v != "v0").collect::<Vec<_>>();
        store.publish(RelationId(KEYED), epoch, vec![delta(&keyed)]);
        store.publish(RelationId(BAG), epoch, vec![delta(&[(7, "x", 1)])]);
        store.publish(RelationId(LOG), epoch, vec![delta(&[(epoch as i64, "x", 1)])]);
        let entries = [(b"\x05key".to_vec(), Some(epoch.to_le_bytes().to_vec()))].into_iter().collect();
        let mut checkpoint = checkpoint(epoch, 0);
        checkpoint.frozen.push(FrozenTable { table: STATE, entries });
        store.commit(checkpoint).unwrap();
        store.catalog_write(&[(b"epoch".to_vec(), epoch.to_le_bytes().to_vec())], &[]).unwrap();
        if epoch == 2 {
            store.savepoint_create("two", SavepointKind::Manual, "a comment").unwrap();
            store.checkpoint_full().unwrap();
        }
    }
    for entry in 1..=LOGGED {
        store.log_append(&[entry_of(entry)]).unwrap();
    }
    copy(&live, dir);
}

fn entry_of(seq: u64) -> Vec<u8> {
    vec![seq as u8; 100]
}

fn register(store: &Store) {
    store.relation_add(spec(KEYED, true));
    store.relation_add(spec(BAG, false));
    store.relation_add(appended(LOG));
}

fn read(view: &ReadView, relation: u32) -> Result<Rows> {
    let mut rows = Rows::new();
    for batch in view.scan(RelationId(relation), Scan::default())? {
        collect(&mut rows, &batch?);
    }
    Ok(rows)
}

/// Reads everything and compares it with what the epoch says. An error is what a user would see.
fn check_view(view: &ReadView, version: u32) -> Result<()> {
    let epoch = view.epoch();
    let value = format!("v{epoch}");
    let keyed = (0..40).map(|k| (k, value.as_str(), 1)).collect::<Vec<_>>();
    assert_eq!(read(view, KEYED)?, rows(if epoch == 0 { &[] } else { &keyed }));
    assert_eq!(read(view, BAG)?.values().sum::<i64>(), epoch as i64);
    let log = (1..=epoch as i64).filter(|_| version > 1).map(|k| (k, "x", 1)).collect::<Vec<_>>();
    assert_eq!(read(view, LOG)?, rows(&log));
    Ok(())
}

/// What was found in a whole data directory.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) epoch: u64,
    pub(super) logged: u64,
    /// The start said that the log's tail is torn.
    pub(super) torn: bool,
    pub(super) savepoints: BTreeMap<String, Result<(), String>>,
}

pub(super) fn examine(dir: &Path) -> Result<Found> {
    examine_version(dir, VERSION)
}

/// The same of a directory that was written in an earlier version of the format.
pub(super) fn examine_version(dir: &Path, version: u32) -> Result<Found> {
    let (store, recovered) = try_open(dir)?;
    register(&store);
    check_view(&store.read_view(), version)?;
    let state = state_entries(&store, STATE.0, 0..256)?;
    let epoch = recovered.epoch;
    assert_eq!(state, if epoch == 0 { vec![] } else { vec![(b"\x05key".to_vec(), epoch.to_le_bytes().to_vec())] });
    let logged = recovered.log_tail.len() as u64;
    assert_eq!(recovered.log_tail, (1..=logged).map(|seq| (seq, entry_of(seq))).collect::<Vec<_>>());
    let mut savepoints = BTreeMap::new();
    for (name, known) in store.savepoint_list()? {
        let read = || {
            let reader = store.savepoint_open(&name)?;
            assert_eq!((known.clone()?.epoch, reader.recovered().epoch), (2, 2));
            check_view(&reader.view([spec(KEYED, true), spec(BAG, false), appended(LOG)])?, version)
        };
        savepoints.insert(name.clone(), read().map_err(|e| text(&e)));
    }
    Ok(Found { epoch, logged, torn: recovered.log_torn, savepoints })
}

pub(super) fn text(error: &Error) -> String {
    assert!([SqlState::DATA_CORRUPTED, SqlState::IO_ERROR, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE].contains(&error.state()), "{error}");
    error.to_string()
}

/// What is found where nothing is damaged.
pub(super) fn whole() -> Found {
    let savepoints = ["full-2", "two"].into_iter().map(|name| (name.to_owned(), Ok(()))).collect();
    Found { epoch: EPOCHS, logged: LOGGED, torn: false, savepoints }
}
