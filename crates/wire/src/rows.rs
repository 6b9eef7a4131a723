//! A result on its way to the client: batches are taken from the session and written row by row.

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::StreamExt;
use millpond_common::{Error, Result, SqlType};

use crate::cancel::CancelHandle;
use crate::column::Column;
use crate::database::RowStream;
use crate::io::{Fault, Io, shutdown_error};

/// Rows that are being sent, possibly in several portions.
pub(crate) struct Rows {
    stream: RowStream,
    types: Vec<SqlType>,
    /// Per column: binary or text.
    binary: Vec<bool>,
    tag: String,
    /// The batch at hand, and its next row.
    batch: Vec<Column>,
    row: usize,
    batch_rows: usize,
    /// Rows sent in all portions.
    sent: usize,
}

/// How a portion ended.
pub(crate) enum Portion {
    /// There may be more rows.
    Suspended,
    /// The last row was sent; the whole command tag.
    Complete(String),
}

impl Rows {
    pub(crate) fn new(schema: &SchemaRef, stream: RowStream, tag: String, binary: Vec<bool>) -> Self {
        let types = schema.fields().iter().map(|f| SqlType::of(f)).collect();
        Rows { stream, types, binary, tag, batch: Vec::new(), row: 0, batch_rows: 0, sent: 0 }
    }

    /// Sends at most `rows_max` rows; 0 means all.
    pub(crate) async fn send(&mut self, io: &mut Io, rows_max: usize) -> Result<Portion, Fault> {
        let rows_max = if rows_max == 0 { usize::MAX } else { rows_max };
        let mut portion = 0;
        loop {
            while self.row < self.batch_rows {
                if portion == rows_max {
                    return Ok(Portion::Suspended);
                }
                io.output.data_row(&self.batch, &self.binary, self.row)?;
                io.output.flush_if_full().await?;
                self.row += 1;
                portion += 1;
                self.sent += 1;
            }
            if portion == rows_max {
                return Ok(Portion::Suspended);
            }
            if io.shutting_down() {
                return Err(Fault::Fatal(shutdown_error()));
            }
            match self.next_batch(io).await? {
                Some(batch) => self.take(&batch)?,
                None => break,
            }
        }
        // A SELECT counts the rows of this portion, a command with RETURNING all that it changed.
        let count = if matches!(self.tag.as_str(), "SELECT" | "FETCH") { portion } else { self.sent };
        Ok(Portion::Complete(format!("{} {count}", self.tag)))
    }

    /// What re-running a finished portal answers, if it can be re-run.
    pub(crate) fn finished_tag(&self) -> Option<String> {
        (self.tag == "SELECT").then(|| "SELECT 0".to_string())
    }

    async fn next_batch(&mut self, io: &mut Io) -> Result<Option<RecordBatch>, Fault> {
        let cancel = io.cancel.clone();
        let stream = &mut self.stream;
        let next = async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Some(Err(CancelHandle::error())),
                batch = stream.next() => batch,
            }
        };
        Ok(io.during(next).await?.transpose()?)
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.types.len() {
            return Err(Error::internal(format!("a batch has {} columns instead of {}", batch.num_columns(), self.types.len())));
        }
        self.batch = batch.columns().iter().zip(&self.types).map(|(array, sql)| Column::new(array, sql)).collect::<Result<_>>()?;
        self.batch_rows = batch.num_rows();
        self.row = 0;
        Ok(())
    }
}
