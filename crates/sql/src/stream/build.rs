//! The translation itself: one method a kind of node, and the list of nodes that they add to.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Distinct, Filter, LogicalPlan, Projection, Union, Unnest};
use millpond_common::types::TYPE_KEY;
use millpond_common::{Error, Result};
use millpond_plan::{Node, Operator, PlanExpr, StreamPlan};

use super::expr::{column_expr, convert};
use super::{not_yet, prepare};
use crate::planner::Planner;

/// Columns that are unique in a node's output.
pub(super) type Key = Option<Vec<usize>>;

/// The nodes so far. A node that is built is the last one until the next is added.
pub(super) struct Builder<'a> {
    pub(super) planner: &'a Planner<'a>,
    nodes: Vec<Node>,
    keys: Vec<Key>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(planner: &'a Planner<'a>) -> Self {
        Builder { planner, nodes: Vec::new(), keys: Vec::new() }
    }

    /// Adds the operators of a plan; gives the position of its output, whose columns are the plan's.
    pub(super) fn build(&mut self, plan: &LogicalPlan) -> Result<usize> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::SubqueryAlias(alias) => self.build(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.build(&projection.input)?;
                self.projection(projection, input)
            }
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.build(input)?;
                Ok(self.distinct(input))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Union(union) => self.union(union),
            // The rows of a view have no order of their own.
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.build(&sort.input),
                Some(fetch) => self.first_rows(&sort.expr, &sort.input, 0, Some(fetch as u64)),
            },
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.row_number(window, None),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Repartition(repartition) => self.build(&repartition.input),
            other => Err(prepare::unknown(other)),
        }
    }

    /// The plan, its root with the view's columns.
    pub(super) fn finish(mut self, root: usize, columns: &SchemaRef) -> Result<StreamPlan> {
        let own = self.schema(root);
        let fits = own.fields().len() == columns.fields().len()
            && own.fields().iter().zip(columns.fields()).all(|(a, b)| a.data_type() == b.data_type());
        let root = match fits {
            true => root,
            false => {
                let casts = columns.fields().iter().enumerate();
                let exprs = casts.map(|(i, f)| PlanExpr(datafusion::logical_expr::cast(column_expr(i), f.data_type().clone())));
                let exprs = exprs.collect();
                self.project(root, exprs, columns.clone())?
            }
        };
        self.rename(root, columns.clone());
        let key = self.key(root).filter(|key| !key.is_empty());
        let append_only = self.append_only(root);
        Ok(StreamPlan { nodes: self.reachable(root), key, append_only }.shared())
    }

    /// The nodes that the root needs, renumbered.
    fn reachable(self, root: usize) -> Vec<Node> {
        let mut needed = vec![false; self.nodes.len()];
        for at in (0..=root).rev() {
            let is_needed = at == root || needed.get(at).copied().unwrap_or(false);
            if let (true, Some(node)) = (is_needed, self.nodes.get(at)) {
                for i in node.inputs.iter().chain([&at]) {
                    if let Some(slot) = needed.get_mut(*i) {
                        *slot = true;
                    }
                }
            }
        }
        let mut places = vec![0; self.nodes.len()];
        let mut kept: Vec<Node> = Vec::new();
        for (at, mut node) in self.nodes.into_iter().enumerate() {
            if needed.get(at).copied().unwrap_or(false) {
                node.inputs = node.inputs.iter().filter_map(|i| places.get(*i).copied()).collect();
                if let Some(place) = places.get_mut(at) {
                    *place = kept.len();
                }
                kept.push(node);
            }
        }
        kept
    }

    pub(super) fn projection(&mut self, projection: &Projection, input: usize) -> Result<usize> {
        if projection.expr.is_empty() {
            return Ok(input);
        }
        let schema = projection.input.schema();
        let exprs = projection.expr.iter().map(|e| convert(e, schema, |c| c)).collect::<Result<Vec<_>>>()?;
        self.project(input, exprs, stream_schema(&projection.schema))
    }

    fn filter(&mut self, filter: &Filter) -> Result<usize> {
        if let Some(ranked) = self.filtered_row_number(filter)? {
            return Ok(ranked);
        }
        let input = self.build(&filter.input)?;
        let predicate = convert(&filter.predicate, filter.input.schema(), |c| c)?;
        Ok(self.push_filter(input, predicate))
    }

    pub(super) fn push_filter(&mut self, input: usize, predicate: PlanExpr) -> usize {
        let (schema, append_only, key) = (self.schema(input), self.append_only(input), self.key(input));
        self.push(Operator::Filter { predicate }, vec![input], schema, append_only, key)
    }

    pub(super) fn distinct(&mut self, input: usize) -> usize {
        let (schema, append_only) = (self.schema(input), self.append_only(input));
        let key = self.key(input).or_else(|| Some((0..schema.fields().len()).collect()));
        self.push(Operator::Distinct, vec![input], schema, append_only, key)
    }

    fn union(&mut self, union: &Union) -> Result<usize> {
        let mut schema = stream_schema(&union.schema);
        let no_columns = schema.fields().is_empty();
        if no_columns {
            // Only the number of rows counts; they need a column to travel in.
            schema = Arc::new(Schema::new(vec![Field::new("one", arrow_schema::DataType::Boolean, true)]));
        }
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let built = self.build(input)?;
            if no_columns {
                inputs.push(self.project(built, vec![PlanExpr(datafusion::logical_expr::lit(true))], schema.clone())?);
                continue;
            }
            let own = self.schema(built);
            let same = own.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
            inputs.push(match same {
                true => built,
                false => {
                    let casts = schema.fields().iter().enumerate();
                    let exprs =
                        casts.map(|(i, f)| PlanExpr(datafusion::logical_expr::cast(column_expr(i), f.data_type().clone()))).collect();
                    self.project(built, exprs, schema.clone())?
                }
            });
        }
        let append_only = inputs.iter().all(|i| self.append_only(*i));
        Ok(self.push(Operator::Union, inputs, schema, append_only, None))
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<usize> {
        if !unnest.struct_type_columns.is_empty() || unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(not_yet("unnest of nested arrays", "Unnest one level at a time, in subqueries."));
        }
        let input = self.build(&unnest.input)?;
        let columns = unnest.list_type_columns.iter().map(|(c, _)| *c).collect::<Vec<_>>();
        if unnest.schema.fields().len() != unnest.input.schema().fields().len() {
            return Err(not_yet("unnest of one array twice", "Unnest it once, in a subquery."));
        }
        let append_only = self.append_only(input);
        Ok(self.push(Operator::Unnest { columns }, vec![input], stream_schema(&unnest.schema), append_only, None))
    }

    // The list of nodes.

    pub(super) fn push(&mut self, operator: Operator, inputs: Vec<usize>, schema: SchemaRef, append_only: bool, key: Key) -> usize {
        self.nodes.push(Node { operator, inputs, schema, append_only, expires: Vec::new() });
        self.keys.push(key.map(dedup));
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        self.nodes.get(at).expect("positions come from push")
    }

    pub(super) fn schema(&self, at: usize) -> SchemaRef {
        self.node(at).schema.clone()
    }

    pub(super) fn append_only(&self, at: usize) -> bool {
        self.node(at).append_only
    }

    pub(super) fn key(&self, at: usize) -> Key {
        self.keys.get(at).cloned().flatten()
    }

    pub(super) fn is_newest(&self, at: usize) -> bool {
        at + 1 == self.nodes.len()
    }

    /// Takes the newest node away again.
    pub(super) fn pop(&mut self, at: usize) {
        if self.is_newest(at) {
            self.nodes.pop();
            self.keys.pop();
        }
    }

    /// Other names for a node's columns.
    pub(super) fn rename(&mut self, at: usize, schema: SchemaRef) {
        if let Some(node) = self.nodes.get_mut(at) {
            node.schema = schema;
        }
    }

    /// Takes the row number off a TopN that writes one.
    pub(super) fn without_row_number(&mut self, at: usize) {
        if let Some(node) = self.nodes.get_mut(at)
            && let Operator::TopN { row_number, .. } = &mut node.operator
            && *row_number
        {
            *row_number = false;
            let fields = node.schema.fields();
            node.schema = Arc::new(Schema::new(fields.iter().take(fields.len() - 1).cloned().collect::<Vec<_>>()));
            let width = node.schema.fields().len();
            if let Some(key) = self.keys.get_mut(at)
                && key.as_ref().is_some_and(|k| k.contains(&width))
            {
                *key = None;
            }
        }
    }

    /// Adds columns computed from a node's own. Gives the node and the position of each expression's value:
    /// plain columns stay where they are.
    pub(super) fn with_columns(&mut self, input: usize, exprs: &[PlanExpr], types: &[Field]) -> Result<(usize, Vec<usize>)> {
        let schema = self.schema(input);
        let width = schema.fields().len();
        let mut fields = schema.fields().iter().map(|f| f.as_ref().clone()).collect::<Vec<_>>();
        let mut all = (0..width).map(|c| PlanExpr(column_expr(c))).collect::<Vec<_>>();
        let mut positions = Vec::with_capacity(exprs.len());
        for (expr, field) in exprs.iter().zip(types) {
            if let Some(column) = super::expr::as_column(expr) {
                positions.push(column);
                continue;
            }
            if let Some(known) = all.iter().position(|e| e == expr) {
                positions.push(known);
                continue;
            }
            positions.push(all.len());
            all.push(expr.clone());
            fields.push(field.clone().with_nullable(true));
        }
        if all.len() == width {
            return Ok((input, positions));
        }
        let node = self.project(input, all, Arc::new(Schema::new(fields)))?;
        Ok((node, positions))
    }

    /// Only these columns of a node.
    pub(super) fn select(&mut self, input: usize, columns: &[usize], schema: SchemaRef) -> Result<usize> {
        self.project(input, columns.iter().map(|c| PlanExpr(column_expr(*c))).collect(), schema)
    }
}

fn dedup(columns: Vec<usize>) -> Vec<usize> {
    let mut kept = Vec::with_capacity(columns.len());
    for column in columns {
        if !kept.contains(&column) {
            kept.push(column);
        }
    }
    kept
}

/// A plan's columns as a node's: names without qualifiers, all nullable.
pub(super) fn stream_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| stream_field(f)).collect::<Vec<_>>()))
}

pub(super) fn stream_field(field: &Field) -> Field {
    let name = match crate::planner::visible_name(field.name()) {
        name if name.starts_with("__unnest_placeholder") => "unnest",
        name if name.starts_with("row_number()") => "row_number",
        name => name,
    };
    let new = Field::new(name, field.data_type().clone(), true);
    match field.metadata().get(TYPE_KEY) {
        Some(tag) => new.with_metadata([(TYPE_KEY.to_string(), tag.clone())].into()),
        None => new,
    }
}

/// A column's position in a schema.
pub(super) fn position(schema: &DFSchema, column: &datafusion::common::Column) -> Result<usize> {
    schema.index_of_column(column).map_err(|e| Error::internal(e.to_string()))
}
