//! The functions that DataFusion does not have.

mod cast;
mod checked;
mod choice;
mod extract;
pub(crate) mod fault;
mod float;
mod interval;
mod json;
mod limited;
mod number_format;
mod numeric;
mod text;
mod time;
mod to_char;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, SqlType};

pub(crate) use cast::{from_text, literal, to_text, typed};
pub use checked::checked;
pub(crate) use choice::{coalesce, typed_coalesce};
pub(crate) use extract::extract;
pub(crate) use float::{float_divide, round_even};
pub use float::{float_order, order_float};
pub(crate) use interval::{interval_divide, interval_multiply, interval_order, timezone};
pub(crate) use json::{json_contains, json_exists, json_get, json_get_text, json_path, json_path_text};
pub use limited::set_result_bytes_max;
pub(crate) use limited::textcat;
pub(crate) use numeric::numeric_divide;
pub(crate) use text::to_varchar;
pub(crate) use time::timestamp_subtract;

type Coerce = fn(&[DataType]) -> DfResult<Vec<DataType>>;
type Returns = fn(&ReturnFieldArgs<'_>) -> DfResult<FieldRef>;
type Invoke = fn(&ScalarFunctionArgs) -> DfResult<ColumnarValue>;

/// A scalar function made of plain functions. Its name is its identity.
#[derive(Debug)]
pub(crate) struct Function {
    name: &'static str,
    signature: Signature,
    coerce: Coerce,
    returns: Returns,
    invoke: Invoke,
}

impl Function {
    pub(crate) fn udf(name: &'static str, volatility: Volatility, coerce: Coerce, returns: Returns, invoke: Invoke) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Function { name, signature: Signature::user_defined(volatility), coerce, returns, invoke }))
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        (self.coerce)(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let fields = types.iter().map(|t| Arc::new(Field::new("argument", t.clone(), true))).collect::<Vec<_>>();
        let scalars = vec![None; types.len()];
        let args = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
        Ok((self.returns)(&args)?.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new((self.returns)(&args)?.as_ref().clone().with_name(self.name)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        (self.invoke)(&args)
    }
}

/// Our error inside DataFusion's.
pub(crate) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A call of a function.
pub(crate) fn call(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// A field of a SQL type, as a function's result.
fn field(sql_type: SqlType) -> FieldRef {
    Arc::new(sql_type.field("value", true))
}

/// The error for a call with other arguments.
fn mismatch(name: &str, types: &[DataType]) -> DataFusionError {
    let types = types.iter().map(crate::types::postgres_name).collect::<Vec<_>>().join(", ");
    external(
        Error::new(millpond_common::SqlState::UNDEFINED_FUNCTION, format!("function {name}({types}) does not exist"))
            .with_hint("No function matches the given name and argument types. You might need to add explicit type casts."),
    )
}

/// A function without arguments whose value the session knows, such as `current_user`.
pub(crate) fn constant(name: &str, value: &str) -> Arc<ScalarUDF> {
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Constant {
        name: String,
        value: String,
        signature: Signature,
    }
    impl ScalarUDFImpl for Constant {
        fn name(&self) -> &str {
            &self.name
        }
        fn signature(&self) -> &Signature {
            &self.signature
        }
        fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
            Ok(DataType::Utf8)
        }
        fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
            Ok(Arc::new(SqlType::Name.field(&self.name, false)))
        }
        fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
            Ok(ColumnarValue::Scalar(ScalarValue::from(self.value.as_str())))
        }
    }
    let signature = Signature::nullary(Volatility::Stable);
    Arc::new(ScalarUDF::from(Constant { name: name.into(), value: value.into(), signature }))
}

/// All of them, for a context.
pub(crate) fn register(context: &SessionContext) {
    let all = [
        fault::fail_after(),
        cast::from_text_function(),
        cast::to_text_function(),
        cast::typed_function(),
        checked::checked_add(),
        checked::checked_subtract(),
        checked::checked_multiply(),
        extract(),
        extract::date_part(),
        float_divide(),
        round_even(),
        interval_multiply(),
        interval_order(),
        interval_divide(),
        timezone(),
        numeric_divide(),
        numeric::modulo(),
        text::gen_random_uuid(),
        to_varchar(),
        time::hop_starts(),
        time::tumble_start(),
        timestamp_subtract(),
        limited::textcat(),
        to_char::to_char(),
    ];
    for function in all.into_iter().chain(json::functions()) {
        context.register_udf(function.as_ref().clone());
    }
    limited::register(context);
}
