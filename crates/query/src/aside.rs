//! Statements are planned on the threads that serve all sessions. Most plans take less than a millisecond, but a client can send
//! one that takes seconds, and nothing ends it: so another thread serves the others meanwhile. To let it takes 50 us, which is much
//! for simple statements.

use std::future::{Future, poll_fn};
use std::pin::pin;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Statements of less depth are planned in place.
const DEPTH_ASIDE: usize = 8;

/// Whether a statement is planned at once, most likely.
pub(crate) fn is_simple(statement: &millpond_sql::Statement) -> bool {
    statement.depth < DEPTH_ASIDE
}

/// Runs what may compute for long. While it waits it keeps no thread.
pub(crate) async fn aside<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| compute(|| future.as_mut().poll(context))).await
}

/// The same for what does not wait.
pub(crate) fn compute<T>(f: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(f),
        _ => f(),
    }
}
