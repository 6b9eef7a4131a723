//! Intervals times and divided by numbers; times in other zones.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::datatypes::{Decimal128Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::text::zone;
use millpond_common::{Error, Result, SqlState, SqlType};

use super::{Function, external, field, mismatch};

/// `interval_multiply(interval, factor)`
pub(crate) fn interval_multiply() -> Arc<ScalarUDF> {
    Function::udf("interval_multiply", Volatility::Immutable, coerce, returns, |args| {
        map(args, |interval, factor| scaled(interval, |part| part * factor))
    })
}

/// `interval_divide(interval, divisor)`
pub(crate) fn interval_divide() -> Arc<ScalarUDF> {
    Function::udf("interval_divide", Volatility::Immutable, coerce, returns, |args| {
        map(args, |interval, divisor| match divisor {
            0.0 => Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")),
            _ => scaled(interval, |part| part / divisor),
        })
    })
}

/// `interval_order(interval)`: a number in the order of intervals: nanoseconds, with months of 30 days and days of 24 hours.
pub(crate) fn interval_order() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        if types.len() == 1 { Ok(vec![SqlType::Interval.arrow()]) } else { Err(mismatch("interval_order", types)) }
    }
    fn returns(_: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new("order", DataType::Decimal128(38, 0), true)))
    }
    fn order(interval: IntervalMonthDayNano) -> i128 {
        let days = i128::from(interval.months) * 30 + i128::from(interval.days);
        days * 86_400_000_000_000 + i128::from(interval.nanoseconds)
    }
    Function::udf("interval_order", Volatility::Immutable, coerce, returns, |args| {
        let [intervals] = args.args.as_slice() else { return Err(mismatch("interval_order", &[])) };
        let array = intervals.to_array(args.number_rows)?;
        let numbers = array.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Decimal128Type>(order);
        let numbers = Arc::new(numbers.with_precision_and_scale(38, 0)?) as ArrayRef;
        Ok(match intervals {
            ColumnarValue::Array(_) => ColumnarValue::Array(numbers),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&numbers, 0)?),
        })
    })
}

fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types {
        [_, _] => Ok(vec![DataType::Interval(IntervalUnit::MonthDayNano), DataType::Float64]),
        _ => Err(mismatch("interval arithmetic", types)),
    }
}

fn returns(_: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
    Ok(field(SqlType::Interval))
}

fn map(args: &ScalarFunctionArgs, f: fn(IntervalMonthDayNano, f64) -> Result<IntervalMonthDayNano>) -> DfResult<ColumnarValue> {
    let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
    let [intervals, numbers] = arrays.as_slice() else { return Err(mismatch("interval arithmetic", &[])) };
    let pairs = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(numbers.as_primitive::<Float64Type>());
    let results = pairs.map(|(interval, number)| interval.zip(number).map(|(i, n)| f(i, n)).transpose());
    let results = results.collect::<Result<IntervalMonthDayNanoArray>>().map_err(external)?;
    Ok(ColumnarValue::Array(Arc::new(results)))
}

/// An interval with each part scaled. Fractions of months become days of 30 to the month, fractions of days become time.
fn scaled(interval: IntervalMonthDayNano, scale: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano> {
    let to_microseconds = |seconds: f64| (seconds * 1e6).round_ties_even() / 1e6;
    let (months, days) = (scale(interval.months.into()), scale(interval.days.into()));
    let from_months = to_microseconds((months - months.trunc()) * 30.0);
    let mut seconds = to_microseconds((days - days.trunc() + from_months - from_months.trunc()) * 86_400.0);
    let mut whole_days = days.trunc() + from_months.trunc();
    if seconds.abs() >= 86_400.0 {
        let more = (seconds / 86_400.0).trunc();
        whole_days += more;
        seconds -= more * 86_400.0;
    }
    let microseconds = (scale((interval.nanoseconds / 1000) as f64) + seconds * 1e6).round_ties_even();
    let in_range = months.abs() <= f64::from(i32::MAX) && whole_days.abs() <= f64::from(i32::MAX) && microseconds.abs() < 9.2e15;
    if !in_range {
        return Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range"));
    }
    Ok(IntervalMonthDayNano::new(months as i32, whole_days as i32, microseconds as i64 * 1000))
}

/// `timezone(zone, time)`, which is `time AT TIME ZONE zone`: the local time of a moment, or the moment of a local time.
pub(crate) fn timezone() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        let time = match types {
            [_, DataType::Timestamp(_, Some(_))] => SqlType::TimestampTz,
            [_, DataType::Timestamp(_, None)] => SqlType::Timestamp,
            // A date is a moment in the session's time zone first.
            [_, DataType::Date32] => SqlType::TimestampTz,
            _ => return Err(mismatch("timezone", types)),
        };
        Ok(vec![DataType::Utf8, time.arrow()])
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let moment = args.arg_fields.get(1).is_some_and(|f| matches!(f.data_type(), DataType::Timestamp(_, Some(_))));
        Ok(field(if moment { SqlType::Timestamp } else { SqlType::TimestampTz }))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<ArrayRef>>>()?;
        let [zones, times] = arrays.as_slice() else { return Err(mismatch("timezone", &[])) };
        let is_moment = matches!(times.data_type(), DataType::Timestamp(TimeUnit::Microsecond, Some(_)));
        let shift = if is_moment { zone::local::<Tz> } else { zone::moment::<Tz> };
        let mut last: Option<(&str, Tz)> = None;
        let shifted = zones.as_string::<i32>().iter().zip(times.as_primitive::<TimestampMicrosecondType>()).map(|pair| {
            let (Some(name), Some(time)) = pair else { return Ok(None) };
            let zone = match last {
                Some((known, zone)) if known == name => zone,
                _ => zone_named(name)?,
            };
            last = Some((name, zone));
            shift(&zone, time).map(Some).ok_or_else(|| Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
        });
        let shifted = shifted.collect::<Result<TimestampMicrosecondArray>>().map_err(external)?;
        Ok(ColumnarValue::Array(Arc::new(shifted.with_timezone_opt((!is_moment).then_some("UTC")))))
    }
    Function::udf("timezone", Volatility::Immutable, coerce, returns, invoke)
}

fn zone_named(name: &str) -> Result<Tz> {
    let unknown = |_| Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"));
    match name {
        _ if name.eq_ignore_ascii_case("utc") || name.eq_ignore_ascii_case("z") => "UTC".parse().map_err(unknown),
        _ => name.parse().map_err(unknown),
    }
}
