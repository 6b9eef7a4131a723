//! Values through a real client: every type out and back, in the binary form that it uses, and in text.

use std::error::Error as StdError;
use std::fmt::Debug;

use bytes::BytesMut;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use postgres_types::{FromSql, FromSqlOwned, IsNull, ToSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use crate::fake::server;

async fn round_trip<T: ToSql + Sync + FromSqlOwned + PartialEq + Debug>(client: &Client, sql_type: &Type, value: T) {
    let row = client.query_one(&format!("echo {}", sql_type.oid()), &[&value]).await.unwrap();
    assert_eq!(row.columns()[0].type_(), sql_type);
    assert_eq!(row.get::<_, T>(0), value, "{sql_type}");
    let null = client.query_one(&format!("echo {}", sql_type.oid()), &[&None::<T>]).await.unwrap();
    assert_eq!(null.get::<_, Option<T>>(0), None, "{sql_type}");
}

/// Bytes as they are on the wire, of any type.
#[derive(Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Bytes(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Bytes {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres_types::to_sql_checked!();
}

#[tokio::test]
async fn every_type_in_binary() {
    let server = server().await;
    let client = server.client().await;
    let c = &client;
    for value in [true, false] {
        round_trip(c, &Type::BOOL, value).await;
    }
    for value in [0, 1, i16::MIN, i16::MAX] {
        round_trip(c, &Type::INT2, value).await;
    }
    for value in [0, -1, i32::MIN, i32::MAX] {
        round_trip(c, &Type::INT4, value).await;
    }
    for value in [0, -1, i64::MIN, i64::MAX] {
        round_trip(c, &Type::INT8, value).await;
    }
    round_trip(c, &Type::OID, u32::MAX).await;
    round_trip(c, &Type::CHAR, b'r' as i8).await;
    for value in [0.0, -1.5, f32::MAX, f32::INFINITY] {
        round_trip(c, &Type::FLOAT4, value).await;
    }
    for value in [0.0, 0.1, f64::MIN_POSITIVE, f64::NEG_INFINITY] {
        round_trip(c, &Type::FLOAT8, value).await;
    }
    for value in ["", "text", "é😀", "with \"quotes\", {braces} and \\"] {
        round_trip(c, &Type::TEXT, value.to_string()).await;
        round_trip(c, &Type::VARCHAR, value.to_string()).await;
        round_trip(c, &Type::NAME, value.to_string()).await;
    }
    round_trip(c, &Type::BYTEA, vec![0u8, 1, 255, b'\\']).await;
    round_trip(c, &Type::BYTEA, Vec::<u8>::new()).await;
    for (year, month, day) in [(2024, 2, 29), (1970, 1, 1), (1, 1, 1), (-43, 3, 15), (9999, 12, 31)] {
        let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        round_trip(c, &Type::DATE, date).await;
        let at: NaiveDateTime = date.and_hms_micro_opt(23, 59, 59, 999_999).unwrap();
        round_trip(c, &Type::TIMESTAMP, at).await;
        round_trip::<DateTime<Utc>>(c, &Type::TIMESTAMPTZ, at.and_utc()).await;
        round_trip::<NaiveTime>(c, &Type::TIME, at.time()).await;
    }
    round_trip(c, &Type::UUID, Uuid::from_u128(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11)).await;
    round_trip(c, &Type::JSON, serde_json::json!({"b": [1, 2.5, null], "a": "x"})).await;
    round_trip(c, &Type::JSONB, serde_json::json!({"b": [1, 2.5, null], "a": "x"})).await;
    // 12345.6789, −0.5 and 10^20 in base 10000; one day, two months and three seconds.
    for numeric in [
        &[0, 3, 0, 1, 0, 0, 0, 4, 0, 1, 9, 41, 26, 133][..],
        &[0, 1, 255, 255, 64, 0, 0, 1, 19, 136],
        &[0, 1, 0, 5, 0, 0, 0, 0, 0, 1],
        &[0; 8],
    ] {
        round_trip(c, &Type::NUMERIC, Bytes(numeric.to_vec())).await;
    }
    round_trip(c, &Type::INTERVAL, Bytes([&3_000_000i64.to_be_bytes()[..], &1i32.to_be_bytes(), &2i32.to_be_bytes()].concat())).await;
}

#[tokio::test]
async fn arrays_in_binary() {
    let server = server().await;
    let client = server.client().await;
    let c = &client;
    round_trip(c, &Type::INT4_ARRAY, vec![Some(1), None, Some(3)]).await;
    round_trip(c, &Type::INT4_ARRAY, Vec::<i32>::new()).await;
    round_trip(c, &Type::INT8_ARRAY, vec![i64::MIN, i64::MAX]).await;
    round_trip(c, &Type::TEXT_ARRAY, vec![Some("a".to_string()), None, Some(String::new()), Some("NULL".into())]).await;
    round_trip(c, &Type::VARCHAR_ARRAY, vec!["x".to_string()]).await;
    round_trip(c, &Type::BOOL_ARRAY, vec![true, false]).await;
    round_trip(c, &Type::FLOAT8_ARRAY, vec![0.1, -2.5]).await;
    round_trip(c, &Type::BYTEA_ARRAY, vec![vec![0u8, 255], vec![]]).await;
    round_trip(c, &Type::DATE_ARRAY, vec![NaiveDate::from_ymd_opt(2024, 2, 29).unwrap()]).await;
    round_trip(c, &Type::UUID_ARRAY, vec![Uuid::from_u128(7)]).await;
    round_trip(c, &Type::JSONB_ARRAY, vec![serde_json::json!([1])]).await;
}

#[tokio::test]
async fn simple_queries_give_text() {
    let server = server().await;
    let client = server.client().await;
    let messages = client.simple_query("rows 2; insert 4").await.unwrap();
    let rows: Vec<_> = messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => Some((row.get(0).unwrap(), row.get("t").unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(rows, [("0", "row 0"), ("1", "row 1")]);
    assert!(matches!(messages.last(), Some(SimpleQueryMessage::CommandComplete(4))));
}

#[tokio::test]
async fn large_results_and_large_values() {
    let server = server().await;
    let client = server.client().await;
    assert_eq!(client.query("rows 100000", &[]).await.unwrap().len(), 100_000);
    round_trip(&client, &Type::TEXT, "x".repeat(10 << 20)).await;
    round_trip(&client, &Type::INT4_ARRAY, (0..100_000).collect::<Vec<i32>>()).await;
}
