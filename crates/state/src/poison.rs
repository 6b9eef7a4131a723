//! After a failed write or sync nobody knows what is on disk; so nothing more is written, and no file is deleted.

use std::sync::{OnceLock, Weak};

use millpond_common::{Error, Result, SqlState};

use crate::rocks::Rocks;

/// Good until the first failure of storage, then bad for good.
#[derive(Default)]
pub(crate) struct Poison {
    failure: OnceLock<Error>,
    /// Is told of it.
    listener: OnceLock<Box<dyn Fn(&Error) + Send + Sync>>,
    /// Keeps its files then.
    rocks: Weak<Rocks>,
}

impl Poison {
    /// Of a database that is good.
    pub(crate) fn new(rocks: Weak<Rocks>) -> Self {
        Poison { rocks, ..Poison::default() }
    }

    /// Fails if storage has failed before.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(first) => {
                let detail = first.detail().map_or_else(|| first.message().to_owned(), |d| format!("{}: {d}", first.message()));
                Err(Error::new(SqlState::IO_ERROR, "storage has failed, nothing more is written")
                    .with_detail(detail)
                    .with_hint("Restart the server: it continues from the last checkpoint and the table log."))
            }
        }
    }

    /// Names whom to tell of the first failure.
    pub(crate) fn listen(&self, tell: impl Fn(&Error) + Send + Sync + 'static) {
        // A second listener would be a second engine over one store.
        drop(self.listener.set(Box::new(tell)));
    }

    /// Passes a result of storage on; a failure is remembered.
    pub(crate) fn guard<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && self.failure.set(error.clone()).is_ok()
        {
            tracing::error!(%error, "storage failed, nothing more is written");
            if let Some(Err(error)) = self.rocks.upgrade().map(|rocks| rocks.keep_files()) {
                tracing::warn!(%error, "files that seem obsolete may still be deleted");
            }
            if let Some(tell) = self.listener.get() {
                tell(error);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_last_word() {
        let poison = Poison::default();
        assert_eq!(poison.guard(Ok(7)).unwrap(), 7);
        poison.check().unwrap();
        poison.guard::<()>(Err(Error::new(SqlState::DISK_FULL, "no space"))).unwrap_err();
        poison.guard::<()>(Err(Error::new(SqlState::IO_ERROR, "other"))).unwrap_err();
        let error = poison.check().unwrap_err();
        assert_eq!((error.state(), error.detail()), (SqlState::IO_ERROR, Some("no space")));
    }
}
