//! Skeleton.
#![allow(missing_docs)]
use std::ops::Range;
use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use millpond_common::{Delta, Epoch, Error, RelationId, RelationSpec, Result};

/// What to read of a relation.
#[derive(Clone, Debug)]
pub struct Scan {
    pub projection: Option<Vec<usize>>,
    pub vnodes: Range<usize>,
}
impl Default for Scan {
    fn default() -> Self {
        Scan { projection: None, vnodes: 0..256 }
    }
}
#[derive(Clone)]
pub struct ReadView {}
impl ReadView {
    pub fn epoch(&self) -> Epoch {
        0
    }
    pub fn spec(&self, _relation: RelationId) -> Option<RelationSpec> {
        None
    }
    pub fn with_changes(&self, _relation: RelationId, _delta: Delta) -> ReadView {
        self.clone()
    }
    pub fn scan(&self, _relation: RelationId, _scan: Scan) -> Result<ScanStream> {
        Err(Error::internal("skeleton"))
    }
    pub fn lookup(&self, _relation: RelationId, _keys: &RecordBatch) -> Result<RecordBatch> {
        Err(Error::internal("skeleton"))
    }
    pub fn row_estimate(&self, _relation: RelationId) -> u64 {
        0
    }
}
pub struct ScanStream {
    schema: SchemaRef,
}
impl ScanStream {
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
impl Iterator for ScanStream {
    type Item = Result<RecordBatch>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
