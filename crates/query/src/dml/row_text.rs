//! Rows as messages show them: values as PostgreSQL prints them, NULL as `null`.

use arrow::array::{Array, ArrayRef};
use arrow_schema::SchemaRef;
use millpond_common::SqlType;
use millpond_common::column::Column;

/// Longest value shown whole.
const VALUE_CHARS_MAX: usize = 64;

/// One row's values, separated by commas.
pub fn row(columns: &[ArrayRef], row: usize, schema: &SchemaRef) -> String {
    let mut text = String::new();
    for (i, (column, field)) in columns.iter().zip(schema.fields()).enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&value(column, &SqlType::of(field), row));
    }
    text
}

fn value(values: &ArrayRef, sql: &SqlType, row: usize) -> String {
    let Ok(column) = Column::new(&values.slice(row, 1), sql) else { return "?".into() };
    let Some(whole) = column.text(0) else { return "null".into() };
    match whole.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", whole.get(..end).unwrap_or_default()),
        None => whole,
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
