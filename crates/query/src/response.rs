//! What statements answer, and what sessions tell their clients on the way.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millpond_common::text::zone::Zone;
use millpond_common::{Result, SqlState, SqlType};

use crate::cancel::Limits;
use crate::error::from_datafusion;

/// A message beside the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    /// Its SQLSTATE; `00000` for mere information.
    pub state: SqlState,
    /// One line.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Notice {
    /// A NOTICE.
    pub fn notice(message: impl Into<String>) -> Self {
        Notice { severity: "NOTICE", state: SqlState("00000"), message: message.into(), detail: None, hint: None }
    }

    /// A WARNING.
    pub fn warning(state: SqlState, message: impl Into<String>) -> Self {
        Notice { severity: "WARNING", state, message: message.into(), detail: None, hint: None }
    }
}

/// Where a session's notices go. Must not block.
pub type NoticeSink = Arc<dyn Fn(Notice) + Send + Sync>;

/// Rows of a result, batch by batch.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// What a statement answers.
pub enum Response {
    /// Rows.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: RowStream,
        /// The command tag without the number of rows.
        tag: String,
    },
    /// No rows.
    Command {
        /// The whole command tag.
        tag: String,
    },
    /// The statement was empty.
    Empty,
}

impl Response {
    /// No rows.
    pub fn command(tag: impl Into<String>) -> Self {
        Response::Command { tag: tag.into() }
    }

    /// Rows that are in memory.
    pub fn batches(schema: SchemaRef, batches: Vec<RecordBatch>, tag: &str) -> Self {
        Response::Rows { schema, rows: stream::iter(batches.into_iter().map(Ok)).boxed(), tag: tag.into() }
    }

    /// One text column.
    pub fn lines(name: &str, lines: impl IntoIterator<Item = String>, tag: &str) -> Result<Self> {
        Self::text(&[name], lines.into_iter().map(|line| vec![Some(line)]).collect(), tag)
    }

    /// Text columns.
    pub fn text(names: &[&str], rows: Vec<Vec<Option<String>>>, tag: &str) -> Result<Self> {
        let schema = text_schema(names);
        let column = |i: usize| -> ArrayRef { Arc::new(rows.iter().map(|r| r.get(i).cloned().flatten()).collect::<StringArray>()) };
        let columns = (0..names.len()).map(column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(Self::batches(schema, vec![batch], tag))
    }
}

/// The schema of text columns.
pub fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|n| SqlType::Text.field(n, true)).collect::<Vec<_>>()))
}

/// Columns as a client is told of them, moments shown in its zone. NULL is always possible: nullability is the planner's guess.
pub fn client_schema(schema: &SchemaRef, zone: Zone) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| {
        let shown = zone.shown(f.data_type());
        Arc::new(Field::clone(f).with_nullable(true).with_data_type(shown))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The batch's columns under the names and types of `schema`.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => arrow::compute::cast(column, field.data_type()),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// A query's rows as the client gets them: in its columns, with our errors, ended by the statement's limits.
pub fn row_stream(rows: SendableRecordBatchStream, schema: SchemaRef, limits: Limits) -> RowStream {
    stream::unfold(Some((rows, schema, limits)), |state| async move {
        let (mut rows, schema, limits) = state?;
        match limits.run(async { Ok(rows.next().await) }).await {
            Ok(Some(Ok(batch))) => {
                let batch = conform(&batch, &schema);
                let next = batch.is_ok().then_some((rows, schema, limits));
                Some((batch, next))
            }
            Ok(Some(Err(error))) => Some((Err(from_datafusion(error)), None)),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// One-row parameter arrays of a statement as constants.
pub fn parameter_values(parameters: &[ArrayRef]) -> Result<Vec<datafusion::common::ScalarValue>> {
    let value = |array: &ArrayRef| datafusion::common::ScalarValue::try_from_array(array, 0).map_err(from_datafusion);
    parameters.iter().filter(|a| a.len() == 1).map(value).collect()
}
