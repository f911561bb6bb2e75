//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.
//!
//! Its operations do file work where they are: who calls them does so on the threads for files (`process::on_file_threads`).

pub(crate) mod answers;
mod cancel;
pub(crate) mod consent;
mod costs;
mod launches;
mod list;
mod log_reader;
mod logs;
mod lookup;
mod next_step;
mod observe;
mod plan_cache;
mod poll;
mod prepare;
mod prune;
pub(crate) mod requests;
mod run;
mod sanitize;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{JobError, Result};
use crate::in_flight::InFlight;
use crate::launcher::{JobIdentity, JobStatus, Launcher, is_launched_by_hand, oumi_cloud};
use crate::process::find;
use crate::process::job_dir::JobDir;
use crate::redact::Redactor;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use crate::settings::env_vars;
use crate::settings::policy::{AskUser, Policy};
use crate::settings::unchanged::Unchanged;
use consent::ConsentProvider;
use log_reader::LogReaders;
use plan_cache::PlanCache;
use poll::SharedPolls;
use sanitize::{Texts, sanitize};

/// The wait of a call for a launch in flight.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);
/// The wait of a call for the status of the job that it launched or cancelled.
const STATUS_WAIT: Duration = Duration::from_secs(10);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub(crate) struct JobService {
    context: Arc<Context>,
    /// The way to the user of the call; `None` where nobody is asked.
    provider: Option<Arc<dyn ConsentProvider>>,
    /// Tells the caller what a long call is waiting for. Must not block.
    on_progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl JobService {
    pub(crate) fn with_policy(
        data_dir: DataDir,
        launchers: Vec<Arc<dyn Launcher>>,
        policy: Policy,
    ) -> Self {
        let context = Context {
            registry: JobRegistry::new(data_dir.clone()),
            data_dir,
            launchers,
            policy,
            in_flight: InFlight::default(),
            plans: PlanCache::default(),
            logs: LogReaders::default(),
            polls: SharedPolls::default(),
            redactors: Unchanged::default(),
        };
        Self {
            context: Arc::new(context),
            provider: None,
            on_progress: Arc::new(|_| {}),
        }
    }

    /// Returns the same service for a call whose user is asked through `provider`, unless the policy wants nobody asked.
    #[must_use]
    pub(crate) fn with_consent(&self, provider: Arc<dyn ConsentProvider>) -> Self {
        let asks = self.policy().ask != AskUser::Never;
        Self {
            provider: asks.then_some(provider),
            ..self.clone()
        }
    }

    /// Returns the same service for a call that reports its progress.
    #[must_use]
    pub(crate) fn reporting(&self, on_progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            on_progress: Arc::new(on_progress),
            ..self.clone()
        }
    }

    pub(crate) fn report(&self, message: &str) {
        (self.on_progress)(message);
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.context.policy
    }

    /// Tells if the policy forbids the cloud of an answer, where it is empty for this machine.
    pub(crate) fn is_forbidden(&self, cloud: &str) -> bool {
        let clouds = self.context.launchers.iter().flat_map(|one| one.clouds());
        let mut meant = clouds.filter(|known| self.context.cloud_name(known) == cloud);
        meant.any(|cloud| self.policy().check(cloud).is_err())
    }

    pub(crate) fn registry(&self) -> &JobRegistry {
        &self.context.registry
    }

    /// Resumes unfinished launches and cancels of earlier servers, and prunes. The next call about a job retries what fails.
    pub(crate) async fn recover(&self) {
        let context = &self.context;
        if !context.policy.read_only {
            context.data_dir.remove_temporary_files().ok();
        }
        let records = match context.registry.records().await {
            Ok(records) => records,
            Err(error) => {
                return tracing::warn!(%error, "cannot resume the jobs of an earlier server");
            }
        };
        // Before a launch is resumed: its programs are looked for in the project folders too.
        let dirs = records.iter().map(|job| context.job_dir(&job.job_id));
        for plan in dirs.flatten().flat_map(|dir| dir.plan()) {
            find::add_project(&plan.working_dir);
        }
        for job in records.iter() {
            launches::resume(context, job);
        }
        prune::prune(context, &records, &HashMap::new()).await;
    }
}

/// The parts of the service that its operations share.
struct Context {
    data_dir: DataDir,
    registry: JobRegistry,
    launchers: Vec<Arc<dyn Launcher>>,
    policy: Policy,
    in_flight: InFlight,
    plans: PlanCache,
    logs: LogReaders,
    polls: SharedPolls,
    /// By the files of their fingerprints.
    redactors: Unchanged<Redactor>,
}

impl Context {
    /// Returns the launcher of a cloud, whether or not the policy allows the cloud.
    fn launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>> {
        let mut launchers = self.launchers.iter();
        let found = launchers.find(|launcher| {
            launcher.clouds().contains(&cloud)
                || launcher.ends_clusters() && is_launched_by_hand(cloud)
        });
        found.ok_or_else(|| {
            let clouds = self.launchers.iter().map(|launcher| launcher.clouds());
            let clouds = clouds.collect::<Vec<_>>().concat().join(", ");
            JobError::invalid(format!("cloud {cloud:?} is not known"))
                .with_hint(format!("use one of: {clouds}"))
        })
    }

    fn local_launcher(&self) -> Option<&Arc<dyn Launcher>> {
        self.launchers.iter().find(|one| one.is_local())
    }

    fn is_local(&self, cloud: &str) -> bool {
        self.launcher(cloud).is_ok_and(|one| one.is_local())
    }

    /// Returns Oumi's name of the cloud that a call names, which may be SkyPilot's, as answers quote it.
    fn cloud_of_call(&self, name: &str) -> String {
        let cloud = name.trim().to_lowercase();
        match self.launcher(&cloud) {
            Ok(_) => cloud,
            Err(_) => oumi_cloud(&cloud),
        }
    }

    /// Returns the cloud as answers show it: this machine is none.
    fn cloud_name(&self, cloud: &str) -> String {
        let name = if self.is_local(cloud) { "" } else { cloud };
        name.to_owned()
    }

    fn allowed_launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>> {
        let launcher = self.launcher(cloud)?;
        self.policy.check(cloud)?;
        Ok(launcher)
    }

    /// Asks the launcher of a job for its status, whether or not the policy allows the cloud.
    async fn status(&self, job: &JobIdentity) -> Result<JobStatus> {
        self.launcher(&job.cloud)?.status(job).await
    }

    /// Tells if a job is over, or its launcher knows nothing of it any more. A job whose launcher does not answer is not.
    async fn is_over(&self, record: &JobRecord) -> bool {
        match self.status(&record.identity()).await {
            Ok(status) => status.is_done,
            Err(error) => error.is_not_found(),
        }
    }

    /// Tells if the launch of a job is under way, in this server or another one. Does file work.
    fn is_launching(&self, job: &JobRecord) -> bool {
        let is_locked = |dir: JobDir| dir.is_locked().unwrap_or(true);
        job.oumi_job_id.is_empty() && self.job_dir(&job.job_id).is_some_and(is_locked)
    }

    /// Returns the folder of a job, or `None` for an id that cannot name one.
    fn job_dir(&self, job_id: &str) -> Option<JobDir> {
        self.data_dir.job(job_id).map(JobDir::at)
    }

    fn sanitize<A: Texts>(&self, answer: A, job_id: &str) -> A {
        sanitize(answer, LazyCell::new(|| [self.redactor(job_id)]))
    }

    /// Returns what hides the secrets of a job. Where those cannot be read it hides everything.
    fn redactor(&self, job_id: &str) -> Redactor {
        let Some(dir) = self.job_dir(job_id) else {
            return Redactor::default();
        };
        let path = dir.secrets_path();
        let version = match self.redactors.get(&path) {
            Ok(redactor) => return redactor,
            Err(version) => version,
        };
        let read = dir.secrets();
        if let Ok(redactor) = &read {
            self.redactors.keep(&path, version, redactor);
        }
        read.unwrap_or_else(|error| match error.kind() {
            // A job of such an id has no folder, and so no secrets.
            ErrorKind::NotADirectory | ErrorKind::InvalidFilename => Redactor::default(),
            _ => {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Redactor::unreadable(&error)
            }
        })
    }

    /// Logs an error about a job, without its secrets.
    fn warn(&self, job_id: &str, error: &JobError, event: &str) {
        let reason = self.redactor(job_id).redact(&error.to_string());
        tracing::warn!(job_id, reason, "{event}");
    }

    /// Does file work in the folder of a job; nothing where the job has no folder.
    fn with_job_dir(
        &self,
        job_id: &str,
        work: impl FnOnce(JobDir) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.job_dir(job_id) {
            Some(dir) if dir.exists()? => work(dir),
            _ => Ok(()),
        }
    }

    /// Tells if a cancel was requested that is not carried out yet: it stands beside the job, so that any server honours it.
    fn has_pending_cancel(&self, job_id: &str) -> bool {
        let pending = self.job_dir(job_id).map(|dir| dir.has_pending_cancel());
        pending.unwrap_or(Ok(false)).unwrap_or_else(|error| {
            // The request stays beside the job, and the next call about the job tries again.
            tracing::warn!(job_id, %error, "cannot see whether a job is to be cancelled");
            false
        })
    }
}

/// Lists what is wrong with the settings, for answers: clients show nobody the server's stderr. Reads the file system.
pub(crate) fn setting_problems() -> Vec<String> {
    let mut problems = env_vars::problems();
    problems.extend(find::problem());
    problems
}
