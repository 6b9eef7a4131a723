//! Figures of large state, printed by
//! `cargo test --release -p millpond-state measure -- --ignored --nocapture` (rows in `MILLPOND_MEASURE_ROWS`, 10 million by default).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_common::hash::mix;
use millpond_common::{Result, StateTableId};

use super::support::*;
use crate::{Entries, FrozenTable, KeyedState, MultiState, RowForm, SavepointKind, StateTable, StateValue, TableLookup};

/// As large as the state of a group with two aggregates.
struct Group {
    rows: i64,
    slots: Box<[[u64; 4]]>,
}

impl StateValue for Group {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rows.to_le_bytes());
        self.slots.iter().flatten().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w));
        let rows = words.next().unwrap_or_default() as i64;
        let words = words.collect::<Vec<_>>();
        Ok(Group { rows, slots: words.as_chunks::<4>().0.into() })
    }
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.slots.len() * 32
    }
}

fn key(i: u64) -> Vec<u8> {
    let mut key = vec![mix(i) as u8];
    key.extend_from_slice(&i.to_be_bytes());
    key
}

fn update(table: &mut KeyedState<Group>, i: u64) {
    let group = table.get_or_insert_with(&key(i), || Group { rows: 0, slots: vec![[mix(i), i, 3, 4]; 2].into() });
    group.rows += 1;
    group.slots[1][0] = mix(group.slots[1][0]);
}

/// Seals, then encodes in slices as a worker does. The times of all that, ascending, and the pieces.
fn freeze(table: &mut dyn StateTable) -> (Vec<Duration>, Vec<Entries>) {
    let started = Instant::now();
    table.seal();
    let (mut times, mut pieces, mut more) = (vec![started.elapsed()], vec![], true);
    while more {
        let started = Instant::now();
        while more && started.elapsed() < Duration::from_millis(1) {
            let piece = table.drain(512);
            more = piece.is_some();
            pieces.extend(piece);
        }
        times.push(started.elapsed());
    }
    times.sort();
    (times, pieces)
}

/// What a key of this table takes in memory, about.
const PAGE_KEY_BYTES: u64 = 140;

/// The other way to take encoding off a worker: its state lies in pages that it shares with another thread from the barrier on, and it copies a page
/// when it first changes something on it. Prints what that costs where so many keys change anywhere in so much state.
fn hand_over(bytes: u64, changed: u64) {
    const PAGE: usize = 4096;
    let mut pages = (0..bytes / PAGE as u64).map(|i| Arc::new([i as u8; PAGE])).collect::<Vec<_>>();
    let mut random = Random(7);
    for _ in 0..3 {
        let shared = pages.clone();
        let started = Instant::now();
        for _ in 0..changed {
            let number = random.below(pages.len() as u64) as usize;
            Arc::make_mut(&mut pages[number])[0] ^= 1;
        }
        let time = started.elapsed();
        let copied = pages.iter().zip(&shared).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        println!("handing pages over instead: {copied} of {} copied in {time:?}", pages.len());
    }
}

fn frozen(table: u32, pieces: Vec<Entries>) -> Vec<FrozenTable> {
    pieces.into_iter().map(|entries| FrozenTable { table: StateTableId(table), entries }).collect()
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure() {
    let rows = std::env::var("MILLPOND_MEASURE_ROWS").map_or(10_000_000, |n| n.parse::<u64>().unwrap());
    let dir = tempfile::tempdir_in(std::env::var("MILLPOND_MEASURE_DIRECTORY").unwrap_or("/var/tmp".into())).unwrap();
    let (store, _) = open(dir.path());
    let mut table = KeyedState::new();
    let started = Instant::now();
    (0..rows).for_each(|i| update(&mut table, i));
    println!(
        "{rows} keys, {} MB of memory, {} ns per insertion",
        table.stats().bytes / 1_000_000,
        started.elapsed().as_nanos() as u64 / rows
    );
    let (times, pieces) = freeze(&mut table);
    println!("first checkpoint: {} slices, {:?} in all, longest {:?}", times.len(), times.iter().sum::<Duration>(), times.last().unwrap());
    let mut checkpoint = checkpoint(1, 0);
    checkpoint.frozen = frozen(1, pieces);
    println!("  committed: {:?}", store.commit(checkpoint).unwrap());

    let (mut random, changed) = (Random(5), rows / 100);
    let mut stalls = Vec::new();
    for epoch in 2..=11 {
        let started = Instant::now();
        (0..changed).for_each(|_| update(&mut table, random.below(rows)));
        let per_update = started.elapsed().as_nanos() as u64 / changed;
        let (times, pieces) = freeze(&mut table);
        let (total, entries) = (times.iter().sum::<Duration>(), pieces.iter().map(Entries::len).sum::<usize>());
        stalls.extend(times);
        let mut checkpoint = super::support::checkpoint(epoch, 0);
        checkpoint.frozen = frozen(1, pieces);
        let stats = store.commit(checkpoint).unwrap();
        println!("1 % changed: {per_update} ns per update; {entries} entries encoded in {total:?}; {stats:?}");
    }
    hand_over(rows * PAGE_KEY_BYTES, changed);
    stalls.sort();
    let at = |percent: usize| stalls[(stalls.len() - 1) * percent / 100];
    println!("stalls: median {:?}, p99 {:?}, longest {:?}", at(50), at(99), at(100));
    for name in ["one", "two"] {
        let started = Instant::now();
        let savepoint = store.savepoint_create(name, SavepointKind::Manual, "").unwrap();
        println!("savepoint: {:?}, {} MB", started.elapsed(), savepoint.bytes / 1_000_000);
    }
    let full = store.checkpoint_full().unwrap();
    println!("full checkpoint: {:?}, {} MB", full.duration, full.bytes / 1_000_000);

    let mut multi = MultiState::new(RowForm::Numbered);
    let row = |i: u64| [i.to_be_bytes(), mix(i).to_be_bytes(), [7; 8], [8; 8]].concat();
    (0..rows / 10).for_each(|i| multi.add(&key(i % (rows / 40)), &row(i), 1));
    for epoch in 12..=14 {
        let (times, pieces) = freeze(&mut multi);
        let entries = pieces.iter().map(Entries::len).sum::<usize>();
        let mut checkpoint = super::support::checkpoint(epoch, 0);
        checkpoint.frozen = frozen(2, pieces);
        let stats = store.commit(checkpoint).unwrap();
        let each = stats.duration.as_nanos() / entries.max(1) as u128;
        println!("rows of a join: {entries} encoded in {:?}, committed at {each} ns each: {stats:?}", times.iter().sum::<Duration>());
        (0..changed).for_each(|i| multi.add(&key(random.below(rows / 40)), &row(rows * epoch + i), 1));
    }
    drop((table, multi));
    let started = Instant::now();
    drop(store);
    let closed = started.elapsed();
    let started = Instant::now();
    let (store, _) = open(dir.path());
    println!("closed in {closed:?}, opened in {:?}", started.elapsed());
    let mut table = KeyedState::<Group>::new();
    table.attach(Rc::new(TableLookup::new(&store, StateTableId(1), 0..256)), true);
    assert!(table.warm(usize::MAX).unwrap());
    println!("{} keys loaded in {:?}", table.len(), started.elapsed());
}
