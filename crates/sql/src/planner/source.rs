//! What a table scan in a bound plan reads.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::logical_expr::{TableProviderFilterPushDown, TableSource};
use millpond_common::{Error, RelationId, Result};

use crate::catalog::Catalog;

/// Columns of the relations in pg_catalog, information_schema and millpond, which `query` serves.
pub trait SystemRelations: Send + Sync {
    /// The columns of a system relation, if there is one of that name.
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef>;
}

/// The catalogs of savepoints, which a query can name beside the present one.
pub trait SavedCatalogs: Send + Sync {
    /// The catalog of a database such as `dev@before_upgrade` or `@before_upgrade`.
    fn catalog(&self, database: &str) -> Result<Arc<Catalog>>;
}

/// What a scanned relation is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RelationRef {
    /// A relation of the catalog.
    User(RelationId),
    /// A system relation: schema and name.
    System(String, String),
    /// A relation as a savepoint has it: the savepoint's name, and the number in its catalog.
    Saved(String, RelationId),
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

/// A view does not outlive a savepoint that it reads.
pub(crate) fn in_a_view() -> Error {
    Error::unsupported("a view cannot read a savepoint", "Copy what you need into a table: INSERT INTO … SELECT … FOR SYSTEM_TIME AS OF …")
}
