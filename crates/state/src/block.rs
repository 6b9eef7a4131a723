//! Blocks: some rows of a relation that only grows, by column, as one stored value.
//!
//! `version u8 | 0 0 0 | rows u32 LE | length of the message u32 LE | 0 0 0 0 | message | padding | body`: an Arrow IPC record batch, whose
//! schema is that of the relation, and which is not compressed, because RocksDB compresses it. The body begins at a multiple of 16 bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::SchemaRef;
use millpond_common::{Error, Result, SqlState};

const VERSION: u8 = 1;
const HEAD: usize = 16;
const ALIGNMENT: usize = 16;

/// Writes blocks.
pub(crate) struct BlockEncoder {
    options: IpcWriteOptions,
    context: IpcWriteContext,
    value: Vec<u8>,
}

impl BlockEncoder {
    pub(crate) fn new() -> Result<Self> {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        Ok(BlockEncoder { options, context: IpcWriteContext::default(), value: vec![] })
    }

    /// The stored form of a batch.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<&[u8]> {
        let too_large = |_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "rows are too large to be stored");
        let mut dictionaries = DictionaryTracker::new(false);
        let (_, data) = IpcDataGenerator::default().encode(batch, &mut dictionaries, &self.options, &mut self.context)?;
        self.value.clear();
        self.value.extend_from_slice(&[VERSION, 0, 0, 0]);
        self.value.extend_from_slice(&u32::try_from(batch.num_rows()).map_err(too_large)?.to_le_bytes());
        self.value.extend_from_slice(&u32::try_from(data.ipc_message.len()).map_err(too_large)?.to_le_bytes());
        self.value.resize(HEAD, 0);
        self.value.extend_from_slice(&data.ipc_message);
        self.value.resize(self.value.len().next_multiple_of(ALIGNMENT), 0);
        self.value.extend_from_slice(&data.arrow_data);
        Ok(&self.value)
    }
}

/// How many rows a block has.
pub(crate) fn rows(value: &[u8]) -> Result<u64> {
    match value {
        [VERSION, 0, 0, 0, a, b, c, d, ..] => Ok(u64::from(u32::from_le_bytes([*a, *b, *c, *d]))),
        _ => Err(damaged()),
    }
}

/// Reads blocks: some columns of them.
pub(crate) struct BlockDecoder {
    schema: SchemaRef,
    /// The columns to read, ascending, each once.
    read: Vec<usize>,
    /// Where each wanted column is among them.
    wanted: Vec<usize>,
}

impl BlockDecoder {
    /// `schema`: of the relation; `columns`: which of them, in this order.
    pub(crate) fn new(schema: SchemaRef, columns: &[usize]) -> Self {
        let mut read = columns.to_vec();
        read.sort_unstable();
        read.dedup();
        let wanted = columns.iter().map(|c| read.partition_point(|r| r < c)).collect();
        BlockDecoder { schema, read, wanted }
    }

    pub(crate) fn decode(&self, value: &[u8]) -> Result<RecordBatch> {
        rows(value)?;
        let length = value.get(8..12).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes).ok_or_else(damaged)? as usize;
        let message = root_as_message(value.get(HEAD..HEAD + length).ok_or_else(damaged)?).map_err(|_| damaged())?;
        let batch = message.header_as_record_batch().ok_or_else(damaged)?;
        let body = value.get((HEAD + length).next_multiple_of(ALIGNMENT)..).ok_or_else(damaged)?;
        // Copied to where the columns can stay.
        let mut aligned = MutableBuffer::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let (body, version, dictionaries): (Buffer, _, _) = (aligned.into(), message.version(), HashMap::new());
        let decoder = RecordBatchDecoder::try_new(&body, batch, Arc::clone(&self.schema), &dictionaries, &version)?;
        let batch = decoder.with_projection(Some(&self.read)).read_record_batch()?;
        Ok(batch.project(&self.wanted)?)
    }
}

fn damaged() -> Error {
    Error::new(SqlState::DATA_CORRUPTED, "stored rows of a view cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, ListArray, NullArray, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int32Type;

    fn batch() -> RecordBatch {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let decimals = Decimal128Array::from(vec![Some(-1), None, Some(i128::MAX)]).with_precision_and_scale(38, 2).unwrap();
        let columns: [(&str, ArrayRef); 6] = [
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("b", Arc::new(StringArray::from(vec![Some("one"), Some(""), None]))),
            ("c", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("+00:00"))),
            ("d", Arc::new(decimals)),
            ("e", Arc::new(lists)),
            ("f", Arc::new(NullArray::new(3))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn columns_survive() {
        let (batch, mut encoder) = (batch(), BlockEncoder::new().unwrap());
        for rows in [batch.clone(), batch.slice(1, 2), batch.slice(2, 1), batch.slice(0, 0)] {
            let value = encoder.encode(&rows).unwrap().to_vec();
            assert_eq!(super::rows(&value).unwrap(), rows.num_rows() as u64);
            for columns in [&[0, 1, 2, 3, 4, 5][..], &[4, 1], &[3, 3, 0], &[]] {
                let found = BlockDecoder::new(rows.schema(), columns).decode(&value).unwrap();
                assert_eq!(found, rows.project(columns).unwrap(), "{columns:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let mut encoder = BlockEncoder::new().unwrap();
        let good = encoder.encode(&batch()).unwrap().to_vec();
        let decode = |value: &[u8]| BlockDecoder::new(batch().schema(), &[0, 1, 2, 3, 4, 5]).decode(value);
        for length in [0, 1, 8, HEAD, HEAD + 8, good.len() / 2] {
            assert!(decode(&good[..length]).is_err(), "{length} of {} bytes", good.len());
        }
    }
}
