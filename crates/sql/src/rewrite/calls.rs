//! Calls of functions and aggregates, and what else chooses among values.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::{AggregateFunction, Case, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, Projection, binary_expr, cast};
use millpond_common::types::TYPE_KEY;
use millpond_common::{Error, SqlState, SqlType};

use super::casts::{literal_as, quoted};
use super::operators::{as_float, compared, type_of};
use super::wide;
use crate::functions::{self, external};
use crate::types::Family;

/// Functions whose integers stay as they are: the result has the type of the arguments.
const POLYMORPHIC: [&str; 13] = [
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "make_array",
    "abs",
    "nvl",
    "array_append",
    "array_position",
    "pg_typeof",
    "checked_add",
    "checked_subtract",
    "checked_multiply",
];

/// A call with PostgreSQL's types.
pub(super) fn scalar_function(mut function: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let name = function.func.name().to_string();
    if name == "mod"
        && let [a, b] = function.args.as_slice()
    {
        return Ok(binary_expr(a.clone(), Operator::Modulo, b.clone()));
    }
    if matches!(name.as_str(), "coalesce" | "greatest" | "least") {
        let common = unify(&name.to_uppercase(), &mut function.args, schema)?;
        return Ok(tagged(executable(Expr::ScalarFunction(function))?.data, common));
    }
    if name == "nullif"
        && let [a, b] = function.args.as_mut_slice()
    {
        (*a, *b) = compared(std::mem::take(a), std::mem::take(b), Operator::Eq, schema)?;
    }
    if !POLYMORPHIC.contains(&name.as_str()) {
        function.args = function.args.into_iter().map(wide).collect();
    }
    if matches!(name.as_str(), "concat" | "concat_ws") {
        let printed = |e: Expr| match type_of(&e, schema) {
            Some(of) if Family::of(&of) != Family::Text => functions::to_text(e),
            _ => e,
        };
        function.args = function.args.into_iter().map(printed).collect();
    }
    let target = match (name.as_str(), function.args.as_slice()) {
        ("round", [value]) if matches!(type_of(value, schema), Some(SqlType::Real | SqlType::Double)) => {
            return Ok(functions::call(functions::round_even(), function.args));
        }
        ("round" | "trunc", [value, Expr::Literal(ScalarValue::Int64(Some(digits)), _)]) => rounded(value, *digits, schema),
        ("round" | "trunc" | "ceil" | "floor", [value]) => rounded(value, 0, schema),
        ("array_length" | "cardinality" | "array_position" | "array_ndims", _) => Some(DataType::Int32),
        _ => None,
    };
    let call = Expr::ScalarFunction(function);
    Ok(match target {
        Some(target) => cast(call, target),
        None => call,
    })
}

/// A call of what there is for binding only becomes one of what is executed.
pub(super) fn executable(expr: Expr) -> DfResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarFunction(mut function) if function.func.name() == "coalesce" => {
            function.func = functions::typed_coalesce();
            Transformed::yes(Expr::ScalarFunction(function))
        }
        other => Transformed::no(other),
    })
}

/// Rounding takes digits off a numeric's type, too.
fn rounded(value: &Expr, digits: i64, schema: &DFSchema) -> Option<DataType> {
    match value.get_type(schema) {
        Ok(DataType::Decimal128(precision, scale)) if digits < i64::from(scale) => {
            // One more digit before the point: 9.9 becomes 10.
            let digits = digits.max(0) as i8;
            Some(DataType::Decimal128((precision - (scale - digits) as u8 + 1).min(38), digits))
        }
        _ => None,
    }
}

/// CASE, with conditions that are conditions and results of one type.
pub(super) fn case(Case { expr, when_then_expr, else_expr }: Case, schema: &DFSchema) -> DfResult<Expr> {
    let mut operand = expr.map(|e| *e);
    let (mut conditions, mut results) = (Vec::new(), Vec::new());
    for (when, then) in when_then_expr {
        let mut when = *when;
        match operand.take() {
            Some(value) => {
                let (value, typed) = compared(value, when, Operator::Eq, schema)?;
                (operand, when) = (Some(value), typed);
            }
            None => {
                if let Some(of) = type_of(&when, schema).filter(|t| *t != SqlType::Boolean) {
                    let message = format!("argument of CASE/WHEN must be type boolean, not type {}", of.name());
                    return Err(external(Error::new(SqlState::DATATYPE_MISMATCH, message)));
                }
            }
        }
        conditions.push(when);
        results.push(*then);
    }
    // PostgreSQL looks at ELSE first.
    let mut all = else_expr.into_iter().map(|e| *e).collect::<Vec<_>>();
    let with_else = !all.is_empty();
    all.extend(results);
    let common = unify("CASE", &mut all, schema)?;
    let mut all = all.into_iter();
    let otherwise = if with_else { all.next().map(Box::new) } else { None };
    let pairs = conditions.into_iter().zip(all).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Ok(tagged(Expr::Case(Case { expr: operand.map(Box::new), when_then_expr: pairs, else_expr: otherwise }), common))
}

/// Gives quoted literals the type of the values beside them. The type, if all values have the same.
fn unify(what: &str, values: &mut [Expr], schema: &DFSchema) -> DfResult<Option<SqlType>> {
    let mut common: Option<SqlType> = None;
    let mut same = true;
    for value in values.iter().filter(|v| quoted(v).is_none()) {
        let Some(of) = type_of(value, schema) else { continue };
        match &common {
            None => common = Some(of),
            Some(first) if Family::of(first) != Family::of(&of) => return Err(unmatched(what, first, &of)),
            Some(first) => same &= *first == of,
        }
    }
    if !same && let Some(float) = common_float(values, schema) {
        for value in values.iter_mut().filter(|v| quoted(v).is_none()) {
            if let Some(of) = type_of(value, schema) {
                *value = as_float(std::mem::take(value), &of, &float)?;
            }
        }
        common = Some(float);
    }
    if let Some(of) = &common {
        for value in values.iter_mut() {
            *value = literal_as(std::mem::take(value), of)?;
        }
    }
    Ok(common.filter(|_| same))
}

/// The type that numbers have in common if there is a floating-point one among them.
fn common_float(values: &[Expr], schema: &DFSchema) -> Option<SqlType> {
    let types = values.iter().filter_map(|v| type_of(v, schema)).collect::<Vec<_>>();
    [SqlType::Double, SqlType::Real].into_iter().find(|float| types.contains(float))
}

/// The inputs of a UNION: a column that is a floating-point number in one of them is one in all.
pub(super) fn united(inputs: Vec<Arc<LogicalPlan>>) -> DfResult<Vec<Arc<LogicalPlan>>> {
    let width = inputs.iter().map(|i| i.schema().fields().len()).min().unwrap_or(0);
    let float = |c: usize| {
        let is = |of: &DataType| inputs.iter().any(|i| i.schema().field(c).data_type() == of);
        [DataType::Float64, DataType::Float32].into_iter().find(is)
    };
    let floats = (0..width).map(float).collect::<Vec<_>>();
    let cast_column = |(qualifier, field): (Option<&TableReference>, &FieldRef), float: &Option<DataType>| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match float {
            Some(float) if field.data_type().is_numeric() && field.data_type() != float => {
                cast(column, float.clone()).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => column,
        }
    };
    let with_floats = |input: Arc<LogicalPlan>| {
        let columns = input.schema().iter().zip(&floats).map(|(column, float)| cast_column(column, float)).collect::<Vec<_>>();
        if columns.iter().all(|c| matches!(c, Expr::Column(_))) || columns.len() != input.schema().fields().len() {
            return Ok(input);
        }
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
    };
    inputs.into_iter().map(with_floats).collect()
}

fn unmatched(what: &str, a: &SqlType, b: &SqlType) -> DataFusionError {
    let message = format!("{what} types {} and {} cannot be matched", a.name(), b.name());
    external(Error::new(SqlState::DATATYPE_MISMATCH, message))
}

/// A value whose Arrow type does not tell its SQL type keeps it.
fn tagged(expr: Expr, of: Option<SqlType>) -> Expr {
    match of {
        Some(of) if is_tagged(&of) => functions::typed(expr, &of),
        _ => expr,
    }
}

fn is_tagged(of: &SqlType) -> bool {
    match of {
        SqlType::Array(item) => is_tagged(item),
        other => other.field("value", true).metadata().contains_key(TYPE_KEY),
    }
}

/// An aggregate with the sums and averages that PostgreSQL has.
pub(super) fn aggregate(mut function: AggregateFunction, schema: &DFSchema) -> DfResult<Expr> {
    function.params.args = aggregate_args(function.func.name(), function.params.args, schema)?;
    Ok(Expr::AggregateFunction(function))
}

/// What an aggregate aggregates, in the type that gives its result the type that PostgreSQL has.
pub(super) fn aggregate_args(name: &str, args: Vec<Expr>, schema: &DFSchema) -> DfResult<Vec<Expr>> {
    if !["sum", "avg", "min", "max", "array_agg"].contains(&name) {
        return Ok(args.into_iter().map(wide).collect());
    }
    let target = match (name, args.as_slice()) {
        ("sum", [arg]) => match arg.get_type(schema)? {
            DataType::Int64 => Some(DataType::Decimal128(28, 0)),
            _ => None,
        },
        ("avg", [arg]) => match arg.get_type(schema)? {
            t if t.is_integer() => Some(DataType::Decimal128(31, 12)),
            DataType::Decimal128(p, s) if s < 12 && i16::from(p) + 12 - i16::from(s) <= 34 => {
                Some(DataType::Decimal128(p + (12 - s) as u8, 12))
            }
            _ => None,
        },
        _ => None,
    };
    Ok(match target {
        Some(target) => args.into_iter().map(|a| cast(a, target.clone())).collect(),
        None => args,
    })
}

/// The results of aggregates under a projection that have a type which their Arrow type does not tell.
pub(super) fn aggregated(mut plan: &LogicalPlan) -> DfResult<Vec<(String, SqlType)>> {
    loop {
        plan = match plan {
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Window(window) => &window.input,
            LogicalPlan::Aggregate(aggregate) => {
                let mut found = Vec::new();
                let names = aggregate.schema.fields().iter().skip(aggregate.schema.fields().len() - aggregate.aggr_expr.len());
                for (field, expr) in names.zip(&aggregate.aggr_expr) {
                    let mut expr = expr;
                    while let Expr::Alias(alias) = expr {
                        expr = &alias.expr;
                    }
                    let Expr::AggregateFunction(function) = expr else { continue };
                    let Some(of) = function.params.args.first().and_then(|a| type_of(a, aggregate.input.schema())) else { continue };
                    let of = match function.func.name() {
                        "array_agg" => SqlType::Array(Box::new(of)),
                        "min" | "max" | "first_value" | "last_value" => of,
                        _ => continue,
                    };
                    if is_tagged(&of) {
                        found.push((field.name().clone(), of));
                    }
                }
                return Ok(found);
            }
            _ => return Ok(Vec::new()),
        };
    }
}

/// Gives columns of a projection the types that [`aggregated`] found.
pub(super) fn retagged(expr: Expr, types: &[(String, SqlType)]) -> Expr {
    match &expr {
        Expr::Column(column) => match types.iter().find(|(name, _)| column.relation.is_none() && *name == column.name) {
            Some((_, of)) => functions::typed(expr, of),
            None => expr,
        },
        _ => expr,
    }
}
