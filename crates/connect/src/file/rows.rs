//! Rows under construction, and what happens to bad ones.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use millpond_common::{Error, Result, SqlState};

use super::Plan;
use crate::decode::{Bad, Column};
use crate::{REJECTED_BYTES_MAX, Rejected};

/// The columns that are being decoded.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Target>,
    /// For each projected column its place in `columns`.
    emit: Vec<usize>,
    rows: usize,
    bad_rows: u64,
    rejected: Vec<Rejected>,
    skip_bad: bool,
    keep_bad: bool,
}

/// Decoded records, and those that could not be.
pub struct Decoded {
    /// The projected columns of the rows.
    pub batch: RecordBatch,
    /// How many records were left out.
    pub bad_rows: u64,
    /// The same themselves, if they are to be kept.
    pub rejected: Vec<Rejected>,
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
    Error::new(bad.state, bad.message).with_detail(format!("file \"{}\", {} {}{column}", place.path, place.unit, place.number)).with_hint(
        "correct the file, declare the column as text, or set on_error = 'dead_letter' or 'skip' to keep or to count such records",
    )
}

/// What is kept of a bad record with `on_error = 'dead_letter'`.
pub fn rejected(place: Place, column: Option<&str>, bad: Bad, raw: &[u8]) -> Rejected {
    let error = Error::new(bad.state, bad.message);
    let error = if let Some(column) = column { error.with_detail(format!("column \"{column}\"")) } else { error };
    let raw = raw.get(..REJECTED_BYTES_MAX).unwrap_or(raw).to_vec();
    Rejected { place: format!("{}, {} {}", place.path, place.unit, place.number), raw, error }
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
        Ok(Rows {
            schema: plan.projected()?,
            columns,
            emit,
            rows: 0,
            bad_rows: 0,
            rejected: vec![],
            skip_bad: plan.skip_bad,
            keep_bad: plan.keep_bad,
        })
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

    /// The row that is being made, from these bytes, is bad: it is taken back and counted, perhaps kept, or it is the error.
    pub fn reject(&mut self, place: Place, column: Option<usize>, bad: Bad, raw: &[u8]) -> Result<()> {
        let column = column.and_then(|c| self.columns.get(c)).map(|t| t.name.as_str());
        if !self.skip_bad {
            return Err(failure(place, column, bad));
        }
        if self.keep_bad {
            self.rejected.push(rejected(place, column, bad, raw));
        }
        for target in &mut self.columns {
            target.column.truncate(self.rows);
        }
        self.bad_rows += 1;
        Ok(())
    }

    /// The rows and the bad records so far; both begin anew.
    pub fn finish(&mut self) -> Result<Decoded> {
        let arrays = self.columns.iter_mut().map(|t| t.column.finish()).collect::<Result<Vec<_>>>()?;
        let columns = self.emit.iter().map(|c| arrays[*c].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        self.rows = 0;
        Ok(Decoded { batch, bad_rows: std::mem::take(&mut self.bad_rows), rejected: std::mem::take(&mut self.rejected) })
    }
}
