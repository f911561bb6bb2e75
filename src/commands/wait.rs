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

/// Waits until a job is over, or there is news of it. Without a `timeout`, as long as that takes.
pub(super) async fn wait(
    service: &JobService,
    job: JobQuery,
    goal: Goal,
    timeout: Option<Duration>,
    output: Format,
) -> CommandResult {
    let mut last = PollAnswer::failure("no answer came within the timeout".to_owned());
    let watching = watch(service, job, goal, &mut last);
    let timeout = timeout.unwrap_or(Duration::MAX);
    let in_time = tokio::time::timeout(timeout, watching).await.is_ok();
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
    // On stderr, where that is a terminal.
    let bar = ProgressBar::no_length().with_finish(ProgressFinish::AndClear);
    bar.set_style(style("{spinner} {elapsed}  {wide_msg}"));
    bar.enable_steady_tick(TICK);
    let mut first = None;
    let mut wait_seconds = 0;
    loop {
        let request = PollRequest {
            job: job.clone(),
            wait_seconds,
            until: Until::Progress,
        };
        let waiting_for = |what: &str| bar.set_message(for_person(what));
        *last = service.poll_until(request, &waiting_for, false).await;
        wait_seconds = CALL_WAIT;
        let is_forbidden = service.policy().forbids(&last.cloud).is_some();
        if last.is_done || last.is_gone() || is_forbidden {
            return;
        }
        if let Some(error) = &last.error {
            let text = format!("{}; trying again every {}", for_person(error), span(RETRY));
            bar.suspend(|| note(&text));
            tokio::time::sleep(RETRY).await;
            continue;
        }
        show(&bar, last);
        let now = last.message.clone();
        if goal == Goal::Progress && *first.get_or_insert_with(|| now.clone()) != now {
            return;
        }
    }
}

/// Shows the job's sentence, which names step and loss, and the time that is left.
fn show(bar: &ProgressBar, answer: &PollAnswer) {
    let metrics = (answer.progress.as_ref()).map(|progress| &progress.progress.metrics);
    let left = metrics.and_then(|metrics| metrics.seconds_left);
    let left = left.and_then(|left| Duration::try_from_secs_f64(left).ok());
    let left = left.map_or_else(String::new, |left| format!(", {} left", span(left)));
    bar.set_message(for_person(&answer.message) + &left);
    if let Some((step, total)) = metrics.and_then(|metrics| metrics.step.zip(metrics.total_steps)) {
        bar.set_style(style("{bar:24} {wide_msg}"));
        bar.set_length(total);
        bar.set_position(step);
    }
}

/// A template that is known to be one; a wrong one would show the default bar.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}
