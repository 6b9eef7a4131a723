//! How types are described to clients: OIDs, sizes and modifiers.

use arrow_schema::SchemaRef;
use millpond_common::types::NUMERIC_DEFAULT;
use millpond_common::{Error, Result, SqlState, SqlType};
use pgwire::messages::data::{FieldDescription, RowDescription};

/// A type's OID in the protocol. An array's is that of its innermost items: PostgreSQL's array types do not tell dimensions.
pub fn oid(sql: &SqlType) -> u32 {
    match sql {
        SqlType::Array(item) if matches!(item.as_ref(), SqlType::Array(_)) => oid(item),
        other => other.oid(),
    }
}

/// The type that a client means by an OID; `None` where it leaves the choice to the server.
pub(crate) fn parameter_type(oid: u32) -> Result<Option<SqlType>> {
    match oid {
        // 705 is "unknown".
        0 | 705 => Ok(None),
        // char(n) travels as text does.
        1042 => Ok(Some(SqlType::Text)),
        1014 => Ok(Some(SqlType::Array(Box::new(SqlType::Text)))),
        _ => SqlType::from_oid(oid).map(Some).ok_or_else(|| {
            Error::new(SqlState::UNDEFINED_OBJECT, format!("type with OID {oid} does not exist"))
                .with_hint("Leave the parameter's type unspecified, or cast it in the statement.")
        }),
    }
}

/// The bytes of a type's values in PostgreSQL; −1 where they vary.
fn size(sql: &SqlType) -> i16 {
    match sql {
        SqlType::Boolean | SqlType::Char => 1,
        SqlType::SmallInt => 2,
        SqlType::Integer | SqlType::Real | SqlType::Date | SqlType::Oid => 4,
        SqlType::BigInt | SqlType::Double | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => 8,
        SqlType::Interval | SqlType::Uuid => 16,
        SqlType::Name => 64,
        _ => -1,
    }
}

/// The type's modifier: the declared length, or precision and scale; −1 for none.
fn modifier(sql: &SqlType) -> i32 {
    match sql {
        SqlType::Numeric { precision, scale } if (*precision, *scale) != NUMERIC_DEFAULT => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        SqlType::Varchar(Some(length)) => i32::try_from(*length).map_or(-1, |n| n.saturating_add(4)),
        SqlType::Array(item) => modifier(item),
        _ => -1,
    }
}

/// The message that describes a result's columns; `binary` tells each column's format.
pub(crate) fn row_description(schema: &SchemaRef, binary: impl Fn(usize) -> bool) -> Result<RowDescription> {
    if schema.fields().len() > i16::MAX as usize {
        return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a result can have at most 32767 columns"));
    }
    let describe = |(i, field): (usize, &arrow_schema::FieldRef)| {
        let sql = SqlType::of(field);
        let name = field.name().replace('\0', "");
        FieldDescription::new(name, 0, 0, oid(&sql), size(&sql), modifier(&sql), i16::from(binary(i)))
    };
    Ok(RowDescription::new(schema.fields().iter().enumerate().map(describe).collect()))
}
