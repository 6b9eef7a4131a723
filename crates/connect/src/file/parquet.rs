//! Parquet files. They are complete when they have their footer, and never change afterwards; a place in one is a row number.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{self, CastOptions, can_cast_types};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millpond_common::{Error, Result, SqlState, SqlType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::mark::{self, Mark};
use super::rows::{Decoded, Place, failure, null_violation, rejected};
use super::{Plan, io};
use crate::decode::{Bad, Column};

const MAGIC: &[u8] = b"PAR1";

/// A Parquet file that is being read.
pub struct ParquetFile {
    path: String,
    check: u64,
    row: u64,
    reader: ParquetRecordBatchReader,
    /// For each decoded column its place in the file's batches.
    places: Vec<usize>,
    fields: Vec<Arc<Field>>,
    /// For each projected column its place among the decoded ones.
    emit: Vec<usize>,
    schema: SchemaRef,
    skip_bad: bool,
    keep_bad: bool,
}

/// The columns of a file, as SQL types.
pub fn schema(path: &str) -> Result<SchemaRef> {
    let (_, metadata) = metadata(path)?;
    let fields = metadata.schema().fields().iter();
    Ok(Arc::new(Schema::new(fields.map(|f| SqlType::of(f).field(f.name(), f.is_nullable())).collect::<Vec<_>>())))
}

/// Checks that a file has the declared columns, with types that convert.
pub fn check(plan: &Plan, path: &str) -> Result<()> {
    let (_, metadata) = metadata(path)?;
    for field in plan.schema.fields() {
        place(path, metadata.schema(), field)?;
    }
    Ok(())
}

/// Whether the file has its end, which writers write last.
pub fn is_complete(path: &str) -> Result<bool> {
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let bytes = file.metadata().map_err(|e| io(path, &e))?.len();
    let mut end = [0u8; 4];
    Ok(bytes > 12 && file.read_exact_at(&mut end, bytes - 4).is_ok() && end == MAGIC)
}

impl ParquetFile {
    /// Opens a file at a mark, which must be one of this file, to read up to its end or to row `end`.
    pub fn open(plan: &Plan, path: &str, mark: &Mark, end: Option<u64>) -> Result<ParquetFile> {
        let (file, metadata) = metadata(path)?;
        let check = mark::whole_check(&file).map_err(|e| io(path, &e))?;
        if mark.offset > 0 && mark.check != check {
            return Err(mark::replaced(path, "was replaced"));
        }
        let decoded = plan.decoded();
        let fields = decoded.iter().map(|c| Arc::clone(&plan.schema.fields()[*c])).collect::<Vec<_>>();
        let wanted = fields.iter().map(|f| place(path, metadata.schema(), f)).collect::<Result<Vec<_>>>()?;
        let mut present = wanted.clone();
        present.sort_unstable();
        present.dedup();
        let places = wanted.iter().filter_map(|w| present.binary_search(w).ok()).collect();

        let mut skip = mark.offset;
        let mut groups = vec![];
        for (group, group_metadata) in metadata.metadata().row_groups().iter().enumerate() {
            let rows = group_metadata.num_rows().unsigned_abs();
            if groups.is_empty() && skip >= rows {
                skip -= rows;
            } else {
                groups.push(group);
            }
        }
        let mask = ProjectionMask::roots(metadata.parquet_schema(), present);
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(skip as usize)
            .with_batch_size(plan.batch_rows);
        if let Some(end) = end {
            builder = builder.with_limit(end.saturating_sub(mark.offset) as usize);
        }
        let reader = builder.build().map_err(|e| broken(path, &e))?;
        Ok(ParquetFile {
            path: path.to_string(),
            check,
            row: mark.offset,
            reader,
            places,
            emit: plan.projection.iter().filter_map(|p| decoded.iter().position(|d| d == p)).collect(),
            fields,
            schema: plan.projected()?,
            skip_bad: plan.skip_bad,
            keep_bad: plan.keep_bad,
        })
    }

    /// How far it was read.
    pub fn mark(&self) -> Mark {
        Mark { offset: self.row, line: self.row + 1, check: self.check }
    }

    /// The next rows and the bad records among them; `None`: the end.
    pub fn read(&mut self) -> Result<Option<Decoded>> {
        let batch = match self.reader.next() {
            None => return Ok(None),
            Some(Err(e)) => return Err(broken(&self.path, &e)),
            Some(Ok(batch)) => batch,
        };
        let mut columns = Vec::with_capacity(self.fields.len());
        let mut bad: Option<Vec<bool>> = None;
        let mut reasons = BTreeMap::new();
        for (field, place) in self.fields.iter().zip(&self.places) {
            let source = batch.column(*place);
            let (column, failed) = convert(source, field)?;
            if let Some((row, reason)) = failed.first() {
                if !self.skip_bad {
                    let place = Place { path: &self.path, unit: "row", number: self.row + *row as u64 + 1 };
                    return Err(failure(place, Some(field.name()), reason.clone()));
                }
                let bad = bad.get_or_insert_with(|| vec![false; batch.num_rows()]);
                failed.iter().for_each(|(row, _)| bad[*row] = true);
                if self.keep_bad {
                    for (row, reason) in failed {
                        reasons.entry(row).or_insert((field.name(), reason));
                    }
                }
            }
            columns.push(column);
        }
        let reject = |(row, (column, reason)): (usize, (&String, Bad))| {
            let place = Place { path: &self.path, unit: "row", number: self.row + row as u64 + 1 };
            let value = |c: &ArrayRef| display::array_value_to_string(c, row).unwrap_or_default();
            let raw = batch.columns().iter().map(value).collect::<Vec<_>>().join(",");
            rejected(place, Some(column), reason, raw.as_bytes())
        };
        let rejected = reasons.into_iter().map(reject).collect();
        self.row += batch.num_rows() as u64;
        let mut bad_rows = 0;
        let mut rows = batch.num_rows();
        if let Some(bad) = bad {
            bad_rows = bad.iter().filter(|b| **b).count() as u64;
            rows -= bad_rows as usize;
            let good = BooleanArray::from(bad.into_iter().map(|b| !b).collect::<Vec<_>>());
            columns = columns.iter().map(|c| compute::filter(c, &good)).collect::<Result<_, _>>()?;
        }
        let columns = self.emit.iter().map(|c| Arc::clone(&columns[*c])).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(Some(Decoded { batch, bad_rows, rejected }))
    }
}

fn metadata(path: &str) -> Result<(File, ArrowReaderMetadata)> {
    let file = File::open(path).map_err(|e| io(path, &e))?;
    let metadata = ArrowReaderMetadata::load(&file, Default::default()).map_err(|e| broken(path, &e))?;
    Ok((file, metadata))
}

fn broken(path: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(SqlState::DATA_EXCEPTION, format!("file \"{path}\" cannot be read as Parquet: {error}"))
}

/// The file's column for a declared one.
fn place(path: &str, schema: &SchemaRef, field: &Field) -> Result<usize> {
    let fields = schema.fields();
    let exact = fields.iter().position(|f| f.name() == field.name());
    let Some(place) = exact.or_else(|| fields.iter().position(|f| f.name().eq_ignore_ascii_case(field.name()))) else {
        let names = fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("file \"{path}\" has no column \"{}\"", field.name()))
            .with_detail(format!("its columns are: {names}")));
    };
    let have = fields[place].data_type();
    if !converts(have, field.data_type()) {
        return Err(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("column \"{}\" of file \"{path}\" is {have} and does not convert to {}", field.name(), SqlType::of(field).name()),
        ));
    }
    Ok(place)
}

/// Whether values of one type are taken for another. Arrow casts more than that: numbers to bytes, one value to a list.
fn converts(have: &DataType, want: &DataType) -> bool {
    let time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let bytes = |t: &DataType| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_));
    match (have, want) {
        (have, want) if have == want || is_text(have) => true,
        (DataType::Dictionary(_, values), want) => converts(values, want),
        (DataType::List(h) | DataType::LargeList(h) | DataType::FixedSizeList(h, _), DataType::List(w)) => {
            converts(h.data_type(), w.data_type()) && can_cast_types(have, want)
        }
        (have, _) if have.is_nested() => false,
        (_, DataType::Utf8) => can_cast_types(have, want),
        (have, want) if have.is_numeric() => want.is_numeric(),
        (have, want) if time(have) => time(want),
        (have, DataType::Binary) => bytes(have),
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time64(_)) => true,
        (DataType::Interval(_) | DataType::Duration(_), DataType::Interval(_)) => can_cast_types(have, want),
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// The values in the declared type, and the rows that have none, with the reasons.
fn convert(source: &ArrayRef, field: &Field) -> Result<(ArrayRef, Vec<(usize, Bad)>)> {
    let sql_type = SqlType::of(field);
    let mut failed = vec![];
    let converted = if is_text(source.data_type()) && !matches!(sql_type, SqlType::Text | SqlType::Varchar(None)) {
        from_texts(compute::cast(source, &DataType::Utf8)?.as_string(), field, &mut failed)?
    } else if source.data_type() == field.data_type() {
        Arc::clone(source)
    } else {
        let cast = cast(source, field.data_type())?;
        for row in (0..cast.len()).filter(|r| cast.null_count() > source.null_count() && cast.is_null(*r) && source.is_valid(*r)) {
            let value = arrow::util::display::array_value_to_string(source, row).unwrap_or_default();
            failed.push((row, Bad::range(&sql_type.name(), value.as_bytes())));
        }
        cast
    };
    if !field.is_nullable() && source.null_count() > 0 {
        failed.extend((0..source.len()).filter(|r| source.is_null(*r)).map(|r| (r, null_violation(field.name()))));
        failed.sort_by_key(|(row, _)| *row);
    }
    Ok((converted, failed))
}

/// Values that do not fit become NULL.
fn cast(source: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..Default::default() };
    if let (DataType::Timestamp(_, zone), DataType::Timestamp(unit, wanted_zone)) = (source.data_type(), want) {
        // the instants stay as they are: files store UTC, and a clock without a zone is read as UTC
        let own = compute::cast_with_options(source, &DataType::Timestamp(*unit, zone.clone()), &options)?;
        return Ok(Arc::new(own.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(wanted_zone.clone())));
    }
    Ok(compute::cast_with_options(source, want, &options)?)
}

fn from_texts(texts: &StringArray, field: &Field, failed: &mut Vec<(usize, Bad)>) -> Result<ArrayRef> {
    let mut column = Column::new(field);
    for (row, text) in texts.iter().enumerate() {
        let pushed = text.map(|t| column.push_text(t.as_bytes()));
        if let Some(Err(bad)) = pushed {
            failed.push((row, bad));
            column.push_null();
        } else if pushed.is_none() {
            column.push_null();
        }
    }
    column.finish()
}
