//! What UPDATE and DELETE have in common: finding rows, locking them, making sure that they are still the newest, and
//! replacing them.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow_row::Rows;
use datafusion::logical_expr::Expr;
use hashbrown::{HashMap, HashSet};
use millpond_common::{Error, Result, RowCodec, SqlState};
use millpond_sql::BoundQuery;
use millpond_state::{KeyRange, ReadView, Scan};

use super::bind::{Binder, Evaluator};
use super::returning::{Returned, Returning};
use super::source::{numbered, with_numbers};
use super::target::Target;
use super::{DmlContext, DmlResult};
use crate::keys::{KeyFilter, Wanted};
use crate::locks::Mode;
use crate::transaction::{Isolation, Transaction, serialization_failure};

/// How often a statement starts over because others changed its rows before it had locked them. Rows once locked stay as
/// they are, so this many means that new rows keep turning up.
const ATTEMPTS_MAX: usize = 1000;

/// How the rows to be changed are found.
pub enum Access {
    /// By a condition on the table's own columns.
    Direct(Option<Expr>),
    /// By a query, whose first columns are those of the table.
    Query(Box<BoundQuery>),
}

/// A bound UPDATE or DELETE.
pub struct BoundModify<'a> {
    /// `UPDATE` or `DELETE`.
    pub command: &'static str,
    /// The table.
    pub target: Target<'a>,
    /// How the rows are found.
    pub access: Access,
    /// What is assigned to which column: over the table's columns or, for [`Access::Query`], the query's. DELETE has none.
    pub sets: Option<Vec<(usize, Expr)>>,
    /// RETURNING
    pub returning: Option<Returning>,
}

/// Runs a bound UPDATE or DELETE.
pub async fn execute(ctx: &DmlContext<'_>, txn: &mut Transaction, binder: &Binder<'_>, modify: BoundModify<'_>) -> Result<DmlResult> {
    txn.check_writable(modify.command)?;
    let target = &modify.target;
    let mode = if target.codec.keyed() { Mode::Rows } else { Mode::Existing };
    let finder = Finder::new(ctx, binder, &modify)?;
    let checks = target.checks(binder)?;
    let mut returned = modify.returning.as_ref().map(|r| r.compile(binder)).transpose()?;
    txn.lock_table(target.spec().id, mode, ctx.patience()).await?;
    let (old, new) = settle(ctx, txn, target, &finder).await?;
    if let Some(new) = &new {
        checks.check(new)?;
    }
    replace(ctx, txn, target, &old, new.as_ref()).await?;
    let count = old.num_rows() as u64;
    if let Some(returned) = &mut returned
        && count > 0
    {
        returned.add(new.as_ref().unwrap_or(&old))?;
    }
    Ok(DmlResult { tag: format!("{} {count}", modify.command), returning: returned.map(Returned::finish) })
}

/// Finds the rows and locks them. When that is done they are the newest: where others have been faster, the statement
/// looks again, so that its condition and its assignments are evaluated on what they left.
async fn settle(
    ctx: &DmlContext<'_>,
    txn: &mut Transaction,
    target: &Target<'_>,
    finder: &Finder<'_, '_>,
) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let codec = &target.codec;
    for _ in 0..ATTEMPTS_MAX {
        let commits = txn.commits();
        let (old, new) = finder.find(txn, &txn.base_view()).await?;
        if old.num_rows() == 0 {
            return Ok((old, new));
        }
        if !codec.keyed() {
            check_snapshot_of_multiset(txn, target, &old)?;
            return Ok((old, new));
        }
        let keys = codec.encode_rows(&old)?;
        let waited = txn.lock_rows(target.spec().id, &keys, ctx.patience()).await?;
        if txn.isolation() == Isolation::ReadCommitted && !waited && txn.commits() == commits {
            return Ok((old, new));
        }
        let newest = txn.find(codec, &txn.newest_view(), &codec.keys_of(&old)?, &keys)?.in_order()?;
        if same_rows(&old, &newest)? {
            return Ok((old, new));
        }
        if txn.isolation() == Isolation::RepeatableRead {
            return Err(serialization_failure());
        }
        ctx.breathe().await?;
    }
    Err(Error::new(SqlState::SERIALIZATION_FAILURE, "could not get hold of rows that others keep changing")
        .with_hint("Run the transaction again."))
}

/// Whether two batches of one table hold the same rows in the same order.
fn same_rows(a: &RecordBatch, b: &RecordBatch) -> Result<bool> {
    if a.num_rows() != b.num_rows() {
        return Ok(false);
    }
    let codec = RowCodec::new(a.schema())?;
    let (a, b) = (codec.encode_batch(a)?, codec.encode_batch(b)?);
    Ok(a.iter().zip(b.iter()).all(|(a, b)| a == b))
}

/// Under REPEATABLE READ, fails if rows (locked, the newest) are not what the transaction's snapshot holds.
pub fn check_snapshot(txn: &Transaction, target: &Target<'_>, newest: &RecordBatch) -> Result<()> {
    if txn.isolation() == Isolation::ReadCommitted || newest.num_rows() == 0 {
        return Ok(());
    }
    let codec = &target.codec;
    let seen = txn.find(codec, &txn.base_view(), &codec.keys_of(newest)?, &codec.encode_rows(newest)?)?.in_order()?;
    if same_rows(newest, &seen)? { Ok(()) } else { Err(serialization_failure()) }
}

fn check_snapshot_of_multiset(txn: &Transaction, target: &Target<'_>, rows: &RecordBatch) -> Result<()> {
    if txn.isolation() == Isolation::ReadCommitted {
        return Ok(());
    }
    let id = target.spec().id;
    let (distinct, _) = distinct(rows, &target.codec.encode_rows(rows)?)?;
    let (seen, newest) = (txn.base_view().lookup(id, &distinct)?, txn.newest_view().lookup(id, &distinct)?);
    if same_rows(&seen, &newest)? { Ok(()) } else { Err(serialization_failure()) }
}

/// The first of each group of rows with equal keys, and their places.
fn distinct(rows: &RecordBatch, keys: &Rows) -> Result<(RecordBatch, UInt32Array)> {
    let mut seen = HashSet::with_capacity(keys.num_rows());
    let first = keys.iter().enumerate().filter(|(_, key)| seen.insert(key.data())).map(|(i, _)| i as u32);
    let places = UInt32Array::from_iter_values(first);
    match places.len() == rows.num_rows() {
        true => Ok((rows.clone(), places)),
        false => Ok((take_record_batch(rows, &places)?, places)),
    }
}

/// The rows as assignments leave them. `input` has what the assignments are evaluated over, row by row.
pub fn assigned(target: &Target<'_>, old: &RecordBatch, input: &RecordBatch, sets: &[(usize, Evaluator)]) -> Result<RecordBatch> {
    let mut columns = old.columns().to_vec();
    for (column, evaluator) in sets {
        if let Some(place) = columns.get_mut(*column) {
            *place = evaluator.evaluate(input)?;
        }
    }
    target.rows(columns)
}

/// Replaces rows, which are locked and the newest, by others, or deletes them. New keys are locked and must be free.
pub async fn replace(
    ctx: &DmlContext<'_>,
    txn: &mut Transaction,
    target: &Target<'_>,
    old: &RecordBatch,
    new: Option<&RecordBatch>,
) -> Result<()> {
    let codec = &target.codec;
    if let Some(new) = new.filter(|_| codec.keyed()) {
        let (before, after) = (codec.encode_rows(old)?, codec.encode_rows(new)?);
        let moved = before.iter().zip(after.iter()).enumerate().filter(|(_, (b, a))| b != a).map(|(i, _)| i as u32);
        let moved = UInt32Array::from_iter_values(moved);
        if !moved.is_empty() {
            let arrived = take_record_batch(new, &moved)?;
            let keys = codec.encode_rows(&arrived)?;
            let mut all = HashMap::with_capacity(after.num_rows());
            for (row, key) in after.iter().enumerate() {
                if all.insert(key.data(), row).is_some() {
                    return Err(target.duplicate(new, row));
                }
            }
            txn.lock_rows(target.spec().id, &keys, ctx.patience()).await?;
            let found = txn.find(codec, &txn.newest_view(), &codec.keys_of(&arrived)?, &keys)?;
            let leaving = before.iter().collect::<HashSet<_>>();
            let taken = |(row, key)| found.positions.get(row).is_some_and(Option::is_some) && !leaving.contains(&key);
            if let Some(row) = keys.iter().enumerate().position(taken) {
                return Err(target.duplicate(&arrived, row));
            }
        }
    }
    txn.apply(codec, Some(old), new, ctx.rows_max())
}

/// Finds the rows of a statement in a view, and what becomes of them.
struct Finder<'a, 'c> {
    ctx: &'a DmlContext<'c>,
    target: &'a Target<'a>,
    way: Way,
    sets: Option<Vec<(usize, Evaluator)>>,
}

enum Way {
    Keys { keys: RecordBatch, filter: Evaluator },
    Scan { filter: Option<Evaluator>, range: Option<KeyRange> },
    Query { plan: Box<datafusion::logical_expr::LogicalPlan>, schema: Arc<arrow_schema::Schema> },
}

impl<'a, 'c> Finder<'a, 'c> {
    fn new(ctx: &'a DmlContext<'c>, binder: &Binder<'_>, modify: &'a BoundModify<'a>) -> Result<Finder<'a, 'c>> {
        let target = &modify.target;
        let schema = &target.spec().schema;
        let (way, input, qualifier) = match &modify.access {
            Access::Query(query) => {
                let numbers = Arc::new(numbered(&query.columns));
                let plan = Box::new(binder.query_with_values(BoundQuery::clone(query))?);
                (Way::Query { plan, schema: Arc::clone(&numbers) }, numbers, None)
            }
            Access::Direct(None) => (Way::Scan { filter: None, range: None }, Arc::clone(schema), Some(target.alias.as_str())),
            Access::Direct(Some(filter)) => {
                let qualifier = Some(target.alias.as_str());
                let filter = binder.simplify(filter.clone(), schema, qualifier)?;
                let keys = match target.codec.keyed() {
                    true => KeyFilter::of(target.spec(), std::slice::from_ref(&filter)).map(|f| f.wanted(&[])).transpose()?,
                    false => None,
                };
                let filter = binder.compile(&filter, schema, qualifier)?;
                let way = match keys {
                    Some(Wanted::Keys(keys)) => Way::Keys {
                        keys: RecordBatch::try_new(target.spec().project(target.codec.columns()), keys.columns().to_vec())?,
                        filter,
                    },
                    Some(Wanted::Range(range)) => Way::Scan { filter: Some(filter), range: Some(range) },
                    None => Way::Scan { filter: Some(filter), range: None },
                };
                (way, Arc::clone(schema), qualifier)
            }
        };
        let compile = |(column, expr): &(usize, Expr)| Ok((*column, binder.compile(expr, &input, qualifier)?));
        let sets = modify.sets.as_ref().map(|sets| sets.iter().map(compile).collect::<Result<Vec<_>>>()).transpose()?;
        Ok(Finder { ctx, target, way, sets })
    }

    /// The rows that the statement concerns on top of `base`, each key once, and the new ones.
    async fn find(&self, txn: &Transaction, base: &ReadView) -> Result<(RecordBatch, Option<RecordBatch>)> {
        let codec = &self.target.codec;
        let old = match &self.way {
            Way::Keys { keys, filter } => {
                let rows = txn.find(codec, base, keys, &codec.encode_keys(keys)?)?.in_order()?;
                filter_record_batch(&rows, &filter.holds(&rows)?)?
            }
            Way::Scan { filter, range } => {
                let mut kept = Vec::new();
                let scan = Scan { keys: range.clone(), ..Scan::default() };
                let batches = txn.read_view(base.clone()).scan(self.target.spec().id, scan)?;
                for (number, batch) in batches.enumerate() {
                    let batch = batch?;
                    kept.push(match filter {
                        Some(filter) => filter_record_batch(&batch, &filter.holds(&batch)?)?,
                        None => batch,
                    });
                    if number > 0 {
                        self.ctx.breathe().await?;
                    }
                }
                concat_batches(&self.target.spec().schema, &kept)?
            }
            Way::Query { plan, schema } => return self.query(txn, base, plan, schema).await,
        };
        let new = self.sets.as_ref().map(|sets| assigned(self.target, &old, &old, sets)).transpose()?;
        Ok((old, new))
    }

    async fn query(
        &self,
        txn: &Transaction,
        base: &ReadView,
        plan: &datafusion::logical_expr::LogicalPlan,
        schema: &Arc<arrow_schema::Schema>,
    ) -> Result<(RecordBatch, Option<RecordBatch>)> {
        let view = txn.read_view(base.clone());
        let (_, batches) = (self.ctx.run_query)(plan.clone(), view.clone()).await?;
        let batches = batches.iter().map(|b| with_numbers(b, schema)).collect::<Result<Vec<_>>>()?;
        let found = concat_batches(schema, &batches)?;
        let table = &self.target.spec().schema;
        let old = RecordBatch::try_new(Arc::clone(table), found.columns().iter().take(table.fields().len()).cloned().collect())?;
        // A row that joins several others is changed once, by any of them.
        let (mut old, places) = distinct(&old, &self.target.codec.encode_rows(&old)?)?;
        let found = if places.len() == found.num_rows() { found } else { take_record_batch(&found, &places)? };
        let mut new = self.sets.as_ref().map(|sets| assigned(self.target, &old, &found, sets)).transpose()?;
        if !self.target.codec.keyed() {
            // Equal rows of a table without a key all match alike.
            let copies = self.copies(&view, &old)?;
            new = new.map(|n| take_record_batch(&n, &copies)).transpose()?;
            old = take_record_batch(&old, &copies)?;
        }
        Ok((old, new))
    }

    /// The place of each of these rows, as many times as the view holds the row.
    fn copies(&self, view: &ReadView, rows: &RecordBatch) -> Result<UInt32Array> {
        let codec = &self.target.codec;
        let stored = codec.encode_rows(&view.lookup(self.target.spec().id, rows)?)?;
        let keys = codec.encode_rows(rows)?;
        let places = keys.iter().zip(0u32..).collect::<HashMap<_, _>>();
        Ok(UInt32Array::from_iter_values(stored.iter().filter_map(|key| places.get(&key).copied())))
    }
}
