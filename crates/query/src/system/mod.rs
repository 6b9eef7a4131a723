//! The system catalog: what psql, drivers and BI tools ask a PostgreSQL server about itself, and what Millpond
//! tells of its own work.
//!
//! - [`definitions`]: the columns of every relation in `pg_catalog`, `information_schema` and `millpond`
//! - [`facts`]: the database in PostgreSQL's terms; [`snapshot`] makes them from the catalog and the engine
//! - [`rows`]: filling a relation by column name
//! - `pg_catalog`, `information_schema`, `millpond`: the rows, one file for each family of relations
//! - [`functions`]: `pg_get_viewdef`, `format_type`, `current_setting` and the like
//!
//! A relation's rows are made when a query names it, from one moment's facts.

pub mod definitions;
pub mod facts;
pub mod functions;
mod information_schema;
mod millpond;
mod pg_catalog;
pub mod rows;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millpond_common::Result;
use millpond_sql::SystemRelations;

pub use facts::SessionInfo;
pub use functions::{CatalogAccess, register};
pub use snapshot::SystemSnapshot;

/// The shapes of all system relations, for name resolution.
pub struct System;

impl SystemRelations for System {
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef> {
        definitions::find(schema, table).map(|d| d.arrow.clone())
    }
}

/// A system relation with its rows of this moment.
pub fn provider(schema: &str, name: &str, snapshot: &SystemSnapshot) -> Option<Arc<dyn TableProvider>> {
    let definition = definitions::find(schema, name)?;
    match table(definition, snapshot) {
        Ok(table) => Some(Arc::new(table)),
        Err(error) => {
            tracing::error!(schema, name, %error, "a system relation could not be filled");
            None
        }
    }
}

fn table(definition: &'static definitions::Definition, snapshot: &SystemSnapshot) -> Result<MemTable> {
    let mut rows = rows::Rows::new(definition);
    match definition.schema {
        "pg_catalog" => pg_catalog::fill(definition.name, &snapshot.facts(), &mut rows),
        "information_schema" => information_schema::fill(definition.name, &snapshot.facts(), &mut rows),
        _ => millpond::fill(definition.name, snapshot, &mut rows),
    }
    let batch = rows.finish()?;
    MemTable::try_new(definition.arrow.clone(), vec![vec![batch]]).map_err(crate::error::from_datafusion)
}
