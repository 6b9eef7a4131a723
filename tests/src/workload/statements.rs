//! Random statements of every kind that changes a database, with what must be there after each of them.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

/// A table's rows: `id` and `v`.
pub type Rows = BTreeMap<i64, i64>;

/// A database's relations and settings. Everything has the columns `id` and `v`. Names outside of `public` have their schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Tables with their rows.
    pub tables: BTreeMap<String, Rows>,
    /// Materialized views.
    pub views: BTreeMap<String, View>,
    /// Sources.
    pub sources: BTreeSet<String>,
    /// Schemas beside `public`.
    pub schemas: BTreeSet<String>,
    /// What ALTER SYSTEM changes here.
    pub settings: BTreeMap<String, String>,
}

/// A materialized view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its option `restart_attempts`.
    pub attempts: Option<i64>,
    /// What it reads.
    pub inputs: Vec<String>,
    /// How.
    pub query: String,
}

/// A database with its savepoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// As it is.
    pub live: Contents,
    /// As it was.
    pub savepoints: BTreeMap<String, Contents>,
}

/// Settings that ALTER SYSTEM changes here, and the unit of their values. They make checkpoints frequent, and change RocksDB's options.
pub const SETTINGS: [(&str, i64, &str); 4] = [
    ("checkpoint_interval", 20, "ms"),
    ("checkpoint_min_pause", 1, "ms"),
    ("checkpoint_retention", 0, ""),
    ("rocksdb_write_buffer_size", 100, "kB"),
];

/// Nexmark events of a source.
const EVENTS: i64 = 1000;

/// A kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // SQL's words
pub enum Kind {
    CreateTable,
    CreateTableAs,
    CreateSource,
    CreateView,
    ReplaceView,
    CreateSchema,
    DropTable,
    DropSource,
    DropView,
    DropSchema,
    RenameView,
    AlterSystem,
    AlterView,
    RestartView,
    Write,
    Checkpoint,
    Savepoint,
    Release,
    Restore,
}

const KINDS: [Kind; 19] = {
    use Kind::*;
    [
        CreateTable,
        CreateTableAs,
        CreateSource,
        CreateView,
        ReplaceView,
        CreateSchema,
        DropTable,
        DropSource,
        DropView,
        DropSchema,
        RenameView,
        AlterSystem,
        AlterView,
        RestartView,
        Write,
        Checkpoint,
        Savepoint,
        Release,
        Restore,
    ]
};

/// A statement, or a transaction.
#[derive(Clone, Debug)]
pub struct Step {
    /// Of this kind.
    pub kind: Kind,
    /// Its text.
    pub sql: String,
    /// What must be there once it is answered.
    pub after: World,
}

/// Makes statements.
pub struct Statements {
    /// Decides everything.
    pub random: StdRng,
    /// Names that have been given.
    names: usize,
}

impl Statements {
    /// From a seed.
    pub fn new(random: StdRng) -> Self {
        Statements { random, names: 0 }
    }

    /// The next one, often a write or of the kind that is wanted.
    pub fn next(&mut self, world: &World, wanted: Option<Kind>) -> Step {
        loop {
            let kind = match (self.random.random_range(0..10), wanted) {
                (0..4, Some(kind)) => kind,
                (4..7, _) => Kind::Write,
                _ => *KINDS.iter().choose(&mut self.random).expect("not empty"),
            };
            let mut after = world.clone();
            if let Some(sql) = self.make(kind, &mut after) {
                return Step { kind, sql, after };
            }
        }
    }

    fn name(&mut self, letter: &str) -> String {
        self.names += 1;
        format!("{letter}{}", self.names)
    }

    fn one(&mut self, names: impl Iterator<Item = String>) -> Option<String> {
        names.choose(&mut self.random)
    }

    /// `None`: not possible now.
    fn make(&mut self, kind: Kind, world: &mut World) -> Option<String> {
        let live = &mut world.live;
        Some(match kind {
            Kind::CreateTable => {
                let (room, schema) = (live.tables.len() < 5, self.one(live.schemas.iter().cloned()));
                let name = self.name("t");
                let name = schema.filter(|_| self.random.random_bool(0.5)).map_or(name.clone(), |s| format!("{s}.{name}"));
                let sql = format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY, v BIGINT)");
                live.tables.insert(name, Rows::new());
                room.then_some(sql)?
            }
            Kind::CreateTableAs => {
                let from = self.one(live.tables.iter().filter(|(_, rows)| !rows.is_empty()).map(|(name, _)| name.clone()))?;
                let (room, name) = (live.tables.len() < 6, self.name("t"));
                let rows = live.tables.get(&from)?.iter().map(|(id, v)| (*id, v + 1)).collect();
                live.tables.insert(name.clone(), rows);
                room.then(|| format!("CREATE TABLE {name} AS SELECT id, v + 1 AS v FROM {from}"))?
            }
            Kind::CreateSource => {
                let (room, name) = (live.sources.len() < 2, self.name("s"));
                live.sources.insert(name.clone());
                room.then(|| {
                    format!(
                        "CREATE SOURCE {name} WITH (connector = 'nexmark', type = 'bid', events = '{EVENTS}', seed = '7', rate = '5000')"
                    )
                })?
            }
            Kind::CreateView => {
                let over = live.tables.keys().chain(live.views.keys()).cloned().collect::<Vec<_>>();
                let room = live.views.len() < 6;
                let (name, view) = (self.name("m"), self.view(&over, live)?);
                let sql = format!("CREATE MATERIALIZED VIEW {name} AS {}", view.query);
                live.views.insert(name, view);
                room.then_some(sql)?
            }
            Kind::ReplaceView => {
                let name = self.one(live.views.keys().cloned())?;
                // Over tables alone: it must not read itself.
                let tables = live.tables.keys().cloned().collect::<Vec<_>>();
                let attempts = live.views.get(&name)?.attempts;
                let view = View { attempts, ..self.view(&tables, live)? };
                let sql = format!("CREATE OR REPLACE MATERIALIZED VIEW {name} AS {}", view.query);
                live.views.insert(name, view);
                sql
            }
            Kind::CreateSchema => {
                let (room, name) = (live.schemas.len() < 2, self.name("a"));
                live.schemas.insert(name.clone());
                room.then(|| format!("CREATE SCHEMA {name}"))?
            }
            Kind::DropTable => {
                let name = self.one(live.tables.keys().cloned())?;
                live.drop(&name);
                format!("DROP TABLE {name} CASCADE")
            }
            Kind::DropSource => {
                let name = self.one(live.sources.iter().cloned())?;
                live.drop(&name);
                format!("DROP SOURCE {name} CASCADE")
            }
            Kind::DropView => {
                let name = self.one(live.views.keys().cloned())?;
                live.drop(&name);
                format!("DROP MATERIALIZED VIEW {name} CASCADE")
            }
            Kind::DropSchema => {
                let name = self.one(live.schemas.iter().cloned())?;
                let inside = live.tables.keys().filter(|t| t.starts_with(&format!("{name}."))).cloned().collect::<Vec<_>>();
                inside.iter().for_each(|table| live.drop(table));
                live.schemas.remove(&name);
                format!("DROP SCHEMA {name} CASCADE")
            }
            Kind::RenameView => {
                let unread = |name: &&String| !live.views.values().any(|v| v.inputs.contains(name));
                let name = self.one(live.views.keys().filter(unread).cloned())?;
                let new = self.name("m");
                let view = live.views.remove(&name)?;
                live.views.insert(new.clone(), view);
                format!("ALTER MATERIALIZED VIEW {name} RENAME TO {new}")
            }
            Kind::AlterSystem => {
                let (name, least, unit) = SETTINGS.iter().choose(&mut self.random)?;
                let value = format!("{}{unit}", self.random.random_range(*least..least + 3));
                live.settings.insert((*name).to_string(), value.clone());
                format!("ALTER SYSTEM SET {name} = '{value}'")
            }
            Kind::AlterView => {
                let name = self.one(live.views.keys().cloned())?;
                let attempts = self.random.random_range(1..100);
                live.views.get_mut(&name)?.attempts = Some(attempts);
                format!("ALTER MATERIALIZED VIEW {name} SET (restart_attempts = {attempts})")
            }
            Kind::RestartView => format!("ALTER MATERIALIZED VIEW {} RESTART", self.one(live.views.keys().cloned())?),
            Kind::Write => self.write(live)?,
            Kind::Checkpoint => (if self.random.random_bool(0.8) { "CHECKPOINT" } else { "CHECKPOINT (FULL)" }).to_string(),
            Kind::Savepoint => {
                let (room, name) = (world.savepoints.len() < 3, self.name("p"));
                world.savepoints.insert(name.clone(), world.live.clone());
                room.then(|| format!("SAVEPOINT {name}"))?
            }
            Kind::Release => {
                let name = self.one(world.savepoints.keys().cloned())?;
                world.savepoints.remove(&name);
                format!("RELEASE SAVEPOINT {name}")
            }
            Kind::Restore => {
                let name = self.one(world.savepoints.keys().cloned())?;
                world.live = world.savepoints.get(&name)?.clone();
                format!("RESTORE SAVEPOINT {name}")
            }
        })
    }

    fn view(&mut self, over: &[String], live: &Contents) -> Option<View> {
        let (one, two) = (self.one(over.iter().cloned()), self.one(over.iter().cloned()));
        let source = self.one(live.sources.iter().cloned());
        let (query, inputs) = match (self.random.random_range(0..6), one, two, source) {
            (0, _, _, Some(s)) => (format!("SELECT auction AS id, max(price)::bigint AS v FROM {s} GROUP BY auction"), vec![s]),
            (1, Some(a), Some(b), _) => (format!("SELECT a.id, a.v + b.v AS v FROM {a} a JOIN {b} b ON a.id = b.id"), vec![a, b]),
            (2, Some(a), ..) => (format!("SELECT id, v FROM {a} WHERE v % 2 = 0"), vec![a]),
            (3, Some(a), ..) => (format!("SELECT id, v FROM {a} ORDER BY v DESC, id LIMIT 3"), vec![a]),
            (4, Some(a), Some(b), _) => {
                (format!("SELECT id, v FROM {a} WHERE id NOT IN (SELECT id FROM {b} WHERE id IS NOT NULL)"), vec![a, b])
            }
            (_, Some(a), ..) => (format!("SELECT v % 5 AS id, sum(v)::bigint AS v FROM {a} GROUP BY v % 5"), vec![a]),
            _ => return None,
        };
        Some(View { attempts: None, inputs, query })
    }

    fn write(&mut self, live: &mut Contents) -> Option<String> {
        let mut sql = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let name = self.one(live.tables.keys().cloned())?;
            let rows = live.tables.get_mut(&name)?;
            let id = self.random.random_range(0..50i64);
            match self.random.random_range(0..5) {
                0..3 => {
                    let fresh = (id..id + self.random.random_range(1..20)).filter(|id| !rows.contains_key(id)).collect::<Vec<_>>();
                    if !fresh.is_empty() {
                        let values = fresh.iter().map(|id| format!("({id}, {})", id * 3)).collect::<Vec<_>>();
                        sql.push(format!("INSERT INTO {name} VALUES {}", values.join(", ")));
                        rows.extend(fresh.into_iter().map(|id| (id, id * 3)));
                    }
                }
                3 => {
                    rows.range_mut(id..=id + 9).for_each(|(_, v)| *v += 1);
                    sql.push(format!("UPDATE {name} SET v = v + 1 WHERE id BETWEEN {id} AND {}", id + 9));
                }
                _ => {
                    rows.retain(|key, _| !(id..=id + 4).contains(key));
                    sql.push(format!("DELETE FROM {name} WHERE id BETWEEN {id} AND {}", id + 4));
                }
            }
        }
        match sql.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("BEGIN; {}; COMMIT", many.join("; "))),
        }
    }
}

impl Contents {
    /// A relation goes, and what reads from it.
    fn drop(&mut self, name: &str) {
        self.tables.remove(name);
        self.sources.remove(name);
        self.views.remove(name);
        let readers = self.views.iter().filter(|(_, v)| v.inputs.iter().any(|i| i == name)).map(|(n, _)| n.clone()).collect::<Vec<_>>();
        readers.iter().for_each(|reader| self.drop(reader));
    }

    /// Sources whose rows somebody reads.
    pub fn sources_in_use(&self) -> impl Iterator<Item = &String> {
        self.sources.iter().filter(|s| self.views.values().any(|v| v.inputs.contains(s)))
    }
}
