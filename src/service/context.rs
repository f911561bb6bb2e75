//! What the operations share: the registry, the launchers, the policy, and what the server keeps in memory.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::log_reader::LogReaders;
use super::plan_cache::PlanCache;
use super::poll::SharedPolls;
use super::sanitize::{Texts, sanitize};
use crate::error::{JobError, Result};
use crate::in_flight::InFlight;
use crate::launcher::{Launcher, oumi_cloud};
use crate::process::find;
use crate::process::job_dir::JobDir;
use crate::redact::Redactor;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use crate::settings::env_vars;
use crate::settings::policy::Policy;
use crate::settings::unchanged::Unchanged;

pub(super) struct Context {
    pub(super) data_dir: DataDir,
    pub(super) registry: JobRegistry,
    pub(super) launchers: Vec<Arc<dyn Launcher>>,
    pub(super) policy: Policy,
    pub(super) in_flight: InFlight,
    pub(super) plans: PlanCache,
    pub(super) logs: LogReaders,
    pub(super) polls: SharedPolls,
    /// By the files of their fingerprints.
    redactors: Unchanged<Redactor>,
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
            in_flight: InFlight::default(),
            plans: PlanCache::default(),
            logs: LogReaders::default(),
            polls: SharedPolls::default(),
            redactors: Unchanged::default(),
        }
    }

    /// Returns the launcher of a cloud, whether or not the policy allows the cloud.
    pub(super) fn launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>> {
        let serves = |launcher: &&Arc<dyn Launcher>| launcher.clouds().contains(&cloud);
        self.launchers.iter().find(serves).ok_or_else(|| {
            let clouds = self.launchers.iter().flat_map(|one| one.clouds()).copied();
            let clouds: Vec<&str> = clouds.collect();
            JobError::invalid(format!("cloud {cloud:?} is not known"))
                .with_hint(format!("use one of: {}", clouds.join(", ")))
        })
    }

    pub(super) fn local_launcher(&self) -> Option<&Arc<dyn Launcher>> {
        let mut launchers = self.launchers.iter();
        launchers.find(|launcher| launcher.is_local())
    }

    pub(super) fn is_local(&self, cloud: &str) -> bool {
        let launcher = self.launcher(cloud);
        launcher.is_ok_and(|launcher| launcher.is_local())
    }

    /// Returns Oumi's name of the cloud that a call names, which may be SkyPilot's, as answers quote it.
    pub(super) fn cloud_of_call(&self, name: &str) -> String {
        let cloud = name.trim().to_lowercase();
        match self.launcher(&cloud) {
            Ok(_) => cloud,
            Err(_) => oumi_cloud(&cloud),
        }
    }

    /// Returns the cloud as answers show it: this machine is none.
    pub(super) fn cloud_name(&self, cloud: &str) -> String {
        match self.is_local(cloud) {
            true => String::new(),
            false => cloud.to_owned(),
        }
    }

    pub(super) fn allowed_launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>> {
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

    /// Tells if the launch of a job is under way, in this server or another one. Does file work.
    pub(super) fn is_launching(&self, job: &JobRecord) -> bool {
        let is_locked = |dir: JobDir| dir.is_locked().unwrap_or(true);
        job.oumi_job_id.is_empty() && self.job_dir(&job.job_id).is_some_and(is_locked)
    }

    /// Returns the folder of a job, or `None` for an id that cannot name one.
    pub(super) fn job_dir(&self, job_id: &str) -> Option<JobDir> {
        self.data_dir.job(job_id).map(JobDir::at)
    }

    pub(super) fn sanitize<A: Texts>(&self, answer: A, job_id: &str) -> A {
        sanitize(answer, &[self.redactor(job_id)])
    }

    /// Reads which texts of a job, and of its launcher, are secret. Where that cannot be read everything is.
    pub(super) fn redactor(&self, job_id: &str) -> Redactor {
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
            // No such folder can be: no job was given secrets there.
            ErrorKind::NotADirectory | ErrorKind::InvalidFilename => Redactor::default(),
            _ => {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Redactor::unreadable(&error)
            }
        })
    }

    /// Does file work in the folder of a job; nothing where the job has no folder.
    pub(super) fn with_job_dir(
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
    pub(super) fn has_pending_cancel(&self, job_id: &str) -> bool {
        let Some(dir) = self.job_dir(job_id) else {
            return false;
        };
        dir.has_pending_cancel().unwrap_or_else(|error| {
            // It stays beside the job: the next call about the job tries again.
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
