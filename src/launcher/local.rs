//! Jobs on this machine: a supervised process each.

mod plan;
mod termination;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::io::ErrorKind::{NotFound, UnexpectedEof};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    JobDetails, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec, Launcher,
    Listing, job_dir, status,
};
use crate::error::{JobError, Result};
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::machine::{Machine, Place};
use crate::process::start;
use crate::process::table::{JobProcesses, ProcessTable, Termination};
use crate::settings::data_dir::{DataDir, if_found};
use crate::settings::unchanged::Unchanged;
use termination::{cancel, end_by_hand};

pub(crate) const LOCAL: &str = "local";
/// The advice while processes have time to end by themselves.
const WAIT_FOR_END: &str = "Call poll_status with wait_seconds=30.";
const ASKED_TO_STOP: &str =
    "it was asked to stop, and may be saving a checkpoint; cancel_job with force=true kills it";
/// The age of a log from which on another container of this name is held for an earlier start of this one.
const CONTAINER_SILENCE: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(crate) struct LocalLauncher {
    folder: DataDir,
    supervisor: PathBuf,
    /// The jobs that the processes of this machine were of, by the folder of jobs: a job that starts changes it.
    running: Unchanged<BTreeSet<String>>,
    /// The folders of jobs that run, with neither an exit record nor a request in them: what comes changes the folder.
    undisturbed: Unchanged<()>,
}

impl LocalLauncher {
    /// A launcher whose jobs live in `folder`. `supervisor` is the program to run as `supervise`: this one.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf) -> Self {
        Self {
            folder,
            supervisor,
            running: Unchanged::default(),
            undisturbed: Unchanged::default(),
        }
    }

    fn dir(&self, identity: &JobIdentity) -> Result<JobDir> {
        job_dir(&self.folder, identity)
    }

    fn probe_all<'j>(&self, jobs: impl Iterator<Item = &'j JobIdentity>) -> Listing {
        let (mut listing, mut processes) = (Listing::default(), None);
        for identity in jobs {
            let dir = self.dir(identity);
            let status = dir.and_then(|dir| self.probe(&dir, &mut processes));
            listing.add(identity, status);
        }
        listing
    }

    /// Returns the status of the job in `dir`: by its exit record, else its lock, else its processes, which are listed when they
    /// are needed first and kept for the next job of a list.
    fn probe(&self, dir: &JobDir, processes: &mut Option<ProcessTable>) -> Result<JobStatus> {
        let mut status = || -> io::Result<JobStatus> {
            let version = match self.undisturbed.get(dir.path()) {
                Ok(()) if dir.is_locked()? => return Ok(JobStatus::running()),
                known => known.err().flatten(),
            };
            match dir.exit_record()? {
                Some(record) if !record.processes_left => return Ok(ended_status(&record)),
                None if dir.is_locked()? => {
                    let status = running_status(dir)?;
                    if status.message.is_none() {
                        self.undisturbed.keep(dir.path(), version, &());
                        return Ok(status);
                    }
                }
                _ => {}
            }
            let processes = match processes {
                Some(processes) => processes,
                None => processes.insert(ProcessTable::read()?),
            };
            let job = processes.job(dir.path());
            // Who holds the lock without a mark has cleared its environment.
            let is_alive = !job.is_empty() || dir.is_locked()?;
            // It may have ended between the two looks.
            match dir.exit_record()? {
                Some(record) if record.processes_left && is_alive => {
                    leftover_status(dir, &record, &job)
                }
                Some(record) => Ok(ended_status(&record)),
                // It was asked to end, and its lock alone shows that it has not.
                None if is_alive && job.is_empty() && is_started_here(dir)? => {
                    Ok(unfound_status(dir))
                }
                None if is_alive => running_status(dir),
                None => unrecorded_status(dir),
            }
        };
        status().map_err(|error| {
            JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
        })
    }

    /// Lists the jobs that run and are not `known`, as after their data folder was emptied.
    fn unrecorded(&self, known: &[JobIdentity]) -> Result<Vec<JobIdentity>> {
        let known: HashSet<&str> = known.iter().map(|job| job.job_id.as_str()).collect();
        let is_known = |id: &String| known.contains(id.as_str());
        let folder = &self.folder.jobs();
        let version = match self.running.get(folder) {
            Ok(jobs) if jobs.iter().all(is_known) => return Ok(Vec::new()),
            Ok(_) => None,
            Err(version) => version,
        };
        let jobs = ProcessTable::read()?.jobs(folder);
        self.running.keep(folder, version, &jobs);
        let unknown = jobs.into_iter().filter(|id| !is_known(id));
        let identity = |id: String| JobIdentity {
            oumi_job_id: id.clone(),
            job_id: id,
            cloud: LOCAL.to_owned(),
            cluster: String::new(),
        };
        Ok(unknown.map(identity).collect())
    }
}

#[async_trait::async_trait]
impl Launcher for LocalLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        &[LOCAL]
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan> {
        plan::plan(&self.dir(&spec.identity)?, spec)
    }

    async fn start(&self, identity: &JobIdentity, plan: LaunchPlan, lock: JobLock) -> Result<()> {
        let dir = self.dir(identity)?;
        start::start(&self.supervisor, &dir, lock, plan.process).await
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity> {
        // The id of a job on this machine is our own, so there is nothing to wait for.
        Ok(JobIdentity {
            oumi_job_id: identity.job_id.clone(),
            ..identity.clone()
        })
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus> {
        self.probe(&self.dir(identity)?, &mut None)
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing> {
        let unrecorded = self.unrecorded(known);
        let mut listing = self.probe_all(known.iter().chain(unrecorded.iter().flatten()));
        let error = unrecorded.err().map(|error| error.to_string());
        listing.warnings.extend(error);
        Ok(listing)
    }

    async fn statuses(&self, known: &[JobIdentity]) -> Result<Listing> {
        Ok(self.probe_all(known.iter()))
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog> {
        let dir = self.dir(identity)?;
        let status = || self.probe(&dir, &mut None);
        JobLog::of_output(&dir, || status().is_ok_and(|status| status.is_done))
    }

    async fn cancel(&self, identity: &JobIdentity, force: bool) -> Result<JobStatus> {
        let dir = self.dir(identity)?;
        let meaning = format!("cannot cancel the job in {}", dir.path().display());
        let cancelled = cancel(&dir, force).await;
        cancelled.map_err(|error| error.context(&meaning))
    }
}

fn running_status(dir: &JobDir) -> io::Result<JobStatus> {
    let mut status = JobStatus::running();
    let (message, next) = match dir.termination_request()? {
        Some(Termination::Forced) => ("it is being killed", Some(WAIT_FOR_END)),
        Some(Termination::Graceful) => (ASKED_TO_STOP, Some(WAIT_FOR_END)),
        None if dir.exists()? => return Ok(status),
        None => (
            "its folder was removed, so its log is gone; cancel_job ends it",
            None,
        ),
    };
    status.message = Some(message.to_owned());
    status.details.next = next;
    Ok(status)
}

/// Tells if the processes of a job would be seen here: it may run in another container, or be just being started.
fn is_started_here(dir: &JobDir) -> io::Result<bool> {
    let machine = dir.machine()?;
    let place = machine.as_ref().map_or(Ok(Place::Here), Machine::place)?;
    Ok(dir.is_start_claimed()? && place == Place::Here)
}

/// The status of a job that no signal can reach: its supervisor was killed, and what is left of it has no mark.
fn unfound_status(dir: &JobDir) -> JobStatus {
    let mut status = JobStatus::running().with_message(end_by_hand(dir));
    status.details.next = Some("Tell the user.");
    status
}

/// The status of a job whose script has ended and left processes, none of which may be known by name.
fn leftover_status(dir: &JobDir, record: &ExitRecord, job: &JobProcesses) -> io::Result<JobStatus> {
    let left = match job.members.len() {
        0 | 1 => "1 process that it started still runs".to_owned(),
        processes => format!("{processes} processes that it started still run"),
    };
    let mut status = running_status(dir)?;
    if record.timed_out && job.supervisor.is_some() {
        let message = || format!("its time limit has passed: {ASKED_TO_STOP}");
        status.message.get_or_insert_with(message);
        status.details.next = Some(WAIT_FOR_END);
        return Ok(status);
    }
    let asked_to = status.message.as_deref();
    let end = asked_to.unwrap_or("cancel_job ends what is left");
    let (step, ended) = (&record.step, record.describe());
    status.message = Some(format!("`{step}` {ended}, but {left}; {end}"));
    status.details = JobDetails {
        next: status.details.next,
        processes_left: Some(job.members.len().max(1)),
        ..ended_status(record).details
    };
    Ok(status)
}

/// The status of a job that no process of this machine is left of, and whose end was not recorded.
fn unrecorded_status(dir: &JobDir) -> io::Result<JobStatus> {
    let machine = dir.machine()?;
    let place = machine.as_ref().map_or(Ok(Place::Here), Machine::place)?;
    let host = machine.as_ref().map_or("", |machine| machine.host.as_str());
    let unknown = |word, is_done| JobStatus::new(word, JobState::Unknown, is_done);
    // A container of this name that writes the log runs beside this one.
    let is_elsewhere = match place {
        Place::OtherContainer => if_found(dir.log_path().metadata())?
            .and_then(|log| log.modified().ok()?.elapsed().ok())
            .is_some_and(|silent| silent < CONTAINER_SILENCE),
        _ => place == Place::Elsewhere,
    };
    if is_elsewhere {
        let mut status = unknown(status::UNKNOWN, false).with_message(format!(
            "it is not known here: it was started on {host:?}, another machine or container; ask the server there"
        ));
        status.details.next = Some("Tell the user: only the server there knows.");
        return Ok(status);
    }
    // The request is written only while the job lives.
    if dir.termination_request()?.is_some() {
        return Ok(JobStatus::cancelled());
    }
    // A killed server may have left the beginning of a plan. Any other error may hide a plan.
    let is_there = |error: io::Error| !matches!(error.kind(), NotFound | UnexpectedEof);
    let is_planned = dir.is_start_claimed()? || dir.plan().map_or_else(is_there, |_| true);
    let has_log = dir.log_path().try_exists()?;
    if !is_planned && !has_log && machine.is_some() {
        let never_started = "it was never started: the server was killed before";
        let mut status = JobStatus::failed().with_message(never_started);
        status.details.next = Some("Call run_job again.");
        return Ok(status);
    }
    if place != Place::Here {
        return Ok(unknown(status::UNKNOWN, true).with_message(format!(
            "{host}, or its container, was restarted while it ran, which ended it; its log shows how far it got"
        )));
    }
    let left = match has_log {
        true => "its supervisor was killed; read its log",
        false => "nothing is left of it here, not even its log",
    };
    Ok(unknown(status::LOST, true).with_message(format!("how it ended is not known: {left}")))
}

fn ended_status(record: &ExitRecord) -> JobStatus {
    let mut status = if record.cancelled {
        JobStatus::cancelled()
    } else if record.succeeded() {
        JobStatus::new(status::COMPLETED, JobState::Succeeded, true)
    } else {
        let mut status = JobStatus::failed().with_message(record.describe());
        status.details.step = Some(record.step.clone());
        status
    };
    status.details.ended_at = Some(record.ended_at.clone());
    status.details.exit_code = record.code;
    status.details.signal = record.signal;
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;

    /// The folder of a new job, whose server was killed before it had planned it.
    fn new_job(home: &tempfile::TempDir) -> JobDir {
        let (dir, _lock) = JobDir::create(home.path().join("a")).unwrap();
        dir.write_secrets(&Redactor::default()).unwrap();
        dir
    }

    #[test]
    fn job_that_never_began_is_not_lost() {
        let home = tempfile::tempdir().unwrap();
        let dir = new_job(&home);
        let status = unrecorded_status(&dir).unwrap();
        assert_eq!((&*status.status, status.is_done), (status::FAILED, true));
        assert!(status.message.unwrap().contains("never started"));
        assert_eq!(status.details.next, Some("Call run_job again."));
        let is_lost = || unrecorded_status(&dir).unwrap().status == status::LOST;
        // It has a plan, its supervisor has begun, or it has a log.
        for file in ["plan.json", "supervisor.pid", "output.log"] {
            let file = dir.path().join(file);
            std::fs::write(&file, "x").unwrap();
            assert!(is_lost(), "{}", file.display());
            std::fs::remove_file(&file).unwrap();
        }
        // The server was killed while it wrote the plan.
        std::fs::write(dir.path().join("plan.json"), "").unwrap();
        assert!(!is_lost());
    }

    #[test]
    fn a_request_on_another_machine_is_no_end() {
        let home = tempfile::tempdir().unwrap();
        let dir = new_job(&home);
        dir.request_termination(Termination::Graceful).unwrap();
        let launcher = LocalLauncher::new(DataDir::at(home.path()), PathBuf::new());
        let state = || launcher.probe(&dir, &mut None).unwrap().state;
        assert_eq!(state(), JobState::Cancelled);
        let elsewhere = r#"{"host": "other", "boot": "", "pid_namespace": ""}"#;
        std::fs::write(dir.path().join("lock"), elsewhere).unwrap();
        assert_eq!(state(), JobState::Unknown);
    }

    #[test]
    fn a_job_that_was_asked_to_stop_says_how() {
        let home = tempfile::tempdir().unwrap();
        let dir = new_job(&home);
        dir.request_termination(Termination::Graceful).unwrap();
        let status = running_status(&dir).unwrap();
        assert_eq!(status.details.next, Some(WAIT_FOR_END));
        assert!(status.message.unwrap().contains("force=true"));
        dir.request_termination(Termination::Forced).unwrap();
        let status = running_status(&dir).unwrap();
        assert_eq!(status.message.as_deref(), Some("it is being killed"));
        assert_eq!(status.details.next, Some(WAIT_FOR_END));
    }

    #[test]
    fn what_nobody_ends_any_more_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let dir = new_job(&home);
        let record = ExitRecord {
            timed_out: true,
            ..ExitRecord::not_started("run", "time limit")
        };
        for (supervisor, expected) in [(Some(1), "may be saving"), (None, "ends what is left")] {
            let job = JobProcesses {
                supervisor,
                members: [2].into(),
            };
            let message = leftover_status(&dir, &record, &job).unwrap().message;
            assert!(message.unwrap().contains(expected));
        }
    }

    #[tokio::test]
    async fn process_that_only_the_lock_shows_is_ended_by_hand() {
        let home = tempfile::tempdir().unwrap();
        let launcher = LocalLauncher::new(DataDir::at(home.path()), PathBuf::new());
        let job = JobIdentity::of("a");
        let path = launcher.dir(&job).unwrap();
        std::fs::create_dir(home.path().join("jobs")).unwrap();
        // Held by this process, which has no mark.
        let (dir, _lock) = JobDir::create(path.path()).unwrap();
        let message = async || launcher.status(&job).await.unwrap().message;
        assert_eq!(message().await, None);
        dir.request_termination(Termination::Forced).unwrap();
        // Its server is about to start it.
        assert_eq!(message().await.unwrap(), "it is being killed");
        dir.claim_start(Some(1)).unwrap();
        assert!(message().await.unwrap().contains("lsof"));
    }
}
