//! `millpond`: what the engine is doing.

use millpond_common::settings::{SETTINGS, Scope};
use millpond_common::{JobId, RelationId};
use millpond_engine::JobState;

use super::facts::Kind;
use super::rows::{Rows, Value, row};
use super::snapshot::SystemSnapshot;

/// Adds the rows of one relation.
pub fn fill(name: &str, snapshot: &SystemSnapshot, rows: &mut Rows) {
    match name {
        "jobs" => jobs(snapshot, rows),
        "progress" => progress(snapshot, rows),
        "sources" => sources(snapshot, rows),
        "checkpoint_storage" => checkpoint_storage(snapshot, rows),
        "checkpoints" => checkpoints(snapshot, rows),
        "savepoints" => savepoints(snapshot, rows),
        "dead_letters" => dead_letters(snapshot, rows),
        "operators" => operators(snapshot, rows),
        "relations" => relations(snapshot, rows),
        "settings" => settings(snapshot, rows),
        _ => {}
    }
}

fn schema_and_name(snapshot: &SystemSnapshot, id: RelationId) -> (Option<String>, Option<String>) {
    let relation = snapshot.catalog.get(id);
    (relation.map(|r| r.schema.clone()), relation.map(|r| r.name.clone()))
}

fn jobs(snapshot: &SystemSnapshot, rows: &mut Rows) {
    for job in snapshot.engine.jobs() {
        let (schema, relation) = schema_and_name(snapshot, job.relation);
        let error = job.state.error().map(ToString::to_string);
        row!(rows;
            id: job.id.0, name: &job.name, schema: schema, relation: relation, state: job.state.name(), rows_done: job.rows_done,
            rows_total: job.rows_total, epoch: job.epoch, input_rows: job.input_rows, output_rows: job.output_rows,
            attempts: job.attempts, next_try: job.next_try, error: error,
        );
    }
}

fn progress(snapshot: &SystemSnapshot, rows: &mut Rows) {
    for job in snapshot.engine.jobs().into_iter().filter(|j| matches!(j.state, JobState::Backfilling)) {
        let fraction = job.rows_total.filter(|n| *n > 0).map(|n| (job.rows_done as f64 / n as f64).min(1.0));
        row!(rows; job_id: job.id.0, job: &job.name, state: job.state.name(), rows_done: job.rows_done, rows_total: job.rows_total, fraction: fraction);
    }
}

/// Every declared source, also one that nothing reads.
fn sources(snapshot: &SystemSnapshot, rows: &mut Rows) {
    let running = snapshot.engine.sources();
    for r in snapshot.facts().relations.iter().filter(|r| r.kind == Kind::Source) {
        let Some(relation) = snapshot.catalog.by_oid(r.oid) else { continue };
        let connector = r.options.iter().find(|(k, _)| k == "connector").map(|(_, v)| v.clone());
        match running.iter().find(|s| s.relation == relation.id) {
            Some(s) => row!(rows;
                schema: &r.schema, name: &r.name, connector: connector.as_ref().unwrap_or(&s.connector), position: &s.position,
                rows_read: s.rows_read, bad_rows: s.bad_rows, dead_letters: s.dead_letters, finished: s.finished, error: s.error.as_ref(),
            ),
            None => {
                row!(rows; schema: &r.schema, name: &r.name, connector: connector, rows_read: 0, bad_rows: 0, dead_letters: 0, finished: false)
            }
        }
    }
}

fn checkpoints(snapshot: &SystemSnapshot, rows: &mut Rows) {
    for c in snapshot.engine.checkpoints() {
        row!(rows;
            epoch: c.epoch, kind: c.kind, state: c.state, started_at: c.started, duration: c.duration, stall: c.stall, bytes: c.bytes,
            total_bytes: c.total_bytes, entries: c.entries, error: c.error.as_ref(),
        );
    }
}

fn checkpoint_storage(snapshot: &SystemSnapshot, rows: &mut Rows) {
    if let Some((url, status)) = &snapshot.storage {
        let last = status.last.as_ref();
        row!(rows;
            url: url, uploads: status.completed, failed_uploads: status.failed, last_epoch: last.map(|(u, _)| u.epoch), last_upload: last.map(|(_, at)| *at),
            last_bytes: last.map(|(u, _)| u.bytes_sent), last_files: last.map(|(u, _)| u.files_sent), error: status.error.as_ref().map(ToString::to_string),
            lost: status.lost,
        );
    }
}

/// Also those of sources that were dropped.
fn dead_letters(snapshot: &SystemSnapshot, rows: &mut Rows) {
    let letters = snapshot.engine.dead_letters().unwrap_or_else(|error| {
        tracing::error!(%error, "dead letters cannot be read");
        Vec::new()
    });
    for letter in letters {
        let (schema, source) = schema_and_name(snapshot, letter.source);
        row!(rows;
            schema: schema, source: source, position: letter.position, raw: Value::Bytes(letter.raw), error: letter.error, at: Value::Time(letter.at),
        );
    }
}

fn savepoints(snapshot: &SystemSnapshot, rows: &mut Rows) {
    let list = snapshot.engine.store().savepoint_list().unwrap_or_else(|error| {
        tracing::warn!(%error, "savepoints cannot be listed");
        Vec::new()
    });
    for (name, savepoint) in list {
        match savepoint {
            Ok(s) => row!(rows;
                name: name, kind: s.kind.as_str(), epoch: s.epoch, created_at: s.created, duration: s.duration, bytes: s.bytes, comment: s.comment,
            ),
            Err(error) => row!(rows; name: name, error: error.to_string(),),
        }
    }
}

fn operators(snapshot: &SystemSnapshot, rows: &mut Rows) {
    let names: std::collections::BTreeMap<JobId, String> = snapshot.engine.jobs().into_iter().map(|j| (j.id, j.name)).collect();
    for o in snapshot.engine.operators() {
        row!(rows;
            job_id: o.job.0, job: names.get(&o.job), node: o.node, operator: &o.name, worker: o.worker, rows_in: o.rows_in, rows_out: o.rows_out,
            state_rows: o.state_rows, state_bytes: o.state_bytes, busy: o.busy,
        );
    }
}

fn relations(snapshot: &SystemSnapshot, rows: &mut Rows) {
    for (relation, r) in snapshot.catalog.relations().zip(&snapshot.facts().relations) {
        row!(rows;
            id: relation.id.0, oid: r.oid, schema: &r.schema, name: &r.name, kind: relation.noun(), definition: r.definition.as_ref(),
            rows_estimate: r.rows, comment: r.comment.as_ref(),
        );
    }
}

fn settings(snapshot: &SystemSnapshot, rows: &mut Rows) {
    for s in SETTINGS {
        let scope = match s.scope {
            Scope::Session => "session",
            Scope::System => "system",
            Scope::ReadOnly => "read-only",
        };
        let value = snapshot.settings.get(s.name).unwrap_or_default();
        row!(rows; name: s.name, value: value, default_value: s.default, scope: scope, description: s.description);
    }
}
