//! Which keys a query's filters ask for: `id = 5`, `id IN (1, 2)`, `a = 1 AND b IN (2, 3)`; or which range of keys: `id < 5`, `a = 1` of a
//! key `(a, b)`, `a = 1 AND b BETWEEN 2 AND 3`.

use arrow::array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use millpond_common::{Error, RelationSpec, Result};
use std::collections::HashSet;
use std::sync::Arc;

use millpond_state::{KeyBound, KeyRange};

use crate::execution::parameter;

/// Above so many keys a scan is not slower.
const KEYS_MAX: usize = 4096;

/// A constant, or a parameter whose value comes with the execution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operand {
    Value(ScalarValue),
    Parameter(usize),
}

impl Operand {
    fn value<'a>(&'a self, parameters: &'a [ScalarValue]) -> Result<&'a ScalarValue> {
        match self {
            Operand::Value(value) => Ok(value),
            Operand::Parameter(at) => parameters.get(*at).ok_or_else(|| Error::internal("a parameter has no value")),
        }
    }
}

/// What a query's filters ask of a relation's key: one of some values for each of its columns; or one value for each of the first ones,
/// perhaps none, and a range of the next one.
#[derive(Debug)]
pub struct KeyFilter {
    /// The key's columns, in its order.
    columns: SchemaRef,
    /// Of each column, as far as it goes.
    values: Vec<Vec<Operand>>,
    /// What the next column is compared with, from below and from above, and whether it may be equal.
    from: Option<(Operand, bool)>,
    until: Option<(Operand, bool)>,
}

/// Keys to look for.
pub enum Wanted {
    /// Each once, as a batch of the key's columns.
    Keys(RecordBatch),
    /// A range.
    Range(KeyRange),
}

impl KeyFilter {
    /// What `filters` together ask for, if it is that. Rows found by it still have to pass the filters.
    pub fn of(spec: &RelationSpec, filters: &[Expr]) -> Option<KeyFilter> {
        let key = spec.key.as_ref().filter(|k| !k.is_empty())?;
        let conjuncts = filters.iter().flat_map(split_conjunction).collect::<Vec<_>>();
        let of = |column: &usize| {
            let field = spec.schema.field(*column);
            conjuncts.iter().find_map(|c| constants(c, field.name(), field.data_type()))
        };
        let values = key.iter().map_while(of).collect::<Vec<_>>();
        let mut found = KeyFilter { columns: spec.project(key), values, from: None, until: None };
        if let Some(next) = key.get(found.values.len()) {
            let field = spec.schema.field(*next);
            for (op, operand) in conjuncts.iter().filter_map(|c| comparison(c, field.name(), field.data_type())) {
                match op {
                    Operator::Gt | Operator::GtEq => found.from.get_or_insert((operand, op == Operator::GtEq)),
                    _ => found.until.get_or_insert((operand, op == Operator::LtEq)),
                };
            }
            let ranges = |c: &usize| has_ranges(spec.schema.field(*c).data_type());
            let asks = !found.values.is_empty() || found.from.is_some() || found.until.is_some();
            return (asks && found.len() == 1 && key.iter().take(found.values.len()).all(ranges)).then_some(found);
        }
        (found.len() <= KEYS_MAX).then_some(found)
    }

    /// Whether it asks for keys, not for a range of them.
    pub fn is_whole(&self) -> bool {
        self.values.len() == self.columns.fields().len()
    }

    /// How many keys, or ranges, at most.
    pub fn len(&self) -> usize {
        self.values.iter().map(Vec::len).fold(1, usize::saturating_mul)
    }

    /// What to look for.
    pub fn wanted(&self, parameters: &[ScalarValue]) -> Result<Wanted> {
        if self.is_whole() {
            return self.keys(parameters).map(Wanted::Keys);
        }
        let first = self.values.iter().flatten().map(|o| o.value(parameters)).collect::<Result<Vec<_>>>()?;
        let (from, until) = (end(&self.from, parameters)?, end(&self.until, parameters)?);
        if first.iter().chain(&from).chain(&until).any(|value| value.is_null()) {
            return Ok(Wanted::Keys(RecordBatch::new_empty(Arc::clone(&self.columns)))); // nothing is equal to NULL, or less
        }
        let bound = |next: Option<&ScalarValue>, end: &Option<(Operand, bool)>| -> Result<Option<KeyBound>> {
            let arrays = first.iter().copied().chain(next).map(|value| value.to_array().map_err(crate::error::from_datafusion));
            let columns = arrays.collect::<Result<Vec<_>>>()?;
            let inclusive = end.as_ref().is_none_or(|(_, inclusive)| *inclusive);
            Ok((!columns.is_empty()).then_some(KeyBound { columns, inclusive }))
        };
        Ok(Wanted::Range(KeyRange { from: bound(from, &self.from)?, until: bound(until, &self.until)? }))
    }

    /// The key tuples that rows must have, each once, without NULL.
    fn keys(&self, parameters: &[ScalarValue]) -> Result<RecordBatch> {
        let mut tuples: Vec<Vec<ScalarValue>> = vec![vec![]];
        for operands in &self.values {
            let mut seen = HashSet::new();
            let values = operands.iter().map(|o| o.value(parameters)).collect::<Result<Vec<_>>>()?;
            let values = values.into_iter().filter(|v| !v.is_null() && seen.insert(*v)).cloned().collect::<Vec<_>>();
            tuples = tuples.iter().flat_map(|t| values.iter().map(|v| [t.as_slice(), std::slice::from_ref(v)].concat())).collect();
        }
        key_batch(Arc::clone(&self.columns), tuples)
    }

    /// As EXPLAIN shows it.
    pub fn describe(&self) -> String {
        let ranged = usize::from(self.from.is_some() || self.until.is_some());
        let names = self.columns.fields().iter().take(self.values.len() + ranged).map(|f| f.name().clone()).collect::<Vec<_>>().join(", ");
        match self.is_whole() {
            true => format!("keys=[{names}] ({})", self.len()),
            false => format!("key range=[{names}]"),
        }
    }
}

fn end<'a>(end: &'a Option<(Operand, bool)>, parameters: &'a [ScalarValue]) -> Result<Option<&'a ScalarValue>> {
    end.as_ref().map(|(operand, _)| operand.value(parameters)).transpose()
}

/// Whether `filter` alone limits one of the key's columns.
pub fn limits_key(spec: &RelationSpec, filter: &Expr) -> bool {
    let Some(key) = &spec.key else { return false };
    key.iter().any(|column| {
        let field = spec.schema.field(*column);
        let limits =
            |c: &&Expr| constants(c, field.name(), field.data_type()).is_some() || comparison(c, field.name(), field.data_type()).is_some();
        split_conjunction(filter).iter().any(limits)
    })
}

fn key_batch(schema: SchemaRef, tuples: Vec<Vec<ScalarValue>>) -> Result<RecordBatch> {
    if tuples.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for position in 0..schema.fields().len() {
        let values = tuples.iter().filter_map(|t| t.get(position).cloned());
        columns.push(ScalarValue::iter_to_array(values).map_err(crate::error::from_datafusion)?);
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The values that `filter` allows for `column`, each constant once.
fn constants(filter: &Expr, column: &str, data_type: &DataType) -> Option<Vec<Operand>> {
    let values = match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let value = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(c), value) | (value, Expr::Column(c)) if c.name == column => value,
                _ => return None,
            };
            vec![operand(value, data_type)?]
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let mut values = constants(left, column, data_type)?;
            values.extend(constants(right, column, data_type)?);
            values
        }
        Expr::InList(list) if !list.negated => {
            if !matches!(list.expr.as_ref(), Expr::Column(c) if c.name == column) {
                return None;
            }
            list.list.iter().map(|e| operand(e, data_type)).collect::<Option<Vec<_>>>()?
        }
        Expr::Column(c) if c.name == column && *data_type == DataType::Boolean => vec![Operand::Value(ScalarValue::Boolean(Some(true)))],
        _ => return None,
    };
    let mut seen = HashSet::new();
    let is_null = |v: &Operand| matches!(v, Operand::Value(value) if value.is_null());
    Some(values.into_iter().filter(|v| !is_null(v) && seen.insert(v.clone())).collect())
}

/// What `filter` compares a column with, the column on the left.
fn comparison(filter: &Expr, column: &str, data_type: &DataType) -> Option<(Operator, Operand)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (op, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(c), value) if c.name == column => (*op, value),
        (value, Expr::Column(c)) if c.name == column => (op.swap()?, value),
        _ => return None,
    };
    let ordered = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) && has_ranges(data_type);
    Some((op, operand(value, data_type).filter(|_| ordered)?))
}

/// Whether values of this type are stored in the order in which queries compare them.
fn has_ranges(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Decimal128(..) | DataType::Date32 | DataType::Timestamp(..))
}

/// A constant or a parameter of exactly the column's type. Comparisons in other types are left to a scan.
fn operand(expr: &Expr, data_type: &DataType) -> Option<Operand> {
    match expr {
        _ if data_type.is_floating() => None, // equal numbers may have different bytes
        Expr::Literal(value, _) if value.data_type() == *data_type => Some(Operand::Value(value.clone())),
        Expr::Literal(value, _) if value.is_null() => ScalarValue::try_from(data_type).ok().map(Operand::Value),
        Expr::Alias(alias) => operand(&alias.expr, data_type),
        other => parameter(other).filter(|(_, of)| *of == data_type).map(|(at, _)| Operand::Parameter(at)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use arrow_schema::{Field, Schema};
    use datafusion::logical_expr::{col, lit};
    use millpond_common::RelationId;

    fn spec(key: &[usize]) -> RelationSpec {
        let fields =
            vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, false), Field::new("c", DataType::Int32, true)];
        RelationSpec { id: RelationId(1), schema: Arc::new(Schema::new(fields)), key: Some(key.to_vec()), appended: false }
    }

    fn keys(spec: &RelationSpec, filters: &[Expr]) -> Option<usize> {
        KeyFilter::of(spec, filters).filter(KeyFilter::is_whole).map(|f| f.keys(&[]).unwrap().num_rows())
    }

    #[test]
    fn equality_and_lists_are_keys() {
        let one = spec(&[0]);
        assert_eq!(keys(&one, &[col("a").eq(lit(5i64))]), Some(1));
        assert_eq!(keys(&one, &[lit(5i64).eq(col("a")).and(col("c").gt(lit(1)))]), Some(1));
        assert_eq!(keys(&one, &[col("a").in_list(vec![lit(1i64), lit(2i64), lit(2i64)], false)]), Some(2));
        assert_eq!(keys(&one, &[col("a").eq(lit(1i64)).or(col("a").eq(lit(2i64)))]), Some(2));
        assert_eq!(keys(&one, &[col("a").in_list(vec![lit(1i64), lit(2i64)], true)]), None);
        assert_eq!(keys(&one, &[col("a").gt(lit(5i64))]), None);
        assert_eq!(keys(&one, &[col("a").eq(lit(1i64)).or(col("c").eq(lit(2)))]), None);
        assert_eq!(keys(&one, &[col("a").eq(lit("5"))]), None, "another type is not guessed");
    }

    #[test]
    fn null_is_no_key() {
        assert_eq!(keys(&spec(&[0]), &[col("a").eq(lit(ScalarValue::Int64(None)))]), Some(0));
    }

    #[test]
    fn every_key_column_must_be_limited() {
        let two = spec(&[1, 0]);
        assert_eq!(keys(&two, &[col("a").eq(lit(5i64))]), None);
        let both = [col("a").in_list(vec![lit(1i64), lit(2i64)], false), col("b").eq(lit("x"))];
        let batch = KeyFilter::of(&two, &both).unwrap().keys(&[]).unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.schema().field(0).name(), "b");
        assert!(limits_key(&two, &both[0]) && !limits_key(&two, &col("c").eq(lit(1))));
    }

    #[test]
    fn first_columns_and_comparisons_are_ranges() {
        let (two, null) = (spec(&[1, 0]), lit(ScalarValue::Int64(None)));
        for (filters, expected) in [
            (vec![col("b").eq(lit("x"))], Some("[x] true, [x] true")),
            (vec![col("b").eq(lit("x")), col("a").gt(lit(5i64))], Some("[x 5] false, [x] true")),
            (vec![col("b").eq(lit("x")).and(col("a").lt_eq(lit(7i64))).and(lit(5i64).lt_eq(col("a")))], Some("[x 5] true, [x 7] true")),
            (vec![col("b").lt(lit("x"))], Some("-, [x] false")),
            (vec![col("b").eq(lit("x")), col("a").gt(null)], Some("nothing")),
            (vec![col("a").gt(lit(5i64))], None),
            (vec![col("b").in_list(vec![lit("x"), lit("y")], false)], None),
            (vec![col("b").not_eq(lit("x"))], None),
            (vec![col("b").gt(lit(1i64))], None),
        ] {
            let shown = |bound: Option<KeyBound>| match bound {
                Some(KeyBound { columns, inclusive }) => {
                    let text = |c: &arrow::array::ArrayRef| arrow::util::display::array_value_to_string(c, 0).unwrap();
                    format!("[{}] {inclusive}", columns.iter().map(text).collect::<Vec<_>>().join(" "))
                }
                None => "-".into(),
            };
            let found = KeyFilter::of(&two, &filters).map(|f| match f.wanted(&[]).unwrap() {
                Wanted::Range(KeyRange { from, until }) => format!("{}, {}", shown(from), shown(until)),
                Wanted::Keys(keys) => {
                    if keys.num_rows() == 0 {
                        "nothing".into()
                    } else {
                        "keys".into()
                    }
                }
            });
            assert_eq!(found.as_deref(), expected, "{filters:?}");
        }
    }
}
