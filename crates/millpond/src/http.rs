//! The HTTP port: `/healthz` and Prometheus' `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use millpond_common::{Error, JobId, Result};
use millpond_engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Figures that are not of this scrape but of one so long ago go: what they are of was dropped. Long enough for scrapes at the same time.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// Serves until the process ends. While no engine is shown, as the database is being opened, both say 503.
pub async fn serve(listener: TcpListener, engine: watch::Receiver<Option<Engine>>) -> Result<()> {
    let recorder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(GONE_AFTER)).install_recorder();
    let handle = recorder.map_err(|e| Error::internal(format!("cannot install the metrics recorder: {e}")))?;
    let health = engine.clone();
    let app = Router::new()
        .route("/healthz", get(move || async move { answer(health.borrow().is_some().then(|| "ok\n".to_owned())) }))
        .route("/metrics", get(move || async move { answer(engine.borrow().as_ref().map(|engine| render(engine, &handle))) }));
    Ok(axum::serve(listener, app).await?)
}

fn answer(text: Option<String>) -> (StatusCode, String) {
    text.map_or_else(|| (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()), |text| (StatusCode::OK, text))
}

/// Takes the figures at the moment of the scrape; between scrapes metrics cost nothing.
fn render(engine: &Engine, handle: &PrometheusHandle) -> String {
    let store = engine.store().stats();
    gauge!("millpond_epoch").set(engine.epoch() as f64);
    gauge!("millpond_visible_epoch").set(engine.store().visible_epoch() as f64);
    gauge!("millpond_store_disk_bytes").set(store.disk_bytes as f64);
    gauge!("millpond_store_files").set(store.files as f64);
    gauge!("millpond_store_uncommitted_rows").set(store.overlay_rows as f64);
    gauge!("millpond_store_uncommitted_bytes").set(store.overlay_bytes as f64);
    let mut names = BTreeMap::new();
    for job in engine.jobs() {
        let of = [("schema", job.spec.namespace.clone()), ("view", job.name.clone())];
        gauge!("millpond_job_input_rows", &of).set(job.input_rows as f64);
        gauge!("millpond_job_output_rows", &of).set(job.output_rows as f64);
        let failed = f64::from(u8::from(job.state.name() == "FAILED"));
        gauge!("millpond_job_failed", &of).set(failed);
        gauge!("millpond_job_restarts", &of).set(job.attempts as f64);
        names.insert(job.id, of);
    }
    for source in engine.sources() {
        let of = [("schema", source.namespace), ("source", source.name)];
        gauge!("millpond_source_rows", &of).set(source.rows_read as f64);
        gauge!("millpond_source_bad_rows", &of).set(source.bad_rows as f64);
        gauge!("millpond_source_dead_letters", &of).set(source.dead_letters as f64);
    }
    let checkpoints = engine.checkpoints();
    let completed = checkpoints.iter().filter(|c| c.state == "COMPLETED");
    gauge!("millpond_checkpoints_failed").set(checkpoints.iter().filter(|c| c.state == "FAILED").count() as f64);
    if let Some(last) = completed.max_by_key(|c| c.epoch) {
        gauge!("millpond_checkpoint_epoch").set(last.epoch as f64);
        gauge!("millpond_checkpoint_duration_seconds").set(last.duration.as_secs_f64());
        gauge!("millpond_checkpoint_stall_seconds").set(last.stall.as_secs_f64());
        gauge!("millpond_checkpoint_bytes").set(last.bytes as f64);
    }
    let mut state = BTreeMap::<JobId, (u64, u64)>::new();
    for operator in engine.operators() {
        let entry = state.entry(operator.job).or_default();
        entry.0 += operator.state_rows;
        entry.1 += operator.state_bytes;
    }
    for (job, (rows, bytes)) in state {
        let Some(of) = names.get(&job) else { continue };
        gauge!("millpond_job_state_rows", of).set(rows as f64);
        gauge!("millpond_job_state_bytes", of).set(bytes as f64);
    }
    handle.render()
}
