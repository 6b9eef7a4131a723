use std::sync::Arc;

use arrow::array::{ListArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::col;
use millpond_common::{Delta, Result, SqlState};
use millpond_plan::{Operator, PlanExpr};

use super::run::plan;
use super::table::{delta, schema, show};
use crate::operators::{Built, build};

fn apply(operator: Operator, input: &Delta, output: &SchemaRef) -> Result<Vec<Delta>> {
    let plan = plan(&[&input.schema()], false, operator, output);
    let Built::Stateless(mut operator) = build(&plan, 1)? else { panic!("a stateless operator is expected") };
    let mut out = Vec::new();
    operator.apply(input.clone(), &mut out)?;
    assert!(out.iter().all(|d| &d.schema() == output));
    Ok(out)
}

#[test]
fn filter_keeps_what_is_true() {
    let columns = schema("a:int b:text");
    let input = delta(&columns, "+1 1 x\n-2 5 y\n+3 null z");
    let predicate = PlanExpr(col("c0").gt(lit(2i64)));
    assert_eq!(show(&apply(Operator::Filter { predicate }, &input, &columns).unwrap()), "-2 5 y");
    let predicate = PlanExpr(col("c0").gt(lit(9i64)));
    assert!(apply(Operator::Filter { predicate }, &input, &columns).unwrap().is_empty());
}

#[test]
fn a_condition_guards_those_behind_it() {
    let columns = schema("a:int b:int");
    let input = delta(&columns, "+1 1 0\n+1 6 2\n+1 1 2");
    let predicate = PlanExpr(col("c1").not_eq(lit(0i64)).and((col("c0") / col("c1")).gt(lit(1i64))));
    assert_eq!(show(&apply(Operator::Filter { predicate }, &input, &columns).unwrap()), "+1 6 2");
}

#[test]
fn project_computes() {
    let input = delta(&schema("a:int b:text"), "+1 1 x\n-2 5 y\n+3 null z");
    let exprs = vec![PlanExpr(col("c1")), PlanExpr(col("c0") * lit(2i64)), PlanExpr(lit(7i64))];
    let out = apply(Operator::Project { exprs }, &input, &schema("b:text twice:int seven:int")).unwrap();
    assert_eq!(show(&out), "+1 x 2 7\n-2 y 10 7\n+3 z null 7");
}

#[test]
fn errors_are_those_of_postgres() {
    let columns = schema("a:int b:text c:i32");
    let input = delta(&columns, "+1 9223372036854775807 12x 2147483647");
    let fails = |expr: Expr, output: &str| {
        let exprs = vec![PlanExpr(expr)];
        apply(Operator::Project { exprs }, &input, &schema(output)).map_err(|e| (e.state(), e.message().to_string())).unwrap_err()
    };
    assert_eq!(fails(col("c0") + lit(1i64), "x:int").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(col("c0") * lit(2i64), "x:int").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(lit(-2i64) - col("c0"), "x:int").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(col("c2") + lit(1i32), "x:i32").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(Expr::Negative(Box::new(lit(-1i64) - col("c0"))), "x:int").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(col("c0") / lit(0i64), "x:int"), (SqlState::DIVISION_BY_ZERO, "division by zero".into()));
    assert_eq!(fails(col("c0") % lit(0i64), "x:int").0, SqlState::DIVISION_BY_ZERO);
    let text = fails(cast(col("c1"), DataType::Int64), "x:int");
    assert_eq!(text, (SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bigint: \"12x\"".into()));
    assert_eq!(fails(cast(col("c0"), DataType::Int32), "x:i32").0, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert_eq!(fails(cast(col("c1"), DataType::Date32), "x:text").0, SqlState("22007"));
}

#[test]
fn unnest_runs_lists_in_parallel() {
    let list = |rows: Vec<Option<Vec<Option<i64>>>>| Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows));
    let a = list(vec![Some(vec![Some(1), Some(2)]), None, Some(vec![]), Some(vec![Some(3)])]);
    let b = list(vec![Some(vec![Some(7)]), Some(vec![]), None, Some(vec![None, Some(9)])]);
    let keys = delta(&schema("k:int"), "+1 10\n+1 20\n+1 30\n-2 40");
    let fields = vec![Field::new("k", DataType::Int64, true), Field::new("a", a_type(), true), Field::new("b", a_type(), true)];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::clone(keys.batch.column(0)), a, b]).unwrap();
    let input = Delta::new(batch, keys.diffs);
    let out = apply(Operator::Unnest { columns: vec![1, 2] }, &input, &schema("k:int a:int b:int")).unwrap();
    assert_eq!(show(&out), "+1 10 1 7\n+1 10 2 null\n-2 40 3 null\n-2 40 null 9");
    let rest = apply(Operator::Unnest { columns: vec![1, 2] }, &input.slice(1, 2), &schema("k:int a:int b:int")).unwrap();
    assert!(rest.is_empty());
    let last = apply(Operator::Unnest { columns: vec![1, 2] }, &input.slice(3, 1), &schema("k:int a:int b:int")).unwrap();
    assert_eq!(show(&last), "-2 40 3 null\n-2 40 null 9");
}

fn a_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Int64, true)))
}
