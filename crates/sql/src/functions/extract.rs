//! Fields of dates, times and intervals: `extract` gives numeric, `date_part` double precision.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array};
use arrow::datatypes::{Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDateTime};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::text::zone::Zone;
use millpond_common::{Error, SqlState, SqlType};

use super::{Function, external, field, mismatch};

const DAY_US: i128 = 86_400_000_000;
/// A year has 365.25 days where an interval's seconds are counted.
const YEAR_US: i128 = 31_557_600_000_000;

/// `extract(field, value)`, numeric with as many digits after the point as the field has.
pub(crate) fn extract() -> Arc<ScalarUDF> {
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<arrow_schema::FieldRef> {
        let name = match args.scalar_arguments.first() {
            Some(Some(ScalarValue::Utf8(Some(name)))) => name.to_ascii_lowercase(),
            _ => return Err(mismatch("extract", &[])),
        };
        let of_date = args.arg_fields.get(1).is_some_and(|f| f.data_type() == &DataType::Date32);
        Ok(field(SqlType::Numeric { precision: 20, scale: scale(&name, of_date) }))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let DataType::Decimal128(precision, scale) = *args.return_field.data_type() else { return Err(mismatch("extract", &[])) };
        let unit = 10i128.pow(6 - scale.unsigned_abs().min(6) as u32);
        let values = fields(args)?.into_iter().map(|v| v.map(|millionths| millionths / unit)).collect::<Decimal128Array>();
        Ok(ColumnarValue::Array(Arc::new(values.with_precision_and_scale(precision, scale)?)))
    }
    Function::udf("extract", Volatility::Immutable, coerce, returns, invoke)
}

/// `date_part(field, value)`
pub(super) fn date_part() -> Arc<ScalarUDF> {
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let values = fields(args)?.into_iter().map(|v| v.map(|millionths| millionths as f64 / 1e6)).collect::<Float64Array>();
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
    Function::udf("date_part", Volatility::Immutable, coerce, |_| Ok(field(SqlType::Double)), invoke)
}

fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
    let [_, value] = types else { return Err(mismatch("extract", types)) };
    let value = match value {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date32 | DataType::Interval(_) => value.clone(),
        DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => return Err(mismatch("extract", types)),
    };
    Ok(vec![DataType::Utf8, value])
}

fn scale(name: &str, of_date: bool) -> i8 {
    match name {
        "epoch" if of_date => 0,
        "epoch" | "second" | "seconds" => 6,
        "millisecond" | "milliseconds" => 3,
        _ => 0,
    }
}

/// The field of each value, in millionths.
fn fields(args: &ScalarFunctionArgs) -> DfResult<Vec<Option<i128>>> {
    let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))), value] = args.args.as_slice() else { return Err(mismatch("extract", &[])) };
    let array: ArrayRef = value.to_array(args.number_rows)?;
    let name = name.to_ascii_lowercase();
    let unknown = || {
        let of = SqlType::of(&arrow_schema::Field::new("value", array.data_type().clone(), true)).name();
        external(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unit \"{name}\" not recognized for type {of}")))
    };
    let rows = 0..array.len();
    let each = |of: &dyn Fn(usize) -> Option<i128>| {
        rows.clone().map(|row| if array.is_null(row) { Ok(None) } else { of(row).map(Some).ok_or_else(unknown) }).collect()
    };
    match array.data_type() {
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            each(&|row| of_timestamp(&name, i64::from(values.value(row)) * DAY_US as i64))
        }
        DataType::Timestamp(_, zone) => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            let (with_zone, zone) = (zone.is_some(), Zone::of(array.data_type()));
            each(&|row| {
                let moment = values.value(row);
                let offset = zone.offset(moment);
                match name.as_str() {
                    "timezone" if with_zone => Some(i128::from(offset) * ONE),
                    "timezone_hour" if with_zone => Some(i128::from(offset / 3600) * ONE),
                    "timezone_minute" if with_zone => Some(i128::from(offset / 60 % 60) * ONE),
                    "epoch" => Some(moment.into()),
                    _ => of_timestamp(&name, moment.checked_add(i64::from(offset) * ONE as i64)?),
                }
            })
        }
        DataType::Time64(_) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            each(&|row| of_time(&name, i128::from(values.value(row))))
        }
        _ => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            each(&|row| of_interval(&name, values.value(row)))
        }
    }
}

const ONE: i128 = 1_000_000;

fn of_timestamp(name: &str, microseconds: i64) -> Option<i128> {
    let time: NaiveDateTime = DateTime::from_timestamp_micros(microseconds)?.naive_utc();
    let year = i128::from(time.year());
    // There is no year 0: 1 BC is -1.
    let shown = if year > 0 { year } else { year - 1 };
    let whole = match name {
        "year" | "years" => shown,
        "month" | "months" => time.month().into(),
        "day" | "days" => time.day().into(),
        "quarter" => (time.month0() / 3 + 1).into(),
        "week" => time.iso_week().week().into(),
        "isoyear" => time.iso_week().year().into(),
        "dow" => time.weekday().num_days_from_sunday().into(),
        "isodow" => time.weekday().number_from_monday().into(),
        "doy" => time.ordinal().into(),
        "decade" => year.div_euclid(10),
        "century" => {
            if shown > 0 {
                (shown + 99) / 100
            } else {
                (shown - 99) / 100
            }
        }
        "millennium" => {
            if shown > 0 {
                (shown + 999) / 1000
            } else {
                (shown - 999) / 1000
            }
        }
        "epoch" => return Some(microseconds.into()),
        _ => return of_time(name, i128::from(microseconds).rem_euclid(DAY_US)),
    };
    Some(whole * ONE)
}

fn of_time(name: &str, microseconds: i128) -> Option<i128> {
    Some(match name {
        "hour" | "hours" => microseconds / (3600 * ONE) * ONE,
        "minute" | "minutes" => microseconds / (60 * ONE) % 60 * ONE,
        "second" | "seconds" => microseconds % (60 * ONE),
        "millisecond" | "milliseconds" => microseconds % (60 * ONE) * 1000,
        "microsecond" | "microseconds" => microseconds % (60 * ONE) * ONE,
        "epoch" => microseconds,
        _ => return None,
    })
}

fn of_interval(name: &str, interval: IntervalMonthDayNano) -> Option<i128> {
    let (months, days) = (i128::from(interval.months), i128::from(interval.days));
    let microseconds = i128::from(interval.nanoseconds / 1000);
    let whole = match name {
        "year" | "years" => months / 12,
        "month" | "months" => months % 12,
        "day" | "days" => days,
        "quarter" => months % 12 / 3 + 1,
        "decade" => months / 120,
        "century" => months / 1200,
        "millennium" => months / 12_000,
        "hour" | "hours" => microseconds / (3600 * ONE),
        "epoch" => return Some(months / 12 * YEAR_US + (months % 12 * 30 + days) * DAY_US + microseconds),
        _ => return of_time(name, microseconds),
    };
    Some(whole * ONE)
}
