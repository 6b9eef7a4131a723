//! A checkpoint becomes durable: files written and synced, then one synced record that names them (the commit point),
//! then their ingestion. A crash before the record leaves files that start-up deletes; a crash after it, files that
//! start-up ingests, once, because the last of them carries the checkpoint's number as the marker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use millpond_common::{Epoch, Error, Result, SqlState};
use rocksdb::WriteBatch;

use crate::columns::StoredVersion;
use crate::failpoint::failpoint;
use crate::format::{self, CheckpointRecord};
use crate::planted::planted;
use crate::relation::{Relations, runs_between};
use crate::rocks::{Base, Rocks};
use crate::run::SortedRun;
use crate::sst;
use crate::write::{Source, write_files};
use crate::{Checkpoint, CommitStats, Store, file, reached};

/// What start-up has to do with the files it finds in the staging directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Files of the last checkpoint, which were never ingested.
    pub(crate) ingest: Vec<String>,
    /// Files of a checkpoint that was never completed, or left over from ingestion.
    pub(crate) delete: Vec<String>,
}

/// Decides that. `record`: the last completed checkpoint, `marker`: the number of the last ingested one.
pub(crate) fn recovery(record: Option<&CheckpointRecord>, marker: Option<u64>, staged: &[String]) -> Result<Recovery> {
    let corrupted = |message: &str| Err(Error::new(SqlState::DATA_CORRUPTED, message.to_owned()));
    let number = record.map_or(0, |r| r.number);
    let ingested = marker.unwrap_or(0);
    if ingested > number {
        return corrupted("the data directory's log ends before its last checkpoint");
    }
    let files = record.filter(|_| ingested < number).map(|r| r.files.clone()).unwrap_or_default();
    if let Some(missing) = files.iter().find(|f| !staged.contains(f)) {
        return corrupted(&format!("a file of the last checkpoint is missing: {missing}"));
    }
    let delete = staged.iter().filter(|f| !files.contains(f)).cloned().collect();
    Ok(Recovery { ingest: files, delete })
}

/// Does what [`recovery`] says.
pub(crate) fn recover(rocks: &Rocks, staging: &Path, record: Option<&CheckpointRecord>) -> Result<()> {
    let mut staged = Vec::new();
    for entry in file::read_dir(staging)? {
        staged.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let todo = recovery(record, rocks.marker()?, &staged)?;
    if !todo.ingest.is_empty() {
        tracing::info!(files = todo.ingest.len(), "finishing the last checkpoint");
        sst::ingest(rocks, staging, &todo.ingest)?;
    }
    for name in todo.delete {
        let path = staging.join(name);
        if path.is_dir() { file::remove_dir_all(&path)? } else { file::remove_file(&path)? }
    }
    Ok(())
}

/// What only the committer knows; held for the length of a commit.
pub(crate) struct Turn {
    /// Of the last commit.
    pub(crate) number: u64,
    /// Entries of the table log up to this one are deleted.
    pub(crate) log_seq: u64,
}

impl Store {
    /// Makes a checkpoint durable: the frozen operator state, all relations as of its epoch (the runs up to it must be
    /// published), the engine's `meta`. When it returns, the checkpoint is complete. Called from one thread, epochs never descend.
    pub fn commit(&self, checkpoint: Checkpoint) -> Result<CommitStats> {
        let start = Instant::now();
        let rocks = self.rocks()?;
        let mut turn = self.turn.lock();
        self.poison.check()?;
        failpoint("commit-begin");
        self.cut.store(checkpoint.epoch, Ordering::Release);
        let (base, relations, drops, removed) = {
            let state = self.state.lock();
            (Arc::clone(&state.base), Arc::clone(&state.relations), state.drops.clone(), state.removed.clone())
        };
        if checkpoint.epoch < base.epoch {
            return Err(Error::internal(format!("checkpoint of epoch {} after that of epoch {}", checkpoint.epoch, base.epoch)));
        }
        let Checkpoint { epoch, log_seq, meta, frozen } = checkpoint;
        let log_seq = log_seq.max(turn.log_seq);

        let mut sources = BTreeMap::new();
        for (id, relation) in relations.iter() {
            if !runs_between(&relation.runs, base.epoch, epoch).is_empty() {
                sources.insert(id.0, Source::Relation(relation));
            }
        }
        let omitted = frozen.iter().map(|t| t.table).min().filter(|_| planted("state-omitted"));
        for table in frozen.into_iter().filter(|t| !t.entries.is_empty() && !removed.contains(&t.table.0) && omitted != Some(t.table)) {
            match sources.entry(table.table.0).or_insert_with(|| Source::State(vec![])) {
                Source::State(pieces) => pieces.push(table.entries),
                Source::Relation(_) => {
                    return Err(Error::internal(format!("id {} is both a relation and a state table", table.table.0)));
                }
            }
        }
        let rows = rows_after(&base, &relations, &drops, epoch);

        let number = turn.number + 1;
        let written =
            self.poison.guard(write_files(&rocks.file_options(), &self.staging, number, sources, drops.clone(), (&base, epoch)))?;
        let files_synced = start.elapsed();
        failpoint("commit-files-synced");

        let record = CheckpointRecord {
            number,
            epoch,
            log_seq,
            files: written.files.clone(),
            rows: rows.iter().map(|(id, n)| (*id, *n)).collect(),
            meta,
        };
        let mut batch = WriteBatch::default();
        batch.put_cf(rocks.log(), format::CHECKPOINT_KEY, record.encode()?);
        if log_seq > turn.log_seq {
            batch.delete_range_cf(rocks.log(), format::log_key(turn.log_seq), format::log_key(log_seq + 1));
        }
        for id in &drops {
            batch.delete_cf(rocks.log(), format::drop_key(*id));
        }
        self.poison.guard(rocks.write_synced(batch))?;
        let recorded = start.elapsed();
        failpoint("commit-recorded");

        self.poison.guard(sst::ingest(&rocks, &self.staging, &written.files))?;
        failpoint("commit-ingested");
        turn.number = number;
        turn.log_seq = log_seq;
        let changes = self.changes_of_kept(&relations, &base, epoch);
        self.swap_base(Base::new(&rocks, epoch, log_seq, rows.into_iter().collect()), log_seq, &drops, &changes);
        failpoint("commit-end");
        reached::note(&self.dir, rocks.db().latest_sequence_number());
        let (entries, bytes, duration) = (written.entries, written.bytes, start.elapsed());
        tracing::debug!(number, entries, bytes, ?files_synced, ?recorded, ?duration, "a checkpoint is complete");
        self.retain(&rocks);
        Ok(CommitStats { entries, bytes, duration })
    }

    /// What this commit changes of relations whose columns readers keep, by the version of the rows before it. For the others
    /// nobody needs to sort anything.
    fn changes_of_kept(&self, relations: &Relations, base: &Base, epoch: Epoch) -> KeptChanges {
        let mut changes = HashMap::new();
        for relation in relations.values() {
            let runs = runs_between(&relation.runs, base.epoch, epoch);
            if !runs.is_empty() && self.columns.follows(relation.stored, runs.iter().map(|r| r.entries).sum()) {
                let layers = relation.tiers.lock().read(&relation.meta, &relation.runs, base.epoch, epoch, epoch);
                changes.extend(layers.ok().map(|layers| (relation.stored, layers)));
            }
        }
        changes
    }

    /// From here on, new views read the new checkpoint and the runs after it: the same rows as before.
    fn swap_base(&self, base: Arc<Base>, log_seq: u64, dropped: &BTreeSet<u32>, changes: &KeptChanges) {
        let mut state = self.state.lock();
        let epoch = base.epoch;
        let mut forgotten = Vec::new();
        let (mut outdated, mut patched) = (Vec::new(), Vec::new());
        for relation in Arc::make_mut(&mut state.relations).values_mut() {
            let runs = relation.forget(epoch);
            let emptied = dropped.contains(&relation.meta.spec.id.0);
            if emptied || !runs.is_empty() {
                let before = std::mem::replace(&mut relation.stored, StoredVersion::next());
                match changes.get(&before).filter(|_| !emptied) {
                    Some(changes) => patched.push(self.columns.carry(before, relation.stored, changes)),
                    None => outdated.push(before),
                }
            }
            relation.stored_is_void &= !emptied;
            forgotten.extend(runs);
        }
        let old = std::mem::replace(&mut state.base, base);
        state.drops.retain(|id| !dropped.contains(id));
        state.advance(epoch, log_seq);
        let view = state.view.take();
        drop(state);
        drop((forgotten, old, view, patched)); // this may take a while
        self.columns.forget(&outdated);
    }
}

/// The sorted changes of relations, by the version of the stored rows that they change.
type KeptChanges = HashMap<StoredVersion, Vec<Arc<SortedRun>>>;

/// How many rows each relation has at `epoch`.
fn rows_after(base: &Base, relations: &Relations, drops: &BTreeSet<u32>, epoch: Epoch) -> BTreeMap<u32, i64> {
    let mut rows = base.rows.iter().filter(|(id, _)| !drops.contains(id)).map(|(id, n)| (*id, *n)).collect::<BTreeMap<_, _>>();
    for (id, relation) in relations {
        let growth: i64 = runs_between(&relation.runs, base.epoch, epoch).iter().map(|r| r.growth).sum();
        if growth != 0 {
            *rows.entry(id.0).or_insert(0) += growth;
        }
    }
    rows.retain(|_, n| *n != 0);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<String> {
        files.iter().map(|f| (*f).to_owned()).collect()
    }

    fn record(number: u64, files: &[&str]) -> CheckpointRecord {
        CheckpointRecord { number, files: names(files), ..Default::default() }
    }

    #[test]
    fn start_up_finishes_or_forgets_a_checkpoint() {
        let two = record(2, &["a", "b"]);
        let empty = record(3, &[]);
        // last record, marker, staged files: to ingest, to delete
        type Row<'a> = (Option<&'a CheckpointRecord>, Option<u64>, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (None, None, &[], &[], &[]),
            (None, None, &["x"], &[], &["x"]),                    // the first checkpoint was never recorded
            (Some(&two), Some(1), &["a", "b"], &["a", "b"], &[]), // recorded, not ingested
            (Some(&two), None, &["b", "a"], &["a", "b"], &[]),    // the same, the very first one
            (Some(&two), Some(1), &["a", "b", "c"], &["a", "b"], &["c"]), // and a stray file
            (Some(&two), Some(2), &["a", "b"], &[], &["a", "b"]), // ingested, not yet unlinked
            (Some(&two), Some(2), &["b"], &[], &["b"]),           // halfway unlinked
            (Some(&two), Some(2), &["c"], &[], &["c"]),           // the next one was never recorded
            (Some(&empty), Some(2), &[], &[], &[]),               // a checkpoint without changes
        ];
        for (record, marker, staged, ingest, delete) in table {
            let expected = Recovery { ingest: names(ingest), delete: names(delete) };
            assert_eq!(recovery(*record, *marker, &names(staged)).unwrap(), expected, "{record:?} {marker:?} {staged:?}");
        }
    }

    #[test]
    fn start_up_notices_what_is_lost() {
        assert!(recovery(Some(&record(2, &["a", "b"])), Some(1), &names(&["a"])).is_err());
        assert!(recovery(Some(&record(2, &[])), Some(3), &[]).is_err());
        assert!(recovery(None, Some(1), &[]).is_err());
    }
}
