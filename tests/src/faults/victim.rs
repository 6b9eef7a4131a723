//! A server that statements of every kind are sent to, until something happens to it; and whether it then has all that was
//! answered, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_postgres::Client;

use crate::finding::Finding;
use crate::oracle;
use crate::server::{Server, becomes, describe, rows, value};
use crate::workload::statements::{Contents, Kind, Rows, SETTINGS, Statements, View, World};

/// How statements came to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All were answered.
    Done,
    /// The server is gone.
    Died,
    /// A statement has failed, with this error; the server runs.
    Refused(String),
}

/// The server, with what it must have.
pub struct Victim {
    /// The server itself.
    pub server: Server,
    /// What was answered.
    pub world: World,
    /// What would be there if the statement that was not answered had happened.
    doubt: Option<World>,
    /// Makes the statements, and decides all else.
    pub statements: Statements,
    /// A bug of `millpond_state::planted` that it is to have from its next start on.
    pub plant: Option<String>,
    /// Statements that were answered.
    pub answered: usize,
    /// Relations, savepoints and views that were compared.
    pub comparisons: usize,
    /// What was sent last, for who has to understand a finding.
    history: VecDeque<String>,
}

/// Length of that history.
const HISTORY: usize = 25;

impl Victim {
    /// Starts a server on a new directory.
    pub async fn start(dir: &Path, seed: u64, arguments: &[&str]) -> Victim {
        let server = Server::start(dir, arguments).await;
        let statements = Statements::new(StdRng::seed_from_u64(seed));
        let (client, mut world) = (server.connect().await, World::default());
        for (name, ..) in SETTINGS {
            world.live.settings.insert(name.into(), value(&client, &format!("SHOW {name}")).await);
        }
        Victim { server, world, doubt: None, statements, plant: None, answered: 0, comparisons: 0, history: VecDeque::new() }
    }

    /// Sends statements, at most so many. Many are of the kind that is wanted.
    pub async fn work(&mut self, steps: usize, wanted: Option<Kind>) -> Ended {
        let mut client = self.reconnect().await;
        for _ in 0..steps {
            let Some(session) = &client else { return Ended::Died };
            let step = self.statements.next(&self.world, wanted);
            // It may be that nobody waits for the end.
            self.doubt = Some(step.after);
            self.note(step.sql.clone());
            match session.simple_query(&step.sql).await {
                Ok(_) => {
                    self.answered += 1;
                    self.note("answered".into());
                    self.world = self.doubt.take().expect("set above");
                    if step.kind == Kind::Restore {
                        client = self.reconnect().await;
                    }
                }
                Err(error) => {
                    let told = error.as_db_error().is_some();
                    // It may be on its way down.
                    let patience = Instant::now() + Duration::from_millis(if told { 300 } else { 10_000 });
                    while self.server.is_running() && Instant::now() < patience {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    if self.server.is_running() {
                        return Ended::Refused(format!("{}\n{}", step.sql, describe(&error)));
                    }
                    return Ended::Died;
                }
            }
        }
        Ended::Done
    }

    /// A session; after RESTORE the server is away for a moment. `None`: it is gone.
    async fn reconnect(&mut self) -> Option<Client> {
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience && self.server.is_running() {
            match self.server.try_connect().await {
                Some(client) => return Some(client),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        None
    }

    /// Ends the server at once, and starts it with this environment.
    pub async fn restart(&mut self, environment: &[(&str, &str)]) -> Result<(), Finding> {
        self.server.kill();
        self.note(format!("restart {environment:?}"));
        let plant = self.plant.as_deref().map(|bug| ("MILLPOND_PLANT", bug));
        self.server.set_environment(&[environment, plant.as_slice()].concat());
        self.server.try_restart().await.map_err(Finding::Misbehaved)
    }

    fn note(&mut self, what: String) {
        self.history.push_back(what);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Whether everything is there, and every view is its query.
    pub async fn verify(&mut self) -> Result<(), Finding> {
        let verified = self.compare().await;
        verified.map_err(|finding| finding.context(&format!("after{}\n", self.history())))
    }

    /// What was sent last, a line each.
    pub fn history(&self) -> String {
        self.history.iter().map(|line| format!("\n  | {line}")).collect()
    }

    async fn compare(&mut self) -> Result<(), Finding> {
        let Some(client) = self.reconnect().await else {
            return Err(Finding::Misbehaved(format!("the server is gone\n{}", self.server.log())));
        };
        let found = self.look(&client).await?;
        match self.doubt.take() {
            Some(doubt) if found == doubt => self.world = doubt,
            _ if found == self.world => {}
            doubt => return Err(Finding::Lost(difference(&found, &self.world, doubt.as_ref()))),
        }
        self.comparisons += found.live.tables.len() + found.savepoints.len();
        for source in self.world.live.sources_in_use() {
            let finished = format!("SELECT finished FROM millpond.sources WHERE name = '{source}'");
            becomes(&client, &finished, "t").await.map_err(Finding::Misbehaved)?;
        }
        client.simple_query("FLUSH").await.map_err(|e| Finding::Misbehaved(describe(&e)))?;
        self.comparisons += oracle::check_all(&client, &[]).await.map_err(Finding::Diverged)?;
        Ok(())
    }

    /// The same for a server that has refused a statement, and may be on its way down. Returns whether it goes on.
    pub async fn verify_refused(&mut self) -> Result<bool, Finding> {
        let doubt = self.doubt.clone();
        let Err(finding) = self.verify().await else { return Ok(true) };
        let patience = Instant::now() + Duration::from_secs(10);
        while self.server.is_running() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.server.is_running() {
            return Err(finding);
        }
        self.doubt = doubt;
        Ok(false)
    }

    /// What is there. What cannot be read is lost.
    async fn look(&self, client: &Client) -> Result<World, Finding> {
        let ask = async |sql: String| rows(client, &sql).await.map_err(|e| Finding::Lost(format!("{sql}: {}", describe(&e))));
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let mut live = Contents::default();
        let relations = "SELECT n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
            ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'millpond')";
        for row in ask(relations.into()).await? {
            let (schema, name) = (text(&row[0]), text(&row[1]));
            let name = if schema == "public" { name } else { format!("{schema}.{name}") };
            match text(&row[2]).as_str() {
                "r" => drop(live.tables.insert(name.clone(), read(client, &name).await?)),
                "m" => {
                    let shown = ask(format!("SHOW CREATE MATERIALIZED VIEW {name}")).await?;
                    let shown = shown.first().and_then(|r| r.last()).map(text).unwrap_or_default();
                    let attempts = shown.split_once("restart_attempts = '").and_then(|(_, rest)| rest.split_once('\'')?.0.parse().ok());
                    // Whether its rows are what it asks for is for the oracle to say.
                    let known = self.known(&name, &shown).cloned().unwrap_or_default();
                    live.views.insert(name, View { attempts, ..known });
                }
                _ => drop(live.sources.insert(name)),
            }
        }
        let schemas = "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE 'a%'";
        live.schemas = ask(schemas.into()).await?.iter().map(|r| text(&r[0])).collect();
        for (name, ..) in SETTINGS {
            live.settings.insert(name.into(), value(client, &format!("SHOW {name}")).await);
        }
        let mut savepoints = BTreeMap::new();
        for row in ask("SELECT name FROM millpond.savepoints WHERE kind = 'manual'".into()).await? {
            let name = text(&row[0]);
            // Compared as far as statements can read it: its tables and their rows.
            let known = [Some(&self.world), self.doubt.as_ref()].into_iter().flatten().find_map(|w| w.savepoints.get(&name));
            let mut contents = known.cloned().unwrap_or_default();
            for (table, rows) in &mut contents.tables {
                *rows = read(client, &format!("{table} FOR SYSTEM_TIME AS OF SAVEPOINT {name}")).await?;
            }
            savepoints.insert(name, contents);
        }
        Ok(World { live, savepoints })
    }

    /// The view of this name whose query is in its definition.
    fn known(&self, view: &str, definition: &str) -> Option<&View> {
        let worlds = [Some(&self.world), self.doubt.as_ref()].into_iter().flatten();
        worlds.filter_map(|w| w.live.views.get(view)).find(|v| definition.contains(&v.query))
    }
}

async fn read(client: &Client, relation: &str) -> Result<Rows, Finding> {
    let sql = format!("SELECT id, v FROM {relation}");
    let found = rows(client, &sql).await.map_err(|e| Finding::Lost(format!("{sql}: {}", describe(&e))))?;
    let number = |t: &Option<String>| t.as_ref().and_then(|t| t.parse::<i64>().ok()).unwrap_or(i64::MIN);
    let count = found.len();
    let map = found.iter().map(|r| (number(&r[0]), number(&r[1]))).collect::<Rows>();
    if map.len() == count { Ok(map) } else { Err(Finding::Diverged(format!("{relation} has a row twice: {found:?}"))) }
}

/// Where what was found is not what was expected.
fn difference(found: &World, expected: &World, doubt: Option<&World>) -> String {
    let names = |c: &Contents| {
        let all = c.tables.keys().chain(c.views.keys()).chain(&c.sources).chain(&c.schemas);
        all.cloned().collect::<BTreeSet<_>>()
    };
    let mut lines = Vec::new();
    let (there, wanted) = (names(&found.live), names(&expected.live));
    lines.push(format!("missing: {:?}", wanted.difference(&there).collect::<Vec<_>>()));
    lines.push(format!("too many: {:?}", there.difference(&wanted).collect::<Vec<_>>()));
    for (name, rows) in &expected.live.tables {
        if found.live.tables.get(name).is_some_and(|f| f != rows) {
            lines.push(format!("{name} holds {:?}, expected {rows:?}", found.live.tables.get(name)));
        }
    }
    for (name, view) in &expected.live.views {
        if found.live.views.get(name).is_some_and(|f| f != view) {
            lines.push(format!("{name} is {:?}, expected {view:?}", found.live.views.get(name)));
        }
    }
    lines.push(format!("settings {:?}, expected {:?}", found.live.settings, expected.live.settings));
    for (name, contents) in &expected.savepoints {
        let found = found.savepoints.get(name).map(|c| &c.tables);
        if found != Some(&contents.tables) {
            lines.push(format!("savepoint {name} holds {found:?}, expected {:?}", contents.tables));
        }
    }
    lines.push(format!("savepoints {:?}, expected {:?}", found.savepoints.keys(), expected.savepoints.keys()));
    if let Some(doubt) = doubt {
        lines.push(format!("or, if the last statement happened: {:?}", names(&doubt.live)));
    }
    lines.join("\n")
}
