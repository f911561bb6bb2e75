//! The sentences of an answer about a job: what is the matter, and what to do next.
//!
//! A model acts on these two, and a person is shown little else: bad news comes first. A model has no clock, so a wait is
//! either a call with `wait_seconds`, while something is about to change, or the end of its turn.

use std::time::Duration;

use super::answers::ProgressAnswer;
use super::observe::Observation;
use crate::error::JobError;
use crate::failure::Failure;
use crate::launcher::{JobState, JobStatus};
use crate::progress::BadNews;
use crate::progress::stall::span;
use crate::text::shorten;

const WAIT_FOR_CHANGE: &str = "Call poll_status with wait_seconds=55.";
const END_TURN: &str = "tell the user, and end your turn; the job runs on.";

/// With less time left than this, or of a younger job whose end is not known, a call waits for news.
const SOON: Duration = Duration::from_secs(180);
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// The most of a reason that a message gives, in bytes.
const MAX_REASON: usize = 160;

/// Describes a job in a sentence or two.
pub(super) fn message(status: &JobStatus, observation: &Observation) -> String {
    let bad_news = bad_news(observation);
    let after = observation
        .duration
        .map(|time| format!(" after {}", span(time)));
    let after = after.unwrap_or_default();
    let state = match (status.state, &bad_news) {
        (JobState::Pending, _) => "the job is not running yet".to_owned(),
        (JobState::Running, _) => "the job is running".to_owned(),
        (JobState::Succeeded, Some(_)) => format!("the job ended{after}"),
        (JobState::Succeeded, None) => format!("the job succeeded{after}"),
        (JobState::Failed, _) => match &status.details.step {
            Some(step) => format!("`{step}` failed{after}"),
            None => format!("the job failed{after}"),
        },
        (JobState::Cancelled, _) => format!("the job was cancelled{after}"),
        (JobState::Unknown, _) if status.is_done && status.message.is_none() => {
            "the job is over, and how it ended is not known".to_owned()
        }
        (JobState::Unknown, _) => "status unknown".to_owned(),
    };
    let mut message = match bad_news {
        Some(news) if status.is_done => format!("{state}, but {news}"),
        Some(news) => format!("{news}; {state}"),
        None => state,
    };
    if let Some(progress) = observation.progress.as_ref().and_then(progress_phrase) {
        message.push_str(", at ");
        message.push_str(&progress);
    }
    if let Some(spent) = status.details.spent.as_ref().filter(|_| status.is_done) {
        message.push_str(&format!("; its cluster has cost {spent}"));
    }
    let failure = observation.failure.as_ref();
    let what = failure.and_then(|failure| failure.what.as_deref());
    let reported = status.message.as_deref();
    let printed = failure.and_then(Failure::error_line);
    // Of a process on this machine the launcher knows no more than its exit.
    let more = match &status.details.step {
        Some(_) => what.or(printed).or(reported),
        None => what.or(reported).or(printed),
    };
    if let Some(more) = more.or(observation.last_line.as_deref()) {
        message.push_str(": ");
        message.push_str(&shorten(more.trim_end_matches('.'), MAX_REASON));
    }
    message
}

/// Describes a status and the next step where nothing was observed beside it.
pub(super) fn message_and_next(status: &JobStatus) -> String {
    let nothing = Observation::default();
    let next = next(status, &nothing, None);
    format!("{}. {next}", message(status, &nothing))
}

/// Describes what a person must know at once.
fn bad_news(observation: &Observation) -> Option<String> {
    let progress = observation.progress.as_ref();
    let news = progress.and_then(|progress| progress.progress.bad_news.first());
    let warning = news.map(|news| match news {
        BadNews::NotFinite(..) => format!("{}: the run is lost", news.sentence()),
        BadNews::LossGrew(..) => news.sentence(),
    });
    let stall = || {
        let silent = observation.stalled.as_ref()?.silent;
        Some(format!(
            "the log has been silent for {}: the job may hang",
            span(silent)
        ))
    };
    warning.or_else(stall)
}

/// Phrases progress, such as `step 120 of 900, loss 1.83`.
pub(super) fn progress_phrase(progress: &ProgressAnswer) -> Option<String> {
    let metrics = &progress.progress.metrics;
    let step = match (metrics.step, metrics.total_steps) {
        (Some(step), Some(total)) => Some(format!("step {step} of {total}")),
        (Some(step), None) => Some(format!("step {step}")),
        _ => metrics.epoch.map(|epoch| format!("epoch {epoch:.2}")),
    };
    let figures = [("reward", metrics.reward), ("loss", metrics.loss)];
    let mut figures = figures.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| value.is_finite())?;
        let step = metrics.loss_step.map(|step| format!(" at step {step}"));
        Some(format!(
            "{name} {}{}",
            figure(value),
            step.unwrap_or_default()
        ))
    });
    let activity = progress.progress.activity.as_ref().map(|activity| {
        let total = activity.total.map(|total| format!(" of {total}"));
        let done = activity
            .done
            .map(|done| format!(" {done}{}", total.unwrap_or_default()));
        format!("now {}{}", activity.what, done.unwrap_or_default())
    });
    let parts: Vec<String> = [step, figures.next(), activity]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A number with at most four decimals, none of them padding.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.001 {
        return format!("{value:.1e}");
    }
    let rounded = (value * 10_000.0).round() / 10_000.0;
    rounded.to_string()
}

/// Describes what to do about a job of this age.
pub(super) fn next(status: &JobStatus, observation: &Observation, age: Option<Duration>) -> String {
    let progress = observation.progress.as_ref();
    let news = progress.and_then(|progress| progress.progress.bad_news.first());
    let is_lost = observation.stalled.is_none() && matches!(news, Some(BadNews::NotFinite(..)));
    if status.is_done {
        return after_end(status, observation, is_lost);
    }
    let left = time_left(observation).filter(|_| status.state == JobState::Running);
    match left {
        _ if status.details.processes_left.is_some() => {
            "Tell the user; cancel_job ends the processes that it left.".to_owned()
        }
        _ if is_lost => "Tell the user; cancel_job saves the time that is left.".to_owned(),
        _ if observation.stalled.is_some() => {
            "Tell the user; get_job_logs shows where it stands, and cancel_job ends it.".to_owned()
        }
        Some(left) if left < SOON => WAIT_FOR_CHANGE.to_owned(),
        Some(left) => format!("About {} left: {END_TURN}", span(left)),
        None if age.is_some_and(|age| age > YOUNG) => {
            format!("It may take long: {END_TURN}")
        }
        None => WAIT_FOR_CHANGE.to_owned(),
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
    let failure = observation.failure.as_ref();
    let has_advice = failure.is_some_and(|failure| failure.advice.is_some());
    let what = match (status.state, &observation.output) {
        (JobState::Succeeded, _) if is_lost => {
            return "Tell the user: what it has learned is of no use.".to_owned();
        }
        (JobState::Succeeded, Some(output)) => {
            let what = if output.has_model {
                "The model"
            } else {
                "Its output"
            };
            return format!("{what} is in {}.", output.dir.display());
        }
        (JobState::Succeeded, None) => "The job is over.",
        (JobState::Failed, _) if has_advice => "Do what failure.advice says.",
        (JobState::Failed, _) => "get_job_logs shows more.",
        (JobState::Cancelled, _) => "The job is over.",
        _ => "Call get_job_logs to see how far it came.",
    };
    let output = observation.output.as_ref();
    let can_resume = output.is_some_and(|output| output.checkpoint.is_some());
    let resume = match can_resume {
        true => " Resume with training.try_resume_from_last_checkpoint: true.",
        false => "",
    };
    format!("{what}{resume}")
}

/// Returns the time left by the job's own words, less the time since it said so.
fn time_left(observation: &Observation) -> Option<Duration> {
    let progress = observation.progress.as_ref()?;
    let left = Duration::try_from_secs_f64(progress.progress.metrics.seconds_left?).ok()?;
    let age = Duration::from_secs(progress.age_seconds.unwrap_or_default());
    Some(left.saturating_sub(age))
}
