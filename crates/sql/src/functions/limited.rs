//! Functions whose result can be much longer than their arguments: it is estimated first, and too long a one is an error (54000), as
//! memory that is not there would end the process. Everything else gives a few times what it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::concat_elements::concat_elements_utf8;
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;
use millpond_common::{Error, SqlState, SqlType};

use super::{Function, external, field, mismatch};

/// PostgreSQL's limit of a value.
const BYTES_MAX: u64 = 1 << 30;

/// What one call may give for a batch of rows.
static LIMIT: AtomicU64 = AtomicU64::new(BYTES_MAX);

/// Sets how many bytes one call of a function may give for a batch of rows, a gigabyte at most.
pub fn set_result_bytes_max(bytes: u64) {
    LIMIT.store(bytes.min(BYTES_MAX), Ordering::Relaxed);
}

/// Bytes that a call gives, or a bound of them.
type Estimate = fn(&[ArrayRef]) -> u64;

const LIMITED: [(&str, Estimate); 12] = [
    ("repeat", |args| each(args, |row| row.bytes(0).saturating_mul(row.number(1)))),
    ("lpad", |args| each(args, padded)),
    ("rpad", |args| each(args, padded)),
    ("concat", all_bytes),
    ("concat_ws", |args| each(args, |row| row.bytes(0) * row.args.len() as u64).saturating_add(all_bytes(args))),
    ("replace", replaced),
    ("regexp_replace", |args| each(args, |row| (row.bytes(0) + 1).saturating_mul(row.bytes(2)).saturating_add(row.bytes(0)))),
    ("array_to_string", |args| each(args, |row| row.items(0) * (row.bytes(1) + row.bytes(2)) + row.bytes(0))),
    ("array_repeat", |args| each(args, |row| row.bytes(0).max(8).saturating_mul(row.number(1)))),
    ("array_resize", |args| each(args, |row| row.bytes(2).max(8).saturating_mul(row.number(1)))),
    ("range", |args| each(args, counted)),
    ("generate_series", |args| each(args, counted)),
];

/// Puts limited functions into the place of those that the context has.
pub(super) fn register(context: &SessionContext) {
    for (name, estimate) in LIMITED {
        let inner = context.state().scalar_functions().get(name).cloned();
        if let Some(inner) = inner {
            context.register_udf(ScalarUDF::from(Limited { inner, estimate }));
        }
    }
}

/// `textcat(a, b)`: what `a || b` is.
pub(crate) fn textcat() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if types.len() == 2 { Ok(vec![DataType::Utf8; 2]) } else { Err(mismatch("textcat", types)) }
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(field(SqlType::Text).as_ref().clone().with_nullable(nullable)))
    }
    Function::udf("textcat", Volatility::Immutable, coerce, returns, |args| {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
        check("||", all_bytes(&arrays))?;
        let [a, b] = arrays.as_slice() else { return Err(mismatch("textcat", &[])) };
        Ok(ColumnarValue::Array(Arc::new(concat_elements_utf8(a.as_string::<i32>(), b.as_string::<i32>())?)))
    })
}

#[derive(Debug)]
struct Limited {
    inner: Arc<ScalarUDF>,
    estimate: Estimate,
}

impl PartialEq for Limited {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Limited {}

impl std::hash::Hash for Limited {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Limited {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        // Constants are looked at once.
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let array = |a: &ColumnarValue| {
            let array = a.to_array(rows)?;
            Ok(if array.data_type().is_integer() { arrow::compute::cast(&array, &DataType::Int64)? } else { array })
        };
        let arrays = args.args.iter().map(array).collect::<DfResult<Vec<_>>>()?;
        check(self.name(), (self.estimate)(&arrays))?;
        self.inner.invoke_with_args(args)
    }
}

fn check(name: &str, bytes: u64) -> DfResult<()> {
    let limit = LIMIT.load(Ordering::Relaxed);
    if bytes <= limit {
        return Ok(());
    }
    let error = Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("the result of {name} is too long"))
        .with_detail(format!("It could have {bytes} bytes for the rows of one batch, {limit} are allowed."))
        .with_hint("A call may give a quarter of the server's memory, from 64 MB to a gigabyte.");
    Err(external(error))
}

/// The arguments of one row.
struct Row<'a> {
    args: &'a [ArrayRef],
    row: usize,
}

impl Row<'_> {
    fn arg(&self, i: usize) -> Option<&ArrayRef> {
        self.args.get(i).filter(|a| a.is_valid(self.row))
    }

    /// An integer argument, where it is above zero.
    fn number(&self, i: usize) -> u64 {
        self.signed(i).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    }

    fn signed(&self, i: usize) -> Option<i64> {
        Some(self.arg(i)?.as_primitive_opt::<Int64Type>()?.value(self.row))
    }

    /// The length of a text; of another value, about its size.
    fn bytes(&self, i: usize) -> u64 {
        let Some(array) = self.arg(i) else { return 0 };
        match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(self.row).len() as u64,
            DataType::LargeUtf8 => array.as_string::<i64>().value(self.row).len() as u64,
            DataType::Utf8View => array.as_string_view().value(self.row).len() as u64,
            _ => array.slice(self.row, 1).to_data().get_slice_memory_size().unwrap_or(8) as u64,
        }
    }

    /// The length of an array.
    fn items(&self, i: usize) -> u64 {
        let Some(array) = self.arg(i) else { return 0 };
        match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value_length(self.row) as u64,
            DataType::LargeList(_) => array.as_list::<i64>().value_length(self.row) as u64,
            _ => 0,
        }
    }
}

fn each(args: &[ArrayRef], of: impl Fn(&Row<'_>) -> u64) -> u64 {
    let rows = args.first().map_or(0, |a| a.len());
    (0..rows).map(|row| of(&Row { args, row })).fold(0, u64::saturating_add)
}

/// What all arguments have together.
fn all_bytes(args: &[ArrayRef]) -> u64 {
    let size = |a: &ArrayRef| a.to_data().get_slice_memory_size().unwrap_or(0) as u64;
    args.iter().map(size).fold(0, u64::saturating_add)
}

/// So many characters, of the longest kind that is there.
fn padded(row: &Row<'_>) -> u64 {
    let ascii = |i: usize| row.arg(i).is_none_or(|a| a.data_type() != &DataType::Utf8 || a.as_string::<i32>().value(row.row).is_ascii());
    row.number(1).saturating_mul(if ascii(0) && ascii(2) { 1 } else { 4 })
}

/// Finds are counted only where the bound would be too much.
fn replaced(args: &[ArrayRef]) -> u64 {
    let bound = |row: &Row<'_>| (row.bytes(0) + 1).saturating_mul(row.bytes(2)).saturating_add(row.bytes(0));
    let bytes = each(args, bound);
    let [text, from, _] = args else { return bytes };
    let texts = [text, from].iter().all(|a| a.data_type() == &DataType::Utf8);
    if bytes <= LIMIT.load(Ordering::Relaxed) || !texts {
        return bytes;
    }
    let (text, from) = (text.as_string::<i32>(), from.as_string::<i32>());
    each(args, |row| {
        let finds = text.value(row.row).matches(from.value(row.row)).count() as u64;
        finds.saturating_mul(row.bytes(2)).saturating_add(row.bytes(0))
    })
}

/// Numbers from the first argument to the second, or to the only one, by the third; of other types, few.
fn counted(row: &Row<'_>) -> u64 {
    if !row.args.iter().all(|a| a.data_type().is_integer()) {
        return 0;
    }
    let (from, to) = match row.args.len() {
        1 => (0, row.signed(0).unwrap_or(0)),
        _ => (row.signed(0).unwrap_or(0), row.signed(1).unwrap_or(0)),
    };
    let step = row.signed(2).unwrap_or(1).unsigned_abs().max(1);
    (from.abs_diff(to) / step).saturating_add(1).saturating_mul(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray, StringArray};

    #[test]
    fn estimates() {
        let text = |t: &str| Arc::new(StringArray::from(vec![Some(t), None])) as ArrayRef;
        let number = |n: i64| Arc::new(Int64Array::from(vec![n, n])) as ArrayRef;
        let list = |n: usize| Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1); n]), None])) as ArrayRef;
        let of = |name: &str, args: &[ArrayRef]| LIMITED.iter().find(|(n, _)| *n == name).map(|(_, f)| f(args));
        let cases: [(&str, Vec<ArrayRef>, u64); 10] = [
            ("repeat", vec![text("abc"), number(1000)], 3000),
            ("repeat", vec![text("abc"), number(i64::MAX)], u64::MAX),
            ("repeat", vec![text("abc"), number(-1)], 0),
            ("lpad", vec![text("abc"), number(1000)], 2000),
            ("rpad", vec![text("abc"), number(1000), text("ä")], 5000),
            ("regexp_replace", vec![text("abc"), text("b"), text("1234567890")], 43),
            ("replace", vec![text("abab"), text("ab"), text("1234567890")], 54),
            ("array_to_string", vec![list(5), text("--")], 5 * 2 + 40),
            ("range", vec![number(5), number(1_000_000_004)], 16_000_000_000),
            ("array_repeat", vec![number(7), number(10)], 160),
        ];
        for (name, args, bytes) in cases {
            let found = of(name, &args).unwrap_or(0);
            assert!((bytes..=bytes.saturating_add(64)).contains(&found), "{name}: {found} instead of {bytes}");
        }
    }
}
