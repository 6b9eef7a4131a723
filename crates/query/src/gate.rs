//! What every write passes: closed for good once the database is to be replaced by a savepoint, so that nothing is answered
//! that the restored database does not have.

use std::sync::atomic::{AtomicBool, Ordering};

use millpond_common::{Error, Result, SqlState};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Open until [`Closing::close`].
#[derive(Default)]
pub(crate) struct Gate {
    /// Held for reading by writes on their way.
    writes: RwLock<()>,
    closed: AtomicBool,
}

/// No write is on its way and none begins. Dropped without [`Closing::close`], the gate is open again.
pub(crate) struct Closing<'a> {
    gate: &'a Gate,
    _writes: RwLockWriteGuard<'a, ()>,
}

impl Gate {
    /// Waits while it may be closing; held until the write is durable.
    pub async fn enter(&self) -> Result<RwLockReadGuard<'_, ()>> {
        let entered = self.writes.read().await;
        self.check()?;
        Ok(entered)
    }

    /// An error if it is closed.
    pub fn check(&self) -> Result<()> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::new(SqlState::CANNOT_CONNECT_NOW, "the database is being restored from a savepoint")
            .with_hint("Connect again in a moment."))
    }

    /// Waits for the writes on their way, and holds others up.
    pub async fn closing(&self) -> Result<Closing<'_>> {
        let writes = self.writes.write().await;
        self.check()?;
        Ok(Closing { gate: self, _writes: writes })
    }
}

impl Closing<'_> {
    /// Nothing is written any more.
    pub fn close(self) {
        self.gate.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_end_before_it_closes_and_none_begins_after() {
        let gate = std::sync::Arc::new(Gate::default());
        let write = gate.enter().await;
        let (closes, waiting) = (std::sync::Arc::clone(&gate), std::sync::Arc::clone(&gate));
        let close = tokio::spawn(async move { closes.closing().await.map(Closing::close) });
        while gate.writes.try_read().is_ok() {
            tokio::task::yield_now().await;
        }
        let late = tokio::spawn(async move { waiting.enter().await.map(drop) });
        assert!(write.is_ok() && gate.check().is_ok() && !close.is_finished() && !late.is_finished());
        drop(write);
        assert!(close.await.is_ok_and(|closed| closed.is_ok()));
        assert!(late.await.is_ok_and(|late| late.is_err_and(|e| e.state() == SqlState::CANNOT_CONNECT_NOW)));
        assert!(gate.check().is_err() && gate.closing().await.is_err());
    }

    #[tokio::test]
    async fn it_stays_open_when_what_it_was_to_close_for_fails() {
        let gate = Gate::default();
        drop(gate.closing().await);
        assert!(gate.enter().await.is_ok());
    }
}
