//! Every script in `tests/slt/`, and the examples of the documentation.

use std::path::PathBuf;

use millpond_tests::server::repository;
use millpond_tests::slt;

fn scripts(folder: &str) -> Vec<PathBuf> {
    let mut found = std::fs::read_dir(repository().join(folder)).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    found.retain(|p| p.extension().is_some_and(|e| e == "slt"));
    found.sort();
    found
}

async fn run_all(workers: &str) {
    let files = scripts("tests/slt");
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        match slt::run_file(&file, &["--parallelism", workers]).await {
            Ok(()) => println!("ok {}", file.display()),
            Err(error) => failures.push(format!("{}: {error}", file.display())),
        }
    }
    assert!(failures.is_empty(), "{} scripts failed\n{}", failures.len(), failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_scripts_with_one_worker() {
    run_all("1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_scripts_with_two_workers() {
    run_all("2").await;
}
