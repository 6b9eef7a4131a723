//! INSERT.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow_row::Rows;
use hashbrown::HashSet;
use millpond_common::{Error, Result, SqlState};
use millpond_sql::ast;

use super::bind::Binder;
use super::conflict::{Conflict, ReadyConflict};
use super::returning::{Returned, Returning};
use super::source::{self, Columns, Source};
use super::target::{Checks, Target, relation_name};
use super::{DmlContext, DmlResult};
use crate::locks::Mode;
use crate::transaction::Transaction;

/// Rows that are locked, looked up and written together.
const CHUNK_ROWS: usize = 8192;

/// A bound INSERT.
pub struct BoundInsert<'a> {
    target: Target<'a>,
    /// The columns that the source gives, in its order.
    listed: Vec<usize>,
    source: Source,
    conflict: Option<Conflict>,
    /// Its RETURNING.
    pub returning: Option<Returning>,
}

/// Resolves names and types.
pub fn bind<'a>(binder: &Binder<'a>, insert: &ast::Insert) -> Result<BoundInsert<'a>> {
    let ast::TableObject::TableName(name) = &insert.table else {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "INSERT needs the name of a table"));
    };
    let alias = insert.table_alias.as_ref().map(|a| millpond_sql::statement::fold(&a.alias));
    let target = Target::find(binder, &relation_name(name)?, alias, "insert into")?;
    let explicit = !insert.columns.is_empty();
    let mut listed = match explicit {
        true => insert.columns.iter().map(|c| target.assigned(c)).collect::<Result<Vec<_>>>()?,
        false => (0..target.width()).collect(),
    };
    for (i, column) in listed.iter().enumerate() {
        if listed.iter().take(i).any(|c| c == column) {
            let name = target.spec().schema.field(*column).name().clone();
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
    }
    let source = source::bind(binder, &target, &mut listed, explicit, insert.source.as_deref())?;
    let conflict = match &insert.on {
        None => None,
        Some(ast::OnInsert::OnConflict(on)) => Conflict::bind(binder, &target, on)?,
        Some(_) => {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "ON DUPLICATE KEY UPDATE is not SQL of PostgreSQL")
                .with_hint("Use ON CONFLICT … DO UPDATE SET …"));
        }
    };
    let returning = Returning::bind(binder, &target, insert.returning.as_ref())?;
    Ok(BoundInsert { target, listed, source, conflict, returning })
}

/// What a running INSERT keeps between chunks.
struct Insertion<'a, 'c> {
    ctx: &'a DmlContext<'c>,
    target: &'a Target<'a>,
    checks: Checks,
    conflict: Option<ReadyConflict<'a>>,
    returned: Option<Returned>,
    /// With DO UPDATE: keys that this statement has written, which it must not write again.
    written: HashSet<Box<[u8]>>,
    count: u64,
}

/// Runs a bound INSERT.
pub async fn execute(ctx: &DmlContext<'_>, txn: &mut Transaction, binder: &Binder<'_>, insert: BoundInsert<'_>) -> Result<DmlResult> {
    txn.check_writable("INSERT")?;
    let BoundInsert { target, listed, source, conflict, returning } = insert;
    let columns = Columns::new(binder, &target, &listed, &source)?;
    let mut insertion = Insertion {
        ctx,
        target: &target,
        checks: target.checks(binder)?,
        conflict: conflict.as_ref().map(|c| c.compile(binder, &target)).transpose()?,
        returned: returning.as_ref().map(|r| r.compile(binder)).transpose()?,
        written: HashSet::new(),
        count: 0,
    };
    match source {
        Source::Rows(rows) => {
            let rows = columns.of_rows(ctx, txn, binder, &rows).await?;
            insertion.rows(txn, &rows).await?;
        }
        Source::Query { query, assigned } => {
            let schema = Arc::new(source::numbered(&query.columns));
            let assigned = assigned.iter().map(|e| binder.compile(e, &schema, None)).collect::<Result<Vec<_>>>()?;
            let view = txn.read_view(txn.base_view());
            let (_, batches) = (ctx.run_query)(binder.query_with_values(*query)?, view).await?;
            for batch in batches {
                let batch = source::with_numbers(&batch, &schema)?;
                let arrays = assigned.iter().map(|e| e.evaluate(&batch)).collect::<Result<Vec<_>>>()?;
                insertion.rows(txn, &columns.complete(&arrays, batch.num_rows())?).await?;
            }
        }
    }
    let Insertion { returned, count, .. } = insertion;
    Ok(DmlResult { tag: format!("INSERT 0 {count}"), returning: returned.map(Returned::finish) })
}

impl Insertion<'_, '_> {
    async fn rows(&mut self, txn: &mut Transaction, rows: &RecordBatch) -> Result<()> {
        for start in (0..rows.num_rows()).step_by(CHUNK_ROWS) {
            let chunk = rows.slice(start, CHUNK_ROWS.min(rows.num_rows() - start));
            self.checks.check(&chunk)?;
            match self.target.codec.keyed() {
                true => self.keyed(txn, &chunk).await?,
                false => {
                    txn.lock_table(self.target.spec().id, Mode::Rows, self.ctx.patience()).await?;
                    txn.apply(&self.target.codec, None, Some(&chunk), self.ctx.rows_max())?;
                    self.done(&chunk)?;
                }
            }
            if start > 0 {
                self.ctx.breathe().await?;
            }
        }
        Ok(())
    }

    fn done(&mut self, rows: &RecordBatch) -> Result<()> {
        self.count += rows.num_rows() as u64;
        match &mut self.returned {
            Some(returned) if rows.num_rows() > 0 => returned.add(rows),
            _ => Ok(()),
        }
    }

    async fn keyed(&mut self, txn: &mut Transaction, proposed: &RecordBatch) -> Result<()> {
        let (ctx, target) = (self.ctx, self.target);
        let codec = &target.codec;
        let encoded = codec.encode_rows(proposed)?;
        let proposed = &self.without_repetitions(proposed, &encoded)?;
        let encoded = if proposed.num_rows() == encoded.num_rows() { encoded } else { codec.encode_rows(proposed)? };
        txn.lock_rows(target.spec().id, &encoded, ctx.patience()).await?;
        // With the locks held, nobody else changes whether these keys have rows.
        let found = txn.find(codec, &txn.newest_view(), &codec.keys_of(proposed)?, &encoded)?;
        let (free, taken): (Vec<u32>, Vec<u32>) =
            (0..proposed.num_rows() as u32).partition(|i| found.positions.get(*i as usize).is_none_or(Option::is_none));
        let Some(first_taken) = taken.first() else {
            txn.apply(codec, None, Some(proposed), ctx.rows_max())?;
            return self.done(proposed);
        };
        if self.conflict.is_none() {
            return Err(target.duplicate(proposed, *first_taken as usize));
        }
        let existing = found.in_order()?;
        super::modify::check_snapshot(txn, target, &existing)?;
        let added = take_record_batch(proposed, &UInt32Array::from(free.clone()))?;
        txn.apply(codec, None, Some(&added), ctx.rows_max())?;
        let Some(conflict) = self.conflict.as_ref() else { return Ok(()) };
        let excluded = take_record_batch(proposed, &UInt32Array::from(taken.clone()))?;
        let Some((updated, places)) = conflict.update(ctx, txn, target, &self.checks, &existing, &excluded).await? else {
            return self.done(&added);
        };
        // The answer's rows come in the order of the proposed ones.
        let both = concat_batches(added.schema_ref(), [&added, &updated])?;
        let taken = places.iter().filter_map(|p| taken.get(*p as usize).copied());
        let mut order = free.into_iter().chain(taken).zip(0u32..).collect::<Vec<_>>();
        order.sort_unstable();
        self.done(&take_record_batch(&both, &UInt32Array::from_iter_values(order.into_iter().map(|(_, i)| i)))?)
    }

    /// The proposed rows with each key once, or the error that a second one means.
    fn without_repetitions(&mut self, proposed: &RecordBatch, encoded: &Rows) -> Result<RecordBatch> {
        let mut seen = HashSet::with_capacity(encoded.num_rows());
        let mut kept = Vec::with_capacity(encoded.num_rows());
        let updates = self.conflict.as_ref().is_some_and(ReadyConflict::updates);
        for (row, key) in encoded.iter().enumerate() {
            let first = seen.insert(key.data());
            match &self.conflict {
                None if !first => return Err(self.target.duplicate(proposed, row)),
                Some(_) if updates && (!first || self.written.contains(key.data())) => {
                    return Err(Error::new(
                        SqlState::CARDINALITY_VIOLATION,
                        "ON CONFLICT DO UPDATE command cannot affect row a second time",
                    )
                    .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
                }
                _ => kept.extend(first.then_some(row as u32)),
            }
        }
        if updates {
            self.written.extend(seen.into_iter().map(Box::from));
        }
        match kept.len() == proposed.num_rows() {
            true => Ok(proposed.clone()),
            false => Ok(take_record_batch(proposed, &UInt32Array::from(kept))?),
        }
    }
}
