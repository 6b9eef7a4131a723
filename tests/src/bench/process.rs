//! The database without a server around it: statements go straight to a session, no wire protocol in between.

use std::path::Path;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use millpond_query::{CancelToken, Database, DatabaseOptions, Response, Session, Startup};
use millpond_tests::oracle;

/// A database of this process, and a session.
pub struct InProcess {
    /// The database.
    pub database: Arc<Database>,
    session: Session,
}

impl InProcess {
    /// Opens a new database that may use so many bytes of memory.
    pub async fn open(dir: &Path, workers: usize, memory: u64) -> InProcess {
        let options = DatabaseOptions { directory: dir.join("db"), workers, memory, storage: None };
        let database = tokio::task::spawn_blocking(move || Database::open(&options)).await.unwrap().unwrap();
        let startup = Startup { user: "tester".into(), database: None, parameters: Default::default(), process_id: 1, client: None };
        let session = database.connect(startup, Arc::new(|_| {}), CancelToken::new()).unwrap();
        InProcess { database, session }
    }

    /// Runs statements; all their rows, as texts.
    pub async fn run(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn try_run(&mut self, sql: &str) -> millpond_common::Result<Vec<Vec<Option<String>>>> {
        let options = FormatOptions::default();
        let mut found = Vec::new();
        for statement in self.session.parse(sql)? {
            if let Response::Rows { mut rows, .. } = self.session.execute(&statement, vec![], false).await? {
                while let Some(batch) = rows.next().await {
                    let batch = batch?;
                    let columns = batch.columns().iter().map(|c| Ok((c, ArrayFormatter::try_new(c, &options)?)));
                    let columns = columns.collect::<millpond_common::Result<Vec<_>>>()?;
                    let text = |row: usize| columns.iter().map(|(c, f)| c.is_valid(row).then(|| f.value(row).to_string())).collect();
                    found.extend((0..batch.num_rows()).map(text));
                }
            }
            self.session.finish_implicit(true).await?;
        }
        Ok(found)
    }

    /// Compares every materialized view with its query.
    pub async fn check_all(&mut self) -> Result<(), String> {
        for view in self.run("SELECT matviewname, definition FROM pg_catalog.pg_matviews").await {
            let [Some(name), Some(definition)] = view.as_slice() else { return Err(format!("pg_matviews has {view:?}")) };
            let rows = self.run(&oracle::both_sides(name, definition)).await;
            oracle::compare(name, definition, rows)?;
        }
        Ok(())
    }
}
