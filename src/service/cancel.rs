//! `cancel_job`: cancels a job, or its launch as soon as that has ended.

use std::sync::Arc;

use super::answers::{CancelAnswer, JobAnswer};
use super::consent::Consent;
use super::context::Context;
use super::launches::{self, MAY_BE_RUNNING, clear_pending_cancel, outcome_within};
use super::lookup::{is_certain, resolve};
use super::poll::poll;
use super::requests::{CancelRequest, JobQuery};
use super::{CHANGE_WAIT, JobService, LAUNCH_WAIT, OnProgress, run_detached};
use crate::error::JobError;
use crate::in_flight::LaunchOutcome;
use crate::launcher::{CancelOutcome, JobIdentity, JobState, status};

impl JobService {
    /// Cancels a job. Of one that is cancelled it says what a poll says then.
    pub(crate) async fn cancel_with_progress(
        &self,
        request: CancelRequest,
        on_progress: OnProgress<'_>,
    ) -> CancelAnswer {
        let context = &self.context;
        let mut answer = cancel_named(context, &self.consent, request, on_progress).await;
        let job_id = answer.job_id.clone();
        if answer.success && answer.state == JobState::Cancelled {
            let query = JobQuery {
                job_id: job_id.clone(),
                oumi_job_id: answer.oumi_job_id.clone(),
                cloud: answer.cloud.clone(),
                cluster_name: answer.cluster.clone(),
            };
            let now = poll(context, query).await;
            if now.state == JobState::Cancelled {
                (answer.output_dir, answer.last_checkpoint) = (now.output_dir, now.last_checkpoint);
                let parts = [&now.message, &now.next, &answer.message];
                let parts = parts.map(|part| part.trim_end_matches('.'));
                answer.message = parts.join(". ").trim_end_matches(['.', ' ']).to_owned();
            }
        }
        answer.cloud = context.cloud_name(&answer.cloud);
        context.sanitize(answer, &job_id)
    }
}

async fn cancel_named(
    context: &Arc<Context>,
    consent: &Consent,
    request: CancelRequest,
    on_progress: OnProgress<'_>,
) -> CancelAnswer {
    let job = match resolve(context, &request.job).await {
        Ok(job) => job,
        Err(error) => {
            let is_gone = error.is_not_found();
            let status = if is_gone { status::NOT_FOUND } else { "" };
            return CancelAnswer {
                job_id: request.job.job_id,
                status: status.to_owned(),
                ..CancelAnswer::failure(error.to_string())
            };
        }
    };
    if let Some(forbidden) = context.policy.forbids(&job.identity.cloud) {
        return refused(&job.identity, &JobError::blocked(forbidden));
    }
    let job = launches::refresh_identity(context, job).await;
    if context.in_flight.contains(&job.identity.job_id) {
        on_progress("the launch is under way; the job is cancelled as soon as it ends");
    }
    if let Some(answer) = cancel_launch(context, &job.identity).await {
        return answer;
    }
    // The launch may have ended since the lookup: then the launcher's id is recorded only now.
    let job = launches::reload(context, job).await;
    let identity = job.identity;
    let mut named = identity.clone();
    if !is_certain(context, &identity).await && consent.can_ask() {
        // The user is asked about the job that has the id now.
        named.job_id.clear();
    }
    if (job.record.is_none() || named.job_id.is_empty())
        && context.launcher(&identity.cloud).is_ok()
        && let Err(error) = consent.confirm_cancel(&named).await
    {
        return refused(&identity, &error.context("nothing was done"));
    }
    on_progress(&format!("asking {} to end the job", identity.cloud));
    let outcome = cancel_job(context, &named, request.force).await;
    answer_to(&identity, outcome)
}

/// Has the launcher cancel a job. A cancel that takes too long stays pending beside the job until it is carried out, so
/// that the next server repeats it should this one end.
async fn cancel_job(
    context: &Arc<Context>,
    job: &JobIdentity,
    force: bool,
) -> Result<CancelOutcome, JobError> {
    let launcher = Arc::clone(context.launcher(&job.cloud)?);
    // Before the request: a job on this machine has the request in its folder, one on a cloud may outlive the server.
    let note = match launcher.is_local() {
        true => "",
        false => keep_pending(context, &job.job_id),
    };
    let (within, of) = (Arc::clone(context), job.clone());
    let work = async move {
        let done = launcher.cancel(&of, force).await;
        match &done {
            Ok(_) => clear_pending_cancel(&within, &of.job_id),
            Err(error) => tracing::warn!(job_id = of.job_id, %error, "a cancel failed"),
        }
        done
    };
    match run_detached(work).await {
        Some(Err(error)) => {
            // The caller is answered, and decides. Where nobody is, the next call about the job repeats it.
            clear_pending_cancel(context, &job.job_id);
            Err(error)
        }
        Some(done) => done,
        None => {
            let waited = CHANGE_WAIT.as_secs();
            let message = format!(
                "the cancel is not finished after {waited} s{note}: call poll_status to see the job end"
            );
            Ok(CancelOutcome::Stopping { message })
        }
    }
}

/// Writes a cancel down beside its job, and returns what to say where that cannot be done.
fn keep_pending(context: &Context, job_id: &str) -> &'static str {
    let kept = context.with_job_dir(job_id, |dir| dir.set_pending_cancel());
    if let Err(error) = &kept {
        tracing::warn!(job_id, %error, "cannot write a cancel down");
    }
    // A job that this server did not start has no folder here.
    match job_id.is_empty() || kept.is_err() {
        true => ", and it is not repeated if it fails",
        false => "",
    }
}

/// Requests that a launch in flight be cancelled as soon as it ends, and waits for that up to [`LAUNCH_WAIT`]. `None` when no
/// launch is in flight.
async fn cancel_launch(context: &Context, identity: &JobIdentity) -> Option<CancelAnswer> {
    let watch = context.in_flight.request_cancel(&identity.job_id)?;
    let note = keep_pending(context, &identity.job_id);
    let failing = || context.in_flight.cancel_error(&identity.job_id);
    let outcome = outcome_within(watch, LAUNCH_WAIT).await;
    let outcome = outcome.or_else(|| failing().map(LaunchOutcome::Unknown));
    Some(match outcome {
        Some(LaunchOutcome::Cancelled(outcome)) => answer_to(identity, Ok(outcome)),
        Some(LaunchOutcome::Unknown(reason)) => CancelAnswer {
            status: status::UNKNOWN.to_owned(),
            ..refused(identity, &JobError::failed(reason))
        },
        Some(LaunchOutcome::Failed(reason)) => {
            let outcome = CancelOutcome::AlreadyFinished {
                status: status::FAILED.to_owned(),
                state: JobState::Failed,
                message: Some(format!("its launch failed: {reason}")),
            };
            answer_to(identity, Ok(outcome))
        }
        // The launch is over; an earlier cancel is in flight.
        _ if !identity.oumi_job_id.is_empty() => {
            let message = format!(
                "an earlier cancel is under way{note}; call poll_status to see the job end"
            );
            accepted(
                identity,
                (status::RUNNING, JobState::Running, false),
                message,
            )
        }
        Some(LaunchOutcome::Launched(_)) | None => {
            let message = format!(
                "the launch is still under way; the job is cancelled as soon as it ends{note}. Call poll_status to see when"
            );
            accepted(
                identity,
                (status::LAUNCHING, JobState::Pending, false),
                message,
            )
        }
    })
}

fn answer_of(identity: &JobIdentity) -> CancelAnswer {
    CancelAnswer {
        job_id: identity.job_id.clone(),
        oumi_job_id: identity.oumi_job_id.clone(),
        cloud: identity.cloud.clone(),
        cluster: identity.cluster.clone(),
        ..CancelAnswer::default()
    }
}

fn refused(identity: &JobIdentity, error: &JobError) -> CancelAnswer {
    CancelAnswer {
        error: Some(error.to_string()),
        ..answer_of(identity)
    }
}

fn accepted(
    identity: &JobIdentity,
    (status, state, is_done): (&str, JobState, bool),
    message: String,
) -> CancelAnswer {
    CancelAnswer {
        success: true,
        status: status.to_owned(),
        state,
        is_done,
        message,
        ..answer_of(identity)
    }
}

fn answer_to(identity: &JobIdentity, outcome: Result<CancelOutcome, JobError>) -> CancelAnswer {
    match outcome {
        Ok(CancelOutcome::Cancelled { message }) => {
            let cancelled = (status::CANCELLED, JobState::Cancelled, true);
            accepted(identity, cancelled, message.unwrap_or_default())
        }
        Ok(CancelOutcome::Stopping { message }) => accepted(
            identity,
            (status::RUNNING, JobState::Running, false),
            message,
        ),
        Ok(CancelOutcome::LeftoversEnded {
            status,
            state,
            processes,
        }) => {
            let message = format!(
                "the processes that it had left ({processes}) were ended; its script had ended before, with status `{status}`"
            );
            accepted(identity, (&status, state, true), message)
        }
        Ok(CancelOutcome::AlreadyFinished {
            status,
            state,
            message,
        }) => {
            if state == JobState::Cancelled {
                return accepted(
                    identity,
                    (&status, state, true),
                    message.unwrap_or_default(),
                );
            }
            let error = format!("the job had already ended, with status `{status}`");
            let error = match message {
                Some(message) => format!("{error}: {message}"),
                None => format!("{error}; there is nothing to cancel"),
            };
            CancelAnswer {
                status,
                state,
                is_done: true,
                ..refused(identity, &JobError::failed(error))
            }
        }
        Err(error) => {
            let (status, error) = match error.is_not_found() {
                true => (status::NOT_FOUND, error),
                false => (status::UNKNOWN, error.with_hint(MAY_BE_RUNNING)),
            };
            CancelAnswer {
                status: status.to_owned(),
                ..refused(identity, &error)
            }
        }
    }
}
