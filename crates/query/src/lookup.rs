//! Prepared statements that read rows by their whole key, `SELECT a, b FROM r WHERE key = $1`: such a statement is
//! recognised once, and each execution is one read of the store, without a planner.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use millpond_common::text::zone::Zone;
use millpond_common::{RelationId, Result};
use millpond_sql::{BoundQuery, Catalog, RelationRef, RelationSource};
use millpond_state::ReadView;

use crate::response::client_schema;

/// Columns of the row that has a key.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub relation: RelationId,
    /// As the client gets them.
    pub schema: SchemaRef,
    /// Their positions in the relation.
    columns: Vec<usize>,
    key_schema: SchemaRef,
    /// In the key's order.
    key: Vec<Operand>,
}

/// What a key column is compared with.
#[derive(Clone, Debug)]
enum Operand {
    /// The position of a parameter.
    Parameter(usize),
    Constant(ScalarValue),
}

/// A part of a plan: which column of the relation each of its columns is, and what the relation's columns must equal.
struct Shape<'a> {
    relation: RelationId,
    columns: Vec<usize>,
    equal: Vec<(usize, &'a Expr)>,
}

impl Lookup {
    /// What a bound query does, if it is this and nothing else.
    pub fn of(query: &BoundQuery, catalog: &Catalog, zone: Zone) -> Option<Lookup> {
        let Shape { relation, columns, equal } = shape(&query.plan)?;
        let spec = catalog.get(relation)?.spec()?;
        let key = spec.key.as_ref().filter(|key| !key.is_empty() && key.len() == equal.len())?;
        let operand = |column: &usize| {
            let (_, expr) = equal.iter().find(|(c, _)| c == column)?;
            operand(expr, spec.schema.field(*column).data_type())
        };
        let operands = key.iter().map(operand).collect::<Option<Vec<_>>>()?;
        let schema = client_schema(&query.columns, zone);
        let types_agree =
            |(field, column): (&Arc<arrow_schema::Field>, &usize)| field.data_type() == spec.schema.field(*column).data_type();
        if columns.len() != schema.fields().len() || !schema.fields().iter().zip(&columns).all(types_agree) {
            return None;
        }
        Some(Lookup { relation, schema, columns, key_schema: spec.project(key), key: operands })
    }

    /// The key for these parameters; `None` if one has a type that needs a planner. NULL equals nothing: no key.
    pub fn keys(&self, parameters: &[ArrayRef]) -> Option<Result<RecordBatch>> {
        let mut columns = Vec::with_capacity(self.key.len());
        for (operand, field) in self.key.iter().zip(self.key_schema.fields()) {
            let value = match operand {
                Operand::Parameter(i) => Arc::clone(parameters.get(*i).filter(|p| p.len() == 1)?),
                Operand::Constant(value) => value.to_array_of_size(1).ok()?,
            };
            if value.is_null(0) {
                return Some(Ok(RecordBatch::new_empty(Arc::clone(&self.key_schema))));
            }
            columns.push(match (value.data_type(), field.data_type()) {
                (given, wanted) if given == wanted => value,
                (DataType::Int16 | DataType::Int32, DataType::Int64) => cast(&value, &DataType::Int64).ok()?,
                _ => return None,
            });
        }
        Some(RecordBatch::try_new(Arc::clone(&self.key_schema), columns).map_err(Into::into))
    }

    /// The rows with these keys.
    pub fn rows(&self, view: &ReadView, keys: &RecordBatch) -> Result<RecordBatch> {
        if keys.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let found = view.lookup(self.relation, keys)?.project(&self.columns)?;
        let options = RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), found.columns().to_vec(), &options)?)
    }
}

fn shape(plan: &LogicalPlan) -> Option<Shape<'_>> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
            let source = scan.source.downcast_ref::<RelationSource>()?;
            let RelationRef::User(relation) = source.relation else { return None };
            let columns = scan.projection.clone().unwrap_or_else(|| (0..source.schema.fields().len()).collect());
            Some(Shape { relation, columns, equal: vec![] })
        }
        LogicalPlan::SubqueryAlias(alias) => shape(&alias.input),
        LogicalPlan::Projection(projection) => {
            let input = shape(&projection.input)?;
            let columns = projection.expr.iter().map(|e| column(e, &projection.input, &input)).collect::<Option<Vec<_>>>()?;
            Some(Shape { columns, ..input })
        }
        LogicalPlan::Filter(filter) => {
            let mut input = shape(&filter.input)?;
            for condition in split_conjunction(&filter.predicate) {
                let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
                let (column, value) = match (column(left, &filter.input, &input), column(right, &filter.input, &input)) {
                    (Some(column), None) => (column, right.as_ref()),
                    (None, Some(column)) => (column, left.as_ref()),
                    _ => return None,
                };
                if input.equal.iter().any(|(c, _)| *c == column) {
                    return None;
                }
                input.equal.push((column, value));
            }
            Some(input)
        }
        _ => None,
    }
}

/// The relation's column that an expression over `plan` is.
fn column(expr: &Expr, plan: &LogicalPlan, shape: &Shape<'_>) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => column(&alias.expr, plan, shape),
        Expr::Column(c) => shape.columns.get(plan.schema().maybe_index_of_column(c)?).copied(),
        _ => None,
    }
}

fn operand(expr: &Expr, wanted: &DataType) -> Option<Operand> {
    if wanted.is_floating() {
        return None; // equal numbers may have different bytes
    }
    match expr {
        Expr::Literal(value, _) if value.data_type() == *wanted => Some(Operand::Constant(value.clone())),
        Expr::Placeholder(p) => Some(Operand::Parameter(p.id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?)),
        // An integer parameter that is widened to the key's type.
        Expr::Cast(c) if *wanted == DataType::Int64 && c.field.data_type() == wanted => match c.expr.as_ref() {
            inner @ Expr::Placeholder(_) => operand(inner, wanted),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fresh::with_session;
    use crate::prepared::PlanKey;
    use crate::{Response, Session};
    use arrow::array::{Int64Array, StringArray};
    use arrow::util::display::array_value_to_string;
    use futures::StreamExt;

    const SETUP: [&str; 4] = [
        "CREATE TABLE t (a BIGINT, b TEXT, v INT, PRIMARY KEY (b, a))",
        "INSERT INTO t VALUES (1, 'x', 10), (1, 'y', 11), (2, 'x', NULL)",
        "CREATE MATERIALIZED VIEW s AS SELECT a, count(*) AS n FROM t GROUP BY a",
        "CREATE VIEW w AS SELECT n AS m, a AS k FROM s",
    ];

    async fn run(session: &mut Session, sql: &str, parameters: Vec<ArrayRef>) -> (bool, String) {
        let statement = session.prepare(sql, &[]).await.unwrap();
        let key = PlanKey { version: session.database.catalog().1, search_path: session.search_path(), zone: session.zone() };
        let found = statement.cached_lookup(|| key).is_some_and(|l| l.keys(&parameters).is_some());
        let mut text = vec![];
        if let Response::Rows { mut rows, schema, .. } = session.execute(&statement, parameters, false).await.unwrap() {
            while let Some(batch) = rows.next().await {
                let batch = batch.unwrap();
                assert_eq!(batch.schema(), schema);
                let row = |i| batch.columns().iter().map(|c| array_value_to_string(c, i).unwrap()).collect::<Vec<_>>().join(" ");
                text.extend((0..batch.num_rows()).map(row));
            }
        }
        session.finish_implicit(true).await.unwrap();
        text.sort();
        (found, text.join(", "))
    }

    #[test]
    fn rows_are_read_by_their_key_without_a_planner() {
        with_session(async |session| {
            for sql in SETUP {
                run(session, sql, vec![]).await;
            }
            let (int, text) = (
                |v: Option<i64>| Arc::new(Int64Array::from(vec![v])) as ArrayRef,
                |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef,
            );
            for (sql, parameters, looked_up, rows) in [
                ("SELECT n FROM s WHERE a = $1", vec![int(Some(1))], true, "2"),
                ("SELECT n, a, n AS again FROM s WHERE $1 = s.a", vec![int(Some(1))], true, "2 1 2"),
                ("SELECT n FROM s WHERE a = $1", vec![int(Some(7))], true, ""),
                ("SELECT n FROM s WHERE a = $1", vec![int(None)], true, ""),
                ("SELECT m FROM w WHERE k = $1", vec![int(Some(2))], true, "1"),
                ("SELECT v FROM t WHERE a = $1 AND b = $2", vec![int(Some(1)), text("y")], true, "11"),
                ("SELECT v, b FROM t WHERE b = 'x' AND a = $1", vec![int(Some(2))], true, " x"),
                ("SELECT v FROM t WHERE a = $1", vec![int(Some(1))], false, "10, 11"),
                ("SELECT v FROM t WHERE a = $1 AND b = $2 AND v > 10", vec![int(Some(1)), text("x")], false, ""),
                ("SELECT n + 1 FROM s WHERE a = $1", vec![int(Some(1))], false, "3"),
                ("SELECT n FROM s WHERE a > $1", vec![int(Some(1))], false, "1"),
                ("SELECT n FROM s WHERE a = $1 OR a = 2", vec![int(Some(1))], false, "1, 2"),
                ("SELECT count(*) FROM s WHERE a = $1", vec![int(Some(1))], false, "1"),
            ] {
                assert_eq!(run(session, sql, parameters).await, (looked_up, rows.to_string()), "{sql}");
            }
            let statement = session.prepare("SELECT n FROM s WHERE a = $1", &[]).await.unwrap();
            run(session, "BEGIN", vec![]).await;
            run(session, "INSERT INTO t VALUES (2, 'own', 1)", vec![]).await;
            assert_eq!(run(session, "SELECT v FROM t WHERE a = $1 AND b = 'own'", vec![int(Some(2))]).await, (true, "1".into()));
            run(session, "ROLLBACK", vec![]).await;
            run(session, "DROP VIEW w", vec![]).await;
            run(session, "DROP MATERIALIZED VIEW s", vec![]).await;
            assert!(session.execute(&statement, vec![int(Some(1))], false).await.is_err(), "what is gone is not read");
        });
    }
}
