use millpond_common::SqlType::{Integer, Text};
use millpond_connect::{Encode, Poll};

use crate::support::{Dir, Source, present};

fn follow(files: &[(&str, &str)]) -> (Dir, Source) {
    let dir = Dir::new(files);
    let source = Source::file(&dir, "*.csv", Encode::csv(), &[("a", Integer), ("b", Text)]).with("follow", "true");
    (dir, source)
}

#[test]
fn growing_and_new_files() {
    let (dir, source) = follow(&[("a.csv", "a,b\n1,x\n2,")]);
    let mut reader = source.open(None).unwrap();
    let mut step = |expected: &[&str]| assert_eq!(present(reader.as_mut()).unwrap().rows, expected);
    step(&["1|x"]); // the second line is not complete
    step(&[]);
    dir.append("a.csv", "y\n3,");
    step(&["2|y"]);
    dir.append("a.csv", "\"two\n");
    step(&[]); // the quote is open
    dir.append("a.csv", "lines\"\n4,z\n");
    step(&["3|two\nlines", "4|z"]);
    dir.write("b.csv", "a,"); // not even the header
    step(&[]);
    dir.append("b.csv", "b\n5,v\n");
    dir.append("a.csv", "6,w\n");
    step(&["6|w", "5|v"]);
    dir.write("0.csv", "b,a\nu,7\n"); // a name before those read, its own header
    step(&["7|u"]);
    std::fs::remove_file(dir.path("a.csv")).unwrap();
    dir.append("b.csv", "8,t\r\n");
    step(&["8|t"]);
}

#[test]
fn waits_for_files() {
    let (dir, source) = follow(&[]);
    source.validate().unwrap();
    let mut reader = source.open(None).unwrap();
    assert!(matches!(reader.next().unwrap(), Poll::Idle));
    dir.write("new.csv", "a,b\n1,x\n");
    assert_eq!(present(reader.as_mut()).unwrap().rows, ["1|x"]);
}

#[test]
fn continues_where_it_was() {
    let (dir, source) = follow(&[("a.csv", "a,b\n1,x\n2,y\n"), ("b.csv", "a,b\n3,z\n4,")]);
    let end = present(source.open(None).unwrap().as_mut()).unwrap().ends.pop().unwrap().1;
    let mut reader = source.open(Some(&end)).unwrap();
    assert!(present(reader.as_mut()).unwrap().rows.is_empty());
    assert_eq!(
        reader.describe(&end),
        format!("{0}/a.csv: byte 12, {0}/b.csv: byte 8", dir.path("").display().to_string().trim_end_matches('/'))
    );
    dir.append("b.csv", "w\n");
    dir.append("a.csv", "5,v\n");
    assert_eq!(present(reader.as_mut()).unwrap().rows, ["5|v", "4|w"]);
    assert_eq!(present(source.open(Some(&end)).unwrap().as_mut()).unwrap().rows, ["5|v", "4|w"]);
}

/// What happens to `a.csv` after it was read, and a part of the error.
#[test]
fn files_that_are_not_what_they_were() {
    let cases: &[(&str, &str)] = &[
        ("a,b\n1,x\n", "became shorter"),
        ("", "became shorter"),
        ("a,b\n1,x\n9,y\n3,z\n", "was replaced"),
        ("b,a\n1,x\n2,y\n3,z\n", "was replaced"),
    ];
    for (text, message) in cases {
        for in_place in [true, false] {
            let (dir, source) = follow(&[("a.csv", "a,b\n1,x\n2,y\n")]);
            let mut reader = source.open(None).unwrap();
            let read = present(reader.as_mut()).unwrap();
            assert_eq!(read.rows, ["1|x", "2|y"]);
            if in_place {
                dir.write("a.csv", text);
            } else {
                dir.write("a.tmp", text);
                std::fs::rename(dir.path("a.tmp"), dir.path("a.csv")).unwrap();
            }
            let name = format!("{text:?} {in_place}");
            let e = present(reader.as_mut()).expect_err(&name);
            assert!(e.message().contains(message), "{name}: {e}");
            let opened = source.open(Some(&read.ends[0].1));
            let e = opened.and_then(|mut r| present(r.as_mut())).expect_err(&name);
            assert!(e.message().contains(message), "{name}: {e}");
        }
    }
    // the same content under the same name, and more, is no other file
    let (dir, source) = follow(&[("a.csv", "a,b\n1,x\n")]);
    let mut reader = source.open(None).unwrap();
    present(reader.as_mut()).unwrap();
    dir.write("a.tmp", "a,b\n1,x\n2,y\n");
    std::fs::rename(dir.path("a.tmp"), dir.path("a.csv")).unwrap();
    assert_eq!(present(reader.as_mut()).unwrap().rows, ["2|y"]);
}

#[test]
fn json_lines_that_grow() {
    let dir = Dir::new(&[("a.json", "{\"a\":1}\n{\"a\"")]);
    let source = Source::file(&dir, "*.json", Encode::Json, &[("a", Integer)]).with("follow", "true");
    let mut reader = source.open(None).unwrap();
    assert_eq!(present(reader.as_mut()).unwrap().rows, ["1"]);
    dir.append("a.json", ":2}\n");
    assert_eq!(present(reader.as_mut()).unwrap().rows, ["2"]);
}
