//! COALESCE while names are resolved: a quoted literal has no type of its own yet, which DataFusion's does not know.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::coalesce as datafusion_coalesce;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility};
use millpond_common::Error;

use super::{Function, external};

/// Takes texts beside values of any type. [`typed_coalesce`] takes its place as soon as literals have their types.
pub(crate) fn coalesce() -> Arc<ScalarUDF> {
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let typed = args.arg_fields.iter().map(|f| f.data_type()).filter(|t| !matches!(t, DataType::Utf8 | DataType::Null));
        let typed = typed.cloned().collect::<Vec<_>>();
        let common = match typed.as_slice() {
            [] => DataType::Utf8,
            [one] => one.clone(),
            many => datafusion_coalesce().coerce_types(many)?.swap_remove(0),
        };
        // What its Arrow type does not tell is in a field's metadata.
        let like = args.arg_fields.iter().find(|f| *f.data_type() == common);
        Ok(like.map_or_else(|| Arc::new(Field::new("coalesce", common, true)), |f| Arc::new(f.as_ref().clone().with_nullable(true))))
    }
    let invoke = |_: &_| Err(external(Error::internal("COALESCE was not given its types")));
    Function::udf("coalesce", Volatility::Immutable, |types| Ok(types.to_vec()), returns, invoke)
}

/// The one that is executed.
pub(crate) fn typed_coalesce() -> Arc<ScalarUDF> {
    datafusion_coalesce()
}
