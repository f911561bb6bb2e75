//! `cancel_job`: cancels a job, or its launch as soon as that has ended.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::answers::{CancelAnswer, JobAnswer};
use super::consent::Consent;
use super::context::Context;
use super::detached::{CHANGE_WAIT, run_detached};
use super::launches::{Launches, MAY_BE_RUNNING, outcome_within};
use super::lookup::{is_certain, resolve};
use super::requests::CancelRequest;
use super::{LAUNCH_WAIT, OnProgress};
use crate::error::JobError;
use crate::in_flight::LaunchOutcome;
use crate::launcher::{CancelOutcome, JobIdentity, JobState, status};

/// Answers `cancel_job`.
#[derive(Clone)]
pub(super) struct Canceller {
    pub(super) context: Arc<Context>,
    pub(super) launches: Launches,
}

impl Canceller {
    pub(super) async fn cancel(
        &self,
        consent: &Consent,
        request: CancelRequest,
        on_progress: OnProgress<'_>,
    ) -> CancelAnswer {
        let mut job = match resolve(&self.context, &request.job).await {
            Ok(job) => job,
            Err(error) => {
                let status = if error.is_not_found() {
                    status::NOT_FOUND
                } else {
                    ""
                };
                return CancelAnswer {
                    job_id: request.job.job_id,
                    status: status.to_owned(),
                    ..CancelAnswer::failure(error.to_string())
                };
            }
        };
        let refused = |identity: &JobIdentity, error: JobError| CancelAnswer {
            error: Some(error.to_string()),
            ..answer_of(identity)
        };
        if let Some(forbidden) = self.context.policy.forbids(&job.identity.cloud) {
            return refused(&job.identity, JobError::blocked(forbidden));
        }
        job = self.launches.refresh_identity(job).await;
        if self.launches.in_flight().contains(&job.identity.job_id) {
            on_progress("the launch is under way; the job is cancelled as soon as it ends");
        }
        if let Some(answer) = self.cancel_launch(&job.identity).await {
            return answer;
        }
        // The launch may have ended since the lookup: then the launcher's id is recorded only now.
        job = self.launches.reload(job).await;
        let identity = job.identity;
        let mut named = identity.clone();
        if !is_certain(&self.context, &identity).await && consent.can_ask() {
            // The user is asked about the job that has the id now.
            named.job_id.clear();
        }
        if (job.record.is_none() || named.job_id.is_empty())
            && self.context.launcher(&identity.cloud).is_ok()
            && let Err(error) = consent.confirm_cancel(&named).await
        {
            return refused(&identity, error.context("nothing was done"));
        }
        on_progress(&format!("asking {} to end the job", identity.cloud));
        let outcome = self.cancel_job(&named, request.force).await;
        answer_to(&identity, outcome)
    }

    /// Has the launcher cancel a job. A cancel that takes too long stays pending beside the job until it is carried out, so
    /// that the next server repeats it should this one end.
    async fn cancel_job(
        &self,
        identity: &JobIdentity,
        force: bool,
    ) -> Result<CancelOutcome, JobError> {
        let launcher = Arc::clone(self.context.launcher(&identity.cloud)?);
        let job = identity.clone();
        // Before the request: a job on this machine has the request in its folder, one on a cloud may outlive the server.
        let note = if launcher.traits().is_local {
            String::new()
        } else {
            self.keep_pending(&identity.job_id).await
        };
        let work = async move { launcher.cancel(&job, force).await };
        match run_detached(work).await {
            Ok(done) => {
                if !identity.job_id.is_empty() {
                    self.launches.clear_pending_cancel(&identity.job_id).await;
                }
                done
            }
            Err(task) => {
                self.finish_in_background(identity.job_id.clone(), task);
                let message = format!(
                    "the cancel is not finished after {} s{note}: call poll_status to see the job end",
                    CHANGE_WAIT.as_secs()
                );
                Ok(CancelOutcome::Stopping { message })
            }
        }
    }

    fn finish_in_background(
        &self,
        job_id: String,
        task: JoinHandle<Result<CancelOutcome, JobError>>,
    ) {
        let launches = self.launches.clone();
        tokio::spawn(async move {
            match task.await {
                Ok(Ok(_)) => launches.clear_pending_cancel(&job_id).await,
                Ok(Err(error)) => {
                    tracing::warn!(job_id, %error, "a cancel failed; the next call about the job repeats it")
                }
                Err(error) => tracing::error!(job_id, %error, "a cancel panicked"),
            }
        });
    }

    /// Writes a cancel down beside its job, and returns what to say where that cannot be done.
    async fn keep_pending(&self, job_id: &str) -> String {
        // A job that this server did not start has no folder here.
        if job_id.is_empty() {
            return ", and it is not repeated if it fails".to_owned();
        }
        let kept = self
            .context
            .with_job_dir(job_id, |dir| dir.set_pending_cancel());
        kept.await.err().map_or_else(String::new, |error| {
            format!(
                ", and it is not repeated if this server ends before, since it could not be written down ({error})"
            )
        })
    }

    /// Requests that a launch in flight be cancelled as soon as it ends, and waits for that up to [`LAUNCH_WAIT`]. `None` when no
    /// launch is in flight.
    async fn cancel_launch(&self, identity: &JobIdentity) -> Option<CancelAnswer> {
        let in_flight = self.launches.in_flight();
        let watch = in_flight.request_cancel(&identity.job_id)?;
        let note = self.keep_pending(&identity.job_id).await;
        let failing = || in_flight.cancel_error(&identity.job_id);
        let outcome = outcome_within(watch, LAUNCH_WAIT)
            .await
            .or_else(|| failing().map(LaunchOutcome::Unknown));
        Some(match outcome {
            Some(LaunchOutcome::Cancelled(outcome)) => answer_to(identity, Ok(outcome)),
            Some(LaunchOutcome::Unknown(reason)) => CancelAnswer {
                status: status::UNKNOWN.to_owned(),
                error: Some(reason),
                ..answer_of(identity)
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
            _ if !identity.oumi_job_id.is_empty() => CancelAnswer {
                success: true,
                status: status::RUNNING.to_owned(),
                state: JobState::Running,
                message: format!(
                    "an earlier cancel is under way{note}; call poll_status to see the job end"
                ),
                ..answer_of(identity)
            },
            Some(LaunchOutcome::Launched(_)) | None => CancelAnswer {
                success: true,
                status: status::LAUNCHING.to_owned(),
                state: JobState::Pending,
                message: format!(
                    "the launch is still under way; the job is cancelled as soon as it ends{note}. Call poll_status to see when"
                ),
                ..answer_of(identity)
            },
        })
    }
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

fn answer_to(identity: &JobIdentity, outcome: Result<CancelOutcome, JobError>) -> CancelAnswer {
    let answer = answer_of(identity);
    match outcome {
        Ok(CancelOutcome::Cancelled { message }) => CancelAnswer {
            success: true,
            status: status::CANCELLED.to_owned(),
            state: JobState::Cancelled,
            is_done: true,
            message: message.unwrap_or_default(),
            ..answer
        },
        Ok(CancelOutcome::Stopping { message }) => CancelAnswer {
            success: true,
            status: status::RUNNING.to_owned(),
            state: JobState::Running,
            message,
            ..answer
        },
        Ok(CancelOutcome::LeftoversEnded {
            status,
            state,
            processes,
        }) => CancelAnswer {
            success: true,
            message: format!(
                "the processes that it had left ({processes}) were ended; its script had ended before, with status `{status}`"
            ),
            status,
            state,
            is_done: true,
            ..answer
        },
        Ok(CancelOutcome::AlreadyFinished {
            state: state @ JobState::Cancelled,
            status,
            message,
        }) => CancelAnswer {
            success: true,
            status,
            state,
            is_done: true,
            message: message.unwrap_or_default(),
            ..answer
        },
        Ok(CancelOutcome::AlreadyFinished {
            status,
            state,
            message,
        }) => {
            let more = message.map_or_else(
                || "; there is nothing to cancel".to_owned(),
                |message| format!(": {message}"),
            );
            CancelAnswer {
                error: Some(format!(
                    "the job had already ended, with status `{status}`{more}"
                )),
                status,
                state,
                is_done: true,
                ..answer
            }
        }
        Err(error) if error.is_not_found() => CancelAnswer {
            status: status::NOT_FOUND.to_owned(),
            error: Some(error.to_string()),
            ..answer
        },
        Err(error) => CancelAnswer {
            status: status::UNKNOWN.to_owned(),
            error: Some(error.with_hint(MAY_BE_RUNNING).to_string()),
            ..answer
        },
    }
}
