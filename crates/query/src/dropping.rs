//! DROP waits for the transactions that write to its tables, and holds others up that want to.

use std::collections::BTreeSet;
use std::sync::Arc;

use millpond_common::{RelationId, Result};
use millpond_sql::statement::DropKind;
use millpond_sql::{RelationKind, StatementKind};

use crate::database::Database;
use crate::locks::{Mode, Patience};
use crate::session::Scope;
use crate::transaction::{Isolation, Transaction};

/// Tables that nobody else writes to, until this is dropped.
pub(crate) struct Claimed {
    tables: BTreeSet<RelationId>,
    _locks: Transaction,
}

impl Claimed {
    /// Locks tables.
    pub async fn lock(database: &Arc<Database>, tables: BTreeSet<RelationId>, patience: Patience<'_>) -> Result<Claimed> {
        let mut locks = Transaction::begin(&database.transactions, &database.store, Isolation::ReadCommitted, false);
        for table in &tables {
            // One that was dropped meanwhile is found missing by the statement itself.
            locks.wait_for_table(*table, Mode::Exclusive, patience).await?;
        }
        Ok(Claimed { tables, _locks: locks })
    }

    /// Whether these are among them.
    pub fn has(&self, tables: &BTreeSet<RelationId>) -> bool {
        tables.is_subset(&self.tables)
    }
}

/// The tables that a statement takes away as the catalog is; none if it is no DROP, or one that cannot succeed.
pub(crate) fn dropped_tables(kind: &StatementKind, scope: &Scope) -> BTreeSet<RelationId> {
    let StatementKind::Drop(drop) = kind else { return BTreeSet::new() };
    let catalog = &scope.catalog;
    let named = drop.names.iter().flat_map(|name| match drop.kind {
        DropKind::Schema => catalog.relations_in(&name.name),
        _ => catalog.find(name, &scope.search_path).into_iter().map(|r| r.id).collect(),
    });
    let all = catalog.drop_set(&named.collect::<Vec<_>>(), drop.cascade).unwrap_or_default();
    all.into_iter().filter(|id| catalog.get(*id).is_some_and(|r| matches!(r.kind, RelationKind::Table(_)))).collect()
}
