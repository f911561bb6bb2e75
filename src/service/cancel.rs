//! `cancel_job`, `stop_cluster` and `down_cluster`: each ends jobs, and goes on when nobody waits for it any more.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::answers::{CancelAnswer, ClusterAnswer};
use super::consent::Change;
use super::launches::{self, MAY_BE_RUNNING, clear_pending_cancel, outcome_within};
use super::lookup::ResolvedJob;
use super::poll::poll;
use super::requests::{CancelRequest, DownRequest, StopRequest};
use super::sanitize::sanitize;
use super::{Context, JobService, LAUNCH_WAIT, STATUS_WAIT};
use crate::error::{ErrorKind, JobError, Result};
use crate::in_flight::LaunchOutcome;
use crate::launcher::{ClusterAction, JobIdentity, JobState, JobStatus, status};
use crate::process::on_file_threads;
use crate::process::runner::{in_budget, until};
use crate::redact::Redactor;
use crate::registry::JobRecord;

/// The wait of a call for a cancel, or for a cluster to be stopped or deleted.
const CHANGE_WAIT: Duration = Duration::from_secs(30);
const DOWN_CONFIRMATION: &str = "DOWN";

impl JobService {
    /// Cancels a job, and polls one that is cancelled, to report how far it came.
    pub(crate) async fn cancel(&self, request: CancelRequest) -> CancelAnswer {
        let context = &self.context;
        let mut job = JobIdentity::of(&request.job.job_id);
        // All that is asked before the cancel shares one time budget.
        let outcome = in_budget(self.try_cancel(request, &mut job)).await;
        let mut answer = answer(job.clone(), outcome);
        if answer.success && answer.state == JobState::Cancelled {
            let now = until(Instant::now() + STATUS_WAIT, poll(context, job.shortest())).await;
            if now.state == JobState::Cancelled {
                (answer.output_dir, answer.last_checkpoint) = (now.output_dir, now.last_checkpoint);
                answer.message = match answer.message.trim_end_matches('.') {
                    "" => format!("{}. {}", now.message, now.next),
                    more => format!("{}; {more}. {}", now.message, now.next),
                };
            } else if answer.message.is_empty() {
                // A poll finds nothing of the job any more.
                answer.message = "the job was cancelled".to_owned();
            }
        }
        answer.cloud = context.cloud_name(&answer.cloud);
        let job_id = answer.job_id.clone();
        context.sanitize(answer, &job_id)
    }

    /// Cancels the job that is asked for, and writes down which one that is.
    async fn try_cancel(
        &self,
        request: CancelRequest,
        meant: &mut JobIdentity,
    ) -> Result<JobStatus> {
        let (context, force) = (&self.context, request.force);
        let job = launches::resolve(context, &request.job).await?;
        meant.clone_from(&job.identity);
        context.policy.check(&meant.cloud)?;
        if context.in_flight.contains(&meant.job_id) {
            self.report("the launch is under way; the job is cancelled as soon as it ends");
        }
        if let Some(outcome) = cancel_in_flight(context, meant, force).await? {
            return Ok(outcome);
        }
        // The launch may have ended since the lookup: then the launcher's id is recorded only now.
        let ResolvedJob { identity, record } = launches::reload(context, job).await;
        meant.clone_from(&identity);
        let mut named = identity;
        if self.can_ask()
            && let Ok(launcher) = context.launcher(&named.cloud)
            && !launcher.is_certain(&named).await
        {
            // The launcher's id may be another job's by now: the user is asked about that job.
            named.job_id.clear();
        }
        if record.is_none() || named.job_id.is_empty() {
            let change = Change {
                question: "Cancel this job? It was not started by this server, nor by another one with this data folder.",
                of: &named,
                launching: "",
                consequence: "What it computed and did not save is lost.",
            };
            self.confirm(&change).await?;
        }
        self.report("asking the job to end");
        let outcome = cancel_by_launcher(context, &named, force).await;
        outcome.map_err(|error| match error.kind {
            ErrorKind::NotFound => error,
            // Whatever kind of error the launcher gives, the job may run on.
            _ => JobError {
                kind: ErrorKind::Failed,
                ..error
            },
        })
    }

    pub(crate) async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        let stopped = self.teardown(ClusterAction::Stop, &request).await;
        self.cluster_answer(request, stopped).await
    }

    pub(crate) async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        let deleted = if request.confirm && request.user_confirmation == DOWN_CONFIRMATION {
            self.teardown(ClusterAction::Down, &request.cluster).await
        } else {
            Err(JobError::blocked(format!(
                "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
                 user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
            )))
        };
        self.cluster_answer(request.cluster, deleted).await
    }

    async fn cluster_answer(&self, request: StopRequest, done: Result<String>) -> ClusterAnswer {
        let cluster_name = request.cluster_name;
        let redactors = self.cluster_redactors(&cluster_name).await;
        let answer = ClusterAnswer {
            success: done.is_ok(),
            cloud: self.context.cloud_of_call(&request.cloud),
            cluster_name,
            error: done.as_ref().err().map(ToString::to_string),
            message: done.unwrap_or_default(),
        };
        sanitize(answer, &redactors)
    }

    /// Returns what hides the secrets of the jobs on a cluster: its launcher may quote those of any.
    pub(super) async fn cluster_redactors(&self, cluster: &str) -> Vec<Redactor> {
        let records = self.context.registry.records().await.unwrap_or_default();
        let on_it = records.iter().filter(|job| job.cluster_name == cluster);
        let redactors = on_it.map(|job| self.context.redactor(&job.job_id));
        redactors.chain([Redactor::default()]).collect()
    }

    async fn teardown(&self, action: ClusterAction, request: &StopRequest) -> Result<String> {
        let context = &self.context;
        let cloud = context.cloud_of_call(&request.cloud);
        let cluster = request.cluster_name.clone();
        let launcher = Arc::clone(context.allowed_launcher(&cloud)?);
        if !launcher.ends_clusters() {
            let error = format!("nothing was done: no cluster of {cloud} can be ended from here");
            return Err(JobError::failed(error).with_hint("cancel_job ends a job"));
        }
        // The jobs whose launches onto it are under way, in this server or another one.
        let records = context.registry.records().await?;
        let is_meant = |job: &&JobRecord| job.cluster_name == cluster && context.is_launching(job);
        let launching = records.iter().filter(is_meant);
        let launching: Vec<&str> = launching.map(|job| job.job_id.as_str()).collect();
        let launching = launching.join(", ");
        let (question, consequence) = match action {
            ClusterAction::Stop => (
                "Stop this cluster?",
                "The jobs on it end. Its disks are kept and billed.",
            ),
            ClusterAction::Down => (
                "Delete this cluster?",
                "The jobs on it end, and everything on its disks is lost.",
            ),
        };
        let change = Change {
            question,
            of: &JobIdentity {
                cloud: cloud.clone(),
                cluster: cluster.clone(),
                ..JobIdentity::default()
            },
            launching: &launching,
            consequence,
        };
        self.confirm(&change).await?;
        let work = async move { launcher.teardown_cluster(&cloud, &cluster, action).await };
        let seconds = CHANGE_WAIT.as_secs();
        let pending = format!(
            "the request is not finished after {seconds} s and goes on, even without this server: list_jobs will tell how it ended"
        );
        let done = run_detached(work, pending).await?;
        Ok(match launching.as_str() {
            "" => done,
            jobs => format!(
                "{done}; the launch of {jobs} onto it was under way: call poll_status to see what came of it"
            ),
        })
    }
}

/// Runs work in a task of its own, which a dropped call does not end. Where it takes longer than [`CHANGE_WAIT`] it goes on, and
/// the result is `pending`.
async fn run_detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    pending: T,
) -> Result<T> {
    let task = tokio::spawn(on_file_threads(work.boxed()));
    match tokio::time::timeout(CHANGE_WAIT, task).await {
        Ok(done) => done.map_err(JobError::failed)?,
        Err(_) => Ok(pending),
    }
}

/// Has the launcher cancel a job. Until that is done it stays pending beside the job, so that the next server repeats it.
async fn cancel_by_launcher(
    context: &Arc<Context>,
    job: &JobIdentity,
    force: bool,
) -> Result<JobStatus> {
    let launcher = Arc::clone(context.launcher(&job.cloud)?);
    // Before the request, so that it survives this server. A job on this machine has the request itself in its folder.
    let note = match launcher.is_local() {
        true => "",
        false => keep_pending(context, &job.job_id),
    };
    let (task_context, task_job) = (Arc::clone(context), job.clone());
    let work = async move {
        let done = launcher.cancel(&task_job, force).await;
        match &done {
            Ok(_) => clear_pending_cancel(&task_context, &task_job.job_id),
            Err(error) => task_context.warn(&task_job.job_id, error, "a cancel failed"),
        }
        done
    };
    let pending = JobStatus::running().with_message(format!(
        "the cancel is not finished after {} s{note}: call poll_status to see the job end",
        CHANGE_WAIT.as_secs()
    ));
    let done = run_detached(work, pending).await;
    // A caller who is answered decides. Where nobody waits any more, the next call about the job repeats it.
    done.inspect_err(|_| clear_pending_cancel(context, &job.job_id))
}

/// Writes a cancel down beside its job, and returns what to say where that cannot be done.
fn keep_pending(context: &Context, job_id: &str) -> &'static str {
    let kept = context.with_job_dir(job_id, |dir| dir.set_pending_cancel());
    if let Err(error) = &kept {
        tracing::warn!(job_id, %error, "cannot write a cancel down");
    }
    // A job without an id of ours has no folder.
    match job_id.is_empty() || kept.is_err() {
        true => ", and it is not repeated if it fails",
        false => "",
    }
}

/// Cancels a launch in flight as soon as it ends, which `force` brings about, and waits for that. `None` where there is none.
async fn cancel_in_flight(
    context: &Context,
    identity: &JobIdentity,
    force: bool,
) -> Result<Option<JobStatus>> {
    let Some(watch) = context.in_flight.request_cancel(&identity.job_id) else {
        return Ok(None);
    };
    let note = keep_pending(context, &identity.job_id);
    let killed = match context.launcher(&identity.cloud) {
        Ok(launcher) if force => launcher.kill_launch(identity).await?,
        _ => None,
    };
    let outcome = outcome_within(watch, LAUNCH_WAIT).await;
    let failing = || context.in_flight.cancel_error(&identity.job_id);
    let status = match outcome.or_else(|| failing().map(LaunchOutcome::Unknown)) {
        Some(LaunchOutcome::Cancelled { job, .. }) => *job,
        Some(LaunchOutcome::Failed(reason)) if killed.is_none() => {
            JobStatus::failed().with_message(format!("its launch failed: {reason}"))
        }
        // A launch that was killed may have left a job all the same.
        Some(LaunchOutcome::Failed(reason) | LaunchOutcome::Unknown(reason)) => {
            return Err(JobError::failed(reason));
        }
        // The launch is over, or that of a job on this machine, which takes a moment.
        _ if !identity.oumi_job_id.is_empty() => JobStatus::running().with_message(format!(
            "the cancel is under way{note}; call poll_status to see the job end"
        )),
        _ => {
            let hint = match force {
                true => "",
                false => "; if it hangs, cancel_job with force=true kills it",
            };
            JobStatus::new(status::LAUNCHING, JobState::Pending, false).with_message(
                killed.unwrap_or_else(|| format!(
                    "the launch is still under way; the job is cancelled as soon as it ends{note}. Call poll_status to see when{hint}"
                )),
            )
        }
    };
    Ok(Some(status))
}

fn answer(job: JobIdentity, outcome: Result<JobStatus>) -> CancelAnswer {
    let mut answer = CancelAnswer {
        job_id: job.job_id,
        oumi_job_id: job.oumi_job_id,
        cloud: job.cloud,
        cluster: job.cluster,
        ..CancelAnswer::default()
    };
    match outcome {
        Ok(job) => {
            let is_cancelled =
                job.state == JobState::Cancelled || job.details.processes_left.is_some();
            answer.success = is_cancelled || !job.is_done;
            if answer.success {
                answer.message = job.message.unwrap_or_default();
            } else {
                let more = job.message.map(|message| format!(": {message}"));
                let more = more.as_deref().unwrap_or("; there is nothing to cancel");
                let status = &job.status;
                let error = format!("the job had already ended, with status `{status}`{more}");
                answer.error = Some(error);
            }
            answer.status = job.status;
            (answer.state, answer.is_done) = (job.state, job.is_done);
        }
        Err(error) => {
            let (status, error) = match error.kind {
                ErrorKind::InvalidArgument | ErrorKind::Blocked => ("", error),
                ErrorKind::NotFound => (status::NOT_FOUND, error),
                _ => {
                    let hint = match error.hint {
                        Some(_) => "until then it may still be running and cost money",
                        None => MAY_BE_RUNNING,
                    };
                    (status::UNKNOWN, error.with_hint(hint))
                }
            };
            answer.status = status.to_owned();
            answer.error = Some(error.to_string());
        }
    }
    answer
}
