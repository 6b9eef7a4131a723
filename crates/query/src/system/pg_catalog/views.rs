//! The views that show relations by name.

use crate::system::facts::{Facts, Kind, RelationFacts, quote_ident};
use crate::system::rows::{Rows, row};

fn of(facts: &Facts, kind: Kind) -> impl Iterator<Item = &RelationFacts> {
    facts.all_relations().filter(move |r| r.kind == kind)
}

/// A view's query as `pg_get_viewdef` prints it.
pub fn view_definition(relation: &RelationFacts) -> Option<String> {
    relation.definition.as_ref().map(|sql| format!(" {};", sql.trim().trim_end_matches(';').trim_end()))
}

/// A primary key's index as `pg_get_indexdef` prints it.
pub fn index_definition(relation: &RelationFacts) -> String {
    format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        quote_ident(&relation.index_name()),
        quote_ident(&relation.schema),
        quote_ident(&relation.name),
        relation.key_list()
    )
}

pub fn pg_tables(facts: &Facts, rows: &mut Rows) {
    for r in of(facts, Kind::Table) {
        row!(rows;
            schemaname: &r.schema, tablename: &r.name, tableowner: &facts.user, hasindexes: r.index_oid().is_some(), hasrules: false,
            hastriggers: false, rowsecurity: false,
        );
    }
}

pub fn pg_views(facts: &Facts, rows: &mut Rows) {
    for r in of(facts, Kind::View) {
        row!(rows; schemaname: &r.schema, viewname: &r.name, viewowner: &facts.user, definition: view_definition(r));
    }
}

pub fn pg_matviews(facts: &Facts, rows: &mut Rows) {
    for r in of(facts, Kind::MaterializedView) {
        row!(rows;
            schemaname: &r.schema, matviewname: &r.name, matviewowner: &facts.user, hasindexes: false, ispopulated: true,
            definition: view_definition(r),
        );
    }
}

pub fn pg_indexes(facts: &Facts, rows: &mut Rows) {
    for r in facts.relations.iter().filter(|r| r.index_oid().is_some()) {
        row!(rows; schemaname: &r.schema, tablename: &r.name, indexname: r.index_name(), indexdef: index_definition(r));
    }
}

pub fn pg_stat_tables(facts: &Facts, rows: &mut Rows, system: bool) {
    for r in facts.all_relations().filter(|r| matches!(r.kind, Kind::Table | Kind::MaterializedView) && (system || !r.system)) {
        row!(rows; relid: r.oid, schemaname: &r.schema, relname: &r.name, n_live_tup: r.rows, n_dead_tup: 0);
    }
}
