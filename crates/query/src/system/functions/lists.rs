//! Functions on arrays whose type follows from their argument.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StringArray, StructArray, new_empty_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use millpond_common::SqlType;

use super::scalar::signature;
use crate::system::facts::{quote_ident, quote_literal};
use crate::system::rows::{self, Value};

/// One of these functions: its name, arguments, type and body.
#[derive(PartialEq, Eq, Hash, Debug)]
struct ListFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

#[derive(PartialEq, Eq, Hash, Debug, Clone, Copy)]
enum Kind {
    /// The empty array of text.
    Empty,
    /// An empty array for NULL.
    OrEmpty,
    /// 1, 2, …: as many as there are elements.
    Subscripts,
    /// Elements with their positions, for `information_schema._pg_expandarray`.
    Expand,
    /// A prefix before each text.
    Prefix,
    /// `{a=b}` as `{"a 'b'"}`: how psql shows options.
    Options,
    /// The highest or lowest subscript.
    Upper,
    Lower,
    /// The name of the argument's type.
    TypeOf,
}

/// All of them.
pub fn functions() -> Vec<ScalarUDF> {
    use Kind::*;
    [
        ("millpond_empty_list", Empty, 0..=0),
        ("millpond_array_or_empty", OrEmpty, 1..=1),
        ("millpond_subscripts", Subscripts, 1..=1),
        ("_pg_expandarray", Expand, 1..=1),
        ("millpond_array_prefix", Prefix, 2..=2),
        ("millpond_options", Options, 1..=1),
        ("array_upper", Upper, 2..=2),
        ("array_lower", Lower, 2..=2),
        ("pg_typeof", TypeOf, 1..=1),
    ]
    .into_iter()
    .map(|(name, kind, args)| ScalarUDF::new_from_impl(ListFunction { name, kind, signature: signature(args, Volatility::Immutable) }))
    .collect()
}

fn texts() -> SqlType {
    SqlType::Array(Box::new(SqlType::Text))
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn element(list: &DataType) -> FieldRef {
    match list {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Arc::clone(field),
        _ => Arc::new(Field::new("item", DataType::Utf8, true)),
    }
}

fn expanded(list: &DataType) -> Fields {
    vec![Field::new("x", element(list).data_type().clone(), true), Field::new("n", DataType::Int32, true)].into()
}

impl ScalarUDFImpl for ListFunction {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Empty | Kind::Prefix | Kind::Options => texts().arrow(),
            Kind::OrEmpty => match &args[0] {
                DataType::List(_) => args[0].clone(),
                _ => texts().arrow(),
            },
            Kind::Subscripts => list_of(DataType::Int32),
            Kind::Expand => list_of(DataType::Struct(expanded(&args[0]))),
            // generate_series wants them so.
            Kind::Upper | Kind::Lower => DataType::Int64,
            Kind::TypeOf => DataType::Utf8,
        })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if self.kind == Kind::Empty {
            return Ok(ColumnarValue::Array(rows::array(&texts(), &vec![Value::List(Vec::new()); rows])));
        }
        if self.kind == Kind::TypeOf {
            let name = args.arg_fields.first().map(|f| match SqlType::of(f) {
                // The type alone, without its precision or length.
                SqlType::Numeric { .. } => "numeric".to_string(),
                SqlType::Varchar(_) => "character varying".into(),
                of => of.name(),
            });
            return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::Utf8(name)));
        }
        let arrays = args.args.iter().map(|a| a.clone().into_array(rows)).collect::<Result<Vec<_>>>()?;
        let Some(list) = arrays.iter().rev().find_map(|a| a.as_list_opt::<i32>().cloned()) else {
            // A bare NULL has no type to tell its elements from.
            return Ok(ColumnarValue::Array(match self.kind {
                Kind::OrEmpty => rows::array(&texts(), &vec![Value::List(Vec::new()); rows]),
                _ => arrow::array::new_null_array(args.return_field.data_type(), rows),
            }));
        };
        let array: ArrayRef = match self.kind {
            Kind::OrEmpty => or_empty(&list),
            Kind::Subscripts => Arc::new(with_items(&list, &args.return_field, |_| subscripts(&list))?),
            Kind::Expand => Arc::new(with_items(&list, &args.return_field, |items| {
                let numbers = subscripts(&list);
                Arc::new(StructArray::new(expanded(list.data_type()), vec![Arc::clone(items), numbers], None))
            })?),
            Kind::Prefix => map_texts(&list, |i, text| format!("{}{text}", text_at(&arrays[0], i))),
            Kind::Options => map_texts(&list, |_, text| {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                format!("{} {}", quote_ident(name), quote_literal(value))
            }),
            Kind::Upper => Arc::new(lengths(&list).map(|n| n.filter(|n| *n > 0)).map(|n| n.map(i64::from)).collect::<Int64Array>()),
            Kind::Lower => Arc::new(lengths(&list).map(|n| n.filter(|n| *n > 0).map(|_| 1_i64)).collect::<Int64Array>()),
            Kind::Empty | Kind::TypeOf => return exec_err!("answered above"),
        };
        Ok(ColumnarValue::Array(array))
    }
}

fn lengths(list: &ListArray) -> impl Iterator<Item = Option<i32>> + '_ {
    (0..list.len()).map(|i| list.is_valid(i).then(|| list.value_length(i)))
}

fn text_at(array: &ArrayRef, row: usize) -> String {
    array.as_string_opt::<i32>().filter(|a| a.is_valid(row)).map(|a| a.value(row).to_string()).unwrap_or_default()
}

fn or_empty(list: &ListArray) -> ArrayRef {
    let empty = new_empty_array(&list.value_type());
    let mut offsets = Vec::with_capacity(list.len());
    let mut parts: Vec<ArrayRef> = Vec::new();
    for i in 0..list.len() {
        let part = if list.is_valid(i) { list.value(i) } else { Arc::clone(&empty) };
        offsets.push(part.len());
        parts.push(part);
    }
    let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
    let items = if parts.is_empty() { empty } else { arrow::compute::concat(&parts).unwrap_or(empty) };
    Arc::new(ListArray::new(element(list.data_type()), OffsetBuffer::from_lengths(offsets), items, None))
}

/// 1, 2, … within each list, for all its elements in order.
fn subscripts(list: &ListArray) -> ArrayRef {
    Arc::new(lengths(list).flat_map(|n| 1..=n.unwrap_or(0)).collect::<Int32Array>())
}

/// A list of the same shape with other elements; elements behind NULL or outside the slice are left out first.
fn with_items(list: &ListArray, field: &FieldRef, make: impl FnOnce(&ArrayRef) -> ArrayRef) -> Result<ListArray> {
    let parts: Vec<ArrayRef> = (0..list.len()).filter(|i| list.is_valid(*i)).map(|i| list.value(i)).collect();
    let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
    let items = if parts.is_empty() { new_empty_array(&list.value_type()) } else { arrow::compute::concat(&parts)? };
    let lengths = lengths(list).map(|n| usize::try_from(n.unwrap_or(0)).unwrap_or(0));
    let nulls: NullBuffer = (0..list.len()).map(|i| list.is_valid(i)).collect::<Vec<bool>>().into();
    Ok(ListArray::try_new(element(field.data_type()), OffsetBuffer::from_lengths(lengths), make(&items), Some(nulls))?)
}

fn map_texts(list: &ListArray, f: impl Fn(usize, &str) -> String) -> ArrayRef {
    let value = |i: usize| {
        if list.is_null(i) {
            return Value::Null;
        }
        let items = list.value(i);
        let items = items.as_any().downcast_ref::<StringArray>().cloned().unwrap_or_else(|| StringArray::new_null(0));
        Value::List(items.iter().map(|t| t.map(|t| f(i, t)).into()).collect())
    };
    rows::array(&texts(), &(0..list.len()).map(value).collect::<Vec<_>>())
}
