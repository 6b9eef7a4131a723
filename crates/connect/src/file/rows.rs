//! Rows under construction, and what happens to bad ones.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use millpond_common::{Error, Result, SqlState};

use super::Plan;
use crate::decode::{Bad, Column};

/// The columns that are being decoded.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Target>,
    /// For each projected column its place in `columns`.
    emit: Vec<usize>,
    rows: usize,
    bad_rows: u64,
    skip_bad: bool,
}

struct Target {
    name: String,
    nullable: bool,
    column: Column,
}

/// Where a record is, for messages.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The file.
    pub path: &'a str,
    /// `line` or `row`.
    pub unit: &'static str,
    /// The number of the line or row, from 1.
    pub number: u64,
}

/// What `on_error = 'fail'` says.
pub fn failure(place: Place, column: Option<&str>, bad: Bad) -> Error {
    let column = column.map(|c| format!(", column \"{c}\"")).unwrap_or_default();
    Error::new(bad.state, bad.message)
        .with_detail(format!("file \"{}\", {} {}{column}", place.path, place.unit, place.number))
        .with_hint("correct the file, declare the column as text, or set on_error = 'skip' to leave such records out and count them")
}

/// The reason of a NULL where none may be.
pub fn null_violation(column: &str) -> Bad {
    Bad::new(SqlState::NOT_NULL_VIOLATION, format!("null value in column \"{column}\" violates not-null constraint"))
}

impl Rows {
    /// No rows yet.
    pub fn new(plan: &Plan) -> Result<Rows> {
        let decoded = plan.decoded();
        let columns = decoded
            .iter()
            .map(|c| {
                let field = plan.schema.field(*c);
                Target { name: field.name().clone(), nullable: field.is_nullable(), column: Column::new(field) }
            })
            .collect();
        let emit = plan.projection.iter().filter_map(|p| decoded.iter().position(|d| d == p)).collect();
        Ok(Rows { schema: plan.projected()?, columns, emit, rows: 0, bad_rows: 0, skip_bad: plan.skip_bad })
    }

    /// Complete rows so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is nothing to tell: no row, and no bad one either.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.bad_rows == 0
    }

    /// How many columns are decoded.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Appends to one column of the row that is being made; the error has the column's name.
    pub fn push(&mut self, column: usize, value: impl FnOnce(&mut Column) -> Result<(), Bad>) -> Result<(), (usize, Bad)> {
        let target = &mut self.columns[column];
        value(&mut target.column).map_err(|bad| (column, bad))
    }

    /// Appends NULL to one column of the row that is being made.
    pub fn push_null(&mut self, column: usize) -> Result<(), (usize, Bad)> {
        let target = &mut self.columns[column];
        if !target.nullable {
            return Err((column, null_violation(&target.name)));
        }
        target.column.push_null();
        Ok(())
    }

    /// Every column has its value: the row is complete.
    pub fn commit(&mut self) {
        self.rows += 1;
        debug_assert!(self.columns.iter().all(|t| t.column.len() == self.rows));
    }

    /// The row that is being made is bad: it is taken back and counted, or it is the error.
    pub fn reject(&mut self, place: Place, column: Option<usize>, bad: Bad) -> Result<()> {
        if !self.skip_bad {
            return Err(failure(place, column.and_then(|c| self.columns.get(c)).map(|t| t.name.as_str()), bad));
        }
        for target in &mut self.columns {
            target.column.truncate(self.rows);
        }
        self.bad_rows += 1;
        Ok(())
    }

    /// The projected columns of the rows, and how many bad records were left out; both begin anew.
    pub fn finish(&mut self) -> Result<(RecordBatch, u64)> {
        let arrays = self.columns.iter_mut().map(|t| t.column.finish()).collect::<Result<Vec<_>>>()?;
        let columns = self.emit.iter().map(|c| arrays[*c].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        self.rows = 0;
        Ok((batch, std::mem::take(&mut self.bad_rows)))
    }
}
