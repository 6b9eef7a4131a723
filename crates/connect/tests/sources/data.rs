//! The sample data in `data/` comes from here. `MILLPOND_WRITE_DATA=1 cargo test -p millpond-connect data` writes it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use millpond_common::SqlType::*;
use millpond_connect::Encode;
use millpond_connect::nexmark::generator::{below, mix};

use crate::support::{Source, map, numeric, schema};

const ACCOUNTS: u64 = 200;
const TRANSACTIONS: u64 = 5000;
const FIRST_NAMES: [&str; 12] = ["Ana", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Keiko", "Liam"];
const LAST_NAMES: [&str; 12] =
    ["Almeida", "Bergström", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ito", "Jansen", "Kowalski", "Lopes"];
const BRANCHES: [&str; 6] = ["Lisbon", "Porto", "Zürich", "Lyon", "Gdansk", "Oslo"];
const CURRENCIES: [&str; 4] = ["EUR", "EUR", "USD", "CHF"];
const MERCHANTS: [&str; 12] = [
    "Corner Bakery",
    "Harbour Books",
    "Metro Tickets",
    "Northern Power",
    "Old Town Pharmacy",
    "Parcel & Post",
    "River Cinema",
    "Smith, Jones & Co.",
    "Sunny Side Cafe",
    "The \"Blue\" Bar",
    "Top Fuel",
    "Village Market",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        below(mix(self.0), limit)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

fn field(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

fn accounts() -> String {
    let mut random = Random(1);
    let mut out = "account_id,owner,branch,opened\n".to_string();
    for account in 0..ACCOUNTS {
        let owner = format!("{}, {}", random.pick(&LAST_NAMES), random.pick(&FIRST_NAMES));
        let branch = if random.below(40) == 0 { "" } else { random.pick(&BRANCHES) };
        let opened = format!("20{:02}-{:02}-{:02}", 5 + random.below(19), 1 + random.below(12), 1 + random.below(28));
        writeln!(out, "{},{},{branch},{opened}", 1001 + account, field(&owner)).unwrap();
    }
    out
}

fn transactions() -> String {
    let mut random = Random(2);
    let mut out = "transaction_id,account_id,amount,currency,at,kind,merchant\n".to_string();
    let mut second = 0;
    for transaction in 0..TRANSACTIONS {
        // a few accounts have most of the traffic, and a few transactions are of accounts that nobody knows
        let account = match random.below(200) {
            0 => 9001 + random.below(3),
            1..80 => 1001 + random.below(20),
            _ => 1001 + random.below(ACCOUNTS),
        };
        let kind =
            ["card", "card", "card", "card", "card", "transfer", "transfer", "deposit", "withdrawal", "fee"][random.below(10) as usize];
        let cents = match kind {
            "fee" => 50 + random.below(950),
            "deposit" => 10_000 + random.below(500_000),
            "withdrawal" => 1000 * (2 + random.below(40)),
            _ => 100 + random.below(30) * random.below(3000),
        };
        let sign = if kind == "deposit" || (kind == "transfer" && random.below(2) == 0) { "" } else { "-" };
        let amount = if random.below(100) == 0 { String::new() } else { format!("{sign}{}.{:02}", cents / 100, cents % 100) };
        let merchant = if kind == "card" && random.below(50) > 0 { random.pick(&MERCHANTS) } else { "" };
        second += random.below(3000);
        let (day, clock) = (second / 86_400, second % 86_400);
        let (month, day) = [(1, 31), (2, 29), (3, 31), (4, 30)].into_iter().fold((0, day), |(month, left), (number, days)| match month {
            0 if left < days => (number, left),
            0 => (0, left - days),
            found => (found, left),
        });
        let at = format!("2024-{month:02}-{:02} {:02}:{:02}:{:02}", day + 1, clock / 3600, clock / 60 % 60, clock % 60);
        let currency = random.pick(&CURRENCIES);
        writeln!(out, "{},{account},{amount},{currency},{at},{kind},{}", 100_001 + transaction, field(merchant)).unwrap();
    }
    out
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(name)
}

#[test]
fn the_files_are_what_this_makes() {
    for (name, text) in [("accounts.csv", accounts()), ("transactions.csv", transactions())] {
        if std::env::var_os("MILLPOND_WRITE_DATA").is_some() {
            std::fs::write(path(name), &text).unwrap();
        }
        let stored = std::fs::read_to_string(path(name)).unwrap();
        assert!(stored == text, "data/{name} differs; write it anew with MILLPOND_WRITE_DATA=1");
    }
}

#[test]
fn the_files_can_be_read() {
    let source = |name: &str, columns: &[_]| Source {
        options: map(&[("connector", "file"), ("path", &path(name).display().to_string())]),
        format: millpond_connect::FormatSpec { encode: Some(Encode::csv()) },
        schema: schema(columns),
    };
    let accounts = source("accounts.csv", &[("account_id", BigInt), ("owner", Text), ("branch", Text), ("opened", Date)]);
    assert_eq!(accounts.rows().len(), ACCOUNTS as usize);
    let transactions = source(
        "transactions.csv",
        &[
            ("transaction_id", BigInt),
            ("account_id", BigInt),
            ("amount", numeric(12, 2)),
            ("currency", Text),
            ("at", Timestamp),
            ("kind", Text),
            ("merchant", Text),
        ],
    );
    assert_eq!(transactions.rows().len(), TRANSACTIONS as usize);
    let missing = transactions.columns(&[2]).iter().filter(|a| *a == "∅").count();
    assert!((20..100).contains(&missing), "{missing}");
}
