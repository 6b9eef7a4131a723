//! Statements as sessions hold them: parsed, perhaps bound, with the bound plan kept for the next execution.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow_schema::SchemaRef;
use millpond_common::text::zone::Zone;
use millpond_common::{Error, Result, SqlState, SqlType};
use millpond_sql::statement::ShowKind;
use millpond_sql::{BoundQuery, Catalog, RelationKind, StatementKind};
use parking_lot::Mutex;

use crate::aside::is_simple;
use crate::execution::Slot;
use crate::lookup::Lookup;
use crate::ready::{Lent, ReadyPlan};

/// A parsed statement; [`Session::prepare`](crate::Session::prepare) gives bound ones, whose parameters and columns are known.
pub struct Statement {
    pub(crate) parsed: Option<millpond_sql::Statement>,
    /// The command tag of its rows.
    pub(crate) tag: &'static str,
    pub(crate) parameters: Vec<SqlType>,
    pub(crate) columns: Option<SchemaRef>,
    /// Whether parameters and columns have been told to a client.
    pub(crate) bound: bool,
    plan: Mutex<Option<Kept>>,
}

/// A bound plan kept for the next execution.
struct Kept {
    key: PlanKey,
    plan: BoundQuery,
    /// If all it does is to read a row by its key.
    lookup: Option<Arc<Lookup>>,
    ready: Ready,
}

/// What is known of a physical plan for all executions.
enum Ready {
    /// Nothing yet.
    Unknown,
    /// There is none: every execution plans for itself.
    Never,
    There(Box<ReadyPlan>),
    /// Somebody executes the plan of this slot.
    Lent(Arc<Slot>),
}

/// What a bound plan depends on beside its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlanKey {
    /// The catalog's version.
    pub version: u64,
    /// Where names are looked up.
    pub search_path: Vec<String>,
    /// What moments without one are in.
    pub zone: Zone,
}

impl Statement {
    pub(crate) fn new(parsed: Option<millpond_sql::Statement>) -> Result<Self> {
        let (parsed, tag) = match parsed {
            Some(statement) => {
                let (statement, tag) = as_query(statement)?;
                (Some(statement), tag)
            }
            None => (None, "SELECT"),
        };
        Ok(Statement { parsed, tag, parameters: vec![], columns: None, bound: false, plan: Mutex::new(None) })
    }

    /// Whether it is planned at once, most likely.
    pub(crate) fn is_simple(&self) -> bool {
        self.parsed.as_ref().is_none_or(is_simple)
    }

    /// The types of `$1`, `$2`, …
    pub fn parameters(&self) -> &[SqlType] {
        &self.parameters
    }

    /// The columns of its result; `None` where it returns no rows. Known of bound statements only.
    pub fn columns(&self) -> Option<SchemaRef> {
        self.columns.clone()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.parsed.as_ref().map_or("", |s| s.text.as_str())
    }

    /// How many characters of the client's text stand before it.
    pub(crate) fn offset(&self) -> usize {
        self.parsed.as_ref().map_or(0, |s| s.offset)
    }

    pub(crate) fn cached_plan(&self, key: &PlanKey) -> Option<BoundQuery> {
        self.plan.lock().as_ref().filter(|k| k.key == *key).map(|k| k.plan.clone())
    }

    /// Not only the plan, but what is left of it when all it does is to read a row by its key.
    pub(crate) fn cached_lookup(&self, key: impl FnOnce() -> PlanKey) -> Option<Arc<Lookup>> {
        let kept = self.plan.lock();
        let Kept { key: found, lookup: Some(lookup), .. } = kept.as_ref()? else { return None };
        (*found == key()).then(|| Arc::clone(lookup))
    }

    /// The physical plan, if it is there and takes these parameters.
    pub(crate) fn lend(self: &Arc<Self>, key: impl FnOnce() -> PlanKey, parameters: &[ArrayRef]) -> Option<Lent> {
        let mut kept = self.plan.lock();
        let Kept { key: found, ready, .. } = kept.as_mut()?;
        let Ready::There(plan) = &*ready else { return None };
        if !plan.takes(parameters) || *found != key() {
            return None;
        }
        let lent = Ready::Lent(Arc::clone(plan.slot()));
        match std::mem::replace(ready, lent) {
            Ready::There(plan) => Some(Lent::new(self, *plan)),
            other => {
                *ready = other;
                None
            }
        }
    }

    /// A plan comes back from its execution.
    pub(crate) fn give_back(&self, plan: ReadyPlan) {
        if let Some(ready) = Self::lent(&mut self.plan.lock(), &plan) {
            *ready = Ready::There(Box::new(plan));
        }
    }

    /// A plan is not what it should be any more.
    pub(crate) fn forget_ready(&self, plan: &ReadyPlan) {
        if let Some(ready) = Self::lent(&mut self.plan.lock(), plan) {
            *ready = Ready::Unknown;
        }
    }

    /// Where a plan was lent from, if that is still so.
    fn lent<'a>(kept: &'a mut Option<Kept>, plan: &ReadyPlan) -> Option<&'a mut Ready> {
        let ready = &mut kept.as_mut()?.ready;
        matches!(ready, Ready::Lent(slot) if Arc::ptr_eq(slot, plan.slot())).then_some(ready)
    }

    /// Whether a physical plan should be made, as nobody has tried.
    pub(crate) fn wants_ready(&self, key: &PlanKey) -> bool {
        self.plan.lock().as_ref().is_some_and(|k| k.key == *key && matches!(k.ready, Ready::Unknown))
    }

    /// Keeps the physical plan, or that there is none.
    pub(crate) fn keep_ready(&self, key: &PlanKey, plan: Option<ReadyPlan>) {
        if let Some(kept) = self.plan.lock().as_mut().filter(|k| k.key == *key) {
            kept.ready = plan.map_or(Ready::Never, |plan| Ready::There(Box::new(plan)));
        }
    }

    /// Whether a physical plan is there, and nobody uses it.
    #[cfg(test)]
    pub(crate) fn has_ready(&self) -> bool {
        self.plan.lock().as_ref().is_some_and(|k| matches!(k.ready, Ready::There(_)))
    }

    /// Keeps a bound plan for the next execution, if it means the same then.
    pub(crate) fn keep_plan(&self, key: PlanKey, plan: &BoundQuery, catalog: &Catalog) {
        let view_is_timely = |r: &millpond_sql::catalog::Relation| matches!(&r.kind, RelationKind::View { sql, .. } if is_timely(sql));
        if self.bound && !is_timely(self.text()) && !catalog.relations().any(view_is_timely) {
            let lookup = Lookup::of(plan, catalog, key.zone).map(Arc::new);
            *self.plan.lock() = Some(Kept { key, plan: plan.clone(), lookup, ready: Ready::Unknown });
        }
    }

    /// Fails if a new plan gives other columns than the client was told of.
    pub(crate) fn check_columns(&self, columns: &SchemaRef) -> Result<()> {
        let Some(told) = self.columns.as_ref().filter(|_| self.bound) else { return Ok(()) };
        let types = |s: &SchemaRef| s.fields().iter().map(|f| SqlType::of(f)).collect::<Vec<_>>();
        if types(told) == types(columns) {
            return Ok(());
        }
        Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
            .with_hint("Prepare the statement again: what it reads was changed."))
    }
}

/// Whether a query's text names something that is a constant in its plan but differs with every execution.
fn is_timely(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    ["now", "current_", "localtime", "session_user", "timestamp", "'today'", "'yesterday'", "'tomorrow'"].iter().any(|w| sql.contains(w))
}

/// SHOW of a system relation is a query.
fn as_query(statement: millpond_sql::Statement) -> Result<(millpond_sql::Statement, &'static str)> {
    let sql = match &statement.kind {
        StatementKind::Show(ShowKind::Jobs) => "SELECT * FROM millpond.jobs",
        StatementKind::Show(ShowKind::Sources) => "SELECT * FROM millpond.sources",
        StatementKind::Show(ShowKind::Checkpoints) => "SELECT * FROM millpond.checkpoints",
        StatementKind::Show(ShowKind::Savepoints) => "SELECT * FROM millpond.savepoints",
        StatementKind::Show(_) => return Ok((statement, "SHOW")),
        StatementKind::Explain { .. } | StatementKind::ExplainCreateMaterializedView(_) => return Ok((statement, "EXPLAIN")),
        _ => return Ok((statement, "SELECT")),
    };
    let mut query = millpond_sql::parse(sql)?;
    let kind = query.pop().map(|q| q.kind).ok_or_else(|| Error::internal("a query has no statement"))?;
    Ok((millpond_sql::Statement { kind, ..statement }, "SHOW"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_time_is_not_kept() {
        assert!(is_timely("SELECT * FROM t WHERE at > NOW() - INTERVAL '1 hour'"));
        assert!(!is_timely("SELECT * FROM t WHERE id = $1"));
    }
}
