//! SQL types, PostgreSQL's OIDs, and the Arrow fields that carry them.
//!
//! A type that Arrow has no own form for (json, jsonb, uuid, varchar(n)) is Utf8 with the SQL name in the
//! field's metadata under [`TYPE_KEY`]. uuid is stored in its canonical lower-case text, so order and
//! equality are right.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

/// Metadata key of a field whose SQL type is not told by its Arrow type alone.
pub const TYPE_KEY: &str = "millpond.type";

/// Precision and scale of a `numeric` that was declared without them.
pub const NUMERIC_DEFAULT: (u8, i8) = (38, 10);

/// A column's type as SQL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants are the SQL names
pub enum SqlType {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    Real,
    Double,
    Numeric {
        precision: u8,
        scale: i8,
    },
    Text,
    Varchar(Option<u32>),
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    /// PostgreSQL's `name`, in catalogs.
    Name,
    /// PostgreSQL's `oid`, in catalogs.
    Oid,
    /// PostgreSQL's one-byte `"char"`, in catalogs.
    Char,
    /// The type of a bare NULL or an undecided literal.
    Unknown,
    Array(Box<SqlType>),
}

impl SqlType {
    /// The Arrow type of its values.
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::SmallInt => DataType::Int16,
            SqlType::Integer => DataType::Int32,
            SqlType::BigInt => DataType::Int64,
            SqlType::Real => DataType::Float32,
            SqlType::Double => DataType::Float64,
            SqlType::Numeric { precision, scale } => DataType::Decimal128(*precision, *scale),
            SqlType::Text | SqlType::Varchar(_) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Name | SqlType::Char => {
                DataType::Utf8
            }
            SqlType::Unknown => DataType::Utf8,
            SqlType::Oid => DataType::Int64,
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Array(item) => DataType::List(Arc::new(item.field("item", true))),
        }
    }

    /// A field of this type.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        let tag = match self {
            SqlType::Varchar(None) => Some("varchar".to_string()),
            SqlType::Varchar(Some(n)) => Some(format!("varchar({n})")),
            SqlType::Uuid => Some("uuid".into()),
            SqlType::Json => Some("json".into()),
            SqlType::Jsonb => Some("jsonb".into()),
            SqlType::Name => Some("name".into()),
            SqlType::Char => Some("\"char\"".into()),
            SqlType::Oid => Some("oid".into()),
            _ => None,
        };
        match tag {
            Some(tag) => field.with_metadata(HashMap::from([(TYPE_KEY.to_string(), tag)])),
            None => field,
        }
    }

    /// The SQL type that a field carries. Arrow types that SQL has no name for are the nearest one.
    pub fn of(field: &Field) -> SqlType {
        if let Some(tag) = field.metadata().get(TYPE_KEY) {
            match tag.as_str() {
                "uuid" => return SqlType::Uuid,
                "json" => return SqlType::Json,
                "jsonb" => return SqlType::Jsonb,
                "name" => return SqlType::Name,
                "\"char\"" => return SqlType::Char,
                "oid" => return SqlType::Oid,
                "varchar" => return SqlType::Varchar(None),
                other => {
                    let n = other.strip_prefix("varchar(").and_then(|r| r.strip_suffix(')')).and_then(|n| n.parse().ok());
                    if let Some(n) = n {
                        return SqlType::Varchar(Some(n));
                    }
                }
            }
        }
        match field.data_type() {
            DataType::Boolean => SqlType::Boolean,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::SmallInt,
            DataType::UInt16 | DataType::Int32 => SqlType::Integer,
            DataType::UInt32 | DataType::Int64 | DataType::UInt64 => SqlType::BigInt,
            DataType::Float16 | DataType::Float32 => SqlType::Real,
            DataType::Float64 => SqlType::Double,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => {
                SqlType::Numeric { precision: *p, scale: *s }
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => SqlType::Bytea,
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
            DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
            DataType::List(f)
            | DataType::LargeList(f)
            | DataType::FixedSizeList(f, _)
            | DataType::ListView(f)
            | DataType::LargeListView(f) => SqlType::Array(Box::new(SqlType::of(f))),
            DataType::Dictionary(_, v) => SqlType::of(&Field::new("v", v.as_ref().clone(), true)),
            _ => SqlType::Text,
        }
    }

    /// The type's OID in PostgreSQL.
    pub fn oid(&self) -> u32 {
        match self {
            SqlType::Boolean => 16,
            SqlType::Bytea => 17,
            SqlType::Char => 18,
            SqlType::Name => 19,
            SqlType::BigInt => 20,
            SqlType::SmallInt => 21,
            SqlType::Integer => 23,
            SqlType::Text => 25,
            SqlType::Unknown => 25,
            SqlType::Oid => 26,
            SqlType::Json => 114,
            SqlType::Real => 700,
            SqlType::Double => 701,
            SqlType::Varchar(_) => 1043,
            SqlType::Date => 1082,
            SqlType::Time => 1083,
            SqlType::Timestamp => 1114,
            SqlType::TimestampTz => 1184,
            SqlType::Interval => 1186,
            SqlType::Numeric { .. } => 1700,
            SqlType::Uuid => 2950,
            SqlType::Jsonb => 3802,
            SqlType::Array(item) => match item.as_ref() {
                SqlType::Boolean => 1000,
                SqlType::Bytea => 1001,
                SqlType::Char => 1002,
                SqlType::Name => 1003,
                SqlType::BigInt => 1016,
                SqlType::SmallInt => 1005,
                SqlType::Integer => 1007,
                SqlType::Oid => 1028,
                SqlType::Json => 199,
                SqlType::Real => 1021,
                SqlType::Double => 1022,
                SqlType::Varchar(_) => 1015,
                SqlType::Date => 1182,
                SqlType::Time => 1183,
                SqlType::Timestamp => 1115,
                SqlType::TimestampTz => 1185,
                SqlType::Interval => 1187,
                SqlType::Numeric { .. } => 1231,
                SqlType::Uuid => 2951,
                SqlType::Jsonb => 3807,
                SqlType::Text | SqlType::Unknown | SqlType::Array(_) => 1009,
            },
        }
    }

    /// The type of a PostgreSQL OID, where Millpond has it.
    pub fn from_oid(oid: u32) -> Option<SqlType> {
        let scalar = [
            SqlType::Boolean,
            SqlType::Bytea,
            SqlType::Char,
            SqlType::Name,
            SqlType::BigInt,
            SqlType::SmallInt,
            SqlType::Integer,
            SqlType::Text,
            SqlType::Oid,
            SqlType::Json,
            SqlType::Real,
            SqlType::Double,
            SqlType::Varchar(None),
            SqlType::Date,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::TimestampTz,
            SqlType::Interval,
            SqlType::Numeric { precision: NUMERIC_DEFAULT.0, scale: NUMERIC_DEFAULT.1 },
            SqlType::Uuid,
            SqlType::Jsonb,
        ];
        for t in scalar {
            if t.oid() == oid {
                return Some(t);
            }
            let array = SqlType::Array(Box::new(t));
            if array.oid() == oid {
                return Some(array);
            }
        }
        None
    }

    /// The name that PostgreSQL's `format_type` and error messages use.
    pub fn name(&self) -> String {
        match self {
            SqlType::Boolean => "boolean".into(),
            SqlType::SmallInt => "smallint".into(),
            SqlType::Integer => "integer".into(),
            SqlType::BigInt => "bigint".into(),
            SqlType::Real => "real".into(),
            SqlType::Double => "double precision".into(),
            SqlType::Numeric { precision, scale } if (*precision, *scale) == NUMERIC_DEFAULT => "numeric".into(),
            SqlType::Numeric { precision, scale } => format!("numeric({precision},{scale})"),
            SqlType::Text | SqlType::Unknown => "text".into(),
            SqlType::Varchar(None) => "character varying".into(),
            SqlType::Varchar(Some(n)) => format!("character varying({n})"),
            SqlType::Bytea => "bytea".into(),
            SqlType::Date => "date".into(),
            SqlType::Time => "time without time zone".into(),
            SqlType::Timestamp => "timestamp without time zone".into(),
            SqlType::TimestampTz => "timestamp with time zone".into(),
            SqlType::Interval => "interval".into(),
            SqlType::Uuid => "uuid".into(),
            SqlType::Json => "json".into(),
            SqlType::Jsonb => "jsonb".into(),
            SqlType::Name => "name".into(),
            SqlType::Oid => "oid".into(),
            SqlType::Char => "\"char\"".into(),
            SqlType::Array(item) => format!("{}[]", item.name()),
        }
    }
}
