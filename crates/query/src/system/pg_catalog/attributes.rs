//! Columns and their defaults.

use millpond_common::SqlType;

use crate::system::facts::{ColumnFacts, Facts, Kind};
use crate::system::rows::{Rows, row};
use crate::system::types;

pub fn pg_attribute(facts: &Facts, rows: &mut Rows) {
    for r in facts.all_relations() {
        for (i, c) in r.columns.iter().enumerate() {
            attribute(rows, r.oid, i + 1, c, r.kind != Kind::Table);
        }
        if let Some(index) = r.index_oid() {
            for (i, c) in r.key.iter().filter_map(|k| r.columns.get(*k)).enumerate() {
                attribute(rows, index, i + 1, &ColumnFacts { default: None, nullable: true, ..c.clone() }, true);
            }
        }
    }
}

fn attribute(rows: &mut Rows, relation: u32, number: usize, c: &ColumnFacts, derived: bool) {
    let oid = c.sql_type.oid();
    let known = types::by_oid(oid);
    row!(rows;
        attrelid: relation, attname: &c.name, atttypid: oid, attstattarget: -1, attlen: known.map_or(-1, |t| t.len), attnum: number,
        attndims: i32::from(matches!(c.sql_type, SqlType::Array(_))), attcacheoff: -1, atttypmod: types::typmod(&c.sql_type),
        attbyval: known.is_some_and(|t| t.by_value), attalign: known.map_or("i", |t| t.align), attstorage: known.map_or("x", |t| t.storage),
        attnotnull: !c.nullable, atthasdef: c.default.is_some() && !derived, attislocal: true, attcollation: known.map_or(0, |t| t.collation),
    );
}

pub fn pg_attrdef(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| r.kind == Kind::Table) {
        for (i, c) in r.columns.iter().enumerate() {
            if let Some(default) = &c.default {
                // The expression is kept as its text; pg_get_expr gives it back.
                row!(rows; oid: (u32::try_from(i).unwrap_or(0) << 20) | r.oid | (1 << 31), adrelid: r.oid, adnum: i + 1, adbin: default);
            }
        }
    }
}
