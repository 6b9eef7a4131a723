//! Nodes with their schemas, and what is known of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::ident;
use millpond_common::{RelationId, Result};
use millpond_plan::{AggregateCall, JoinKind, Node, Operator, PlanExpr, SortKey, StreamPlan};

/// What the catalog knows of a relation's rows.
#[derive(Clone, Debug, Default)]
pub struct RelationFacts {
    /// Columns that are unique together.
    pub key: Option<Vec<usize>>,
    /// Rows are only ever inserted.
    pub append_only: bool,
}

/// The nodes so far, with their unique columns.
#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<Node>,
    keys: Vec<Option<Vec<usize>>>,
}

/// The Arrow type that carries a column between operators: the one of its SQL type.
pub(super) fn carried(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Decimal256(_, s) => DataType::Decimal128(38, *s),
        DataType::Dictionary(_, value) => carried(value),
        DataType::Null => DataType::Utf8,
        DataType::LargeList(item) | DataType::List(item) => {
            DataType::List(Arc::new(Field::new("item", carried(item.data_type()), true).with_metadata(item.metadata().clone())))
        }
        other => other.clone(),
    }
}

/// A plan's columns as they are carried between operators.
pub(super) fn carried_schema(schema: &DFSchema) -> SchemaRef {
    let field = |f: &Arc<Field>| Field::new(f.name(), carried(f.data_type()), true).with_metadata(f.metadata().clone());
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A column of a node's input inside an expression.
pub(super) fn column(position: usize) -> Expr {
    ident(PlanExpr::column_name(position))
}

/// The position, if the expression is a mere column.
pub(super) fn as_column(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(c) => PlanExpr::column_position(&c.name),
        _ => None,
    }
}

impl Builder {
    pub fn schema(&self, node: usize) -> SchemaRef {
        self.nodes.get(node).map_or_else(|| Arc::new(Schema::empty()), |n| Arc::clone(&n.schema))
    }

    pub fn width(&self, node: usize) -> usize {
        self.schema(node).fields().len()
    }

    fn append_only(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|n| n.append_only)
    }

    pub fn key(&self, node: usize) -> Option<Vec<usize>> {
        self.keys.get(node).cloned().flatten()
    }

    fn push(&mut self, operator: Operator, inputs: Vec<usize>, schema: SchemaRef, append_only: bool, key: Option<Vec<usize>>) -> usize {
        self.nodes.push(Node { operator, inputs, schema, append_only });
        self.keys.push(key.filter(|k| !k.is_empty()));
        self.nodes.len() - 1
    }

    pub fn scan(&mut self, relation: RelationId, projection: &[usize], schema: &SchemaRef, facts: &RelationFacts) -> usize {
        let fields = projection.iter().filter_map(|c| schema.fields().get(*c).cloned()).collect::<Vec<_>>();
        let place = |c: &usize| projection.iter().position(|p| p == c);
        let key = facts.key.as_ref().and_then(|key| key.iter().map(place).collect::<Option<Vec<_>>>());
        let operator = Operator::Scan { relation, projection: projection.to_vec() };
        self.push(operator, vec![], Arc::new(Schema::new(fields)), facts.append_only, key)
    }

    pub fn filter(&mut self, input: usize, predicate: Expr) -> usize {
        let (schema, append_only, key) = (self.schema(input), self.append_only(input), self.key(input));
        self.push(Operator::Filter { predicate: PlanExpr(predicate) }, vec![input], schema, append_only, key)
    }

    /// One column per expression, named and typed as in `schema`.
    pub fn project(&mut self, input: usize, exprs: Vec<Expr>, schema: &DFSchema) -> Result<usize> {
        Ok(self.project_to(input, exprs, carried_schema(schema)))
    }

    pub fn project_to(&mut self, input: usize, exprs: Vec<Expr>, schema: SchemaRef) -> usize {
        let own = self.schema(input);
        let typed = exprs.into_iter().zip(schema.fields()).map(|(expr, field)| match as_column(&expr).and_then(|c| own.fields().get(c)) {
            Some(have) if have.data_type() == field.data_type() => expr,
            _ => cast(expr, field.data_type().clone()),
        });
        let exprs = typed.collect::<Vec<_>>();
        let identity = exprs.len() == own.fields().len() && exprs.iter().enumerate().all(|(at, e)| as_column(e) == Some(at));
        if identity && own.fields().iter().zip(schema.fields()).all(|(a, b)| a.name() == b.name() && a.metadata() == b.metadata()) {
            return input;
        }
        // A projection of a projection that only picks columns is one projection.
        if let Some(Node { operator: Operator::Project { exprs: below }, inputs, append_only, .. }) = self.nodes.get(input) {
            let picks = exprs.iter().map(|e| as_column(e).and_then(|c| below.get(c)).map(|e| e.0.clone())).collect::<Option<Vec<_>>>();
            if let (Some(picks), Some(base)) = (picks, inputs.first().copied())
                && input + 1 == self.nodes.len()
            {
                let (append_only, key) = (*append_only, self.mapped_key(input, &exprs));
                self.nodes.pop();
                self.keys.pop();
                let exprs = picks.into_iter().map(PlanExpr).collect();
                return self.push(Operator::Project { exprs }, vec![base], schema, append_only, key);
            }
        }
        let (append_only, key) = (self.append_only(input), self.mapped_key(input, &exprs));
        self.push(Operator::Project { exprs: exprs.into_iter().map(PlanExpr).collect() }, vec![input], schema, append_only, key)
    }

    /// The input's unique columns where the expressions still have them.
    fn mapped_key(&self, input: usize, exprs: &[Expr]) -> Option<Vec<usize>> {
        self.key(input)?.iter().map(|c| exprs.iter().position(|e| as_column(e) == Some(*c))).collect()
    }

    /// Some of the columns.
    pub fn select(&mut self, input: usize, columns: &[usize]) -> usize {
        let own = self.schema(input);
        let fields = columns.iter().filter_map(|c| own.fields().get(*c).cloned()).collect::<Vec<_>>();
        self.project_to(input, columns.iter().map(|c| column(*c)).collect(), Arc::new(Schema::new(fields)))
    }

    /// The input's columns and further ones after them.
    pub fn extend(&mut self, input: usize, more: Vec<(Expr, DataType)>) -> usize {
        if more.is_empty() {
            return input;
        }
        let mut fields = self.schema(input).fields().iter().cloned().collect::<Vec<_>>();
        let mut exprs = (0..fields.len()).map(column).collect::<Vec<_>>();
        for (at, (expr, data_type)) in more.into_iter().enumerate() {
            fields.push(Arc::new(Field::new(format!("key_{at}"), carried(&data_type), true)));
            exprs.push(expr);
        }
        self.project_to(input, exprs, Arc::new(Schema::new(fields)))
    }

    /// The columns under the names and types of `schema`.
    pub fn cast_to(&mut self, input: usize, schema: &DFSchema) -> Result<usize> {
        let exprs = (0..schema.fields().len()).map(column).collect();
        self.project(input, exprs, schema)
    }

    pub fn union(&mut self, inputs: Vec<usize>, schema: &DFSchema) -> usize {
        let append_only = inputs.iter().all(|i| self.append_only(*i));
        self.push(Operator::Union, inputs, carried_schema(schema), append_only, None)
    }

    pub fn union_like(&mut self, inputs: Vec<usize>) -> usize {
        let schema = inputs.first().map_or_else(|| Arc::new(Schema::empty()), |i| self.schema(*i));
        let append_only = inputs.iter().all(|i| self.append_only(*i));
        self.push(Operator::Union, inputs, schema, append_only, None)
    }

    pub fn distinct(&mut self, input: usize) -> usize {
        let (schema, append_only) = (self.schema(input), self.append_only(input));
        let key = self.key(input).unwrap_or_else(|| (0..schema.fields().len()).collect());
        self.push(Operator::Distinct, vec![input], schema, append_only, Some(key))
    }

    pub fn unnest(&mut self, input: usize, columns: Vec<usize>, schema: &DFSchema) -> usize {
        let append_only = self.append_only(input);
        self.push(Operator::Unnest { columns }, vec![input], carried_schema(schema), append_only, None)
    }

    pub fn aggregate(&mut self, input: usize, group: Vec<usize>, calls: Vec<AggregateCall>, schema: SchemaRef) -> usize {
        let key = (0..group.len()).collect::<Vec<_>>();
        self.push(Operator::Aggregate { group, calls }, vec![input], schema, false, Some(key))
    }

    pub fn top_n(&mut self, input: usize, partition: Vec<usize>, order: Vec<SortKey>, offset: u64, limit: Option<u64>, row_number: Option<&str>) -> usize {
        let mut fields = self.schema(input).fields().iter().cloned().collect::<Vec<_>>();
        if let Some(name) = row_number {
            fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
        }
        let one = limit == Some(1) && !partition.is_empty();
        let key = if one { Some(partition.clone()) } else { self.key(input) };
        let operator = Operator::TopN { partition, order, offset, limit, row_number: row_number.is_some() };
        self.push(operator, vec![input], Arc::new(Schema::new(fields)), false, key)
    }

    pub fn join(&mut self, kind: JoinKind, inputs: [usize; 2], on: Vec<(usize, usize)>, null_equals_null: bool, filter: Option<Expr>) -> usize {
        let [left, right] = inputs;
        let width = self.width(left);
        let only_left = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let mut fields = self.schema(left).fields().iter().cloned().collect::<Vec<_>>();
        if !only_left {
            fields.extend(self.schema(right).fields().iter().cloned());
        }
        let append_only = matches!(kind, JoinKind::Inner | JoinKind::LeftSemi) && self.append_only(left) && self.append_only(right);
        let (left_key, right_key) = (self.key(left), self.key(right));
        let within = |key: &Option<Vec<usize>>, side: &dyn Fn(&(usize, usize)) -> usize| {
            key.as_ref().is_some_and(|k| k.iter().all(|c| on.iter().any(|pair| side(pair) == *c)))
        };
        let one_right = within(&right_key, &|p| p.1);
        let one_left = within(&left_key, &|p| p.0);
        let moved = right_key.as_ref().map(|k| k.iter().map(|c| c + width).collect::<Vec<_>>());
        let key = match kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => left_key,
            JoinKind::Inner | JoinKind::Left if one_right && left_key.is_some() => left_key,
            JoinKind::Inner | JoinKind::Right if one_left && moved.is_some() => moved,
            JoinKind::Full => None,
            _ => left_key.zip(moved).map(|(mut l, r)| {
                l.extend(r);
                l
            }),
        };
        let operator = Operator::Join { kind, on, null_equals_null, filter: filter.map(PlanExpr) };
        self.push(operator, vec![left, right], Arc::new(Schema::new(fields)), append_only, key)
    }

    /// Constant rows. Without columns, a column that nobody reads carries their number.
    pub fn values(&mut self, columns: Vec<ArrayRef>, schema: &DFSchema) -> Result<usize> {
        let schema = carried_schema(schema);
        let columns = columns.iter().zip(schema.fields()).map(|(c, f)| arrow::compute::cast(c, f.data_type())).collect::<Result<Vec<_>, _>>()?;
        self.constant(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    }

    pub fn empty(&mut self, schema: &DFSchema, one_row: bool) -> Result<usize> {
        if one_row && schema.fields().is_empty() {
            let schema = Arc::new(Schema::new(vec![Field::new("row", DataType::Int64, true)]));
            return self.constant(RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1]))])?);
        }
        self.constant(RecordBatch::new_empty(carried_schema(schema)))
    }

    fn constant(&mut self, batch: RecordBatch) -> Result<usize> {
        let mut ipc = Vec::new();
        let mut writer = StreamWriter::try_new(&mut ipc, &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        Ok(self.push(Operator::Values { ipc }, vec![], batch.schema(), true, None))
    }

    /// The whole plan, without nodes that nobody reads.
    pub fn finish(mut self, root: usize) -> Result<StreamPlan> {
        let mut used = vec![false; self.nodes.len()];
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            if let Some(slot) = used.get_mut(at)
                && !std::mem::replace(slot, true)
            {
                open.extend(self.nodes.get(at).into_iter().flat_map(|n| n.inputs.iter().copied()));
            }
        }
        let mut places = vec![0; self.nodes.len()];
        let mut nodes = Vec::new();
        for (at, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            if used.get(at) == Some(&true) {
                node.inputs.iter_mut().for_each(|i| *i = places.get(*i).copied().unwrap_or(0));
                if let Some(place) = places.get_mut(at) {
                    *place = nodes.len();
                }
                nodes.push(node);
            }
        }
        let append_only = nodes.last().is_some_and(|n| n.append_only);
        Ok(StreamPlan { nodes, key: self.keys.get(root).cloned().flatten(), append_only })
    }
}
