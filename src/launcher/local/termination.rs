//! The cancel of a job on this machine. Its supervisor ends the processes; where that is dead, the server does.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use super::{cancelled_status, ended_status, lost_status};
use crate::error::JobError;
use crate::launcher::{CancelOutcome, JobStatus};
use crate::process::blocking;
use crate::process::job_dir::{ExitRecord, JobDir, Termination};
use crate::process::supervisor::{living_supervisor, notify};
use crate::process::table::{ProcessTable, Terminator};

/// The time that a cancel waits for the processes to end before it answers that some are left.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Ends all processes of the job in `dir`.
pub(super) async fn cancel(dir: JobDir, force: bool) -> Result<CancelOutcome, JobError> {
    let deadline = Instant::now() + CANCEL_WAIT;
    let mut cancel = Cancel {
        dir,
        termination: if force {
            Termination::Forced
        } else {
            Termination::Graceful
        },
        is_requested: false,
        terminator: Terminator::default(),
    };
    loop {
        let step;
        (cancel, step) = blocking(move || match cancel.step() {
            Ok(step) => Ok((cancel, step)),
            Err(error) => {
                let dir = cancel.dir.path().display();
                Err(JobError::failed(format!(
                    "cannot cancel the job in {dir}: {error}"
                )))
            }
        })
        .await?;
        match step {
            Step::Finished(outcome) => return Ok(outcome),
            Step::Remaining(count) if Instant::now() >= deadline => {
                return Ok(stopping_outcome(count, force));
            }
            Step::Remaining(_) => tokio::time::sleep(CANCEL_POLL).await,
        }
    }
}

struct Cancel {
    dir: JobDir,
    termination: Termination,
    /// This cancel found the job alive, and its request is written.
    is_requested: bool,
    terminator: Terminator,
}

enum Step {
    Finished(CancelOutcome),
    /// So many processes are left.
    Remaining(usize),
}

impl Cancel {
    fn step(&mut self) -> io::Result<Step> {
        let dir = &self.dir;
        if let Some(record) = dir.exit_record()? {
            return self.after_exit(&record);
        }
        let supervisor = living_supervisor(dir)?;
        let members = match supervisor {
            Some(pid) => ProcessTable::snapshot()?.descendants(pid),
            None => ProcessTable::snapshot_with_environments()?.job_members(dir.path()),
        };
        if supervisor.is_none() && members.is_empty() && !dir.is_locked()? {
            return self.after_unrecorded_exit();
        }
        if !self.is_requested {
            dir.request_termination(self.termination)?;
            self.is_requested = true;
        }
        match supervisor {
            Some(pid) => notify(pid),
            None => self.terminator.signal(&members, self.termination),
        }
        Ok(Step::Remaining(members.len()))
    }

    /// Concludes once no process of the job lives, and a moment ago there was no exit record.
    fn after_unrecorded_exit(&mut self) -> io::Result<Step> {
        let dir = &self.dir;
        // The supervisor may have written it since, as the last thing it did.
        if let Some(record) = dir.exit_record()? {
            return self.after_exit(&record);
        }
        let has_run = dir.log_path().try_exists()?;
        if self.is_requested || (dir.exists()? && !has_run) {
            let recorded = dir.write_exit_record(&ExitRecord::cancelled("run"));
            // On a full disk the request alone makes the job read as cancelled.
            if !self.is_requested {
                recorded?;
            }
            return Ok(Step::Finished(CancelOutcome::Cancelled { message: None }));
        }
        let status = match dir.termination_request()? {
            Some(_) => cancelled_status(),
            None => lost_status(),
        };
        Ok(Step::Finished(already_done(&status)))
    }

    /// A job that has ended is not cancelled. A forced cancel ends the processes that it left running.
    fn after_exit(&mut self, record: &ExitRecord) -> io::Result<Step> {
        let mut left = HashSet::new();
        if self.dir.is_locked()? {
            left = ProcessTable::snapshot_with_environments()?.job_members(self.dir.path());
            let supervisor = self.dir.supervisor_pid()?;
            left.retain(|pid| Some(*pid) != supervisor);
        }
        if self.termination == Termination::Forced && !left.is_empty() {
            self.terminator.signal(&left, self.termination);
            return Ok(Step::Remaining(left.len()));
        }
        if self.is_requested && record.cancelled {
            return Ok(Step::Finished(CancelOutcome::Cancelled { message: None }));
        }
        let mut status = ended_status(record);
        if !left.is_empty() {
            status.message = Some(format!(
                "{} of the processes it started still run; call cancel_job again with force=true to end them",
                left.len()
            ));
        }
        Ok(Step::Finished(already_done(&status)))
    }
}

fn already_done(status: &JobStatus) -> CancelOutcome {
    CancelOutcome::AlreadyFinished {
        status: status.status.clone(),
        state: status.state,
        message: status.message.clone(),
    }
}

fn stopping_outcome(remaining: usize, force: bool) -> CancelOutcome {
    let processes = match remaining {
        0 => {
            let message = "no process of it is left, but its supervisor has not recorded the end yet, for example because \
                           the disk is full; call poll_status to see when it has";
            return CancelOutcome::Stopping {
                message: message.to_owned(),
            };
        }
        1 => "1 process is".to_owned(),
        _ => format!("{remaining} processes are"),
    };
    let next = if force {
        "they were killed and are not gone yet; call poll_status to see when they are"
    } else {
        "call cancel_job again with force=true to kill what is left, or poll_status to see whether it ends by itself"
    };
    CancelOutcome::Stopping {
        message: format!(
            "it was asked to stop, and {processes} still there after {} s; {next}",
            CANCEL_WAIT.as_secs()
        ),
    }
}
