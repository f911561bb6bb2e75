//! `poll_status`: a job as its launcher reports it now, with what its log tells beside.

use std::sync::Arc;
use std::time::SystemTime;

use chrono::Utc;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::answers::{PollAnswer, fields, to_json};
use super::context::Context;
use super::costs::recorded_price;
use super::lookup::{self, ResolvedJob};
use super::observe::{Observation, observe};
use super::{JobService, launches, next_step, watch};
use crate::error::{JobError, Result};
use crate::job_identity::JobIdentity;
use crate::launcher::{JobStatus, status};
use crate::progress::Progress;
use crate::registry::JobRecord;

const PENDING_CANCEL: &str = "a cancel is pending: it is sent when the launch has ended, and again at each poll while it fails, \
    unless the server is read-only";
/// The most bytes of an answer about a failed job, as far as what it quotes of the log can be cut.
const MAX_FAILED: usize = 700;
/// The figures of a run that mean nothing once it is over.
const PASSING: &str = "learning_rate grad_norm tokens_per_second tokens_per_second_per_gpu samples_per_second steps_per_second \
    seconds_left source activity";

impl PollAnswer {
    /// Tells if the job does not exist, or no longer.
    pub(crate) fn is_gone(&self) -> bool {
        !self.success && self.status == status::NOT_FOUND
    }
}

impl JobService {
    /// Asks the launcher of a job for its status.
    pub(crate) async fn poll(&self, query: JobIdentity) -> PollAnswer {
        poll(&self.context, query).await
    }
}

pub(super) async fn poll(context: &Arc<Context>, query: JobIdentity) -> PollAnswer {
    let answer = match lookup::resolve(context, &query).await {
        Ok(job) => {
            let job = launches::refresh_identity(context, job).await;
            let identity = job.identity.clone();
            let answer = PollAnswer {
                cloud: context.cloud_name(&identity.cloud),
                job_id: identity.job_id,
                oumi_job_id: identity.oumi_job_id,
                cluster: identity.cluster,
                ..PollAnswer::default()
            };
            match ask(context, &job).await {
                Ok((status, observation)) => answered(context, answer, &job, status, observation),
                Err(error) if error.is_not_found() => failed(answer, &error),
                Err(error) => PollAnswer {
                    status: status::UNKNOWN.to_owned(),
                    next: next_step::next_after(&error),
                    ..failed(answer, &error)
                },
            }
        }
        Err(error) => {
            let answer = PollAnswer {
                job_id: query.job_id,
                ..PollAnswer::default()
            };
            failed(answer, &error)
        }
    };
    let job_id = answer.job_id.clone();
    context.sanitize(answer, &job_id)
}

/// Reports an error that says itself what to do next.
fn failed(answer: PollAnswer, error: &JobError) -> PollAnswer {
    let is_gone = error.is_not_found();
    PollAnswer {
        status: if is_gone { status::NOT_FOUND } else { "" }.to_owned(),
        error: Some(error.to_string()),
        ..answer
    }
}

async fn ask(context: &Context, job: &ResolvedJob) -> Result<(JobStatus, Observation)> {
    let identity = &job.identity;
    let launcher = context.allowed_launcher(&identity.cloud)?;
    let asked_at = Instant::now();
    let mut status = launcher.status(identity).await?;
    if !status.is_done && context.has_pending_cancel(&identity.job_id) {
        status.warnings.push(PENDING_CANCEL.to_owned());
    }
    let observation = observe(context, launcher, job, &status, asked_at).await;
    Ok((status, observation))
}

/// Completes the answer about a job with its status, and with what was observed beside it.
fn answered(
    context: &Context,
    answer: PollAnswer,
    job: &ResolvedJob,
    status: JobStatus,
    observation: Observation,
) -> PollAnswer {
    let record = job.record.as_ref();
    let submitted = record.and_then(JobRecord::submitted_at);
    let age = submitted.and_then(|time| (Utc::now() - time).to_std().ok());
    // A job that was started elsewhere is known by its run alone.
    let age = age.or(observation.duration);
    let (is_done, has_failure) = (status.is_done, observation.failure.is_some());
    let mut metadata = fields(&status.details).unwrap_or_default();
    metadata.retain(|name, value| name != "job_name" || *value != job.identity.job_id);
    // That of a job on this machine stands in the answer, once there is something in it.
    if let Some(record) = record.filter(|_| is_done && !answer.cloud.is_empty()) {
        let output_dir = record.output_dir.as_str().into();
        metadata.insert("output_dir".to_owned(), output_dir);
    }
    // SkyPilot tells no price of a cluster that was there before the launch.
    let recorded = record.filter(|_| !is_done).and_then(recorded_price);
    // While it runs, what is in its folder is not yet what came of it.
    let output = observation.output.as_ref().filter(|_| is_done);
    // Of a failed job the message says how long it took, and how far it came.
    let duration = observation.duration.filter(|_| is_done && !has_failure);
    let progress = observation.progress.as_ref().filter(|_| !has_failure);
    let mut answer = PollAnswer {
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
        hourly_price: status.details.hourly_price.or(recorded),
        spent: status.details.spent,
        ended_at: status.details.ended_at,
        progress: progress.and_then(|progress| progress_fields(progress, is_done)),
        measured: observation.progress,
        links: observation.links,
        stalled: observation.stalled.map(|stalled| stalled.sentence()),
        failure: observation.failure.as_ref().and_then(fields),
        warnings: status.warnings,
        ..answer
    };
    answer.pause = watch::pause(&answer, context.is_local(&job.identity.cloud), age);
    if let Some(mut failure) = observation.failure {
        // The log has the rest of what it quotes.
        let whole = to_json(&answer).map_or(0, |all| all.to_string().len());
        failure.cut_quotes(whole, MAX_FAILED);
        answer.failure = fields(&failure);
    }
    answer
}

/// Returns the figures of a run, with the age of the newest; of one that is over, those that still count.
fn progress_fields(progress: &Progress, is_done: bool) -> Option<Map<String, Value>> {
    let mut fields = fields(progress)?;
    match is_done {
        true => fields.retain(|name, _| !PASSING.split(' ').any(|passing| passing == name)),
        false => {
            let age = progress.age(SystemTime::now()).map(|age| age.as_secs());
            fields.insert("age_seconds".to_owned(), age.into());
        }
    }
    Some(fields)
}
