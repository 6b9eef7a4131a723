//! Rows as messages show them: values as PostgreSQL prints them, NULL as `null`.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use arrow_schema::{DataType, SchemaRef};

/// Longest value shown whole.
const VALUE_CHARS_MAX: usize = 64;

/// One row's values, separated by commas.
pub fn row(columns: &[ArrayRef], row: usize, schema: &SchemaRef) -> String {
    let mut text = String::new();
    for (i, (column, _)) in columns.iter().zip(schema.fields()).enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&value(column, row));
    }
    text
}

fn value(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".into();
    }
    let whole = match column.data_type() {
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_string(),
        DataType::Binary => column.as_binary::<i32>().value(row).iter().fold("\\x".to_string(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        }),
        _ => {
            let options = FormatOptions::new()
                .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
                .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f+00"))
                .with_time_format(Some("%H:%M:%S%.f"))
                .with_duration_format(DurationFormat::Pretty);
            match ArrayFormatter::try_new(column, &options) {
                Ok(formatter) if column.data_type().is_temporal() => without_zeros(&formatter.value(row).to_string()),
                Ok(formatter) => formatter.value(row).to_string(),
                Err(_) => "?".into(),
            }
        }
    };
    match whole.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

/// A time without the zeros that end the fraction of its seconds.
fn without_zeros(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_string() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(digits);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}"),
        fraction => format!("{whole}.{fraction}{zone}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{BinaryArray, BooleanArray, Decimal128Array, Int32Array, StringArray, TimestampMicrosecondArray};
    use arrow_schema::{Field, Schema};
    use std::sync::Arc;

    #[test]
    fn values_as_postgresql_prints_them() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(1)])),
            Arc::new(Int32Array::from(vec![None])),
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])),
            Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC")),
            Arc::new(Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).unwrap()),
            Arc::new(StringArray::from(vec!["é".repeat(100)])),
        ];
        let fields = columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect::<Vec<_>>();
        let text = row(&columns, 0, &Arc::new(Schema::new(fields)));
        assert_eq!(text, format!("1, null, t, \\x00ff, 1970-01-01 00:00:01.5+00, 12.50, {}...", "é".repeat(64)));
    }
}
