//! The launch of a cloud job, which all clouds have in common: `oumi launch up` under a supervisor, and what it left to read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::job_yaml::JobConfig;
use super::local::{job_dir, output_log};
use super::{
    CancelOutcome, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec, status,
};
use crate::error::JobError;
use crate::parse;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::supervisor::living_supervisor;
use crate::process::{blocking, find, start, supervisor};
use crate::settings::data_dir::{DataDir, read_bounded};
use crate::text::read_tail;

/// The name of the one step of a launch.
const STEP: &str = "launch";
/// The file that holds the job's name on its cluster. It is written when the launch is begun.
const JOB_NAME: &str = "job-name";
/// How much of the end of a launch's output is looked at.
const LOOKED_AT: u64 = 256 * 1024;
/// The largest text file of a launch's folder, in bytes. Others may write to it.
const MAX_TEXT: u64 = 64 * 1024;
/// How often it is looked whether a launch has ended.
const SETTLE_LOOK: Duration = Duration::from_millis(250);

/// Starts launches, and reads what they left.
#[derive(Debug, Clone)]
pub(crate) struct CloudLaunch {
    folder: DataDir,
    supervisor: PathBuf,
    goes_on_for: Option<Duration>,
}

/// What a launch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Launched {
    /// The job is on its cluster, as this.
    As(JobIdentity),
    /// It failed, and this is the launcher's reason.
    Failed(String),
    /// It was cut off, or ended as if all were well, and left no id: nobody saw what came of it.
    CutOff {
        /// What the launcher had asked for may still come.
        may_go_on: bool,
    },
    /// It was cancelled before it began.
    Cancelled,
}

/// What a launch leaves to know its job by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The name that the job has on its cluster.
    pub name: String,
    /// When the launch was begun.
    pub begun: SystemTime,
    /// When the launcher said something last.
    pub said_at: SystemTime,
    /// It has said the job's id: the job was on its cluster then.
    pub said_id: bool,
}

/// Everything the folder of a launch says.
struct Look {
    ended: Option<ExitRecord>,
    alive: bool,
    output: String,
    /// When the launcher said something last; nothing when it came to nothing before that.
    said_at: Option<SystemTime>,
    failed: Option<String>,
}

impl Look {
    /// What the launch came to; nothing while it goes on.
    fn outcome(&self, identity: &JobIdentity, goes_on_for: Option<Duration>) -> Option<Launched> {
        if let Some(reason) = &self.failed {
            return Some(Launched::Failed(reason.clone()));
        }
        if self.ended.is_none() && self.alive {
            return None;
        }
        if self.ended.as_ref().is_some_and(|record| record.cancelled) {
            return Some(Launched::Cancelled);
        }
        if let Some(launched) = parse::oumi::printed_job_id(&self.output) {
            return Some(Launched::As(JobIdentity {
                oumi_job_id: launched.oumi_job_id,
                cluster: launched.cluster.unwrap_or_else(|| identity.cluster.clone()),
                ..identity.clone()
            }));
        }
        let failed = self.ended.as_ref().filter(|record| {
            // A signal leaves no reason of its own.
            record.error.is_some() || record.code.is_some_and(|code| code != 0)
        });
        Some(match failed {
            Some(record) => Launched::Failed(
                parse::failure_reason(&self.output).unwrap_or_else(|| record.describe()),
            ),
            None => Launched::CutOff {
                may_go_on: self
                    .said_at
                    .zip(goes_on_for)
                    .is_some_and(|(said_at, goes_on_for)| {
                        // A time that is still to come is now.
                        said_at.elapsed().unwrap_or_default() < goes_on_for
                    }),
            },
        })
    }
}

impl CloudLaunch {
    /// Launches whose folders are in `folder`. `supervisor` is the program to run as `supervise`: this one. `goes_on_for` is how
    /// long what a launcher asked for may still come when it was cut off; nothing where nobody can see whether it came.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf, goes_on_for: Option<Duration>) -> Self {
        Self {
            folder,
            supervisor,
            goes_on_for,
        }
    }

    /// The plan of a launch onto `cluster`. `envs` are for the launcher; those of the job are in its config.
    ///
    /// # Errors
    /// When the job config cannot be written down.
    pub(crate) fn plan(
        &self,
        spec: &LaunchSpec,
        cluster: String,
        config: JobConfig,
        mut envs: BTreeMap<String, String>,
    ) -> Result<LaunchPlan, JobError> {
        let dir = job_dir(&self.folder, &spec.identity)?;
        let (program, obstacle) = match find::find_oumi(&spec.client_cwd) {
            Ok(path) => (path, None),
            Err(missing) => (PathBuf::from("oumi"), Some(missing.to_string())),
        };
        let staged = staged_path(&dir);
        let argv: Vec<String> = [
            program.display().to_string(),
            "launch".to_owned(),
            "up".to_owned(),
            "-c".to_owned(),
            staged.display().to_string(),
            "--cluster".to_owned(),
            cluster.clone(),
            "--detach".to_owned(),
        ]
        .into();
        envs.insert("COLUMNS".to_owned(), "4096".to_owned());
        if let Some(path) = find::path_with_folder_of(&program) {
            envs.insert("PATH".to_owned(), path);
        }
        Ok(LaunchPlan {
            command_line: shlex::try_join(argv.iter().map(String::as_str))
                .map_err(JobError::failed)?,
            cluster,
            job_config: Some(config.redacted()),
            blocked_by: obstacle,
            process: start::StartRequest {
                plan: supervisor::SupervisorPlan {
                    steps: vec![supervisor::Step {
                        name: STEP.to_owned(),
                        argv,
                    }],
                    working_dir: spec.client_cwd.clone(),
                    cancellable: false,
                    cleanup: vec![staged.clone()],
                },
                envs,
                files: vec![
                    (staged, config.to_yaml().map_err(JobError::failed)?),
                    (dir.path().join(JOB_NAME), config.name().to_owned()),
                ],
            },
            warnings: config.warnings,
        })
    }

    /// Sets a launch going.
    ///
    /// # Errors
    /// When the program cannot be started; the folder then says so too.
    pub(crate) async fn start(
        &self,
        identity: &JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        let dir = job_dir(&self.folder, identity)?;
        let started = start::start(&self.supervisor, &dir, lock, plan.process).await;
        if started.is_err() {
            remove_staged(dir).await?;
        }
        started.map_err(JobError::failed)
    }

    /// Waits until a launch has ended, and says what it came to.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub(crate) async fn wait_for_launch(
        &self,
        identity: &JobIdentity,
    ) -> Result<Launched, JobError> {
        loop {
            let look = self.look(identity).await;
            let look = look.map_err(|error| JobError::unavailable(error.to_string()))?;
            if let Some(outcome) = self.outcome(identity, &look) {
                // The supervisor removes it, unless it was killed.
                remove_staged(job_dir(&self.folder, identity)?).await?;
                return Ok(outcome);
            }
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    /// How a job is whose id is not known: its launch goes on, or failed.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub(crate) async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        let look = self.look(identity).await?;
        let mut status = match self.outcome(identity, &look) {
            None | Some(Launched::As(_)) => {
                let mut status = JobStatus::new(status::LAUNCHING, JobState::Pending, false);
                status.message = parse::last_line(&look.output);
                status
            }
            Some(Launched::Failed(reason)) => {
                let mut status = JobStatus::new(status::FAILED, JobState::Failed, true);
                status.message = Some(reason);
                status
            }
            Some(Launched::Cancelled) => {
                JobStatus::new(status::CANCELLED, JobState::Cancelled, true)
            }
            Some(Launched::CutOff { may_go_on: true }) => {
                let mut status = JobStatus::new(status::LAUNCHING, JobState::Pending, false);
                status.message = Some(format!(
                    "its launch was cut off, and what it had asked for may still come: the job is looked for on cluster {}",
                    identity.cluster
                ));
                status
            }
            Some(Launched::CutOff { may_go_on: false }) => {
                // Where it can be looked for, it is not over before that was done.
                let is_over = self.goes_on_for.is_none();
                let mut status = JobStatus::new(status::LOST, JobState::Unknown, is_over);
                let next = if is_over {
                    "call list_jobs to see, down_cluster to delete it"
                } else {
                    "the job is looked for there, and poll_status says later what was found"
                };
                status.message = Some(format!(
                    "its launch was cut off, and nobody saw how it ended; cluster {} may be up and cost money: {next}",
                    identity.cluster
                ));
                status
            }
        };
        status.log_file = job_dir(&self.folder, identity)?
            .log_path()
            .display()
            .to_string();
        Ok(status)
    }

    /// The output of the launch.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let dir = job_dir(&self.folder, identity)?;
        blocking(move || {
            let ended = dir.exit_record().is_ok_and(|record| record.is_some())
                || dir.is_locked().is_ok_and(|locked| !locked);
            output_log(&dir, ended)
        })
        .await
    }

    /// Whether the launch said that its cluster was there before.
    pub(crate) async fn found_existing_cluster(&self, identity: &JobIdentity) -> bool {
        match self.look(identity).await {
            Ok(look) => parse::oumi::existing_cluster(&look.output).is_some(),
            Err(_) => false,
        }
    }

    /// What is known of a job from its launch; nothing when it was not launched here.
    pub(crate) async fn trace(&self, identity: &JobIdentity) -> Option<Trace> {
        let dir = job_dir(&self.folder, identity).ok()?;
        let read = move || -> io::Result<Trace> {
            let path = dir.path().join(JOB_NAME);
            let begun = std::fs::metadata(&path)?.modified()?;
            let look = look(&dir)?;
            Ok(Trace {
                name: read_text(&path)?,
                begun,
                said_at: look.said_at.unwrap_or(begun),
                said_id: parse::oumi::printed_job_id(&look.output).is_some(),
            })
        };
        blocking(move || read().map_err(JobError::failed))
            .await
            .ok()
    }

    /// Cancels a job whose id is not known: one whose launch never began is marked so.
    ///
    /// # Errors
    /// When its folder cannot be used, or its launch left something that only a cluster can be asked about.
    pub(crate) async fn cancel(&self, identity: &JobIdentity) -> Result<CancelOutcome, JobError> {
        let dir = job_dir(&self.folder, identity)?;
        let look = self.look(identity).await?;
        match self.outcome(identity, &look) {
            None => Ok(CancelOutcome::Stopping {
                message: "its launch goes on in another server; call cancel_job again once poll_status gives an \
                          oumi_job_id"
                    .to_owned(),
            }),
            Some(Launched::Failed(reason)) => Ok(CancelOutcome::AlreadyFinished {
                status: status::FAILED.to_owned(),
                state: JobState::Failed,
                message: Some(reason),
            }),
            Some(Launched::Cancelled) => Ok(CancelOutcome::AlreadyFinished {
                status: status::CANCELLED.to_owned(),
                state: JobState::Cancelled,
                message: None,
            }),
            Some(Launched::CutOff { .. } | Launched::As(_)) => {
                blocking(move || {
                    if dir.log_path().exists() {
                        return Err(JobError::failed(
                            "its launch was cut off and left no id to cancel by; its cluster may be up and cost money: \
                             call list_jobs to see, down_cluster to delete it"
                                .to_owned(),
                        ));
                    }
                    dir.write_exit_record(&ExitRecord::cancelled(STEP)).map_err(JobError::failed)?;
                    Ok(CancelOutcome::Cancelled { message: Some("it was cancelled before it was launched".to_owned()) })
                })
                .await
            }
        }
    }

    /// Keeps that a launch which was cut off has come to nothing, so that it need not be found out again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) async fn keep_failure(
        &self,
        identity: &JobIdentity,
        reason: String,
    ) -> Result<(), JobError> {
        let dir = job_dir(&self.folder, identity)?;
        blocking(move || {
            crate::settings::data_dir::write_atomic(&failure_path(&dir), reason.as_bytes())
                .map_err(JobError::failed)
        })
        .await
    }

    fn outcome(&self, identity: &JobIdentity, look: &Look) -> Option<Launched> {
        look.outcome(identity, self.goes_on_for)
    }

    async fn look(&self, identity: &JobIdentity) -> Result<Look, JobError> {
        let dir = job_dir(&self.folder, identity)?;
        blocking(move || {
            look(&dir).map_err(|error| {
                JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
            })
        })
        .await
    }
}

/// The staged config holds secrets: nothing of it stays.
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

fn failure_path(dir: &JobDir) -> PathBuf {
    dir.path().join("launch-failed")
}

fn look(dir: &JobDir) -> io::Result<Look> {
    // In this order: whoever ended in between has written how.
    let locked = dir.is_locked()?;
    let ended = dir.exit_record()?;
    let (output, said_at) = end_of(dir)?;
    // A daemon of the launcher may hold the lock for ever. It is the launcher that counts, and once it has said that the job
    // is on its cluster, and its supervisor is gone, nothing more is to be waited for.
    let supervised = || match dir.supervisor_pid()? {
        Some(_) => Ok(living_supervisor(dir)?.is_some()),
        None => Ok::<bool, io::Error>(true),
    };
    let alive = locked && (parse::oumi::printed_job_id(&output).is_none() || supervised()?);
    let failed = match read_text(&failure_path(dir)) {
        Ok(reason) => Some(reason),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Look {
        ended,
        alive,
        output,
        said_at,
        failed,
    })
}

/// Reads a short text of the launch's folder: the job's name, or the reason of a failure.
fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_bounded(path, MAX_TEXT)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of the launch's output, and when it was written.
fn end_of(dir: &JobDir) -> io::Result<(String, Option<SystemTime>)> {
    let path = dir.log_path();
    let bytes = match read_tail(&path, LOOKED_AT) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), None)),
        Err(error) => return Err(error),
    };
    let modified = std::fs::metadata(&path)?.modified()?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    Ok((output, (!bytes.is_empty()).then_some(modified)))
}
