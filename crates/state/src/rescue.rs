//! Opening after a failed ingestion.
//!
//! When the sync of RocksDB's manifest fails during an ingestion, RocksDB takes its links to the ingested files away
//! again, though the manifest may already name them; then the database does not open. The files themselves are still in
//! the staging directory: linked once more under their names, everything fits. RocksDB checks sizes and identities of
//! its files when it opens, so a wrong guess is noticed.

use std::path::{Path, PathBuf};

/// Which files would be linked where: pairs of (staged file, name in the database directory).
type Links = Vec<(String, String)>;

/// Tries again to open a database that did not open because of `error`, after restoring files that it misses.
/// `None`: this is not such a case, or it did not help; then all is as it was.
pub(crate) fn reopen<T, E>(database: &Path, staging: &Path, error: &str, open: impl Fn() -> Result<T, E>) -> Option<T> {
    let missing = missing_file(error)?;
    let entries = std::fs::read_dir(staging).ok()?;
    let staged = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect::<Vec<_>>();
    candidates(missing, &staged).into_iter().find_map(|links| {
        let mut made: Vec<PathBuf> = Vec::new();
        for (from, to) in links {
            let to = database.join(to);
            if std::fs::hard_link(staging.join(from), &to).is_err() {
                break;
            }
            made.push(to);
        }
        let opened = crate::directory::sync(database).ok().and_then(|()| open().ok());
        if opened.is_some() {
            tracing::warn!(files = made.len(), "restored files of an interrupted ingestion");
        } else {
            made.iter().for_each(|link| drop(std::fs::remove_file(link)));
        }
        opened
    })
}

/// The number of the file that RocksDB says it misses.
fn missing_file(error: &str) -> Option<u64> {
    let before = error.split(".sst: No such file or directory").next().filter(|before| before.len() < error.len())?;
    before.rsplit('/').next()?.parse().ok()
}

/// The files of one ingestion have numbers in a row. The missing one is one of the newest checkpoint's.
fn candidates(missing: u64, staged: &[String]) -> Vec<Links> {
    let parse = |name: &String| {
        let (number, part) = name.strip_suffix(".sst")?.split_once('-')?;
        Some((number.parse::<u64>().ok()?, part.parse::<u64>().ok()?, name.clone()))
    };
    let mut files = staged.iter().filter_map(parse).collect::<Vec<_>>();
    files.sort();
    let Some(newest) = files.last().map(|f| f.0) else { return vec![] };
    files.retain(|f| f.0 == newest);
    let numbered = |first: u64| files.iter().zip(first..).map(|(f, n)| (f.2.clone(), format!("{n:06}.sst"))).collect();
    (0..files.len() as u64).filter_map(|offset| missing.checked_sub(offset)).map(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_missing() {
        let error = "Corruption: Corruption: IO error: No such file or directory: While open a file for random read: \
                     /d/data/db/000008.sst: No such file or directory  The file /d/data/db/MANIFEST-000005 may be corrupted.";
        assert_eq!(missing_file(error), Some(8));
        assert_eq!(missing_file("IO error: /d/db/LOCK: Resource temporarily unavailable"), None);
        assert_eq!(missing_file("Corruption: bad block in /d/db/000008.sst"), None);
    }

    #[test]
    fn tries_all_places_in_a_row() {
        let staged = ["0000000007-1.sst", "0000000006-0.sst", "0000000007-0.sst", "notes"].map(str::to_owned);
        let pair = |a: &str, b: &str| vec![("0000000007-0.sst".to_owned(), a.to_owned()), ("0000000007-1.sst".to_owned(), b.to_owned())];
        assert_eq!(candidates(12, &staged), [pair("000012.sst", "000013.sst"), pair("000011.sst", "000012.sst")]);
        assert_eq!(candidates(12, &[]), Vec::<Links>::new());
    }

    #[test]
    fn restores_or_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let (database, staging) = (dir.path().join("db"), dir.path().join("staging"));
        std::fs::create_dir_all(&database).unwrap();
        std::fs::create_dir_all(&staging).unwrap();
        std::fs::write(staging.join("0000000001-0.sst"), "rows").unwrap();
        let error = "x/000004.sst: No such file or directory";
        let read = || std::fs::read_to_string(database.join("000004.sst"));
        assert_eq!(reopen(&database, &staging, error, read), Some("rows".to_owned()));
        std::fs::remove_file(database.join("000004.sst")).unwrap();
        assert_eq!(reopen(&database, &staging, error, || Err::<(), _>(())), None);
        assert_eq!(std::fs::read_dir(&database).unwrap().count(), 0);
        assert!(staging.join("0000000001-0.sst").exists());
    }
}
