//! `list`, `status`, `logs`, `wait` and `cancel`: the answers of the tools, for a person at a shell.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::completions::job_ids;
use super::text::{self, for_person, time_left};
use super::{CommandResult, NO_ANSWER, note, print, until_interrupted};
use crate::job_identity::JobIdentity;
use crate::launcher::JobState;
use crate::logs::read::LARGEST_MAX_BYTES;
use crate::logs::search;
use crate::process::on_file_threads;
use crate::serve::wire;
use crate::service::JobService;
use crate::service::answers::{PollAnswer, to_json};
use crate::service::requests::{
    CancelRequest, ListRequest, LogsRequest, PollRequest, StatusFilter, Until,
};
use crate::settings::env_vars;

/// The pause after a log, or a launcher, that could not be read.
const RETRY: Duration = Duration::from_secs(15);
/// The longest wait of one call, in seconds.
const CALL_WAIT: u64 = 55;
/// The interval in which the time on the bar moves.
const TICK: Duration = Duration::from_millis(200);
/// The exit code after the timeout, as `timeout` of coreutils gives it.
const TIMED_OUT: u8 = 124;

#[derive(Subcommand)]
pub enum JobCommand {
    /// List the jobs, newest first
    List {
        /// Those in this state; completed: however they ended
        #[arg(long, value_enum, default_value_t)]
        state: StatusFilter,
        /// The most jobs
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        output: Format,
    },
    /// Show how a job is, how far, and why it failed
    Status(Job),
    /// Show the end of a job's output
    Logs {
        #[command(flatten)]
        job: Job,
        /// Go on until the job is over
        #[arg(short, long)]
        follow: bool,
        /// Only the lines that match this regular expression
        #[arg(long, default_value = "", hide_default_value = true)]
        grep: String,
        /// The lines from the end; with --grep, those that match
        #[arg(short = 'n', long, default_value_t = 200)]
        lines: u32,
    },
    /// Wait until a job is over, and show how it ended
    #[command(
        after_help = "Exit codes: 0 the job succeeded; 1 it failed or was cancelled; 3 it is not known, or how it ended is not; 124 the \
                      timeout passed; 130 Ctrl-C. The job runs on in the last two cases."
    )]
    Wait {
        #[command(flatten)]
        job: Job,
        /// The event to wait for: the end, or the next news of step, loss or state
        #[arg(long, value_enum, default_value_t = Goal::Done)]
        until: Goal,
        /// The longest wait, in seconds
        #[arg(long)]
        timeout: Option<u64>,
    },
    /// Cancel a job, and wait until it has ended
    Cancel {
        #[command(flatten)]
        job: Job,
        /// Kill its processes at once instead of asking them to end; on a cloud, a launch that hangs
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct Job {
    /// The id that `list` shows of a job that was started here
    #[arg(value_name = "JOB", add = ArgValueCandidates::new(job_ids))]
    id: String,
    #[command(flatten)]
    output: Format,
}

#[derive(Clone, Copy, Args)]
pub struct Format {
    /// Print JSON: the fields of the tool that does the same, if there is one
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    Done,
    Progress,
}

impl Format {
    /// Prints an answer, for a person by `page`.
    fn print(self, answer: &impl Serialize, page: impl FnOnce(&Value) -> String) -> CommandResult {
        let fields = to_json(answer)?;
        print(&match self.json {
            true => serde_json::to_string_pretty(&fields)?,
            false => page(&fields),
        })?;
        Ok(match fields.get("error") {
            None => ExitCode::SUCCESS,
            Some(_) => NO_ANSWER.into(),
        })
    }
}

/// Runs a command. `program` is this program.
pub fn run(command: JobCommand, program: &Path) -> CommandResult {
    let service = wire(program)?;
    let running = async move { run_on(&service, command).await };
    until_interrupted(on_file_threads(Box::pin(running)))
}

async fn run_on(service: &JobService, command: JobCommand) -> CommandResult {
    match command {
        JobCommand::List {
            state: status,
            limit,
            output,
        } => {
            let answer = service.list(ListRequest { status, limit }).await;
            output.print(&answer, text::list)
        }
        JobCommand::Status(job) => {
            let answer = service.poll(JobIdentity::of(&job.id)).await;
            job.output.print(&answer, text::job)
        }
        JobCommand::Logs {
            job,
            follow,
            grep,
            lines,
        } => {
            let request = LogsRequest {
                job: JobIdentity::of(&job.id),
                lines: i64::from(lines),
                grep,
                max_bytes: LARGEST_MAX_BYTES,
                ..LogsRequest::default()
            };
            logs(service, request, follow, job.output).await
        }
        JobCommand::Wait {
            job,
            until,
            timeout,
        } => {
            let longest = timeout.map_or(Duration::MAX, Duration::from_secs);
            wait(service, &job, until, longest).await
        }
        JobCommand::Cancel { job, force } => cancel(service, &job, force).await,
    }
}

async fn cancel(service: &JobService, job: &Job, force: bool) -> CommandResult {
    if service.policy().read_only {
        let variable = env_vars::READ_ONLY;
        return Err(format!("{variable} is set: nothing may be changed here").into());
    }
    let request = CancelRequest {
        job: JobIdentity::of(&job.id),
        force,
    };
    let reporting = service.reporting(|what| note(&for_person(what)));
    let answer = reporting.cancel(request).await;
    if !answer.success || answer.is_done {
        return job.output.print(&answer, text::job);
    }
    // A pending cancel is carried out by those who poll the job, and perhaps no server runs.
    note(&for_person(&answer.message));
    wait(service, job, Goal::Done, Duration::MAX).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the log of a job, and with `follow` what is written to it until the job is over.
async fn logs(
    service: &JobService,
    mut request: LogsRequest,
    follow: bool,
    output: Format,
) -> CommandResult {
    let mut answer = service.logs(request.clone()).await;
    if !follow || !answer.success {
        return output.print(&answer, text::log);
    }
    let pattern = match std::mem::take(&mut request.grep).as_str() {
        "" => None,
        grep => Some(search::compile(grep)?),
    };
    // Folded lines would not match the pattern.
    request.raw = pattern.is_some();
    let mut is_over = false;
    loop {
        // JSON has one answer on each line.
        match output.json && !answer.logs.is_empty() {
            true => print(&to_json(&answer)?.to_string())?,
            false => print(&answer.logs)?,
        };
        if answer.remaining_bytes.is_none() {
            if is_over {
                return print(&answer.unfinished.unwrap_or_default());
            }
            // Asked before the log is read, which then has all that a finished job wrote.
            let status = service.poll(request.job.clone()).await;
            is_over = status.is_done || status.is_gone();
            if !is_over {
                // A poll on this machine costs little.
                let seconds = if status.cloud.is_empty() { 1 } else { 10 };
                sleep(Duration::from_secs(seconds)).await;
            }
        }
        request.cursor.clone_from(&answer.cursor);
        let newer = service.logs(request.clone()).await;
        if let Some(error) = &newer.error {
            note(&for_person(error));
            if is_over {
                return Ok(NO_ANSWER.into());
            }
            (answer.logs, answer.remaining_bytes) = Default::default();
            sleep(RETRY).await;
            continue;
        }
        answer = newer;
        if let Some(pattern) = &pattern {
            let lines = answer.logs.lines().filter(|line| pattern.is_match(line));
            answer.logs = lines.collect::<Vec<_>>().join("\n");
        }
    }
}

/// Waits until a job is over, or there is news of it, and prints how it is.
async fn wait(service: &JobService, job: &Job, goal: Goal, longest: Duration) -> CommandResult {
    let mut last = PollAnswer {
        error: Some("no answer came within the timeout".to_owned()),
        ..PollAnswer::default()
    };
    let watching = watch(service, JobIdentity::of(&job.id), goal, &mut last);
    let in_time = timeout(longest, watching).await.is_ok();
    let printed = job.output.print(&last, text::job)?;
    Ok(match last.state {
        _ if !in_time => ExitCode::from(TIMED_OUT),
        _ if !last.success => printed,
        _ if !last.is_done => ExitCode::SUCCESS,
        JobState::Succeeded => ExitCode::SUCCESS,
        JobState::Failed | JobState::Cancelled => ExitCode::FAILURE,
        _ => NO_ANSWER.into(),
    })
}

/// Polls a job into `last` until the goal is reached. A terminal shows its progress on stderr meanwhile.
async fn watch(service: &JobService, job: JobIdentity, goal: Goal, last: &mut PollAnswer) {
    let bar = ProgressBar::no_length().with_finish(ProgressFinish::AndClear);
    let style = |template| {
        let style = ProgressStyle::with_template(template);
        style.unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    bar.set_style(style("{spinner} {elapsed}  {wide_msg}"));
    bar.enable_steady_tick(TICK);
    // The message names step and loss.
    let show = |answer: &PollAnswer| {
        let metrics = answer.measured.as_ref().map(|progress| &progress.metrics);
        let left = metrics.and_then(|metrics| time_left(metrics.seconds_left));
        let left = left.map_or_else(String::new, |left| format!(", {left} left"));
        bar.set_message(for_person(&answer.message) + &left);
        let steps = metrics.and_then(|metrics| metrics.step.zip(metrics.total_steps));
        if let Some((step, total)) = steps {
            bar.set_style(style("{bar:24} {elapsed}  {wide_msg}"));
            bar.set_length(total);
            bar.set_position(step);
        }
    };
    let mut first = None;
    let mut request = PollRequest {
        job,
        wait_seconds: 0,
        until: Until::Progress,
    };
    loop {
        *last = service.poll_until(request.clone(), &show, false).await;
        request.wait_seconds = CALL_WAIT;
        if last.is_done || last.is_gone() || service.is_forbidden(&last.cloud) {
            return;
        }
        if let Some(error) = &last.error {
            bar.suspend(|| note(&format!("{}; trying again", for_person(error))));
            sleep(RETRY).await;
            continue;
        }
        show(last);
        let message = last.message.clone();
        if goal == Goal::Progress && *first.get_or_insert_with(|| message.clone()) != message {
            return;
        }
    }
}
