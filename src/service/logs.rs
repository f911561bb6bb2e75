//! `get_job_logs`: the end of a job's log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use regex::Regex;

use super::answers::LogsAnswer;
use super::context::Context;
use super::lookup::resolve;
use super::requests::LogsRequest;
use super::{JobService, launches};
use crate::error::{JobError, Result};
use crate::launcher::{JobIdentity, JobLog, LogContent};
use crate::logs::Log;
use crate::logs::cursor::Cursor;
use crate::logs::read::{Excerpt, LARGEST_MAX_BYTES, ReadOptions, read_since, tail};
use crate::logs::search::{Query, compile, search};
use crate::plot;
use crate::process::job_dir::JobDir;
use crate::progress::{Scanner, read_log, without_curve};
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
    pub(crate) async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        let context = &self.context;
        let mut job_id = request.job.job_id.clone();
        let read = async {
            let part = Part::of(&request)?;
            let job = resolve_job(context, &request).await?;
            job_id.clone_from(&job.job_id);
            read_job(context, &job, &request, part).await
        };
        let (answer, error) = match read.await {
            Ok(answer) => (answer, None),
            Err(error) => (LogsAnswer::default(), Some(error.to_string())),
        };
        let answer = LogsAnswer {
            success: error.is_none(),
            job_id: match error {
                None => job_id.clone(),
                Some(_) => request.job.job_id,
            },
            lines_requested: usize::try_from(request.lines).unwrap_or(0),
            error,
            ..answer
        };
        context.sanitize(answer, &job_id)
    }
}

async fn resolve_job(context: &Arc<Context>, request: &LogsRequest) -> Result<JobIdentity> {
    let query = &request.job;
    let is_local = context.is_local(&query.cloud);
    if query.job_id.is_empty() && query.cluster.is_empty() && !is_local {
        let error = "give job_id, or oumi_job_id with cloud and cluster_name";
        return Err(JobError::invalid(error).with_hint("list_jobs shows them"));
    }
    let job = resolve(context, query).await?;
    Ok(launches::refresh_identity(context, job).await.identity)
}

/// The part of a log that is asked for.
enum Part {
    End,
    Since(Cursor),
    Matches(Regex),
}

impl Part {
    /// Fails where an argument does not fit, before anything is fetched.
    fn of(request: &LogsRequest) -> Result<Self> {
        match (!request.grep.is_empty(), request.cursor.as_str()) {
            (false, "") => Ok(Self::End),
            (false, cursor) => Cursor::parse(cursor).map(Self::Since),
            (true, "") => compile(&request.grep).map(Self::Matches),
            (true, _) => Err(JobError::invalid(
                "grep searches the whole log from its end: leave cursor out, or grep",
            )),
        }
    }
}

async fn read_job(
    context: &Context,
    job: &JobIdentity,
    request: &LogsRequest,
    part: Part,
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
        max_bytes: request
            .max_bytes
            .clamp(SMALLEST_MAX_BYTES, LARGEST_MAX_BYTES),
        raw: request.raw,
        ended: log.ended,
    };
    let (opened, timed_out) = match &log.content {
        LogContent::File(path) => (Log::open(path, &redactor), false),
        LogContent::Text {
            text,
            complete,
            timed_out,
        } => {
            let opened = Log::from_text(text.as_bytes(), *complete, &redactor);
            (Ok(opened), *timed_out)
        }
    };
    let mut opened = opened.map_err(failed)?;
    let excerpt = match part {
        Part::End => tail(&mut opened, lines, options),
        Part::Since(cursor) => read_since(&mut opened, &cursor, options),
        Part::Matches(pattern) => {
            let query = Query {
                pattern,
                context: usize::try_from(request.context).unwrap_or(usize::MAX),
                max_matches: lines,
                deadline: Instant::now() + MAX_SEARCH_TIME,
            };
            search(&mut opened, &query, options)
        }
    };
    let excerpt = excerpt.map_err(failed)?;
    let mut answer = match timed_out && excerpt.change.is_some() {
        true => LogsAnswer {
            truncated: true,
            ..answer_at(&log, request.cursor.clone(), &[], TOO_SHORT)
        },
        false => excerpt_answer(excerpt, &log),
    };
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
        ..answer_at(log, excerpt.cursor.to_string(), &excerpt.notes, note)
    }
}

/// Answers with a position in a log, and with what is to be said of it.
fn answer_at(log: &JobLog, cursor: String, notes: &[String], note: &str) -> LogsAnswer {
    let notes = log.message.iter().chain(notes).map(String::as_str);
    let notes: Vec<&str> = notes.chain((!note.is_empty()).then_some(note)).collect();
    LogsAnswer {
        message: notes.join(" "),
        log_file: log.log_file.clone(),
        cursor,
        ..LogsAnswer::default()
    }
}
