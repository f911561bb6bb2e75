//! The small detached parent of every process that must outlive the server.
//!
//! [`start`] runs in the server: it starts this same binary as `supervise <job folder>` and waits until that says it has
//! begun. [`supervise`] is that process: it runs the steps of the plan, writes how they ended, and ends the whole tree of
//! processes when a cancel asks for it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use super::job_dir::{EndRequest, ExitRecord, JobDir, JobLock};
use super::table::{Ending, ProcessTable, is_of_job};
use crate::settings::data_dir::write_atomic;
use crate::settings::env_vars;

/// How long a supervisor may take to say that it has begun.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How often a supervisor looks for a cancel nobody told it of (the server died between the two).
const IDLE_LOOK: Duration = Duration::from_secs(2);
/// How often a supervisor looks again while it ends a tree.
const ENDING_LOOK: Duration = Duration::from_millis(40);
/// What a supervisor says when the first step runs.
const STARTED: &str = "started";

/// What a supervisor is to run; it stands in the job's folder, so it holds no value of `envs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Run one after the other; the first that fails ends the job.
    pub steps: Vec<Step>,
    /// Where they run.
    pub working_dir: PathBuf,
    /// Whether a cancel ends the tree of processes. A cloud launch is let run to its end: it is its job that is cancelled.
    pub cancel_ends_tree: bool,
    /// Files to remove when the last step has ended.
    pub remove_afterwards: Vec<PathBuf>,
}

/// One program of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `setup`, `run` or `launch`.
    pub name: String,
    /// The program and its arguments; no shell reads them.
    pub argv: Vec<String>,
}

/// The plan of the job in `dir`.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn plan(dir: &JobDir) -> io::Result<Plan> {
    Ok(serde_json::from_slice(&fs::read(dir.plan_path())?)?)
}

/// A plan with what its start needs and its folder must not hold.
#[derive(Clone)]
pub struct StartRequest {
    /// What is run.
    pub plan: Plan,
    /// The environment, over the server's own. The values are secret.
    pub envs: BTreeMap<String, String>,
    /// Files to write into the job's folder before the start, 0600.
    pub files: Vec<(PathBuf, String)>,
}

/// The supervised process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The job's folder or the supervisor failed.
    #[error("cannot start the job's supervisor: {0}")]
    Supervisor(#[from] io::Error),
    /// The first step could not be started.
    #[error("{0}")]
    Step(String),
    /// Nothing was heard of the supervisor.
    #[error("the job's supervisor said nothing within {} s", START_DEADLINE.as_secs())]
    Silent,
}

/// Starts the supervisor of `dir`, which is `program` run as `supervise`, and returns when its first step runs. The job's
/// environment is this process's own with the `envs` over it.
///
/// # Errors
/// When it could not be started; the folder then holds an exit record and a log that say why.
pub async fn start(
    program: &Path,
    dir: &JobDir,
    lock: JobLock,
    job: StartRequest,
) -> Result<(), StartError> {
    let step = job
        .plan
        .steps
        .first()
        .map_or("run", |step| step.name.as_str())
        .to_owned();
    let started = spawn(program, dir, lock, job).await;
    if let Err(error) = &started {
        let (dir, reason) = (dir.clone(), error.to_string());
        let recorded =
            tokio::task::spawn_blocking(move || record_failed_start(&dir, &step, &reason)).await;
        if let Err(error) = recorded.map_err(io::Error::other).flatten() {
            tracing::warn!(%error, "cannot record why a job did not start");
        }
    }
    started
}

/// The supervisor writes its own record where it can; this is for when it never came so far.
fn record_failed_start(dir: &JobDir, step: &str, reason: &str) -> io::Result<()> {
    if dir.exit_record()?.is_none() {
        note(dir, reason);
        dir.write_exit_record(&ExitRecord::not_started(step, reason))?;
    }
    Ok(())
}

/// Says in the log why nothing began. On a full disk the exit record, which says it too, is all there is.
fn note(dir: &JobDir, reason: &str) {
    let noted = dir.open_log().and_then(|mut log| writeln!(log, "{reason}"));
    if let Err(error) = noted {
        tracing::warn!(%error, reason, "cannot write to the log of a job");
    }
}

async fn spawn(
    program: &Path,
    dir: &JobDir,
    lock: JobLock,
    job: StartRequest,
) -> Result<(), StartError> {
    let (program, dir, lives_on) = (program.to_owned(), dir.clone(), dir.clone());
    let command = tokio::task::spawn_blocking(move || prepare(&program, &dir, lock, &job)).await;
    let mut child = tokio::process::Command::from(command.map_err(io::Error::other)??).spawn()?;
    let said = match child.stdout.take() {
        Some(out) => match tokio::time::timeout(START_DEADLINE, first_line(out)).await {
            Ok(said) => said?,
            Err(_) => {
                // What is answered now must stay true: it is not to begin after all.
                child.start_kill()?;
                return Err(StartError::Silent);
            }
        },
        None => return Err(io::Error::other("the supervisor has no standard output").into()),
    };
    // Dropping the child leaves it running; tokio reaps it when it ends.
    match said.as_str() {
        STARTED => Ok(()),
        "" => {
            child.wait().await?;
            // It may have been killed between the start of the first step and its word: the lock tells.
            if lives_on.is_locked()? {
                Ok(())
            } else {
                Err(io::Error::other("it ended before it began").into())
            }
        }
        reason => Err(StartError::Step(reason.to_owned())),
    }
}

fn prepare(program: &Path, dir: &JobDir, lock: JobLock, job: &StartRequest) -> io::Result<Command> {
    for (path, content) in &job.files {
        write_atomic(path, content.as_bytes())?;
    }
    write_atomic(&dir.plan_path(), &serde_json::to_vec(&job.plan)?)?;
    let mut command = Command::new(program);
    command
        .arg0("oumi-mcp-server")
        .arg("supervise")
        .arg(dir.path())
        .current_dir("/")
        .envs(&job.envs)
        .env(env_vars::JOB_DIR.name, dir.path())
        // The lock goes over as standard input: a way to hand down an open file that needs no unsafe code.
        .stdin(Stdio::from(lock.0))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(dir.open_log()?));
    Ok(command)
}

async fn first_line(stdout: tokio::process::ChildStdout) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout.take(64 * 1024))
        .read_line(&mut line)
        .await?;
    Ok(line.trim_end().to_owned())
}

/// Tells the supervisor of `dir` to look at what was asked of it. False when there is none any more.
///
/// # Errors
/// When that cannot be found out.
pub fn nudge(dir: &JobDir) -> io::Result<bool> {
    let Some(pid) = dir.supervisor_pid()? else {
        return Ok(false);
    };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(false);
    };
    if !is_of_job(pid, dir.path())? || kill_process(raw, Signal::USR1).is_err() {
        return Ok(false);
    }
    // One that somebody stopped looks only once it goes on.
    let _ = kill_process(raw, Signal::CONT);
    Ok(true)
}

/// The supervisor itself: what `supervise <dir>` runs, until the plan has ended.
///
/// # Errors
/// When it could not begin or could not write how the job ended.
pub fn supervise(dir: &Path) -> io::Result<()> {
    let dir = JobDir::at(dir);
    rustix::process::setsid()?;
    // Descendants whose parent dies become ours, so that none is lost sight of. Only Linux has this.
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // A copy of the lock without close-on-exec: every process of the job inherits it.
    let _inherited_lock = rustix::io::dup(io::stdin())?;
    if dir.exit_record()?.is_some() {
        // The server has given us up: what it has answered must stay true.
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        dir.write_supervisor_pid(std::process::id())?;
        let plan = plan(&dir)?;
        let ended = Supervisor::new(&dir, &plan)?.run().await;
        for file in &plan.remove_afterwards {
            let _ = fs::remove_file(file);
        }
        write_until_written(&dir, &ended?).await
    })
}

/// A full disk must not make an end unknown: it is tried again for as long as someone may still free some room.
async fn write_until_written(dir: &JobDir, record: &ExitRecord) -> io::Result<()> {
    let mut wait = Duration::from_millis(100);
    loop {
        match dir.write_exit_record(record) {
            // The folder was removed: nobody wants to know any more.
            Err(error)
                if error.kind() != io::ErrorKind::NotFound && wait < Duration::from_secs(3600) =>
            {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            written => return written,
        }
    }
}

struct Supervisor<'a> {
    dir: &'a JobDir,
    plan: &'a Plan,
    child_ended: tokio::signal::unix::Signal,
    nudged: tokio::signal::unix::Signal,
    /// Handled so that they do nothing: the job goes on when a person or a client's clean-up sends them to us.
    _deaf_to: Vec<tokio::signal::unix::Signal>,
}

/// What a look at the children and at the requests found.
enum Seen {
    Nothing,
    Ended(ExitStatus),
    Asked(EndRequest),
}

impl<'a> Supervisor<'a> {
    fn new(dir: &'a JobDir, plan: &'a Plan) -> io::Result<Self> {
        let deaf_to = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        Ok(Self {
            dir,
            plan,
            child_ended: signal(SignalKind::child())?,
            nudged: signal(SignalKind::user_defined1())?,
            _deaf_to: deaf_to.into_iter().map(signal).collect::<io::Result<_>>()?,
        })
    }

    async fn run(&mut self) -> io::Result<ExitRecord> {
        let mut said = false;
        let mut last = ExitRecord {
            code: Some(0),
            ..ExitRecord::now("run")
        };
        for step in &self.plan.steps {
            if self.cancel().is_some() {
                return Ok(ExitRecord::cancelled(&step.name));
            }
            let main = match self.spawn(step) {
                Ok(main) => main,
                Err(reason) => {
                    note(self.dir, &reason);
                    let record = ExitRecord::not_started(&step.name, &reason);
                    if !said {
                        // The record first: who hears of the failure finds it.
                        self.dir.write_exit_record(&record)?;
                        say(&reason);
                    }
                    return Ok(record);
                }
            };
            if !said {
                say(STARTED);
                said = true;
            }
            last = self.follow(step, main).await?;
            if !last.succeeded() {
                break;
            }
        }
        Ok(last)
    }

    fn spawn(&self, step: &Step) -> Result<u32, String> {
        let failed = |error: io::Error| {
            let program = step.argv.first().map_or("", String::as_str);
            format!(
                "cannot run {program:?} in {}: {error}",
                self.plan.working_dir.display()
            )
        };
        let (program, arguments) = step
            .argv
            .split_first()
            .ok_or_else(|| format!("`{}` names no program", step.name))?;
        let log = self.dir.open_log().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.plan.working_dir)
            .stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // Not waited for through the handle: every child is reaped alike, in `look`.
        command.spawn().map(|child| child.id()).map_err(failed)
    }

    /// Waits for the end of `main`. A cancel that comes while it lives ends its whole tree.
    async fn follow(&mut self, step: &Step, main: u32) -> io::Result<ExitRecord> {
        loop {
            match self.look(main)? {
                Seen::Ended(status) => {
                    let ended = ExitRecord {
                        code: status.code(),
                        signal: status.signal(),
                        ..ExitRecord::now(&step.name)
                    };
                    return Ok(ended);
                }
                Seen::Asked(request) => return self.end_tree(step, request).await,
                Seen::Nothing => {}
            }
            tokio::select! {
                _ = self.child_ended.recv() => {}
                _ = self.nudged.recv() => {}
                () = tokio::time::sleep(IDLE_LOOK) => {}
            }
        }
    }

    /// The children come first: a job that ended by itself before the cancel is one that ended by itself.
    fn look(&self, main: u32) -> io::Result<Seen> {
        if let Some(status) = reap(main)?.main {
            return Ok(Seen::Ended(status));
        }
        Ok(self.cancel().map_or(Seen::Nothing, Seen::Asked))
    }

    fn cancel(&self) -> Option<EndRequest> {
        if !self.plan.cancel_ends_tree {
            return None;
        }
        self.dir.end_request()
    }

    async fn end_tree(&mut self, step: &Step, mut request: EndRequest) -> io::Result<ExitRecord> {
        let mut ending = Ending::default();
        loop {
            let members = self.members();
            // A list of processes is old when it is read: one may have been started by another that is gone already. But
            // it is then a child of ours, so that nobody is left only once there is no child either.
            let childless = reap(0)?.childless;
            match members {
                Ok(members) if members.is_empty() && childless => {
                    return Ok(ExitRecord::cancelled(&step.name));
                }
                Ok(members) => ending.signal(&members, request.force),
                // Out of handles, say: it passes, and until then nobody can say that nothing is left.
                Err(error) => {
                    tracing::warn!(%error, "cannot see what is left of the job; trying again")
                }
            }
            tokio::select! {
                _ = self.nudged.recv() => {}
                () = tokio::time::sleep(ENDING_LOOK) => {}
            }
            request = self.cancel().unwrap_or(request);
        }
    }

    /// Everyone of the job but this process.
    fn members(&self) -> io::Result<HashSet<u32>> {
        let own = std::process::id();
        if cfg!(target_os = "linux") {
            return Ok(ProcessTable::look(false)?.descendants(own));
        }
        // Without a subreaper, who left the tree is found by the mark in its environment.
        let mut members = ProcessTable::look(true)?.of_job(self.dir.path());
        members.remove(&own);
        Ok(members)
    }
}

/// What was found when the children were reaped.
#[derive(Default)]
struct Reaped {
    /// How `main` ended, if it is among those that have.
    main: Option<ExitStatus>,
    /// There is no child any more.
    childless: bool,
}

/// Reaps every child that has ended.
fn reap(main: u32) -> io::Result<Reaped> {
    let mut reaped = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if u32::try_from(pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == main) {
                    reaped.main = Some(ExitStatus::from_raw(status.as_raw()));
                }
            }
            Ok(None) => return Ok(reaped),
            Err(rustix::io::Errno::CHILD) => {
                reaped.childless = true;
                return Ok(reaped);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says one line to the server that started us. It may be gone by now, which changes nothing.
fn say(line: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{}", line.replace('\n', " ")).and_then(|()| stdout.flush());
}
