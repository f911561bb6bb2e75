//! Jobs on this machine: a supervised process each.

mod plan;
mod termination;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    CancelOutcome, ClusterAction, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec,
    Launcher, LauncherTraits, ListedJob, Listing, job_dir, status,
};
use crate::error::JobError;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::table::ProcessTable;
use crate::process::{blocking, start};
use crate::settings::data_dir::DataDir;
use termination::cancel;

/// The name of this machine among the clouds.
pub(crate) const LOCAL: &str = "local";
/// A poll here reads a few small files.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs jobs on this machine under a supervisor each.
#[derive(Debug, Clone)]
pub(crate) struct LocalLauncher {
    folder: DataDir,
    supervisor: PathBuf,
}

impl LocalLauncher {
    /// A launcher whose jobs live in `folder`. `supervisor` is the program to run as `supervise`: this one.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf) -> Self {
        Self { folder, supervisor }
    }

    fn dir(&self, identity: &JobIdentity) -> Result<JobDir, JobError> {
        job_dir(&self.folder, identity)
    }
}

#[async_trait::async_trait]
impl Launcher for LocalLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        &[LOCAL]
    }

    fn traits(&self) -> LauncherTraits {
        LauncherTraits {
            is_local: true,
            costs_money: false,
            poll_interval: Some(POLL_INTERVAL),
        }
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        let (folder, spec) = (self.folder.clone(), spec.clone());
        blocking(move || {
            let dir = job_dir(&folder, &spec.identity)?;
            plan::plan(&dir, &spec)
        })
        .await
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        let dir = self.dir(identity)?;
        start::start(&self.supervisor, &dir, lock, plan.process).await
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        // The id of a job on this machine is our own, so there is nothing to wait for.
        Ok(JobIdentity {
            oumi_job_id: identity.job_id.clone(),
            ..identity.clone()
        })
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        let dir = self.dir(identity);
        blocking(move || probe(&dir?, &mut None)).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        let (folder, known) = (self.folder.clone(), known.to_vec());
        blocking(move || {
            let mut listing = Listing::default();
            let mut processes = None;
            for identity in known {
                let dir = job_dir(&folder, &identity);
                match dir.and_then(|dir| probe(&dir, &mut processes)) {
                    Ok(status) => listing.jobs.push(ListedJob { identity, status }),
                    Err(error) => {
                        let warning = format!("job {}: {error}", identity.job_id);
                        listing.warnings.push(warning);
                    }
                }
            }
            Ok(listing)
        })
        .await
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let dir = self.dir(identity);
        blocking(move || {
            let dir = dir?;
            let ended = probe(&dir, &mut None).is_ok_and(|status| status.is_done);
            JobLog::of_output(&dir, ended)
        })
        .await
    }

    async fn cancel(&self, identity: &JobIdentity, force: bool) -> Result<CancelOutcome, JobError> {
        cancel(self.dir(identity)?, force).await
    }

    async fn teardown_cluster(
        &self,
        _cloud: &str,
        _cluster: &str,
        _action: ClusterAction,
    ) -> Result<String, JobError> {
        Err(JobError::failed("this machine is no cluster")
            .with_hint("call cancel_job to end a job on it"))
    }
}

/// Returns the status of the job in `dir`: by its exit record, else its lock, else its processes, which are listed when they
/// are needed first and kept for the next job of a list.
fn probe(dir: &JobDir, processes: &mut Option<ProcessTable>) -> Result<JobStatus, JobError> {
    let status = || -> io::Result<JobStatus> {
        if let Some(record) = dir.exit_record()? {
            return Ok(ended_status(&record));
        }
        if is_alive(dir, processes)? {
            return running_status(dir);
        }
        // It may have ended between the two looks.
        if let Some(record) = dir.exit_record()? {
            return Ok(ended_status(&record));
        }
        // The request is written only while the job lives.
        if dir.termination_request()?.is_some() {
            return Ok(cancelled_status());
        }
        Ok(lost_status())
    };
    let mut status = { status }().map_err(|error| {
        JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
    })?;
    status.log_file = dir.log_path().display().to_string();
    Ok(status)
}

fn is_alive(dir: &JobDir, processes: &mut Option<ProcessTable>) -> io::Result<bool> {
    if dir.is_locked()? {
        return Ok(true);
    }
    if !dir.exists()? {
        return Ok(false);
    }
    let processes = match processes {
        Some(processes) => processes,
        None => processes.insert(ProcessTable::snapshot_with_environments()?),
    };
    Ok(!processes.job_members(dir.path()).is_empty())
}

fn running_status(dir: &JobDir) -> io::Result<JobStatus> {
    let mut status = JobStatus::new(status::RUNNING, JobState::Running, false);
    if dir.termination_request()?.is_some() {
        let message = "it was asked to stop and has not ended yet; call cancel_job with force=true to kill it";
        status.message = Some(message.to_owned());
    }
    Ok(status)
}

fn lost_status() -> JobStatus {
    let mut status = JobStatus::new(status::LOST, JobState::Unknown, true);
    let message = "how it ended is not known: its supervisor was killed; read its log";
    status.message = Some(message.to_owned());
    status
}

fn cancelled_status() -> JobStatus {
    JobStatus::new(status::CANCELLED, JobState::Cancelled, true)
}

fn ended_status(record: &ExitRecord) -> JobStatus {
    let mut status = if record.cancelled {
        cancelled_status()
    } else if record.succeeded() {
        JobStatus::new(status::COMPLETED, JobState::Succeeded, true)
    } else {
        let mut status = JobStatus::new(status::FAILED, JobState::Failed, true);
        status.message = Some(record.describe());
        status
    };
    status.details.ended_at = Some(record.ended_at.clone());
    status.details.exit_code = record.code;
    status.details.signal = record.signal;
    status
}
