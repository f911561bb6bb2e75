//! Launches onto clouds: `oumi launch up` under a supervisor, and what its folder says of it afterwards.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::claims::{JobMark, find_job};
use super::launch_dir::{
    ClusterBefore, LaunchFacts, LaunchResult, LaunchStart, LaunchState, START, inspect,
    other_launches, write_facts,
};
use crate::error::JobError;
use crate::launcher::job_yaml::JobConfig;
use crate::launcher::{
    CancelOutcome, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec, job_dir,
    status,
};
use crate::parse::sky::QueuedJob;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::{blocking, find, start, supervisor};
use crate::settings::data_dir::DataDir;

/// The name of the one step of a launch.
const STEP: &str = "launch";
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Starts launches and reads their folders.
#[derive(Debug, Clone)]
pub(crate) struct CloudLaunches {
    folder: DataDir,
    /// The program to run as `supervise`: this one.
    supervisor: PathBuf,
    completion_window: Option<Duration>,
}

impl CloudLaunches {
    /// `completion_window` is how long an interrupted launch may still put its job on the cluster; `None` where jobs cannot be
    /// found by name.
    pub(super) fn new(
        folder: DataDir,
        supervisor: PathBuf,
        completion_window: Option<Duration>,
    ) -> Self {
        Self {
            folder,
            supervisor,
            completion_window,
        }
    }

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
        let dir = self.dir(&spec.identity)?;
        let program = find::find_oumi(&spec.client_cwd)?;
        let staged = staged_path(&dir);
        let (oumi, yaml) = (program.display().to_string(), staged.display().to_string());
        let up = [
            "launch",
            "up",
            "-c",
            &yaml,
            "--cluster",
            &cluster,
            "--detach",
        ];
        let argv: Vec<String> = std::iter::once(oumi.as_str())
            .chain(up)
            .map(ToOwned::to_owned)
            .collect();
        envs.insert("COLUMNS".to_owned(), "4096".to_owned());
        envs.extend(find::path_with_folder_of(&program).map(|path| ("PATH".to_owned(), path)));
        let process = start::StartRequest {
            plan: supervisor::SupervisorPlan {
                steps: vec![supervisor::Step {
                    name: STEP.to_owned(),
                    argv: argv.clone(),
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
            command_line: shlex::try_join(argv.iter().map(String::as_str))
                .map_err(JobError::failed)?,
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
        let name = plan
            .job_config
            .as_ref()
            .and_then(|config| config.get("name"));
        let start = LaunchStart {
            name: name.and_then(Value::as_str).unwrap_or_default().to_owned(),
            cluster: identity.cluster.clone(),
            before,
        };
        let start = serde_json::to_string(&start).map_err(JobError::failed)?;
        plan.process.files.push((dir.path().join(START), start));
        let started = start::start(&self.supervisor, &dir, lock, plan.process).await;
        if started.is_err() {
            remove_staged(dir).await?;
        }
        started
    }

    /// Waits for the end of a launch.
    pub(super) async fn wait(&self, identity: &JobIdentity) -> Result<LaunchResult, JobError> {
        loop {
            let result = self.result(identity).await;
            let result = result.map_err(|error| JobError::unavailable(error.to_string()))?;
            if let Some(result) = result {
                // The supervisor removes it, unless it was killed.
                remove_staged(self.dir(identity)?).await?;
                return Ok(result);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the result of a launch, `None` while it runs.
    pub(super) async fn result(
        &self,
        identity: &JobIdentity,
    ) -> Result<Option<LaunchResult>, JobError> {
        let state = self.inspect(identity).await?;
        Ok(state.result(identity, self.completion_window))
    }

    /// Returns the status of a job whose id is not known.
    pub(super) async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        let state = self.inspect(identity).await?;
        let with_message = |word, state, is_done, message| JobStatus {
            message,
            ..JobStatus::new(word, state, is_done)
        };
        let launching =
            |message| with_message(status::LAUNCHING, JobState::Pending, false, message);
        let cluster = &identity.cluster;
        Ok(match state.result(identity, self.completion_window) {
            None | Some(LaunchResult::Succeeded(_)) => launching(state.last_line),
            Some(LaunchResult::Failed(reason)) => {
                with_message(status::FAILED, JobState::Failed, true, Some(reason))
            }
            Some(LaunchResult::Cancelled) => {
                JobStatus::new(status::CANCELLED, JobState::Cancelled, true)
            }
            Some(LaunchResult::Interrupted {
                may_still_complete: true,
            }) => launching(Some(format!(
                "its launch was cut off and may still complete; the server looks for the job on cluster {cluster}"
            ))),
            Some(LaunchResult::Interrupted { .. }) => {
                // Where the job can be looked for, that is done before it counts as ended.
                let is_done = self.completion_window.is_none();
                let next = if is_done {
                    "call list_jobs to see, down_cluster to delete it"
                } else {
                    "the server looks for the job there; call poll_status again"
                };
                let message = format!(
                    "its launch was cut off and its result is not known; cluster {cluster} may be up and cost money: {next}"
                );
                with_message(status::LOST, JobState::Unknown, is_done, Some(message))
            }
        })
    }

    /// Returns the output of the launch.
    pub(super) async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let dir = self.dir(identity)?;
        blocking(move || {
            let ended = dir.exit_record().is_ok_and(|record| record.is_some())
                || dir.is_locked().is_ok_and(|locked| !locked);
            JobLog::of_output(&dir, ended)
        })
        .await
    }

    /// Returns the facts of the launch of a job; `None` when this server and its like did not launch it.
    pub(super) async fn facts(&self, identity: &JobIdentity) -> Option<LaunchFacts> {
        let facts = self.inspect(identity).await.ok()?.facts;
        facts.started_at.map(|_| facts)
    }

    /// Returns the cluster that a job was launched onto.
    pub(in crate::launcher) async fn cluster_of(&self, identity: &JobIdentity) -> Option<String> {
        Some(self.facts(identity).await?.start.cluster)
    }

    /// Returns the same, with the mark of the job where its cluster lists these jobs and it is among them. The mark is kept, so that
    /// the job stays the job of this launch.
    pub(super) async fn claim_job(
        &self,
        identity: &JobIdentity,
        jobs: &[QueuedJob],
        cluster_hash: Option<&str>,
    ) -> Option<LaunchFacts> {
        let state = self.inspect(identity).await.ok()?;
        let facts = Some(state.facts).filter(|facts| facts.started_at.is_some())?;
        if facts.mark.is_some() || jobs.is_empty() || !state.has_ended {
            return Some(facts);
        }
        let (dir, folder) = (self.dir(identity).ok()?, self.folder.jobs());
        let (job_id, jobs) = (identity.job_id.clone(), jobs.to_vec());
        let registered = identity.oumi_job_id.clone();
        let hash = cluster_hash.map(ToOwned::to_owned);
        let unclaimed = facts.clone();
        let claim = move || {
            let others = other_launches(&folder, &job_id)?;
            let mut facts = facts;
            if let Some(job) = find_job(&facts, &jobs, hash.as_deref(), &others)
                // Whoever knows the job by another id is not told of this one.
                && (registered.is_empty() || job.job_id == registered)
                && let Some(mark) = JobMark::of(job, hash.as_deref())
            {
                facts.oumi_job_id = Some(job.job_id.clone());
                facts.mark = Some(mark);
                if let Err(error) = write_facts(&dir, &facts) {
                    tracing::warn!(job_id, %error, "cannot keep what tells a job from another");
                }
            }
            Ok::<_, io::Error>(facts)
        };
        Some(blocking(claim).await.unwrap_or(unclaimed))
    }

    /// Cancels a job without an id whose launch has this result.
    pub(super) async fn cancel(
        &self,
        identity: &JobIdentity,
        result: Option<LaunchResult>,
    ) -> Result<CancelOutcome, JobError> {
        let already_finished = |status: &str, state, message| CancelOutcome::AlreadyFinished {
            status: status.to_owned(),
            state,
            message,
        };
        match result {
            None => Ok(CancelOutcome::Stopping {
                message: "another server runs its launch; call cancel_job again once poll_status gives an oumi_job_id"
                    .to_owned(),
            }),
            Some(LaunchResult::Failed(reason)) => {
                Ok(already_finished(status::FAILED, JobState::Failed, Some(reason)))
            }
            Some(LaunchResult::Cancelled) => {
                Ok(already_finished(status::CANCELLED, JobState::Cancelled, None))
            }
            Some(LaunchResult::Interrupted { .. } | LaunchResult::Succeeded(_)) => {
                let dir = self.dir(identity)?;
                blocking(move || cancel_unless_begun(&dir)).await
            }
        }
    }

    /// Records that an interrupted launch has put no job on its cluster.
    pub(super) async fn record_failure(
        &self,
        identity: &JobIdentity,
        reason: &str,
    ) -> Result<(), JobError> {
        let dir = self.dir(identity)?;
        let state = self.inspect(identity).await?;
        let facts = LaunchFacts {
            failure: state.failure.is_none().then(|| reason.to_owned()),
            is_submitted: false,
            ..state.facts
        };
        blocking(move || write_facts(&dir, &facts))
            .await
            .map_err(JobError::failed)
    }

    async fn inspect(&self, identity: &JobIdentity) -> Result<LaunchState, JobError> {
        let (dir, cluster) = (self.dir(identity)?, identity.cluster.clone());
        blocking(move || {
            inspect(&dir, &cluster).map_err(|error| {
                JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
            })
        })
        .await
    }
}

/// Removes the staged config, which holds secrets.
async fn remove_staged(dir: JobDir) -> Result<(), JobError> {
    blocking(move || match std::fs::remove_file(staged_path(&dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JobError::failed(error)),
        _ => Ok(()),
    })
    .await
}

fn staged_path(dir: &JobDir) -> PathBuf {
    dir.path().join("job.yaml")
}

fn cancel_unless_begun(dir: &JobDir) -> Result<CancelOutcome, JobError> {
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
