//! `get_job_logs`: the end of a job's log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::answers::LogsAnswer;
use super::context::Context;
use super::launches::Launches;
use super::lookup::{ResolvedJob, resolve};
use super::requests::LogsRequest;
use crate::error::JobError;
use crate::launcher::{JobLog, LogContent};
use crate::logs::Log;
use crate::logs::cursor::{Change, Cursor};
use crate::logs::read::{Excerpt, LARGEST_MAX_BYTES, ReadOptions, read_since, tail};
use crate::logs::search::{Query, search};
use crate::plot;
use crate::process::job_dir::JobDir;
use crate::progress::{Scanner, read_log, without_curve};
use crate::redact::Redactor;
use crate::settings::data_dir::write_atomic;

/// The smallest budget of an answer: with less there is no room for a line.
const SMALLEST_MAX_BYTES: usize = 1024;
const MAX_SEARCH_TIME: Duration = Duration::from_secs(5);
const SPARKLINE_COLUMNS: usize = 60;

const END_ONLY: &str = "Only the end of this log is fetched; the rest is on its cluster.";

/// Reads a part of a job's log.
pub(super) async fn logs(
    context: &Context,
    launches: &Launches,
    request: LogsRequest,
) -> LogsAnswer {
    let (job_id, read) = match resolve_job(context, launches, &request).await {
        Ok((job, selection)) => {
            let job_id = job.identity.job_id.clone();
            (job_id, read_job(context, job, selection, &request).await)
        }
        Err(error) => (request.job.job_id.clone(), Err(error)),
    };
    let answer = match read {
        Ok(answer) => LogsAnswer {
            success: true,
            job_id: job_id.clone(),
            ..answer
        },
        Err(error) => LogsAnswer {
            job_id: request.job.job_id,
            error: Some(error.to_string()),
            ..LogsAnswer::default()
        },
    };
    let answer = LogsAnswer {
        lines_requested: usize::try_from(request.lines).unwrap_or(0),
        ..answer
    };
    context.sanitize(answer, &job_id).await
}

async fn resolve_job(
    context: &Context,
    launches: &Launches,
    request: &LogsRequest,
) -> Result<(ResolvedJob, LogSelection), JobError> {
    let selection = LogSelection::new(request)?;
    let query = &request.job;
    let launcher = context.launcher(&query.cloud);
    let needs_cluster = !launcher.is_ok_and(|launcher| launcher.traits().is_local);
    if query.job_id.is_empty() && query.cluster_name.is_empty() && needs_cluster {
        let error = "give job_id, or oumi_job_id with cloud and cluster_name";
        return Err(JobError::invalid(error).with_hint("list_jobs shows them"));
    }
    let job = resolve(context, query).await?;
    Ok((launches.refresh_identity(job).await, selection))
}

async fn read_job(
    context: &Context,
    job: ResolvedJob,
    selection: LogSelection,
    request: &LogsRequest,
) -> Result<LogsAnswer, JobError> {
    let launcher = context.allowed_launcher(&job.identity.cloud)?;
    let log = launcher.logs(&job.identity).await;
    let redactor = context.redactor(&job.identity.job_id).await;
    if redactor.hides_all() {
        return Err(JobError::failed(redactor.redact("")).with_hint("read the log there yourself"));
    }
    let log = log?;
    let log_file = log.log_file.clone();
    let dir = context.job_dir(&job.identity.job_id);
    let (max_bytes, raw, plot) = (request.max_bytes, request.raw, request.plot);
    let read = tokio::task::spawn_blocking(move || {
        let options = ReadOptions {
            max_bytes,
            raw,
            ended: log.ended,
        };
        let mut answer = selection.read(&log, &redactor, options)?;
        if plot {
            draw(&log.content, dir.as_ref(), &mut answer)?;
        }
        Ok(answer)
    });
    let read = read.await.map_err(io::Error::other).flatten();
    read.map_err(|error| JobError::failed(format!("cannot read {log_file}: {error}")))
}

/// The part of a log that a request asks for.
enum LogSelection {
    /// The last lines.
    Tail(usize),
    /// The lines after a cursor.
    Since(Cursor),
    /// The lines that match; the deadline is set when the search begins.
    Matching(Query),
}

impl LogSelection {
    fn new(request: &LogsRequest) -> Result<Self, JobError> {
        let lines = usize::try_from(request.lines).unwrap_or(0);
        if !(SMALLEST_MAX_BYTES..=LARGEST_MAX_BYTES).contains(&request.max_bytes) {
            return Err(JobError::invalid(format!(
                "max_bytes={} is out of range: give {SMALLEST_MAX_BYTES} to {LARGEST_MAX_BYTES}, or leave it out",
                request.max_bytes
            )));
        }
        if request.grep.is_empty() {
            return Ok(match request.cursor.as_str() {
                "" => Self::Tail(lines),
                cursor => Self::Since(cursor.parse().map_err(JobError::invalid)?),
            });
        }
        if !request.cursor.is_empty() {
            let error = "grep searches the whole log from its end: leave cursor out, or grep";
            return Err(JobError::invalid(error));
        }
        if request.raw {
            let error = "grep searches the readable text: leave raw out, or grep";
            return Err(JobError::invalid(error));
        }
        let query = Query::new(&request.grep, Instant::now()).map_err(JobError::invalid)?;
        Ok(Self::Matching(Query {
            context: usize::try_from(request.context).unwrap_or(usize::MAX),
            max_matches: lines,
            ..query
        }))
    }

    fn read(
        self,
        log: &JobLog,
        redactor: &Redactor,
        options: ReadOptions,
    ) -> io::Result<LogsAnswer> {
        let (mut opened, timed_out) = match &log.content {
            LogContent::File(path) => (Log::open(path, redactor)?, false),
            LogContent::Text {
                text,
                complete,
                timed_out,
            } => {
                let opened = Log::from_text(text.as_bytes(), *complete, redactor);
                (opened, *timed_out)
            }
        };
        let excerpt = match self {
            Self::Tail(lines) => tail(&mut opened, lines, options)?,
            Self::Since(cursor) => {
                let excerpt = read_since(&mut opened, &cursor, options)?;
                if timed_out && matches!(excerpt.change, Some(Change::Truncated | Change::Gap)) {
                    return Ok(too_short_answer(log, cursor));
                }
                excerpt
            }
            Self::Matching(query) => {
                let query = Query {
                    deadline: Instant::now() + MAX_SEARCH_TIME,
                    ..query
                };
                search(&mut opened, &query, options)?
            }
        };
        Ok(excerpt_answer(excerpt, log))
    }
}

/// Adds the loss as a sparkline and a picture, which is also a file beside the log, or says why there is none.
fn draw(log: &LogContent, dir: Option<&JobDir>, answer: &mut LogsAnswer) -> io::Result<()> {
    let (progress, history) = match log {
        LogContent::File(path) => read_log(path)?.unzip(),
        LogContent::Text { text, .. } => {
            let mut scanner = Scanner::default();
            scanner.push(text.as_bytes());
            let (progress, history) = scanner.read(SystemTime::now());
            (progress, Some(history.into_owned()))
        }
    };
    let history = history.unwrap_or_default();
    answer.sparkline = history.sparkline(SPARKLINE_COLUMNS);
    let drawn = plot::loss(&history).map(|picture| {
        let written = match dir.map(JobDir::plot_path) {
            Some(path) => write_atomic(&path, &picture).map(|()| Some(path)),
            None => Ok(None),
        };
        answer.picture = Some(picture);
        written
    });
    let note = match drawn {
        Some(Ok(path)) => {
            answer.plot_file = path.map(|path| path.display().to_string());
            return Ok(());
        }
        Some(Err(error)) => {
            format!("The picture is in this answer only: cannot write it: {error}.")
        }
        None => format!("No plot: {}.", without_curve(progress.as_ref())),
    };
    answer.message = format!("{} {note}", answer.message).trim().to_owned();
    Ok(())
}

fn excerpt_answer(excerpt: Excerpt, log: &JobLog) -> LogsAnswer {
    let is_file = matches!(log.content, LogContent::File(_));
    let is_complete = !matches!(
        log.content,
        LogContent::Text {
            complete: false,
            ..
        }
    );
    let lacks_lines = excerpt.reaches_start && !is_complete;
    let note = if excerpt.matches.is_none() && excerpt.log_bytes == 0 {
        "Nothing has been logged yet."
    } else if lacks_lines {
        END_ONLY
    } else if excerpt.truncated && excerpt.remaining_bytes == 0 && is_file {
        "The complete log is in log_file."
    } else if excerpt.matches == Some(0) && !excerpt.truncated {
        "No line of the log matches."
    } else {
        ""
    };
    let notes = log.message.iter().chain(&excerpt.notes).map(String::as_str);
    let notes: Vec<&str> = notes.chain((!note.is_empty()).then_some(note)).collect();
    LogsAnswer {
        message: notes.join(" "),
        log_file: log.log_file.clone(),
        lines_returned: excerpt.lines,
        logs: excerpt.text,
        truncated: excerpt.truncated || lacks_lines,
        cursor: excerpt.cursor.to_string(),
        unfinished: excerpt.unfinished,
        matches: excerpt.matches,
        remaining_bytes: Some(excerpt.remaining_bytes).filter(|bytes| *bytes > 0),
        ..LogsAnswer::default()
    }
}

/// Answers where the fetched text ends before the position of `cursor`.
fn too_short_answer(log: &JobLog, cursor: Cursor) -> LogsAnswer {
    let note = "Less of the log was fetched than you have read: call again with this cursor.";
    let notes: Vec<&str> = log.message.as_deref().into_iter().chain([note]).collect();
    LogsAnswer {
        message: notes.join(" "),
        log_file: log.log_file.clone(),
        truncated: true,
        cursor: cursor.to_string(),
        ..LogsAnswer::default()
    }
}
