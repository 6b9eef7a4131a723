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

    /// At a start, a job that was behind the source's leader is again: the leader stands where it was, even if the jobs that it
    /// serves come later.
    pub(super) fn start_leader(
        &mut self,
        spec: &JobSpec,
        source: RelationId,
        from: &Option<Position>,
        place: Option<Position>,
    ) -> Result<()> {
        if self.leader(source).is_none() && place.is_some() && place != *from {
            let reader = self.start_reader(source, columns_of(spec, source), place, None, vec![])?;
            self.readers.push(reader);
        }
        Ok(())
    }

    fn leader(&self, source: RelationId) -> Option<usize> {
        self.readers.iter().position(|r| r.source == source && r.leads())
    }

    /// Whether rows of a reader may go into the next epoch.
    pub(super) fn may_take(&self, reader: &SourceReader) -> bool {
        self.serves(reader)
            && !self.is_throttled(&reader.jobs)
            && !(reader.leads() && self.readers.iter().any(|r| r.source == reader.source && r.holds_leader))
    }

    /// Whether a job runs that reads from it. A leader whose jobs have all failed waits for them where it is.
    fn serves(&self, reader: &SourceReader) -> bool {
        reader.jobs.iter().any(|id| self.jobs.get(id).is_some_and(|j| j.attached))
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
        self.end_unused();
    }

    /// A job waits for its restart: leaders remember it, the reader with which it was catching up ends.
    pub(super) fn leave_readers(&mut self, job: JobId) {
        for reader in self.readers.iter_mut().filter(|r| !r.leads()) {
            reader.jobs.retain(|j| *j != job);
        }
        self.end_unused();
    }

    /// Readers end that serve no job, except leaders that are being caught up with.
    fn end_unused(&mut self) {
        let followed = self.readers.iter().filter(|r| !r.leads() && !r.jobs.is_empty()).map(|r| r.source).collect::<Vec<_>>();
        self.readers.retain(|r| !r.jobs.is_empty() || (r.leads() && followed.contains(&r.source)));
    }

    /// A job that is restarted reads a source again: from where it was saved (`None`: from the beginning) to where the leader
    /// has come, which opens the source anew if it had failed.
    pub(super) fn read_again(&mut self, spec: &JobSpec, source: RelationId, from: Option<Position>) -> Result<()> {
        for reader in self.readers.iter_mut().filter(|r| r.source == source) {
            reader.jobs.retain(|j| *j != spec.id);
        }
        if let Some(at) = self.leader(source)
            && let Some(failed) = self.readers.get(at).filter(|r| r.error.is_some())
        {
            let (columns, place, jobs) = (failed.columns.as_ref().clone(), failed.position.clone(), failed.jobs.clone());
            let known = (failed.rows_read, failed.bad_rows, failed.position_text.clone());
            let mut next = self.start_reader(source, columns, place, None, jobs)?;
            (next.rows_read, next.bad_rows, next.position_text) = known;
            if let Some(slot) = self.readers.get_mut(at) {
                *slot = next;
            }
        }
        let result = self.read_source(spec, source, from);
        self.end_unused();
        result
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
