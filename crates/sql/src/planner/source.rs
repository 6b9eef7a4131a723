//! What a table scan in a bound plan reads.

use arrow_schema::SchemaRef;
use datafusion::logical_expr::{TableProviderFilterPushDown, TableSource};
use millpond_common::RelationId;

/// Columns of the relations in pg_catalog, information_schema and millpond, which `query` serves.
pub trait SystemRelations: Send + Sync {
    /// The columns of a system relation, if there is one of that name.
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef>;
}

/// What a scanned relation is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RelationRef {
    /// A relation of the catalog.
    User(RelationId),
    /// A system relation: schema and name.
    System(String, String),
}

/// The source of a table scan in a bound plan; `query` puts a provider in its place before optimising.
#[derive(Debug)]
pub struct RelationSource {
    /// What is scanned.
    pub relation: RelationRef,
    /// Its columns.
    pub schema: SchemaRef,
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&datafusion::logical_expr::Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }
}
