//! Statements and what they ask for.
#![allow(clippy::unwrap_used)]

use millpond_sql::parse;
use millpond_sql::statement::{CommentTarget, DropKind, FetchCount, Isolation, Name, ShowKind, StatementKind};

fn one(sql: &str) -> StatementKind {
    let mut statements = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.pop().unwrap().kind
}

/// The kind's debug text up to what holds a syntax tree.
fn text(sql: &str) -> String {
    format!("{:?}", one(sql))
}

#[test]
fn splitting_keeps_texts_and_positions() {
    let statements = parse("  SELECT 1 ;; -- a remark\n SELECT 'a;b'\n; ").unwrap();
    assert_eq!(statements.iter().map(|s| (s.text.as_str(), s.offset)).collect::<Vec<_>>(), vec![("SELECT 1", 2), ("SELECT 'a;b'", 27)]);
    assert!(parse(" ; -- nothing\n").unwrap().is_empty());
    let error = parse("SELECT 1;\nSELEKT 2").unwrap_err();
    assert_eq!((error.position(), error.message()), (Some(11), "syntax error at or near \"SELEKT\""));
    let error = parse("SELECT 'ä' FROM FROM").unwrap_err();
    assert_eq!(error.position(), Some(17));
}

#[test]
fn sessions_and_transactions() {
    assert!(matches!(one("BEGIN"), StatementKind::Begin { isolation: None, read_only: None }));
    let begin = one("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    assert!(matches!(begin, StatementKind::Begin { isolation: Some(Isolation::RepeatableRead), read_only: Some(true) }));
    assert!(matches!(one("END"), StatementKind::Commit { chain: false }));
    assert!(matches!(one("ABORT"), StatementKind::Rollback { chain: false }));
    assert!(matches!(one("SAVEPOINT a"), StatementKind::Savepoint(n) if n == "a"));
    assert!(matches!(one("ROLLBACK TO SAVEPOINT a"), StatementKind::RollbackTo(n) if n == "a"));
    assert!(matches!(one("RELEASE SAVEPOINT a"), StatementKind::Release(n) if n == "a"));
    let set = |sql: &str| match one(sql) {
        StatementKind::Set { name, value, local } => (name, value, local),
        other => panic!("{other:?}"),
    };
    assert_eq!(set("SET search_path TO a, \"B\""), ("search_path".into(), Some("a, B".into()), false));
    assert_eq!(set("SET LOCAL Consistency = 'relaxed'"), ("consistency".into(), Some("relaxed".into()), true));
    assert_eq!(set("SET TIME ZONE 'UTC'"), ("timezone".into(), Some("UTC".into()), false));
    assert_eq!(set("SET x = DEFAULT"), ("x".into(), None, false));
    assert_eq!(set("SET extra_float_digits = 3"), ("extra_float_digits".into(), Some("3".into()), false));
    assert!(matches!(one("RESET ALL"), StatementKind::Reset(None)));
    assert!(
        matches!(one("ALTER SYSTEM SET checkpoint_interval = '5s'"), StatementKind::AlterSystem { name, value: Some(v) } if name == "checkpoint_interval" && v == "5s")
    );
    assert!(matches!(one("FETCH 5 FROM c"), StatementKind::Fetch { count: FetchCount::Rows(5), .. }));
    assert!(matches!(one("MOVE 5 FROM c"), StatementKind::Fetch { count: FetchCount::Rows(5), skip: true, .. }));
    assert!(matches!(one("CLOSE ALL"), StatementKind::Close(None)));
    assert!(matches!(one("DEALLOCATE ALL"), StatementKind::Deallocate(None)));
    assert!(text("PREPARE p (int) AS SELECT $1").starts_with("Prepare { name: \"p\""));
    assert!(text("EXECUTE p (1)").starts_with("Execute { name: \"p\""));
    assert!(text("DECLARE c CURSOR FOR SELECT 1").starts_with("DeclareCursor { name: \"c\", hold: false"));
    assert!(matches!(one("CHECKPOINT"), StatementKind::Checkpoint));
    assert!(matches!(one("FLUSH"), StatementKind::Flush));
    assert!(matches!(one("VACUUM"), StatementKind::NoOperation("VACUUM")));
}

#[test]
fn shows() {
    let show = |sql: &str| match one(sql) {
        StatementKind::Show(kind) => kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(show("SHOW JOBS"), ShowKind::Jobs);
    assert_eq!(show("show materialized views"), ShowKind::MaterializedViews);
    assert_eq!(show("SHOW TABLES"), ShowKind::Tables);
    assert_eq!(show("SHOW server_version"), ShowKind::Variable("server_version".into()));
    assert_eq!(show("SHOW TRANSACTION ISOLATION LEVEL"), ShowKind::Variable("transaction_isolation".into()));
    assert_eq!(show("SHOW ALL"), ShowKind::All);
    assert!(parse("SHOW a b c").is_err());
}

#[test]
fn definitions() {
    let StatementKind::CreateMaterializedView(view) =
        one("CREATE MATERIALIZED VIEW IF NOT EXISTS s.v (a, b) AS\n  SELECT 1 AS x, 2 -- two\n  ")
    else {
        panic!()
    };
    assert_eq!((view.name.to_string(), view.if_not_exists, view.columns.len()), ("s.v".into(), true, 2));
    assert_eq!(view.query_text, "SELECT 1 AS x, 2");
    let StatementKind::CreateSource(source) = one(
        "CREATE SOURCE s (a INT) WITH (connector = 'file', path = 'x', follow = true, nexmark.rate = 5) FORMAT PLAIN ENCODE CSV (delimiter = ';')",
    ) else {
        panic!()
    };
    assert_eq!(source.options.get("follow").map(String::as_str), Some("true"));
    assert_eq!(source.options.get("nexmark.rate").map(String::as_str), Some("5"));
    assert_eq!(source.format.unwrap().options.get("delimiter").map(String::as_str), Some(";"));
    let StatementKind::Drop(drop) = one("DROP MATERIALIZED VIEW IF EXISTS a, b.c CASCADE") else { panic!() };
    assert_eq!((drop.kind, drop.if_exists, drop.cascade), (DropKind::MaterializedView, true, true));
    assert_eq!(drop.names.iter().map(Name::to_string).collect::<Vec<_>>(), vec!["a", "b.c"]);
    assert!(matches!(one("DROP SOURCE s"), StatementKind::Drop(d) if d.kind == DropKind::Source && !d.cascade));
    assert!(
        matches!(one("ALTER MATERIALIZED VIEW v RENAME TO w"), StatementKind::Rename { kind: DropKind::MaterializedView, new_name, .. } if new_name == "w")
    );
    let StatementKind::Comment { target, comment } = one("COMMENT ON COLUMN t.a IS 'x'") else { panic!() };
    assert_eq!(
        (target, comment),
        (CommentTarget::Column(Name { schema: None, name: "t".into(), position: 19 }, "a".into()), Some("x".into()))
    );
    assert!(
        matches!(one("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1"), StatementKind::ExplainCreateMaterializedView(v) if v.query_text == "SELECT 1")
    );
    assert!(matches!(one("EXPLAIN (ANALYZE, VERBOSE false) SELECT 1"), StatementKind::Explain { analyze: true, verbose: false, .. }));
    assert!(matches!(one("EXPLAIN ANALYZE SELECT 1"), StatementKind::Explain { analyze: true, .. }));
}
