//! CREATE MATERIALIZED VIEW waits until the view has caught up, and says how far it is.

use std::time::{Duration, Instant};

use millpond_common::{Error, Result, SqlState};
use millpond_engine::{JobHandle, JobProgress, JobState};

use crate::cancel::Limits;
use crate::response::{Notice, NoticeSink};

/// How often a waiting client hears of the progress.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until the job runs. An error: it failed, or the statement was ended early. `rows_read`: how many rows its
/// operators have taken in, for jobs that do not count what they read.
pub async fn wait(
    name: &str,
    mut handle: JobHandle,
    limits: &Limits,
    notices: &NoticeSink,
    rows_read: &(dyn Fn() -> u64 + Sync),
) -> Result<()> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval_at((start + NOTICE_INTERVAL).into(), NOTICE_INTERVAL);
    loop {
        let mut now = handle.progress.borrow_and_update().clone();
        now.rows_done = now.rows_done.max(rows_read());
        match &now.state {
            JobState::Running => {
                notices(Notice::notice(done(name, &now, start.elapsed())));
                return Ok(());
            }
            JobState::Failed(error) => return Err(error.clone()),
            JobState::Backfilling | JobState::Restarting(_) => {}
        }
        tokio::select! {
            error = limits.exceeded() => return Err(error),
            _ = ticks.tick() => notices(Notice::notice(under_way(name, &now))),
            changed = handle.progress.changed() => {
                changed.map_err(|_| Error::new(SqlState::ADMIN_SHUTDOWN, format!("materialized view \"{name}\" was dropped or the server is shutting down")))?;
            }
        }
    }
}

fn under_way(name: &str, progress: &JobProgress) -> String {
    match progress.rows_total {
        Some(total) if total > 0 => {
            let percent = (progress.rows_done.min(total) * 100) / total;
            format!("filling \"{name}\": {} of {total} rows read ({percent} %)", progress.rows_done.min(total))
        }
        _ => format!("filling \"{name}\": {} rows read", progress.rows_done),
    }
}

fn done(name: &str, progress: &JobProgress, took: Duration) -> String {
    format!("\"{name}\" is up to date: {} rows read in {:.1} s", progress.rows_done, took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cancel::CancelToken;
    use std::sync::{Arc, Mutex};
    use tokio::sync::watch;

    fn at(state: JobState, rows_done: u64) -> JobProgress {
        JobProgress { state, rows_done, rows_total: Some(200) }
    }

    #[tokio::test]
    async fn tells_the_end() {
        let (sender, progress) = watch::channel(at(JobState::Backfilling, 0));
        let heard = Arc::new(Mutex::new(vec![]));
        let sink: NoticeSink = {
            let heard = Arc::clone(&heard);
            Arc::new(move |n| heard.lock().unwrap().push(n.message))
        };
        let limits = Limits { cancel: CancelToken::new(), deadline: None };
        let finish = async { sender.send(at(JobState::Running, 200)).unwrap() };
        let (result, ()) = tokio::join!(wait("v", JobHandle { progress }, &limits, &sink, &|| 0), finish);
        result.unwrap();
        assert!(heard.lock().unwrap().last().unwrap().starts_with("\"v\" is up to date: 200 rows"));
        assert_eq!(under_way("v", &at(JobState::Backfilling, 50)), "filling \"v\": 50 of 200 rows read (25 %)");
    }

    #[tokio::test]
    async fn failure_and_cancel_are_errors() {
        let (sender, progress) = watch::channel(at(JobState::Failed(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")), 1));
        let sink: NoticeSink = Arc::new(|_| {});
        let limits = Limits { cancel: CancelToken::new(), deadline: None };
        let failed = wait("v", JobHandle { progress: progress.clone() }, &limits, &sink, &|| 0).await.unwrap_err();
        assert_eq!(failed.state(), SqlState::DIVISION_BY_ZERO);
        sender.send(at(JobState::Backfilling, 1)).unwrap();
        limits.cancel.cancel();
        let cancelled = wait("v", JobHandle { progress }, &limits, &sink, &|| 0).await.unwrap_err();
        assert_eq!(cancelled.state(), SqlState::QUERY_CANCELED);
    }
}
