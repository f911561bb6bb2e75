//! The cancel of a job on this machine. Its supervisor ends the processes; where that is dead, the server does.

use std::mem;
use std::time::{Duration, Instant};

use super::{ended_status, unrecorded_status};
use crate::error::{JobError, Result};
use crate::launcher::{JobState, JobStatus};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::supervisor::notify;
use crate::process::table::{JobProcesses, ProcessTable, Termination, Terminator};
use crate::settings::data_dir::create_private;

/// The time that a cancel waits for the processes to end before it answers that some are left.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Ends all processes of the job in `dir`, and waits until they have ended, [`CANCEL_WAIT`] at most.
pub(super) async fn cancel(dir: &JobDir, force: bool) -> Result<JobStatus> {
    let deadline = Instant::now() + CANCEL_WAIT;
    let termination = match force {
        true => Termination::Forced,
        false => Termination::Graceful,
    };
    let mut terminator = Terminator::default();
    // Once this cancel has found the job alive.
    let mut is_requested = false;
    // The most processes that were there at once after the script had ended.
    let mut leftovers = 0;
    loop {
        // One that cannot be read keeps no process alive.
        let record = dir.exit_record().unwrap_or_default();
        let has_ended = record.as_ref().is_some_and(|it| !it.processes_left);
        let job = ProcessTable::read()?.job(dir.path());
        if has_ended || (job.is_empty() && !dir.is_locked()?) {
            return ended(dir, is_requested, leftovers);
        }
        if !is_requested {
            // A job may have removed its own folder.
            create_private(dir.path())?;
            dir.request_termination(termination)?;
            is_requested = true;
        }
        if record.is_some() {
            leftovers = leftovers.max(job.members.len());
        }
        match job.supervisor {
            // Before it has claimed the start it handles no signal, and looks for the request itself.
            Some(pid) if dir.is_start_claimed()? => notify(pid),
            Some(_) => {}
            None => terminator.signal(&job.members, termination),
        }
        if Instant::now() >= deadline {
            return Ok(stopping_status(&job, dir, force));
        }
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

/// Concludes once no process of the job lives. Its end may have been recorded a moment ago.
fn ended(dir: &JobDir, is_requested: bool, leftovers: usize) -> Result<JobStatus> {
    let mut status = match dir.exit_record() {
        Ok(None) | Err(_) if is_requested => {
            // On a full disk the request alone makes the job read as cancelled.
            let _ = dir.write_exit_record(&ExitRecord::cancelled("run"));
            JobStatus::cancelled()
        }
        record => match record? {
            Some(mut record) => {
                if mem::take(&mut record.processes_left) {
                    // Its supervisor was killed before it could write this.
                    dir.write_exit_record(&record)?;
                }
                ended_status(&record)
            }
            None => unrecorded_status(dir)?,
        },
    };
    if !status.is_done {
        return Err(JobError::failed(status.message.unwrap_or_default()));
    }
    if leftovers > 0 && status.state != JobState::Cancelled {
        status.details.processes_left = Some(0);
        status.message = Some(format!(
            "the processes that it had left ({leftovers}) were ended; its script had ended before, with status `{}`",
            status.status
        ));
    }
    Ok(status)
}

/// Says of a process that holds the lock of its job, and has neither its mark nor a parent that has, how to end it.
pub(super) fn end_by_hand(dir: &JobDir) -> String {
    let path = dir.path().display();
    format!(
        "one of its processes is left and cannot be found; end it by hand: `lsof {path}/lock` names it"
    )
}

fn stopping_status(remaining: &JobProcesses, dir: &JobDir, force: bool) -> JobStatus {
    let left = match (remaining.members.len(), remaining.supervisor) {
        (0, Some(_)) => {
            "its supervisor has not recorded the end yet; call poll_status to see when it has"
                .to_owned()
        }
        (0, None) => end_by_hand(dir),
        (count, _) => {
            let are = if count == 1 { " is" } else { "es are" };
            let next = match force {
                true => "call poll_status to see when they are gone",
                false => {
                    "the job may be saving a checkpoint: poll_status tells when it is over, and cancel_job with force=true kills it"
                }
            };
            format!("{count} process{are} still there; {next}")
        }
    };
    let seconds = CANCEL_WAIT.as_secs();
    let message = format!("it was asked to stop {seconds} s ago, and {left}");
    JobStatus::running().with_message(message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::settings::env_vars;

    #[tokio::test]
    async fn unreadable_exit_record_keeps_no_process_alive() {
        let home = tempfile::tempdir().unwrap();
        let (dir, lock) = JobDir::create(home.path().join("a")).unwrap();
        drop(lock);
        std::fs::create_dir(dir.path().join("exit.json")).unwrap();
        let mut sleep = Command::new("sleep");
        let sleep = sleep.arg("60").env(env_vars::JOB_DIR, dir.path());
        let mut child = sleep.spawn().unwrap();
        let reaped = std::thread::spawn(move || child.wait().unwrap());
        let outcome = cancel(&dir, true).await.unwrap();
        assert_eq!(outcome, JobStatus::cancelled());
        assert_eq!(reaped.join().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn supervisor_that_has_just_been_started_gets_no_signal() {
        let home = tempfile::tempdir().unwrap();
        let (dir, lock) = JobDir::create(home.path().join("a")).unwrap();
        drop(lock);
        let mut supervisor = Command::new("sh");
        let supervisor = supervisor.args(["-c", "read _", "supervise"]);
        let supervisor = supervisor.arg(dir.path()).stdin(Stdio::piped());
        let supervisor = supervisor.env(env_vars::JOB_DIR, dir.path());
        let mut child = supervisor.spawn().unwrap();
        let begun = tokio::time::timeout(Duration::ZERO, cancel(&dir, false)).await;
        assert!(begun.is_err() && dir.termination_request().unwrap().is_some());
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().signal(), None);
    }
}
