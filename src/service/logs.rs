//! `get_job_logs`: the end of a job's log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use regex::Regex;

use super::answers::LogsAnswer;
use super::requests::LogsRequest;
use super::{Context, JobService, launches};
use crate::error::{JobError, Result};
use crate::launcher::{JobIdentity, JobLog, LogContent};
use crate::logs::Log;
use crate::logs::read::{Excerpt, LARGEST_MAX_BYTES, ReadOptions, read_since, tail};
use crate::logs::search::{Query, compile, search};
use crate::plot;
use crate::process::job_dir::JobDir;
use crate::progress::{Scanner, read_log, without_curve};
use crate::settings::data_dir::write_atomic;
use crate::text::cursor::Cursor;

/// The smallest budget of an answer: with less there is no room for a line.
const MIN_BYTES: usize = 1024;
const MAX_SEARCH_TIME: Duration = Duration::from_secs(5);
const SPARKLINE_COLUMNS: usize = 60;

const TIMED_OUT: &str = "Only this part of the log arrived in time; more may follow.";
/// The fetched text ends before the position of the cursor.
const TOO_SHORT: &str =
    "Less of the log was fetched than you have read: call again with this cursor.";
const END_ONLY: &str = "Only the end of this log is fetched; the rest is on its cluster.";

impl JobService {
    pub(crate) async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        let context = &self.context;
        let mut job_id = request.job.job_id.clone();
        let read = async {
            let part = part(&request)?;
            let job = launches::resolve(context, &request.job).await?.identity;
            job_id.clone_from(&job.job_id);
            read_job(context, &job, &request, part).await
        };
        let mut answer = match read.await {
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
        answer.lines_requested = usize::try_from(request.lines).unwrap_or(0);
        context.sanitize(answer, &job_id)
    }
}

/// Reads the arguments that name a part of the log, before the log is fetched.
fn part(request: &LogsRequest) -> Result<(Option<Cursor>, Option<Regex>)> {
    match (request.cursor.as_str(), request.grep.as_str()) {
        ("", "") => Ok((None, None)),
        (cursor, "") => Ok((Some(Cursor::parse(cursor)?), None)),
        ("", grep) => Ok((None, Some(compile(grep)?))),
        _ => {
            let error = "grep searches the whole log: give grep or cursor, not both";
            Err(JobError::invalid(error))
        }
    }
}

async fn read_job(
    context: &Context,
    job: &JobIdentity,
    request: &LogsRequest,
    (cursor, pattern): (Option<Cursor>, Option<Regex>),
) -> Result<LogsAnswer> {
    let log = context.allowed_launcher(&job.cloud)?.logs(job).await;
    let redactor = context.redactor(&job.job_id);
    if redactor.hides_all() {
        return Err(JobError::failed(redactor.redact("")).with_hint("read the log there yourself"));
    }
    let log = log?;
    let failed = |error| JobError::failed(format!("cannot read {}: {error}", log.log_file));
    let lines = usize::try_from(request.lines).unwrap_or(0);
    let options = ReadOptions {
        max_bytes: request.max_bytes.clamp(MIN_BYTES, LARGEST_MAX_BYTES),
        raw: request.raw,
        ended: log.ended,
    };
    let opened = match &log.content {
        LogContent::File(path) => Log::open(path, &redactor),
        LogContent::Text { text, complete } => {
            Ok(Log::from_text(text.as_bytes(), *complete, &redactor))
        }
    };
    let mut opened = opened.map_err(failed)?;
    let excerpt = match (&cursor, pattern) {
        (None, None) => tail(&mut opened, lines, options),
        (Some(cursor), _) => read_since(&mut opened, cursor, options),
        (None, Some(pattern)) => {
            let query = Query {
                pattern,
                context: usize::try_from(request.context).unwrap_or(usize::MAX),
                max_matches: lines,
                deadline: Instant::now() + MAX_SEARCH_TIME,
            };
            search(&mut opened, &query, options)
        }
    };
    let mut excerpt = excerpt.map_err(failed)?;
    if log.timed_out && excerpt.change.is_some() {
        excerpt = Excerpt {
            cursor: cursor.unwrap_or_default(),
            truncated: true,
            notes: vec![TOO_SHORT.to_owned()],
            log_bytes: excerpt.log_bytes,
            ..Excerpt::default()
        };
    }
    let mut answer = answer_of(excerpt, &log);
    if request.plot {
        let dir = context.job_dir(&job.job_id);
        draw(&log.content, dir.as_ref(), &mut answer).map_err(failed)?;
    }
    Ok(answer)
}

/// Adds the loss as a sparkline and a picture, which is also a file beside the log, or says why there is none.
fn draw(log: &LogContent, dir: Option<&JobDir>, answer: &mut LogsAnswer) -> io::Result<()> {
    let (progress, history) = match log {
        LogContent::File(path) => read_log(path)?,
        LogContent::Text { text, .. } => {
            let mut scanner = Scanner::default();
            scanner.push(text.as_bytes());
            let training = scanner.ahead().into_owned();
            (training.progress(SystemTime::now()), training.history)
        }
    };
    answer.sparkline = history.sparkline(SPARKLINE_COLUMNS);
    let note = if let Some(picture) = plot::loss(&history) {
        let path = dir.map(|dir| dir.path().join("loss.png"));
        let written = path.as_deref().map(|path| write_atomic(path, &picture));
        answer.picture = Some(picture);
        if let Some(Err(error)) = written {
            format!("The picture is in this answer only: cannot write it: {error}.")
        } else {
            answer.plot_file = path.map(|path| path.display().to_string());
            String::new()
        }
    } else {
        format!("No plot: {}.", without_curve(progress.as_ref()))
    };
    answer.message = format!("{} {note}", answer.message).trim().to_owned();
    Ok(())
}

fn answer_of(excerpt: Excerpt, log: &JobLog) -> LogsAnswer {
    let (is_file, is_complete) = match &log.content {
        LogContent::File(_) => (true, true),
        LogContent::Text { complete, .. } => (false, *complete),
    };
    let lacks_lines = excerpt.reaches_start && !is_complete;
    let note = if log.timed_out && excerpt.log_bytes == 0 {
        ""
    } else if excerpt.matches.is_none() && excerpt.log_bytes == 0 {
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
    let timed_out = if log.timed_out { TIMED_OUT } else { "" };
    let notes = excerpt.notes.iter().map(String::as_str);
    let mut notes = Vec::from_iter([timed_out].into_iter().chain(notes).chain([note]));
    notes.retain(|note| !note.is_empty());
    LogsAnswer {
        message: notes.join(" "),
        log_file: log.log_file.clone(),
        cursor: excerpt.cursor.to_string(),
        lines_returned: excerpt.lines,
        logs: excerpt.text,
        truncated: excerpt.truncated || lacks_lines,
        unfinished: excerpt.unfinished,
        matches: excerpt.matches,
        remaining_bytes: Some(excerpt.remaining_bytes).filter(|bytes| *bytes > 0),
        ..LogsAnswer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let log = JobLog {
            log_file: String::new(),
            content: LogContent::Text {
                text: "{'loss': 2.0, 'step': 1}\n{'loss': 1.0, 'step': 2}\n".to_owned(),
                complete: false,
            },
            ended: false,
            timed_out: true,
        };
        let mut answer = answer_of(Excerpt::default(), &log);
        assert_eq!(answer.message, TIMED_OUT);
        let gone = JobDir::at("/proc/no-such-folder");
        draw(&log.content, Some(&gone), &mut answer).unwrap();
        assert!(answer.message.contains("in this answer only"), "{answer:?}");
        assert_eq!(answer.plot_file, None);
    }
}
