//! Which reader serves which job.
//!
//! A source is read and decoded once: its *leader* serves all views that are level. A view that comes later gets a reader
//! of its own, which reads what the leader has read so far, as fast as it can, and then what the leader has read
//! meanwhile. When little is left the leader waits for it; at the barrier at which both stand at the same place, the
//! view joins the leader. So views of one source hold the same rows of it at every epoch from which they can be read.

use std::sync::Arc;
use std::time::Duration;

use millpond_common::{Error, JobId, RelationId, Result};
use millpond_connect::Position;
use millpond_plan::Operator;

use super::Clock;
use crate::job::JobSpec;
use crate::source::SourceReader;

/// A reader that needed no longer for its last round is close behind the leader.
const CLOSE_BEHIND: Duration = Duration::from_millis(50);
/// After so many rounds the leader waits for a reader that does not come closer: both are as fast as they can be, and
/// one reader for both is less work.
const ROUNDS_MAX: u32 = 4;

impl Clock {
    /// Lets a job read a source from a position on. Where there is a leader, it has read that far: jobs continue from the
    /// checkpoint at which all views were level before any job begins anew.
    pub(super) fn read_source(&mut self, spec: &JobSpec, source: RelationId, from: Option<Position>) -> Result<()> {
        let columns = columns_of(spec, source);
        let jobs = vec![spec.id];
        let Some(leader) = self.leader(source) else {
            let reader = self.start_reader(source, columns, from, None, jobs)?;
            self.readers.push(reader);
            return Ok(());
        };
        let at = self.readers.get(leader).and_then(|r| r.position.clone());
        if at == from {
            return self.join(leader, &columns, jobs);
        }
        let reader = self.start_reader(source, columns, from, at, jobs)?;
        self.readers.push(reader);
        Ok(())
    }

    fn leader(&self, source: RelationId) -> Option<usize> {
        self.readers.iter().position(|r| r.source == source && r.leads())
    }

    /// Whether rows of a reader may go into the next epoch.
    pub(super) fn may_take(&self, reader: &SourceReader) -> bool {
        !reader.leads() || !self.readers.iter().any(|r| r.source == reader.source && r.holds_leader)
    }

    /// Readers that have come to where the leader was join it, or are sent after it. Between two barriers.
    pub(super) fn catch_up(&mut self) {
        if self.shutdown.is_some() {
            return; // readers have been stopped where they were
        }
        while let Some(at) = self.readers.iter().position(|r| !r.leads() && r.finished) {
            let reader = self.readers.remove(at);
            let jobs = reader.jobs.clone();
            if let Err(error) = self.follow(reader, jobs.clone()) {
                jobs.iter().for_each(|j| self.fail(*j, &error));
            }
        }
    }

    fn follow(&mut self, mut reader: SourceReader, jobs: Vec<JobId>) -> Result<()> {
        let columns = reader.columns.as_ref().clone();
        let place = reader.until.take();
        let Some(leader) = self.leader(reader.source) else {
            // Its jobs are gone; this one leads now.
            let mut next = self.start_reader(reader.source, columns, place, None, jobs)?;
            (next.rows_read, next.bad_rows) = (reader.rows_read, reader.bad_rows);
            self.readers.push(next);
            return Ok(());
        };
        let at = self.readers.get(leader).and_then(|r| r.position.clone());
        if at == place {
            return self.join(leader, &columns, jobs);
        }
        let mut next = self.start_reader(reader.source, columns, place, at, jobs)?;
        next.rounds = reader.rounds + 1;
        next.holds_leader = reader.holds_leader || next.rounds >= ROUNDS_MAX || reader.started.elapsed() < CLOSE_BEHIND;
        self.readers.push(next);
        Ok(())
    }

    /// Jobs that stand where the leader stands: it serves them, too. Columns that it has not decoded yet make it open anew.
    fn join(&mut self, leader: usize, columns: &[usize], jobs: Vec<JobId>) -> Result<()> {
        let Some(reader) = self.readers.get_mut(leader) else { return Ok(()) };
        reader.jobs.extend(jobs);
        if reader.finished || columns.iter().all(|c| reader.columns.contains(c)) {
            return Ok(());
        }
        let mut all = reader.columns.as_ref().clone();
        all.extend(columns);
        all.sort_unstable();
        all.dedup();
        let (source, from, jobs) = (reader.source, reader.position.clone(), reader.jobs.clone());
        let known = (reader.rows_read, reader.bad_rows, reader.level, reader.position_text.clone());
        let mut next = self.start_reader(source, all, from, None, jobs)?;
        (next.rows_read, next.bad_rows, next.level, next.position_text) = known;
        if let Some(slot) = self.readers.get_mut(leader) {
            *slot = next;
        }
        Ok(())
    }

    fn start_reader(
        &self,
        source: RelationId,
        columns: Vec<usize>,
        from: Option<Position>,
        until: Option<Position>,
        jobs: Vec<JobId>,
    ) -> Result<SourceReader> {
        let missing = || Error::internal("a job reads a source that is not there");
        let spec = self.sources.get(&source).ok_or_else(missing)?;
        SourceReader::start(spec, columns, from, until, jobs, self.sender.clone(), Arc::clone(&self.wake_pending))
    }

    /// A job is gone; readers that serve no other one end.
    pub(super) fn forget_reader(&mut self, job: JobId) {
        for reader in &mut self.readers {
            reader.jobs.retain(|j| *j != job);
        }
        self.readers.retain(|r| !r.jobs.is_empty());
    }
}

/// The columns of a source that a job reads.
fn columns_of(spec: &JobSpec, source: RelationId) -> Vec<usize> {
    let mut columns = Vec::new();
    for node in &spec.plan.nodes {
        if let Operator::Scan { relation, projection } = &node.operator
            && *relation == source
        {
            columns.extend(projection);
        }
    }
    columns.sort_unstable();
    columns.dedup();
    columns
}
