//! What ends things: a job, a launch under way, a cluster.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::answers::{CancelAnswer, ClusterAnswer, JobAnswer};
use super::consent_prompt::{cancel_question, cluster_question};
use super::launches::{MAY_RUN, outcome_within};
use super::lookup::NotFound;
use super::requests::{CancelRequest, DownRequest, JobQuery, StopRequest};
use super::sanitize::sanitize;
use super::{JobService, LAUNCH_WAIT, OnProgress};
use crate::error::JobError;
use crate::in_flight::LaunchOutcome;
use crate::launcher::{CancelOutcome, ClusterAction, JobIdentity, JobState, status};
use crate::redact::Redactor;

/// How long a call waits for a change that what runs the job is asked for.
const CHANGE_WAIT: Duration = Duration::from_secs(30);
/// What `user_confirmation` must be for a cluster to be deleted.
const DOWN_CONFIRMATION: &str = "DOWN";

impl JobService {
    /// Ends a job.
    pub async fn cancel(&self, request: CancelRequest) -> CancelAnswer {
        self.cancel_told(request, &|_| {}).await
    }

    /// The same. `tell` hears what is waited for.
    pub async fn cancel_told(&self, request: CancelRequest, tell: OnProgress<'_>) -> CancelAnswer {
        let answer = self.answer_cancel(request, tell).await;
        let job_id = answer.job_id.clone();
        self.context.sanitize(answer, &job_id).await
    }

    async fn answer_cancel(&self, request: CancelRequest, tell: OnProgress<'_>) -> CancelAnswer {
        let found = match self.find(&JobQuery::from(&request)).await {
            Ok(found) => found,
            Err(NotFound::Unknown(error)) => {
                return CancelAnswer {
                    job_id: request.job_id,
                    status: status::NOT_FOUND.to_owned(),
                    ..CancelAnswer::failure(error)
                };
            }
            Err(NotFound::Failed(error)) => {
                return CancelAnswer {
                    job_id: request.job_id,
                    ..CancelAnswer::failure(error)
                };
            }
        };
        if let Some(forbidden) = self.context.policy.forbids(&found.identity.cloud) {
            return CancelAnswer {
                error: Some(forbidden),
                ..cancel_answer(&found.identity)
            };
        }
        let found = self.launches.refresh_identity(found).await;
        if self.launches.in_flight().contains(&found.identity.job_id) {
            tell("the launch is under way; the job is cancelled as soon as it ends");
        }
        if let Some(answer) = self.cancel_launch(&found.identity).await {
            return answer;
        }
        // The launch may have ended since the job was looked up: then its id is recorded only now.
        let found = self.launches.reload(found).await;
        let launcher = match self.context.launcher(&found.identity.cloud) {
            Ok(launcher) if found.record.is_none() => {
                match self.agreed_to_cancel(&found.identity).await {
                    Ok(()) => Ok(launcher),
                    Err(error) => {
                        return CancelAnswer {
                            error: Some(error),
                            ..cancel_answer(&found.identity)
                        };
                    }
                }
            }
            launcher => launcher,
        };
        tell(&format!("asking {} to end the job", found.identity.cloud));
        let outcome = match launcher {
            Ok(launcher) => {
                let (launcher, identity) = (launcher.clone(), found.identity.clone());
                let force = request.force;
                let cancelling =
                    tokio::spawn(async move { launcher.cancel(&identity, force).await });
                self.cancel_within_the_call(&found.identity.job_id, cancelling)
                    .await
            }
            Err(error) => Err(JobError::failed(error)),
        };
        let outcome = outcome.map_err(|error| {
            if error.is_not_found() {
                error
            } else {
                error.with_hint(MAY_RUN)
            }
        });
        cancelled(&found.identity, outcome)
    }

    /// Asks the person before a job is cancelled that was not started here.
    async fn agreed_to_cancel(&self, identity: &JobIdentity) -> Result<(), String> {
        let facts = self
            .facts(&identity.cloud, &identity.cluster)
            .await
            .map_err(not_done)?;
        self.agreed(&cancel_question(identity, facts.as_ref()))
            .await
    }

    async fn agreed_to_change(
        &self,
        action: ClusterAction,
        cloud: &str,
        cluster: &str,
    ) -> Result<(), String> {
        self.context.allowed_launcher(cloud)?;
        let facts = self.facts(cloud, cluster).await.map_err(not_done)?;
        self.agreed(&cluster_question(action, cloud, cluster, facts.as_ref()))
            .await
    }

    /// Waits for a cancel as long as a call can. One that goes on after that is kept beside the job until it is carried out:
    /// it was promised, and the next server is to honour it if this one ends.
    async fn cancel_within_the_call(
        &self,
        job_id: &str,
        mut cancelling: JoinHandle<Result<CancelOutcome, JobError>>,
    ) -> Result<CancelOutcome, JobError> {
        if let Ok(done) = tokio::time::timeout(CHANGE_WAIT, &mut cancelling).await {
            return done.map_err(JobError::failed)?;
        }
        let kept = self
            .context
            .with_job_dir(job_id, |dir| dir.set_pending_cancel());
        let at_risk = kept.await.err().map_or_else(String::new, |error| {
            format!("; it is lost if this server ends before, since it could not be written down ({error})")
        });
        let (service, job_id) = (self.clone(), job_id.to_owned());
        tokio::spawn(async move {
            match cancelling.await {
                Ok(Ok(_)) => service.launches.clear_pending_cancel(&job_id).await,
                Ok(Err(error)) => {
                    tracing::warn!(job_id, %error, "a cancel failed; it is tried again at the next look")
                }
                Err(error) => tracing::error!(job_id, %error, "a cancel broke"),
            }
        });
        Ok(CancelOutcome::Stopping {
            message: format!(
                "what runs the job has not answered within {} s, and the cancel goes on{at_risk}: call poll_status to see \
                 the job end",
                CHANGE_WAIT.as_secs()
            ),
        })
    }

    /// Stops a cluster; its disks are kept.
    pub async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        self.teardown_cluster(&request.cloud, request.cluster_name, ClusterAction::Stop)
            .await
    }

    /// Deletes a cluster, once the person has agreed.
    pub async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        if !request.confirm || request.user_confirmation != DOWN_CONFIRMATION {
            let error = format!(
                "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
                 user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
            );
            let answer = ClusterAnswer {
                cloud: request.cloud,
                cluster_name: request.cluster_name,
                ..ClusterAnswer::failure(error)
            };
            return sanitize(answer, &[]);
        }
        self.teardown_cluster(&request.cloud, request.cluster_name, ClusterAction::Down)
            .await
    }

    async fn teardown_cluster(
        &self,
        cloud: &str,
        cluster_name: String,
        action: ClusterAction,
    ) -> ClusterAnswer {
        let cloud = cloud.trim().to_lowercase();
        let agreed = self.agreed_to_change(action, &cloud, &cluster_name).await;
        let changed = match agreed.and_then(|()| self.context.allowed_launcher(&cloud)) {
            Ok(launcher) => {
                let (launcher, on, cluster) =
                    (launcher.clone(), cloud.clone(), cluster_name.clone());
                let still = format!(
                    "it has not ended within {} s and goes on: call list_jobs to see what became of the cluster",
                    CHANGE_WAIT.as_secs()
                );
                patiently(
                    async move { launcher.teardown_cluster(&on, &cluster, action).await },
                    still,
                )
                .await
            }
            Err(error) => Err(JobError::failed(error)),
        };
        // What the launcher says of a cluster may quote the jobs that were started on it.
        let records = self.context.registry.records().await.unwrap_or_default();
        let on_it = records
            .into_iter()
            .filter(|record| record.cluster_name == cluster_name);
        let mut redactors = self
            .context
            .redactors(on_it.map(|record| record.job_id))
            .await;
        redactors.push(Redactor::default());
        let answer = ClusterAnswer {
            cloud,
            cluster_name,
            ..ClusterAnswer::default()
        };
        let answer = match changed {
            Ok(message) => ClusterAnswer {
                success: true,
                message,
                ..answer
            },
            Err(error) => ClusterAnswer {
                error: Some(error.to_string()),
                ..answer
            },
        };
        sanitize(answer, &redactors)
    }

    /// Asks that a launch under way be cancelled as soon as it ends, and waits for that a while. Nothing when none is.
    async fn cancel_launch(&self, identity: &JobIdentity) -> Option<CancelAnswer> {
        let watch = self.launches.in_flight().request_cancel(&identity.job_id)?;
        // Beside the launch as well, so that the next server honours it if this one dies.
        let kept = self
            .context
            .with_job_dir(&identity.job_id, |dir| dir.set_pending_cancel())
            .await;
        let at_risk = kept.err().map_or_else(String::new, |error| {
            format!("; it could not be written down ({error}) and is forgotten should this server end before")
        });
        let failing = || self.launches.in_flight().cancel_error(&identity.job_id);
        let outcome = outcome_within(watch, LAUNCH_WAIT)
            .await
            .or_else(|| failing().map(LaunchOutcome::MayRun));
        Some(match outcome {
            Some(LaunchOutcome::Cancelled(outcome)) => cancelled(identity, Ok(outcome)),
            Some(LaunchOutcome::MayRun(reason)) => {
                cancelled(identity, Err(JobError::failed(reason)))
            }
            Some(LaunchOutcome::Failed(reason)) => cancelled(
                identity,
                Ok(CancelOutcome::AlreadyFinished {
                    status: status::FAILED.to_owned(),
                    state: JobState::Failed,
                    message: Some(format!("its launch failed: {reason}")),
                }),
            ),
            // Its launch is over; what is under way is a cancel that was asked for before.
            _ if !identity.oumi_job_id.is_empty() => CancelAnswer {
                success: true,
                status: status::RUNNING.to_owned(),
                state: JobState::Running,
                message: format!(
                    "a cancel that was asked for before goes on{at_risk}; call poll_status to see the job end"
                ),
                ..cancel_answer(identity)
            },
            Some(LaunchOutcome::Launched(_)) | None => CancelAnswer {
                success: true,
                status: status::LAUNCHING.to_owned(),
                state: JobState::Pending,
                message: format!(
                    "the launch is still under way; the job will be cancelled as soon as it ends{at_risk}. Call poll_status \
                     to see when"
                ),
                ..cancel_answer(identity)
            },
        })
    }
}

fn not_done(reason: String) -> String {
    format!("nothing was done: {reason}")
}

/// Has work done that goes on when its caller has waited long enough; `still` is what is answered then.
async fn patiently<T: Send + 'static>(
    work: impl Future<Output = Result<T, JobError>> + Send + 'static,
    still: T,
) -> Result<T, JobError> {
    let mut working = tokio::spawn(work);
    match tokio::time::timeout(CHANGE_WAIT, &mut working).await {
        Ok(done) => done.map_err(JobError::failed)?,
        Err(_) => {
            tokio::spawn(async move {
                if let Ok(Err(error)) = working.await {
                    tracing::warn!(%error, "what was left going on has failed");
                }
            });
            Ok(still)
        }
    }
}

fn cancel_answer(identity: &JobIdentity) -> CancelAnswer {
    CancelAnswer {
        job_id: identity.job_id.clone(),
        oumi_job_id: identity.oumi_job_id.clone(),
        cloud: identity.cloud.clone(),
        cluster: identity.cluster.clone(),
        ..CancelAnswer::default()
    }
}

fn cancelled(identity: &JobIdentity, outcome: Result<CancelOutcome, JobError>) -> CancelAnswer {
    let answer = cancel_answer(identity);
    match outcome {
        Ok(CancelOutcome::Cancelled { message }) => CancelAnswer {
            success: true,
            status: status::CANCELLED.to_owned(),
            state: JobState::Cancelled,
            is_done: true,
            message: message
                .unwrap_or_else(|| "the job was cancelled; nothing of it runs any more".to_owned()),
            ..answer
        },
        Ok(CancelOutcome::Stopping { message }) => CancelAnswer {
            success: true,
            status: status::RUNNING.to_owned(),
            state: JobState::Running,
            message,
            ..answer
        },
        Ok(CancelOutcome::AlreadyFinished {
            status,
            state,
            message,
        }) => {
            let error = match message {
                Some(message) => {
                    format!("the job had already ended, with status `{status}`: {message}")
                }
                None => format!(
                    "the job had already ended, with status `{status}`; there is nothing to cancel"
                ),
            };
            CancelAnswer {
                status,
                state,
                is_done: true,
                error: Some(error),
                ..answer
            }
        }
        Err(error) => {
            let status = if error.is_not_found() {
                status::NOT_FOUND
            } else {
                status::UNKNOWN
            };
            CancelAnswer {
                status: status.to_owned(),
                error: Some(error.to_string()),
                ..answer
            }
        }
    }
}
