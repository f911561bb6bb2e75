//! What a job said: the end of its log, what is new in it since a cursor, or the lines that match a pattern.

use std::io;
use std::time::{Duration, Instant};

use super::JobService;
use super::answers::LogsAnswer;
use super::lookup::resolve;
use super::requests::{JobQuery, LogsRequest};
use crate::launcher::{JobLog, LogContent};
use crate::logs::Log;
use crate::logs::cursor::{Change, Cursor};
use crate::logs::read::{Excerpt, LARGEST_MAX_BYTES, ReadOptions, read_since, tail};
use crate::logs::search::{Query, SearchResult, search};
use crate::plot;
use crate::progress::{Scanner, read_log};

/// The smallest budget: less than that is no line.
const SMALLEST_MAX_BYTES: usize = 1024;

/// How long a log is searched.
const SEARCH_FOR: Duration = Duration::from_secs(5);

/// The width of a sparkline.
const SPARKLINE_COLUMNS: usize = 60;

impl JobService {
    /// A part of a job's log.
    pub async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        let answer = self.answer_logs(&request).await;
        self.context.sanitize(answer, &request.job_id).await
    }

    async fn answer_logs(&self, request: &LogsRequest) -> LogsAnswer {
        let asked = LogsAnswer {
            job_id: request.job_id.clone(),
            lines_requested: usize::try_from(request.lines).unwrap_or(0),
            ..LogsAnswer::default()
        };
        match self.read_logs(request).await {
            Ok(read) => LogsAnswer {
                success: true,
                lines_requested: asked.lines_requested,
                ..read
            },
            Err(error) => LogsAnswer {
                error: Some(error),
                ..asked
            },
        }
    }

    async fn read_logs(&self, request: &LogsRequest) -> Result<LogsAnswer, String> {
        let part = Part::of(request)?;
        if request.job_id.is_empty() && request.cluster_name.is_empty() && request.cloud != "local"
        {
            return Err(
                "give job_id, or oumi_job_id with cloud and cluster_name; list_jobs shows them"
                    .to_owned(),
            );
        }
        let found = match resolve(&self.context, &JobQuery::from(request)).await {
            Ok(found) => self.launches.refresh_identity(found).await,
            Err(error) => return Err(error.to_string()),
        };
        let job_id = found.identity.job_id.clone();
        let log = match self.context.allowed_launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.logs(&found.identity).await,
            Err(error) => Err(error),
        };
        let secrets = self.context.redactor(&job_id).await;
        if secrets.hides_all() {
            return Err(
                "the log is not shown: which values of the job are secret cannot be read from secrets.json in its \
                 folder; read the log there yourself"
                    .to_owned(),
            );
        }
        let log = log.map_err(|error| error.to_string())?;
        let log_file = log.log_file.clone();
        let (max_bytes, raw, plot) = (request.max_bytes, request.raw, request.plot);
        let read = tokio::task::spawn_blocking(move || {
            let redact = |text: &str| secrets.redact(text);
            let options = ReadOptions {
                max_bytes,
                raw,
                ended: log.ended,
                redact: &redact,
            };
            let mut answer = part.read(&log, options)?;
            if plot {
                draw(&log.content, &mut answer)?;
            }
            Ok(answer)
        });
        let read = read.await.map_err(io::Error::other).flatten();
        let read = read.map_err(|error| format!("cannot read {log_file}: {error}"))?;
        Ok(LogsAnswer { job_id, ..read })
    }
}

/// Which part of a log is asked for.
enum Part {
    /// The last lines.
    Tail(usize),
    /// What is new.
    Since(Cursor),
    /// What matches, within a budget and a time that are set when it is read.
    Matching(Query),
}

impl Part {
    /// What `request` asks for, or what is wrong with it.
    fn of(request: &LogsRequest) -> Result<Self, String> {
        let lines = usize::try_from(request.lines).unwrap_or(0);
        if !(SMALLEST_MAX_BYTES..=LARGEST_MAX_BYTES).contains(&request.max_bytes) {
            return Err(format!(
                "max_bytes={} cannot be: give {SMALLEST_MAX_BYTES} to {LARGEST_MAX_BYTES}, or leave it out",
                request.max_bytes
            ));
        }
        if request.grep.is_empty() {
            if request.cursor.is_empty() {
                return Ok(Self::Tail(lines));
            }
            return Ok(Self::Since(
                request.cursor.parse().map_err(|error| format!("{error}"))?,
            ));
        }
        if !request.cursor.is_empty() {
            return Err(
                "grep searches the whole log from its end: leave cursor out, or grep".to_owned(),
            );
        }
        if request.raw {
            return Err("grep searches the readable text: leave raw out, or grep".to_owned());
        }
        let query = Query::new(&request.grep, Instant::now()).map_err(|error| error.to_string())?;
        Ok(Self::Matching(Query {
            context: usize::try_from(request.context).unwrap_or(usize::MAX),
            max_matches: lines,
            ..query
        }))
    }

    fn read(self, log: &JobLog, options: ReadOptions<'_>) -> io::Result<LogsAnswer> {
        let mut opened = match &log.content {
            LogContent::File(path) => Log::open(path)?,
            LogContent::Text { text, complete, .. } => Log::from_text(text.as_bytes(), *complete),
        };
        let (answer, mut notes) = match self {
            Self::Tail(lines) => {
                let excerpt = tail(&mut opened, lines, options)?;
                let reaches_the_beginning = excerpt.lines + excerpt.left_out_lines < lines;
                of_excerpt(excerpt, log, reaches_the_beginning)
            }
            Self::Since(cursor) => {
                let excerpt = read_since(&mut opened, &cursor, options)?;
                match excerpt.change {
                    Some(Change::Truncated | Change::Gap) if is_cut_off(log) => too_little(cursor),
                    _ => of_excerpt(excerpt, log, false),
                }
            }
            Self::Matching(query) => {
                let query = Query {
                    deadline: Instant::now() + SEARCH_FOR,
                    ..query
                };
                of_found(search(&mut opened, &query, options)?, log)
            }
        };
        let message = log.message.iter().map(|message| (options.redact)(message));
        notes.splice(0..0, message);
        Ok(LogsAnswer {
            message: notes.join(" "),
            log_file: log.log_file.clone(),
            ..answer
        })
    }
}

/// Adds the course of the loss to an answer, or says why there is none.
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
        Err(error) if answer.message.is_empty() => answer.message = format!("No plot: {error}."),
        Err(error) => answer.message = format!("{} No plot: {error}.", answer.message),
    }
    Ok(())
}

/// An excerpt as an answer, and what there is to say of it.
fn of_excerpt(
    excerpt: Excerpt,
    log: &JobLog,
    reaches_the_beginning: bool,
) -> (LogsAnswer, Vec<String>) {
    let mut notes = excerpt.notes;
    if excerpt.log_bytes == 0 {
        notes.push("Nothing has been logged yet.".to_owned());
    }
    if excerpt.truncated && excerpt.remaining_bytes == 0 {
        notes.extend(where_the_whole_is(log));
    }
    let lacks_lines = reaches_the_beginning && !is_whole(log);
    if lacks_lines {
        notes.push(NOT_WHOLE.to_owned());
    }
    let answer = LogsAnswer {
        lines_returned: excerpt.lines,
        logs: excerpt.text,
        truncated: excerpt.truncated || lacks_lines,
        cursor: excerpt.cursor.to_string(),
        unfinished: excerpt.unfinished.map(without_half_a_word),
        remaining_bytes: Some(excerpt.remaining_bytes).filter(|bytes| *bytes > 0),
        ..LogsAnswer::default()
    };
    (answer, notes)
}

/// What was found before `end` as an answer, and what there is to say of it.
fn of_found(found: SearchResult, log: &JobLog) -> (LogsAnswer, Vec<String>) {
    let mut notes: Vec<String> = found.note.into_iter().collect();
    if !found.complete {
        notes.extend(where_the_whole_is(log));
    }
    if found.complete && !is_whole(log) {
        notes.push(NOT_WHOLE.to_owned());
    } else if found.complete && found.matches == 0 {
        notes.push("No line of the log matches.".to_owned());
    }
    let answer = LogsAnswer {
        lines_returned: found.lines,
        logs: found.text,
        truncated: !found.complete || !is_whole(log),
        cursor: found.cursor.to_string(),
        matches: Some(found.matches),
        ..LogsAnswer::default()
    };
    (answer, notes)
}

/// The answer when the place of `cursor` has not come this time.
fn too_little(cursor: Cursor) -> (LogsAnswer, Vec<String>) {
    let note = "Less of the log came this time than you had read: call again with this cursor.";
    let answer = LogsAnswer {
        truncated: true,
        cursor: cursor.to_string(),
        ..LogsAnswer::default()
    };
    (answer, vec![note.to_owned()])
}

/// What is said of a log of which only the end was fetched.
const NOT_WHOLE: &str =
    "Only the end of this log is fetched: what stands before is on its cluster.";

fn is_whole(log: &JobLog) -> bool {
    !matches!(
        log.content,
        LogContent::Text {
            complete: false,
            ..
        }
    )
}

fn is_cut_off(log: &JobLog) -> bool {
    matches!(
        log.content,
        LogContent::Text {
            timed_out: true,
            ..
        }
    )
}

fn where_the_whole_is(log: &JobLog) -> Option<String> {
    matches!(log.content, LogContent::File(_)).then(|| "The whole is in log_file.".to_owned())
}

/// A line that is being written, without its last word if that can be the beginning of a secret: half of one is not known
/// as one. A state of a progress bar is written at once, and ends with a bracket or a number.
fn without_half_a_word(line: String) -> String {
    let word = line.rsplit([' ', '\t', '\r']).next().unwrap_or_default();
    let may_be_secret = word.len() > 3
        && word.contains(char::is_alphabetic)
        && !word.ends_with([']', ')', '}', '>', '|', '%', '?', '!']);
    match may_be_secret {
        true => format!("{}…", &line[..line.len() - word.len()]),
        false => line,
    }
}
