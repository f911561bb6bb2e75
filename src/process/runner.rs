//! One way to run an external program: argv, a deadline, captured output, a typed error; and callers with the same question
//! share one run.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::find::path_with_folder_of;
use crate::launcher::LauncherError;

use crate::sync::lock;

/// How many programs run at once: each of them takes seconds of a core.
const AT_ONCE: usize = 4;
/// The most output that is read of one.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// How long a program may take to end once it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long output is read for after the end: a daemon that a program started may hold the pipe for ever.
const AFTER_END: Duration = Duration::from_millis(300);
/// How long a log that is followed is read for once it has begun.
const FOLLOWED_FOR: Duration = Duration::from_secs(4);
/// How long an answer that nobody was waiting for any more is kept for who asks the same again.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a call waits for a program before it answers without: clients give up after a minute, some sooner.
pub const IN_A_CALL: Duration = Duration::from_secs(25);

/// How long a call may take in all when it asks one question after the other, and how long each of them gets at least.
const CALL: Duration = Duration::from_secs(30);
const AT_LEAST: Duration = Duration::from_secs(5);

/// How a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// By a call that must answer soon; the run is shared.
    InACall,
    /// By a call that has waited for another answer already; the run is shared.
    InTheRestOfACall(Duration),
    /// By work in the background, which waits as long as it takes; the run is shared.
    AtLeisure,
    /// Of the state after a change: by a run that begins now.
    Anew,
}

impl Asked {
    /// How the next question is asked, by who has asked since `begun`.
    pub fn next(self, begun: Instant) -> Self {
        match self {
            Self::InACall => {
                let rest = CALL.saturating_sub(begun.elapsed()).max(AT_LEAST);
                Self::InTheRestOfACall(rest)
            }
            other => other,
        }
    }

    /// Asks `question` so.
    ///
    /// # Errors
    /// [`LauncherError::Unavailable`] when there is no answer.
    pub async fn of(self, cli: &Cli, question: Question) -> Result<Arc<Output>, LauncherError> {
        let answered = match self {
            Self::InACall => cli.ask(question, IN_A_CALL).await,
            Self::InTheRestOfACall(rest) => cli.ask(question, rest).await,
            // A run waits for its turn, and is then bounded itself.
            Self::AtLeisure => cli.ask(question, Duration::MAX).await,
            Self::Anew => cli
                .run_in_slot(&question)
                .await
                .and_then(|output| output.in_time(&question)),
        };
        answered.map_err(|error| LauncherError::Unavailable(error.to_string()))
    }
}

/// A program to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; no shell reads them.
    pub arguments: Vec<String>,
    /// Variables over the server's own environment. Not for secrets: they are logged.
    pub envs: Vec<(String, String)>,
    /// How long it may run.
    pub deadline: Duration,
    /// It reads a log: what was printed by the deadline is its answer, and of too much output the end. Else both are errors.
    pub is_log: bool,
    /// What stands before a log that is followed for as long as the job runs: soon after it the log is taken as it is.
    pub log_begins: Option<&'static str>,
}

impl Question {
    /// Runs `program` with `arguments`, wide lines asked for, its own folder first on PATH.
    pub fn new(program: &Path, arguments: &[&str], deadline: Duration) -> Self {
        let mut envs = vec![("COLUMNS".to_owned(), "4096".to_owned())];
        envs.extend(path_with_folder_of(program).map(|path| ("PATH".to_owned(), path)));
        Self {
            program: program.to_owned(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            envs,
            deadline,
            is_log: false,
            log_begins: None,
        }
    }

    /// With one variable more.
    pub fn with_env(mut self, name: &str, value: String) -> Self {
        self.envs.push((name.to_owned(), value));
        self
    }

    fn spoken(&self) -> String {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        format!("{name} {}", self.arguments.join(" "))
    }
}

/// What a program printed, and how it ended. Exit codes of `sky` and `oumi` lie both ways, so they are no errors here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Standard output, invalid bytes replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// The exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// It went on after its deadline and was ended; what it had printed is there.
    pub timed_out: bool,
    /// The beginning of `stdout` is left out: it was a log, and too long.
    pub cut: bool,
}

impl Output {
    /// An error when the program went on after its deadline, unless it was to read a log.
    fn in_time(self, question: &Question) -> Outcome {
        if self.timed_out && !question.is_log {
            return Err(CliError::TimedOut {
                command: question.spoken(),
                seconds: question.deadline.as_secs(),
            });
        }
        Ok(Arc::new(self))
    }
}

/// A program could not be run, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// It could not be started.
    #[error("`{command}` could not be started: {reason}")]
    NotStarted {
        /// The command line.
        command: String,
        /// What the operating system said.
        reason: String,
    },
    /// It has not answered yet.
    #[error(
        "`{command}` has not answered within {seconds} s and is still being asked; try again in a moment"
    )]
    StillAsked {
        /// The command line.
        command: String,
        /// How long was waited.
        seconds: u64,
    },
    /// It went on after its deadline and was ended.
    #[error(
        "`{command}` did not answer within {seconds} s and was ended; see whether it works in a terminal"
    )]
    TimedOut {
        /// The command line.
        command: String,
        /// Its deadline.
        seconds: u64,
    },
    /// It printed more than anyone can read.
    #[error("`{command}` printed more than {} MB and was ended; see what it prints in a terminal", MAX_OUTPUT / 1024 / 1024)]
    TooMuch {
        /// The command line.
        command: String,
    },
}

type Outcome = Result<Arc<Output>, CliError>;

#[derive(Debug)]
struct UnderWay {
    outcome: watch::Receiver<Option<Outcome>>,
    /// When the run ended without anyone waiting for it.
    unclaimed_since: Option<Instant>,
}

/// Runs programs, a few at a time. Clones share the limit and the questions under way.
#[derive(Debug, Clone)]
pub struct Cli {
    slots: Arc<Semaphore>,
    asked: Arc<Mutex<HashMap<Question, UnderWay>>>,
}

impl Default for Cli {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            asked: Arc::default(),
        }
    }
}

impl Cli {
    /// Asks a question that changes nothing. Who asks while it is being asked shares the run; who has waited for `patience`
    /// gets an error, while the run goes on, and its answer is kept for whoever asks next.
    ///
    /// # Errors
    /// When the program cannot be started, takes too long, or prints too much.
    pub async fn ask(&self, question: Question, patience: Duration) -> Outcome {
        let command = question.spoken();
        let mut outcome = self.under_way(question.clone());
        let waited = timeout(patience, outcome.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(answered)) => {
                let answered = answered.clone();
                self.claim(&question);
                answered.unwrap_or_else(|| Err(broken(&command)))
            }
            Ok(Err(_)) => Err(broken(&command)),
            Err(_) => Err(CliError::StillAsked {
                command,
                seconds: patience.as_secs(),
            }),
        }
    }

    /// What is asked from now on is asked anew: an answer that was on its way before a change does not show it.
    pub fn forget(&self) {
        self.asked().clear();
    }

    /// Runs a program that changes something, for this caller alone. What was asked before is forgotten then.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), but for a program that goes on after its deadline: what it printed by then is its output.
    pub async fn run(&self, question: &Question) -> Result<Output, CliError> {
        let ran = self.run_in_slot(question).await;
        self.forget();
        ran
    }

    async fn run_in_slot(&self, question: &Question) -> Result<Output, CliError> {
        // The semaphore is never closed.
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_| broken(&question.spoken()))?;
        run(question).await
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Question, UnderWay>> {
        // No code under this lock can leave the map half-changed.
        lock(&self.asked)
    }

    fn under_way(&self, question: Question) -> watch::Receiver<Option<Outcome>> {
        let mut asked = self.asked();
        asked.retain(|_, asked| {
            asked
                .unclaimed_since
                .is_none_or(|since| since.elapsed() < KEPT_FOR)
        });
        if let Some(known) = asked.get(&question) {
            return known.outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        asked.insert(
            question.clone(),
            UnderWay {
                outcome: outcome.clone(),
                unclaimed_since: None,
            },
        );
        let cli = self.clone();
        tokio::spawn(async move {
            let ran = cli
                .run_in_slot(&question)
                .await
                .and_then(|output| output.in_time(&question));
            let mut asked = cli.asked();
            // One receiver is the map's own.
            let is_waited_for = sender.receiver_count() > 1;
            // It may have been forgotten, and asked anew.
            let known = asked
                .get_mut(&question)
                .filter(|known| known.outcome.same_channel(&sender.subscribe()));
            match known {
                Some(_) if is_waited_for => drop(asked.remove(&question)),
                Some(known) => known.unclaimed_since = Some(Instant::now()),
                None => {}
            }
            sender.send_replace(Some(ran));
        });
        outcome
    }

    /// An answer that was kept is given once: the next to ask wants to know how it is then.
    fn claim(&self, question: &Question) {
        let mut asked = self.asked();
        if asked
            .get(question)
            .is_some_and(|asked| asked.unclaimed_since.is_some())
        {
            asked.remove(question);
        }
    }
}

fn broken(command: &str) -> CliError {
    CliError::NotStarted {
        command: command.to_owned(),
        reason: "the server is ending".to_owned(),
    }
}

/// Ends the process group of a program, whatever becomes of who waits for it.
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

async fn run(question: &Question) -> Result<Output, CliError> {
    let command = question.spoken();
    tracing::debug!(command, "running");
    let mut child = spawn(question).map_err(|error| CliError::NotStarted {
        command: command.clone(),
        reason: error.to_string(),
    })?;
    let mut group = Group(
        child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)),
    );
    let (mut stdout, mut stderr) = (Captured::new(question), Captured::new(question));
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let end = {
        let log_begun = Notify::new();
        let reading = async {
            tokio::try_join!(
                stdout.read(out.as_mut(), question.log_begins, &log_begun),
                stderr.read(err.as_mut(), None, &log_begun)
            )
            .is_err()
        };
        tokio::pin!(reading);
        let mut read = false;
        let waiting = async {
            loop {
                tokio::select! {
                    ended = child.wait() => return End::Exited(ended.ok().and_then(|status| status.code())),
                    too_much = &mut reading, if !read => {
                        if too_much {
                            return End::TooMuch;
                        }
                        read = true;
                    }
                    () = async { log_begun.notified().await; tokio::time::sleep(FOLLOWED_FOR).await } => {
                        return End::TimedOut;
                    }
                }
            }
        };
        let end = timeout(question.deadline, waiting)
            .await
            .unwrap_or(End::TimedOut);
        if matches!(end, End::Exited(_)) && !read && timeout(AFTER_END, reading).await == Ok(true) {
            End::TooMuch
        } else {
            end
        }
    };
    let code = match end {
        End::Exited(code) => {
            // It has ended by itself: what it left running is meant to run on.
            group.0 = None;
            code
        }
        End::TooMuch => return Err(CliError::TooMuch { command }),
        End::TimedOut => {
            group.signal(Signal::TERM);
            let _ = timeout(GRACE, child.wait()).await;
            None
        }
    };
    Ok(Output {
        stdout: stdout.text(),
        stderr: stderr.text(),
        code,
        timed_out: matches!(end, End::TimedOut),
        cut: stdout.cut,
    })
}

/// How a run ended.
#[derive(Clone, Copy)]
enum End {
    Exited(Option<i32>),
    TooMuch,
    TimedOut,
}

fn spawn(question: &Question) -> std::io::Result<Child> {
    let mut command = std::process::Command::new(&question.program);
    command
        .args(&question.arguments)
        .envs(question.envs.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true).spawn()
}

/// What was read of a stream.
struct Captured {
    bytes: Vec<u8>,
    keep_end: bool,
    /// The beginning was left out.
    cut: bool,
}

/// A stream had more to say than is read.
struct TooMuch;

impl Captured {
    fn new(question: &Question) -> Self {
        Self {
            bytes: Vec::new(),
            keep_end: question.is_log,
            cut: false,
        }
    }

    /// Reads to the end. Once `mark` was read, `seen` hears of it.
    async fn read(
        &mut self,
        stream: Option<&mut (impl AsyncRead + Unpin)>,
        mut mark: Option<&'static str>,
        seen: &Notify,
    ) -> Result<(), TooMuch> {
        let Some(stream) = stream else { return Ok(()) };
        let mut block = vec![0; 64 * 1024];
        while let Ok(read) = stream.read(&mut block).await {
            if read == 0 {
                break;
            }
            self.bytes.extend_from_slice(&block[..read]);
            if let Some(wanted) = mark {
                let fresh = self.bytes.len().saturating_sub(read + wanted.len());
                if String::from_utf8_lossy(&self.bytes[fresh..]).contains(wanted) {
                    mark = None;
                    seen.notify_one();
                }
            }
            if let Some(excess) = self
                .bytes
                .len()
                .checked_sub(MAX_OUTPUT)
                .filter(|excess| *excess > 0)
            {
                if !self.keep_end {
                    return Err(TooMuch);
                }
                // Seldom, so that the whole is not moved for every block.
                if excess > MAX_OUTPUT {
                    self.bytes.drain(..excess);
                    self.cut = true;
                }
            }
        }
        Ok(())
    }

    /// As text, from a line on: half a line misleads, and half a secret in it is not known as one.
    fn text(&self) -> String {
        let half = self
            .bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .filter(|_| self.cut);
        let from = half.map_or(0, |line_end| line_end + 1);
        String::from_utf8_lossy(self.bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests;
