//! Where the windows of TUMBLE and HOP begin.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder};
use arrow::datatypes::{IntervalMonthDayNano, TimestampMicrosecondType};
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use millpond_common::{Error, Result, SqlState};

use super::{Function, external, mismatch};

/// How many windows a row may be in.
const WINDOWS_MAX: i64 = 10_000;

/// `hop_starts(time, slide, size)`: the beginnings of all windows that hold the time, earliest first.
pub(super) fn hop_starts() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [time, _, _] => Ok(vec![timestamp("hop", time)?, interval(), interval()]),
            _ => Err(mismatch("hop_starts", types)),
        }
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        check_widths(args)?;
        let item = args.arg_fields.first().map_or(DataType::Null, |f| f.data_type().clone());
        Ok(Arc::new(Field::new("starts", DataType::List(Arc::new(Field::new("item", item, true))), true)))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (times, zone) = times(args)?;
        let slide = width(args.args.get(1), "slide").map_err(external)?;
        let size = width(args.args.get(2), "size").map_err(external)?;
        if size / slide > WINDOWS_MAX {
            let message = format!("HOP would put each row into more than {WINDOWS_MAX} windows");
            return Err(external(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)));
        }
        let item = Field::new("item", DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), true);
        let values = TimestampMicrosecondBuilder::new().with_data_type(item.data_type().clone());
        let mut lists = ListBuilder::new(values).with_field(item);
        for row in 0..times.len() {
            if times.is_null(row) {
                lists.append_null();
                continue;
            }
            let time = times.value(row);
            let last = time - time.rem_euclid(slide);
            let mut start = last - (size - 1).div_euclid(slide) * slide;
            while start <= last {
                // The earliest candidate may end before the time if the size is not a multiple of the slide.
                if start + size > time {
                    lists.values().append_value(start);
                }
                start += slide;
            }
            lists.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
    Function::udf("hop_starts", Volatility::Immutable, coerce, returns, invoke)
}

/// `tumble_start(time, size)`: the beginning of the window that holds the time.
pub(super) fn tumble_start() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [time, _] => Ok(vec![timestamp("tumble", time)?, interval()]),
            _ => Err(mismatch("tumble_start", types)),
        }
    }
    fn returns(args: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        check_widths(args)?;
        let time = args.arg_fields.first().map_or(DataType::Null, |f| f.data_type().clone());
        Ok(Arc::new(Field::new("start", time, true)))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (times, zone) = times(args)?;
        let size = width(args.args.get(1), "size").map_err(external)?;
        let starts: TimestampMicrosecondArray = times.unary(|t| t - t.rem_euclid(size));
        Ok(ColumnarValue::Array(Arc::new(starts.with_timezone_opt(zone))))
    }
    Function::udf("tumble_start", Volatility::Immutable, coerce, returns, invoke)
}

/// `timestamp_subtract(a, b)`: the time between them, in days and hours.
pub fn timestamp_subtract() -> Arc<ScalarUDF> {
    fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [a, b] => Ok(vec![timestamp("-", a)?, timestamp("-", b)?]),
            _ => Err(mismatch("timestamp_subtract", types)),
        }
    }
    fn returns(_: &ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new("difference", interval(), true)))
    }
    fn invoke(args: &ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        const DAY: i64 = 86_400_000_000;
        let arrays = args.args.iter().map(|a| a.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
        let [a, b] = arrays.as_slice() else { return Err(mismatch("timestamp_subtract", &[])) };
        let (a, b) = (a.as_primitive::<TimestampMicrosecondType>(), b.as_primitive::<TimestampMicrosecondType>());
        let between = a.iter().zip(b).map(|pair| match pair {
            (Some(a), Some(b)) => {
                let difference = a.wrapping_sub(b);
                Some(IntervalMonthDayNano::new(0, (difference / DAY) as i32, difference % DAY * 1000))
            }
            _ => None,
        });
        Ok(ColumnarValue::Array(Arc::new(between.collect::<arrow::array::IntervalMonthDayNanoArray>())))
    }
    Function::udf("timestamp_subtract", Volatility::Immutable, coerce, returns, invoke)
}

/// Constant widths are checked when the query is planned, not at its first row.
fn check_widths(args: &ReturnFieldArgs<'_>) -> DfResult<()> {
    for scalar in args.scalar_arguments.iter().flatten() {
        if matches!(scalar, ScalarValue::IntervalMonthDayNano(_)) {
            width(Some(&ColumnarValue::Scalar((*scalar).clone())), "width").map_err(external)?;
        }
    }
    Ok(())
}

fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The type in which a time column's windows are computed.
fn timestamp(function: &str, time: &DataType) -> DfResult<DataType> {
    match time {
        DataType::Timestamp(_, zone) => Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
        DataType::Date32 => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        other => Err(external(
            Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!("the time column of {} has type {}", function.to_uppercase(), crate::types::postgres_name(other)),
            )
            .with_hint("It must be a timestamp, timestamptz or date: cast it in a view."),
        )),
    }
}

fn times(args: &ScalarFunctionArgs) -> DfResult<(TimestampMicrosecondArray, Option<Arc<str>>)> {
    let array: ArrayRef = match args.args.first() {
        Some(value) => value.to_array(args.number_rows)?,
        None => return Err(mismatch("window", &[])),
    };
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok((array.as_primitive::<TimestampMicrosecondType>().clone(), zone))
}

/// A window's width in microseconds.
fn width(value: Option<&ColumnarValue>, what: &str) -> Result<i64> {
    let invalid = |message: &str| Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("a window's {what} {message}"));
    let scalar = match value {
        Some(ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval)))) => *interval,
        Some(ColumnarValue::Array(array)) if array.len() == 1 && array.is_valid(0) => {
            array.as_primitive::<arrow::datatypes::IntervalMonthDayNanoType>().value(0)
        }
        _ => return Err(invalid("must be a constant interval")),
    };
    let IntervalMonthDayNano { months, days, nanoseconds } = scalar;
    if months != 0 {
        return Err(invalid("cannot be given in months or years").with_hint("They differ in length; use days."));
    }
    let micros = i64::from(days) * 86_400_000_000 + nanoseconds / 1000;
    if micros <= 0 {
        return Err(invalid("must be greater than zero"));
    }
    Ok(micros)
}
