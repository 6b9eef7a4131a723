//! Rows as memory-comparable bytes (Arrow's row format): keys in the store, rows in operator state.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_row::{RowConverter, RowParser, Rows, SortField};
use arrow_schema::{ArrowError, SchemaRef, SortOptions};

use crate::Result;

/// Turns columns of one schema into bytes that compare as the rows do (ascending, nulls last) and back.
pub struct RowCodec {
    converter: RowConverter,
    parser: RowParser,
    schema: SchemaRef,
}

impl RowCodec {
    /// A codec for rows of exactly this schema, ascending with nulls last (PostgreSQL's order).
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let options = SortOptions { descending: false, nulls_first: false };
        let options = vec![options; schema.fields().len()];
        Self::with_order(schema, &options)
    }

    /// A codec whose bytes compare in the given order, one option per column.
    pub fn with_order(schema: SchemaRef, options: &[SortOptions]) -> Result<Self> {
        let fields = schema.fields().iter().zip(options).map(|(f, o)| SortField::new_with_options(f.data_type().clone(), *o)).collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        Ok(RowCodec { converter, parser, schema })
    }

    /// The schema that it was made for.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes columns, which must have the schema's types.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// Encodes a batch.
    pub fn encode_batch(&self, batch: &RecordBatch) -> Result<Rows> {
        self.encode(batch.columns())
    }

    /// Decodes rows that this codec (or one of the same types and order) has encoded. The bytes come
    /// from our own memory or from checksummed storage; damaged bytes may give an error or a panic.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let mut count = 0;
        let parsed = rows.into_iter().inspect(|_| count += 1).map(|bytes| self.parser.parse(bytes)).collect::<Vec<_>>();
        let columns = if self.schema.fields().is_empty() { vec![] } else { self.converter.convert_rows(parsed)? };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

impl std::fmt::Debug for RowCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowCodec({:?})", self.schema)
    }
}

/// Whether rows with this schema can be encoded at all.
pub fn supports(schema: &SchemaRef) -> Result<(), ArrowError> {
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect::<Vec<_>>();
    if RowConverter::supports_fields(&fields) {
        Ok(())
    } else {
        Err(ArrowError::NotYetImplemented("a column type that cannot be stored".into()))
    }
}
