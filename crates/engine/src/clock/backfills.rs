//! How fast jobs read what their inputs held when they were created: as much as does not disturb the others, and no
//! more than `backfill_rate_limit` says.

use std::time::{Duration, Instant};

use millpond_common::JobId;

use super::{Clock, Job};
use crate::job::JobState;
use crate::messages::BackfillOrders;

/// Time whose rows may be read at once.
const BURST: Duration = Duration::from_millis(100);

/// Counts what a job may read.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Rows; below zero if a chunk of a source was larger than what was left.
    left: f64,
    at: Instant,
}

impl Throttle {
    pub fn new(now: Instant) -> Self {
        Throttle { left: 1.0, at: now }
    }

    /// Rows that may be read now, at so many a second.
    fn allowed(&mut self, rate: u64, now: Instant) -> u64 {
        let rate = rate as f64;
        let gained = now.duration_since(self.at).as_secs_f64() * rate;
        self.at = now;
        self.left = (self.left + gained).min((rate * BURST.as_secs_f64()).max(1.0));
        self.left.max(0.0) as u64
    }

    fn take(&mut self, rows: u64) {
        self.left -= rows as f64;
    }

    /// Until there is enough that an epoch is worth its while.
    fn wait(&self, rate: u64, now: Instant) -> Duration {
        let rate = rate as f64;
        let enough = (rate * BURST.as_secs_f64() / 2.0).max(1.0);
        let missing = enough - self.left - now.duration_since(self.at).as_secs_f64() * rate;
        Duration::from_secs_f64((missing / rate).clamp(0.0, 3600.0))
    }
}

impl Clock {
    /// Rows a second that a job may read while it is filled; `None`: as many as it can.
    fn rate(&self, job: &Job) -> Option<u64> {
        u64::try_from(job.options.over(&self.settings).integer("backfill_rate_limit")).ok().filter(|rate| *rate > 0)
    }

    /// It has rows to read from tables or views.
    fn reads_on(&self, job: &Job) -> bool {
        job.attached && matches!(job.state, JobState::Backfilling | JobState::Restarting(_)) && job.workers_done < self.workers.count()
    }

    /// A job that is not level yet reads on in every epoch, even where nothing else happens; and time may have come for another.
    pub(super) fn wants_epoch(&self, job: &Job) -> bool {
        self.is_expiry_due(job)
            || self.reads_on(job)
                && !self.is_memory_tight()
                && self.rate(job).is_none_or(|r| job.throttle.wait(r, Instant::now()).is_zero())
    }

    /// Until a throttled job may read on.
    pub(super) fn time_to_backfill(&self) -> Option<Duration> {
        let now = Instant::now();
        let reading =
            self.jobs.iter().filter(|(id, j)| self.reads_on(j) || self.readers.iter().any(|r| r.has_input() && r.jobs.contains(id)));
        reading.filter_map(|(_, job)| Some(job.throttle.wait(self.rate(job)?, now))).filter(|wait| !wait.is_zero()).min()
    }

    /// Whether the jobs of a source's reader may take more rows: it is as slow as the slowest of those that are being filled,
    /// as long as no other needs it.
    pub(super) fn is_throttled(&self, jobs: &[JobId]) -> bool {
        let jobs = jobs.iter().filter_map(|id| self.jobs.get(id)).collect::<Vec<_>>();
        let filling = |j: &&Job| matches!(j.state, JobState::Backfilling);
        let now = Instant::now();
        jobs.iter().all(filling) && jobs.iter().any(|j| self.rate(j).is_some_and(|r| !j.throttle.wait(r, now).is_zero()))
    }

    /// What these jobs, which take part in the next epoch, read in it.
    pub(super) fn backfill_orders(&mut self, active: &[JobId]) -> Option<BackfillOrders> {
        let (workers, rows, tight) = (self.workers.count(), self.backfill_rows(), self.is_memory_tight());
        let reading = self
            .jobs
            .iter()
            .filter(|(id, j)| active.contains(id) && self.reads_on(j))
            .map(|(id, j)| (*id, self.rate(j)))
            .collect::<Vec<_>>();
        let mut rows_max = Vec::with_capacity(reading.len());
        for (id, rate) in reading {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let readers = (workers - job.workers_done.min(workers)).max(1);
            let allowed = rate.map_or(usize::MAX, |rate| job.throttle.allowed(rate, Instant::now()) as usize / readers);
            let share = if tight { 0 } else { rows.min(allowed) };
            if rate.is_some() {
                job.throttle.take((share * readers) as u64);
            }
            rows_max.push((id, share));
        }
        (!rows_max.is_empty()).then(|| BackfillOrders { view: self.store.read_view(), rows_max })
    }

    /// Rows of a source were given to a job that is being filled.
    pub(super) fn note_source_rows(job: &mut Job, rows: u64) {
        job.source_rows += rows;
        job.throttle.take(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate() {
        let start = Instant::now();
        for (rate, step_ms, least) in [(1000, 2, 1900), (10, 7, 15), (1, 100, 2), (100_000, 30, 190_000)] {
            let (mut throttle, mut now, mut rows) = (Throttle::new(start), start, 0);
            while now < start + Duration::from_secs(2) {
                let allowed = throttle.allowed(rate, now);
                throttle.take(allowed);
                rows += allowed;
                now += Duration::from_millis(step_ms);
            }
            assert!((least..=2 * rate + 1).contains(&rows), "{rows} rows in 2 s at {rate} a second");
        }
        // A chunk that was too large is paid for before the next one.
        let mut throttle = Throttle::new(start);
        throttle.take(51);
        assert_eq!(throttle.wait(100, start), Duration::from_millis(550));
        assert_eq!(throttle.allowed(100, start + Duration::from_millis(400)), 0);
    }
}
