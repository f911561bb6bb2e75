//! `poll_status`: how a job is now, and the wait for news of it. All calls that wait for a job share its next poll.
//!
//! The cost of a poll decides the pause before it. On this machine, and during a launch, a poll reads a file or two, so it comes
//! every second. On a cloud it runs `sky`, so the pause grows with the age of the job, from seconds to a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::answers::{PollAnswer, fields, to_json};
use super::lookup::ResolvedJob;
use super::observe::{Observation, observe, submitted};
use super::requests::{PollRequest, Until};
use super::{Context, JobService, launches, next_step};
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobState, JobStatus, status};
use crate::process::runner::in_budget;
use crate::progress::Progress;
use crate::progress::metrics::Metrics;
use crate::registry::JobRecord;
use crate::sync::lock;

const PENDING_CANCEL: &str = "a cancel is pending: it is sent when the launch has ended, and again at each poll while it fails, \
    unless the server is read-only";
/// The most bytes of an answer about a failed job, as far as what it quotes of the log can be cut.
const MAX_FAILED: usize = 700;
/// The figures of a run that mean nothing once it is over.
const PASSING: &str = "learning_rate grad_norm tokens_per_second tokens_per_second_per_gpu samples_per_second steps_per_second \
    seconds_left source activity";
/// The pause before a poll that reads a few small files: on this machine, or during a launch.
const CHEAP_INTERVAL: Duration = Duration::from_secs(1);
/// New figures are worth an answer once a call has waited so long.
const NEWS_INTERVAL: Duration = Duration::from_secs(15);
/// The bounds of the pause before a poll that runs a program.
const SHORTEST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);

impl PollAnswer {
    /// Tells if the job does not exist, or no longer.
    pub(crate) fn is_gone(&self) -> bool {
        !self.success && self.status == status::NOT_FOUND
    }
}

impl JobService {
    /// Returns how long a client should wait before it asks for a task again.
    pub(crate) fn task_interval(&self, job: &JobRecord) -> Duration {
        pause_at(age(job))
    }

    pub(crate) async fn poll(&self, query: JobIdentity) -> PollAnswer {
        poll(&self.context, query).await
    }

    /// Polls a job until there is news of it or the time is up, which may be longer for a client that shows the progress.
    pub(crate) async fn poll_until(
        &self,
        request: PollRequest,
        on_poll: &(dyn Fn(&PollAnswer) + Send + Sync),
        shows_progress: bool,
    ) -> PollAnswer {
        let context = &self.context;
        let called_at = Instant::now();
        let max_wait = context.policy.max_wait(shows_progress);
        let wait = request.wait_seconds.min(max_wait);
        // In a block, so that a waiting call does not keep memory for it.
        let first = {
            let first = Box::pin(poll(context, request.job)).await;
            if wait == 0 || !first.success || first.is_done {
                return first;
            }
            context.polls.share(first)
        };
        on_poll(&first);
        context.polls.sweep();
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
        // Counted from the start of the call: the first poll may have taken long, and clients wait a minute at most.
        let deadline = called_at + Duration::from_secs(wait);
        let _ = tokio::time::timeout_at(deadline, waiting).await;
        let mut answer = Arc::unwrap_or_clone(last);
        if let Some(error) = error.filter(|_| answer.success) {
            answer.warnings.push(format!(
                "this is the last known status; a later poll got no answer: {error}"
            ));
        }
        answer
    }
}

pub(super) async fn poll(context: &Arc<Context>, query: JobIdentity) -> PollAnswer {
    let mut answer = PollAnswer {
        job_id: query.job_id.clone(),
        ..PollAnswer::default()
    };
    let polling = async {
        let job = launches::resolve(context, &query).await?;
        let identity = job.identity.clone();
        answer = PollAnswer {
            cloud: context.cloud_name(&identity.cloud),
            job_id: identity.job_id,
            oumi_job_id: identity.oumi_job_id,
            cluster: identity.cluster,
            // Until its launcher has answered.
            status: status::UNKNOWN.to_owned(),
            ..PollAnswer::default()
        };
        let launcher = context.allowed_launcher(&job.identity.cloud)?;
        let mut status = launcher.status(&job.identity).await?;
        if !status.is_done && context.has_pending_cancel(&job.identity.job_id) {
            status.warnings.push(PENDING_CANCEL.to_owned());
        }
        let observation = observe(context, launcher, &job, &status).await;
        answered(context, &mut answer, &job, status, observation);
        Ok::<_, JobError>(())
    };
    if let Err(error) = in_budget(polling).await {
        if error.is_not_found() {
            answer.status = status::NOT_FOUND.to_owned();
        } else if !answer.status.is_empty() {
            answer.next = next_step::next_after(&error);
        }
        answer.error = Some(error.to_string());
    }
    let job_id = answer.job_id.clone();
    context.sanitize(answer, &job_id)
}

/// Completes the answer about a job with its status, and with what was observed beside it.
fn answered(
    context: &Context,
    answer: &mut PollAnswer,
    job: &ResolvedJob,
    status: JobStatus,
    observation: Observation,
) {
    let record = job.record.as_ref();
    // The age of a job that was started elsewhere is the time that it has run.
    let age = record.and_then(age).or(observation.duration);
    let (is_done, has_failure) = (status.is_done, observation.failure.is_some());
    let mut metadata = fields(&status.details).unwrap_or_default();
    metadata.retain(|name, value| name != "job_name" || *value != job.identity.job_id);
    // A job on this machine has a field for it, once there is something in the folder.
    if let Some(record) = record.filter(|_| is_done && !answer.cloud.is_empty()) {
        let output_dir = record.output_dir.as_str().into();
        metadata.insert("output_dir".to_owned(), output_dir);
    }
    // While a job runs, its folder does not yet hold the result.
    let output = observation.output.as_ref().filter(|_| is_done);
    // For a failed job the message says how long it took and how far it came.
    let duration = observation.duration.filter(|_| is_done && !has_failure);
    let progress = observation.progress.as_ref().filter(|_| !has_failure);
    *answer = PollAnswer {
        success: true,
        message: next_step::message(&status, &observation),
        next: next_step::next(&status, &observation, age),
        metadata,
        output_dir: output.map_or_else(String::new, |output| output.dir.display().to_string()),
        last_checkpoint: output.and_then(|output| output.checkpoint.clone()),
        duration_seconds: duration.map(|time| time.as_secs()),
        status: status.status,
        state: status.state,
        is_done,
        hourly_price: status.details.hourly_price,
        spent: status.details.spent,
        ended_at: status.details.ended_at,
        progress: progress.and_then(|progress| progress_fields(progress, is_done)),
        measured: observation.progress,
        links: observation.links,
        stalled: observation.stalled.map(|stalled| stalled.sentence()),
        failure: observation.failure.as_ref().and_then(fields),
        warnings: status.warnings,
        ..std::mem::take(answer)
    };
    let is_launching = answer.oumi_job_id.is_empty() && answer.state == JobState::Pending;
    answer.pause = match is_launching || context.is_local(&job.identity.cloud) {
        true => CHEAP_INTERVAL,
        false => pause_at(age),
    };
    if let Some(mut failure) = observation.failure {
        // The log has the rest of the quotes that are cut here.
        let whole = to_json(answer).map_or(0, |all| all.to_string().len());
        failure.cut_quotes(whole, MAX_FAILED);
        answer.failure = fields(&failure);
    }
}

/// Returns the figures of a run, with the age of the newest; of one that is over, those that still count.
fn progress_fields(progress: &Progress, is_done: bool) -> Option<Map<String, Value>> {
    let mut fields = fields(progress)?;
    if is_done {
        fields.retain(|name, _| !PASSING.split(' ').any(|passing| passing == name));
    } else {
        let age = progress.age(SystemTime::now()).map(|age| age.as_secs());
        fields.insert("age_seconds".to_owned(), age.into());
    }
    Some(fields)
}

type NextPoll = BoxFuture<'static, Arc<PollAnswer>>;

/// The polls of the jobs that calls wait for. A poll that nobody waits for any more ends.
#[derive(Default)]
pub(super) struct SharedPolls(Mutex<HashMap<JobIdentity, Polls>>);

struct Polls {
    last: Weak<PollAnswer>,
    next: WeakShared<NextPoll>,
}

impl SharedPolls {
    /// Forgets the jobs that nobody waits for, and returns how many are left.
    pub(super) fn sweep(&self) -> usize {
        let mut polls = lock(&self.0);
        polls.retain(|_, polls| polls.next.upgrade().is_some());
        polls.len()
    }

    /// Returns the answer that other calls hold, where this one is the same: a thousand take a megabyte.
    fn share(&self, answer: PollAnswer) -> Arc<PollAnswer> {
        let polls = lock(&self.0);
        let polled = polls.get(&query_of(&answer));
        let last = polled.and_then(|polls| polls.last.upgrade());
        let same = last.filter(|last| **last == answer);
        same.unwrap_or_else(|| Arc::new(answer))
    }

    /// Returns the poll of a job after this one: the one that other calls wait for, or a new one.
    fn next(&self, context: &Arc<Context>, last: &Arc<PollAnswer>) -> Shared<NextPoll> {
        let job = query_of(last);
        let mut polls = lock(&self.0);
        if let Some(poll) = polls.get(&job).and_then(|polls| polls.next.upgrade()) {
            return poll;
        }
        let (context, query, pause) = (Arc::clone(context), job.clone(), last.pause);
        let next = async move {
            tokio::time::sleep(pause).await;
            // Boxed, so that no memory is kept for a poll while the calls wait.
            let answer = Box::pin(poll(&context, query.clone())).await;
            lock(&context.polls.0).remove(&query);
            Arc::new(answer)
        };
        let next = next.boxed().shared();
        let last = Arc::downgrade(last);
        polls.extend(next.downgrade().map(|next| (job, Polls { last, next })));
        next
    }
}

/// Names the job of an answer, the same by whichever id it was asked for.
fn query_of(answer: &PollAnswer) -> JobIdentity {
    let job = JobIdentity {
        job_id: answer.job_id.clone(),
        oumi_job_id: answer.oumi_job_id.clone(),
        cloud: answer.cloud.clone(),
        cluster: answer.cluster.clone(),
    };
    job.shortest()
}

/// Tells if two polls of a job differ in what a call that has `waited` so long waits for.
pub(super) fn is_change(
    one: &PollAnswer,
    other: &PollAnswer,
    until: Until,
    waited: Duration,
) -> bool {
    let state = |answer: &PollAnswer| (answer.success, answer.state, answer.is_done);
    if state(one) != state(other) || one.status != other.status {
        return true;
    }
    let has_stalled = one.stalled.is_none() && other.stalled.is_some();
    // News is something bad, the first figures, or after a while one percent of the run.
    let is_news = match (&one.measured, &other.measured) {
        _ if has_stalled => true,
        (None, now) => now.is_some(),
        (Some(_), None) => false,
        (Some(before), Some(now)) => {
            now.bad_news.len() > before.bad_news.len()
                || (waited >= NEWS_INTERVAL && has_advanced(&before.metrics, &now.metrics))
        }
    };
    until == Until::Progress && is_news
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

/// Returns the time since a job was submitted.
fn age(job: &JobRecord) -> Option<Duration> {
    submitted(job)?.elapsed().ok()
}

/// Returns the pause before a poll that runs a program: a twentieth of the job's age.
fn pause_at(age: Option<Duration>) -> Duration {
    (age.unwrap_or_default() / 20).clamp(SHORTEST, LONGEST)
}
