//! Values compared with what PostgreSQL 15 answers: `postgres15.tsv` has type, input, its text, its binary form,
//! or the SQLSTATE and message of its refusal, in the form of COPY.
//!
//! Known to differ, and not in the file: doubles halfway between two shortest texts (1e23, which PostgreSQL prints as
//! 9.999999999999999e+22), timestamps of the last weeks of 294276, which microseconds since 1970 do not reach, and
//! texts too long for varchar(n), which PostgreSQL's explicit casts cut off.

use millpond_common::SqlType;
use millpond_common::column::Column;
use millpond_common::text::decode::ColumnBuilder;
use millpond_wire::binary::{FromBinary, ToBinary};

fn sql_type(name: &str) -> SqlType {
    if let Some(item) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(sql_type(item)));
    }
    match name {
        "boolean" | "bool" => SqlType::Boolean,
        "smallint" => SqlType::SmallInt,
        "integer" | "int4" => SqlType::Integer,
        "bigint" => SqlType::BigInt,
        "oid" => SqlType::Oid,
        "real" => SqlType::Real,
        "double precision" | "float8" => SqlType::Double,
        "numeric(12,2)" => SqlType::Numeric { precision: 12, scale: 2 },
        "numeric(8,2)" => SqlType::Numeric { precision: 8, scale: 2 },
        "numeric(38,0)" => SqlType::Numeric { precision: 38, scale: 0 },
        "numeric(20,6)" => SqlType::Numeric { precision: 20, scale: 6 },
        "text" => SqlType::Text,
        "varchar(5)" => SqlType::Varchar(Some(5)),
        "name" => SqlType::Name,
        "\"char\"" => SqlType::Char,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        other => panic!("no such type: {other}"),
    }
}

/// A field of COPY's text form.
fn unescape(field: &str) -> Option<String> {
    if field == "\\N" {
        return None;
    }
    let mut text = String::new();
    let mut characters = field.chars();
    while let Some(c) = characters.next() {
        text.push(if c == '\\' {
            match characters.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                c => c,
            }
        } else {
            c
        });
    }
    Some(text)
}

/// The text and the hexadecimal binary form of a value, which went through an Arrow column.
fn written(builder: ColumnBuilder, sql: &SqlType) -> (String, String) {
    let column = Column::new(&builder.finish().unwrap(), sql).unwrap();
    let (mut text, mut binary) = (bytes::BytesMut::new(), bytes::BytesMut::new());
    column.put_text(0, &mut text);
    column.put_binary(0, &mut binary).unwrap();
    (String::from_utf8(text.to_vec()).unwrap(), binary.iter().map(|b| format!("{b:02x}")).collect())
}

fn check(line: &str) -> Result<(), String> {
    let fields: Vec<_> = line.split('\t').map(unescape).collect();
    let [Some(type_name), Some(input), text, binary, state, message] = &fields[..] else { panic!("six fields: {line}") };
    let sql = sql_type(type_name);
    let mut builder = ColumnBuilder::new(&sql);
    let result = builder.append_text(input);
    match (result, state) {
        (Err(error), Some(state)) => {
            let about_syntax = state == "22P02" && !type_name.contains('"') && !type_name.ends_with("[]");
            if error.state().0 != state || (about_syntax && Some(error.message()) != message.as_deref()) {
                return Err(format!("{error:?} instead of {state} {message:?}"));
            }
        }
        (Ok(()), None) => {
            let (expected_text, expected_binary) = (text.as_deref().unwrap(), binary.as_deref().unwrap());
            let found = written(builder, &sql);
            if found != (expected_text.to_string(), expected_binary.to_string()) {
                return Err(format!("{found:?} instead of {expected_text:?} {expected_binary}"));
            }
            let bytes: Vec<u8> =
                (0..expected_binary.len() / 2).map(|i| u8::from_str_radix(&expected_binary[2 * i..2 * i + 2], 16).unwrap()).collect();
            let mut builder = ColumnBuilder::new(&sql);
            builder.append_binary(&bytes).map_err(|e| format!("from binary: {e}"))?;
            let found = written(builder, &sql);
            if found != (expected_text.to_string(), expected_binary.to_string()) {
                return Err(format!("from binary: {found:?}"));
            }
        }
        (Ok(()), Some(state)) => return Err(format!("{:?} instead of {state} {message:?}", written(builder, &sql))),
        (Err(error), None) => return Err(format!("{error:?} instead of {text:?}")),
    }
    Ok(())
}

#[test]
fn as_postgresql_15() {
    let lines: Vec<_> = include_str!("postgres15.tsv").lines().collect();
    let wrong: Vec<_> = lines.iter().filter_map(|line| check(line).err().map(|e| format!("{line}\n    {e}"))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

/// Binary values cut short at any byte, and with any byte changed, are refused or read, never worse.
#[test]
fn damaged_binary_values() {
    for line in include_str!("postgres15.tsv").lines() {
        let fields: Vec<_> = line.split('\t').map(unescape).collect();
        let (Some(type_name), Some(binary)) = (&fields[0], &fields[3]) else { continue };
        let sql = sql_type(type_name);
        let bytes: Vec<u8> = (0..binary.len() / 2).map(|i| u8::from_str_radix(&binary[2 * i..2 * i + 2], 16).unwrap()).collect();
        for cut in 0..bytes.len() {
            let _ = ColumnBuilder::new(&sql).append_binary(&bytes[..cut]);
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[cut] = value;
                let _ = ColumnBuilder::new(&sql).append_binary(&changed);
            }
        }
    }
}
