//! ALTER MATERIALIZED VIEW … SET, RESET, RESTART, and CANCEL JOB.

use millpond_common::settings::{self, Settings};
use millpond_common::{Error, JobId, RelationId, Result, SqlState};
use millpond_engine::JobState;
use millpond_sql::statement::AlterView;
use millpond_sql::{Catalog, RelationKind};
use millpond_state::failpoint::failpoint;
use tokio::sync::OwnedMutexGuard;

use crate::ddl::rows_read;
use crate::progress;
use crate::session::{Scope, Session};

impl Session {
    /// Changes a materialized view's options, or fills it anew; that waits like CREATE does.
    pub(crate) async fn alter_view(&mut self, id: RelationId, action: &AlterView, scope: &Scope, lock: OwnedMutexGuard<()>) -> Result<()> {
        let mut catalog = Catalog::clone(&scope.catalog);
        let missing = || Error::internal("a materialized view vanished");
        let relation = catalog.get_mut(id).ok_or_else(missing)?;
        let (name, RelationKind::MaterializedView { job, options, .. }) = (relation.name.clone(), &mut relation.kind) else {
            return Err(missing());
        };
        let job = *job;
        let engine = self.database.engine.clone();
        match action {
            AlterView::Options(changes) => {
                for (option, value) in changes {
                    settings::check_view_option(option)?;
                    match value {
                        Some(value) => drop(options.insert(option.clone(), value.clone())),
                        None => drop(options.remove(option)),
                    }
                }
                let settings = Settings::of_view(options)?;
                let expires = engine.jobs().iter().any(|j| j.id == job && j.spec.plan.expires());
                if settings.duration("state_ttl").is_some() && !expires {
                    return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("the state of \"{name}\" has no times"))
                        .with_detail("A view without state_ttl does not know when its state was touched.")
                        .with_hint("CREATE OR REPLACE MATERIALIZED VIEW ... WITH (state_ttl = ...) fills it anew, while it is read."));
                }
                self.database.replace_catalog(catalog, vec![], vec![]).await?;
                failpoint("alter-view-stored");
                engine.set_job_options(job, settings)
            }
            AlterView::Restart => {
                scope.limits.run(engine.wait_visible(engine.newest_transaction())).await?;
                let handle = engine.restart_job(job).await?;
                drop(lock);
                if self.settings.on("background_ddl") {
                    return Ok(());
                }
                let rows_read = move || rows_read(&engine, job);
                progress::wait(&name, handle, &scope.limits, &self.sink(), &rows_read).await
            }
        }
    }

    /// Ends the creation of a view: its CREATE fails, and nothing of it is left.
    pub(crate) async fn cancel_job(&mut self, id: JobId, scope: &Scope) -> Result<()> {
        let Some(job) = self.database.engine.jobs().into_iter().find(|j| j.id == id) else {
            let error = Error::new(SqlState::UNDEFINED_OBJECT, format!("job {} does not exist", id.0));
            return Err(error.with_hint("SHOW JOBS has the numbers."));
        };
        if !job.creating {
            let message = match job.state {
                JobState::Backfilling => format!("the view of job {} is being filled anew, not created", id.0),
                state => format!("the view of job {} has been created; it is {}", id.0, state.name()),
            };
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_hint(format!("DROP MATERIALIZED VIEW {} removes it.", job.name)));
        }
        let ids = scope.catalog.drop_set(&[job.relation], false)?;
        self.database.drop_relations(Catalog::clone(&scope.catalog), &ids, &[]).await
    }
}
