//! Launches onto clouds: `oumi launch up` under a supervisor, and what its folder says of it afterwards.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::claims::{JobMark, find_job};
use super::launch_dir::{
    ClusterBefore, LaunchFacts, LaunchStart, LaunchState, START, other_launches,
};
use crate::error::JobError;
use crate::launcher::job_yaml::JobConfig;
use crate::launcher::{CancelOutcome, JobIdentity, JobLog, LaunchPlan, LaunchSpec, job_dir};
use crate::parse::sky::QueuedJob;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::{find, start, supervisor};
use crate::settings::data_dir::DataDir;

/// The name of the one step of a launch.
const STEP: &str = "launch";
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Starts launches and reads their folders.
#[derive(Debug, Clone)]
pub(crate) struct CloudLaunches {
    pub(super) folder: DataDir,
    /// The program to run as `supervise`: this one.
    pub(super) supervisor: PathBuf,
}

impl CloudLaunches {
    pub(super) fn dir(&self, identity: &JobIdentity) -> Result<JobDir, JobError> {
        job_dir(&self.folder, identity)
    }

    /// Plans a launch onto `cluster`. `envs` are for the launcher; those of the job are in its config.
    pub(in crate::launcher) fn plan(
        &self,
        spec: &LaunchSpec,
        cluster: String,
        config: JobConfig,
        mut envs: BTreeMap<String, String>,
    ) -> Result<LaunchPlan, JobError> {
        let staged = staged_path(&self.dir(&spec.identity)?);
        let program = find::find_oumi(&spec.client_cwd)?;
        let (oumi, yaml) = (program.display().to_string(), staged.display().to_string());
        let up = ["launch", "up", "-c", &yaml, "--cluster", &cluster];
        let argv = [&[oumi.as_str()], up.as_slice(), &["--detach"]].concat();
        let command_line = shlex::try_join(argv.iter().copied()).map_err(JobError::failed)?;
        envs.insert("COLUMNS".to_owned(), "4096".to_owned());
        envs.extend(find::path_with_folder_of(&program).map(|path| ("PATH".to_owned(), path)));
        let process = start::StartRequest {
            plan: supervisor::SupervisorPlan {
                steps: vec![supervisor::Step {
                    name: STEP.to_owned(),
                    argv: argv.into_iter().map(ToOwned::to_owned).collect(),
                }],
                working_dir: spec.client_cwd.clone(),
                cancellable: false,
                cleanup: vec![staged.clone()],
                time_limit_seconds: None,
            },
            envs,
            files: vec![(staged, config.to_yaml().map_err(JobError::failed)?)],
        };
        Ok(LaunchPlan {
            command_line,
            cluster,
            job_config: Some(config.redacted()),
            process,
            warnings: config.warnings,
            autostop: None,
        })
    }

    pub(super) async fn start(
        &self,
        identity: &JobIdentity,
        mut plan: LaunchPlan,
        lock: JobLock,
        before: Option<ClusterBefore>,
    ) -> Result<(), JobError> {
        let dir = self.dir(identity)?;
        let config = plan.job_config.as_ref();
        let name = config.and_then(|config| config["name"].as_str());
        let start = LaunchStart {
            name: name.unwrap_or_default().to_owned(),
            cluster: identity.cluster.clone(),
            before,
        };
        let start = serde_json::to_string(&start).map_err(JobError::failed)?;
        plan.process.files.push((dir.path().join(START), start));
        let started = start::start(&self.supervisor, &dir, lock, plan.process).await;
        if started.is_err() {
            remove_staged(&dir)?;
        }
        started
    }

    /// Waits for the end of a launch.
    pub(super) async fn wait(&self, identity: &JobIdentity) -> Result<LaunchState, JobError> {
        loop {
            let state = self.state(identity).map_err(JobError::unavailable)?;
            if state.has_ended {
                // The supervisor removes it, unless it was killed.
                if let Err(error) = remove_staged(&self.dir(identity)?) {
                    tracing::warn!(job_id = identity.job_id, %error, "cannot remove the staged config, which holds secrets");
                }
                return Ok(state);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the output of the launch.
    pub(super) fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let ended = self.state(identity).is_ok_and(|launch| launch.has_ended);
        JobLog::of_output(&self.dir(identity)?, ended)
    }

    /// Returns the facts of the launch of a job; `None` when no server of this folder launched it.
    pub(super) fn facts(&self, identity: &JobIdentity) -> Option<LaunchFacts> {
        let facts = self.state(identity).ok()?.facts;
        facts.started_at.map(|_| facts)
    }

    /// Returns the cluster that a job was launched onto.
    pub(in crate::launcher) fn cluster_of(&self, identity: &JobIdentity) -> Option<String> {
        Some(self.facts(identity)?.start.cluster)
    }

    /// Returns the facts of the launch of a job, with the mark of the job where it is among these jobs of its cluster. The mark is
    /// kept, so that the job stays the job of this launch.
    pub(super) fn claim_job(
        &self,
        identity: &JobIdentity,
        jobs: &[QueuedJob],
        cluster_hash: Option<&str>,
    ) -> Option<LaunchFacts> {
        let state = self.state(identity).ok()?;
        let mut facts = Some(state.facts).filter(|facts| facts.started_at.is_some())?;
        if facts.mark.is_some() || jobs.is_empty() || !state.has_ended {
            return Some(facts);
        }
        let cluster = &facts.start.cluster;
        if let Ok(others) = other_launches(&self.folder.jobs(), &identity.job_id, cluster)
            && let Some(job) = find_job(&facts, jobs, cluster_hash, &others)
            // Whoever knows the job by another id is not told of this one.
            && ["", &job.job_id].contains(&identity.oumi_job_id.as_str())
            && let Some(mark) = JobMark::of(job, cluster_hash)
        {
            facts.oumi_job_id = Some(job.job_id.clone());
            facts.mark = Some(mark);
            if let Err(error) = self.keep(identity, &facts) {
                let job_id = &identity.job_id;
                tracing::warn!(job_id, %error, "cannot keep what tells a job from another");
            }
        }
        Some(facts)
    }

    fn keep(&self, identity: &JobIdentity, facts: &LaunchFacts) -> Result<(), JobError> {
        Ok(facts.write(&self.dir(identity)?)?)
    }

    /// Records that an interrupted launch has put no job on its cluster.
    pub(super) fn record_failure(
        &self,
        identity: &JobIdentity,
        reason: &str,
    ) -> Result<(), JobError> {
        let LaunchState {
            mut facts, failure, ..
        } = self.state(identity)?;
        facts.failure = failure.is_none().then(|| reason.to_owned());
        facts.is_submitted = false;
        self.keep(identity, &facts)
    }

    /// Cancels a launch that never began.
    pub(super) fn cancel_unless_begun(
        &self,
        identity: &JobIdentity,
    ) -> Result<CancelOutcome, JobError> {
        let dir = self.dir(identity)?;
        if dir.log_path().try_exists()? {
            return Err(JobError::failed(
                "its launch was cut off and left no id to cancel by; its cluster may be up and cost money: call list_jobs to \
                 see, down_cluster to delete it",
            ));
        }
        dir.write_exit_record(&ExitRecord::cancelled(STEP))?;
        Ok(CancelOutcome::Cancelled {
            message: Some("it was cancelled before it was launched".to_owned()),
        })
    }

    pub(super) fn state(&self, identity: &JobIdentity) -> Result<LaunchState, JobError> {
        let dir = self.dir(identity)?;
        LaunchState::read(&dir, &identity.cluster).map_err(|error| {
            JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
        })
    }
}

/// Removes the staged config, which holds secrets.
fn remove_staged(dir: &JobDir) -> Result<(), JobError> {
    match std::fs::remove_file(staged_path(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JobError::failed(error)),
        _ => Ok(()),
    }
}

fn staged_path(dir: &JobDir) -> PathBuf {
    dir.path().join("job.yaml")
}
