//! State that expires: what time it is, and when an epoch is due only because time passes.
//!
//! Workers learn the time with each epoch, so that all agree on it. A view with a `state_ttl` gets an epoch in every step of its
//! [`Lifetime`] as long as it keeps anything that may expire.

use std::time::{Duration, SystemTime};

use millpond_common::JobId;

use super::{Clock, Job};
use crate::operators::expiring::{Lifetime, Time};

/// What the clock knows of a job's state that expires.
#[derive(Default)]
pub(super) struct Expiry {
    /// The step that its newest epoch was in.
    step: Time,
    /// By worker, whether there is any; all of which nothing is known yet may have some.
    kept: Vec<bool>,
}

impl Expiry {
    /// A worker has told.
    pub fn note(&mut self, worker: usize, kept: bool) {
        if self.kept.len() <= worker {
            self.kept.resize(worker + 1, true);
        }
        self.kept.iter_mut().skip(worker).take(1).for_each(|known| *known = kept);
    }
}

/// Milliseconds since 1970.
fn system_time() -> Time {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as Time)
}

impl Clock {
    fn now(&self) -> Time {
        system_time().max(self.time)
    }

    /// The newest epoch's time for those of its jobs whose state expires.
    pub(super) fn lifetimes(&mut self, active: &[JobId]) -> Vec<(JobId, Lifetime)> {
        self.time = self.now();
        let mut lifetimes = Vec::new();
        for id in active {
            let Some(job) = self.jobs.get_mut(id).filter(|j| j.spec.plan.expires()) else { continue };
            let lifetime = lifetime(job, self.time);
            job.expiry.step = lifetime.step();
            lifetimes.push((*id, lifetime));
        }
        lifetimes
    }

    /// The job's lifetime, if any of its state may expire.
    fn may_expire(&self, job: &Job) -> Option<Lifetime> {
        let lifetime = lifetime(job, self.now());
        let kept = || (0..self.workers.count()).any(|worker| job.expiry.kept.get(worker).copied().unwrap_or(true));
        (job.attached && job.spec.plan.expires() && lifetime.ttl.is_some() && kept()).then_some(lifetime)
    }

    /// Whether a job has not looked for what has expired in this step.
    pub(super) fn is_expiry_due(&self, job: &Job) -> bool {
        self.may_expire(job).is_some_and(|lifetime| lifetime.step() != job.expiry.step)
    }

    /// Until the next job has to look.
    pub(super) fn time_to_expiry(&self) -> Option<Duration> {
        self.jobs.values().filter_map(|job| self.may_expire(job)).map(|lifetime| Duration::from_millis(lifetime.rest())).min()
    }
}

fn lifetime(job: &Job, now: Time) -> Lifetime {
    Lifetime { now, ttl: job.options.duration("state_ttl").map(|ttl| ttl.as_millis() as Time) }
}
