//! The start of a supervisor, by the server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::job_dir::{ExitRecord, JobDir, JobLock, PLAN};
use super::plan::SupervisorPlan;
use super::supervisor::{STARTED, append_to_log};
use super::table::ProcessTable;
use crate::error::{JobError, Result};
use crate::settings::env_vars;

const START_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 20 });

/// Variables that a job is given where the server has none. Programs would cut their errors at 80 columns, and some fill the line,
/// so that it must not be too wide. Python would hold losses back until they fill its buffer; SkyPilot sets that too.
const DEFAULTS: [(&str, &str); 2] = [("COLUMNS", "512"), ("PYTHONUNBUFFERED", "1")];

/// A plan, with what its start needs and its folder must not hold.
#[derive(Clone, Default)]
pub(crate) struct StartRequest {
    pub(crate) plan: SupervisorPlan,
    /// The environment, over the server's own. The values are secret.
    pub(crate) envs: BTreeMap<String, String>,
    /// Files to write into the job's folder before the start, 0600.
    pub(crate) files: Vec<(PathBuf, String)>,
}

/// Starts the supervisor of `dir`, which is `program` run as `supervise`, and returns once its first step runs. After an error
/// no process of the job is left, and the folder holds an exit record and a log with the reason.
pub(crate) async fn start(
    program: &Path,
    dir: &JobDir,
    lock: JobLock,
    job: StartRequest,
) -> Result<()> {
    let started = match prepare(program, dir, lock, &job) {
        Ok(command) => wait_for_report(command, dir).await,
        Err(error) => Err(error),
    };
    let reason = match started {
        Ok(None) => return Ok(()),
        Ok(Some(reason)) => reason,
        Err(error) => format!("cannot start the job's supervisor: {error}"),
    };
    if !matches!(dir.exit_record(), Ok(Some(_))) {
        let step = job.plan.steps.first().map_or("run", |step| &step.name);
        append_to_log(dir, &reason);
        if let Err(error) = dir.write_exit_record(&ExitRecord::not_started(step, &reason)) {
            tracing::warn!(%error, "cannot record why a job did not start");
        }
    }
    Err(JobError::failed(reason))
}

/// Runs the supervisor until it reports. Returns the reason why the job did not start, `None` when it did.
async fn wait_for_report(command: Command, dir: &JobDir) -> io::Result<Option<String>> {
    // On success the child is dropped, which leaves it running; tokio reaps it when it ends.
    let mut child = tokio::process::Command::from(command).spawn()?;
    let (out, mut line) = (child.stdout.take(), String::new());
    let mut out = BufReader::new(out.ok_or(io::ErrorKind::BrokenPipe)?.take(64 * 1024));
    let reported = tokio::time::timeout(START_TIMEOUT, out.read_line(&mut line)).await;
    let reason = match (&reported, line.trim_end()) {
        (Ok(_), STARTED) => return Ok(None),
        (Ok(Ok(1..)), reason) => return Ok(Some(reason.to_owned())),
        (Ok(_), _) => "the job's supervisor ended before the job started".to_owned(),
        (Err(_), _) => {
            let seconds = START_TIMEOUT.as_secs();
            format!("the job's supervisor did not report within {seconds} s")
        }
    };
    let claim = dir.claim_start(None);
    if reported.is_err() && matches!(claim, Ok(false)) {
        // It has begun, is held up, and looks after the job.
        return Ok(None);
    }
    child.start_kill()?;
    child.wait().await?;
    // A job that lives, or may live, has started.
    let may_live = !matches!(claim, Ok(true)) && is_alive(dir).unwrap_or(true);
    Ok((!may_live).then_some(reason))
}

/// Tells if any process of the job in `dir` lives.
pub(crate) fn is_alive(dir: &JobDir) -> io::Result<bool> {
    Ok(dir.is_locked()? || !ProcessTable::read()?.job(dir.path()).is_empty())
}

/// Tells if the supervisor of `dir` lives or may still begin.
pub(crate) fn is_supervised(dir: &JobDir) -> io::Result<bool> {
    let has_supervisor = |table: ProcessTable| table.job(dir.path()).supervisor.is_some();
    Ok(!dir.is_start_claimed()? || ProcessTable::read().map(has_supervisor)?)
}

fn prepare(program: &Path, dir: &JobDir, lock: JobLock, job: &StartRequest) -> io::Result<Command> {
    for (path, content) in &job.files {
        dir.write_new(path, content.as_bytes())?;
        if !job.plan.cancellable {
            // What a cloud job is known by outlives a crash of this machine.
            File::open(path)?.sync_all()?;
            File::open(dir.path())?.sync_all()?;
        }
    }
    dir.write_new(PLAN, &serde_json::to_vec(&job.plan)?)?;
    let mut command = Command::new(program);
    let defaults = DEFAULTS.iter().copied();
    command
        .envs(defaults.filter(|(name, _)| std::env::var_os(name).is_none()))
        .arg0("oumi-mcp-server")
        .arg("supervise")
        .arg(dir.path())
        .current_dir("/")
        .env_remove(env_vars::OUMI_OVERRIDES[0])
        .env_remove(env_vars::OUMI_OVERRIDES[1])
        .envs(&job.envs)
        .env(env_vars::JOB_DIR, dir.path())
        // Standard input hands the lock's open file down without unsafe code.
        .stdin(Stdio::from(lock.0))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(dir.open_log()?));
    Ok(command)
}
