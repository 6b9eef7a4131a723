//! SQL's type names as types.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::planner::TypePlanner;
use millpond_common::types::NUMERIC_DEFAULT;
use millpond_common::{Error, Result, SqlState, SqlType};
use sqlparser::ast::{self, ArrayElemTypeDef, CharacterLength, ExactNumberInfo, TimezoneInfo};

/// The type that a type name in a statement stands for.
pub fn sql_type(name: &ast::DataType) -> Result<SqlType> {
    use ast::DataType as D;
    Ok(match name {
        D::Boolean | D::Bool => SqlType::Boolean,
        D::SmallInt(_) | D::Int2(_) => SqlType::SmallInt,
        D::Int(_) | D::Integer(_) | D::Int4(_) => SqlType::Integer,
        D::BigInt(_) | D::Int8(_) => SqlType::BigInt,
        D::Real | D::Float4 => SqlType::Real,
        D::Float(ExactNumberInfo::Precision(p)) if *p <= 24 => SqlType::Real,
        D::Float(_) | D::Double(_) | D::DoublePrecision | D::Float8 => SqlType::Double,
        D::Numeric(info) | D::Decimal(info) | D::Dec(info) => numeric(info)?,
        D::Text => SqlType::Text,
        D::Varchar(length) | D::CharacterVarying(length) | D::CharVarying(length) => SqlType::Varchar(character_length(length)?),
        D::Char(_) | D::Character(_) => {
            return Err(Error::unsupported(
                format!("type {name} is not supported"),
                "Use text or varchar(n); blanks are then kept as they are.",
            ));
        }
        D::Bytea => SqlType::Bytea,
        D::Date => SqlType::Date,
        D::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        D::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
        D::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => SqlType::TimestampTz,
        D::Time(_, _) => return Err(Error::unsupported("type time with time zone is not supported", "Use timestamptz, or time.")),
        D::Interval { .. } => SqlType::Interval,
        D::Uuid => SqlType::Uuid,
        D::JSON => SqlType::Json,
        D::JSONB => SqlType::Jsonb,
        D::Regclass => SqlType::Oid,
        D::Array(ArrayElemTypeDef::SquareBracket(item, _)) => match sql_type(item)? {
            // PostgreSQL does not tell int[] from int[][] either, but Arrow does.
            SqlType::Array(_) => return Err(Error::unsupported("arrays of arrays are not supported", "Use one dimension, or jsonb.")),
            item => SqlType::Array(Box::new(item)),
        },
        D::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::Parenthesis(item)) => SqlType::Array(Box::new(sql_type(item)?)),
        D::Custom(name, modifiers) => custom(name, modifiers)?,
        other => return Err(undefined_type(&other.to_string().to_lowercase())),
    })
}

fn custom(name: &ast::ObjectName, modifiers: &[String]) -> Result<SqlType> {
    let last = name.0.last().and_then(|p| p.as_ident()).map(crate::statement::fold).unwrap_or_default();
    Ok(match last.as_str() {
        "timestamptz" => SqlType::TimestampTz,
        "name" => SqlType::Name,
        "oid" | "regclass" | "regproc" | "regtype" | "regnamespace" | "xid" | "cid" => SqlType::Oid,
        "char" => SqlType::Char,
        "bpchar" => SqlType::Varchar(modifiers.first().and_then(|m| m.parse().ok())),
        "int2" => SqlType::SmallInt,
        "int4" => SqlType::Integer,
        "int8" => SqlType::BigInt,
        "float4" => SqlType::Real,
        "float8" => SqlType::Double,
        "bool" => SqlType::Boolean,
        "string" => SqlType::Text,
        "serial" | "serial4" | "bigserial" | "serial8" | "smallserial" | "serial2" => {
            return Err(Error::unsupported(
                format!("type {last} is not supported yet"),
                "Use uuid DEFAULT gen_random_uuid(), or write the numbers yourself.",
            ));
        }
        _ => return Err(undefined_type(&name.to_string())),
    })
}

fn undefined_type(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"))
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric { precision: NUMERIC_DEFAULT.0, scale: NUMERIC_DEFAULT.1 }),
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    let invalid = |message: String| Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
    if !(1..=38).contains(&precision) {
        return invalid(format!("NUMERIC precision {precision} must be between 1 and 38"));
    }
    if scale < 0 || scale as u64 > precision {
        return invalid(format!("NUMERIC scale {scale} must be between 0 and precision {precision}"));
    }
    Ok(SqlType::Numeric { precision: precision as u8, scale: scale as i8 })
}

fn character_length(length: &Option<CharacterLength>) -> Result<Option<u32>> {
    match length {
        None | Some(CharacterLength::Max) => Ok(None),
        Some(CharacterLength::IntegerLength { length: 0, .. }) => {
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "length for type varchar must be at least 1"))
        }
        Some(CharacterLength::IntegerLength { length, .. }) => u32::try_from(*length)
            .map(Some)
            .map_err(|_| Error::new(SqlState::INVALID_PARAMETER_VALUE, "length for type varchar cannot exceed 10485760")),
    }
}

/// Types that compare with each other, and convert to each other where they are assigned.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
#[allow(missing_docs)] // the variants say it
pub(crate) enum Family {
    Boolean,
    Number,
    Text,
    Date,
    Time,
    Interval,
    Bytes,
    Uuid,
    Json,
    Array,
}

impl Family {
    /// A type's family.
    pub(crate) fn of(sql_type: &SqlType) -> Family {
        match sql_type {
            SqlType::Boolean => Family::Boolean,
            SqlType::SmallInt
            | SqlType::Integer
            | SqlType::BigInt
            | SqlType::Real
            | SqlType::Double
            | SqlType::Numeric { .. }
            | SqlType::Oid => Family::Number,
            SqlType::Text | SqlType::Varchar(_) | SqlType::Name | SqlType::Char | SqlType::Unknown => Family::Text,
            SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz => Family::Date,
            SqlType::Time => Family::Time,
            SqlType::Interval => Family::Interval,
            SqlType::Bytea => Family::Bytes,
            SqlType::Uuid => Family::Uuid,
            SqlType::Json | SqlType::Jsonb => Family::Json,
            SqlType::Array(_) => Family::Array,
        }
    }
}

/// Whether an Arrow type is one that a SQL type is stored as.
pub fn is_exact(field: &Field) -> bool {
    SqlType::of(field).arrow().equals_datatype(field.data_type())
}

/// The Arrow form of a field's nearest SQL type.
pub fn exact(field: &Field) -> DataType {
    SqlType::of(field).arrow()
}

/// Whether a type is an integer, and so whether its arithmetic can overflow.
pub fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer()
}

/// The name of an Arrow type in PostgreSQL.
pub fn postgres_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "unknown".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "timestamp without time zone".into(),
        other => SqlType::of(&Field::new("t", other.clone(), true)).name(),
    }
}

/// Gives DataFusion's planner our types.
#[derive(Debug)]
pub struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, name: &ast::DataType) -> datafusion::error::Result<Option<FieldRef>> {
        let sql_type = sql_type(name).map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(Some(Arc::new(sql_type.field("cast", true))))
    }
}
