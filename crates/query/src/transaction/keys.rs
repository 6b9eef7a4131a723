//! Keys of a table's rows as bytes.

use arrow::array::RecordBatch;
use arrow_row::Rows;
use millpond_common::{RelationSpec, Result, RowCodec};

/// Encodes the keys of one table's rows; of a table without a key, whole rows.
#[derive(Debug)]
pub struct KeyCodec {
    spec: RelationSpec,
    columns: Vec<usize>,
    codec: RowCodec,
}

impl KeyCodec {
    /// For the rows of this table.
    pub fn new(spec: RelationSpec) -> Result<Self> {
        let columns = spec.key_columns();
        let codec = RowCodec::new(spec.project(&columns))?;
        Ok(KeyCodec { spec, columns, codec })
    }

    /// The table.
    pub fn spec(&self) -> &RelationSpec {
        &self.spec
    }

    /// Whether the table has a primary key.
    pub fn keyed(&self) -> bool {
        self.spec.key.is_some()
    }

    /// The key's columns, in its order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The key columns of whole rows.
    pub fn keys_of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|c| rows.column(*c).clone()).collect();
        Ok(RecordBatch::try_new(self.codec.schema().clone(), columns)?)
    }

    /// The encoded keys of whole rows.
    pub fn encode_rows(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns = self.columns.iter().map(|c| rows.column(*c).clone()).collect::<Vec<_>>();
        self.codec.encode(&columns)
    }

    /// The encoded form of key columns.
    pub fn encode_keys(&self, keys: &RecordBatch) -> Result<Rows> {
        self.codec.encode_batch(keys)
    }
}
