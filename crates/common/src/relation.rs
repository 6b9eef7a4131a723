//! What the store, the engine and queries need to know of a relation with rows.

use arrow_schema::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::RelationId;

/// A relation whose rows are kept: a table or a materialized view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RelationSpec {
    /// Its number.
    pub id: RelationId,
    /// Its columns, all of them, in order.
    pub schema: SchemaRef,
    /// Columns whose values are unique: the primary key of a table, or the key of a view's result where
    /// the plan knows one. Stored rows are found by it. `None`: a multiset, keyed by the whole row.
    pub key: Option<Vec<usize>>,
    /// Its rows are only ever inserted, and stay in the order in which they came; it has no key then.
    #[serde(default)]
    pub appended: bool,
}

impl RelationSpec {
    /// The columns that a row is stored and distributed by: the key, or all of them.
    pub fn key_columns(&self) -> Vec<usize> {
        self.key.clone().unwrap_or_else(|| (0..self.schema.fields().len()).collect())
    }

    /// The columns that are not in the key, in order.
    pub fn value_columns(&self) -> Vec<usize> {
        let key = self.key_columns();
        (0..self.schema.fields().len()).filter(|c| !key.contains(c)).collect()
    }

    /// The schema of some of its columns.
    pub fn project(&self, columns: &[usize]) -> SchemaRef {
        let fields = columns.iter().filter_map(|c| self.schema.fields().get(*c).cloned()).collect::<Vec<_>>();
        Arc::new(Schema::new(fields))
    }
}
