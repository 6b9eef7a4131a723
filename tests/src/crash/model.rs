//! Random transactions, and what the tables must hold after them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use tokio_postgres::Client;

use crate::finding::Finding;
use crate::server::{describe, rows, run, value};

/// What the tables must hold: acknowledged transactions, and perhaps the one that was not answered.
pub(super) struct Model {
    tables: Tables,
    /// What they hold if the transaction on its way when the server died has happened.
    in_doubt: Option<Tables>,
    /// See [`super::Plan::large_rows`].
    large_rows: i64,
}

/// Rows by their first column.
type Rows = BTreeMap<i64, (i64, i64)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    accounts: Rows,
    notes: i64,
    /// Shared, as most transactions leave it alone.
    entries: Arc<Rows>,
}

impl Model {
    pub(super) fn new(large_rows: i64) -> Model {
        Model { tables: Tables::default(), in_doubt: None, large_rows }
    }

    /// Fills the large table, in some transactions.
    pub(super) async fn fill(&mut self, client: &Client) {
        const ROWS: i64 = 10_000;
        for from in (0..self.large_rows).step_by(ROWS as usize) {
            let to = (from + ROWS).min(self.large_rows);
            run(client, &insert(from..to, self.large_rows, Arc::make_mut(&mut self.tables.entries))).await;
        }
    }

    /// One transaction; false if the server is gone.
    pub(super) async fn transact(&mut self, client: &Client, random: &mut StdRng) -> bool {
        let mut next = self.tables.clone();
        let mut sql = String::from("BEGIN;");
        for _ in 0..random.random_range(1..5) {
            let id = random.random_range(0..60i64);
            match random.random_range(0..10) {
                0..4 => {
                    let (branch, balance) = (id % 7, random.random_range(0..500));
                    sql += &format!(
                        "INSERT INTO account VALUES ({id}, {branch}, {balance}) ON CONFLICT (id) DO UPDATE SET balance = excluded.balance;"
                    );
                    next.accounts.insert(id, (branch, balance));
                }
                4..7 => {
                    sql += &format!("UPDATE account SET balance = balance + 10 WHERE id BETWEEN {id} AND {};", id + 5);
                    next.accounts.range_mut(id..=id + 5).for_each(|(_, a)| a.1 += 10);
                }
                7 => {
                    sql += &format!("DELETE FROM account WHERE id = {id};");
                    next.accounts.remove(&id);
                }
                _ => {
                    sql += &format!("INSERT INTO note VALUES ({id}, 'seen'), (NULL, 'lost');");
                    next.notes += 2;
                }
            }
        }
        if self.large_rows > 0 && random.random_bool(0.4) {
            sql += &change(self.large_rows, Arc::make_mut(&mut next.entries), random);
        }
        sql += "COMMIT;";
        self.in_doubt = Some(next);
        if client.simple_query(&sql).await.is_err() {
            return false;
        }
        self.tables = self.in_doubt.take().expect("set above");
        true
    }

    pub(super) async fn compare(&mut self, client: &Client) -> Result<(), Finding> {
        let found = rows(client, "SELECT id, branch, balance FROM account").await.map_err(|e| Finding::Lost(describe(&e)))?;
        let number = |t: &Option<String>| t.as_ref().and_then(|t| t.parse::<i64>().ok()).unwrap_or(i64::MIN);
        let accounts = found.iter().map(|r| (number(&r[0]), (number(&r[1]), number(&r[2])))).collect::<Rows>();
        let notes = value(client, "SELECT count(*) FROM note").await.parse::<i64>().unwrap_or(-1);
        let entries = if self.large_rows > 0 { value(client, FINGERPRINT).await } else { fingerprint(&Rows::new()) };
        let is = |tables: &Tables| accounts == tables.accounts && notes == tables.notes && entries == fingerprint(&tables.entries);
        match self.in_doubt.take() {
            Some(doubtful) if is(&doubtful) => self.tables = doubtful,
            _ if is(&self.tables) => {}
            _ => {
                let ids = accounts.keys().chain(self.tables.accounts.keys()).collect::<BTreeSet<_>>();
                let pairs = ids.into_iter().map(|id| (id, accounts.get(id), self.tables.accounts.get(id)));
                let wrong = pairs.filter(|(_, found, expected)| found != expected).collect::<Vec<_>>();
                let (expected, large) = (self.tables.notes, fingerprint(&self.tables.entries));
                return Err(Finding::Lost(format!(
                    "account, found, expected: {wrong:?}; {notes} notes, expected {expected}; entries {entries}, expected {large}"
                )));
            }
        }
        Ok(())
    }
}

/// Two tables of the same fingerprint hold the same, as far as a test needs to know.
const FINGERPRINT: &str = "SELECT count(*) || ' ' || coalesce(sum(id * 31 + k * 17 + v), 0) || ' ' || coalesce(sum((id + 1) * (k + 7) % 65521 * (v + 1)), 0) FROM entry";

fn fingerprint(entries: &Rows) -> String {
    let of = |f: fn(i64, i64, i64) -> i64| entries.iter().map(|(id, (k, v))| f(*id, *k, *v)).sum::<i64>();
    let (one, two) = (of(|id, k, v| id * 31 + k * 17 + v), of(|id, k, v| (id + 1) * (k + 7) % 65521 * (v + 1)));
    format!("{} {one} {two}", entries.len())
}

/// Adds rows, or changes those that are there.
fn insert(ids: Range<i64>, large_rows: i64, entries: &mut Rows) -> String {
    for id in ids.clone() {
        let v = id * 31 % 1000;
        entries.entry(id).and_modify(|row| row.1 = v + 1).or_insert((id * 7919 % large_rows, v));
    }
    format!(
        "INSERT INTO entry SELECT i, i * 7919 % {large_rows}, i * 31 % 1000 FROM generate_series({}, {}) AS g(i) \
         ON CONFLICT (id) DO UPDATE SET v = excluded.v + 1;",
        ids.start,
        ids.end - 1
    )
}

/// Changes some hundred rows of the large table.
fn change(large_rows: i64, entries: &mut Rows, random: &mut StdRng) -> String {
    let from = random.random_range(0..large_rows);
    let to = (from + random.random_range(1..800)).min(large_rows);
    match random.random_range(0..10) {
        0..5 => insert(from..to, large_rows, entries),
        5..8 => {
            entries.range_mut(from..to).for_each(|(_, (k, v))| (*k, *v) = ((*k + 1) % large_rows, (*v * 3 + 1) % 1000));
            format!("UPDATE entry SET k = (k + 1) % {large_rows}, v = (v * 3 + 1) % 1000 WHERE id >= {from} AND id < {to};")
        }
        _ => {
            entries.retain(|id, _| !(from..to).contains(id));
            format!("DELETE FROM entry WHERE id >= {from} AND id < {to};")
        }
    }
}
