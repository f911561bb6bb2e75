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
        let (status, next) = if error.is_not_found() {
            (status::NOT_FOUND, next_step::AFTER_NOT_FOUND.to_owned())
        } else {
            (status::UNKNOWN, next_step::after_error(error))
        };
        Self {
            status: status.to_owned(),
            error: Some(error.to_string()),
            next,
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
        let mut status = match launcher.status(identity).await {
            Ok(status) => status,
            Err(error) => return answer.failed(&error),
        };
        if !status.is_done && self.context.has_pending_cancel(&identity.job_id).await {
            status.warnings.push(
                "a cancel is pending: it is sent when the launch has ended, and again at each poll while it fails"
                    .to_owned(),
            );
        }
        let observed = self.observer.observe(launcher, &job, &status, asked_at);
        let observation = observed.await;
        let submitted = job.record.as_ref().and_then(|record| record.submitted_at());
        let age = submitted.and_then(|time| (Utc::now() - time).to_std().ok());
        PollAnswer {
            success: true,
            message: next_step::message(&status, observation.progress.as_ref()),
            next: next_step::next(&status, &observation, age),
            metadata: metadata(&job, &status),
            status: status.status,
            state: status.state,
            is_done: status.is_done,
            log_file: status.log_file,
            progress: observation.progress,
            stalled: observation.stalled.map(|stalled| stalled.sentence()),
            failure: observation.failure,
            warnings: status.warnings,
            ..answer
        }
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

fn metadata(job: &ResolvedJob, status: &JobStatus) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = status.details.to_map();
    if let Some(record) = &job.record {
        for (key, value) in [
            ("submit_time", &record.submit_time),
            ("output_dir", &record.output_dir),
        ] {
            if !value.is_empty() {
                metadata.insert(key.to_owned(), value.as_str().into());
            }
        }
    }
    metadata
}
