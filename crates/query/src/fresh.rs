//! For tests inside of this crate: a session of a new database.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::{CancelToken, Database, DatabaseOptions, Session, Startup};

/// Runs a test with a session of a new database of one worker.
pub(crate) fn with_session(test: impl AsyncFnOnce(&mut Session)) {
    let directory = tempfile::tempdir().unwrap();
    let options = DatabaseOptions { directory: directory.path().into(), workers: 1, memory: 64 << 20, storage: None };
    let database = Database::open(&options).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let startup = Startup { user: "tester".into(), database: None, parameters: Default::default(), process_id: 1, client: None };
        let mut session = database.connect(startup, Arc::new(|_| {}), CancelToken::new()).unwrap();
        test(&mut session).await;
        database.shutdown().await.unwrap();
    });
}
