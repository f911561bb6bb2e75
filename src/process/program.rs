//! Runs one external program: argv without a shell, standard input from nothing, a timeout, captured output.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

use super::find::path_with_folder_of;
use super::table::pid;
use crate::error::{JobError, Result};

/// The most output that is read of one program, in bytes.
pub(super) const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// The room for each read, in bytes.
const BLOCK: usize = 64 * 1024;
/// The time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The time that output is read after the exit: a daemon that the program started may hold the pipe for ever.
const PIPE_DRAIN: Duration = Duration::from_millis(300);
/// The time that a followed log is read after its marker.
const FOLLOW_WINDOW: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct CliCall {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Variables over the server's own environment. Not for secrets: they are logged.
    pub(crate) envs: Vec<(String, String)>,
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
            ..Self::default()
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

/// The output of a program, invalid UTF-8 replaced. Exit codes of `sky` and `oumi` are unreliable in both directions, so a failing one is no error here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `None` when a signal ended the program.
    pub(crate) code: Option<i32>,
    /// The program was ended after its timeout; the output is what it had printed by then.
    pub(crate) timed_out: bool,
    /// The beginning of a long log is left out of `stdout`.
    pub(crate) front_truncated: bool,
}

/// The process group of a program. It ends with the future that waits for the program, and so with the server.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs a program until it exits, prints too much, has taken too long, or has shown enough of a log.
pub(super) async fn execute(call: &CliCall) -> Result<Output> {
    tracing::info!(command = call.command_line(), "running");
    let spawned = tokio::process::Command::new(&call.program)
        .args(&call.arguments)
        .envs(call.envs.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child =
        spawned.map_err(|error| call.error(format!("could not be started: {error}")))?;
    let mut group = Group(child.id().and_then(pid));
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
    let mut marker = call.log_marker;
    let mut deadline = Instant::now() + call.timeout;
    let mut exit = None;
    while exit.is_none() || out.is_some() || err.is_some() {
        let known = stdout.bytes.len();
        tokio::select! {
            status = child.wait(), if exit.is_none() => {
                // A daemon that the program left is meant to run on.
                group.0 = None;
                exit = Some(status.ok().and_then(|status| status.code()));
                deadline = Instant::now() + PIPE_DRAIN;
            }
            () = stdout.read(&mut out), if out.is_some() => {}
            () = stderr.read(&mut err), if err.is_some() => {}
            () = tokio::time::sleep_until(deadline) => break,
        };
        if !call.is_log && stdout.bytes.len().max(stderr.bytes.len()) > MAX_OUTPUT {
            let limit = MAX_OUTPUT / 1024 / 1024;
            let error = call.error(format!("printed more than {limit} MB and was ended"));
            return Err(error.with_hint("see what it prints in a terminal"));
        }
        if marker.is_some_and(|marker| stdout.has_read(marker, known)) {
            marker = None;
            deadline = deadline.min(Instant::now() + FOLLOW_WINDOW);
        }
    }
    if exit.is_none() {
        group.signal(Signal::TERM);
        let _ = timeout(GRACE, child.wait()).await;
    }
    Ok(Output {
        stdout: stdout.take_text(),
        stderr: stderr.take_text(),
        code: exit.flatten(),
        timed_out: exit.is_none(),
        front_truncated: stdout.front_truncated,
    })
}

/// The end of what one stream printed, twice [`MAX_OUTPUT`] at most.
#[derive(Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
    pub(crate) front_truncated: bool,
}

impl Capture {
    pub(crate) fn push(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        // Rarely, so that the rest is not moved for every block, and before the room ends, which would double.
        if self.bytes.len() > 2 * MAX_OUTPUT - BLOCK {
            self.bytes.drain(..self.bytes.len() - MAX_OUTPUT);
            self.front_truncated = true;
        }
    }

    /// Reads a block of the stream, which is `None` after its end.
    async fn read(&mut self, stream: &mut Option<impl AsyncRead + Unpin>) {
        self.bytes.reserve(BLOCK);
        if let Some(open) = stream
            && !matches!(open.read_buf(&mut self.bytes).await, Ok(1..))
        {
            *stream = None;
        }
        self.push(&[]);
    }

    /// Tells if the marker was read, in what came after the first `known` bytes or began in them.
    fn has_read(&self, marker: &str, known: usize) -> bool {
        let from = known.saturating_sub(marker.len());
        // Shorter than it was: its front was dropped.
        let new = self.bytes.get(from..).unwrap_or(&self.bytes);
        memchr::memmem::find(new, marker.as_bytes()).is_some()
    }

    /// Takes the text, uncopied, from the first whole line on: half a line misleads, and half a secret is not recognised as one.
    pub(crate) fn take_text(&mut self) -> String {
        if self.front_truncated
            && let Some(line_end) = memchr::memchr(b'\n', &self.bytes)
        {
            self.bytes.drain(..=line_end);
        }
        let text = String::from_utf8(std::mem::take(&mut self.bytes));
        text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}
