//! What the tests share: relations of two integer columns, rows in and out.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millpond_common::{Delta, RelationId, RelationSpec, Result, StateTableId};

use crate::{Checkpoint, ReadView, Recovered, Scan, Store, StoreOptions, StoredTable, TableLookup};

/// A row (k, v) and how often it is there.
pub(crate) type Rows = BTreeMap<(i64, String), i64>;

pub(crate) fn try_open(dir: &Path) -> millpond_common::Result<(Arc<Store>, Recovered)> {
    Store::open(dir, &StoreOptions { memory: 64 << 20, workers: 2, ..StoreOptions::default() })
}

pub(crate) fn open(dir: &Path) -> (Arc<Store>, Recovered) {
    try_open(dir).unwrap()
}

/// A copy of a directory, as a crash of the process would leave it now.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8, true), Field::new("k", DataType::Int64, true)]))
}

/// Columns (v, k); the key, if there is one, is k: the second column.
pub(crate) fn spec(id: u32, keyed: bool) -> RelationSpec {
    RelationSpec { id: RelationId(id), schema: schema(), key: keyed.then(|| vec![1]), appended: false }
}

/// The same of a relation that only grows.
pub(crate) fn appended(id: u32) -> RelationSpec {
    RelationSpec { appended: true, ..spec(id, false) }
}

pub(crate) fn delta(rows: &[(i64, &str, i64)]) -> Delta {
    let v = StringArray::from_iter_values(rows.iter().map(|r| r.1));
    let k = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(v), Arc::new(k)]).unwrap();
    Delta::new(batch, Some(Int64Array::from_iter_values(rows.iter().map(|r| r.2))))
}

pub(crate) fn collect(rows: &mut Rows, batch: &RecordBatch) {
    let (v, k) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
    for i in 0..batch.num_rows() {
        *rows.entry((k.value(i), v.value(i).to_owned())).or_default() += 1;
    }
}

pub(crate) fn read(view: &ReadView, relation: u32) -> Rows {
    let mut rows = Rows::new();
    for batch in view.scan(RelationId(relation), Scan::default()).unwrap() {
        collect(&mut rows, &batch.unwrap());
    }
    rows
}

/// The number of rows, read without any column.
pub(crate) fn count(view: &ReadView, relation: u32) -> i64 {
    let scan = Scan { projection: Some(vec![]), ..Scan::default() };
    view.scan(RelationId(relation), scan).unwrap().map(|b| b.unwrap().num_rows() as i64).sum()
}

pub(crate) fn lookup(view: &ReadView, relation: u32, keys: &[i64]) -> Rows {
    let field = Field::new("k", DataType::Int64, true);
    let keys = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(Int64Array::from(keys.to_vec()))]).unwrap();
    let mut rows = Rows::new();
    collect(&mut rows, &view.lookup(RelationId(relation), &keys).unwrap());
    rows
}

pub(crate) fn lookup_rows(view: &ReadView, relation: u32, rows: &[(i64, &str)]) -> Rows {
    let keys = delta(&rows.iter().map(|(k, v)| (*k, *v, 1)).collect::<Vec<_>>()).batch;
    let mut found = Rows::new();
    collect(&mut found, &view.lookup(RelationId(relation), &keys).unwrap());
    found
}

pub(crate) fn rows(rows: &[(i64, &str, i64)]) -> Rows {
    rows.iter().map(|(k, v, n)| ((*k, (*v).to_owned()), *n)).collect()
}

pub(crate) fn checkpoint(epoch: u64, log_seq: u64) -> Checkpoint {
    Checkpoint { epoch, log_seq, meta: epoch.to_be_bytes().to_vec(), frozen: vec![] }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        millpond_common::hash::mix(self.0) % n
    }
}

/// The entries of a state table in the newest checkpoint.
pub(crate) fn state_entries(store: &Arc<Store>, table: u32, vnodes: Range<usize>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = vec![];
    TableLookup::new(store, StateTableId(table), vnodes).walk(&[], &mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(entries)
}
