//! `wait`: shows how far a job is until it is over, and ends with how it ended.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::jobs::{Format, Goal};
use super::text::{self, for_person};
use super::{CommandResult, no_answer, note};
use crate::launcher::JobState;
use crate::progress::stall::span;
use crate::service::JobService;
use crate::service::answers::{JobAnswer, PollAnswer};
use crate::service::requests::{JobQuery, PollRequest, Until};

/// The pause after a launcher that could not be asked.
const RETRY: Duration = Duration::from_secs(30);
/// The longest wait of one call, in seconds.
const CALL_WAIT: u64 = 55;
/// The interval in which the time on the bar moves.
const TICK: Duration = Duration::from_millis(200);
/// The exit code after the timeout, as `timeout` of coreutils gives it.
const TIMED_OUT: u8 = 124;

/// Waits until a job is over, or there is news of it. With a `timeout`, no longer than that.
pub(super) async fn wait(
    service: &JobService,
    job: JobQuery,
    goal: Goal,
    timeout: Option<Duration>,
    output: Format,
) -> CommandResult {
    let mut last = PollAnswer::failure("no answer came within the timeout".to_owned());
    let watching = watch(service, job, goal, &mut last);
    let in_time = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, watching).await.is_ok(),
        None => {
            watching.await;
            true
        }
    };
    let printed = output.print(&last, text::job)?;
    Ok(match last.state {
        _ if !in_time => ExitCode::from(TIMED_OUT),
        _ if !last.success => printed,
        _ if !last.is_done => ExitCode::SUCCESS,
        JobState::Succeeded => ExitCode::SUCCESS,
        JobState::Failed | JobState::Cancelled => ExitCode::FAILURE,
        _ => no_answer(),
    })
}

/// Polls a job into `last` until it is over, or what the goal asks for has changed.
async fn watch(service: &JobService, job: JobQuery, goal: Goal, last: &mut PollAnswer) {
    let bar = Bar::new();
    let metrics = |answer: &PollAnswer| {
        let progress = answer.progress.as_ref()?;
        Some(progress.progress.metrics.clone())
    };
    let mut first = None;
    let mut wait_seconds = 0;
    loop {
        let request = PollRequest {
            job: job.clone(),
            wait_seconds,
            until: Until::Progress,
        };
        let answer = service
            .poll_until(request, &|what| bar.say(what), false)
            .await;
        *last = answer;
        wait_seconds = CALL_WAIT;
        let is_forbidden = service.policy().forbids(&last.cloud).is_some();
        if last.is_done || last.is_gone() || is_forbidden {
            return;
        }
        if let Some(error) = &last.error {
            bar.warn(error);
            tokio::time::sleep(RETRY).await;
            continue;
        }
        bar.show(last);
        let now = (last.state, last.status.clone(), metrics(last));
        if goal == Goal::Progress && first.get_or_insert_with(|| now.clone()) != &now {
            return;
        }
    }
}

/// The bar on stderr, where that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::no_length().with_finish(ProgressFinish::AndClear);
        bar.set_style(style("{spinner} {elapsed}  {msg}"));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Shows step, loss and the time left.
    fn show(&self, answer: &PollAnswer) {
        let Some(progress) = &answer.progress else {
            return self.say(&answer.message);
        };
        let metrics = &progress.progress.metrics;
        let loss = metrics.loss.map(|loss| format!("loss {loss:.4}"));
        let left = metrics
            .seconds_left
            .and_then(|left| Duration::try_from_secs_f64(left).ok());
        let left = left.map(|left| format!("{} left", span(left)));
        let parts: Vec<String> = loss.into_iter().chain(left).collect();
        match (metrics.step, metrics.total_steps) {
            (Some(step), Some(total)) => {
                self.0
                    .set_style(style("{bar:24} step {pos} of {len}  {msg}"));
                self.0.set_length(total);
                self.0.set_position(step);
                self.0.set_message(parts.join(", "));
            }
            _ => self.say(&answer.message),
        }
    }

    fn say(&self, what: &str) {
        if self.0.length().is_none() {
            self.0.set_message(for_person(what));
        }
    }

    fn warn(&self, error: &str) {
        let text = format!("{}; trying again every {}", for_person(error), span(RETRY));
        self.0.suspend(|| note(&text));
    }
}

/// A template that is known to be one; a wrong one would show the default bar.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}
