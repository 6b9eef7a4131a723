//! Where the rows of an INSERT come from: VALUES, a query, or defaults alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::Schema;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::{BoundQuery, ast};

use super::DmlContext;
use super::bind::{Binder, Evaluator, has_subquery, no_columns, parameter};
use super::target::Target;
use crate::error::from_datafusion;
use crate::transaction::Transaction;

/// A bound source of rows.
pub enum Source {
    /// Rows written out, in the order of the listed columns.
    Rows(Vec<Vec<Cell>>),
    /// A query, and what is assigned to each listed column from its result.
    Query {
        /// The query.
        query: Box<BoundQuery>,
        /// Over the query's columns.
        assigned: Vec<Expr>,
    },
}

/// One value of VALUES.
pub enum Cell {
    /// DEFAULT
    Default,
    /// A constant.
    Value(ScalarValue),
    /// An expression.
    Expr(Box<Expr>),
    /// A query that gives one value, and what is assigned from its column.
    Query(Box<(BoundQuery, Expr)>),
}

/// Binds the source of an INSERT into the columns listed.
pub fn bind(
    binder: &Binder<'_>,
    target: &Target<'_>,
    listed: &mut Vec<usize>,
    explicit: bool,
    query: Option<&ast::Query>,
) -> Result<Source> {
    let Some(query) = query else {
        listed.clear();
        return Ok(Source::Rows(vec![vec![]]));
    };
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    match query.body.as_ref() {
        ast::SetExpr::Values(values) if plain => {
            let width = values.rows.first().map_or(0, |r| r.content.len());
            check_width(width, listed, explicit)?;
            if values.rows.iter().any(|r| r.content.len() != width) {
                return Err(Error::new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length"));
            }
            let row = |row: &ast::Parens<Vec<ast::Expr>>| {
                row.content.iter().zip(listed.iter()).map(|(e, c)| cell(binder, target, e, *c)).collect()
            };
            Ok(Source::Rows(values.rows.iter().map(row).collect::<Result<_>>()?))
        }
        body => {
            let bound = binder.query(query, &parameter_items(target, listed, body))?;
            check_width(bound.columns.fields().len(), listed, explicit)?;
            let literals = literal_items(body);
            let schema = numbered(&bound.columns);
            let assign = |(i, column): (usize, &usize)| {
                // A bare literal of the select list takes the type of the column that it goes to.
                let expr = literals.get(i).copied().flatten().cloned().unwrap_or_else(|| numbered_column(i));
                target.assignment(binder, &expr, &schema, None, *column)
            };
            let assigned = listed.iter().enumerate().map(assign).collect::<Result<_>>()?;
            Ok(Source::Query { query: Box::new(bound), assigned })
        }
    }
}

/// The listed columns become exactly those that get a value.
fn check_width(width: usize, listed: &mut Vec<usize>, explicit: bool) -> Result<()> {
    if width > listed.len() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns"));
    }
    if width < listed.len() && explicit {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions"));
    }
    listed.truncate(width);
    Ok(())
}

/// The items of a SELECT list, if each stands for one column.
fn items(body: &ast::SetExpr) -> Vec<Option<&ast::Expr>> {
    let ast::SetExpr::Select(select) = body else { return vec![] };
    fn single(item: &ast::SelectItem) -> Option<Option<&ast::Expr>> {
        match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => Some(Some(e)),
            _ => None,
        }
    }
    match &select.distinct {
        None => select.projection.iter().map(single).collect::<Option<_>>().unwrap_or_default(),
        Some(_) => vec![],
    }
}

/// The items of a SELECT list that are bare string literals or NULL, by position.
fn literal_items(body: &ast::SetExpr) -> Vec<Option<&ast::Expr>> {
    let bare = |expr: &&ast::Expr| match expr {
        ast::Expr::Value(v) => matches!(v.value, ast::Value::SingleQuotedString(_) | ast::Value::Null),
        _ => false,
    };
    items(body).into_iter().map(|item| item.filter(bare)).collect()
}

/// The items of a SELECT list that are bare parameters, with the types of the columns that they go to.
fn parameter_items(target: &Target<'_>, listed: &[usize], body: &ast::SetExpr) -> Vec<(usize, SqlType)> {
    let typed = |(item, column): (Option<&ast::Expr>, &usize)| Some((parameter(item?)?, target.types.get(*column)?.clone()));
    items(body).into_iter().zip(listed).filter_map(typed).collect()
}

/// Columns named by their position, so that equal names do no harm.
pub fn numbered(schema: &Schema) -> Schema {
    let field = |(i, f): (usize, &Arc<arrow_schema::Field>)| Arc::new(f.as_ref().clone().with_name(format!("c{i}")).with_nullable(true));
    Schema::new(schema.fields().iter().enumerate().map(field).collect::<Vec<_>>())
}

/// Column `i` of a [`numbered`] schema.
pub fn numbered_column(i: usize) -> ast::Expr {
    ast::Expr::Identifier(ast::Ident::new(format!("c{i}")))
}

/// The batch under a [`numbered`] schema; types may differ from it in nothing that matters to a reader.
pub fn with_numbers(batch: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch> {
    crate::response::conform(batch, schema)
}

/// Whether an expression is the word DEFAULT.
pub fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn cell(binder: &Binder<'_>, target: &Target<'_>, expr: &ast::Expr, column: usize) -> Result<Cell> {
    if is_default(expr) {
        return Ok(Cell::Default);
    }
    if let Some(value) = target.types.get(column).and_then(|t| literal(expr, t)) {
        return Ok(Cell::Value(value));
    }
    if has_subquery(expr) {
        let query = binder.query_text(&format!("SELECT {expr}"))?;
        let assigned = target.assignment(binder, &numbered_column(0), &numbered(&query.columns), None, column)?;
        return Ok(Cell::Query(Box::new((query, assigned))));
    }
    match target.assignment(binder, expr, &Schema::empty(), None, column)? {
        Expr::Literal(value, _) => Ok(Cell::Value(value)),
        other => Ok(Cell::Expr(Box::new(other))),
    }
}

/// The value of a literal that needs no planning.
fn literal(expr: &ast::Expr, target: &SqlType) -> Option<ScalarValue> {
    match expr {
        ast::Expr::Value(v) => match (&v.value, target) {
            (ast::Value::Null, _) => ScalarValue::try_from(&target.arrow()).ok(),
            (ast::Value::Boolean(b), SqlType::Boolean) => Some(ScalarValue::Boolean(Some(*b))),
            (ast::Value::SingleQuotedString(s), SqlType::Text | SqlType::Varchar(None)) => Some(ScalarValue::Utf8(Some(s.clone()))),
            (ast::Value::Number(n, _), _) => number(&n.to_string(), target),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
            ast::Expr::Value(v) => match &v.value {
                ast::Value::Number(n, _) => number(&format!("-{n}"), target),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn number(text: &str, target: &SqlType) -> Option<ScalarValue> {
    match target {
        SqlType::SmallInt => Some(ScalarValue::Int16(Some(text.parse().ok()?))),
        SqlType::Integer => Some(ScalarValue::Int32(Some(text.parse().ok()?))),
        SqlType::BigInt => Some(ScalarValue::Int64(Some(text.parse().ok()?))),
        SqlType::Double => text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| ScalarValue::Float64(Some(f))),
        _ => None,
    }
}

/// Rows on their way into the table: one array per column, for so many rows.
pub struct Columns<'a> {
    target: &'a Target<'a>,
    /// Per column of the table its place in the list, if it is listed.
    places: Vec<Option<usize>>,
    /// Of columns that are not listed, or given DEFAULT.
    defaults: Vec<Option<Evaluator>>,
}

impl<'a> Columns<'a> {
    /// For rows whose listed columns are given.
    pub fn new(binder: &Binder<'_>, target: &'a Target<'a>, listed: &[usize], source: &Source) -> Result<Columns<'a>> {
        let places = (0..target.width()).map(|c| listed.iter().position(|l| *l == c)).collect::<Vec<_>>();
        let wanted = |place: Option<usize>| match (place, source) {
            (None, _) => true,
            (Some(p), Source::Rows(rows)) => rows.iter().any(|r| matches!(r.get(p), Some(Cell::Default))),
            (Some(_), Source::Query { .. }) => false,
        };
        let default = |(column, place): (usize, &Option<usize>)| match wanted(*place) {
            true => target.default_of(binder, column).map(Some),
            false => Ok(None),
        };
        let defaults = places.iter().enumerate().map(default).collect::<Result<_>>()?;
        Ok(Columns { target, places, defaults })
    }

    fn default(&self, column: usize, rows: usize) -> Result<ArrayRef> {
        match self.defaults.get(column).and_then(Option::as_ref) {
            Some(default) => default.evaluate(&no_columns(rows)?),
            None => Err(Error::internal("a column has no value")),
        }
    }

    /// Rows of the table from the arrays of the listed columns.
    pub fn complete(&self, listed: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let column = |(i, place): (usize, &Option<usize>)| match place.and_then(|p| listed.get(p)) {
            Some(array) => Ok(Arc::clone(array)),
            None => self.default(i, rows),
        };
        let columns = self.places.iter().enumerate().map(column).collect::<Result<_>>()?;
        self.target.rows(columns)
    }

    /// Rows written out in VALUES.
    pub async fn of_rows(&self, ctx: &DmlContext<'_>, txn: &Transaction, binder: &Binder<'_>, rows: &[Vec<Cell>]) -> Result<RecordBatch> {
        let width = self.places.iter().flatten().count();
        let mut listed = Vec::with_capacity(width);
        for place in 0..width {
            let column = self.places.iter().position(|p| *p == Some(place)).unwrap_or(0);
            let mut values = Vec::with_capacity(rows.len());
            for row in rows {
                values.push(match row.get(place) {
                    Some(Cell::Value(value)) => value.clone(),
                    Some(Cell::Expr(expr)) => one(&binder.compile(expr, &Schema::empty(), None)?, &no_columns(1)?)?,
                    Some(Cell::Query(query)) => one_of_query(ctx, txn, binder, query).await?,
                    Some(Cell::Default) | None => ScalarValue::try_from_array(&self.default(column, 1)?, 0).map_err(from_datafusion)?,
                });
            }
            listed.push(ScalarValue::iter_to_array(values).map_err(from_datafusion)?);
        }
        self.complete(&listed, rows.len())
    }
}

fn one(evaluator: &Evaluator, rows: &RecordBatch) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&evaluator.evaluate(rows)?, 0).map_err(from_datafusion)
}

async fn one_of_query(ctx: &DmlContext<'_>, txn: &Transaction, binder: &Binder<'_>, query: &(BoundQuery, Expr)) -> Result<ScalarValue> {
    let (query, assigned) = query;
    let schema = Arc::new(numbered(&query.columns));
    let view = txn.read_view(txn.base_view());
    let (_, batches) = (ctx.run_query)(binder.query_with_values(query.clone())?, view).await?;
    let row = match batches.iter().find(|b| b.num_rows() > 0) {
        Some(batch) => with_numbers(&batch.slice(0, 1), &schema)?,
        None => return Err(Error::internal("a query without FROM has no row")),
    };
    one(&binder.compile(assigned, &schema, None)?, &row)
}
