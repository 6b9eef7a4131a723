//! INSERT, UPDATE, DELETE and TRUNCATE.
//!
//! A statement is bound ([`bind`], [`target`]), finds the rows that it concerns, locks them, makes sure that they are
//! still the newest, checks constraints, and leaves its net change in the [`Transaction`]. Nothing is stored before COMMIT.

mod bind;
mod conflict;
mod delete;
mod insert;
mod modify;
mod returning;
mod row_text;
mod source;
mod target;
mod update;

use arrow::array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use millpond_common::settings::Settings;
use millpond_common::{Error, Result, SqlType};
use millpond_sql::{Catalog, Planner, StatementKind};
use millpond_state::ReadView;

use self::bind::Binder;
use crate::cancel::Limits;
use crate::locks::Patience;
use crate::transaction::Transaction;

/// Runs a bound query, whose parameters have their values, over a view.
pub type RunQuery<'a> = dyn Fn(LogicalPlan, ReadView) -> BoxFuture<'a, Result<(SchemaRef, Vec<RecordBatch>)>> + Sync + 'a;

/// What a statement needs of its session.
#[derive(Clone, Copy)]
pub struct DmlContext<'a> {
    /// The relations.
    pub catalog: &'a Catalog,
    /// Names and types.
    pub planner: &'a Planner<'a>,
    /// The session's settings.
    pub settings: &'a Settings,
    /// What ends the statement early.
    pub limits: &'a Limits,
    /// Runs a query.
    pub run_query: &'a RunQuery<'a>,
}

impl DmlContext<'_> {
    fn patience(&self) -> Patience<'_> {
        Patience { lock_timeout: self.settings.duration("lock_timeout"), limits: self.limits }
    }

    fn rows_max(&self) -> i64 {
        self.settings.integer("transaction_rows_max")
    }

    /// Lets others run, and ends the statement if it should.
    async fn breathe(&self) -> Result<()> {
        tokio::task::yield_now().await;
        self.limits.cancel.check()
    }
}

/// What a statement has done.
pub struct DmlResult {
    /// The command tag.
    pub tag: String,
    /// The rows of RETURNING.
    pub returning: Option<(SchemaRef, Vec<RecordBatch>)>,
}

/// Runs a statement in a transaction. After an error the transaction can only be rolled back, whole or to a savepoint.
pub async fn execute(ctx: &DmlContext<'_>, txn: &mut Transaction, kind: &StatementKind, params: &[ArrayRef]) -> Result<DmlResult> {
    let binder = Binder::running(ctx.planner, ctx.catalog, params)?;
    match kind {
        StatementKind::Insert(statement) => insert::execute(ctx, txn, &binder, insert::bind(&binder, statement)?).await,
        StatementKind::Update(statement) => modify::execute(ctx, txn, &binder, update::bind(&binder, statement)?).await,
        StatementKind::Delete(statement) => modify::execute(ctx, txn, &binder, delete::bind(&binder, statement)?).await,
        StatementKind::Truncate { names, if_exists, .. } => delete::truncate(ctx, txn, &binder, names, *if_exists).await,
        _ => Err(Error::internal("not a statement that changes rows")),
    }
}

/// The types of a statement's parameters and the columns of its RETURNING. `given`: types that the client declared.
pub fn describe(
    planner: &Planner<'_>,
    catalog: &Catalog,
    kind: &StatementKind,
    given: &[Option<SqlType>],
) -> Result<(Vec<SqlType>, Option<SchemaRef>)> {
    let binder = Binder::describing(planner, catalog, given);
    let returning = match kind {
        StatementKind::Insert(statement) => insert::bind(&binder, statement)?.returning,
        StatementKind::Update(statement) => update::bind(&binder, statement)?.returning,
        StatementKind::Delete(statement) => delete::bind(&binder, statement)?.returning,
        StatementKind::Truncate { .. } => None,
        _ => return Err(Error::internal("not a statement that changes rows")),
    };
    let columns = returning.map(|r| r.schema());
    Ok((binder.parameter_types(), columns))
}
