//! DataFusion's expressions over the columns of a node's input, with PostgreSQL's errors.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal, NegativeExpr};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use millpond_common::{Error, Result, SqlState};
use millpond_plan::PlanExpr;

use super::output::record_batch;

/// An expression that can be evaluated on batches of one schema.
pub struct BoundExpr {
    physical: Arc<dyn PhysicalExpr>,
}

impl BoundExpr {
    /// Binds an expression to the columns of `input`, which it names by position.
    pub fn new(expr: &PlanExpr, input: &Schema) -> Result<Self> {
        let fields =
            input.fields().iter().enumerate().map(|(i, f)| {
                Field::new(PlanExpr::column_name(i), f.data_type().clone(), f.is_nullable()).with_metadata(f.metadata().clone())
            });
        let schema = DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>())).map_err(from_datafusion)?;
        let physical = create_physical_expr(&expr.0, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default());
        let physical = physical.and_then(|p| checked(p, schema.as_arrow())).map_err(from_datafusion)?;
        Ok(BoundExpr { physical })
    }

    /// One value per row of `batch`.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let value = self.physical.evaluate(batch).and_then(|v| v.into_array(batch.num_rows()));
        value.map_err(from_datafusion)
    }
}

/// A condition that is evaluated before the columns that it does not read exist.
pub struct Condition {
    expr: BoundExpr,
    schema: SchemaRef,
    /// The positions of the columns that it reads.
    columns: Vec<usize>,
}

impl Condition {
    /// Binds a condition over the columns of `input`.
    pub fn new(expr: &PlanExpr, input: &Schema) -> Result<Self> {
        let whole = BoundExpr::new(expr, input)?;
        let columns = collect_columns(&whole.physical).iter().map(|c| c.index()).collect::<BTreeSet<_>>();
        let columns = columns.into_iter().collect::<Vec<_>>();
        let physical = Arc::clone(&whole.physical).transform_up(|e| match e.downcast_ref::<Column>() {
            Some(c) => {
                let place = columns.iter().position(|i| *i == c.index()).unwrap_or_default();
                Ok(Transformed::yes(Arc::new(Column::new(c.name(), place)) as Arc<dyn PhysicalExpr>))
            }
            None => Ok(Transformed::no(e)),
        });
        let expr = BoundExpr { physical: physical.map_err(from_datafusion)?.data };
        Ok(Condition { expr, schema: Arc::new(input.project(&columns)?), columns })
    }

    /// For which of `rows` rows it is true; `column` makes a column.
    pub fn truth(&self, rows: usize, column: impl FnMut(usize) -> Result<ArrayRef>) -> Result<BooleanArray> {
        let columns = self.columns.iter().copied().map(column).collect::<Result<Vec<_>>>()?;
        let value = self.expr.evaluate(&record_batch(&self.schema, columns, rows)?)?;
        let mask = value.as_boolean_opt().ok_or_else(|| Error::internal("a condition is not boolean"))?;
        Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
    }
}

/// The schema of pairs: left columns, then right columns.
pub fn pair_schema(left: &Schema, right: &Schema) -> SchemaRef {
    Arc::new(Schema::new(left.fields().iter().chain(right.fields()).cloned().collect::<Vec<_>>()))
}

/// Arithmetic that reports overflow instead of wrapping around.
fn checked(expr: Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let rewritten = expr.transform_up(|e| {
        if let Some(binary) = e.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>));
        }
        if let Some(negative) = e.downcast_ref::<NegativeExpr>() {
            let data_type = negative.arg().data_type(input)?;
            if data_type.is_integer() {
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg())).with_fail_on_overflow(true);
                return Ok(Transformed::yes(Arc::new(minus) as Arc<dyn PhysicalExpr>));
            }
        }
        Ok(Transformed::no(e))
    })?;
    Ok(rewritten.data)
}

/// DataFusion's error in PostgreSQL's terms, with the SQLSTATE kept or found.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(e, _) => from_arrow(*e),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Shared(e) => match Arc::try_unwrap(e) {
            Ok(e) => from_datafusion(e),
            Err(shared) => data_error(shared.to_string()),
        },
        DataFusionError::External(e) => match e.downcast::<Error>() {
            Ok(own) => *own,
            Err(e) => match e.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(other) => data_error(other.to_string()),
            },
        },
        DataFusionError::Execution(message) => data_error(message),
        DataFusionError::NotImplemented(message) => Error::new(SqlState::FEATURE_NOT_SUPPORTED, message),
        DataFusionError::Plan(message) => Error::new(SqlState::DATATYPE_MISMATCH, message),
        DataFusionError::ResourcesExhausted(message) => Error::new(SqlState::OUT_OF_MEMORY, message),
        DataFusionError::IoError(e) => e.into(),
        other => Error::internal(other.to_string()),
    }
}

/// Arrow's error in PostgreSQL's terms.
pub fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(e) => from_datafusion(DataFusionError::External(e)),
        ArrowError::InvalidArgumentError(m) | ArrowError::ComputeError(m) => data_error(m),
        other => other.into(),
    }
}

/// An error while computing with values, whose kind only its text tells.
fn data_error(message: String) -> Error {
    if let Some(own) = millpond_common::conversion::in_words(&message) {
        return own;
    }
    let lower = message.to_ascii_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")
    } else if is_range(&lower) {
        Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range").with_detail(message)
    } else {
        Error::new(SqlState::DATA_EXCEPTION, message)
    }
}

fn is_range(lower: &str) -> bool {
    ["overflow", "out of range", "too large to store", "too small to store", "underflow"].iter().any(|sign| lower.contains(sign))
}
