//! DELETE: names and types; how it runs is in [`super::modify`]. And TRUNCATE.

use millpond_common::{Error, Result, SqlState};
use millpond_sql::{Name, ast};
use millpond_state::Scan;

use super::bind::{Binder, has_subquery};
use super::modify::{Access, BoundModify};
use super::returning::Returning;
use super::target::Target;
use super::update::{condition, rows_query, written_table};
use super::{DmlContext, DmlResult};
use crate::locks::Mode;
use crate::transaction::Transaction;

/// Resolves names and types.
pub fn bind<'a>(binder: &Binder<'a>, delete: &ast::Delete) -> Result<BoundModify<'a>> {
    if !delete.order_by.is_empty() || delete.limit.is_some() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "DELETE takes no ORDER BY and no LIMIT"));
    }
    let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
    let [table] = from.as_slice() else {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "DELETE takes one table").with_hint("Name the other tables in USING."));
    };
    let target = written_table(binder, table, "delete from")?;
    let using = delete.using.as_deref().unwrap_or_default();
    let access = match !using.is_empty() || delete.selection.as_ref().is_some_and(has_subquery) {
        true => Access::Query(Box::new(binder.query_text(&rows_query(&target, table, using, delete.selection.as_ref(), &[]))?)),
        false => Access::Direct(condition(binder, &target, delete.selection.as_ref())?),
    };
    let returning = Returning::bind(binder, &target, delete.returning.as_ref())?;
    Ok(BoundModify { command: "DELETE", target, access, sets: None, returning })
}

/// Empties tables.
pub async fn truncate(
    ctx: &DmlContext<'_>,
    txn: &mut Transaction,
    binder: &Binder<'_>,
    names: &[Name],
    if_exists: bool,
) -> Result<DmlResult> {
    txn.check_writable("TRUNCATE TABLE")?;
    for name in names {
        let target = match Target::find(binder, name, None, "truncate") {
            Err(e) if if_exists && e.state() == SqlState::UNDEFINED_TABLE => continue,
            found => found?,
        };
        let id = target.spec().id;
        txn.lock_table(id, Mode::Exclusive, ctx.patience()).await?;
        // All rows, also those that a snapshot does not know.
        let mut rows = Vec::new();
        for batch in txn.with_own_changes(txn.newest_view()).scan(id, Scan::default())? {
            rows.push(batch?);
            ctx.breathe().await?;
        }
        for batch in &rows {
            txn.apply(&target.codec, Some(batch), None, ctx.rows_max())?;
        }
    }
    Ok(DmlResult { tag: "TRUNCATE TABLE".into(), returning: None })
}
