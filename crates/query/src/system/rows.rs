//! Filling a system relation: rows by column name, whatever is left out has the relation's default.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    ListArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use millpond_common::{Result, SqlType};

use super::definitions::Definition;

/// One value of a system relation or function.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are what they hold
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    /// Microseconds since 1970, or of a duration.
    Time(i64),
}

macro_rules! value_from {
    ($($of:ty => $make:expr),* $(,)?) => { $(impl From<$of> for Value { fn from(v: $of) -> Self { $make(v) } })* };
}
value_from! {
    bool => Value::Bool,
    i16 => |v| Value::Int(i64::from(v)),
    i32 => |v| Value::Int(i64::from(v)),
    i64 => Value::Int,
    u32 => |v| Value::Int(i64::from(v)),
    u64 => |v| Value::Int(i64::try_from(v).unwrap_or(i64::MAX)),
    usize => |v| Value::Int(i64::try_from(v).unwrap_or(i64::MAX)),
    f64 => Value::Float,
    String => Value::Text,
    &str => |v: &str| Value::Text(v.to_string()),
    &String => |v: &String| Value::Text(v.clone()),
    std::time::Duration => |v: std::time::Duration| Value::Time(i64::try_from(v.as_micros()).unwrap_or(i64::MAX)),
    std::time::SystemTime => |v: std::time::SystemTime| {
        Value::Time(v.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    },
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(v: Vec<T>) -> Self {
        Value::List(v.into_iter().map(Into::into).collect())
    }
}

impl Value {
    fn int(&self) -> Option<i64> {
        match self {
            Value::Int(v) | Value::Time(v) => Some(*v),
            Value::Bool(v) => Some(i64::from(*v)),
            Value::Text(v) => v.parse().ok(),
            _ => None,
        }
    }
    fn float(&self) -> Option<f64> {
        match self {
            Value::Float(v) => Some(*v),
            other => other.int().map(|v| v as f64),
        }
    }
    fn text(&self) -> Option<String> {
        match self {
            Value::Text(v) => Some(v.clone()),
            Value::Int(v) => Some(v.to_string()),
            Value::Bool(v) => Some(v.to_string()),
            Value::Float(v) => Some(v.to_string()),
            _ => None,
        }
    }
}

/// The rows of one system relation while they are collected.
pub struct Rows {
    definition: &'static Definition,
    columns: Vec<Vec<Value>>,
    count: usize,
}

impl Rows {
    /// No rows yet.
    pub fn new(definition: &'static Definition) -> Self {
        Rows { definition, columns: vec![Vec::new(); definition.columns.len()], count: 0 }
    }

    /// Adds a row from some of its columns.
    pub fn add<const N: usize>(&mut self, cells: [(&'static str, Value); N]) {
        for (column, (_, of)) in self.columns.iter_mut().zip(&self.definition.columns) {
            column.push(if self.definition.view { Value::Null } else { default(of) });
        }
        for (name, value) in cells {
            let position = self.definition.index.get(name);
            debug_assert!(position.is_some(), "{}.{} has no column {name}", self.definition.schema, self.definition.name);
            if let Some(position) = position {
                self.columns[*position][self.count] = value;
            }
        }
        self.count += 1;
    }

    /// The rows as one batch.
    pub fn finish(self) -> Result<RecordBatch> {
        let arrays = self.columns.iter().zip(&self.definition.columns).map(|(values, (_, of))| array(of, values)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        Ok(RecordBatch::try_new_with_options(self.definition.arrow.clone(), arrays, &options)?)
    }
}

/// Adds a row: `row!(rows; oid: 1, relname: "x")`.
macro_rules! row {
    ($rows:expr; $($column:ident : $value:expr),* $(,)?) => {
        $rows.add([$((stringify!($column), $crate::system::rows::Value::from($value))),*])
    };
}
pub(crate) use row;

/// What a PostgreSQL table has where nothing is known: fixed-length columns are never NULL there.
fn default(of: &SqlType) -> Value {
    match of {
        SqlType::Boolean => Value::Bool(false),
        SqlType::SmallInt | SqlType::Integer | SqlType::BigInt | SqlType::Oid => Value::Int(0),
        SqlType::Real | SqlType::Double => Value::Float(0.0),
        SqlType::Char | SqlType::Name => Value::Text(String::new()),
        _ => Value::Null,
    }
}

/// Values as an Arrow array of a SQL type.
pub fn array(of: &SqlType, values: &[Value]) -> ArrayRef {
    match of {
        SqlType::Boolean => Arc::new(values.iter().map(|v| if let Value::Bool(b) = v { Some(*b) } else { None }).collect::<BooleanArray>()),
        SqlType::SmallInt => Arc::new(values.iter().map(|v| v.int().and_then(|i| i16::try_from(i).ok())).collect::<Int16Array>()),
        SqlType::Integer => Arc::new(values.iter().map(|v| v.int().and_then(|i| i32::try_from(i).ok())).collect::<Int32Array>()),
        SqlType::BigInt | SqlType::Oid => Arc::new(values.iter().map(Value::int).collect::<Int64Array>()),
        SqlType::Real => Arc::new(values.iter().map(|v| v.float().map(|f| f as f32)).collect::<Float32Array>()),
        SqlType::Double => Arc::new(values.iter().map(Value::float).collect::<Float64Array>()),
        SqlType::TimestampTz => Arc::new(values.iter().map(Value::int).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        SqlType::Timestamp => Arc::new(values.iter().map(Value::int).collect::<TimestampMicrosecondArray>()),
        SqlType::Interval => Arc::new(
            values
                .iter()
                .map(|v| v.int().map(|us| IntervalMonthDayNano::new(0, 0, us.saturating_mul(1000))))
                .collect::<IntervalMonthDayNanoArray>(),
        ),
        SqlType::Bytea => {
            Arc::new(values.iter().map(|v| if let Value::Bytes(b) = v { Some(b.as_slice()) } else { None }).collect::<BinaryArray>())
        }
        SqlType::Array(item) => list(of, item, values),
        _ => Arc::new(values.iter().map(Value::text).collect::<StringArray>()),
    }
}

fn list(of: &SqlType, item: &SqlType, values: &[Value]) -> ArrayRef {
    let field = match of.arrow() {
        DataType::List(field) => field,
        _ => Arc::new(item.field("item", true)),
    };
    let mut items = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    let mut valid = Vec::with_capacity(values.len());
    for value in values {
        let before = items.len();
        if let Value::List(l) = value {
            items.extend(l.iter().cloned());
        }
        lengths.push(items.len() - before);
        valid.push(matches!(value, Value::List(_)));
    }
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), array(item, &items), Some(NullBuffer::from(valid))))
}
