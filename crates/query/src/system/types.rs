//! PostgreSQL's types that clients may meet here, as `pg_type` has them.

use std::sync::LazyLock;

use millpond_common::SqlType;

/// One line of `definitions/types.txt`.
#[allow(missing_docs)] // the fields are those of pg_type
pub struct PgType {
    pub oid: u32,
    pub name: &'static str,
    pub array: u32,
    pub len: i16,
    pub by_value: bool,
    pub kind: &'static str,
    pub category: &'static str,
    pub preferred: bool,
    pub align: &'static str,
    pub storage: &'static str,
    pub elem: u32,
    pub collation: u32,
    /// Input, output, receive, send.
    pub functions: [&'static str; 4],
    pub delimiter: &'static str,
    /// Typmod in, typmod out.
    pub typmod: [&'static str; 2],
}

/// All types by number.
pub static TYPES: LazyLock<Vec<PgType>> = LazyLock::new(|| include_str!("definitions/types.txt").lines().filter_map(parse).collect());

fn parse(line: &'static str) -> Option<PgType> {
    let w: Vec<&'static str> = line.split(' ').collect();
    let [
        oid,
        name,
        array,
        len,
        by_value,
        kind,
        category,
        preferred,
        align,
        storage,
        elem,
        collation,
        input,
        output,
        receive,
        send,
        delimiter,
        modin,
        modout,
    ] = w[..]
    else {
        return None;
    };
    Some(PgType {
        oid: oid.parse().ok()?,
        name,
        array: array.parse().ok()?,
        len: len.parse().ok()?,
        by_value: by_value == "t",
        kind,
        category,
        preferred: preferred == "t",
        align,
        storage,
        elem: elem.parse().ok()?,
        collation: collation.parse().ok()?,
        functions: [input, output, receive, send],
        delimiter,
        typmod: [modin, modout],
    })
}

/// Finds a type by number.
pub fn by_oid(oid: u32) -> Option<&'static PgType> {
    TYPES.iter().find(|t| t.oid == oid)
}

/// Finds a type by any name that SQL has for it.
pub fn by_name(text: &str) -> Option<&'static PgType> {
    let text = text.trim();
    let text = text.strip_prefix("pg_catalog.").unwrap_or(text);
    let base = text.split('(').next().unwrap_or(text).trim().to_ascii_lowercase();
    if let Some(item) = base.strip_suffix("[]") {
        let item = by_name(item)?;
        return by_oid(item.array);
    }
    let alias = match base.trim_matches('"') {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" | "double" => "float8",
        "decimal" => "numeric",
        "character varying" | "varchar" => "varchar",
        "char" if base.starts_with('"') => "char",
        "char" | "character" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        other => other,
    };
    TYPES.iter().find(|t| t.name == alias)
}

/// What `pg_attribute.atttypmod` holds for a type.
pub fn typmod(of: &SqlType) -> i32 {
    match of {
        SqlType::Numeric { precision, scale } if (*precision, *scale) != millpond_common::types::NUMERIC_DEFAULT => {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        SqlType::Varchar(Some(n)) => i32::try_from(*n).unwrap_or(i32::MAX - 4) + 4,
        SqlType::Array(item) => typmod(item),
        _ => -1,
    }
}

/// `format_type`: a type's name as SQL writes it.
pub fn format(oid: u32, typmod: Option<i32>) -> String {
    if oid == 0 {
        return "-".into();
    }
    let Some(t) = by_oid(oid) else { return "???".into() };
    if t.category == "A" && t.elem != 0 && t.name.starts_with('_') {
        return format!("{}[]", format(t.elem, typmod));
    }
    let m = typmod.filter(|m| *m >= 4).map(|m| m - 4);
    match (t.name, m) {
        ("numeric", Some(m)) => format!("numeric({},{})", (m >> 16) & 0xffff, m & 0x7ff),
        ("varchar", Some(m)) => format!("character varying({m})"),
        ("bpchar", Some(m)) => format!("character({m})"),
        ("bpchar", None) => {
            if typmod.is_some() {
                "bpchar".into()
            } else {
                "character".into()
            }
        }
        ("timetz", _) => "time with time zone".into(),
        ("numeric", None) => "numeric".into(),
        _ => SqlType::from_oid(oid).map_or_else(|| t.name.to_string(), |s| s.name()),
    }
}
