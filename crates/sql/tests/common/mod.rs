//! A catalog to plan against, and statements run on it as far as SQL alone goes.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use millpond_common::{Error, Result, SqlType};
use millpond_sql::{Catalog, Planner, RelationKind, StatementKind, SystemRelations, ViewPlan, parse};

/// One system relation, to have one.
pub struct System;

impl SystemRelations for System {
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef> {
        let columns = match (schema, table) {
            ("pg_catalog", "pg_class") => vec![SqlType::Oid.field("oid", false), SqlType::Name.field("relname", false)],
            ("millpond", "jobs") => vec![SqlType::Text.field("name", false)],
            _ => return None,
        };
        Some(Arc::new(Schema::new(columns)))
    }
}

pub struct Database {
    pub catalog: Catalog,
    context: Arc<datafusion::prelude::SessionContext>,
}

/// Columns of the generator's sources.
fn nexmark(kind: &str) -> Vec<Field> {
    let columns: &[(&str, SqlType)] = match kind {
        "person" => &[
            ("id", SqlType::BigInt),
            ("name", SqlType::Text),
            ("email_address", SqlType::Text),
            ("credit_card", SqlType::Text),
            ("city", SqlType::Text),
            ("state", SqlType::Text),
            ("date_time", SqlType::Timestamp),
            ("extra", SqlType::Text),
        ],
        "auction" => &[
            ("id", SqlType::BigInt),
            ("item_name", SqlType::Text),
            ("description", SqlType::Text),
            ("initial_bid", SqlType::BigInt),
            ("reserve", SqlType::BigInt),
            ("date_time", SqlType::Timestamp),
            ("expires", SqlType::Timestamp),
            ("seller", SqlType::BigInt),
            ("category", SqlType::BigInt),
            ("extra", SqlType::Text),
        ],
        _ => &[
            ("auction", SqlType::BigInt),
            ("bidder", SqlType::BigInt),
            ("price", SqlType::BigInt),
            ("channel", SqlType::Text),
            ("url", SqlType::Text),
            ("date_time", SqlType::Timestamp),
            ("extra", SqlType::Text),
        ],
    };
    columns.iter().map(|(name, t)| t.field(name, false)).collect()
}

impl Database {
    pub fn new() -> Self {
        Database { catalog: Catalog::new(), context: Arc::new(millpond_sql::base_context()) }
    }

    /// With relations for most tests.
    pub fn sample() -> Self {
        let mut database = Database::new();
        database.run(
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b BIGINT, c TEXT, d NUMERIC(10,2), at TIMESTAMP, day DATE, f DOUBLE PRECISION);
             CREATE TABLE u (k INT NOT NULL, v TEXT, w NUMERIC);
             CREATE SOURCE s (id BIGINT, v TEXT, at TIMESTAMP, tags TEXT[]) WITH (connector = 'file', path = 'x') FORMAT PLAIN ENCODE JSON;
             CREATE VIEW plain AS SELECT id, a + 1 AS next, c FROM t;
             CREATE MATERIALIZED VIEW per_c AS SELECT c, count(*) AS n, sum(b) AS total FROM t GROUP BY c;",
        );
        database
    }

    pub fn planner(&self) -> Planner<'_> {
        Planner {
            catalog: &self.catalog,
            system: &System,
            context: self.context.clone(),
            search_path: vec!["public".into()],
            user: "me".into(),
            database: "dev".into(),
            now: chrono::Utc::now(),
            zone: millpond_common::text::zone::Zone::UTC,
            saved: None,
            at: None,
        }
    }

    /// Runs statements; panics on an error.
    pub fn run(&mut self, sql: &str) {
        for statement in parse(sql).unwrap() {
            self.execute(&statement.kind).unwrap_or_else(|e| panic!("{e}\n{}", statement.text));
        }
    }

    pub fn execute(&mut self, kind: &StatementKind) -> Result<Option<ViewPlan>> {
        let (new, plan) = match kind {
            StatementKind::CreateTable(c) => (millpond_sql::create_table(c, &self.planner())?, None),
            StatementKind::CreateSource(c) => {
                let mut new = millpond_sql::create_source(c, &self.planner())?;
                if let Some(kind) = c.options.get("type") {
                    new.columns = Arc::new(Schema::new(nexmark(kind)));
                }
                (new, None)
            }
            StatementKind::CreateView(c) => (millpond_sql::create_view(c, &self.planner())?, None),
            StatementKind::CreateMaterializedView(c) => {
                let (mut new, plan) = millpond_sql::create_materialized_view(c, &self.planner())?;
                if let RelationKind::MaterializedView { job, .. } = &mut new.kind {
                    *job = millpond_common::JobId(self.catalog.next_id());
                }
                (new, Some(plan))
            }
            StatementKind::Query(q) => {
                let bound = self.planner().plan_query(q, &[])?;
                self.planner().optimize(bound.plan)?;
                return Ok(None);
            }
            StatementKind::ExplainCreateMaterializedView(c) => {
                return Ok(Some(millpond_sql::create_materialized_view(c, &self.planner())?.1));
            }
            other => return Err(Error::internal(format!("not for this test: {other:?}"))),
        };
        self.catalog.add(new)?;
        Ok(plan)
    }

    /// The stream plan of a query, with the result's key and columns.
    pub fn plan(&mut self, query: &str) -> Result<ViewPlan> {
        let statement = parse(&format!("CREATE MATERIALIZED VIEW test_view AS {query}"))?.pop().unwrap();
        let StatementKind::CreateMaterializedView(create) = &statement.kind else { panic!("{query}") };
        Ok(millpond_sql::create_materialized_view(create, &self.planner())?.1)
    }

    /// The plan's text; its last line has key and columns.
    pub fn explain(&mut self, query: &str) -> String {
        let view = match self.plan(query) {
            Ok(view) => view,
            Err(e) => return format!("{e}\n"),
        };
        check(&view);
        let columns = view.schema.fields().iter().map(|f| format!("{} {}", f.name(), SqlType::of(f).name())).collect::<Vec<_>>();
        let text = view.plan.to_string();
        let text = self.catalog.relations().fold(text, |text, r| text.replace(&format!("relation={} ", r.id.0), &format!("{} ", r.name)));
        format!("{text}=> {} key={:?}{}\n", columns.join(", "), view.plan.key, if view.plan.append_only { " append-only" } else { "" })
    }
}

/// What the engine relies on.
fn check(view: &ViewPlan) {
    use millpond_plan::Operator;
    let nodes = &view.plan.nodes;
    for (at, node) in nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|i| *i < at), "inputs come first");
        for field in node.schema.fields() {
            let exact = SqlType::of(field).arrow().equals_datatype(field.data_type());
            assert!(exact || field.data_type() == &arrow_schema::DataType::UInt64, "{field:?} in {}", view.plan.describe(node));
        }
        let width = |port: usize| nodes[node.inputs[port]].schema.fields().len();
        match &node.operator {
            Operator::Project { exprs } => assert_eq!(exprs.len(), node.schema.fields().len()),
            Operator::Join { on, kind, .. } => {
                let left_only = matches!(kind, millpond_plan::JoinKind::LeftSemi | millpond_plan::JoinKind::LeftAnti);
                assert_eq!(node.schema.fields().len(), width(0) + if left_only { 0 } else { width(1) }, "{}", view.plan);
                for (l, r) in on {
                    let (l, r) = (nodes[node.inputs[0]].schema.field(*l), nodes[node.inputs[1]].schema.field(*r));
                    assert_eq!(l.data_type(), r.data_type());
                }
            }
            Operator::TopN { row_number, .. } => assert_eq!(node.schema.fields().len(), width(0) + usize::from(*row_number)),
            Operator::Aggregate { group, calls } => assert_eq!(node.schema.fields().len(), group.len() + calls.len()),
            Operator::Filter { .. } | Operator::Distinct => assert_eq!(node.schema.fields().len(), width(0)),
            _ => {}
        }
    }
    let root = nodes.last().unwrap();
    assert_eq!(root.schema, view.schema);
    // Every expression survives its stored form.
    let bytes = serde_json::to_vec(&view.plan).unwrap();
    let context = Arc::new(millpond_sql::base_context());
    let back: millpond_plan::StreamPlan = millpond_plan::with_functions(context, || serde_json::from_slice(&bytes)).unwrap();
    assert_eq!(back.to_string(), view.plan.to_string());
}
