//! Relations, their keys, and what belongs to them.

use crate::system::definitions;
use crate::system::facts::{self, Facts, Kind, ROLE, RelationFacts};
use crate::system::rows::{Rows, row};

/// The number of a system table such as `pg_class`, for `classoid`.
fn class(name: &str) -> u32 {
    definitions::find("pg_catalog", name).map_or(0, |d| d.oid)
}

/// `NULL` where there are none, as PostgreSQL has it.
fn options(relation: &RelationFacts) -> Option<Vec<String>> {
    let list: Vec<String> = relation.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    (!list.is_empty()).then_some(list)
}

pub fn pg_class(facts: &Facts, rows: &mut Rows) {
    for r in facts.all_relations() {
        let stored = matches!(r.kind, Kind::Table | Kind::MaterializedView);
        row!(rows;
            oid: r.oid, relname: &r.name, relnamespace: facts.schema_oid(&r.schema), relowner: ROLE,
            relam: if stored { facts::ACCESS_METHOD } else { 0 },
            relfilenode: if stored { r.oid } else { 0 },
            reltuples: r.rows.map_or(-1.0, |n| n as f64),
            relhasindex: r.index_oid().is_some(), relpersistence: "p", relkind: r.kind.letter(), relnatts: r.columns.len(),
            relhasrules: matches!(r.kind, Kind::View | Kind::MaterializedView), relispopulated: true,
            relreplident: if stored && !r.system { "d" } else { "n" },
        );
        if let Some(index) = r.index_oid() {
            row!(rows;
                oid: index, relname: r.index_name(), relnamespace: facts.schema_oid(&r.schema), relowner: ROLE, relam: facts::INDEX_METHOD,
                relfilenode: index, reltuples: r.rows.map_or(-1.0, |n| n as f64), relpersistence: "p", relkind: "i", relnatts: r.key.len(),
                relispopulated: true, relreplident: "n",
            );
        }
    }
}

pub fn pg_index(facts: &Facts, rows: &mut Rows) {
    for r in &facts.relations {
        let Some(index) = r.index_oid() else { continue };
        let n = r.key.len();
        row!(rows;
            indexrelid: index, indrelid: r.oid, indnatts: n, indnkeyatts: n, indisunique: true, indisprimary: true, indimmediate: true,
            indisvalid: true, indisready: true, indislive: true, indkey: r.key_positions(),
            indcollation: vec![0_i64; n], indclass: vec![0_i64; n], indoption: vec![0_i64; n],
        );
    }
}

pub fn pg_constraint(facts: &Facts, rows: &mut Rows) {
    for r in &facts.relations {
        let Some(index) = r.index_oid() else { continue };
        row!(rows;
            oid: index | (1 << 29), conname: r.index_name(), connamespace: facts.schema_oid(&r.schema), contype: "p", convalidated: true,
            conrelid: r.oid, conindid: index, confupdtype: " ", confdeltype: " ", confmatchtype: " ", conislocal: true, connoinherit: true,
            conkey: r.key_positions(),
        );
    }
}

pub fn pg_namespace(facts: &Facts, rows: &mut Rows) {
    for s in facts.all_schemas() {
        row!(rows; oid: s.oid, nspname: s.name, nspowner: ROLE);
    }
}

pub fn pg_description(facts: &Facts, rows: &mut Rows) {
    for s in facts.all_schemas() {
        if let Some(comment) = s.comment {
            row!(rows; objoid: s.oid, classoid: class("pg_namespace"), objsubid: 0, description: comment);
        }
    }
    for r in &facts.relations {
        if let Some(comment) = &r.comment {
            row!(rows; objoid: r.oid, classoid: class("pg_class"), objsubid: 0, description: comment);
        }
        for (i, c) in r.columns.iter().enumerate() {
            if let Some(comment) = &c.comment {
                row!(rows; objoid: r.oid, classoid: class("pg_class"), objsubid: i + 1, description: comment);
            }
        }
    }
}

/// A view depends on what it reads by way of its rule, as in PostgreSQL.
pub fn pg_depend(facts: &Facts, rows: &mut Rows) {
    for r in &facts.relations {
        for read in &r.reads {
            row!(rows; classid: class("pg_rewrite"), objid: rule(r), refclassid: class("pg_class"), refobjid: *read, deptype: "n");
        }
        if matches!(r.kind, Kind::View | Kind::MaterializedView) {
            row!(rows; classid: class("pg_rewrite"), objid: rule(r), refclassid: class("pg_class"), refobjid: r.oid, deptype: "i");
        }
        if let Some(index) = r.index_oid() {
            row!(rows; classid: class("pg_class"), objid: index, refclassid: class("pg_constraint"), refobjid: index | (1 << 29), deptype: "i");
        }
    }
}

fn rule(relation: &RelationFacts) -> u32 {
    relation.oid | (1 << 28)
}

pub fn pg_rewrite(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| matches!(r.kind, Kind::View | Kind::MaterializedView)) {
        row!(rows; oid: rule(r), rulename: "_RETURN", ev_class: r.oid, ev_type: "1", ev_enabled: "O", is_instead: true);
    }
}

pub fn pg_foreign_table(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| r.kind == Kind::Source) {
        row!(rows; ftrelid: r.oid, ftserver: facts::SERVER, ftoptions: options(r));
    }
}
