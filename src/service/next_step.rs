//! The two sentences of an answer about a job, which a model acts on: how it is, bad news first, and what to do next. A model has no
//! clock: it waits either in a call with `wait_seconds`, while something is about to change, or by ending its turn.

use std::time::{Duration, SystemTime};

use super::observe::{Observation, progress_phrase};
use crate::error::JobError;
use crate::failure::Failure;
use crate::launcher::{JobState, JobStatus};
use crate::progress::BadNews;
use crate::text::{shorten, span};

const WAIT_FOR_CHANGE: &str = "Call poll_status with wait_seconds=55.";
const END_TURN: &str = "tell the user, and end your turn; the job runs on.";

/// With less time left than this, or of a younger job whose end is not known, a call waits for news.
const SOON: Duration = Duration::from_secs(180);
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// The most of a reason that a message gives, in bytes.
const MAX_REASON: usize = 160;

pub(super) fn message(status: &JobStatus, observation: &Observation) -> String {
    let bad_news = bad_news(observation);
    let after = observation.duration;
    let after = after.map_or_else(String::new, |time| format!(" after {}", span(time)));
    let mut message = match status.state {
        JobState::Pending => "the job is not running yet".to_owned(),
        JobState::Running => "the job is running".to_owned(),
        JobState::Succeeded if bad_news.is_some() || observation.last_line.is_some() => {
            format!("the job ended{after}")
        }
        JobState::Succeeded => format!("the job succeeded{after}"),
        JobState::Failed => match &status.details.step {
            Some(step) => format!("`{step}` failed{after}"),
            None if status.status.eq_ignore_ascii_case("failed") => {
                format!("the job failed{after}")
            }
            // A status such as TIMEOUT, which the log may not mention.
            None => format!("the job failed ({}){after}", status.status),
        },
        JobState::Cancelled => format!("the job was cancelled{after}"),
        JobState::Unknown if status.is_done && status.message.is_none() => {
            "the job is over; how it ended is not known".to_owned()
        }
        JobState::Unknown => "status unknown".to_owned(),
    };
    message = match bad_news {
        Some(news) if status.is_done => format!("{message}, but {news}"),
        Some(news) => format!("{news}; {message}"),
        None => message,
    };
    if let Some(progress) = observation.progress.as_ref().and_then(progress_phrase) {
        message += &format!(", at {progress}");
    }
    if let Some(spent) = status.details.spent.as_ref().filter(|_| status.is_done) {
        message += &format!("; its cluster has cost {spent}");
    }
    let failure = observation.failure.as_ref();
    let what = failure.and_then(|failure| failure.what.as_deref());
    let reported = status.message.as_deref();
    let printed = failure.and_then(Failure::error_line);
    // For a process on this machine the launcher knows no more than its exit.
    let more = match &status.details.step {
        Some(_) => what.or(printed.as_deref()).or(reported),
        None => what.or(reported).or(printed.as_deref()),
    };
    if let Some(more) = more.or(observation.last_line.as_deref()) {
        message += ": ";
        message += &shorten(more.trim_end_matches('.'), MAX_REASON);
    }
    message
}

fn bad_news(observation: &Observation) -> Option<String> {
    if let Some(news) = newest_news(observation) {
        let lost = news.is_lost.then_some(": the run is lost");
        return Some(format!("{}{}", news.sentence, lost.unwrap_or_default()));
    }
    let silent = span(observation.stalled.as_ref()?.silent);
    Some(format!(
        "the log has been silent for {silent}: the job may hang"
    ))
}

fn newest_news(observation: &Observation) -> Option<&BadNews> {
    observation.progress.as_ref()?.bad_news.first()
}

pub(super) fn next(status: &JobStatus, observation: &Observation, age: Option<Duration>) -> String {
    if let Some(next) = status.details.next {
        return next.to_owned();
    }
    let is_stalled = observation.stalled.is_some();
    let news = newest_news(observation).filter(|_| !is_stalled);
    let is_lost = news.is_some_and(|news| news.is_lost);
    if status.is_done {
        return after_end(status, observation, is_lost);
    }
    if status.details.processes_left.is_some() {
        return "Tell the user; cancel_job ends the processes that it left.".to_owned();
    }
    if is_lost {
        return "Tell the user; cancel_job saves the remaining time.".to_owned();
    }
    if is_stalled || news.is_some() {
        return "Tell the user; get_job_logs shows where it stands, and cancel_job ends it."
            .to_owned();
    }
    match time_left(observation).filter(|_| status.state == JobState::Running) {
        Some(left) if left >= SOON => format!("About {} left: {END_TURN}", span(left)),
        None if age.is_some_and(|age| age > YOUNG) => format!("It may take long: {END_TURN}"),
        _ => WAIT_FOR_CHANGE.to_owned(),
    }
}

/// Describes what to do about a job that could not be asked about: the hint of the error, such as a command to run.
pub(super) fn next_after(error: &JobError) -> String {
    let mut hint = error.hint.iter().flat_map(|hint| hint.chars());
    match hint.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), hint.collect::<String>()),
        None => "Tell the user; ask again later.".to_owned(),
    }
}

fn after_end(status: &JobStatus, observation: &Observation, is_lost: bool) -> String {
    let output = observation.output.as_ref();
    let failure = observation.failure.as_ref();
    let has_advice = failure.is_some_and(|failure| failure.advice.is_some());
    let says_nothing = |it: &Failure| it.traceback_end.is_none() && it.last_lines.is_none();
    // The log of a cloud job may not have come yet.
    let is_silent = status.details.step.is_some() && failure.is_some_and(says_nothing);
    let what = match (status.state, output) {
        (JobState::Succeeded, _) if is_lost => {
            return "Tell the user: the trained model is of no use.".to_owned();
        }
        (JobState::Succeeded, _) if observation.last_line.is_some() => {
            "get_job_logs shows more. Without `set -eo pipefail` a script ends as its last command does."
        }
        (JobState::Succeeded, Some(output)) => {
            return format!("Its output is in {}.", output.dir.display());
        }
        (JobState::Succeeded, _) if status.details.cluster.is_some() => {
            "Tell the user: what it wrote and did not push is lost with its cluster; `rsync -a CLUSTER:sky_workdir/OUTPUT_DIR ./` copies it."
        }
        (JobState::Succeeded | JobState::Cancelled, _) => "The job is over.",
        (JobState::Failed, _) if has_advice => "Do what failure.advice says.",
        (JobState::Failed, _) if is_silent => "Tell the user: its log says no more.",
        (JobState::Failed, _) => "get_job_logs shows more.",
        _ => "Call get_job_logs to see how far it came.",
    };
    let can_resume = output.is_some_and(|output| output.checkpoint.is_some());
    let resume = " Resume with training.try_resume_from_last_checkpoint: true.";
    let resume = if can_resume { resume } else { "" };
    let cut = output.and_then(|output| output.cut.as_deref());
    let cut = cut.map(|cut| format!(" {cut} was not written whole: delete it before you resume."));
    format!("{what}{}{resume}", cut.unwrap_or_default())
}

/// Returns the time left by the job's own words, less the time since it said so.
fn time_left(observation: &Observation) -> Option<Duration> {
    let progress = observation.progress.as_ref()?;
    let left = Duration::try_from_secs_f64(progress.metrics.seconds_left?).ok()?;
    let age = progress.age(SystemTime::now());
    Some(left.saturating_sub(age.unwrap_or_default()))
}
