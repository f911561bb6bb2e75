//! The end of a job on this machine: its supervisor's work, and done here where that is dead.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use super::{ended, lost, off_thread};
use crate::error::JobError;
use crate::launcher::{CancelOutcome, JobStatus, supervisor};
use crate::process::job_dir::{EndRequest, EndTurn, ExitRecord, JobDir};
use crate::process::table::{Ending, ProcessTable};

/// How long a cancel waits for the processes to end before it says what is left.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
const CANCEL_LOOK: Duration = Duration::from_millis(50);
/// How often the processes of a job without a supervisor are looked at until the last has ended.
const SEE_THROUGH_LOOK: Duration = Duration::from_millis(500);

/// Ends the job in `dir`. The supervisor does it; where that is dead, this does.
pub(super) async fn cancel(dir: JobDir, force: bool) -> Result<CancelOutcome, JobError> {
    let deadline = Instant::now() + CANCEL_WAIT;
    let mut end = End::new(dir);
    loop {
        let step;
        (end, step) = end.step(force).await?;
        match step {
            CancelStep::Over(outcome) => return Ok(outcome),
            CancelStep::Left(left) if Instant::now() >= deadline => {
                if end.is_ours() {
                    tokio::spawn(see_through(end));
                }
                return Ok(still_stopping(left, force));
            }
            CancelStep::Left(_) => tokio::time::sleep(CANCEL_LOOK).await,
        }
    }
}

/// Takes up an end that was asked for, where nobody sees to it.
pub(super) async fn resume_termination(dir: JobDir) {
    let mut end = End::new(dir.clone());
    end.asked = true;
    match off_thread(move || dir.take_end_turn().map_err(JobError::failed)).await {
        Ok(Some(turn)) => end.turn = Some(turn),
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "cannot take up the end of a job; trying again at the next look");
            return;
        }
    }
    see_through(end).await;
}

/// Sees to the end of a job until nothing is left of it, in place of its supervisor.
async fn see_through(mut end: End) {
    loop {
        let step;
        (end, step) = match end.step(false).await {
            Ok(stepped) => stepped,
            Err(error) => {
                tracing::warn!(%error, "the end of a job failed; trying again at the next look");
                return;
            }
        };
        if matches!(step, CancelStep::Over(_)) || !end.is_ours() {
            return;
        }
        tokio::time::sleep(SEE_THROUGH_LOOK).await;
    }
}

/// The end of a job, as one of those sees it who want it.
struct End {
    dir: JobDir,
    ending: Ending,
    /// It was asked for.
    asked: bool,
    /// Something of the job was seen alive.
    was_alive: bool,
    is_supervised: bool,
    turn: Option<EndTurn>,
}

enum CancelStep {
    Over(CancelOutcome),
    Left(usize),
}

impl End {
    fn new(dir: JobDir) -> Self {
        Self {
            dir,
            ending: Ending::default(),
            asked: false,
            was_alive: false,
            is_supervised: false,
            turn: None,
        }
    }

    /// Whether it would come to a halt without us.
    fn is_ours(&self) -> bool {
        self.turn.is_some() && !self.is_supervised
    }

    async fn step(mut self, force: bool) -> Result<(Self, CancelStep), JobError> {
        off_thread(move || match self.step_now(force) {
            Ok(step) => Ok((self, step)),
            Err(error) => Err(JobError::failed(format!(
                "cannot cancel {}: {error}",
                self.dir.path().display()
            ))),
        })
        .await
    }

    fn step_now(&mut self, force: bool) -> io::Result<CancelStep> {
        let dir = &self.dir;
        let asked_before = std::mem::replace(&mut self.asked, true);
        if let Some(record) = dir.exit_record()? {
            return after_the_end(dir, &record, force, asked_before, &mut self.ending);
        }
        if !dir.exists() {
            return Ok(CancelStep::Over(already_done(&lost())));
        }
        if !asked_before {
            dir.request_end(EndRequest { force })?;
        }
        if self.turn.is_none() {
            self.turn = dir.take_end_turn()?;
        }
        self.is_supervised = supervisor::nudge(dir)?;
        if self.is_supervised {
            self.was_alive = true;
            let processes = ProcessTable::look(false)?;
            let supervisor = dir.supervisor_pid()?;
            let left = supervisor.map_or(0, |pid| processes.descendants(pid).len());
            return Ok(CancelStep::Left(left));
        }
        // The supervisor is dead, or never was: what is left is found by its mark, and how it ended is for us to write,
        // unless another has the turn.
        let members = ProcessTable::look(true)?.of_job(dir.path());
        self.was_alive |= !members.is_empty();
        if self.turn.is_none() {
            return Ok(CancelStep::Left(members.len().max(1)));
        }
        if !members.is_empty() {
            let force = dir.end_request().is_some_and(|request| request.force);
            self.ending.signal(&members, force);
            return Ok(CancelStep::Left(members.len()));
        }
        // The supervisor may have ended just now, and written how.
        if let Some(record) = dir.exit_record()? {
            return after_the_end(dir, &record, force, asked_before, &mut self.ending);
        }
        if dir.is_locked()? {
            self.was_alive = true;
            return Ok(CancelStep::Left(1));
        }
        let never_ran = !dir.log_path().exists();
        if never_ran || self.was_alive {
            dir.write_exit_record(&ExitRecord::cancelled("run"))?;
            return Ok(CancelStep::Over(CancelOutcome::Cancelled { message: None }));
        }
        dir.clear_end_request()?;
        Ok(CancelStep::Over(already_done(&lost())))
    }
}

/// A job that has ended is not cancelled; but what it left running can be ended, when that is insisted on.
fn after_the_end(
    dir: &JobDir,
    record: &ExitRecord,
    force: bool,
    asked: bool,
    ending: &mut Ending,
) -> io::Result<CancelStep> {
    let mut left = HashSet::new();
    if dir.is_locked()? {
        left = ProcessTable::look(true)?.of_job(dir.path());
        let supervisor = dir.supervisor_pid()?;
        left.retain(|pid| Some(*pid) != supervisor);
    }
    if force && !left.is_empty() {
        ending.signal(&left, true);
        return Ok(CancelStep::Left(left.len()));
    }
    if asked && record.cancelled {
        return Ok(CancelStep::Over(CancelOutcome::Cancelled { message: None }));
    }
    let mut outcome = already_done(&ended(record));
    if let CancelOutcome::AlreadyDone { message, .. } = &mut outcome
        && !left.is_empty()
    {
        *message = Some(format!(
            "{} of the processes it started still run; call cancel_job again with force=true to end them",
            left.len()
        ));
    }
    Ok(CancelStep::Over(outcome))
}

fn already_done(status: &JobStatus) -> CancelOutcome {
    CancelOutcome::AlreadyDone {
        status: status.status.clone(),
        state: status.state,
        message: status.message.clone(),
    }
}

fn still_stopping(left: usize, force: bool) -> CancelOutcome {
    let processes = match left {
        // Not even into the room that was kept for it.
        0 => {
            return CancelOutcome::Stopping {
                message: "nothing of it runs any more, but that cannot be written down; it reads as cancelled once the disk \
                          of the data folder takes something again"
                    .to_owned(),
            };
        }
        1 => "1 process is".to_owned(),
        _ => format!("{left} processes are"),
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
