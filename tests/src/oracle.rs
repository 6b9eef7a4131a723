//! The batch oracle: a view equals its query, run once over the same inputs at the same epoch. One statement reads
//! both sides, and every statement reads all its relations at one epoch, so the comparison holds while data flows.

use tokio_postgres::Client;

use crate::server::{becomes, describe, rows};

/// Names of relations that cannot be read in batch (unbounded sources), each with a view that holds its rows.
pub type Copies<'a> = &'a [(&'a str, &'a str)];

/// Compares every materialized view with its query; returns how many were compared.
pub async fn check_all(client: &Client, copies: Copies<'_>) -> Result<usize, String> {
    // A kill in the first moments of a view makes it begin again after the restart.
    becomes(client, "SELECT count(*) FROM millpond.jobs WHERE state = 'BACKFILLING'", "0").await?;
    check_filled(client, copies).await
}

/// The same without those that are still being filled.
pub async fn check_filled(client: &Client, copies: Copies<'_>) -> Result<usize, String> {
    let list = "SELECT schemaname, matviewname, definition FROM pg_catalog.pg_matviews
        WHERE matviewname NOT IN (SELECT name FROM millpond.jobs WHERE state = 'BACKFILLING') ORDER BY 1, 2";
    let list = rows(client, list).await.map_err(|e| describe(&e))?;
    let mut compared = 0;
    for row in &list {
        let [Some(schema), Some(name), Some(definition)] = row.as_slice() else {
            return Err(format!("pg_matviews has a row with NULL: {row:?}"));
        };
        if copies.iter().any(|(_, copy)| copy == name) {
            continue;
        }
        check(client, &format!("\"{schema}\".\"{name}\""), definition, copies).await?;
        compared += 1;
    }
    Ok(compared)
}

/// Compares one view with its query.
pub async fn check(client: &Client, view: &str, definition: &str, copies: Copies<'_>) -> Result<(), String> {
    let mut definition = definition.to_string();
    for (source, copy) in copies {
        definition = replace_word(&definition, source, copy);
    }
    let all = rows(client, &both_sides(view, &definition)).await.map_err(|e| format!("{view}: {}\n{definition}", describe(&e)))?;
    compare(view, &definition, all)
}

/// The statement that reads a view's rows, marked with 0, and those of its query, marked with 1.
pub fn both_sides(view: &str, definition: &str) -> String {
    let definition = definition.trim().trim_end_matches(';');
    format!("SELECT 0 AS side, v.* FROM {view} AS v UNION ALL SELECT 1 AS side, q.* FROM ({definition}) AS q")
}

/// Compares the rows of the two sides.
pub fn compare(view: &str, definition: &str, all: Vec<Vec<Option<String>>>) -> Result<(), String> {
    let (mut streamed, mut batch) = (Vec::new(), Vec::new());
    for mut row in all {
        let side = row.remove(0);
        if side.as_deref() == Some("0") { &mut streamed } else { &mut batch }.push(row);
    }
    streamed.sort();
    batch.sort();
    if equal(&streamed, &batch) {
        return Ok(());
    }
    let only = |a: &[Vec<Option<String>>], b: &[Vec<Option<String>>]| {
        a.iter().filter(|r| b.binary_search(r).is_err()).take(5).cloned().collect::<Vec<_>>()
    };
    Err(format!(
        "{view} differs from its query: {} rows, expected {}\nonly in the view: {:?}\nonly in the query: {:?}\n{definition}",
        streamed.len(),
        batch.len(),
        only(&streamed, &batch),
        only(&batch, &streamed)
    ))
}

/// Equal texts, or floats that differ by no more than the order of a batch sum explains.
fn equal(a: &[Vec<Option<String>>], b: &[Vec<Option<String>>]) -> bool {
    let same = |x: &Option<String>, y: &Option<String>| {
        x == y
            || match (x.as_ref().and_then(|t| t.parse::<f64>().ok()), y.as_ref().and_then(|t| t.parse::<f64>().ok())) {
                (Some(p), Some(q)) if is_float(x) || is_float(y) => (p - q).abs() <= 1e-9 * p.abs().max(q.abs()),
                _ => false,
            }
    };
    a.len() == b.len() && a.iter().zip(b).all(|(r, s)| r.len() == s.len() && r.iter().zip(s).all(|(x, y)| same(x, y)))
}

/// Long decimal fractions: sums of floats, whose last digits depend on the order of addition in batch.
fn is_float(text: &Option<String>) -> bool {
    text.as_deref().is_some_and(|t| t.contains('e') || t.split_once('.').is_some_and(|(_, f)| f.len() > 10 && !f.ends_with("000")))
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let before = rest[..at].chars().next_back().is_some_and(|c| is_part(c) || c == '.');
        let after = rest[at + word.len()..].chars().next().is_some_and(is_part);
        out.push_str(&rest[..at]);
        out.push_str(if before || after { word } else { by });
        rest = &rest[at + word.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_whole() {
        assert_eq!(
            replace_word("SELECT bid.price, x.bid FROM bid, my_bid, bids", "bid", "b"),
            "SELECT b.price, x.bid FROM b, my_bid, bids"
        );
    }

    #[test]
    fn only_float_noise_is_forgiven() {
        let row = |t: &str| vec![vec![Some(t.to_string())]];
        assert!(equal(&row("0.30000000000000004"), &row("0.30000000000000002")));
        assert!(!equal(&row("1000000000001"), &row("1000000000002")));
        assert!(!equal(&row("1.5"), &row("1.6")));
    }
}
