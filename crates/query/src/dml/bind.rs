//! Expressions of a statement, bound: parameters found or put in, ready to be evaluated over rows.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::ast;
use millpond_sql::{BoundQuery, Catalog, Planner};
use parking_lot::Mutex;
use sqlparser::ast::{Visit, Visitor};

use crate::error::{from_datafusion, to_datafusion};

/// Binds the expressions of one statement.
pub struct Binder<'a> {
    /// Names and types.
    pub planner: &'a Planner<'a>,
    /// The relations.
    pub catalog: &'a Catalog,
    given: Vec<Option<SqlType>>,
    /// Values of parameters; `None` while a statement is only described.
    values: Option<Vec<ScalarValue>>,
    /// Types of parameters as found so far.
    found: Mutex<Vec<Option<SqlType>>>,
}

impl<'a> Binder<'a> {
    /// For describing a statement: some parameters have declared types.
    pub fn describing(planner: &'a Planner<'a>, catalog: &'a Catalog, given: &[Option<SqlType>]) -> Self {
        Binder { planner, catalog, given: given.to_vec(), values: None, found: Mutex::new(given.to_vec()) }
    }

    /// For running a statement with parameters.
    pub fn running(planner: &'a Planner<'a>, catalog: &'a Catalog, params: &[ArrayRef]) -> Result<Self> {
        let values = crate::response::parameter_values(params)?;
        // Text may stand for uuid, json and others; what the context asks for decides.
        let given = params.iter().map(|p| match SqlType::of(&Field::new("p", p.data_type().clone(), true)) {
            SqlType::Text => None,
            known => Some(known),
        });
        Ok(Binder { planner, catalog, given: given.collect(), values: Some(values), found: Mutex::default() })
    }

    /// The types of the parameters, once everything is bound. What nothing tells is text.
    pub fn parameter_types(self) -> Vec<SqlType> {
        self.found.into_inner().into_iter().map(|t| t.unwrap_or(SqlType::Text)).collect()
    }

    fn note(&self, number: usize, sql_type: Option<SqlType>) {
        let mut found = self.found.lock();
        if found.len() < number {
            found.resize(number, None);
        }
        if let Some(place) = found.get_mut(number - 1)
            && place.is_none()
        {
            *place = sql_type;
        }
    }

    /// Binds an expression over some columns; `target` is what it is assigned to. Parameters become their values.
    pub fn expr(&self, expr: &ast::Expr, schema: &Schema, qualifier: Option<&str>, target: Option<&SqlType>) -> Result<Expr> {
        if let Some(target) = target
            && let Some(number) = parameter(expr)
        {
            // A parameter alone has the type that it is assigned to, whatever an expression would make of it.
            self.note(number, Some(target.clone()));
            if let Some(value) = self.value_as(number, target)? {
                return Ok(Expr::Literal(value, None));
            }
        }
        let bound = self.with_types(&cast_parameters(expr), |given| self.planner.plan_expr(expr, schema, qualifier, given, target))?;
        self.with_values(bound)
    }

    /// Binds with the declared types and what the text tells; if then a type is missing, text parameters are text.
    fn with_types<T>(&self, told: &[(usize, SqlType)], bind: impl Fn(&[Option<SqlType>]) -> Result<T>) -> Result<T> {
        let mut given = self.given.clone();
        for (number, sql_type) in told {
            if given.len() < *number {
                given.resize(*number, None);
            }
            if let Some(place @ None) = given.get_mut(number - 1) {
                *place = Some(sql_type.clone());
            }
        }
        match bind(&given) {
            Err(e) if e.state() == SqlState::INDETERMINATE_DATATYPE && self.values.is_some() => {
                bind(&given.into_iter().map(|t| Some(t.unwrap_or(SqlType::Text))).collect::<Vec<_>>())
            }
            done => done,
        }
    }

    /// Parameter `number`, if its value needs no conversion to become a `target`.
    fn value_as(&self, number: usize, target: &SqlType) -> Result<Option<ScalarValue>> {
        let Some(values) = &self.values else { return Ok(None) };
        let value = values.get(number - 1).ok_or_else(|| no_parameter(number))?;
        let plain = !matches!(target, SqlType::Varchar(Some(_)) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb);
        Ok((plain && value.data_type() == target.arrow()).then(|| value.clone()))
    }

    fn with_values(&self, expr: Expr) -> Result<Expr> {
        let put = |e: Expr| {
            let Expr::Placeholder(p) = &e else { return Ok(Transformed::no(e)) };
            let number = p.id.trim_start_matches('$').parse::<usize>().unwrap_or(0).max(1);
            self.note(number, p.field.as_ref().map(|f| SqlType::of(f)));
            let Some(values) = &self.values else { return Ok(Transformed::no(e)) };
            let value = values.get(number - 1).ok_or_else(|| to_datafusion(no_parameter(number)))?;
            let value = match &p.field {
                Some(field) if *field.data_type() != value.data_type() => value.cast_to(field.data_type())?,
                _ => value.clone(),
            };
            Ok(Transformed::yes(Expr::Literal(value, None)))
        };
        Ok(expr.transform(put).map_err(from_datafusion)?.data)
    }

    /// Binds a query, of some of whose parameters a type is known. They keep their places until
    /// [`Binder::query_with_values`].
    pub fn query(&self, query: &ast::Query, told: &[(usize, SqlType)]) -> Result<BoundQuery> {
        let bound = self.with_types(told, |given| self.planner.plan_query(query, given))?;
        for (i, sql_type) in bound.params.iter().enumerate() {
            self.note(i + 1, Some(sql_type.clone()));
        }
        Ok(bound)
    }

    /// A bound query's plan with the values of its parameters.
    pub fn query_with_values(&self, query: BoundQuery) -> Result<LogicalPlan> {
        let values = self.values.as_deref().unwrap_or_default();
        if query.params.len() > values.len() {
            return Err(no_parameter(values.len() + 1));
        }
        if query.params.is_empty() {
            return Ok(query.plan);
        }
        let cast = |(value, sql_type): (&ScalarValue, &SqlType)| match value.data_type() == sql_type.arrow() {
            true => Ok(value.clone()),
            false => value.cast_to(&sql_type.arrow()).map_err(from_datafusion),
        };
        let values = values.iter().zip(&query.params).map(cast).collect::<Result<Vec<_>>>()?;
        query.plan.replace_params_with_values(&ParamValues::from(values)).map_err(from_datafusion)
    }

    /// Binds a query given as text that was made from parts of the statement. Positions in it mean nothing.
    pub fn query_text(&self, text: &str) -> Result<BoundQuery> {
        let query = parse_query(text)?;
        self.query(&query, &[]).map_err(without_position)
    }

    /// An expression ready for rows with these columns.
    pub fn compile(&self, expr: &Expr, schema: &Schema, qualifier: Option<&str>) -> Result<Evaluator> {
        let constant = |e: &Expr| match e {
            Expr::Literal(value, _) => Some(Evaluator::Constant(value.clone())),
            _ => None,
        };
        if let Some(value) = constant(expr) {
            return Ok(value);
        }
        let columns = df_schema(schema, qualifier)?;
        let checked = crate::overflow::checked_expr(expr.clone(), &columns).map_err(from_datafusion)?;
        let simple = self.simplify(checked, schema, qualifier)?;
        if let Some(value) = constant(&simple) {
            return Ok(value);
        }
        let physical = self.planner.context.create_physical_expr(simple, &columns).map_err(from_datafusion)?;
        Ok(Evaluator::Expression(physical))
    }

    /// An expression with its constant parts evaluated, so that keys in it can be seen.
    pub fn simplify(&self, expr: Expr, schema: &Schema, qualifier: Option<&str>) -> Result<Expr> {
        let schema = Arc::new(df_schema(schema, qualifier)?);
        let context = SimplifyContext::builder().with_schema(schema).with_query_execution_start_time(Some(self.planner.now)).build();
        ExprSimplifier::new(context).simplify(expr).map_err(from_datafusion)
    }
}

fn df_schema(schema: &Schema, qualifier: Option<&str>) -> Result<DFSchema> {
    let made = match qualifier {
        Some(qualifier) => DFSchema::try_from_qualified_schema(datafusion::common::TableReference::bare(qualifier), schema),
        None => DFSchema::try_from(schema.clone()),
    };
    made.map_err(from_datafusion)
}

fn no_parameter(number: usize) -> Error {
    Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${number}"))
}

/// The same error for a text that the client has not sent.
pub fn without_position(error: Error) -> Error {
    let mut other = Error::new(error.state(), error.message());
    if let Some(detail) = error.detail() {
        other = other.with_detail(detail);
    }
    if let Some(hint) = error.hint() {
        other = other.with_hint(hint);
    }
    other
}

/// A query from its text.
fn parse_query(text: &str) -> Result<Box<ast::Query>> {
    let mut statements = millpond_sql::parse(text)?;
    match statements.pop().map(|s| s.kind) {
        Some(millpond_sql::StatementKind::Query(query)) => Ok(query),
        _ => Err(Error::internal("a statement could not be turned into a query")),
    }
}

/// An expression that the catalog stores as text: a default, a CHECK.
pub fn parse_expr(text: &str) -> Result<ast::Expr> {
    millpond_sql::parse::parse_expr(text)
        .map_err(|e| Error::new(SqlState::DATA_CORRUPTED, format!("a stored expression cannot be read: {}", e.message())))
}

/// The number of a parameter that stands alone.
pub fn parameter(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok().filter(|n| *n > 0),
            _ => None,
        },
        ast::Expr::Nested(inner) => parameter(inner),
        _ => None,
    }
}

/// Parameters that are cast, and to what: `$1::bigint`.
fn cast_parameters(expr: &ast::Expr) -> Vec<(usize, SqlType)> {
    struct Casts(Vec<(usize, SqlType)>);
    impl Visitor for Casts {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Cast { expr, data_type, .. } = expr
                && let (Some(number), Ok(sql_type)) = (parameter(expr), millpond_sql::types::sql_type(data_type))
            {
                self.0.push((number, sql_type));
            }
            ControlFlow::Continue(())
        }
    }
    let mut casts = Casts(vec![]);
    let _ = expr.visit(&mut casts); // it never breaks off
    casts.0
}

/// Whether there is a query inside.
pub fn has_subquery(expr: &impl Visit) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expr.visit(&mut Finder).is_break()
}

/// An expression ready to be evaluated.
#[derive(Clone, Debug)]
pub enum Evaluator {
    /// The same for all rows.
    Constant(ScalarValue),
    /// Computed per row.
    Expression(Arc<dyn PhysicalExpr>),
}

impl Evaluator {
    /// One value per row.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        match self {
            Evaluator::Constant(value) => value.to_array_of_size(rows.num_rows()).map_err(from_datafusion),
            Evaluator::Expression(e) => {
                let value = e.evaluate(rows).map_err(from_datafusion)?;
                value.into_array(rows.num_rows()).map_err(from_datafusion)
            }
        }
    }

    /// Which rows it holds for.
    pub fn holds(&self, rows: &RecordBatch) -> Result<arrow::array::BooleanArray> {
        let values = self.evaluate(rows)?;
        match values.as_any().downcast_ref::<arrow::array::BooleanArray>() {
            Some(values) if values.null_count() == 0 => Ok(values.clone()),
            Some(values) => Ok(arrow::compute::prep_null_mask_filter(values)),
            // A condition that is the constant NULL.
            None => Ok(arrow::array::BooleanArray::from(vec![false; rows.num_rows()])),
        }
    }
}

/// So many rows of no columns, over which constants are evaluated.
pub fn no_columns(rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?)
}
