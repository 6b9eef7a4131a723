//! Restart strategies: whether a failed job is tried again, and when. Pure functions on settings and on what happened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millpond_common::Error;
use millpond_common::settings::Settings;

/// How often a job has failed lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Restarts since a checkpoint found it running.
    pub attempts: u64,
    failures: VecDeque<Instant>,
    backoff: Option<Duration>,
}

impl History {
    /// A checkpoint has found it running: what made it fail is behind it.
    pub fn recovered(&mut self) {
        self.attempts = 0;
    }

    /// The job has failed now. How long to wait before the next try; `None`: it stays as it is.
    pub fn next_try(&mut self, settings: &Settings, now: Instant) -> Option<Duration> {
        let last = self.failures.back().copied();
        self.failures.push_back(now);
        let delay = settings.duration("restart_delay").unwrap_or_default();
        let number = |name: &str| u64::try_from(settings.integer(name)).unwrap_or(0);
        let wait = match settings.get("restart_strategy").as_deref() {
            Ok("fixed-delay") => (self.attempts < number("restart_attempts")).then_some(delay),
            Ok("failure-rate") => {
                let interval = settings.duration("restart_failure_rate_interval").unwrap_or_default();
                self.failures.retain(|at| now.duration_since(*at) < interval);
                (self.failures.len() as u64 <= number("restart_failure_rate_max")).then_some(delay)
            }
            Ok("exponential-delay") => {
                let duration = |name: &str| settings.duration(name).unwrap_or_default();
                let rested = last.is_none_or(|at| now.duration_since(at) >= duration("restart_backoff_reset"));
                let factor = u32::try_from(number("restart_backoff_multiplier")).unwrap_or(u32::MAX);
                let longer = self.backoff.filter(|_| !rested).map(|b| b.saturating_mul(factor));
                let wait = longer.unwrap_or(duration("restart_backoff_initial")).min(duration("restart_backoff_max"));
                self.backoff = Some(wait);
                Some(wait)
            }
            _ => None,
        };
        self.failures.drain(..self.failures.len().saturating_sub(1000));
        self.attempts += u64::from(wait.is_some());
        wait
    }
}

/// Whether another try could go better. The same data would give the same error again.
pub(crate) fn may_pass(error: &Error) -> bool {
    !matches!(error.state().class(), "22" | "23" | "0A" | "54")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(list: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        list.iter().for_each(|(name, value)| settings.set(name, Some(value)).unwrap());
        settings
    }

    /// The waits, in seconds, of a job that fails at these seconds; -1: no more.
    fn waits(list: &[(&str, &str)], failures: &[u64]) -> Vec<i64> {
        let (settings, start, mut history) = (settings(list), Instant::now(), History::default());
        let next = |s: &u64| history.next_try(&settings, start + Duration::from_secs(*s)).map_or(-1, |d| d.as_secs() as i64);
        failures.iter().map(next).collect()
    }

    #[test]
    fn strategies() {
        assert_eq!(waits(&[], &[1, 2, 300, 301]), [5, 5, 5, -1], "fixed-delay: 3 attempts, 5 s");
        let rate = [("restart_strategy", "failure-rate"), ("restart_failure_rate_max", "2"), ("restart_delay", "1s")];
        assert_eq!(waits(&rate, &[0, 10, 90, 95, 97]), [1, 1, 1, 1, -1]);
        let backoff = [("restart_strategy", "exponential-delay"), ("restart_backoff_max", "5s")];
        assert_eq!(waits(&backoff, &[0, 1, 2, 3, 700, 701]), [1, 2, 4, 5, 1, 2]);
        assert_eq!(waits(&[("restart_strategy", "none")], &[0]), [-1]);
    }

    #[test]
    fn a_checkpoint_that_finds_it_running_begins_the_count_anew() {
        let (settings, mut history) = (settings(&[("restart_attempts", "1")]), History::default());
        assert!(history.next_try(&settings, Instant::now()).is_some());
        history.recovered();
        assert!(history.next_try(&settings, Instant::now()).is_some());
        assert!(history.next_try(&settings, Instant::now()).is_none());
    }
}
