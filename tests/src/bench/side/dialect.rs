//! The queries of `sql/nexmark/` in the words of other engines. They differ in windows and in the patterns of dates.

const DAY: &str = "'YYYY-MM-DD'";
const MINUTE: &str = "'HH24:MI'";
const TUMBLE: [&str; 3] = [
    "TUMBLE(bid, date_time, INTERVAL '10' SECOND)",
    "TUMBLE(auction, date_time, INTERVAL '10' SECOND)",
    "TUMBLE(person, date_time, INTERVAL '10' SECOND)",
];
const HOP: &str = "HOP(bid, date_time, INTERVAL '2' SECOND, INTERVAL '10' SECOND)";

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// DuckDB, in batch.
    DuckDb,
    /// DataFusion, in batch.
    DataFusion,
    /// Flink SQL.
    Flink,
}

/// The query of a CREATE MATERIALIZED VIEW for another engine.
pub fn query(create: &str, dialect: Dialect) -> String {
    let text = create.lines().filter(|l| !l.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    let (_, query) = text.split_once(" AS").expect("CREATE MATERIALIZED VIEW … AS …");
    let mut query = query.trim().trim_end_matches(';').to_string();
    for window in TUMBLE {
        query = query.replace(window, &tumble(window, dialect));
    }
    query = query.replace(HOP, &hop(dialect));
    let (day, minute, to_char) = match dialect {
        Dialect::DuckDb => ("'%Y-%m-%d'", "'%H:%M'", "strftime("),
        Dialect::DataFusion => ("'%Y-%m-%d'", "'%H:%M'", "to_char("),
        Dialect::Flink => ("'yyyy-MM-dd'", "'HH:mm'", "DATE_FORMAT("),
    };
    query = query.replace(DAY, day).replace(MINUTE, minute).replace("to_char(", to_char);
    if dialect == Dialect::Flink {
        for (ours, theirs) in
            [("AS day", "AS `day`"), ("AS minute", "AS `minute`"), ("GROUP BY window_end)", "GROUP BY window_start, window_end)")]
        {
            query = query.replace(ours, theirs);
        }
        for part in [4, 5, 6] {
            query = query.replace(&format!("split_part(url, '/', {part})"), &format!("SPLIT_INDEX(url, '/', {})", part - 1));
        }
    }
    query
}

fn bin(seconds: u32, dialect: Dialect) -> String {
    let function = if dialect == Dialect::DuckDb { "time_bucket" } else { "date_bin" };
    format!("{function}(INTERVAL '{seconds} seconds', date_time)")
}

fn tumble(ours: &str, dialect: Dialect) -> String {
    let table = ours.trim_start_matches("TUMBLE(").split(',').next().unwrap_or_default();
    if dialect == Dialect::Flink {
        return format!("TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(date_time), INTERVAL '10' SECOND))");
    }
    let start = bin(10, dialect);
    format!("(SELECT *, {start} AS window_start, {start} + INTERVAL '10 seconds' AS window_end FROM {table}) AS w")
}

fn hop(dialect: Dialect) -> String {
    if dialect == Dialect::Flink {
        return "TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))".into();
    }
    let start = bin(2, dialect);
    let backs = [0, 2, 4, 6, 8].map(|s| format!("(INTERVAL '{s} seconds')")).join(", ");
    format!(
        "(SELECT bid.*, {start} - back AS window_start, {start} - back + INTERVAL '10 seconds' AS window_end \
         FROM bid CROSS JOIN (VALUES {backs}) AS h(back)) AS w"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_tests::server::repository;

    #[test]
    fn nothing_of_our_own_words_is_left() {
        for file in std::fs::read_dir(repository().join("sql/nexmark")).unwrap().map(|f| f.unwrap().path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            if !text.contains("MATERIALIZED") {
                continue;
            }
            for dialect in [Dialect::DuckDb, Dialect::DataFusion, Dialect::Flink] {
                let query = query(&text, dialect);
                assert!(query.starts_with("SELECT"), "{query}");
                for word in ["(bid, date_time", "(person, date_time", "(auction, date_time", DAY, MINUTE] {
                    assert!(!query.contains(word), "{}: {query}", file.display());
                }
            }
        }
    }
}
