//! SELECT from a source, outside views: the source is read from its beginning, for this query alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use millpond_common::{Error, SqlState};
use millpond_connect::{FormatSpec, Poll, Span};

use crate::leaf::LeafExec;

/// How many decoded batches may wait for a slow query.
const BATCHES_AHEAD: usize = 2;

/// A source read once by one query.
pub struct SourceProvider {
    name: String,
    options: BTreeMap<String, String>,
    format: FormatSpec,
    schema: SchemaRef,
    peek: bool,
}

impl SourceProvider {
    /// A source with its declared columns. `peek`: the query ends after some rows, though the source may not.
    pub fn new(name: String, options: BTreeMap<String, String>, format: FormatSpec, schema: SchemaRef, peek: bool) -> Self {
        SourceProvider { name, options, format, schema, peek }
    }
}

impl fmt::Debug for SourceProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceProvider({})", self.name)
    }
}

#[async_trait]
impl TableProvider for SourceProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounded = millpond_connect::is_bounded(&self.options);
        if !bounded && limit.is_none() && !self.peek {
            let error = Error::unsupported(
                format!("cannot read all of source \"{}\", which has no end", self.name),
                format!("Peek with SELECT * FROM {0} LIMIT 10, or CREATE MATERIALIZED VIEW … AS SELECT … FROM {0}.", self.name),
            );
            return Err(DataFusionError::External(Box::new(error)));
        }
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        // A reader needs a column to count rows by.
        let columns = if wanted.is_empty() && !self.schema.fields().is_empty() { vec![0] } else { wanted.clone() };
        let fields = wanted.iter().map(|c| Arc::clone(&self.schema.fields()[*c])).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let names = schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let description =
            format!("SourceScan: {}, columns=[{names}]{}", self.name, limit.map(|l| format!(", limit={l}")).unwrap_or_default());
        let reading = Reading {
            options: self.options.clone(),
            format: self.format.clone(),
            declared: Arc::clone(&self.schema),
            schema: Arc::clone(&schema),
            columns,
            keep: wanted.len(),
            limit,
            bounded,
        };
        let open = move |_: usize| -> Result<SendableRecordBatchStream> {
            let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&reading.schema), BATCHES_AHEAD);
            let (sender, reading) = (builder.tx(), reading.clone());
            builder.spawn_blocking(move || reading.run(&|batch| sender.blocking_send(Ok(batch)).is_ok()));
            Ok(builder.build())
        };
        Ok(Arc::new(LeafExec::new(description, schema, 1, None, Arc::new(open))))
    }
}

/// One pass over a source.
#[derive(Clone)]
struct Reading {
    options: BTreeMap<String, String>,
    format: FormatSpec,
    declared: SchemaRef,
    schema: SchemaRef,
    columns: Vec<usize>,
    /// How many of `columns` the query sees.
    keep: usize,
    limit: Option<usize>,
    bounded: bool,
}

impl Reading {
    /// Reads until the end, the limit, or until `send` says that nobody listens.
    fn run(&self, send: &dyn Fn(RecordBatch) -> bool) -> Result<()> {
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let mut reader =
            millpond_connect::open(&self.options, &self.format, &self.declared, &self.columns, Span::default()).map_err(external)?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut idle = 0;
        while left > 0 {
            let chunk = match reader.next().map_err(external)? {
                Poll::Chunk(chunk) => chunk,
                Poll::End => break,
                // An endless source has given what it has.
                Poll::Idle if !self.bounded && idle >= IDLE_POLLS_MAX => break,
                Poll::Idle => {
                    idle += 1;
                    // An empty batch: a cancelled query is noticed although nothing arrives.
                    if !send(RecordBatch::new_empty(Arc::clone(&self.schema))) {
                        break;
                    }
                    continue;
                }
            };
            idle = 0;
            if chunk.delta.diffs.is_some() && !chunk.delta.is_append_only() {
                let error = Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot read a source of changes outside a materialized view");
                return Err(external(error));
            }
            let rows = chunk.delta.len().min(left);
            left -= rows;
            let kept = (0..self.keep).collect::<Vec<_>>();
            let batch = chunk.delta.batch.slice(0, rows).project(&kept)?;
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &options)?;
            if !send(batch) {
                break;
            }
        }
        Ok(())
    }
}

/// How often an endless source may have nothing (each up to some 50 ms) before a peek ends with what there is.
const IDLE_POLLS_MAX: usize = 20;
