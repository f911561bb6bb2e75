//! The small detached parent of every process that must outlive the server.
//!
//! The server runs this binary as `supervise <job folder>`: it runs the plan, records its end, and ends all of it at a cancel.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Signal, WaitOptions};
use tokio::runtime;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::Instant;

use super::job_dir::{ExitRecord, JobDir, time_limit_line};
use super::plan::SupervisorPlan;
use super::table::{ProcessTable, Termination, Terminator, send};
use crate::settings::env_vars;

/// The interval of looks at the time limit, and for a request that no signal announced: the server may die between the two.
const IDLE_POLL: Duration = Duration::from_secs(2);
/// The pauses between two lists of the process tree while a supervisor ends it: the first, and the longest where nothing ends.
const TERMINATION_POLL: Duration = Duration::from_millis(40);
const TERMINATION_POLL_MAX: Duration = Duration::from_secs(1);
/// The waits before an exit record that could not be written is tried again: the first, doubled up to the last.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The time between SIGTERM and SIGKILL at a time limit: what a training needs to save a checkpoint.
const LIMIT_GRACE: Duration = Duration::from_secs(30);
/// The time that an epilogue has, and the waits after its tries, while it fails.
const EPILOGUE_LIMIT: Duration = Duration::from_secs(300);
const EPILOGUE_WAITS: [Duration; 5] = [RETRY_MIN, RETRY_MIN, RETRY_MAX, RETRY_MAX, RETRY_MAX];
/// The line by which a supervisor reports that the first step runs.
pub(super) const STARTED: &str = "started";

/// Has a supervisor look at the requests in its folder now. It may have ended since its pid was read.
pub(crate) fn notify(supervisor: u32) {
    send(supervisor, Signal::USR1);
}

/// Appends a line to the job's log. On a full disk the exit record, which holds the same text, must do.
pub(super) fn append_to_log(dir: &JobDir, line: &str) {
    if let Err(error) = dir.open_log().and_then(|mut log| writeln!(log, "{line}")) {
        tracing::warn!(%error, line, "cannot write to the log of a job");
    }
}

/// Runs as `supervise <dir>` until the plan has ended.
pub fn supervise(dir: &Path) -> io::Result<()> {
    supervise_on(dir, runtime::Builder::new_current_thread())
}

/// Supervises on a runtime, whose time a test has pass at once.
pub(super) fn supervise_on(dir: &Path, mut runtime: runtime::Builder) -> io::Result<()> {
    let dir = JobDir::at(dir);
    rustix::process::setsid()?;
    // Descendants whose parent dies become children of the supervisor, so that none escapes. Only Linux has this.
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // A copy of the lock without close-on-exec: every process of the job inherits it.
    let _inherited_lock = rustix::io::dup(io::stdin())?;
    runtime.enable_all().build()?.block_on(async {
        let plan = dir.plan()?;
        // It handles signals from here on: whoever reads the pid may send one.
        let mut supervisor = Supervisor::new(&dir, &plan)?;
        if !dir.claim_start(Some(std::process::id()))? {
            // The server has answered that the job did not start, which must stay true.
            return Ok(());
        }
        let mut record = supervisor.run_steps().await;
        if let Ok(record) = &mut record {
            supervisor.wait_for_all(record).await;
        }
        for file in &plan.cleanup {
            let _ = std::fs::remove_file(file);
        }
        let record = record?;
        write_exit_record_with_retry(&dir, &record).await?;
        supervisor.run_epilogue(record.signal.is_some()).await
    })
}

/// Writes the exit record, on a full disk as soon as there is room again. Until then the job reads as running. A job that was
/// cancelled reads so by the request alone, and is not tried again.
pub(super) async fn write_exit_record_with_retry(
    dir: &JobDir,
    record: &ExitRecord,
) -> io::Result<()> {
    let mut wait = RETRY_MIN;
    loop {
        match dir.write_exit_record(record) {
            // `NotFound`: the folder was removed, and nobody will read the record. Or the temporary file alone was, by a server on
            // another machine, which does not see that its writer lives.
            Err(error)
                if !record.cancelled
                    && (error.kind() != io::ErrorKind::NotFound || dir.exists()?) =>
            {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            written => return written,
        }
    }
}

struct Supervisor<'a> {
    dir: &'a JobDir,
    plan: &'a SupervisorPlan,
    limit: Option<Instant>,
    child_ended: Signals,
    notified: Signals,
}

impl<'a> Supervisor<'a> {
    fn new(dir: &'a JobDir, plan: &'a SupervisorPlan) -> io::Result<Self> {
        let limit = plan.time_limit_seconds.map(Duration::from_secs);
        // Once handled, these do nothing: the job goes on when a user or a client sends them, or when its log may get no larger.
        for ignored in [
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::XFSZ,
        ] {
            drop(signal(SignalKind::from_raw(ignored.as_raw()))?);
        }
        Ok(Self {
            dir,
            plan,
            limit: limit.and_then(|limit| Instant::now().checked_add(limit)),
            child_ended: signal(SignalKind::child())?,
            notified: signal(SignalKind::user_defined1())?,
        })
    }

    async fn run_steps(&mut self) -> io::Result<ExitRecord> {
        let mut last = ExitRecord::now("run");
        last.code = Some(0);
        for (at, step) in self.plan.steps.iter().enumerate() {
            if self.requested().is_some() {
                return Ok(ExitRecord::cancelled(&step.name));
            }
            let log = self.dir.open_log();
            match log.and_then(|log| self.spawn(&step.argv, log)) {
                Ok(main) => {
                    if at == 0 {
                        report(STARTED);
                    }
                    last = self.wait_for_step(&step.name, main).await?;
                }
                Err(error) => {
                    let program = step.argv.first().map_or("", String::as_str);
                    let folder = self.plan.working_dir.display();
                    let mut reason = format!("cannot run {program:?} in {folder}: {error}");
                    if error.kind() == io::ErrorKind::NotFound {
                        reason += "; the folder or interpreter is gone, or PATH lacks it";
                    }
                    append_to_log(self.dir, &reason);
                    last = ExitRecord::not_started(&step.name, &reason);
                    if at == 0 {
                        // First: the server reads it after the report.
                        self.dir.write_exit_record(&last)?;
                        report(&reason);
                    }
                }
            }
            if !last.succeeded() {
                break;
            }
        }
        Ok(last)
    }

    fn spawn(&self, argv: &[String], log: File) -> io::Result<u32> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        if !self.plan.cancellable {
            // What it leaves is no job's.
            command.env_remove(env_vars::JOB_DIR);
        }
        // Not waited for through its handle: `reap` reaps every child alike.
        let child = command
            .args(arguments)
            .current_dir(&self.plan.working_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own, so that a script which kills its process group leaves the supervisor.
            .process_group(0)
            .spawn()?;
        Ok(child.id())
    }

    /// Waits until a step has ended, or a cancel or the time limit wants that. Its processes may live on.
    async fn wait_for_step(&mut self, step: &str, main: u32) -> io::Result<ExitRecord> {
        let mut terminator = Terminator::default();
        let mut error = None;
        loop {
            // Before the request: a step that ended before the cancel ended by itself.
            if let (Some(status), _) = reap(main)? {
                return Ok(ExitRecord {
                    code: status.code(),
                    signal: status.signal(),
                    error,
                    ..ExitRecord::now(step)
                });
            }
            if self.requested().is_some() {
                return Ok(ExitRecord::cancelled(step));
            }
            if let Some(termination) = self.by_limit() {
                let reason = time_limit_line(self.plan.time_limit_seconds.unwrap_or_default());
                if self.plan.cancellable {
                    append_to_log(self.dir, &reason);
                    return Ok(ExitRecord {
                        timed_out: true,
                        ..ExitRecord::not_started(step, &reason)
                    });
                }
                terminator.signal(&HashSet::from([main]), termination);
                error = Some(reason);
            }
            self.wait_for_news(IDLE_POLL).await;
        }
    }

    /// Returns the signal that is due once the time limit has passed: at first SIGTERM, so that a training can save a checkpoint.
    fn by_limit(&self) -> Option<Termination> {
        let excess = Instant::now().checked_duration_since(self.limit?)?;
        Some(match excess < LIMIT_GRACE {
            true => Termination::Graceful,
            false => Termination::Forced,
        })
    }

    /// Runs the epilogue, with output of its own, until it exits with 0. One that still fails stays for the next server, and so does
    /// that of steps that were killed: what they began may go on elsewhere.
    async fn run_epilogue(&mut self, was_killed: bool) -> io::Result<()> {
        let epilogue = self.dir.epilogue()?;
        let Some(epilogue) = epilogue.filter(|it| !it.by_server) else {
            return Ok(());
        };
        for wait in EPILOGUE_WAITS {
            self.limit = Some(Instant::now() + EPILOGUE_LIMIT);
            let main = self.spawn(&epilogue.argv, self.dir.open_to_append("epilogue.log")?)?;
            if self.wait_for_step("epilogue", main).await?.succeeded() {
                return match was_killed {
                    true => Ok(()),
                    false => self.dir.clear_epilogue(),
                };
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Stays as long as any process of the job lives, and ends them all where a cancel or the time limit wants that. What a cloud
    /// launch leaves, such as SkyPilot's API server, is meant to run on.
    async fn wait_for_all(&mut self, record: &mut ExitRecord) {
        let (mut terminator, mut pause) = (Terminator::default(), TERMINATION_POLL);
        // Kept: a job may remove the folder of the request.
        let mut wanted = record.cancelled.then_some(Termination::Graceful);
        while self.plan.cancellable && self.any_is_left() {
            // Before they are ended, so that the end by a time limit reads so even if the supervisor is killed meanwhile. A job
            // that was cancelled reads so by the request.
            if !record.processes_left && !record.cancelled {
                record.processes_left = true;
                // Where that fails the job reads as running, which is true.
                let _ = self.dir.write_exit_record(record);
            }
            wanted = wanted.max(self.requested()).max(self.by_limit());
            let Some(termination) = wanted else {
                self.wait_for_news(IDLE_POLL).await;
                continue;
            };
            match self.job_processes() {
                Ok(processes) => terminator.signal(&processes, termination),
                // Out of file handles, for example, which passes.
                Err(error) => {
                    tracing::warn!(%error, "cannot list the processes of the job; trying again");
                }
            }
            // A job whose processes end one after the other is not listed for each of them.
            tokio::time::sleep(TERMINATION_POLL).await;
            self.wait_for_news(pause).await;
            pause = (pause * 2).min(TERMINATION_POLL_MAX);
        }
        record.processes_left = false;
        if record.cancelled || self.by_limit().is_some() {
            record.ended_at = ExitRecord::now("").ended_at;
        }
    }

    /// Tells if a process of the job may live. With a subreaper each is a child of the supervisor, or below one, and no list of
    /// processes is needed, which is old when it is read. Without one, a process that left the tree is found by its mark only.
    fn any_is_left(&self) -> bool {
        let is_childless = matches!(reap(0), Ok((_, true)));
        let is_alone = || self.job_processes().is_ok_and(|left| left.is_empty());
        !(is_childless && (cfg!(target_os = "linux") || is_alone()))
    }

    async fn wait_for_news(&mut self, longest: Duration) {
        tokio::select! {
            _ = self.child_ended.recv() => {}
            _ = self.notified.recv() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    fn requested(&self) -> Option<Termination> {
        if !self.plan.cancellable {
            return None;
        }
        let request = self.dir.termination_request();
        request.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot see whether the job was cancelled; trying again");
            None
        })
    }

    /// Lists every process of the job but the supervisor, which a subreaper is the ancestor of.
    fn job_processes(&self) -> io::Result<HashSet<u32>> {
        match cfg!(target_os = "linux") {
            true => ProcessTable::descendants_of(std::process::id()),
            false => Ok(ProcessTable::read()?.job(self.dir.path()).members),
        }
    }
}

/// Reaps every child that has ended. Returns the status of `main`, if it was among them, and `true` once there is no child.
fn reap(main: u32) -> io::Result<(Option<ExitStatus>, bool)> {
    let mut main_status = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if u32::try_from(pid.as_raw_nonzero().get()) == Ok(main) => {
                main_status = Some(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok((main_status, false)),
            Err(rustix::io::Errno::CHILD) => return Ok((main_status, true)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reports one line to the server. The server may be gone, which changes nothing.
fn report(line: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{}", line.replace('\n', " ")).and_then(|()| stdout.flush());
}
