use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::Int32Type;
use millpond_common::SqlType::*;
use millpond_connect::{Encode, FormatSpec, validate};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{Dir, Source, all, numeric, present};

pub fn write(dir: &Dir, name: &str, batch: &RecordBatch, group_rows: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(File::create(dir.path(name)).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

pub fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    batch(vec![("n", Arc::new(Int64Array::from_iter_values(range)))])
}

#[test]
fn columns_convert() {
    let dir = Dir::new(&[]);
    let day_ns = 1_704_067_200_000_000_000i64;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ID", Arc::new(Int64Array::from(vec![1, 2]))),
        ("amount", Arc::new(Decimal128Array::from(vec![1234, -5]).with_precision_and_scale(9, 3).unwrap())),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![day_ns, day_ns + 1_500]))),
        ("seen", Arc::new(TimestampNanosecondArray::from(vec![day_ns, 0]))),
        ("zoned", Arc::new(TimestampNanosecondArray::from(vec![day_ns, 0]).with_timezone("UTC"))),
        ("name", Arc::new(StringViewArray::from(vec![Some("ann"), None]))),
        ("kind", Arc::new(["x", "y"].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("key", Arc::new(StringArray::from(vec!["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"; 2]))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), None]))),
    ];
    write(&dir, "a.parquet", &batch(columns), 1);
    let declared = [
        ("key", Uuid),
        ("id", Integer),
        ("amount", numeric(12, 2)),
        ("at", Timestamp),
        ("seen", TimestampTz),
        ("zoned", Timestamp),
        ("name", Text),
        ("kind", Text),
        ("list", Array(Box::new(BigInt))),
    ];
    let source = Source::file(&dir, "a.parquet", Encode::Parquet, &declared);
    source.validate().unwrap();
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let rows = [
        format!("{uuid}|1|1.23|2024-01-01T00:00:00|2024-01-01T00:00:00Z|2024-01-01T00:00:00|ann|x|[1, ∅]"),
        format!("{uuid}|2|-0.01|2024-01-01T00:00:00.000001|1970-01-01T00:00:00Z|1970-01-01T00:00:00|∅|y|∅"),
    ];
    assert_eq!(source.rows(), rows);
    assert_eq!(source.columns(&[6, 1]), ["ann|1", "∅|2"]);
    assert_eq!(source.columns(&[]), ["", ""]);
    // undeclared columns are the file's
    let inferred = validate(&source.options, &FormatSpec::default(), None).unwrap();
    let names = inferred.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["ID", "amount", "at", "seen", "zoned", "name", "kind", "key", "list"]);
    let source = Source { schema: inferred, ..source };
    assert_eq!(source.columns(&[0, 1, 5]), ["1|1.234|ann", "2|-0.005|∅"]);
}

#[test]
fn values_that_do_not_convert() {
    let dir = Dir::new(&[]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![1, 70_000, 3, 4]))),
        ("t", Arc::new(StringArray::from(vec!["1", "2", "x", "4"]))),
        ("m", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(3), None]))),
    ];
    write(&dir, "a.parquet", &batch(columns), 100);
    let mut source = Source::file(&dir, "a.parquet", Encode::Parquet, &[]).with("batch_rows", "2");
    let fields = vec![SmallInt.field("n", true), Integer.field("t", true), Integer.field("m", false)];
    source.schema = Arc::new(arrow_schema::Schema::new(fields));
    let error = |c: usize| all(source.open_columns(&[c], None).unwrap().as_mut()).err().unwrap();
    assert_eq!((error(0).state().0, error(1).state().0, error(2).state().0), ("22003", "22P02", "23502"));
    assert!(error(0).message().contains("\"70000\" is out of range"), "{}", error(0));
    assert!(error(1).detail().unwrap().contains("row 3, column \"t\""), "{}", error(1));
    let source = source.with("on_error", "skip");
    let read = all(source.open(None).unwrap().as_mut()).unwrap();
    assert_eq!((read.rows, read.bad_rows), (vec!["1|1|1".to_string()], 3));
    assert_eq!(source.columns(&[1]), ["1"]);
}

#[test]
fn a_missing_or_foreign_column_is_noticed_at_creation() {
    let dir = Dir::new(&[("b.parquet", "not parquet")]);
    write(&dir, "a.parquet", &numbers(0..3), 10);
    for (name, column, state) in [
        ("a.parquet", ("x", Integer), "42703"),
        ("a.parquet", ("n", Array(Box::new(Bytea))), "42804"),
        ("b.parquet", ("n", Integer), "22000"),
    ] {
        let e = Source::file(&dir, name, Encode::Parquet, &[column]).validate().unwrap_err();
        assert_eq!(e.state().0, state, "{e}");
    }
}

#[test]
fn following_takes_complete_files() {
    let dir = Dir::new(&[]);
    write(&dir, "whole.bin", &numbers(0..5), 2);
    let whole = std::fs::read(dir.path("whole.bin")).unwrap();
    let source = Source::file(&dir, "*.parquet", Encode::Parquet, &[("n", BigInt)]).with("follow", "true");
    let mut reader = source.open(None).unwrap();
    std::fs::write(dir.path("a.parquet"), &whole[..whole.len() - 3]).unwrap();
    assert!(present(reader.as_mut()).unwrap().rows.is_empty());
    std::fs::write(dir.path("a.parquet"), &whole).unwrap();
    let read = present(reader.as_mut()).unwrap();
    assert_eq!(read.rows, ["0", "1", "2", "3", "4"]);
    write(&dir, "b.parquet", &numbers(7..8), 2);
    let end = &read.ends.last().unwrap().1;
    assert_eq!(present(source.open(Some(end)).unwrap().as_mut()).unwrap().rows, ["7"]);
    write(&dir, "a.parquet", &numbers(0..9), 2);
    let e = source.open(Some(end)).and_then(|mut r| present(r.as_mut())).err().unwrap();
    assert!(e.message().contains("was replaced"), "{e}");
}
