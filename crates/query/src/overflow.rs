//! Integer arithmetic that reports overflow (22003) as PostgreSQL does, where DataFusion's wraps around.

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow_schema::{ArrowError, DataType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use millpond_common::{Error, SqlState};

/// Puts checked functions in the place of `+`, `-`, `*` over integers. Runs after types are coerced.
#[derive(Debug, Default)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let mut schema = DFSchema::empty();
            for input in node.inputs() {
                schema.merge(input.schema());
            }
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|e| checked(e, &schema))?;
                Ok(expr.update_data(|e| name.restore(e)))
            })
        })?;
        rewritten.data.recompute_schema()
    }
}

/// The same for one expression over some columns.
pub fn checked_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|e| checked(e, schema))?.data)
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let integer = |e: &Expr| e.get_type(schema).is_ok_and(|t| t.is_integer());
    let call = |operation: Operation, args: Vec<Expr>| {
        let function = Arc::new(ScalarUDF::new_from_impl(Checked::new(operation)));
        Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if operation(op).is_some() && integer(&left) && integer(&right) => {
            let (same, operation) = (left.get_type(schema)? == right.get_type(schema)?, operation(op));
            match operation {
                Some(operation) if same => Ok(Transformed::yes(call(operation, vec![*left, *right]))),
                _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        }
        Expr::Negative(inner) if integer(&inner) && !matches!(inner.as_ref(), Expr::Literal(..)) => {
            let zero = Expr::Literal(ScalarValue::new_zero(&inner.get_type(schema)?)?, None);
            Ok(Transformed::yes(call(Operation::Subtract, vec![zero, *inner])))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn operation(op: Operator) -> Option<Operation> {
    match op {
        Operator::Plus => Some(Operation::Add),
        Operator::Minus => Some(Operation::Subtract),
        Operator::Multiply => Some(Operation::Multiply),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn new(operation: Operation) -> Self {
        Checked { operation, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef> {
        let result = match self.operation {
            Operation::Add => add(left, right),
            Operation::Subtract => sub(left, right),
            Operation::Multiply => mul(left, right),
        };
        result.map_err(|e| match e {
            ArrowError::ArithmeticOverflow(_) | ArrowError::ComputeError(_) => {
                let name = match left.get().0.data_type() {
                    DataType::Int16 => "smallint",
                    DataType::Int32 => "integer",
                    _ => "bigint",
                };
                let error = Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"));
                DataFusionError::External(Box::new(error))
            }
            other => other.into(),
        })
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        match args.args.as_slice() {
            [ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)] => {
                let result = self.compute(&left.to_scalar()?, &right.to_scalar()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
            [ColumnarValue::Array(left), ColumnarValue::Scalar(right)] => {
                Ok(ColumnarValue::Array(self.compute(left, &right.to_scalar()?)?))
            }
            [ColumnarValue::Scalar(left), ColumnarValue::Array(right)] => {
                Ok(ColumnarValue::Array(self.compute(&left.to_scalar()?, right)?))
            }
            [left, right] => {
                let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
                Ok(ColumnarValue::Array(self.compute(&left, &right)?))
            }
            _ => Err(DataFusionError::Internal("checked arithmetic has two arguments".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    async fn run(sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
        let state = SessionStateBuilder::new().with_default_features().with_analyzer_rule(Arc::new(CheckedArithmetic)).build();
        SessionContext::new_with_state(state).sql(sql).await?.collect().await
    }

    #[tokio::test]
    async fn overflow_is_an_error() {
        for sql in [
            "SELECT a + 1 FROM (VALUES (9223372036854775807)) t(a)",
            "SELECT sum(a * 2) FROM (VALUES (9223372036854775807)) t(a)",
            "SELECT -a FROM (VALUES (-9223372036854775808)) t(a)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM (VALUES (9223372036854775807)) t(a) WHERE a + 1 > 0)",
        ] {
            let error = run(sql).await.unwrap_err();
            assert!(error.to_string().contains("bigint out of range"), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn names_stay() {
        let batches = run("SELECT a + 1, -a AS n FROM (VALUES (5)) t(a)").await.unwrap();
        let batch = &batches[0];
        assert_eq!(batch.schema().field(1).name(), "n");
        assert_eq!(batch.num_rows(), 1);
    }
}
