//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.

pub mod answers;
mod change;
mod find;
mod launch;
mod list;
mod logs;
pub mod requests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::in_flight::{InFlight, LaunchOutcome, LaunchWatch};
use crate::launcher::job_dir::JobDir;
use crate::launcher::{JobState, JobStatus, Launcher, LauncherError};
use crate::paths::DataFolder;
use crate::registry::JobRegistry;
use crate::secrets::Fingerprints;
use answers::{JobAnswer, PollAnswer};
use find::NotFound;
use requests::JobQuery;

/// How long a call waits for a launch under way before it answers that it is still pending.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub struct JobService {
    inner: Arc<Inner>,
}

struct Inner {
    folder: DataFolder,
    registry: JobRegistry,
    in_flight: InFlight,
    launchers: Vec<Arc<dyn Launcher>>,
}

impl JobService {
    /// A service over the jobs in `folder`, run by `launchers`.
    pub fn new(folder: DataFolder, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        let registry = JobRegistry::new(folder.clone());
        Self {
            inner: Arc::new(Inner {
                folder,
                registry,
                in_flight: InFlight::default(),
                launchers,
            }),
        }
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

    /// How a job is.
    pub async fn poll(&self, query: JobQuery) -> PollAnswer {
        let found = match self.find(&query).await {
            Ok(found) => self.settled(found).await,
            Err(NotFound::Unknown(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    status: "not_found".to_owned(),
                    ..PollAnswer::failure(error)
                };
            }
            Err(NotFound::Failed(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    ..PollAnswer::failure(error)
                };
            }
        };
        let record = found.record.clone().unwrap_or_default();
        let known = PollAnswer {
            job_id: found.identity.job_id.clone(),
            oumi_job_id: found.identity.oumi_job_id.clone(),
            command: record.command,
            config_path: record.config_path,
            cloud: found.identity.cloud.clone(),
            cluster: found.identity.cluster.clone(),
            model_name: record.model_name,
            ..PollAnswer::default()
        };
        let asked = match self.launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.status(&found.identity).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let secrets = self.secrets(&found.identity.job_id).await;
        match asked {
            Ok(mut status) => {
                if !status.is_done && self.is_cancel_kept(&found.identity.job_id).await {
                    status.warnings.push(
                        "a cancel was asked for and is not carried out yet: that is done when the launch has ended, and \
                         tried again at each look while it fails"
                            .to_owned(),
                    );
                }
                let mut metadata = status.metadata.clone();
                for (key, value) in [
                    ("submit_time", record.submit_time),
                    ("output_dir", record.output_dir),
                ] {
                    if !value.is_empty() {
                        metadata.insert(key.to_owned(), value.into());
                    }
                }
                PollAnswer {
                    success: true,
                    message: secrets.hide(&next_step(&status)),
                    status: status.status,
                    state: status.state,
                    is_done: status.is_done,
                    log_file: status.log_file,
                    warnings: status
                        .warnings
                        .iter()
                        .map(|warning| secrets.hide(warning))
                        .collect(),
                    metadata,
                    ..known
                }
            }
            Err(error) => {
                let status = if matches!(error, LauncherError::NotFound(_)) {
                    "not_found"
                } else {
                    "unknown"
                };
                PollAnswer {
                    status: status.to_owned(),
                    error: Some(secrets.hide(&error.to_string())),
                    ..known
                }
            }
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
    async fn secrets(&self, job_id: &str) -> Fingerprints {
        let dir = self.dir(job_id);
        let read = tokio::task::spawn_blocking(move || {
            dir.map_or_else(|| Ok(Fingerprints::default()), |dir| dir.secrets())
        });
        read.await
            .map_err(io::Error::other)
            .flatten()
            .unwrap_or_else(|error| {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Fingerprints::unreadable()
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

/// What is known beside a status, and what to do next.
fn next_step(status: &JobStatus) -> String {
    let next = match status.state {
        JobState::Pending | JobState::Running => {
            "Call poll_status again later; get_job_logs shows what it says."
        }
        JobState::Succeeded => "get_job_logs shows what it said.",
        JobState::Failed => "Call get_job_logs to see why.",
        JobState::Cancelled => "Nothing of it runs any more.",
        JobState::Unknown if status.is_done => "Call get_job_logs to see how far it came.",
        JobState::Unknown => "Call poll_status again later.",
    };
    match &status.message {
        Some(message) => format!("{}. {next}", message.trim_end_matches('.')),
        None => next.to_owned(),
    }
}
