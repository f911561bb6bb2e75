//! The sentences of an answer about a job: its status in words, and what to do next and when to ask again.
//!
//! A model that polls in a loop reads every answer, and pays for it. So each answer says when the next is worth it: within
//! a minute while something is about to change, by waiting in the call, and ever more seldom for a run that goes on.

use std::time::Duration;

use super::answers::ProgressAnswer;
use super::observe::Observation;
use crate::error::JobError;
use crate::launcher::{JobState, JobStatus};
use crate::progress::stall::span;

/// The next step for a job that does not exist.
pub(super) const AFTER_NOT_FOUND: &str = "Call list_jobs for the ids.";
/// The next step for a job whose launcher could not be asked.
pub(super) const AFTER_NO_ANSWER: &str = "Ask again in a minute.";
const WAIT_FOR_CHANGE: &str =
    "Call poll_status with wait_seconds=55: it answers as soon as something changes.";

/// With less time left than this a call waits for the end.
const SOON: Duration = Duration::from_secs(180);
/// The pause before the next poll: this part of the time left, or of the job's age, …
const PART_OF_TIME_LEFT: u32 = 4;
const PART_OF_AGE: u32 = 10;
/// … within these bounds.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Returns the next step after an error: its own hint, such as a command to run.
pub(super) fn after_error(error: &JobError) -> String {
    let mut hint = error.hint.iter().flat_map(|hint| hint.chars());
    match hint.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), hint.collect::<String>()),
        None => AFTER_NO_ANSWER.to_owned(),
    }
}

/// Describes a status in a sentence or two.
pub(super) fn message(status: &JobStatus, progress: Option<&ProgressAnswer>) -> String {
    let state = match status.state {
        JobState::Pending => "the job is not running yet",
        JobState::Running => "the job is running",
        JobState::Succeeded => "the job succeeded",
        JobState::Failed => "the job failed",
        JobState::Cancelled => "the job was cancelled; none of its processes is left",
        JobState::Unknown if status.is_done => {
            "status unknown: the job ended while no server was watching"
        }
        JobState::Unknown => "status unknown",
    };
    let mut message = state.to_owned();
    if let Some(progress) = progress.and_then(progress_phrase) {
        message.push_str(", at ");
        message.push_str(&progress);
    }
    if let Some(more) = &status.message {
        message.push_str(": ");
        message.push_str(more.trim_end_matches('.'));
    }
    message
}

/// Describes a status and the next step where nothing was observed beside it.
pub(super) fn message_and_next(status: &JobStatus) -> String {
    let next = next(status, &Observation::default(), None);
    format!("{}. {next}", message(status, None))
}

/// Phrases progress, such as `step 120 of 900, loss 1.83`.
fn progress_phrase(progress: &ProgressAnswer) -> Option<String> {
    let metrics = &progress.progress.metrics;
    let step = match (metrics.step, metrics.total_steps) {
        (Some(step), Some(total)) => Some(format!("step {step} of {total}")),
        (Some(step), None) => Some(format!("step {step}")),
        _ => metrics.epoch.map(|epoch| format!("epoch {epoch:.2}")),
    };
    let loss = match metrics.loss {
        Some(loss) if loss.is_finite() => Some(format!("loss {loss:.4}")),
        _ => None,
    };
    match (step, loss) {
        (Some(step), Some(loss)) => Some(format!("{step}, {loss}")),
        (step, loss) => step.or(loss),
    }
}

/// Says what to do about a job of this age, and when to ask again.
pub(super) fn next(status: &JobStatus, observation: &Observation, age: Option<Duration>) -> String {
    if status.is_done {
        return after_end(status, observation).to_owned();
    }
    let is_running = status.state == JobState::Running;
    match (time_left(observation), age.map(|age| age / PART_OF_AGE)) {
        _ if status.state == JobState::Unknown => AFTER_NO_ANSWER.to_owned(),
        _ if observation.stalled.is_some() => {
            "Call get_job_logs to see where it stands; cancel_job ends it if it hangs.".to_owned()
        }
        (Some(left), _) if is_running && left < SOON => format!(
            "About {} left: call poll_status with wait_seconds=55.",
            span(left)
        ),
        (Some(left), _) if is_running => format!(
            "About {} left: ask again in {}, not sooner.",
            span(left),
            span((left / PART_OF_TIME_LEFT).clamp(SHORTEST, LONGEST))
        ),
        (None, Some(pause)) if is_running && pause > SHORTEST => {
            format!("Ask again in {}, not sooner.", span(pause.min(LONGEST)))
        }
        _ => WAIT_FOR_CHANGE.to_owned(),
    }
}

fn after_end(status: &JobStatus, observation: &Observation) -> &'static str {
    let failure = observation.failure.as_ref();
    let has_advice = failure.is_some_and(|failure| failure.advice.is_some());
    match status.state {
        JobState::Succeeded => "The job is over: get_job_logs shows its output.",
        JobState::Failed if has_advice => "Do what failure.advice says; get_job_logs shows more.",
        JobState::Failed => "Call get_job_logs to see why.",
        JobState::Cancelled => "The job is over.",
        _ => "Call get_job_logs to see how far it came.",
    }
}

/// Returns the time left by the job's own words, less the time since it said so.
fn time_left(observation: &Observation) -> Option<Duration> {
    let progress = observation.progress.as_ref()?;
    let left = Duration::try_from_secs_f64(progress.progress.metrics.seconds_left?).ok()?;
    let age = Duration::from_secs(progress.age_seconds.unwrap_or_default());
    Some(left.saturating_sub(age))
}
