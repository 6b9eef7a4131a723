//! Which keys a query's filters ask for: `id = 5`, `id IN (1, 2)`, `a = 1 AND b IN (2, 3)`.

use arrow::array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use millpond_common::{Error, RelationSpec, Result};
use std::collections::HashSet;
use std::sync::Arc;

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

/// What a query's filters ask of a relation's key: one of some values for each of its columns.
#[derive(Debug)]
pub struct KeyFilter {
    /// The key's columns, in its order.
    columns: SchemaRef,
    /// Of each of them.
    values: Vec<Vec<Operand>>,
}

impl KeyFilter {
    /// What `filters` together ask for; `None` if they do not limit every key column to constants.
    /// Rows found by it still have to pass the filters.
    pub fn of(spec: &RelationSpec, filters: &[Expr]) -> Option<KeyFilter> {
        let key = spec.key.as_ref().filter(|k| !k.is_empty())?;
        let conjuncts = filters.iter().flat_map(split_conjunction).collect::<Vec<_>>();
        let of = |column: &usize| {
            let field = spec.schema.field(*column);
            conjuncts.iter().find_map(|c| constants(c, field.name(), field.data_type()))
        };
        let values = key.iter().map(of).collect::<Option<Vec<_>>>()?;
        let found = KeyFilter { columns: spec.project(key), values };
        (found.len() <= KEYS_MAX).then_some(found)
    }

    /// How many keys, at most.
    pub fn len(&self) -> usize {
        self.values.iter().map(Vec::len).fold(1, usize::saturating_mul)
    }

    /// The key tuples that rows must have, each once, without NULL.
    pub fn keys(&self, parameters: &[ScalarValue]) -> Result<RecordBatch> {
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
        let names = self.columns.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ");
        format!("keys=[{names}] ({})", self.len())
    }
}

/// Whether `filter` alone limits one of the key's columns to constants.
pub fn limits_key(spec: &RelationSpec, filter: &Expr) -> bool {
    let Some(key) = &spec.key else { return false };
    key.iter().any(|column| {
        let field = spec.schema.field(*column);
        split_conjunction(filter).iter().any(|c| constants(c, field.name(), field.data_type()).is_some())
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

/// A constant or a parameter of exactly the column's type. Comparisons in other types are left to a scan.
fn operand(expr: &Expr, data_type: &DataType) -> Option<Operand> {
    match expr {
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
        RelationSpec { id: RelationId(1), schema: Arc::new(Schema::new(fields)), key: Some(key.to_vec()), append_only: false }
    }

    fn keys(spec: &RelationSpec, filters: &[Expr]) -> Option<usize> {
        KeyFilter::of(spec, filters).map(|f| f.keys(&[]).unwrap().num_rows())
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
}
