//! The context that all parts of the service share: the registry, the launchers, the policy and the data folder.

use std::io;
use std::sync::Arc;

use super::sanitize::{Texts, sanitize};
use crate::error::JobError;
use crate::launcher::{Launcher, LauncherTraits};
use crate::process::job_dir::JobDir;
use crate::process::{blocking, find, run_blocking};
use crate::redact::Redactor;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use crate::settings::env_vars;
use crate::settings::policy::Policy;

pub(super) struct Context {
    pub(super) data_dir: DataDir,
    pub(super) registry: JobRegistry,
    pub(super) launchers: Vec<Arc<dyn Launcher>>,
    pub(super) policy: Policy,
    /// Held from the check of a launch against the limit of costs until its record is written, so that each counts the others.
    pub(super) spending: tokio::sync::Mutex<()>,
}

impl Context {
    pub(super) fn new(
        data_dir: DataDir,
        launchers: Vec<Arc<dyn Launcher>>,
        policy: Policy,
    ) -> Self {
        Self {
            registry: JobRegistry::new(data_dir.clone()),
            data_dir,
            launchers,
            policy,
            spending: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the launcher of a cloud, whether or not the policy allows the cloud.
    pub(super) fn launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>, JobError> {
        let serves = |launcher: &&Arc<dyn Launcher>| launcher.clouds().contains(&cloud);
        self.launchers.iter().find(serves).ok_or_else(|| {
            let clouds = self.launchers.iter().flat_map(|one| one.clouds()).copied();
            let clouds: Vec<&str> = clouds.collect();
            JobError::invalid(format!("cloud {cloud:?} is not known"))
                .with_hint(format!("use one of: {}", clouds.join(", ")))
        })
    }

    /// Returns the traits of a cloud's launcher; those of any cloud where this server has no launcher for it.
    pub(super) fn traits(&self, cloud: &str) -> LauncherTraits {
        let launcher = self.launcher(cloud);
        launcher.map_or(LauncherTraits::CLOUD, |launcher| launcher.traits())
    }

    /// Returns the launcher of a cloud that the policy allows.
    pub(super) fn allowed_launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>, JobError> {
        let launcher = self.launcher(cloud)?;
        let forbidden = self.policy.forbids(cloud).map(JobError::blocked);
        forbidden.map_or(Ok(launcher), Err)
    }

    /// Asks the launcher of a job if the job is over, or nothing is known of it any more. A job whose launcher does not answer is
    /// not.
    pub(super) async fn is_over(&self, record: &JobRecord) -> bool {
        let Ok(launcher) = self.launcher(&record.cloud) else {
            return false;
        };
        match launcher.status(&record.identity()).await {
            Ok(status) => status.is_done,
            Err(error) => error.is_not_found(),
        }
    }

    /// Keeps the jobs whose launches are under way, in this server or another one.
    pub(super) async fn launching(&self, jobs: Vec<JobRecord>) -> Result<Vec<JobRecord>, JobError> {
        let jobs = jobs.into_iter().filter(|job| job.oumi_job_id.is_empty());
        let jobs: Vec<_> = jobs.map(|job| (self.job_dir(&job.job_id), job)).collect();
        blocking(move || {
            let is_locked = |dir: JobDir| dir.is_locked().unwrap_or(true);
            let jobs = jobs.into_iter();
            let launching = jobs.filter_map(|(dir, job)| dir.is_some_and(is_locked).then_some(job));
            Ok(launching.collect())
        })
        .await
    }

    /// Returns the folder of a job, or `None` for an id that cannot name one.
    pub(super) fn job_dir(&self, job_id: &str) -> Option<JobDir> {
        self.data_dir.job(job_id).map(JobDir::at)
    }

    /// Sanitizes an answer about one job.
    pub(super) async fn sanitize<A: Texts>(&self, answer: A, job_id: &str) -> A {
        sanitize(answer, &[self.redactor(job_id).await])
    }

    /// Reads which texts of a job, and of its launcher, are secret. Where that cannot be read everything is.
    pub(super) async fn redactor(&self, job_id: &str) -> Redactor {
        let read = run_blocking(self.reads_redactor(job_id)).await;
        read.unwrap_or_else(|error| Redactor::unreadable(&error))
    }

    /// Reads the redactors of several jobs, in the order of the jobs.
    pub(super) async fn redactors(
        &self,
        job_ids: impl IntoIterator<Item = String>,
    ) -> Vec<Redactor> {
        let reads: Vec<_> = (job_ids.into_iter().map(|id| self.reads_redactor(&id))).collect();
        let count = reads.len();
        run_blocking(move || reads.into_iter().map(|read| read()).collect())
            .await
            .unwrap_or_else(|error| vec![Redactor::unreadable(&error); count])
    }

    /// Returns the file work of [`Self::redactor`], for who has more to do off the async threads.
    pub(super) fn reads_redactor(&self, job_id: &str) -> impl FnOnce() -> Redactor + Send + use<> {
        let (dir, job_id) = (self.job_dir(job_id), job_id.to_owned());
        move || match dir.map(|dir| dir.secrets()) {
            None => Redactor::default(),
            Some(Ok(redactor)) => redactor,
            // No such folder can be: no job was given secrets there.
            Some(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
                ) =>
            {
                Redactor::default()
            }
            Some(Err(error)) => {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Redactor::unreadable(&error)
            }
        }
    }

    /// Does file work in the folder of a job, off the async threads; nothing where the job has no folder.
    pub(super) async fn with_job_dir(
        &self,
        job_id: &str,
        work: impl FnOnce(JobDir) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let Some(dir) = self.job_dir(job_id) else {
            return Ok(());
        };
        blocking(move || if dir.exists()? { work(dir) } else { Ok(()) }).await
    }

    /// Tells if a cancel was requested that is not carried out yet: it stands beside the job, so that any server honours it.
    pub(super) async fn has_pending_cancel(&self, job_id: &str) -> bool {
        let Some(dir) = self.job_dir(job_id) else {
            return false;
        };
        let pending = blocking(move || dir.has_pending_cancel()).await;
        pending.unwrap_or_else(|error| {
            // It stays beside the job: the next call about the job looks again.
            tracing::warn!(job_id, %error, "cannot see whether a job is to be cancelled");
            false
        })
    }
}

/// Lists what is wrong with the settings in the environment. A client shows nobody the server's stderr, so that answers say it.
/// Reads the file system.
pub(crate) fn setting_problems() -> Vec<String> {
    let mut problems = env_vars::problems();
    problems.extend(find::problem());
    problems
}
