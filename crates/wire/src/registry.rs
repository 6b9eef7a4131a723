//! Who is connected: the process numbers and secrets that cancel requests must know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::CancelHandle;

struct Entry {
    secret: Vec<u8>,
    /// Set once the session is there.
    cancel: Option<CancelHandle>,
}

#[derive(Default)]
struct Entries {
    last: i32,
    by_process: HashMap<i32, Entry>,
}

/// The server's sessions.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Entries>>);

impl Registry {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Every change is one insert or remove: a panic cannot leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free process number, for as long as the registration lives.
    pub(crate) fn register(&self, secret: Vec<u8>) -> Registration {
        let mut entries = self.entries();
        let process_id = loop {
            entries.last = entries.last.checked_add(1).unwrap_or(1);
            if !entries.by_process.contains_key(&entries.last) {
                break entries.last;
            }
        };
        entries.by_process.insert(process_id, Entry { secret, cancel: None });
        drop(entries);
        Registration { registry: self.clone(), process_id }
    }

    /// Cancels what a session runs, if the secret is its own.
    pub(crate) fn cancel(&self, process_id: i32, secret: &[u8]) {
        let entries = self.entries();
        if let Some(entry) = entries.by_process.get(&process_id)
            && same(&entry.secret, secret)
            && let Some(cancel) = &entry.cancel
        {
            cancel.cancel();
        }
    }
}

/// Compares secrets in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y))) == 0
}

/// A session's place in the registry; dropping it gives the place back.
pub(crate) struct Registration {
    registry: Registry,
    /// The session's number.
    pub(crate) process_id: i32,
}

impl Registration {
    /// From now on cancel requests reach the session.
    pub(crate) fn set_cancel(&self, cancel: CancelHandle) {
        if let Some(entry) = self.registry.entries().by_process.get_mut(&self.process_id) {
            entry.cancel = Some(cancel);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.entries().by_process.remove(&self.process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_cancels() {
        let registry = Registry::default();
        let registration = registry.register(vec![1, 2, 3, 4]);
        let cancel = CancelHandle::new();
        registration.set_cancel(cancel.clone());
        registry.cancel(registration.process_id, &[1, 2, 3, 5]);
        registry.cancel(registration.process_id, &[1, 2, 3]);
        registry.cancel(registration.process_id + 1, &[1, 2, 3, 4]);
        assert!(!cancel.is_cancelled());
        registry.cancel(registration.process_id, &[1, 2, 3, 4]);
        assert!(cancel.is_cancelled());
        let process_id = registration.process_id;
        drop(registration);
        cancel.reset();
        registry.cancel(process_id, &[1, 2, 3, 4]);
        assert!(!cancel.is_cancelled());
    }
}
