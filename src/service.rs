//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.

pub mod answers;
mod background_refresh;
mod cancel;
pub mod consent;
mod consent_prompt;
mod launches;
mod list;
mod logs;
mod lookup;
mod next_step;
mod observe;
mod plan_cache;
mod poll;
pub mod requests;
mod run;
#[cfg(test)]
pub(crate) mod tests;
pub mod watch;
pub mod watch_lists;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::in_flight::{InFlight, LaunchOutcome, LaunchWatch};
use crate::launcher::Launcher;
use crate::process::job_dir::JobDir;
use crate::redact::Redactor;
use crate::registry::JobRegistry;
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;
use consent::{Consent, Nobody};
use observe::Insights;
use plan_cache::Previews;
use watch::Watchers;
use watch_lists::ListWatcher;

/// How long a call waits for a launch under way before it answers that it is still pending.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// Who hears what a call that takes long is at. It must not wait for anything.
pub type OnProgress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub struct JobService {
    inner: Arc<Inner>,
    consent: Arc<dyn Consent>,
}

struct Inner {
    folder: DataDir,
    registry: JobRegistry,
    in_flight: InFlight,
    watchers: Watchers,
    insights: Insights,
    launchers: Vec<Arc<dyn Launcher>>,
    policy: Policy,
    previews: Previews,
    list_watcher: ListWatcher,
}

impl JobService {
    /// A service over the jobs in `folder`, run by `launchers`, that allows all.
    pub fn new(folder: DataDir, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        Self::with_policy(folder, launchers, Policy::default())
    }

    /// The same, which allows only what `policy` does.
    pub fn with_policy(folder: DataDir, launchers: Vec<Arc<dyn Launcher>>, policy: Policy) -> Self {
        let registry = JobRegistry::new(folder.clone());
        Self {
            inner: Arc::new(Inner {
                folder,
                registry,
                in_flight: InFlight::default(),
                watchers: Watchers::default(),
                insights: Insights::default(),
                launchers,
                policy,
                previews: Previews::new(),
                list_watcher: ListWatcher::default(),
            }),
            consent: Arc::new(Nobody),
        }
    }

    /// What is allowed.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// The launches under way.
    pub fn in_flight(&self) -> &InFlight {
        &self.inner.in_flight
    }

    /// The registry.
    pub fn registry(&self) -> &JobRegistry {
        &self.inner.registry
    }

    /// Takes up what an earlier server left: launches that were under way, cancels that were asked for, records too old.
    /// What cannot be done now is done at the next look.
    pub async fn recover(&self) {
        match self.inner.registry.records().await {
            Ok(records) => {
                self.take_up(&records).await;
                self.prune(&records, &HashMap::new()).await;
            }
            Err(error) => tracing::warn!(%error, "cannot take up the jobs of an earlier server"),
        }
    }

    /// What serves a cloud that a call may use.
    fn allowed(&self, cloud: &str) -> Result<&Arc<dyn Launcher>, String> {
        let launcher = self.launcher(cloud)?;
        match self.inner.policy.forbids(cloud) {
            Some(reason) => Err(reason),
            None => Ok(launcher),
        }
    }

    fn launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>, String> {
        let serves = |launcher: &&Arc<dyn Launcher>| launcher.clouds().contains(&cloud);
        self.inner.launchers.iter().find(serves).ok_or_else(|| {
            let known: Vec<&str> = self
                .inner
                .launchers
                .iter()
                .flat_map(|launcher| launcher.clouds())
                .copied()
                .collect();
            format!(
                "cloud {cloud:?} is not known; use one of: {}",
                known.join(", ")
            )
        })
    }

    fn dir(&self, job_id: &str) -> Option<JobDir> {
        self.inner.folder.job(job_id).map(JobDir::at)
    }

    /// What must not be shown of what a job, or its launcher, said.
    async fn secrets(&self, job_id: &str) -> Redactor {
        let dir = self.dir(job_id);
        let read = tokio::task::spawn_blocking(move || {
            dir.map_or_else(|| Ok(Redactor::default()), |dir| dir.secrets())
        });
        read.await
            .map_err(io::Error::other)
            .flatten()
            .unwrap_or_else(|error| {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Redactor::unreadable(&error)
            })
    }

    /// File work in the folder of a job, off the async threads. Nothing for an id that can have none.
    async fn in_dir(
        &self,
        job_id: &str,
        work: impl FnOnce(JobDir) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let Some(dir) = self.dir(job_id) else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || work(dir))
            .await
            .map_err(io::Error::other)?
    }

    async fn is_cancel_kept(&self, job_id: &str) -> bool {
        let dir = self.dir(job_id);
        tokio::task::spawn_blocking(move || dir.is_some_and(|dir| dir.is_cancel_kept()))
            .await
            .unwrap_or(false)
    }
}

async fn outcome_within(mut watch: LaunchWatch, wait: Duration) -> Option<LaunchOutcome> {
    let ended = tokio::time::timeout(wait, watch.wait_for(Option::is_some)).await;
    ended.ok()?.ok()?.clone()
}
