//! Where DataFusion's planner finds relations, functions and types.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::DFSchema;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use millpond_common::{Error, RelationId, Result, SqlState};

use super::Planner;
use super::source::{RelationRef, RelationSource};
use crate::catalog::{RESERVED_SCHEMAS, RelationKind};
use crate::functions::{self, constant};
use crate::statement::Name;
use crate::types::Types;

/// Views over views over views: how deep.
const VIEW_DEPTH_MAX: usize = 64;

pub(super) struct Provider<'a> {
    planner: &'a Planner<'a>,
    state: SessionState,
    /// How many views enclose the query.
    depth: usize,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relations: RefCell<Vec<RelationId>>,
}

/// A view: its query stands in its place.
#[derive(Debug)]
struct ViewSource {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl<'a> Provider<'a> {
    pub(super) fn new(planner: &'a Planner<'a>, depth: usize) -> Self {
        let state = planner.context.state();
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(crate::rewrite::Operators)];
        expr_planners.extend(state.expr_planners().iter().cloned());
        Provider { planner, state, depth, expr_planners, relations: RefCell::new(Vec::new()) }
    }

    /// The relations named so far.
    pub(super) fn relations(&self) -> Vec<RelationId> {
        self.relations.borrow().clone()
    }

    fn source(&self, name: &TableReference) -> Result<Arc<dyn TableSource>> {
        let (schema, table) = (name.schema(), name.table());
        if let Some(database) = name.catalog().filter(|c| *c != self.planner.database) {
            return self.saved(database, schema.filter(|s| !s.is_empty()), table);
        }
        let system = |schema: &str| -> Option<Arc<dyn TableSource>> {
            let columns = self.planner.system.schema_of(schema, table)?;
            Some(Arc::new(RelationSource { relation: RelationRef::System(schema.into(), table.into()), schema: columns }))
        };
        match schema {
            Some(schema) if RESERVED_SCHEMAS.contains(&schema) => {
                system(schema).ok_or_else(|| Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{schema}.{table}\" does not exist")))
            }
            Some(schema) => self.user(&Name::qualified(schema, table)),
            None => {
                if let Some(found) = system("pg_catalog") {
                    return Ok(found);
                }
                for schema in self.planner.search_path.iter().filter(|s| RESERVED_SCHEMAS.contains(&s.as_str())) {
                    if let Some(found) = system(schema) {
                        return Ok(found);
                    }
                }
                self.user(&Name::bare(table))
            }
        }
    }

    /// A relation as a savepoint has it.
    fn saved(&self, database: &str, schema: Option<&str>, table: &str) -> Result<Arc<dyn TableSource>> {
        let other = || {
            Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cross-database references are not implemented: \"{database}\""))
                .with_hint("Another database can only be a savepoint, such as \"dev@before_upgrade\".")
        };
        let catalog = self.planner.saved.filter(|_| database.contains('@')).ok_or_else(other)?.catalog(database)?;
        let planner = Planner {
            catalog: &catalog,
            system: self.planner.system,
            context: Arc::clone(&self.planner.context),
            search_path: self.planner.search_path.clone(),
            user: self.planner.user.clone(),
            database: self.planner.database.clone(),
            now: self.planner.now,
            zone: self.planner.zone,
            saved: None,
            at: Some(database),
        };
        let name = schema.map_or_else(|| Name::bare(table), |schema| Name::qualified(schema, table));
        Provider::new(&planner, self.depth).user(&name)
    }

    fn user(&self, name: &Name) -> Result<Arc<dyn TableSource>> {
        let relation = self.planner.catalog.find(name, &self.planner.search_path).map_err(|e| self.hint(e, name))?;
        let mut named = self.relations.borrow_mut();
        if !named.contains(&relation.id) {
            named.push(relation.id);
        }
        drop(named);
        match &relation.kind {
            RelationKind::View { sql, search_path } => {
                if self.depth >= VIEW_DEPTH_MAX {
                    return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("views nest more than {VIEW_DEPTH_MAX} deep")));
                }
                let plan = self.planner.inline(sql, search_path, self.depth)?;
                let plan = renamed(plan, &relation.columns)?;
                Ok(Arc::new(ViewSource { schema: relation.columns.clone(), plan }))
            }
            _ => {
                let of = match self.planner.at {
                    Some(database) => RelationRef::Saved(database.into(), relation.id),
                    None => RelationRef::User(relation.id),
                };
                Ok(Arc::new(RelationSource { relation: of, schema: relation.columns.clone() }))
            }
        }
    }

    /// Names the schema that has the relation, if another one does.
    fn hint(&self, error: Error, name: &Name) -> Error {
        match self.planner.catalog.relations().find(|r| r.name == name.name) {
            Some(other) => {
                error.with_hint(format!("There is one in schema \"{0}\": write {0}.{1}, or set search_path.", other.schema, other.name))
            }
            None => error,
        }
    }
}

/// The plan with its columns under the view's names.
fn renamed(plan: LogicalPlan, columns: &SchemaRef) -> Result<LogicalPlan> {
    let exprs = plan
        .schema()
        .iter()
        .zip(columns.fields())
        .map(|((qualifier, field), column)| Expr::Column(datafusion::common::Column::from((qualifier, field))).alias(column.name()))
        .collect::<Vec<_>>();
    datafusion::logical_expr::LogicalPlanBuilder::from(plan).project(exprs).and_then(|b| b.build()).map_err(crate::error::from_datafusion)
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        self.source(&name).map_err(|e| DataFusionError::External(Box::new(e)))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        let function = self
            .state
            .table_functions()
            .get(name)
            .cloned()
            .ok_or_else(|| DataFusionError::Plan(format!("table function '{name}' not found")))?;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(Some(self.planner.now))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &schema).and_then(|e| simplifier.simplify(e)))
            .collect::<DfResult<Vec<_>>>()?;
        Ok(provider_as_source(function.create_table_provider_with_args(TableFunctionArgs::new(&args, &self.state))?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(datafusion::datasource::cte_worktable::CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match name {
            "current_user" | "session_user" | "user" | "current_role" => Some(constant(name, &self.planner.user)),
            "current_database" | "current_catalog" => Some(constant(name, &self.planner.database)),
            // The first schema of the path that there is.
            "current_schema" => {
                let path = &self.planner.search_path;
                let there = path.iter().find(|s| self.planner.catalog.schema(s).is_some());
                Some(constant(name, there.map_or("public", |s| s.as_str())))
            }
            "coalesce" => Some(functions::coalesce()),
            "transaction_timestamp" | "statement_timestamp" | "clock_timestamp" => self.state.scalar_functions().get("now").cloned(),
            _ => self.state.scalar_functions().get(name).cloned(),
        }
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let name = match name {
            "every" => "bool_and",
            "variance" => "var_samp",
            other => other,
        };
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
