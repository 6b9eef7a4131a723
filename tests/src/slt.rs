//! SQL logic tests against the real server, over the wire. After each script every view is compared with the batch
//! oracle, and again after `kill -9` and a restart.

use std::path::Path;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::oracle;
use crate::server::{Server, describe};

struct Connection(Client);

/// An error as scripts expect it: SQLSTATE, message, detail and hint.
#[derive(Debug)]
struct SqlError(String, Option<String>);

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SqlError {}

#[async_trait]
impl AsyncDB for Connection {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        let fail = |e: tokio_postgres::Error| {
            let state = e.as_db_error().map(|d| d.code().code().to_string());
            SqlError(describe(&e).replace('\n', " "), state)
        };
        let messages = self.0.simple_query(sql).await.map_err(fail)?;
        let (mut table, mut columns, mut count) = (Vec::new(), None, 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(d) => columns = Some(d.len()),
                SimpleQueryMessage::Row(row) => {
                    let text = |i| match row.get(i) {
                        None => "NULL".to_string(),
                        Some("") => "(empty)".to_string(),
                        Some(t) => t.replace('\n', "\\n"),
                    };
                    table.push((0..row.len()).map(text).collect());
                }
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        Ok(match columns {
            Some(n) => DBOutput::Rows { types: vec![DefaultColumnType::Any; n], rows: table },
            None => DBOutput::StatementComplete(count),
        })
    }

    fn engine_name(&self) -> &str {
        "millpond"
    }

    fn error_sql_state(error: &SqlError) -> Option<String> {
        error.1.clone()
    }

    async fn shutdown(&mut self) {}
}

/// Runs one script. A line `# oracle: off` leaves out the comparison, for scripts whose views have no batch form.
pub async fn run_file(path: &Path, arguments: &[&str]) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut server = Server::start(dir.path(), arguments).await;
    let url = server.url();
    let mut runner = sqllogictest::Runner::new(move || {
        let url = url.clone();
        async move {
            let fail = |e: tokio_postgres::Error| SqlError(describe(&e), None);
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map_err(fail)?;
            tokio::spawn(connection);
            Ok(Connection(client))
        }
    });
    let ran = runner.run_file_async(path).await.map_err(|e| e.to_string());
    drop(runner);
    if !server.is_running() {
        return Err(format!("the server has died\n{}", server.log()));
    }
    ran?;
    if std::fs::read_to_string(path).unwrap_or_default().contains("# oracle: off") {
        return Ok(());
    }
    oracle::check_all(&server.connect().await, &[]).await?;
    server.kill();
    server.restart().await;
    oracle::check_all(&server.connect().await, &[]).await.map_err(|e| format!("after kill -9: {e}"))?;
    Ok(())
}
