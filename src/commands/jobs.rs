//! `list`, `status`, `logs`, `wait` and `cancel`: the answers of the tools, for a person at a shell.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use serde::Deserialize;
use serde::de::IntoDeserializer;

use super::completions::job_ids;
use super::text::{self, for_person, terminal_width};
use super::{CommandResult, exit_code, log, no_answer, note, print, until_interrupted, wait};
use crate::logs::read::LARGEST_MAX_BYTES;
use crate::process::on_file_threads;
use crate::serve::wire;
use crate::service::JobService;
use crate::service::answers::JobAnswer;
use crate::service::requests::{CancelRequest, JobQuery, ListRequest, LogsRequest, StatusFilter};
use crate::settings::env_vars;

/// A command about jobs.
#[derive(Subcommand)]
pub enum JobCommand {
    /// List the jobs, newest first
    List {
        /// all, running, completed (however they ended), succeeded, failed or cancelled
        #[arg(long, default_value = "all", value_parser = status_filter)]
        state: StatusFilter,
        /// The most jobs
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        output: Format,
    },
    /// Show how a job is, how far, and why it failed
    Status {
        #[command(flatten)]
        job: Job,
        #[command(flatten)]
        output: Format,
    },
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
        #[command(flatten)]
        output: Format,
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
        /// The longest wait, such as 90, 90s, 15m or 2h
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        output: Format,
    },
    /// Cancel a job, and wait until it has ended
    Cancel {
        #[command(flatten)]
        job: Job,
        /// Kill its processes at once instead of asking them to end; on this machine only
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Format,
    },
}

/// The job that a command is about.
#[derive(Args)]
pub struct Job {
    /// The id that `list` shows
    #[arg(value_name = "JOB", add = ArgValueCandidates::new(job_ids))]
    id: String,
}

/// The form of the output.
#[derive(Clone, Copy, Args)]
pub struct Format {
    /// Print JSON: the fields of the tool's answer
    #[arg(long)]
    pub(crate) json: bool,
}

/// The event that `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    Done,
    Progress,
}

impl Format {
    /// Prints an answer, for a person by `page`.
    pub(super) fn print<A: JobAnswer>(
        self,
        answer: &A,
        page: impl FnOnce(&serde_json::Value) -> String,
    ) -> CommandResult {
        let fields = answer.to_json()?;
        let text = if self.json {
            serde_json::to_string_pretty(&fields)?
        } else {
            page(&fields)
        };
        print(&text)?;
        Ok(if answer.is_success() {
            ExitCode::SUCCESS
        } else {
            no_answer()
        })
    }
}

/// Runs a command, and prints why it failed. `program` is this program.
pub fn run(command: JobCommand, program: &Path) -> ExitCode {
    exit_code(wire(program).and_then(|service| {
        let running = async move { run_on(&service, command).await };
        until_interrupted(on_file_threads(Box::pin(running)))
    }))
}

async fn run_on(service: &JobService, command: JobCommand) -> CommandResult {
    match command {
        JobCommand::List {
            state: status,
            limit,
            output,
        } => {
            let answer = service.list(ListRequest { status, limit }).await;
            output.print(&answer, |answer| text::list(answer, terminal_width()))
        }
        JobCommand::Status { job, output } => {
            output.print(&service.poll(JobQuery::of(&job.id)).await, text::job)
        }
        JobCommand::Logs {
            job,
            follow,
            grep,
            lines,
            output,
        } => {
            let request = LogsRequest {
                job: JobQuery::of(&job.id),
                lines: i64::from(lines),
                grep,
                max_bytes: LARGEST_MAX_BYTES,
                ..LogsRequest::default()
            };
            log::read(service, request, follow, output).await
        }
        JobCommand::Wait {
            job,
            until,
            timeout,
            output,
        } => wait::wait(service, JobQuery::of(&job.id), until, timeout, output).await,
        JobCommand::Cancel { job, force, output } => {
            let job = JobQuery::of(&job.id);
            cancel(service, CancelRequest { job, force }, output).await
        }
    }
}

async fn cancel(service: &JobService, request: CancelRequest, output: Format) -> CommandResult {
    if service.policy().read_only {
        let variable = env_vars::READ_ONLY;
        return Err(format!("{variable} is set: nothing may be changed here").into());
    }
    let job = request.job.clone();
    let report = |what: &str| note(&for_person(what));
    let answer = service.cancel_with_progress(request, &report).await;
    if !answer.success || answer.is_done {
        return output.print(&answer, text::job);
    }
    // A cancel that is under way is carried out by whoever asks about the job, and no server may run.
    note(&for_person(&answer.message));
    wait::wait(service, job, Goal::Done, None, output).await?;
    Ok(ExitCode::SUCCESS)
}

fn status_filter(text: &str) -> Result<StatusFilter, serde::de::value::Error> {
    StatusFilter::deserialize(text.into_deserializer())
}

/// Parses a time as `timeout` of coreutils does: seconds, or a number with its unit.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0)];
    let unit = units.iter().find(|(letter, _)| text.ends_with(*letter));
    let (letter, seconds) = unit.copied().unwrap_or((' ', 1.0));
    let number = text.trim_end_matches(letter).parse::<f64>().ok();
    let time = number.and_then(|number| Duration::try_from_secs_f64(number * seconds).ok());
    time.ok_or("give seconds, or a number with s, m, h or d")
}
