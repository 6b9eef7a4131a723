//! Blocks. The value of a column's entry is `version u8 | 0 0 0 | rows u32 LE | length of the message u32 LE | 0 0 0 0 | message | padding | body`:
//! an Arrow IPC record batch of this column alone, without its schema, which is that of the relation, and not compressed, because RocksDB
//! compresses it. The body begins at a multiple of 16 bytes. A relation without columns has one entry, of a batch without columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::SchemaRef;
use millpond_common::{Error, Result, SqlState};
use rocksdb::DBRawIterator;

use super::Position;
use crate::relation::RelationMeta;

const VERSION: u8 = 1;
const HEAD: usize = 16;
const ALIGNMENT: usize = 16;

/// How many entries a block has.
pub(super) fn entries(columns: usize) -> u16 {
    columns.clamp(1, usize::from(u16::MAX)) as u16
}

/// Writes entries of blocks.
pub(super) struct Encoder {
    options: IpcWriteOptions,
    context: IpcWriteContext,
    value: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Result<Self> {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        Ok(Encoder { options, context: IpcWriteContext::default(), value: vec![] })
    }

    /// The value of one of a block's entries.
    pub(super) fn encode(&mut self, block: &RecordBatch, entry: u16) -> Result<&[u8]> {
        let too_large = |_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "rows are too large to be stored");
        let columns = (0..block.num_columns()).skip(usize::from(entry)).take(1).collect::<Vec<_>>();
        let mut dictionaries = DictionaryTracker::new(false);
        let column = block.project(&columns)?;
        let (_, data) = IpcDataGenerator::default().encode(&column, &mut dictionaries, &self.options, &mut self.context)?;
        self.value.clear();
        self.value.extend_from_slice(&[VERSION, 0, 0, 0]);
        self.value.extend_from_slice(&u32::try_from(block.num_rows()).map_err(too_large)?.to_le_bytes());
        self.value.extend_from_slice(&u32::try_from(data.ipc_message.len()).map_err(too_large)?.to_le_bytes());
        self.value.resize(HEAD, 0);
        self.value.extend_from_slice(&data.ipc_message);
        self.value.resize(self.value.len().next_multiple_of(ALIGNMENT), 0);
        self.value.extend_from_slice(&data.arrow_data);
        Ok(&self.value)
    }
}

/// How many rows the block of an entry has.
pub(super) fn rows(value: &[u8]) -> Result<u64> {
    match value {
        [VERSION, 0, 0, 0, a, b, c, d, ..] => Ok(u64::from(u32::from_le_bytes([*a, *b, *c, *d]))),
        _ => Err(damaged()),
    }
}

/// The column of an entry; `schema` has it alone.
fn decode(value: &[u8], schema: &SchemaRef) -> Result<RecordBatch> {
    let length = value.get(8..12).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes).ok_or_else(damaged)? as usize;
    let message = root_as_message(value.get(HEAD..HEAD + length).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let batch = message.header_as_record_batch().ok_or_else(damaged)?;
    let body = value.get((HEAD + length).next_multiple_of(ALIGNMENT)..).ok_or_else(damaged)?;
    // Copied to where the column can stay.
    let mut aligned = MutableBuffer::with_capacity(body.len());
    aligned.extend_from_slice(body);
    let (body, version, dictionaries): (Buffer, _, _) = (aligned.into(), message.version(), HashMap::new());
    Ok(RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), &dictionaries, &version)?.read_record_batch()?)
}

/// Reads some columns of blocks.
pub(super) struct Reader {
    id: u32,
    /// Of the batches that it gives.
    schema: SchemaRef,
    /// The columns to read, ascending, each once, each with a schema of its own.
    columns: Vec<(u16, SchemaRef)>,
    /// Where each wanted column is among them.
    wanted: Vec<usize>,
}

impl Reader {
    /// `schema`: of the wanted columns, in this order.
    pub(super) fn new(meta: &RelationMeta, wanted: &[usize], schema: SchemaRef) -> Self {
        let mut columns = wanted.to_vec();
        columns.sort_unstable();
        columns.dedup();
        let wanted = wanted.iter().map(|c| columns.partition_point(|r| r < c)).collect();
        let columns = columns.into_iter().map(|c| (c as u16, meta.spec.project(&[c]))).collect();
        Reader { id: meta.spec.id.0, schema, columns, wanted }
    }

    /// Of all columns.
    pub(super) fn whole(meta: &RelationMeta) -> Self {
        let all = (0..meta.spec.schema.fields().len()).collect::<Vec<_>>();
        Reader::new(meta, &all, Arc::clone(&meta.spec.schema))
    }

    /// The block at which an iterator stands, at whichever of its entries, with its end; `None`: it stands at none. Afterwards it stands at one of its entries.
    pub(super) fn read(&self, it: &mut DBRawIterator<'_>) -> Result<Option<Block>> {
        let (Some(end), Some(value)) = (Position::at(it), it.value()) else { return Ok(None) };
        let (rows, mut bytes) = (rows(value)?, 0);
        let prefix = end.bound(self.id);
        let mut read: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, schema) in &self.columns {
            let key = [&prefix[..], &column.to_be_bytes()].concat();
            match it.key().and_then(|k| k.last_chunk()).map(|last| u16::from_be_bytes(*last)) {
                Some(at) if at == *column => {}
                Some(at) if at.checked_add(1) == Some(*column) => it.next(),
                _ => it.seek(&key),
            }
            let value = it.value().filter(|_| it.key() == Some(&key)).ok_or_else(damaged)?;
            bytes += value.len();
            let column = decode(value, schema)?;
            read.push(Arc::clone(column.columns().first().filter(|c| c.len() as u64 == rows).ok_or_else(damaged)?));
        }
        let columns = self.wanted.iter().filter_map(|w| read.get(*w).cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(Some(Block { end, begin: end.place.checked_sub(rows).ok_or_else(damaged)?, batch, bytes }))
    }
}

/// A block that was read.
pub(super) struct Block {
    pub(super) end: Position,
    /// The place of its first row.
    pub(super) begin: u64,
    pub(super) batch: RecordBatch,
    /// Of the values that were read.
    pub(super) bytes: usize,
}

fn damaged() -> Error {
    Error::new(SqlState::DATA_CORRUPTED, "stored rows of a view cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, ListArray, NullArray, StringArray, TimestampMicrosecondArray};
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
        let (batch, mut encoder) = (batch(), Encoder::new().unwrap());
        for block in [batch.clone(), batch.slice(1, 2), batch.slice(2, 1), batch.slice(0, 0)] {
            for column in 0..6 {
                let value = encoder.encode(&block, column as u16).unwrap();
                assert_eq!(rows(value).unwrap(), block.num_rows() as u64);
                let expected = block.project(&[column]).unwrap();
                assert_eq!(decode(value, &expected.schema()).unwrap(), expected);
            }
        }
        let none = encoder.encode(&batch.project(&[]).unwrap(), 0).unwrap();
        assert_eq!(rows(none).unwrap(), 3);
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let mut encoder = Encoder::new().unwrap();
        let good = encoder.encode(&batch(), 1).unwrap().to_vec();
        let schema = batch().project(&[1]).unwrap().schema();
        for length in [0, 1, 8, HEAD, HEAD + 8, good.len() / 2] {
            assert!(decode(&good[..length], &schema).is_err(), "{length} of {} bytes", good.len());
        }
    }
}
