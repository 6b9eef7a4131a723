//! Constant rows.

use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Result};

use super::output::record_batch;

/// Decodes the rows of a Values node (one Arrow IPC stream) under the node's schema.
pub fn decode(ipc: &[u8], schema: &SchemaRef) -> Result<Delta> {
    let reader = StreamReader::try_new(ipc, None)?;
    let stored = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let batch = concat_batches(&stored, &batches)?;
    let rows = batch.num_rows();
    Ok(Delta::insert(record_batch(schema, batch.columns().to_vec(), rows)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::table::{delta, schema, show};
    use arrow::ipc::writer::StreamWriter;

    #[test]
    fn rows_come_back_from_their_stream() {
        let rows = delta(&schema("a:int b:text"), "+1 1 x\n+1 null y");
        let mut ipc = Vec::new();
        let mut writer = StreamWriter::try_new(&mut ipc, &rows.schema()).unwrap();
        writer.write(&rows.batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let back = super::decode(&ipc, &schema("c:int d:text")).unwrap();
        assert_eq!(show(&[back]), "+1 1 x\n+1 null y");
    }
}
