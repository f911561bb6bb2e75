//! `get_job_logs`: the end of a job's log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::time::{Duration, Instant};

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
use crate::logs::search::{Query, SearchResult, search};
use crate::plot;
use crate::progress::{Scanner, read_log};

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
    let (max_bytes, raw, plot) = (request.max_bytes, request.raw, request.plot);
    let read = tokio::task::spawn_blocking(move || {
        let options = ReadOptions {
            max_bytes,
            raw,
            ended: log.ended,
            redact: &|text| redactor.redact(text),
        };
        let mut answer = selection.read(&log, options)?;
        if plot {
            draw(&log.content, &mut answer)?;
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

    fn read(self, log: &JobLog, options: ReadOptions<'_>) -> io::Result<LogsAnswer> {
        let (mut opened, timed_out) = match &log.content {
            LogContent::File(path) => (Log::open(path)?, false),
            LogContent::Text {
                text,
                complete,
                timed_out,
            } => (Log::from_text(text.as_bytes(), *complete), *timed_out),
        };
        let (answer, mut notes) = match self {
            Self::Tail(lines) => {
                let excerpt = tail(&mut opened, lines, options)?;
                let reaches_start = excerpt.lines + excerpt.left_out_lines < lines;
                excerpt_answer(excerpt, log, reaches_start)
            }
            Self::Since(cursor) => {
                let excerpt = read_since(&mut opened, &cursor, options)?;
                match excerpt.change {
                    Some(Change::Truncated | Change::Gap) if timed_out => too_short_answer(cursor),
                    _ => excerpt_answer(excerpt, log, false),
                }
            }
            Self::Matching(query) => {
                let query = Query {
                    deadline: Instant::now() + MAX_SEARCH_TIME,
                    ..query
                };
                search_answer(search(&mut opened, &query, options)?, log)
            }
        };
        notes.splice(0..0, log.message.clone());
        Ok(LogsAnswer {
            message: notes.join(" "),
            log_file: log.log_file.clone(),
            ..answer
        })
    }
}

/// Adds the loss as a sparkline and a picture, or says why there is none.
fn draw(log: &LogContent, answer: &mut LogsAnswer) -> io::Result<()> {
    let history = match log {
        LogContent::File(path) => read_log(path)?.map(|(_, history)| history),
        LogContent::Text { text, .. } => {
            let mut scanner = Scanner::default();
            scanner.push(text.as_bytes());
            Some(scanner.into_history())
        }
    };
    let history = history.unwrap_or_default();
    answer.sparkline = history.sparkline(SPARKLINE_COLUMNS);
    match plot::loss(&history) {
        Ok(picture) => answer.picture = Some(picture),
        Err(error) => {
            let note = format!("{} No plot: {error}.", answer.message);
            answer.message = note.trim_start().to_owned();
        }
    }
    Ok(())
}

fn excerpt_answer(
    excerpt: Excerpt,
    log: &JobLog,
    reaches_start: bool,
) -> (LogsAnswer, Vec<String>) {
    let mut notes = excerpt.notes;
    if excerpt.log_bytes == 0 {
        notes.push("Nothing has been logged yet.".to_owned());
    }
    if excerpt.truncated && excerpt.remaining_bytes == 0 {
        notes.extend(complete_log_note(log));
    }
    let lacks_lines = reaches_start && !is_complete(log);
    if lacks_lines {
        notes.push(END_ONLY.to_owned());
    }
    let remaining = excerpt.remaining_bytes;
    let answer = LogsAnswer {
        lines_returned: excerpt.lines,
        logs: excerpt.text,
        truncated: excerpt.truncated || lacks_lines,
        cursor: excerpt.cursor.to_string(),
        unfinished: excerpt.unfinished.map(without_partial_word),
        remaining_bytes: if remaining > 0 { Some(remaining) } else { None },
        ..LogsAnswer::default()
    };
    (answer, notes)
}

fn search_answer(found: SearchResult, log: &JobLog) -> (LogsAnswer, Vec<String>) {
    let mut notes: Vec<String> = found.note.into_iter().collect();
    if !found.complete {
        notes.extend(complete_log_note(log));
    } else if !is_complete(log) {
        notes.push(END_ONLY.to_owned());
    } else if found.matches == 0 {
        notes.push("No line of the log matches.".to_owned());
    }
    let answer = LogsAnswer {
        lines_returned: found.lines,
        logs: found.text,
        truncated: !found.complete || !is_complete(log),
        cursor: found.cursor.to_string(),
        matches: Some(found.matches),
        ..LogsAnswer::default()
    };
    (answer, notes)
}

/// Answers where the fetched text ends before the position of `cursor`.
fn too_short_answer(cursor: Cursor) -> (LogsAnswer, Vec<String>) {
    let note = "Less of the log was fetched than you have read: call again with this cursor.";
    let answer = LogsAnswer {
        truncated: true,
        cursor: cursor.to_string(),
        ..LogsAnswer::default()
    };
    (answer, vec![note.to_owned()])
}

fn is_complete(log: &JobLog) -> bool {
    match log.content {
        LogContent::File(_) => true,
        LogContent::Text { complete, .. } => complete,
    }
}

fn complete_log_note(log: &JobLog) -> Option<String> {
    match log.content {
        LogContent::File(_) => Some("The complete log is in log_file.".to_owned()),
        LogContent::Text { .. } => None,
    }
}

/// Removes the last word of a line that is still being written where it may be the start of a secret: half of one is not
/// recognised. The state of a progress bar is written at once, and ends with a bracket or a number.
fn without_partial_word(line: String) -> String {
    let word = line.rsplit([' ', '\t', '\r']).next().unwrap_or_default();
    let may_be_secret = word.len() > 3
        && word.contains(char::is_alphabetic)
        && !word.ends_with([']', ')', '}', '>', '|', '%', '?', '!']);
    if may_be_secret {
        format!("{}…", &line[..line.len() - word.len()])
    } else {
        line
    }
}
