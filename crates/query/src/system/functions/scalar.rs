//! A scalar function from a name, a number of arguments, a type and a closure over one row.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Result, SqlType};

use super::CatalogAccess;
use crate::error::to_datafusion;
use crate::system::facts::Facts;
use crate::system::rows::{self, Value};

/// One function.
#[derive(Clone)]
pub struct Function {
    pub name: &'static str,
    pub args: RangeInclusive<usize>,
    pub returns: SqlType,
    /// NULL in, NULL out.
    pub strict: bool,
    pub volatility: Volatility,
    pub body: fn(&Call<'_>) -> Result<Value>,
}

/// A function of the catalog or session; NULL for a NULL argument.
pub fn function(name: &'static str, args: RangeInclusive<usize>, returns: SqlType, body: fn(&Call<'_>) -> Result<Value>) -> Function {
    Function { name, args, returns, strict: true, volatility: Volatility::Stable, body }
}

impl Function {
    /// Called with NULL arguments as well.
    pub fn lenient(mut self) -> Self {
        self.strict = false;
        self
    }
    /// Evaluated for every row, never ahead.
    pub fn volatile(mut self) -> Self {
        self.volatility = Volatility::Volatile;
        self
    }
}

/// One row's arguments.
pub struct Call<'a> {
    pub facts: &'a Facts,
    pub access: &'a dyn CatalogAccess,
    args: Vec<Option<&'a str>>,
}

impl Call<'_> {
    pub fn count(&self) -> usize {
        self.args.len()
    }
    pub fn text(&self, i: usize) -> Option<&str> {
        self.args.get(i).copied().flatten()
    }
    pub fn str(&self, i: usize) -> &str {
        self.text(i).unwrap_or("")
    }
    pub fn int(&self, i: usize) -> Option<i64> {
        self.text(i)?.trim().parse().ok()
    }
    /// An argument that names an object by number; 0 where it does not.
    pub fn oid(&self, i: usize) -> u32 {
        self.int(i).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }
    pub fn bool(&self, i: usize) -> bool {
        self.text(i).is_some_and(|t| matches!(t, "true" | "t" | "on" | "1"))
    }
}

/// A [`Function`] in one session.
pub struct SystemFunction {
    function: &'static Function,
    signature: Signature,
    access: Arc<dyn CatalogAccess>,
}

impl SystemFunction {
    pub fn new(function: &'static Function, access: Arc<dyn CatalogAccess>) -> Self {
        let signature = signature(function.args.clone(), function.volatility);
        SystemFunction { function, signature, access }
    }
}

/// Any types, so many arguments.
pub fn signature(args: RangeInclusive<usize>, volatility: Volatility) -> Signature {
    let counts = args.map(|n| if n == 0 { TypeSignature::Nullary } else { TypeSignature::Any(n) }).collect();
    Signature::one_of(counts, volatility)
}

impl fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.name)
    }
}
impl PartialEq for SystemFunction {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name
    }
}
impl Eq for SystemFunction {}
impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

/// An argument's values as text, however it is typed.
fn texts(array: &ArrayRef) -> StringArray {
    let text = cast(array, &DataType::Utf8).ok();
    text.and_then(|t| t.as_any().downcast_ref::<StringArray>().cloned()).unwrap_or_else(|| StringArray::new_null(array.len()))
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.function.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.function.returns.arrow())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::new(self.function.returns.field(self.function.name, true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) && self.function.volatility != Volatility::Volatile;
        let count = if constant { 1 } else { args.number_rows };
        let columns: Vec<StringArray> =
            args.args.iter().map(|a| a.clone().into_array(count).map(|a| texts(&a))).collect::<DfResult<_>>()?;
        let facts = self.access.facts();
        let mut values = Vec::with_capacity(count);
        for row in 0..count {
            let call = Call {
                facts: &facts,
                access: self.access.as_ref(),
                args: columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect(),
            };
            let null = self.function.strict && call.args.iter().any(Option::is_none);
            values.push(if null { Value::Null } else { (self.function.body)(&call).map_err(to_datafusion)? });
        }
        let array = rows::array(&self.function.returns, &values);
        Ok(if constant { ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?) } else { ColumnarValue::Array(array) })
    }
}
