//! `poll_status`: a job as its launcher reports it now, with what its log tells beside.

use std::sync::Arc;

use chrono::Utc;
use tokio::time::Instant;

use super::answers::PollAnswer;
use super::context::Context;
use super::launches::Launches;
use super::lookup::{self, ResolvedJob};
use super::next_step;
use super::observe::Observer;
use super::requests::JobQuery;
use crate::error::JobError;
use crate::launcher::{JobStatus, status};

const PENDING_CANCEL: &str = "a cancel is pending: it is sent when the launch has ended, and again at each poll while it fails, \
    unless the server is read-only";

/// Asks launchers about jobs.
pub(super) struct Poller {
    context: Arc<Context>,
    launches: Launches,
    observer: Observer,
}

impl PollAnswer {
    /// Tells if the job does not exist, or no longer.
    pub(crate) fn is_gone(&self) -> bool {
        !self.success && self.status == status::NOT_FOUND
    }

    /// Reports that a job was not found, or that its launcher gave no answer.
    fn failed(self, error: &JobError) -> Self {
        let status = if error.is_not_found() {
            status::NOT_FOUND
        } else {
            status::UNKNOWN
        };
        Self {
            status: status.to_owned(),
            error: Some(error.to_string()),
            next: next_step::next_after(error),
            ..self
        }
    }
}

impl Poller {
    pub(super) fn new(context: Arc<Context>, launches: Launches) -> Self {
        Self {
            observer: Observer::new(Arc::clone(&context)),
            context,
            launches,
        }
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.observer
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Asks the launcher of a job for its status.
    pub(super) async fn poll(&self, query: JobQuery) -> PollAnswer {
        let answer = match lookup::resolve(&self.context, &query).await {
            Ok(job) => self.ask(self.launches.refresh_identity(job).await).await,
            Err(error) => {
                let answer = PollAnswer {
                    job_id: query.job_id,
                    ..PollAnswer::default()
                };
                if error.is_not_found() {
                    answer.failed(&error)
                } else {
                    PollAnswer {
                        error: Some(error.to_string()),
                        ..answer
                    }
                }
            }
        };
        let job_id = answer.job_id.clone();
        self.context.sanitize(answer, &job_id).await
    }

    async fn ask(&self, job: ResolvedJob) -> PollAnswer {
        let identity = &job.identity;
        let answer = identified(&job);
        let launcher = match self.context.allowed_launcher(&identity.cloud) {
            Ok(launcher) => launcher,
            Err(error) => return answer.failed(&error),
        };
        self.observer.prefetch(launcher, identity);
        let asked_at = Instant::now();
        let pending = self.context.has_pending_cancel(&identity.job_id);
        let (status, has_pending_cancel) = tokio::join!(launcher.status(identity), pending);
        let mut status = match status {
            Ok(status) => status,
            Err(error) => return answer.failed(&error),
        };
        if !status.is_done && has_pending_cancel {
            status.warnings.push(PENDING_CANCEL.to_owned());
        }
        let observed = self.observer.observe(launcher, &job, &status, asked_at);
        let observation = observed.await;
        let submitted = job.record.as_ref().and_then(|record| record.submitted_at());
        let age = submitted.and_then(|time| (Utc::now() - time).to_std().ok());
        // While it runs, what is in its folder is not yet what came of it.
        let output = observation.output.as_ref().filter(|_| status.is_done);
        let duration = observation.duration.filter(|_| status.is_done);
        let is_local = launcher.traits().is_local;
        let mut answer = PollAnswer {
            success: true,
            message: next_step::message(&status, &observation),
            next: next_step::next(&status, &observation, age),
            metadata: metadata(&job, &status, is_local),
            status: status.status,
            state: status.state,
            is_done: status.is_done,
            log_file: status.log_file,
            output_dir: output.map_or_else(String::new, |output| output.dir.display().to_string()),
            last_checkpoint: output.and_then(|output| output.checkpoint.clone()),
            duration_seconds: duration.map(|time| time.as_secs()),
            ended_at: status.details.ended_at.take(),
            progress: observation.progress.map(|progress| {
                if status.is_done {
                    progress.at_the_end()
                } else {
                    progress
                }
            }),
            links: observation.links,
            stalled: observation.stalled.map(|stalled| stalled.sentence()),
            failure: observation.failure,
            warnings: status.warnings,
            ..answer
        };
        if is_local {
            answer.leave_out_known();
        }
        answer
    }
}

/// Returns an answer with all that the registry knows of a job.
fn identified(job: &ResolvedJob) -> PollAnswer {
    let record = job.record.clone().unwrap_or_default();
    PollAnswer {
        job_id: job.identity.job_id.clone(),
        oumi_job_id: job.identity.oumi_job_id.clone(),
        command: record.command,
        config_path: record.config_path,
        cloud: job.identity.cloud.clone(),
        cluster: job.identity.cluster.clone(),
        model_name: record.model_name,
        ..PollAnswer::default()
    }
}

fn metadata(
    job: &ResolvedJob,
    status: &JobStatus,
    is_local: bool,
) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = status.details.to_map();
    // That of a job on this machine stands in the answer, once there is something in it.
    if let Some(record) = job.record.as_ref().filter(|_| !is_local) {
        metadata.insert("output_dir".to_owned(), record.output_dir.as_str().into());
    }
    metadata
}
