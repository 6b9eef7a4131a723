//! Queries and their stream plans, as tables: `tests/plans.txt` has a query after each `>`, its plan below.
//! `UPDATE_PLANS=1` writes the file anew.
#![allow(clippy::unwrap_used)]

mod common;

use common::Database;

#[test]
fn queries_and_their_plans() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut database = Database::sample();
    let mut actual = String::new();
    for case in text.split("\n> ") {
        let Some(case) = case.strip_prefix("> ").or(Some(case)).filter(|c| !c.starts_with('#')) else {
            actual.push_str(case.trim_end());
            actual.push('\n');
            continue;
        };
        let query = case.lines().next().unwrap();
        actual.push_str(&format!("\n> {query}\n{}", database.explain(query)));
    }
    if std::env::var_os("UPDATE_PLANS").is_some() {
        std::fs::write(path, &actual).unwrap();
    } else {
        assert!(actual.trim() == text.trim(), "plans differ; see them with UPDATE_PLANS=1 and git diff\n{actual}");
    }
}

#[test]
fn nexmark_and_demo_plan() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/");
    let read = |name: &str| std::fs::read_to_string(format!("{root}{name}")).unwrap();
    let mut database = Database::new();
    database.run(&read("nexmark/sources.sql"));
    for n in [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 18, 19, 20, 22] {
        database.run(&read(&format!("nexmark/q{n}.sql")));
    }
    Database::new().run(&read("demo.sql"));
}
