//! `millpond_fail_after(n)`: a failure on purpose, to see what follows from one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow_schema::DataType;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, Result, SqlState, SqlType};
use parking_lot::Mutex;

use super::{Function, external, field, mismatch};

/// The function's name.
pub const NAME: &str = "millpond_fail_after";

/// What `enable_fault_injection` has switched on: for each pair of arguments, what was counted since. `None`: off.
static COUNTS: Mutex<Option<BTreeMap<(i64, i64), Count>>> = Mutex::new(None);

#[derive(Default)]
struct Count {
    /// Rows since the last failure.
    rows: i64,
    failures: i64,
}

/// Switches failures on purpose on, with nothing counted yet, or off.
pub fn set_fault_injection(on: bool) {
    *COUNTS.lock() = on.then(BTreeMap::new);
}

/// Fails if a view must not be made that fails on purpose.
pub fn check() -> Result<()> {
    match *COUNTS.lock() {
        Some(_) => Ok(()),
        None => Err(Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {NAME}() exists only when fault injection is enabled"))
            .with_hint("ALTER SYSTEM SET enable_fault_injection = on")),
    }
}

/// Counts rows. The n-th fails, in each of the first `times` rounds.
fn count(n: i64, times: i64, rows: usize) -> Result<()> {
    let mut counts = COUNTS.lock();
    let Some(count) = counts.as_mut().map(|c| c.entry((n, times)).or_default()) else { return Ok(()) };
    let before = count.rows;
    count.rows = before.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
    if count.failures < times && before < n && n <= count.rows {
        count.rows = 0;
        count.failures += 1;
        return Err(Error::internal(format!("{NAME}: row {n} fails, as was asked for"))
            .with_detail(format!("Failure {} of {times}.", count.failures)));
    }
    Ok(())
}

/// `millpond_fail_after(n [, times])`: true for every row, but the n-th that it is called for fails, once or as often as was
/// asked for. After a failure it counts from the beginning.
pub(super) fn fail_after() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types.len() {
            1 | 2 if types.iter().all(DataType::is_integer) => Ok(vec![DataType::Int64; types.len()]),
            _ => Err(mismatch(NAME, types)),
        }
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = |at: usize| match args.args.get(at) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))) => Ok(*n),
            None => Ok(1),
            _ => Err(external(Error::unsupported(format!("{NAME}() takes constants"), "Write the number of the row that is to fail."))),
        };
        count(constant(0)?, constant(1)?, args.number_rows).map_err(external)?;
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(vec![true; args.number_rows]))))
    }
    Function::udf(NAME, Volatility::Volatile, coerce, |_| Ok(field(SqlType::Boolean)), invoke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_row_fails_as_often_as_asked() {
        assert!(check().is_err() && count(5, 1, 100).is_ok(), "off");
        set_fault_injection(true);
        assert!(check().is_ok());
        let fails = |n, times, rows: &[usize]| rows.iter().map(|r| count(n, times, *r).is_err()).collect::<Vec<_>>();
        assert_eq!(fails(5, 1, &[4, 1, 4, 1, 100]), [false, true, false, false, false]);
        assert_eq!(fails(3, 2, &[10, 2, 1, 10]), [true, false, true, false]);
        set_fault_injection(true);
        assert_eq!(fails(5, 1, &[5]), [true], "counted anew");
        set_fault_injection(false);
        assert_eq!(fails(2, 9, &[5]), [false]);
    }
}
