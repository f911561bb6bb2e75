//! Runs one external program: argv without a shell, standard input from nothing, a timeout, captured output.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::find::path_with_folder_of;
use crate::error::JobError;
use crate::sync::lock;

/// The most output that is read of one program, in bytes.
pub(super) const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// The time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The time that output is read after the exit: a daemon that the program started may hold the pipe for ever.
const PIPE_DRAIN: Duration = Duration::from_millis(300);
/// The time that a followed log is read after its marker.
const FOLLOW_WINDOW: Duration = Duration::from_secs(4);
/// A program run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CliCall {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Variables over the server's own environment. Not for secrets: they are logged.
    pub(crate) envs: Vec<(String, String)>,
    /// The time after which the program is ended.
    pub(crate) timeout: Duration,
    /// For a log, a timeout and too much output are no errors: it is taken as far as it came, and its end is kept.
    pub(crate) is_log: bool,
    /// The text before a log that is followed until the job ends. The log is taken `FOLLOW_WINDOW` after it.
    pub(crate) log_marker: Option<&'static str>,
    /// SkyPilot's API server is asked in place of the program.
    pub(crate) over_http: bool,
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
            over_http: false,
        }
    }

    pub(crate) fn command_line(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        format!("{} {}", name.to_string_lossy(), self.arguments.join(" "))
    }

    pub(crate) fn error(&self, problem: impl std::fmt::Display) -> JobError {
        JobError::unavailable(format!("`{}` {problem}", self.command_line()))
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

/// The process groups of the programs that run.
#[derive(Debug, Clone, Default)]
pub(super) struct ProcessGroups(Arc<Mutex<HashSet<Pid>>>);

impl ProcessGroups {
    /// Ends every program that runs.
    pub(super) fn kill_all(&self) {
        for group in lock(&self.0).drain() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The process group of a program. `kill_on_drop` ends it with the future that waits for the program.
struct ProcessGroupGuard<'a> {
    groups: &'a ProcessGroups,
    group: Option<Pid>,
    kill_on_drop: bool,
}

impl<'a> ProcessGroupGuard<'a> {
    fn new(groups: &'a ProcessGroups, child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let group = pid.and_then(Pid::from_raw);
        lock(&groups.0).extend(group);
        Self {
            groups,
            group,
            kill_on_drop: true,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ProcessGroupGuard<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            lock(&self.groups.0).remove(&group);
        }
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

pub(super) async fn execute(call: &CliCall, groups: &ProcessGroups) -> Result<Output, JobError> {
    tracing::debug!(command = call.command_line(), "running");
    let mut child =
        spawn(call).map_err(|error| call.error(format!("could not be started: {error}")))?;
    let mut group = ProcessGroupGuard::new(groups, &child);
    let (mut stdout, mut stderr) = (Capture::new(call.is_log), Capture::new(call.is_log));
    let reason = wait_for_exit(call, &mut child, &mut stdout, &mut stderr).await;
    let code = match reason {
        // A daemon that the program left is meant to run on.
        ExitReason::Exited(code) => {
            group.kill_on_drop = false;
            code
        }
        ExitReason::OutputLimit => {
            let limit = MAX_OUTPUT / 1024 / 1024;
            let error = call.error(format!("printed more than {limit} MB and was ended"));
            return Err(error.with_hint("see what it prints in a terminal"));
        }
        ExitReason::TimedOut => {
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

/// The captured output of one stream, [`MAX_OUTPUT`] at most.
#[derive(Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
    keep_end: bool,
    pub(crate) front_truncated: bool,
}

/// A stream held more than [`MAX_OUTPUT`].
pub(crate) struct OutputLimit;

impl Capture {
    /// A capture that keeps the end of a long stream, or reports [`OutputLimit`] for it.
    pub(crate) fn new(keep_end: bool) -> Self {
        Self {
            keep_end,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, block: &[u8]) -> Result<(), OutputLimit> {
        self.bytes.extend_from_slice(block);
        let excess = self.bytes.len().saturating_sub(MAX_OUTPUT);
        if excess > 0 && !self.keep_end {
            return Err(OutputLimit);
        }
        // Rarely, so that the rest is not moved for every block.
        if excess > MAX_OUTPUT {
            self.bytes.drain(..excess);
            self.front_truncated = true;
        }
        Ok(())
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
            self.push(&block[..read])?;
            if let Some(wanted) = marker {
                let unsearched = self.bytes.len().saturating_sub(read + wanted.len());
                if String::from_utf8_lossy(&self.bytes[unsearched..]).contains(wanted) {
                    marker = None;
                    marker_read.notify_one();
                }
            }
        }
        Ok(())
    }

    /// The text from the first whole line on: half a line misleads, and half a secret is not recognised as one.
    pub(crate) fn text(&self) -> String {
        let mut text = self.bytes.as_slice();
        if self.front_truncated
            && let Some(line_end) = text.iter().position(|byte| *byte == b'\n')
        {
            text = &text[line_end + 1..];
        }
        String::from_utf8_lossy(text).into_owned()
    }
}
