//! Expressions and their values, errors and their words, as tables in `semantics.txt` and `errors.txt`.
//! `UPDATE_PLANS=1` writes the files anew.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_schema::Schema;
use common::Database;
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use millpond_common::{Result, SqlType};
use millpond_sql::{StatementKind, ast, parse};

/// Compares a file of `input` lines and what follows them with what comes out now.
fn table(file: &str, mut run: impl FnMut(&str) -> String) {
    let path = format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut actual = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(input) => actual.push_str(&format!("> {input}\n{}", run(input))),
            None if line.starts_with('#') || line.is_empty() => actual.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    if std::env::var_os("UPDATE_PLANS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    } else {
        assert!(actual == text, "{file} differs; see it with UPDATE_PLANS=1 and git diff\n{actual}");
    }
}

/// The value of `SELECT expr`, by evaluating the one projection of its optimised plan.
fn evaluate(database: &Database, expr: &str) -> Result<String> {
    let statement = parse(&format!("SELECT {expr}"))?.pop().unwrap();
    let StatementKind::Query(query) = &statement.kind else { panic!("{expr}") };
    let ast::SetExpr::Select(select) = query.body.as_ref() else { panic!("{expr}") };
    let ast::SelectItem::UnnamedExpr(item) = &select.projection[0] else { panic!("{expr}") };
    let planner = database.planner();
    let name = planner.plan_query(query, &[])?.columns.field(0).name().clone();
    let bound = planner.plan_expr(item, &Schema::empty(), None, &[], None)?;
    let schema = DFSchema::empty();
    let (_, field) = bound.to_field(&schema).unwrap();
    let physical = planner.context.create_physical_expr(bound, &schema).map_err(millpond_sql::error::from_datafusion)?;
    let physical = millpond_sql::checked_arithmetic(physical);
    let row =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(1))).unwrap();
    let value = physical.evaluate(&row).and_then(|v| v.into_array(1)).map_err(millpond_sql::error::from_datafusion)?;
    let options = FormatOptions::default().with_null("NULL");
    let text = ArrayFormatter::try_new(&value, &options).unwrap().value(0).to_string();
    Ok(format!("{name} = {text} :: {}", SqlType::of(&field).name()))
}

#[test]
fn expressions_and_their_values() {
    let database = Database::sample();
    table("semantics.txt", |input| match evaluate(&database, input) {
        Ok(value) => format!("{value}\n"),
        Err(e) => format!("{e}\n"),
    });
}

#[test]
fn errors_in_postgresqls_words() {
    table("errors.txt", |input| {
        let mut database = Database::sample();
        let outcome = parse(input).and_then(|statements| statements.iter().try_for_each(|s| database.execute(&s.kind).map(|_| ())));
        match outcome {
            Ok(()) => "ok\n".into(),
            Err(e) => format!("{e}{}\n", e.position().map(|p| format!("\nAT: {p}")).unwrap_or_default()),
        }
    });
}
