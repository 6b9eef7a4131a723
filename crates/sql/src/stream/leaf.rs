//! Where rows come from: scans and constants.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{EmptyRelation, TableScan, Values};
use millpond_common::{Error, Result};
use millpond_plan::Operator;

use super::build::{Builder, stream_field, stream_schema};
use super::{not_yet, refuse};
use crate::catalog::RelationKind;
use crate::error::from_datafusion;
use crate::planner::{RelationRef, RelationSource};

impl Builder<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<usize> {
        let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
            return Err(not_yet(
                format!("the table function {}", scan.table_name.table()),
                "Write the rows with VALUES, or insert them into a table.",
            ));
        };
        let id = match &source.relation {
            RelationRef::User(id) => *id,
            RelationRef::Saved(..) => return Err(crate::planner::in_a_view()),
            RelationRef::System(schema, name) => {
                return Err(refuse(
                    format!("the system relation {schema}.{name}"),
                    "Select from it when you need it; it is not a stream of changes.",
                ));
            }
        };
        let relation = self.planner.catalog.get(id).ok_or_else(|| Error::internal("a scan of a relation that is gone"))?;
        let mut projection = scan.projection.clone().unwrap_or_else(|| (0..source.schema.fields().len()).collect());
        if projection.is_empty() {
            // `count(*)` reads no column, but rows need one to travel in.
            projection.push(0);
        }
        let append_only = match &relation.kind {
            RelationKind::Source(_) => true,
            RelationKind::MaterializedView { append_only, .. } => *append_only,
            RelationKind::Table(_) | RelationKind::View { .. } => false,
        };
        let key = match &relation.kind {
            RelationKind::Table(table) => table.primary_key.clone(),
            RelationKind::MaterializedView { key, .. } => key.clone(),
            _ => None,
        };
        let key = key.and_then(|key| key.iter().map(|k| projection.iter().position(|p| p == k)).collect());
        let fields = projection.iter().filter_map(|c| source.schema.fields().get(*c)).map(|f| stream_field(f)).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let mut node = self.push(Operator::Scan { relation: id, projection }, Vec::new(), schema, append_only, key);
        for filter in &scan.filters {
            let predicate = super::expr::convert(filter, &scan.projected_schema, |c| c)?;
            node = self.push_filter(node, predicate);
        }
        Ok(node)
    }

    /// No rows, or one row without columns; the latter has one column that nobody reads.
    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Result<usize> {
        if empty.produce_one_row {
            let schema = Arc::new(Schema::new(vec![Field::new("one", DataType::Boolean, true)]));
            let column: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true]));
            return self.constant(RecordBatch::try_new(schema, vec![column])?);
        }
        self.constant(RecordBatch::new_empty(stream_schema(&empty.schema)))
    }

    pub(super) fn values(&mut self, values: &Values) -> Result<usize> {
        let schema = stream_schema(&values.schema);
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(values.values.len()); schema.fields().len()];
        let one_row =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &RecordBatchOptions::new().with_row_count(Some(1)))?;
        for row in &values.values {
            for ((expr, field), column) in row.iter().zip(schema.fields()).zip(&mut columns) {
                let physical = self.planner.context.create_physical_expr(expr.clone(), &DFSchema::empty()).map_err(from_datafusion)?;
                let value = physical.evaluate(&one_row).and_then(|v| v.into_array(1)).map_err(from_datafusion)?;
                let value = arrow::compute::cast(&value, field.data_type())?;
                column.push(ScalarValue::try_from_array(&value, 0).map_err(from_datafusion)?);
            }
        }
        let arrays = columns
            .into_iter()
            .zip(schema.fields())
            .map(|(values, field)| match values.is_empty() {
                true => Ok(arrow::array::new_empty_array(field.data_type())),
                false => ScalarValue::iter_to_array(values),
            })
            .collect::<datafusion::error::Result<Vec<_>>>()
            .map_err(from_datafusion)?;
        self.constant(RecordBatch::try_new(schema, arrays)?)
    }

    fn constant(&mut self, batch: RecordBatch) -> Result<usize> {
        let mut ipc = Vec::new();
        let mut writer = StreamWriter::try_new(&mut ipc, &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        Ok(self.push(Operator::Values { ipc }, Vec::new(), batch.schema(), true, None))
    }
}
