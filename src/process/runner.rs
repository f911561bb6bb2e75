//! Runs external programs for an answer: argv without a shell, a time limit, captured output. Equal queries share one run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::find::path_with_folder_of;
use crate::sync::lock;

/// How many programs run at once: each of them takes seconds of a core.
const MAX_CONCURRENT: usize = 4;
/// How many different queries may run or wait for a slot.
const MAX_QUERIES: usize = 64;
/// The most output that is read of one program, in bytes.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long output is read after the exit: a daemon that the program started may hold the pipe for ever.
const PIPE_DRAIN: Duration = Duration::from_millis(300);
/// How long a log that is followed is read after its marker.
const FOLLOW_WINDOW: Duration = Duration::from_secs(4);
/// How long a result is kept whose callers have all given up; the next equal query takes it.
const UNREAD_TTL: Duration = Duration::from_secs(60);
/// How long a tool call waits for queries in all: clients give up after a minute, some sooner.
const CALL_BUDGET: Duration = Duration::from_secs(25);

/// The instant until which a tool call that begins now waits for its queries.
pub(crate) fn call_deadline() -> Option<Instant> {
    Some(Instant::now() + CALL_BUDGET)
}

/// A program run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CliCall {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Variables over the server's own environment. Not for secrets: they are logged.
    pub(crate) envs: Vec<(String, String)>,
    /// How long the program may run.
    pub(crate) timeout: Duration,
    /// Whether the program reads a log. Then a timeout and too much output are no errors: the log is taken as far as it came,
    /// and the end of it is kept.
    pub(crate) is_log: bool,
    /// The text before the first line of a log that is followed until the job ends. The log is taken [`FOLLOW_WINDOW`] after it.
    pub(crate) log_marker: Option<&'static str>,
}

impl CliCall {
    /// Runs `program` with `arguments`, in wide lines, with the program's own folder on PATH.
    pub(crate) fn new(program: &Path, arguments: &[&str], timeout: Duration) -> Self {
        let mut envs = vec![("COLUMNS".to_owned(), "4096".to_owned())];
        envs.extend(path_with_folder_of(program).map(|path| ("PATH".to_owned(), path)));
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&part| part.to_owned()).collect(),
            envs,
            timeout,
            is_log: false,
            log_marker: None,
        }
    }

    fn command_line(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        format!("{} {}", name.to_string_lossy(), self.arguments.join(" "))
    }

    fn error(&self, problem: impl std::fmt::Display) -> CliError {
        CliError(format!("`{}` {problem}", self.command_line()))
    }
}

/// The output of a program. Exit codes of `sky` and `oumi` are unreliable in both directions, so a failing one is no error here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Output {
    /// Standard output, invalid UTF-8 replaced.
    pub(crate) stdout: String,
    /// Standard error, likewise.
    pub(crate) stderr: String,
    /// The exit code; `None` when a signal ended the program.
    pub(crate) code: Option<i32>,
    /// The program was ended after its timeout; the output is what it had printed by then.
    pub(crate) timed_out: bool,
    /// The beginning of a long log is left out of `stdout`.
    pub(crate) front_truncated: bool,
}

/// A program could not be started, or gave no usable answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CliError(String);

type QueryResult = Result<Arc<Output>, CliError>;

/// A query that runs, waits for a slot, or has ended without a caller that read its result. Receivers are the waiting callers.
#[derive(Debug)]
struct SharedRun {
    result: Arc<watch::Sender<Option<QueryResult>>>,
    finished_unread_at: Option<Instant>,
}

/// Runs programs, [`MAX_CONCURRENT`] at a time. Clones share the slots and the queries.
#[derive(Debug, Clone)]
pub struct Cli {
    slots: Arc<Semaphore>,
    queries: Arc<Mutex<HashMap<CliCall, SharedRun>>>,
}

impl Default for Cli {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            queries: Arc::default(),
        }
    }
}

impl Cli {
    /// Runs a program that changes nothing, or joins an equal query that runs already. Waits until `deadline`; `None` waits for
    /// the end of the run. A run that has begun outlives its callers, and the next equal query takes its result.
    pub(crate) async fn query(&self, call: &CliCall, deadline: Option<Instant>) -> QueryResult {
        let started = Instant::now();
        let mut result = self.join_or_start(call)?;
        let finished = result.wait_for(Option::is_some);
        let waited = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, finished).await,
            None => Ok(finished.await),
        };
        match waited {
            Ok(Ok(result)) => result.clone().unwrap_or_else(|| Err(shutting_down(call))),
            Ok(Err(_)) => Err(shutting_down(call)),
            Err(_) => Err(call.error(format!(
                "has not answered within {} s and still runs; try again in a moment",
                started.elapsed().as_secs()
            ))),
        }
    }

    /// Drops shared results, so that queries after a change do not see the state before it.
    pub(crate) fn invalidate(&self) {
        lock(&self.queries).clear();
    }

    /// Runs a program that changes something, for this caller alone, and drops all shared results. The output of a program that
    /// exceeds its timeout is what it had printed by then. A caller that drops the future, or the end of the server, leaves the
    /// program running.
    pub(crate) async fn run(&self, call: &CliCall) -> Result<Output, CliError> {
        let output = match self.slots.acquire().await {
            Ok(_slot) => execute(call, false).await,
            Err(_) => Err(shutting_down(call)),
        };
        self.invalidate();
        output
    }

    fn join_or_start(
        &self,
        call: &CliCall,
    ) -> Result<watch::Receiver<Option<QueryResult>>, CliError> {
        let mut queries = lock(&self.queries);
        let is_fresh = |run: &SharedRun| {
            let unread_at = run.finished_unread_at;
            unread_at.is_none_or(|at| at.elapsed() < UNREAD_TTL)
        };
        queries.retain(|_, run| is_fresh(run));
        if let Some(run) = queries.get(call) {
            let result = run.result.subscribe();
            if run.finished_unread_at.is_some() {
                // One caller takes it: the next wants the state of then.
                queries.remove(call);
            }
            return Ok(result);
        }
        if queries.len() >= MAX_QUERIES {
            return Err(
                call.error("was not run: too many other programs are; try again in a moment")
            );
        }
        let (sender, result) = watch::channel(None);
        let sender = Arc::new(sender);
        let run = SharedRun {
            result: sender.clone(),
            finished_unread_at: None,
        };
        queries.insert(call.clone(), run);
        tokio::spawn(self.clone().run_query(call.clone(), sender));
        Ok(result)
    }

    async fn run_query(self, call: CliCall, result: Arc<watch::Sender<Option<QueryResult>>>) {
        // The semaphore is never closed.
        let Ok(_slot) = self.slots.acquire().await else {
            return;
        };
        {
            let mut queries = lock(&self.queries);
            if result.receiver_count() == 0 {
                // Every caller gave up while the run waited for its slot.
                if is_current(&queries, &call, &result) {
                    queries.remove(&call);
                }
                return;
            }
        }
        let output = execute(&call, true).await.and_then(|output| {
            if output.timed_out && !call.is_log {
                return Err(call.error(format!(
                    "did not answer within {} s and was ended; see whether it works in a terminal",
                    call.timeout.as_secs()
                )));
            }
            Ok(Arc::new(output))
        });
        let mut queries = lock(&self.queries);
        // After `invalidate`, an equal query may have started a run of its own.
        if is_current(&queries, &call, &result) {
            if result.receiver_count() > 0 {
                queries.remove(&call);
            } else if let Some(run) = queries.get_mut(&call) {
                run.finished_unread_at = Some(Instant::now());
            }
        }
        result.send_replace(Some(output));
    }
}

fn is_current(
    queries: &HashMap<CliCall, SharedRun>,
    call: &CliCall,
    result: &Arc<watch::Sender<Option<QueryResult>>>,
) -> bool {
    let known = queries.get(call);
    known.is_some_and(|run| Arc::ptr_eq(&run.result, result))
}

fn shutting_down(call: &CliCall) -> CliError {
    call.error("was not run: the server is shutting down")
}

/// The process group of a program. Dropping it ends the group, unless it is disarmed.
struct ProcessGroupGuard {
    group: Option<Pid>,
    kill_on_drop: bool,
}

impl ProcessGroupGuard {
    fn new(child: &Child, kill_on_drop: bool) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self {
            group: pid.and_then(Pid::from_raw),
            kill_on_drop,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ProcessGroupGuard {
    fn drop(&mut self) {
        if self.kill_on_drop {
            self.signal(Signal::KILL);
        }
    }
}

enum ExitReason {
    Exited(Option<i32>),
    OutputLimit,
    TimedOut,
}

async fn execute(call: &CliCall, kill_on_drop: bool) -> Result<Output, CliError> {
    tracing::debug!(command = call.command_line(), "running");
    let mut child =
        spawn(call).map_err(|error| call.error(format!("could not be started: {error}")))?;
    let mut group = ProcessGroupGuard::new(&child, kill_on_drop);
    let (mut stdout, mut stderr) = (Capture::new(call), Capture::new(call));
    let reason = wait_for_exit(call, &mut child, &mut stdout, &mut stderr).await;
    let code = match reason {
        // A daemon that the program left is meant to run on.
        ExitReason::Exited(code) => {
            group.kill_on_drop = false;
            code
        }
        ExitReason::OutputLimit => {
            group.kill_on_drop = true;
            return Err(call.error(format!(
                "printed more than {} MB and was ended; see what it prints in a terminal",
                MAX_OUTPUT / 1024 / 1024
            )));
        }
        ExitReason::TimedOut => {
            group.kill_on_drop = true;
            group.signal(Signal::TERM);
            let _ = timeout(GRACE, child.wait()).await;
            None
        }
    };
    Ok(Output {
        stdout: stdout.text(),
        stderr: stderr.text(),
        code,
        timed_out: matches!(reason, ExitReason::TimedOut),
        front_truncated: stdout.front_truncated,
    })
}

/// Reads both streams until the program exits, exceeds a limit, or has shown enough of a log.
async fn wait_for_exit(
    call: &CliCall,
    child: &mut Child,
    stdout: &mut Capture,
    stderr: &mut Capture,
) -> ExitReason {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let marker_read = Notify::new();
    let reading = async {
        tokio::try_join!(
            stdout.read(out, call.log_marker, &marker_read),
            stderr.read(err, None, &marker_read)
        )
    };
    let follow_window = async {
        marker_read.notified().await;
        tokio::time::sleep(FOLLOW_WINDOW).await;
    };
    tokio::pin!(reading, follow_window);
    let mut is_read = false;
    let running = async {
        loop {
            tokio::select! {
                status = child.wait() => return ExitReason::Exited(status.ok().and_then(|status| status.code())),
                read = &mut reading, if !is_read => match read {
                    Ok(_) => is_read = true,
                    Err(OutputLimit) => return ExitReason::OutputLimit,
                },
                () = &mut follow_window => return ExitReason::TimedOut,
            }
        }
    };
    let reason = timeout(call.timeout, running)
        .await
        .unwrap_or(ExitReason::TimedOut);
    if matches!(reason, ExitReason::Exited(_))
        && !is_read
        && matches!(timeout(PIPE_DRAIN, reading).await, Ok(Err(OutputLimit)))
    {
        return ExitReason::OutputLimit;
    }
    reason
}

fn spawn(call: &CliCall) -> std::io::Result<Child> {
    tokio::process::Command::new(&call.program)
        .args(&call.arguments)
        .envs(call.envs.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// The captured output of one stream.
struct Capture {
    bytes: Vec<u8>,
    keep_end: bool,
    front_truncated: bool,
}

/// A stream held more than [`MAX_OUTPUT`].
struct OutputLimit;

impl Capture {
    fn new(call: &CliCall) -> Self {
        Self {
            bytes: Vec::new(),
            keep_end: call.is_log,
            front_truncated: false,
        }
    }

    /// Reads to the end of the stream, and notifies `marker_read` once `marker` was read.
    async fn read(
        &mut self,
        stream: Option<impl AsyncRead + Unpin>,
        mut marker: Option<&'static str>,
        marker_read: &Notify,
    ) -> Result<(), OutputLimit> {
        let Some(mut stream) = stream else {
            return Ok(());
        };
        let mut block = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut block).await {
            self.bytes.extend_from_slice(&block[..read]);
            if let Some(wanted) = marker {
                let unsearched = self.bytes.len().saturating_sub(read + wanted.len());
                if String::from_utf8_lossy(&self.bytes[unsearched..]).contains(wanted) {
                    marker = None;
                    marker_read.notify_one();
                }
            }
            let excess = self.bytes.len().saturating_sub(MAX_OUTPUT);
            if excess > 0 && !self.keep_end {
                return Err(OutputLimit);
            }
            // Rarely, so that the rest is not moved for every block.
            if excess > MAX_OUTPUT {
                self.bytes.drain(..excess);
                self.front_truncated = true;
            }
        }
        Ok(())
    }

    /// The text from the first whole line on: half a line misleads, and half a secret is not recognised as one.
    fn text(&self) -> String {
        let mut text = self.bytes.as_slice();
        if self.front_truncated
            && let Some(line_end) = text.iter().position(|byte| *byte == b'\n')
        {
            text = &text[line_end + 1..];
        }
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests;
