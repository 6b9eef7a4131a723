//! What a checkpoint writes, brought into key order and into files: where it is worth it, by two threads, one half each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;

use millpond_common::{Epoch, Error, Result};
use rocksdb::Options;

use crate::ahead::{AHEAD, ends, look};
use crate::appended;
use crate::directory;
use crate::encode::Encoded;
use crate::relation::{Relation, runs_between};
use crate::rocks::Base;
use crate::run::{Overlay, SortedRun};
use crate::sort_key::{Item, same, sort};
use crate::sst::{SstWriter, Written};
use crate::tables::Entries;

/// So many entries are written by two threads: fewer are not worth a thread's start, and with more the workers need the core.
const ENTRIES_FOR_TWO: RangeInclusive<u64> = 20_000..=400_000;

/// About so many rows of a relation that only grows are as much work as another entry.
const APPENDED_PART: u64 = 8;

/// What one commit writes under one id.
pub(crate) enum Source<'a> {
    Relation(&'a Relation),
    /// In pieces, as it was encoded.
    State(Vec<Entries>),
}

impl Source<'_> {
    /// About how much work it is.
    fn entries(&self, epochs: &Range<Epoch>) -> u64 {
        match self {
            Source::Relation(relation) if relation.meta.spec.appended => {
                runs_between(&relation.runs, epochs.start, epochs.end).iter().map(|r| r.entries).sum::<u64>() / APPENDED_PART
            }
            Source::Relation(relation) => runs_between(&relation.runs, epochs.start, epochs.end).iter().map(|r| r.entries).sum(),
            Source::State(pieces) => pieces.iter().map(|p| p.len() as u64).sum(),
        }
    }
}

/// Some ids: those that are written, and those that are dropped.
struct Part<'a> {
    sources: BTreeMap<u32, Source<'a>>,
    drops: BTreeSet<u32>,
}

impl<'a> Part<'a> {
    /// Takes off the ids of about the second half of all entries, if there are enough.
    fn split_off(&mut self, epochs: &Range<Epoch>) -> Option<Part<'a>> {
        let sizes = self.sources.iter().map(|(id, source)| (*id, source.entries(epochs))).collect::<Vec<_>>();
        let all: u64 = sizes.iter().map(|(_, entries)| entries).sum();
        let mut before = 0;
        let later = sizes.iter().zip(sizes.iter().skip(1)).map(|((_, entries), (id, _))| {
            before += entries;
            (before.abs_diff(all - before), *id)
        });
        let (_, middle) = later.min().filter(|_| ENTRIES_FOR_TWO.contains(&all))?;
        Some(Part { sources: self.sources.split_off(&middle), drops: self.drops.split_off(&middle) })
    }

    fn write(mut self, writer: &mut SstWriter<'_>, base: &Arc<Base>, epochs: &Range<Epoch>) -> Result<()> {
        let ids = self.sources.keys().chain(&self.drops).copied().collect::<BTreeSet<_>>();
        for id in ids {
            if self.drops.contains(&id) {
                // First: a deletion hides what came before its file, not what is in it or in a later one.
                writer.delete_id(id)?;
            }
            match self.sources.remove(&id) {
                None => {}
                Some(Source::Relation(relation)) if relation.meta.spec.appended => {
                    let runs = runs_between(&relation.runs, epochs.start, epochs.end);
                    appended::write(writer, base, &relation.meta, runs, self.drops.contains(&id))?;
                }
                Some(Source::Relation(relation)) => write_relation(writer, id, relation, epochs)?,
                Some(Source::State(pieces)) => write_state(writer, id, &pieces)?,
            }
        }
        Ok(())
    }
}

/// Writes everything by ascending key (the runs after the last checkpoint, up to an epoch), and returns when it is on disk, though nothing refers to it yet.
pub(crate) fn write_files(
    options: &Options,
    staging: &Path,
    number: u64,
    sources: BTreeMap<u32, Source<'_>>,
    drops: BTreeSet<u32>,
    (base, epoch): (&Arc<Base>, Epoch),
) -> Result<Written> {
    let epochs = base.epoch..epoch;
    let mut first = Part { sources, drops };
    let second = first.split_off(&epochs);
    let mut writer = SstWriter::new(options, staging, number);
    let written = match second {
        None => {
            first.write(&mut writer, base, &epochs)?;
            writer.finish()?
        }
        Some(second) => std::thread::scope(|scope| {
            let mut later = writer.after();
            let second = scope.spawn(|| second.write(&mut later, base, &epochs).and_then(|()| later.finish()));
            let first = first.write(&mut writer, base, &epochs).and_then(|()| writer.finish_unmarked());
            let second = second.join().map_err(|_| Error::internal("a thread that wrote a checkpoint panicked"))?;
            Ok::<_, Error>(first?.and(second?))
        })?,
    };
    if !written.files.is_empty() {
        directory::sync(staging)?;
    }
    Ok(written)
}

/// Where an entry of a state table is, while they are sorted.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    piece: u32,
    number: u32,
}

fn write_state(writer: &mut SstWriter<'_>, id: u32, pieces: &[Entries]) -> Result<()> {
    let mut items = Vec::with_capacity(pieces.iter().map(Entries::len).sum());
    for (piece, entries) in pieces.iter().enumerate() {
        items.extend(
            entries.iter().enumerate().map(|(number, (key, _))| {
                Item::new(key.first().copied().unwrap_or(0), Place { piece: piece as u32, number: number as u32 })
            }),
        );
    }
    let entry = |place: &Place| pieces.get(place.piece as usize).map_or((&[][..], None), |p| p.entry(place.number as usize));
    let rest = |place: &Place| entry(place).0.get(1..).unwrap_or_default();
    sort(&mut items, &rest);
    // Each key comes once; should it not, the later entry counts.
    for (number, item) in items.iter().enumerate() {
        if number % AHEAD == 0 {
            let next = items.iter().skip(number).take(AHEAD).map(|item| entry(&item.place));
            look(next.map(|(key, value)| ends(key) ^ ends(value.unwrap_or_default())));
        }
        if items.get(number + 1).is_none_or(|next| !same(item, next, &rest)) {
            let (key, value) = entry(&item.place);
            writer.entry(id, key, value)?;
        }
    }
    Ok(())
}

fn write_relation(writer: &mut SstWriter<'_>, id: u32, relation: &Relation, epochs: &Range<Epoch>) -> Result<()> {
    let (mut sorted, reached) = relation.tiers.lock().sorted(epochs.start, epochs.end);
    let rest = runs_between(&relation.runs, reached, epochs.end);
    let rest = Encoded::new(&relation.meta, rest.iter().map(|r| &**r))?;
    if sorted.is_empty() {
        return rest.for_each(|vnode, key, change| writer.change(id, &[vnode], key, change));
    }
    sorted.push(Arc::new(SortedRun::new(&rest)));
    let mut walk = Overlay::new(sorted, 0..256);
    while let Some((key, change)) = walk.current() {
        writer.change(id, &[], key, change)?;
        walk.advance();
    }
    Ok(())
}
