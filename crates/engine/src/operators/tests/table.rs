//! Deltas as text: one line per row, its weight first, its values after it, separated by blanks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray,
};
use arrow::datatypes::{Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millpond_common::Delta;

use crate::operators::output::diffs;

/// A value of a test row. NULL is greater than all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Val {
    Int(i128),
    Float(Ordered),
    Text(String),
    Bool(bool),
    Null,
}

/// A double in total order.
#[derive(Clone, Copy, Debug)]
pub struct Ordered(pub f64);

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Ordered {}
impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

pub type Row = Vec<Val>;

/// A multiset of rows; no weight is zero.
pub type Rows = BTreeMap<Row, i64>;

/// Columns as `name:type`, separated by blanks.
pub fn schema(text: &str) -> SchemaRef {
    let field = |column: &str| {
        let (name, data_type) = column.split_once(':').unwrap();
        let data_type = match data_type {
            "int" => DataType::Int64,
            "i32" => DataType::Int32,
            "i16" => DataType::Int16,
            "text" => DataType::Utf8,
            "float" => DataType::Float64,
            "real" => DataType::Float32,
            "bool" => DataType::Boolean,
            "dec" => DataType::Decimal128(10, 2),
            "avg" => DataType::Decimal128(38, 6),
            "big" => DataType::Decimal128(38, 0),
            other => panic!("type {other}"),
        };
        Field::new(name, data_type, true)
    };
    Arc::new(Schema::new(text.split_whitespace().map(field).collect::<Vec<_>>()))
}

/// A delta of these rows and weights.
pub fn batch(schema: &SchemaRef, rows: &[(Row, i64)]) -> Delta {
    let column = |c: usize, data_type: &DataType| -> ArrayRef {
        let values = rows.iter().map(|(row, _)| &row[c]);
        let int = |v: &Val| match v {
            Val::Int(i) => Some(*i),
            _ => None,
        };
        let float = |v: &Val| match v {
            Val::Float(f) => Some(f.0),
            _ => None,
        };
        match data_type {
            DataType::Int64 => Arc::new(values.map(|v| int(v).map(|i| i as i64)).collect::<Int64Array>()),
            DataType::Int32 => Arc::new(values.map(|v| int(v).map(|i| i as i32)).collect::<Int32Array>()),
            DataType::Int16 => Arc::new(values.map(|v| int(v).map(|i| i as i16)).collect::<Int16Array>()),
            DataType::Decimal128(p, s) => Arc::new(values.map(int).collect::<Decimal128Array>().with_precision_and_scale(*p, *s).unwrap()),
            DataType::Float64 => Arc::new(values.map(float).collect::<Float64Array>()),
            DataType::Float32 => Arc::new(values.map(|v| float(v).map(|f| f as f32)).collect::<Float32Array>()),
            DataType::Boolean => Arc::new(values.map(|v| if let Val::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>()),
            DataType::Utf8 => Arc::new(values.map(|v| if let Val::Text(t) = v { Some(t.as_str()) } else { None }).collect::<StringArray>()),
            other => panic!("type {other}"),
        }
    };
    let columns = schema.fields().iter().enumerate().map(|(c, f)| column(c, f.data_type())).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).unwrap();
    Delta::new(batch, diffs(rows.iter().map(|(_, w)| *w).collect()))
}

/// A delta from its text.
pub fn delta(schema: &SchemaRef, text: &str) -> Delta {
    let value = |word: &str, data_type: &DataType| match data_type {
        _ if word == "null" => Val::Null,
        DataType::Utf8 => Val::Text(word.into()),
        DataType::Boolean => Val::Bool(word == "true"),
        DataType::Float64 | DataType::Float32 => Val::Float(Ordered(word.parse().unwrap())),
        DataType::Decimal128(_, scale) => {
            let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
            Val::Int(format!("{whole}{fraction:0<width$}", width = *scale as usize).parse().unwrap())
        }
        _ => Val::Int(word.parse().unwrap()),
    };
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let weight = words.next().unwrap().parse().unwrap();
        let row: Row = words.zip(schema.fields()).map(|(w, f)| value(w, f.data_type())).collect();
        assert_eq!(row.len(), schema.fields().len(), "{line}");
        (row, weight)
    };
    batch(schema, &text.lines().map(str::trim).filter(|l| !l.is_empty()).map(row).collect::<Vec<_>>())
}

/// The rows of a delta, one by one.
pub fn rows(delta: &Delta) -> Vec<(Row, i64)> {
    let value = |column: &ArrayRef, i: usize| match column.data_type() {
        _ if column.is_null(i) => Val::Null,
        DataType::Int64 => Val::Int(column.as_primitive::<Int64Type>().value(i).into()),
        DataType::Int32 => Val::Int(column.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int16 => Val::Int(column.as_primitive::<Int16Type>().value(i).into()),
        DataType::Decimal128(..) => Val::Int(column.as_primitive::<Decimal128Type>().value(i)),
        DataType::Float64 => Val::Float(Ordered(column.as_primitive::<Float64Type>().value(i))),
        DataType::Float32 => Val::Float(Ordered(column.as_primitive::<Float32Type>().value(i).into())),
        DataType::Boolean => Val::Bool(column.as_boolean().value(i)),
        DataType::Utf8 => Val::Text(column.as_string::<i32>().value(i).into()),
        other => panic!("type {other}"),
    };
    (0..delta.len()).map(|i| (delta.batch.columns().iter().map(|c| value(c, i)).collect(), delta.weight(i))).collect()
}

/// Adds a delta to a multiset.
pub fn accumulate(into: &mut Rows, changes: impl IntoIterator<Item = (Row, i64)>) {
    for (row, weight) in changes {
        let sum = into.entry(row).or_default();
        *sum += weight;
    }
    into.retain(|_, w| *w != 0);
}

/// Deltas as text, consolidated and sorted.
pub fn show(deltas: &[Delta]) -> String {
    let mut all = Rows::new();
    accumulate(&mut all, deltas.iter().flat_map(rows));
    let scales = deltas.first().map(|d| d.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()).unwrap_or_default();
    let value = |(v, t): (&Val, &DataType)| match (v, t) {
        (Val::Null, _) => "null".into(),
        (Val::Int(i), DataType::Decimal128(_, scale)) if *scale > 0 => {
            let digits = format!("{:0>width$}", i.abs(), width = *scale as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - *scale as usize);
            format!("{}{whole}.{fraction}", if *i < 0 { "-" } else { "" })
        }
        (Val::Int(i), _) => i.to_string(),
        (Val::Float(f), _) => f.0.to_string(),
        (Val::Text(t), _) => t.clone(),
        (Val::Bool(b), _) => b.to_string(),
    };
    let line = |(row, weight): (&Row, &i64)| {
        let words = row.iter().zip(&scales).map(value).collect::<Vec<_>>();
        format!("{weight:+} {}", words.join(" ")).trim_end().to_string()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Text as [`show`] would print it: blanks trimmed, lines in the order in which they are written.
pub fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
}
