//! `get_job_logs`: the end of a job's log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::answers::{JobAnswer, LogsAnswer};
use super::context::Context;
use super::lookup::resolve;
use super::requests::LogsRequest;
use super::{JobService, launches};
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobLog, LogContent};
use crate::logs::Log;
use crate::logs::cursor::Cursor;
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

/// The fetched text ends before the position of the cursor.
const TOO_SHORT: &str =
    "Less of the log was fetched than you have read: call again with this cursor.";
const END_ONLY: &str = "Only the end of this log is fetched; the rest is on its cluster.";

impl JobService {
    /// Reads a part of a job's log.
    pub(crate) async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        let context = &self.context;
        let (job_id, read) = match resolve_job(context, &request).await {
            Ok((identity, selection)) => {
                let read = read_job(context, &identity, selection, &request).await;
                (identity.job_id, read)
            }
            Err(error) => (request.job.job_id.clone(), Err(error)),
        };
        let mut answer = read.unwrap_or_else(|error| LogsAnswer::failure(error.to_string()));
        answer.success = answer.error.is_none();
        answer.job_id = if answer.success {
            job_id.clone()
        } else {
            request.job.job_id
        };
        answer.lines_requested = usize::try_from(request.lines).unwrap_or(0);
        context.sanitize(answer, &job_id)
    }
}

async fn resolve_job(
    context: &Arc<Context>,
    request: &LogsRequest,
) -> Result<(JobIdentity, LogSelection), JobError> {
    let selection = LogSelection::new(request)?;
    let query = &request.job;
    let is_local = context.is_local(&query.cloud);
    if query.job_id.is_empty() && query.cluster_name.is_empty() && !is_local {
        let error = "give job_id, or oumi_job_id with cloud and cluster_name";
        return Err(JobError::invalid(error).with_hint("list_jobs shows them"));
    }
    let job = resolve(context, query).await?;
    let job = launches::refresh_identity(context, job).await;
    Ok((job.identity, selection))
}

async fn read_job(
    context: &Context,
    identity: &JobIdentity,
    selection: LogSelection,
    request: &LogsRequest,
) -> Result<LogsAnswer, JobError> {
    let launcher = context.allowed_launcher(&identity.cloud)?;
    let log = launcher.logs(identity).await;
    let redactor = context.redactor(&identity.job_id);
    if redactor.hides_all() {
        return Err(JobError::failed(redactor.redact("")).with_hint("read the log there yourself"));
    }
    let log = log?;
    let options = ReadOptions {
        max_bytes: request.max_bytes,
        raw: request.raw,
        ended: log.ended,
    };
    let read = || {
        let mut answer = selection.read(&log, &redactor, options)?;
        if request.plot {
            let dir = context.job_dir(&identity.job_id);
            draw(&log.content, dir.as_ref(), &mut answer)?;
        }
        Ok::<_, io::Error>(answer)
    };
    read().map_err(|error| JobError::failed(format!("cannot read {}: {error}", log.log_file)))
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
                cursor => Self::Since(Cursor::parse(cursor)?),
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
        let query = Query::new(&request.grep, Instant::now())?;
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
                if timed_out && excerpt.change.is_some() {
                    return Ok(LogsAnswer {
                        truncated: true,
                        ..answer_at(log, &cursor, &[], TOO_SHORT)
                    });
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
        LogContent::File(path) => read_log(path)?,
        LogContent::Text { text, .. } => {
            let mut scanner = Scanner::default();
            scanner.push(text.as_bytes());
            let scanner = scanner.ahead().into_owned();
            (scanner.progress(SystemTime::now()), scanner.history)
        }
    };
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
    let (is_file, is_complete) = match &log.content {
        LogContent::File(_) => (true, true),
        LogContent::Text { complete, .. } => (false, *complete),
    };
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
    LogsAnswer {
        lines_returned: excerpt.lines,
        logs: excerpt.text,
        truncated: excerpt.truncated || lacks_lines,
        unfinished: excerpt.unfinished,
        matches: excerpt.matches,
        remaining_bytes: Some(excerpt.remaining_bytes).filter(|bytes| *bytes > 0),
        ..answer_at(log, &excerpt.cursor, &excerpt.notes, note)
    }
}

/// Answers with a position in a log, and with what is to be said of it.
fn answer_at(log: &JobLog, cursor: &Cursor, notes: &[String], note: &str) -> LogsAnswer {
    let notes = log.message.iter().chain(notes).map(String::as_str);
    let notes: Vec<&str> = notes.chain((!note.is_empty()).then_some(note)).collect();
    LogsAnswer {
        message: notes.join(" "),
        log_file: log.log_file.clone(),
        cursor: cursor.to_string(),
        ..LogsAnswer::default()
    }
}
