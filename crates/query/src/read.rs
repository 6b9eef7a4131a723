//! A table or materialized view as a query sees it: its rows in the view of the query's execution.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::exec_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use millpond_common::{Error, RelationSpec, VNODE_COUNT, ids};
use millpond_state::Scan;

use crate::execution::Slot;
use crate::keys::{self, KeyFilter, Wanted};
use crate::leaf::LeafExec;

/// Below so many rows one partition reads faster than several.
const ROWS_PER_PARTITION_MIN: u64 = 20_000;

/// Of the number of rows: a plan for relations of other magnitudes is another one.
pub fn magnitude(rows: u64) -> u32 {
    (rows / ROWS_PER_PARTITION_MIN).checked_ilog2().map_or(0, |m| m + 1)
}

/// The rows of one relation.
pub struct RelationProvider {
    name: String,
    spec: RelationSpec,
    /// The columns under the names that the query uses.
    schema: SchemaRef,
    /// About how many rows it has.
    rows: u64,
    /// Has the view when it is read.
    slot: Arc<Slot>,
}

impl RelationProvider {
    /// `schema` has the same columns as `spec`, perhaps under other names.
    pub fn new(name: String, spec: RelationSpec, schema: SchemaRef, rows: u64, slot: Arc<Slot>) -> Self {
        RelationProvider { name, spec, schema, rows, slot }
    }

    /// The relation with the column names of the query, for matching filters.
    fn named_spec(&self) -> RelationSpec {
        RelationSpec { schema: Arc::clone(&self.schema), ..self.spec.clone() }
    }
}

impl fmt::Debug for RelationProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationProvider({})", self.name)
    }
}

#[async_trait]
impl TableProvider for RelationProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let spec = self.named_spec();
        let of = |filter: &&Expr| match keys::limits_key(&spec, filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let fields = columns.iter().map(|c| Arc::clone(&self.schema.fields()[*c])).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let (id, slot, estimate) = (self.spec.id, Arc::clone(&self.slot), self.rows);
        let filter = KeyFilter::of(&self.named_spec(), filters).map(Arc::new);
        if let Some(filter) = filter.clone().filter(|f| f.is_whole()) {
            let description = format!("KeyLookup: {}, {}", self.name, filter.describe());
            let rows = filter.len();
            let (out, key_schema) = (Arc::clone(&schema), self.spec.project(&self.spec.key_columns()));
            let open = move |_: usize| -> Result<SendableRecordBatchStream> {
                let execution = slot.get()?;
                let Wanted::Keys(keys) = filter.wanted(&execution.parameters).map_err(external)? else {
                    return exec_err!("a key has become a range");
                };
                let keys = RecordBatch::try_new(Arc::clone(&key_schema), keys.columns().to_vec())?;
                let (columns, schema) = (columns.clone(), Arc::clone(&out));
                let find = move || -> Result<RecordBatch> {
                    let found = execution.view.lookup(id, &keys).map_err(external)?.project(&columns)?;
                    rename(found, &schema)
                };
                let once = futures::stream::once(async move { find() });
                Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&out), once)))
            };
            return Ok(Arc::new(LeafExec::new(description, schema, 1, Some(rows), Arc::new(open))));
        }
        let target = state.config().target_partitions().max(1);
        let partitions = if limit.is_some() { 1 } else { target.min((estimate / ROWS_PER_PARTITION_MIN) as usize + 1) };
        let names = schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let mut description = format!("Scan: {}, columns=[{names}]", self.name);
        description.extend(limit.map(|l| format!(", limit={l}")));
        description.extend(filter.as_ref().map(|f| format!(", {}", f.describe())));
        let out = Arc::clone(&schema);
        let open = move |partition: usize| -> Result<SendableRecordBatchStream> {
            let vnodes = if partitions == 1 { 0..VNODE_COUNT } else { ids::vnodes_of(partition, partitions) };
            let execution = slot.get()?;
            let (vnodes, keys) = match filter.as_ref().map(|f| f.wanted(&execution.parameters)).transpose().map_err(external)? {
                Some(Wanted::Range(range)) => (vnodes, Some(range)),
                Some(Wanted::Keys(_)) => (0..0, None), // a comparison with NULL
                None => (vnodes, None),
            };
            let batches = execution.view.scan(id, Scan { projection: Some(columns.clone()), vnodes, keys }).map_err(external)?;
            let schema = Arc::clone(&out);
            let batches = batches.map(move |batch| rename(batch.map_err(external)?, &schema));
            let stream = futures::stream::iter(at_most(batches, limit)).boxed();
            Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&out), stream)))
        };
        let rows = limit.map_or(estimate as usize, |l| l.min(estimate as usize));
        Ok(Arc::new(LeafExec::new(description, schema, partitions, Some(rows), Arc::new(open))))
    }
}

/// The first `limit` rows, and nothing read after them.
pub fn at_most(
    mut batches: impl Iterator<Item = Result<RecordBatch>> + Send,
    limit: Option<usize>,
) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    let mut left = limit.unwrap_or(usize::MAX);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let batch = batches.next()?;
        Some(batch.map(|b| {
            let b = if b.num_rows() > left { b.slice(0, left) } else { b };
            left -= b.num_rows();
            b
        }))
    })
}

/// The same columns under the names of `schema`.
fn rename(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::util::pretty::pretty_format_batches;
    use arrow_schema::{DataType, Field};
    use datafusion::prelude::SessionContext;
    use millpond_common::{Delta, RelationId};
    use millpond_state::{Store, StoreOptions};

    struct Fixture {
        _directory: tempfile::TempDir,
        context: SessionContext,
    }

    /// `t(id primary key, name)` with `rows` rows; the query calls its columns `k` and `name`.
    fn fixture(rows: i64) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path(), &StoreOptions { memory: 64 << 20, ..StoreOptions::default() }).unwrap();
        let columns =
            |id: &str| Arc::new(Schema::new(vec![Field::new(id, DataType::Int64, false), Field::new("name", DataType::Utf8, true)]));
        let spec = RelationSpec { id: RelationId(1000), schema: columns("id"), key: Some(vec![0]), appended: false };
        store.relation_add(spec.clone());
        let names = (0..rows).map(|i| format!("n{i}")).collect::<Vec<_>>();
        let data = vec![Arc::new(Int64Array::from_iter_values(0..rows)) as _, Arc::new(StringArray::from(names)) as _];
        store.publish(spec.id, 1, vec![Delta::insert(RecordBatch::try_new(spec.schema.clone(), data).unwrap())]);
        store.set_visible(1, 0);
        let context = SessionContext::new();
        let provider = RelationProvider::new("t".into(), spec, columns("k"), rows as u64, Slot::of(store.read_view()));
        context.register_table("t", Arc::new(provider)).unwrap();
        Fixture { _directory: directory, context }
    }

    async fn run(fixture: &Fixture, sql: &str) -> (String, String) {
        let frame = fixture.context.sql(sql).await.unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        let plan = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
        (plan, pretty_format_batches(&frame.collect().await.unwrap()).unwrap().to_string())
    }

    #[tokio::test]
    async fn keys_are_looked_up() {
        let fixture = fixture(100);
        let (plan, rows) = run(&fixture, "SELECT name FROM t WHERE k IN (5, 7, 700) AND name <> 'n7' ORDER BY name").await;
        assert!(plan.contains("KeyLookup: t, keys=[k] (3)"), "{plan}");
        assert!(rows.contains("n5") && !rows.contains("n7"), "{rows}");
        let (plan, rows) = run(&fixture, "SELECT count(*) AS n FROM t WHERE k > 90").await;
        assert!(plan.contains("Scan: t, columns=[k], key range=[k]"), "{plan}");
        assert!(rows.contains("| 9 "), "{rows}");
    }

    #[tokio::test]
    async fn limits_are_exact() {
        let fixture = fixture(100);
        let (plan, rows) = run(&fixture, "SELECT name FROM t LIMIT 3").await;
        assert!(plan.contains("columns=[name], limit=3"), "{plan}");
        assert_eq!(rows.matches("| n").count() - usize::from(rows.contains("| name")), 3, "{rows}");
        let (_, rows) = run(&fixture, "SELECT name FROM t WHERE name LIKE 'n9%' LIMIT 5").await;
        assert_eq!(rows.matches("| n9").count(), 5, "{rows}");
    }

    #[tokio::test]
    async fn partitions_give_every_row_once() {
        let fixture = fixture(50_000);
        let (plan, rows) = run(&fixture, "SELECT count(*) AS c, count(DISTINCT k) AS d, sum(k) AS s FROM t").await;
        assert!(rows.contains("50000") && rows.contains("1249975000"), "{plan}\n{rows}");
        let (_, rows) = run(&fixture, "SELECT count(*) AS c FROM t").await;
        assert!(rows.contains("50000"), "{rows}");
    }
}
