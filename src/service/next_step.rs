//! What is said of a job beside its fields: how it is in a sentence, and what to do and when to ask again.
//!
//! A model that polls in a loop reads every answer, and pays for it. So each answer says when the next is worth it: within
//! a minute while something is about to change, by waiting in the call, and ever more seldom for a run that goes on.

use std::time::Duration;

use super::answers::ProgressAnswer;
use super::observe::Told;
use crate::launcher::{JobState, JobStatus};
use crate::progress::stall::span;

/// What to do about a job that there is not.
pub(super) const LOST: &str = "Call list_jobs for the ids.";
/// What to do about one that cannot be asked about now.
pub(super) const NOT_ASKED: &str = "Ask again in a minute.";

/// With less time left than this a call waits for the end.
const SOON: Duration = Duration::from_secs(180);
/// A job is asked about again after this part of the time it still takes, or has taken so far…
const PART_OF_REST: u32 = 4;
const PART_OF_AGE: u32 = 10;
/// … within these bounds.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// How a job is, in a sentence or two.
pub(super) fn message(status: &JobStatus, progress: Option<&ProgressAnswer>) -> String {
    let is = match status.state {
        JobState::Pending => "it does not run yet",
        JobState::Running => "it runs",
        JobState::Succeeded => "it ended well",
        JobState::Failed => "it failed",
        JobState::Cancelled => "it was cancelled, and nothing of it runs any more",
        JobState::Unknown if status.is_done => "it is over, and nobody knows how it ended",
        JobState::Unknown => "nobody can say how it is now",
    };
    let mut message = progress
        .and_then(so_far)
        .map_or_else(|| is.to_owned(), |so_far| format!("{is}, at {so_far}"));
    if let Some(said) = &status.message {
        message.push_str(": ");
        message.push_str(said.trim_end_matches('.'));
    }
    message
}

/// How a job is and what to do next, of one that has told nothing yet.
pub(super) fn both(status: &JobStatus) -> String {
    let message = message(status, None);
    format!("{message}. {}", next(status, &Told::default(), None))
}

/// How far it is: `step 120 of 900, loss 1.83`.
fn so_far(progress: &ProgressAnswer) -> Option<String> {
    let metrics = &progress.progress.metrics;
    let step = match (metrics.step, metrics.total_steps) {
        (Some(step), Some(total)) => Some(format!("step {step} of {total}")),
        (Some(step), None) => Some(format!("step {step}")),
        _ => metrics.epoch.map(|epoch| format!("epoch {epoch:.2}")),
    };
    let loss = metrics
        .loss
        .filter(|loss| loss.is_finite())
        .map(|loss| format!("loss {loss:.4}"));
    let parts: Vec<String> = step.into_iter().chain(loss).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What to do about a job that was found, of the age given, and when to ask again.
pub(super) fn next(status: &JobStatus, told: &Told, age: Option<Duration>) -> String {
    match status.state {
        _ if status.is_done => at_the_end(status, told).to_owned(),
        JobState::Unknown => NOT_ASKED.to_owned(),
        _ if told.stalled.is_some() => {
            "See with get_job_logs where it stands; cancel_job ends it if it hangs.".to_owned()
        }
        JobState::Running => match rest(told) {
            Some(rest) if rest < SOON => {
                format!(
                    "About {} left: call poll_status with wait_seconds=55.",
                    span(rest)
                )
            }
            Some(rest) => format!(
                "About {} left: ask again in {}, not sooner.",
                span(rest),
                span((rest / PART_OF_REST).clamp(SHORTEST, LONGEST))
            ),
            None => match age.map(|age| age / PART_OF_AGE) {
                Some(pause) if pause > SHORTEST => {
                    format!("Ask again in {}, not sooner.", span(pause.min(LONGEST)))
                }
                _ => SOON_MORE.to_owned(),
            },
        },
        _ => SOON_MORE.to_owned(),
    }
}

const SOON_MORE: &str =
    "Call poll_status with wait_seconds=55: it answers as soon as something changes.";

fn at_the_end(status: &JobStatus, told: &Told) -> &'static str {
    let has_advice = told
        .failure
        .as_ref()
        .is_some_and(|failure| failure.advice.is_some());
    match status.state {
        JobState::Succeeded => "It is over: get_job_logs shows what it said.",
        JobState::Failed if has_advice => "Do what failure.advice says; get_job_logs shows more.",
        JobState::Failed => "Call get_job_logs to see why.",
        JobState::Cancelled => "It is over.",
        _ => "Call get_job_logs to see how far it came.",
    }
}

/// How long it still takes, as it said itself, less the time since it said so.
fn rest(told: &Told) -> Option<Duration> {
    let progress = told.progress.as_ref()?;
    let left = progress.progress.metrics.seconds_left?;
    let left = Duration::try_from_secs_f64(left).ok()?;
    let age = Duration::from_secs(progress.age_seconds.unwrap_or_default());
    Some(left.saturating_sub(age))
}
