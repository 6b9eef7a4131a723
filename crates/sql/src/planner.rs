//! placeholder
use std::sync::Arc;
use arrow_schema::{Schema, SchemaRef};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::prelude::SessionContext;
use millpond_common::{Error, RelationId, Result, SqlType};
use millpond_plan::StreamPlan;
use sqlparser::ast;
use crate::catalog::Catalog;

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
}

/// A query with its names resolved.
#[derive(Clone, Debug)]
pub struct BoundQuery {
    /// Not optimised; its scans have [`RelationSource`]s.
    pub plan: LogicalPlan,
    /// The type of each parameter.
    pub params: Vec<SqlType>,
    /// The result's columns as the client sees them; the plan's own names may differ.
    pub columns: SchemaRef,
}

/// A view's query as a stream plan.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// What the engine runs.
    pub plan: StreamPlan,
    /// The view's columns.
    pub schema: SchemaRef,
    /// The relations that the query names.
    pub depends_on: Vec<RelationId>,
}

/// Binds and plans statements.
pub struct Planner<'a> {
    /// Users' relations.
    pub catalog: &'a Catalog,
    /// The system's relations.
    pub system: &'a dyn SystemRelations,
    /// Functions and configuration; see [`crate::base_context`].
    pub context: Arc<SessionContext>,
    /// Where unqualified names are looked up, after pg_catalog.
    pub search_path: Vec<String>,
    /// For `current_user`.
    pub user: String,
    /// For `current_database()`.
    pub database: String,
    /// For `now()`: the transaction's start.
    pub now: chrono::DateTime<chrono::Utc>,
}

impl Planner<'_> {
    /// Binds a query. `params` are the declared types of `$1`, `$2`, …; missing ones are inferred.
    pub fn plan_query(&self, _query: &ast::Query, _params: &[Option<SqlType>]) -> Result<BoundQuery> {
        Err(Error::internal("not yet"))
    }

    /// Binds a scalar expression over the columns of `schema`, under the relation name `qualifier` if there is one, with the session's functions.
    /// Types are coerced; the result is cast to `target` with PostgreSQL's assignment rules if it is given.
    pub fn plan_expr(&self, _expr: &ast::Expr, _schema: &Schema, _qualifier: Option<&str>, _params: &[Option<SqlType>], _target: Option<&SqlType>) -> Result<Expr> {
        Err(Error::internal("not yet"))
    }

    /// Plans a view's query for the engine. `columns` rename the result's columns.
    pub fn plan_view(&self, _query: &ast::Query, _columns: &[ast::Ident]) -> Result<ViewPlan> {
        Err(Error::internal("not yet"))
    }

    /// Runs DataFusion's analyzer and optimizer.
    pub fn optimize(&self, _plan: LogicalPlan) -> Result<LogicalPlan> {
        Err(Error::internal("not yet"))
    }
}
