//! A logical plan as a [`StreamPlan`], or why it cannot be one.
//!
//! - this file: the walk over DataFusion's optimised plan, one method per operator
//! - `builder.rs`: nodes with their schemas, and what is known of them (append-only, unique columns)
//! - `expressions.rs`: DataFusion's expressions over columns by position
//! - `joins.rs`, `ordered.rs`, `groups.rs`: operators that need more than one node
//!
//! The plan that comes in has been optimised: subqueries are joins, DISTINCT is an aggregate, filters stand where
//! they belong. Scans have [`RelationSource`]s.

mod builder;
mod expressions;
mod groups;
mod joins;
mod ordered;

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, TableScan, Unnest, Values};
use datafusion::common::{DFSchema, ScalarValue};
use millpond_common::{Error, RelationId, Result};
use millpond_plan::StreamPlan;

use crate::planner::{Planner, RelationRef, RelationSource};

use builder::{Builder, RelationFacts};
use expressions::{Scope, check_deterministic};

/// What is known of a relation that a view may read.
type Facts<'a> = &'a dyn Fn(RelationId) -> Option<RelationFacts>;

/// Plans a bound query for the engine; the result's columns are `schema`'s.
pub fn plan(planner: &Planner<'_>, bound: LogicalPlan, schema: &SchemaRef) -> Result<StreamPlan> {
    check_deterministic(&bound)?;
    let optimised = planner.optimize(bound)?;
    let facts = |id: RelationId| {
        let relation = planner.catalog.get(id)?;
        Some(match relation.spec() {
            Some(spec) => RelationFacts { key: spec.key, append_only: spec.append_only },
            // A source's rows are only ever added.
            None => RelationFacts { key: None, append_only: true },
        })
    };
    let mut plan = stream_plan(&optimised, &facts)?;
    // The view's own names and types, under which its rows are stored.
    let fits = plan.root().is_some_and(|r| {
        r.schema.fields().len() == schema.fields().len()
            && r.schema.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type())
    });
    if !fits {
        return Err(Error::internal(format!("the stream plan does not give the view's columns\n{plan}")));
    }
    if let Some(root) = plan.nodes.last_mut() {
        root.schema = nullable(schema);
    }
    Ok(plan)
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// Turns an optimised plan into a stream plan.
fn stream_plan(plan: &LogicalPlan, facts: Facts<'_>) -> Result<StreamPlan> {
    let mut translator = Translator { builder: Builder::default(), facts };
    let root = translator.node(plan)?;
    translator.builder.finish(root)
}

struct Translator<'a> {
    builder: Builder,
    facts: Facts<'a>,
}

fn unsupported(what: impl Into<String>, hint: &str) -> Error {
    Error::unsupported(format!("{} is not supported in a materialized view", what.into()), hint)
}

impl Translator<'_> {
    /// Builds the nodes of a plan; the columns of the last one are the plan's, by position.
    fn node(&mut self, plan: &LogicalPlan) -> Result<usize> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(p) => {
                let input = self.node(&p.input)?;
                self.project(input, p.input.schema(), &p.expr, &p.schema)
            }
            LogicalPlan::Filter(f) => match f.input.as_ref() {
                LogicalPlan::Window(window) => self.filtered_window(&f.predicate, window),
                other => {
                    let input = self.node(other)?;
                    self.filter(input, other.schema(), &f.predicate)
                }
            },
            LogicalPlan::Window(window) => self.window(window, None),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Sort(sort) => match sort.fetch {
                Some(fetch) => self.top(&sort.input, &sort.expr, 0, Some(fetch as u64)),
                // The order of a view's rows means nothing; a SELECT from it sorts.
                None => self.node(&sort.input),
            },
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Subquery(subquery) => self.node(&subquery.subquery),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.conformed(i, &union.schema)).collect::<Result<Vec<_>>>()?;
                Ok(self.builder.union(inputs, &union.schema))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.node(input)?;
                Ok(self.builder.distinct(input))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::EmptyRelation(empty) => self.builder.empty(&empty.schema, empty.produce_one_row),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(_) => Err(unsupported("WITH RECURSIVE", "Compute the recursion outside, and load its result into a table.")),
            LogicalPlan::Repartition(r) => self.node(&r.input),
            other => Err(unsupported(
                other.display().to_string().split([':', ' ']).next().unwrap_or("this").to_string(),
                "Use a query without it, or a plain SELECT, which runs in batch.",
            )),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<usize> {
        let source = scan.source.as_ref();
        let source: &dyn std::any::Any = source;
        let Some(source) = source.downcast_ref::<RelationSource>() else {
            return Err(Error::internal(format!("{} is not a relation of the catalog", scan.table_name)));
        };
        let RelationRef::User(relation) = &source.relation else {
            return Err(unsupported(format!("system relation \"{}\"", scan.table_name), "Read it with a plain SELECT."));
        };
        let facts = (self.facts)(*relation).ok_or_else(|| Error::internal(format!("relation {} is not known", scan.table_name)))?;
        let all = || (0..source.schema.fields().len()).collect::<Vec<_>>();
        let projection = scan.projection.clone().unwrap_or_else(all);
        if scan.filters.is_empty() {
            return Ok(self.builder.scan(*relation, &projection, &source.schema, &facts));
        }
        // Filters may name columns that the scan does not give on.
        let full = self.builder.scan(*relation, &all(), &source.schema, &facts);
        let schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &source.schema).map_err(crate::error::from_datafusion)?;
        let mut node = full;
        for predicate in &scan.filters {
            node = self.filter(node, &schema, predicate)?;
        }
        Ok(self.builder.select(node, &projection))
    }

    fn filter(&mut self, input: usize, schema: &DFSchema, predicate: &Expr) -> Result<usize> {
        let predicate = Scope::over(&self.builder, input, schema).convert(predicate)?;
        Ok(self.builder.filter(input, predicate))
    }

    fn project(&mut self, input: usize, input_schema: &DFSchema, exprs: &[Expr], schema: &DFSchema) -> Result<usize> {
        let scope = Scope::over(&self.builder, input, input_schema);
        let exprs = exprs.iter().map(|e| scope.convert(e)).collect::<Result<Vec<_>>>()?;
        self.builder.project(input, exprs, schema)
    }

    /// A plan's node with the column types of `schema`.
    fn conformed(&mut self, plan: &LogicalPlan, schema: &DFSchema) -> Result<usize> {
        let node = self.node(plan)?;
        self.builder.cast_to(node, schema)
    }

    fn values(&mut self, values: &Values) -> Result<usize> {
        let columns = (0..values.schema.fields().len()).map(|c| {
            let literal = |row: &Vec<Expr>| match row.get(c).map(expressions::strip) {
                Some(Expr::Literal(value, _)) => Ok(value.clone()),
                Some(Expr::Cast(cast)) => match expressions::strip(&cast.expr) {
                    Expr::Literal(value, _) => value.cast_to(cast.field.data_type()).map_err(crate::error::from_datafusion),
                    _ => Err(unsupported("an expression in VALUES", "Use constants.")),
                },
                _ => Err(unsupported("an expression in VALUES", "Use constants.")),
            };
            let list = values.values.iter().map(literal).collect::<Result<Vec<_>>>()?;
            ScalarValue::iter_to_array(list).map_err(crate::error::from_datafusion)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        self.builder.values(columns, &values.schema)
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<usize> {
        let in_place = unnest.dependency_indices.iter().enumerate().all(|(at, from)| at == *from);
        if !unnest.struct_type_columns.is_empty() || !in_place || unnest.list_type_columns.iter().any(|(_, l)| l.depth != 1) {
            return Err(unsupported("this form of unnest", "Unnest one-dimensional arrays, each in a column of its own."));
        }
        let input = self.node(&unnest.input)?;
        let columns = unnest.list_type_columns.iter().map(|(c, _)| *c).collect();
        Ok(self.builder.unnest(input, columns, &unnest.schema))
    }
}
