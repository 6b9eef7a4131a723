//! Names resolved and types known: queries and expressions as DataFusion's logical plans.

mod assign;
mod expression;
mod names;
mod parameters;
mod provider;
mod source;
mod windows;

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use millpond_common::text::zone::Zone;
use millpond_common::{Error, RelationId, Result, SqlState, SqlType};
use millpond_plan::StreamPlan;
use sqlparser::ast;

pub(crate) use source::in_a_view;
pub use source::{RelationRef, RelationSource, SavedCatalogs, SystemRelations};

use crate::catalog::Catalog;
use crate::error::from_datafusion;
use crate::statement::fold;
use crate::{rewrite, types};

use provider::Provider;

/// A query with its names resolved.
#[derive(Clone, Debug)]
pub struct BoundQuery {
    /// Analyzed but not optimised; its scans have [`RelationSource`]s, its columns SQL types.
    pub plan: LogicalPlan,
    /// The type of each parameter.
    pub params: Vec<SqlType>,
    /// The result's columns as the client sees them; the plan's own names may differ.
    pub columns: SchemaRef,
    /// The relations that the query names, each once.
    pub relations: Vec<RelationId>,
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
    /// The session's time zone. What a materialized view computes is in UTC, whoever made it.
    pub zone: Zone,
    /// Savepoints that a query may name.
    pub saved: Option<&'a dyn SavedCatalogs>,
    /// The database of the savepoint whose catalog this is, inside a query of another one.
    pub at: Option<&'a str>,
}

impl Planner<'_> {
    /// Binds a query. `params` are the declared types of `$1`, `$2`, …; missing ones are inferred.
    pub fn plan_query(&self, query: &ast::Query, params: &[Option<SqlType>]) -> Result<BoundQuery> {
        self.zone.during(|| self.bind_query(query, params))
    }

    fn bind_query(&self, query: &ast::Query, params: &[Option<SqlType>]) -> Result<BoundQuery> {
        let mut query = query.clone();
        windows::rewrite(&mut query)?;
        let params = parameters::in_limits(&query, params);
        names::assign(&mut query);
        let provider = Provider::new(self, 0);
        let mut plan = self.bind(&query, &provider, &params)?;
        let mut types = parameters::types(&plan, &params)?;
        if types.iter().enumerate().any(|(i, t)| params.get(i) != Some(&Some(t.clone()))) {
            // Now that all are known, everything above them gets its right type.
            let all = types.iter().cloned().map(Some).collect::<Vec<_>>();
            plan = self.bind(&query, &provider, &all)?;
            types = parameters::types(&plan, &all)?;
        }
        let plan = self.analyze(rewrite::postgres(plan).map_err(from_datafusion)?)?;
        let plan = with_sql_types(rewrite::zones::plan(plan).map_err(from_datafusion)?)?;
        let columns = client_columns(&plan);
        Ok(BoundQuery { plan, params: types, columns, relations: provider.relations() })
    }

    /// Binds a scalar expression over the columns of `schema`, which may be qualified by a relation's name. Types are
    /// coerced; if `target` is given, the value is cast to it with PostgreSQL's assignment rules.
    pub fn plan_expr(
        &self,
        expr: &ast::Expr,
        schema: &Schema,
        qualifier: Option<&str>,
        params: &[Option<SqlType>],
        target: Option<&SqlType>,
    ) -> Result<Expr> {
        self.zone.during(|| expression::plan(self, expr, schema, qualifier, params, target))
    }

    /// A value assigned to a column, as INSERT and UPDATE do it: cast where PostgreSQL casts, refused with 42804
    /// where it does not. `from` is the value's field.
    pub fn assign(&self, value: Expr, from: &arrow_schema::Field, target: &SqlType, column: &str) -> Result<Expr> {
        self.zone.during(|| assign::assign(value, from, target, column))
    }

    /// Plans a view's query for the engine. `columns` rename the result's columns.
    pub fn plan_view(&self, query: &ast::Query, columns: &[ast::Ident]) -> Result<ViewPlan> {
        let bound = self.within(self.search_path.clone(), Zone::UTC).plan_query(query, &[])?;
        if !bound.params.is_empty() {
            return Err(
                Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1").with_hint("A view's query cannot have parameters.")
            );
        }
        let schema = crate::stream::nullable(view_columns(&bound.columns, columns)?.as_ref());
        let plan = crate::stream::plan(self, bound.plan, &schema)?;
        Ok(ViewPlan { plan, schema, depends_on: bound.relations })
    }

    /// The columns and dependencies of a plain view's query.
    pub fn describe_view(&self, query: &ast::Query, columns: &[ast::Ident]) -> Result<(SchemaRef, Vec<RelationId>)> {
        let bound = self.plan_query(query, &[])?;
        if !bound.params.is_empty() {
            return Err(
                Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1").with_hint("A view's query cannot have parameters.")
            );
        }
        let saved = bound.plan.exists(|node| {
            let source = if let LogicalPlan::TableScan(scan) = node { scan.source.downcast_ref::<RelationSource>() } else { None };
            Ok(source.is_some_and(|s| matches!(s.relation, RelationRef::Saved(..))))
        });
        if saved.map_err(from_datafusion)? {
            return Err(in_a_view());
        }
        Ok((view_columns(&bound.columns, columns)?, bound.relations))
    }

    /// Runs DataFusion's analyzer and optimizer.
    pub fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        self.context.state().optimize(&plan).map_err(from_datafusion)
    }

    /// The same with other settings.
    fn within(&self, search_path: Vec<String>, zone: Zone) -> Planner<'_> {
        Planner {
            catalog: self.catalog,
            system: self.system,
            context: Arc::clone(&self.context),
            search_path,
            user: self.user.clone(),
            database: self.database.clone(),
            now: self.now,
            zone,
            saved: self.saved,
            at: self.at,
        }
    }

    /// The plan of a stored view's query, for use inside other queries.
    fn inline(&self, sql: &str, search_path: &[String], depth: usize) -> Result<LogicalPlan> {
        let mut query = crate::parse::parse_query(sql)?;
        windows::rewrite(&mut query)?;
        names::assign(&mut query);
        let inner = self.within(search_path.to_vec(), self.zone);
        let provider = Provider::new(&inner, depth + 1);
        let plan = inner.bind(&query, &provider, &[])?;
        let plan = inner.analyze(rewrite::postgres(plan).map_err(from_datafusion)?)?;
        with_sql_types(plan)
    }

    fn bind(&self, query: &ast::Query, provider: &Provider<'_>, params: &[Option<SqlType>]) -> Result<LogicalPlan> {
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameters::fields(params));
        SqlToRel::new(provider)
            .sql_statement_to_plan_with_context(ast::Statement::Query(Box::new(query.clone())), &mut context)
            .map_err(from_datafusion)
    }

    fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let state = self.context.state();
        state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map_err(from_datafusion)
    }
}

/// Casts columns whose Arrow type is none of SQL's.
fn with_sql_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.schema().fields().iter().all(|f| types::is_exact(f)) {
        return Ok(plan);
    }
    let exprs = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
        match types::is_exact(field) {
            true => column,
            false => datafusion::logical_expr::cast(column, types::exact(field)).alias_qualified(qualifier.cloned(), field.name()),
        }
    });
    let exprs = exprs.collect::<Vec<_>>();
    LogicalPlanBuilder::from(plan).project(exprs).and_then(|b| b.build()).map_err(from_datafusion)
}

/// The result's columns with the names that PostgreSQL would give.
fn client_columns(plan: &LogicalPlan) -> SchemaRef {
    let fields = plan.schema().fields().iter().map(|f| SqlType::of(f).field(names::visible(f.name()), f.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A view's columns: renamed, with distinct names.
fn view_columns(columns: &SchemaRef, renames: &[ast::Ident]) -> Result<SchemaRef> {
    if renames.len() > columns.fields().len() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "CREATE VIEW specifies more column names than columns"));
    }
    if columns.fields().is_empty() {
        return Err(Error::unsupported("views without columns are not supported", "Select at least one column."));
    }
    let mut fields: Vec<arrow_schema::Field> = Vec::with_capacity(columns.fields().len());
    for (position, field) in columns.fields().iter().enumerate() {
        let name = renames.get(position).map_or_else(|| field.name().clone(), fold);
        if fields.iter().any(|f| f.name() == &name) {
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
                .with_hint("Give one of them another name with AS."));
        }
        fields.push(field.as_ref().clone().with_name(name));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A column's name without what keeps equal names apart inside a plan.
pub(crate) fn visible_name(name: &str) -> &str {
    names::visible(name)
}
