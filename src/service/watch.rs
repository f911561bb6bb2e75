//! Waiting of `poll_status` for news: the calls that wait for a job share its next poll, however many they are.
//!
//! The cost of a poll decides the pause before it. On this machine, and during a launch, a poll reads a file or two, so it comes
//! every second. On a cloud it runs `sky`, so the pause grows with the age of the job, from seconds to a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::JobService;
use super::answers::PollAnswer;
use super::context::Context;
use super::poll::poll;
use super::requests::{PollRequest, Until};
use super::sanitize::sanitize;
use crate::job_identity::JobIdentity;
use crate::launcher::JobState;
use crate::progress::metrics::Metrics;
use crate::sync::lock;

/// The pause before a poll that reads a few small files: on this machine, or during a launch.
pub(super) const CHEAP_INTERVAL: Duration = Duration::from_secs(1);
/// New figures are worth an answer once a call has waited so long.
const NEWS_INTERVAL: Duration = Duration::from_secs(15);
/// The bounds of the pause before a poll that runs a program, …
const SHORTEST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);
/// … which is this part of the job's age in between.
const PART_OF_AGE: u32 = 20;

type NextPoll = BoxFuture<'static, Arc<PollAnswer>>;

/// The next poll of each job that a call waits for. A poll that nobody waits for any more ends.
#[derive(Default)]
pub(super) struct SharedPolls(Mutex<HashMap<JobIdentity, WeakShared<NextPoll>>>);

impl SharedPolls {
    /// Forgets the jobs that nobody waits for, and returns how many are left.
    pub(super) fn sweep(&self) -> usize {
        let mut polls = lock(&self.0);
        polls.retain(|_, poll| poll.upgrade().is_some());
        polls.len()
    }

    /// Returns the poll of a job after this one: the one that other calls wait for, or a new one.
    fn next(&self, context: &Arc<Context>, last: &PollAnswer) -> Shared<NextPoll> {
        let job = query_of(last);
        let mut polls = lock(&self.0);
        if let Some(poll) = polls.get(&job).and_then(WeakShared::upgrade) {
            return poll;
        }
        let (context, query, pause) = (Arc::clone(context), job.clone(), last.pause);
        let next = async move {
            tokio::time::sleep(pause).await;
            // Boxed: while the calls wait, the memory of a poll is free.
            let answer = Box::pin(poll(&context, query.clone())).await;
            lock(&context.polls.0).remove(&query);
            Arc::new(answer)
        };
        let next = next.boxed().shared();
        polls.extend(next.downgrade().map(|poll| (job, poll)));
        next
    }
}

impl JobService {
    /// Polls a job until something has changed, it has ended, or the time is up, whichever comes first. Reports each poll.
    /// For a client that shows the progress the time may be longer.
    pub(crate) async fn poll_until(
        &self,
        request: PollRequest,
        on_poll: &(dyn Fn(&PollAnswer) + Send + Sync),
        shows_progress: bool,
    ) -> PollAnswer {
        let context = &self.context;
        let max_wait = context.policy.max_wait(shows_progress);
        let called_at = Instant::now();
        let wait = request.wait_seconds;
        if wait > max_wait {
            let error = format!(
                "`wait_seconds` is 0 to {max_wait}, not {wait}; call again with {max_wait}, as often as needed"
            );
            let answer = PollAnswer {
                job_id: request.job.job_id,
                error: Some(error),
                ..PollAnswer::default()
            };
            return sanitize(answer, &[]);
        }
        let first = Box::pin(poll(context, request.job)).await;
        if wait == 0 || !first.success || first.is_done {
            return first;
        }
        on_poll(&first);
        context.polls.sweep();
        let first = Arc::new(first);
        let (mut last, mut error) = (Arc::clone(&first), None);
        let waiting = async {
            while !is_change(&first, &last, request.until, called_at.elapsed()) {
                let answer = context.polls.next(context, &last).await;
                error = answer.error.clone();
                if answer.success || answer.is_gone() {
                    last = answer;
                }
                on_poll(&last);
            }
        };
        // From the start of the call: the first poll may have taken long, and clients wait for no more than a minute.
        let deadline = called_at + Duration::from_secs(wait);
        let _ = tokio::time::timeout_at(deadline, waiting).await;
        let mut answer = Arc::unwrap_or_clone(last);
        if let Some(error) = error.filter(|_| answer.success) {
            answer.warnings.push(format!(
                "this is the last known status; asked again, there was no answer: {error}"
            ));
        }
        answer
    }
}

/// Names the job of an answer, the same by whichever id it was asked for.
fn query_of(answer: &PollAnswer) -> JobIdentity {
    match answer.job_id.as_str() {
        "" => JobIdentity {
            job_id: String::new(),
            oumi_job_id: answer.oumi_job_id.clone(),
            cloud: answer.cloud.clone(),
            cluster: answer.cluster.clone(),
        },
        job_id => JobIdentity::of(job_id),
    }
}

/// Tells if two polls of a job differ in what a call that has `waited` so long waits for.
pub(super) fn is_change(
    one: &PollAnswer,
    other: &PollAnswer,
    until: Until,
    waited: Duration,
) -> bool {
    let state = |answer: &PollAnswer| (answer.success, answer.state, answer.is_done);
    state(one) != state(other)
        || one.status != other.status
        || (until == Until::Progress && is_news(one, other, waited))
}

/// Tells if the progress between two polls is worth an answer: something bad, the first figures, or, after a while, a part of
/// the run.
fn is_news(before: &PollAnswer, now: &PollAnswer, waited: Duration) -> bool {
    let is_stalled = before.stalled.is_none() && now.stalled.is_some();
    is_stalled
        || match (&before.measured, &now.measured) {
            (None, later) => later.is_some(),
            (Some(_), None) => false,
            (Some(earlier), Some(later)) => {
                later.bad_news.len() > earlier.bad_news.len()
                    || (waited >= NEWS_INTERVAL && has_advanced(&earlier.metrics, &later.metrics))
            }
        }
}

/// Tells if a run has advanced by one percent: of its steps, or of those that were done where their number is not known.
fn has_advanced(before: &Metrics, now: &Metrics) -> bool {
    match (before.step, now.step, before.epoch, now.epoch) {
        (Some(before), Some(step), ..) => {
            let run = now.total_steps.unwrap_or(before);
            step.saturating_sub(before) >= run.div_ceil(100).max(1)
        }
        (_, _, Some(before), Some(epoch)) => epoch - before >= 0.01,
        _ => before != now,
    }
}

/// Returns how often a job of this age is worth a question.
pub(super) fn pause_at(age: Duration) -> Duration {
    (age / PART_OF_AGE).min(LONGEST)
}

/// Returns how long to wait before the next poll of a job of this age.
pub(super) fn pause(answer: &PollAnswer, is_local: bool, age: Option<Duration>) -> Duration {
    if is_local || (answer.oumi_job_id.is_empty() && answer.state == JobState::Pending) {
        return CHEAP_INTERVAL;
    }
    pause_at(age.unwrap_or_default()).max(SHORTEST)
}
