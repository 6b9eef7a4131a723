//! Casts of what is not a literal to `regclass` and its kin: a text is looked up and becomes a number, a number
//! becomes its object's name, which is what a client would see.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::scalar::{SystemFunction, signature};
use super::{CatalogAccess, FUNCTIONS};

/// One cast: the two functions that it may mean.
struct RegCast {
    name: String,
    signature: Signature,
    to_oid: SystemFunction,
    to_text: SystemFunction,
}

/// All of them.
pub fn functions(access: &Arc<dyn CatalogAccess>) -> Vec<ScalarUDF> {
    let kinds = [
        "regclass",
        "regtype",
        "regnamespace",
        "regrole",
        "regproc",
        "regprocedure",
        "regoper",
        "regoperator",
        "regcollation",
        "regconfig",
        "regdictionary",
    ];
    kinds.into_iter().filter_map(|kind| new(kind, access)).map(ScalarUDF::new_from_impl).collect()
}

fn new(kind: &str, access: &Arc<dyn CatalogAccess>) -> Option<RegCast> {
    let name = format!("millpond_{kind}");
    let find = |suffix: &str| {
        let function = FUNCTIONS.iter().find(|f| f.name.strip_prefix(name.as_str()) == Some(suffix))?;
        Some(SystemFunction::new(function, Arc::clone(access)))
    };
    let (to_oid, to_text) = (find("_oid")?, find("_text")?);
    Some(RegCast { name, signature: signature(1..=1, Volatility::Stable), to_oid, to_text })
}

impl RegCast {
    fn function(&self, argument: Option<&DataType>) -> &SystemFunction {
        match argument {
            Some(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => &self.to_oid,
            _ => &self.to_text,
        }
    }
}

impl fmt::Debug for RegCast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl PartialEq for RegCast {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for RegCast {}
impl Hash for RegCast {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RegCast {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.function(args.first()).return_type(args)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function(args.arg_fields.first().map(|f| f.data_type())).return_field_from_args(args)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first().map(ColumnarValue::data_type) {
            Some(of) => self.function(Some(&of)).invoke_with_args(args),
            None => exec_err!("{} takes one argument", self.name),
        }
    }
}
