//! The examples of the documentation, run through psql. A `sql` block may be followed by a `text` block: what psql answers.
//! `MILLPOND_BLESS=1` writes the answers into the documents instead of comparing them.

use std::io::Write;
use std::process::{Command, Stdio};

use millpond_tests::server::{Server, repository};

fn psql(port: u16, sql: &str) -> String {
    let mut child = Command::new("psql")
        .args(["-X", "-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "tour", "-d", "dev", "-f", "-"])
        .current_dir(repository())
        .env("PGOPTIONS", "--client-min-messages=warning")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(|l| l.trim_end().replace("psql:<stdin>:", "line ")).collect::<Vec<_>>();
    lines.join("\n").trim_end().to_string()
}

/// Runs a document's blocks in order; returns the document with psql's answers in its `text` blocks.
fn play(document: &str, port: u16) -> String {
    let mut out = String::new();
    let mut lines = document.lines().peekable();
    let mut answer = None;
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        if line != "```sql" && line != "```text" {
            continue;
        }
        let mut block = String::new();
        for inner in lines.by_ref().take_while(|l| *l != "```") {
            block += inner;
            block.push('\n');
        }
        match (line, answer.take()) {
            ("```sql", _) => {
                answer = Some(psql(port, &block));
                out += &block;
            }
            (_, Some(found)) => out += &format!("{found}\n"),
            (_, None) => out += &block,
        }
        out += "```\n";
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_documentation_run() {
    for name in ["tour.md", "sql.md", "operations.md", "savepoints.md", "lab-recovery.md", "lab-checkpoints.md"] {
        let path = repository().join("docs").join(name);
        let document = std::fs::read_to_string(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--parallelism", "2"]).await;
        let played = play(&document, server.port());
        if std::env::var_os("MILLPOND_BLESS").is_some() {
            std::fs::write(&path, played).unwrap();
            continue;
        }
        for (expected, found) in document.lines().zip(played.lines()) {
            assert_eq!(found, expected, "docs/{name} says something else than psql\n{played}");
        }
        assert_eq!(document.lines().count(), played.lines().count(), "docs/{name}");
    }
}
