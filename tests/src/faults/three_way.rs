//! Three ways to one answer: a view that ran straight through, one whose server was killed and restarted all along, and one
//! whose server came back with another parallelism each time hold the same rows, and these are the batch answer. For every
//! query of the SQL scripts that can be a view, made as early as its relations are there, and for Nexmark.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqllogictest::{Connection, DefaultColumnType, Record};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::finding::{Finding, Tally};
use crate::oracle;
use crate::server::{Server, becomes, describe, repository, rows};

/// A restart comes after so many statements.
const STATEMENTS_PER_LIFE: usize = 9;
/// So long a statement may wait for a lock that its session would have had without a restart.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nexmark events: so many, so many a second.
const EVENTS: &str = "events = '20000', rate = '20000'";
/// How often the server is restarted while they flow.
const LIVES: usize = 6;

/// How a server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    Killed,
    Rescaled,
}

/// Rows of views and tables at some places of a script; `None`: the view has failed.
type Answers = BTreeMap<String, Option<Vec<Vec<Option<String>>>>>;

struct Replay {
    way: Way,
    _dir: TempDir,
    server: Server,
    sessions: BTreeMap<String, Client>,
    /// What SET has done, to be done again after a restart.
    settings: Vec<(String, String)>,
    /// Sessions in a transaction.
    blocks: BTreeSet<String>,
    statements: usize,
    lives: usize,
    answers: Answers,
    comparisons: usize,
}

impl Replay {
    async fn start(way: Way) -> Replay {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &["--parallelism", "2"]).await;
        let (sessions, settings, blocks, answers) = Default::default();
        Replay { way, _dir: dir, server, sessions, settings, blocks, statements: 0, lives: 0, answers, comparisons: 0 }
    }

    async fn session(&mut self, name: &str) -> &Client {
        if !self.sessions.contains_key(name) {
            let client = self.server.connect().await;
            for (_, set) in self.settings.iter().filter(|(session, _)| session == name) {
                let _ = client.simple_query(set).await;
            }
            self.sessions.insert(name.to_string(), client);
        }
        &self.sessions[name]
    }

    /// Runs a statement; its SQLSTATE if it fails.
    async fn run(&mut self, session: &str, sql: &str) -> Result<(), String> {
        let client = self.session(session).await;
        match tokio::time::timeout(PATIENCE, client.simple_query(sql)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(e.code().map(|c| c.code().to_string()).unwrap_or_default()),
            Err(_) => {
                self.sessions.remove(session);
                self.blocks.remove(session);
                Err("timeout".into())
            }
        }
    }

    async fn restart(&mut self) -> Result<(), Finding> {
        self.lives += 1;
        if self.way == Way::Straight {
            return Ok(());
        }
        self.sessions.clear();
        self.server.kill();
        if self.way == Way::Rescaled {
            self.server.set_arguments(&["--parallelism", ["1", "3", "2"][self.lives % 3]]);
        }
        self.server.try_restart().await.map_err(Finding::Misbehaved)
    }

    /// A script's statement. Views that it stands in the way of are compared first.
    async fn step(&mut self, session: &str, sql: &str, place: usize) -> Result<bool, Finding> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
        let mut done = self.run(session, sql).await;
        if done.as_ref().is_err_and(|state| state == "2BP01") && word == "DROP" {
            self.collect(place).await?;
            done = self.run(session, &format!("{} CASCADE", sql.trim_end_matches(';').trim_end_matches("RESTRICT"))).await;
        }
        match word.as_str() {
            "BEGIN" | "START" => drop(self.blocks.insert(session.to_string())),
            "COMMIT" | "ROLLBACK" | "END" | "ABORT" if !sql.to_uppercase().contains(" TO ") => drop(self.blocks.remove(session)),
            "SET" | "RESET" if done.is_ok() => self.settings.push((session.to_string(), sql.to_string())),
            _ => {}
        }
        self.statements += 1;
        if self.statements.is_multiple_of(STATEMENTS_PER_LIFE) && self.blocks.is_empty() {
            self.restart().await?;
        }
        Ok(done.is_ok())
    }

    /// Compares all views with their batch answer, and keeps their rows and those of the tables.
    async fn collect(&mut self, place: usize) -> Result<(), Finding> {
        let client = self.server.connect().await;
        let unsettled = "SELECT string_agg(name || ' ' || state, ', ') FROM millpond.jobs WHERE state IN ('BACKFILLING', 'RESTARTING')";
        becomes(&client, unsettled, "NULL").await.map_err(Finding::Misbehaved)?;
        let ask = async |sql: &str| rows(&client, sql).await.map_err(|e| Finding::Misbehaved(format!("{sql}: {}", describe(&e))));
        ask("FLUSH").await?;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let failed = ask("SELECT name FROM millpond.jobs WHERE state = 'FAILED'").await?.iter().map(|r| text(&r[0])).collect::<Vec<_>>();
        for row in ask("SELECT schemaname, matviewname, definition FROM pg_catalog.pg_matviews ORDER BY 1, 2").await? {
            let (name, view) = (text(&row[1]), format!("\"{}\".\"{}\"", text(&row[0]), text(&row[1])));
            let key = format!("{view} at statement {place}");
            if failed.contains(&name) {
                self.answers.insert(key, None);
                continue;
            }
            oracle::check(&client, &view, &text(&row[2]), &[]).await.map_err(Finding::Diverged)?;
            self.comparisons += 1;
            self.keep(&client, &view, key).await?;
        }
        for row in ask("SELECT schemaname, tablename FROM pg_catalog.pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'millpond')").await? {
            let table = format!("\"{}\".\"{}\"", text(&row[0]), text(&row[1]));
            self.keep(&client, &table, format!("table {table} at statement {place}")).await?;
        }
        Ok(())
    }

    async fn keep(&mut self, client: &Client, relation: &str, key: String) -> Result<(), Finding> {
        let mut found =
            rows(client, &format!("SELECT * FROM {relation}")).await.map_err(|e| Finding::Lost(format!("{key}: {}", describe(&e))))?;
        found.sort();
        self.answers.insert(key, Some(found));
        Ok(())
    }
}

/// A script's statements and queries with their sessions.
fn items(path: &Path) -> Vec<(String, String, bool)> {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path).unwrap_or_else(|e| panic!("{e}"));
    let name = |c: Connection| if let Connection::Named(name) = c { name } else { String::new() };
    let item = |record| match record {
        Record::Statement { connection, sql, .. } => Some((name(connection), sql, false)),
        Record::Query { connection, sql, .. } => Some((name(connection), sql, true)),
        _ => None,
    };
    records.into_iter().filter_map(item).collect()
}

/// Plays a script, with every query of it as a view if it can be one.
async fn play(path: &Path, way: Way) -> Result<Replay, Finding> {
    let items = items(path);
    let is_select = |sql: &str| ["SELECT", "WITH", "VALUES"].iter().any(|word| sql.trim_start().to_uppercase().starts_with(word));
    let mut wanted =
        items.iter().enumerate().filter(|(_, (.., query))| *query).map(|(at, (_, sql, _))| (at, sql.clone())).collect::<Vec<_>>();
    wanted.retain(|(_, sql)| is_select(sql));
    wanted.dedup_by(|a, b| a.1 == b.1);
    let mut replay = Replay::start(way).await;
    for (at, (session, sql, _)) in items.iter().enumerate() {
        let done = replay.step(session, sql, at).await?;
        if !done || !sql.trim_start().to_uppercase().starts_with("CREATE") {
            continue;
        }
        let mut later = Vec::new();
        for (query, sql) in wanted {
            match replay.run("views", &format!("CREATE MATERIALIZED VIEW three_way_{query} AS {}", sql.trim_end_matches(';'))).await {
                Err(state) if state == "42P01" => later.push((query, sql)),
                _ => {}
            }
        }
        wanted = later;
    }
    replay.restart().await?;
    replay.collect(items.len()).await?;
    Ok(replay)
}

/// Nexmark's queries, all at once, over streams that end.
async fn play_nexmark(way: Way) -> Result<Replay, Finding> {
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let folder = repository().join("sql/nexmark");
    let mut replay = Replay::start(way).await;
    let sources = text(&folder.join("sources.sql")).replace("connector = 'nexmark'", &format!("connector = 'nexmark', {EVENTS}"));
    let fine = |done: Result<(), String>, what: &str| done.map_err(|state| Finding::Misbehaved(format!("{what}: {state}")));
    fine(replay.run("", &sources).await, "sources.sql")?;
    fine(replay.run("", "SET background_ddl = on").await, "SET")?;
    let mut queries = files(&folder, "sql");
    queries.retain(|path| !path.ends_with("sources.sql"));
    for query in queries {
        fine(replay.run("", &text(&query)).await, &query.display().to_string())?;
    }
    for _ in 0..LIVES {
        tokio::time::sleep(Duration::from_millis(200)).await;
        replay.restart().await?;
    }
    let client = replay.server.connect().await;
    becomes(&client, "SELECT count(*) FROM millpond.sources WHERE NOT finished", "0").await.map_err(Finding::Misbehaved)?;
    replay.collect(0).await?;
    Ok(replay)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    found.retain(|p| p.extension().is_some_and(|e| e == extension));
    found.sort();
    found
}

/// `planned`: the script makes views fail. Their count of calls begins anew with each start, so such a view may fail in one way only.
fn compare(way: Way, one: &Answers, other: &Answers, planned: bool) -> Result<(), Finding> {
    for key in one.keys().chain(other.keys()) {
        let (found, expected) = (other.get(key), one.get(key));
        // Restarted, a view that has failed is tried again, and so is what it stood in the way of.
        let tried_again = expected == Some(&None) || expected.is_none() && !key.starts_with("table");
        let failed_here = planned && found == Some(&None);
        if found != expected && !tried_again && !failed_here {
            let short = |rows: Option<&Option<Vec<_>>>| format!("{rows:?}").chars().take(400).collect::<String>();
            let text = format!("{key}, {way:?}: {}\nstraight: {}", short(found), short(expected));
            return Err(if key.starts_with("table") { Finding::Lost(text) } else { Finding::Diverged(text) });
        }
    }
    Ok(())
}

/// All three ways of a script, or of Nexmark.
async fn all_ways(script: Option<&Path>) -> Result<(usize, usize, usize), Finding> {
    let mut replays = Vec::new();
    for way in [Way::Straight, Way::Killed, Way::Rescaled] {
        let context = |f: Finding| f.context(&format!("{way:?}"));
        replays.push(match script {
            Some(path) => play(path, way).await.map_err(context)?,
            None => play_nexmark(way).await.map_err(context)?,
        });
    }
    let straight = replays.remove(0);
    let planned = script.is_some_and(|p| std::fs::read_to_string(p).unwrap().contains("millpond_fail_after"));
    for other in &replays {
        compare(other.way, &straight.answers, &other.answers, planned)?;
    }
    let views = straight.answers.keys().filter(|k| !k.starts_with("table")).count();
    let comparisons = straight.comparisons + replays.iter().map(|r| r.comparisons + r.answers.len()).sum::<usize>();
    Ok((views, replays.iter().map(|r| r.lives).sum(), comparisons))
}

/// Every script of `tests/slt` and Nexmark, as far as their names have this part. Prints what came of them and returns what was found.
pub async fn table(part_of_name: &str) -> Tally {
    let mut found = Tally::default();
    println!("{:<24} {:>6} {:>9} {:>12}  result", "script", "views", "restarts", "comparisons");
    // A script without a batch form says so.
    let scripts = files(&repository().join("tests/slt"), "slt");
    let with_batch = |p: &&PathBuf| !std::fs::read_to_string(p).unwrap().contains("# oracle: off");
    for script in scripts.iter().filter(with_batch).map(Some).chain([None]) {
        let name = script.map_or("nexmark".into(), |p| p.file_name().unwrap_or_default().to_string_lossy().into_owned());
        if !name.contains(part_of_name) {
            continue;
        }
        match all_ways(script.map(PathBuf::as_path)).await {
            Ok((views, restarts, comparisons)) => println!("{name:<24} {views:>6} {restarts:>9} {comparisons:>12}  equal"),
            Err(finding) => found.add(&finding.context(&name)),
        }
    }
    found
}
