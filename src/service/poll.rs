//! `poll_status`: a job as its launcher reports it now, with what its log tells beside.

use std::sync::Arc;

use chrono::Utc;
use tokio::time::Instant;

use super::answers::{JobAnswer, PollAnswer};
use super::context::Context;
use super::launches::Launches;
use super::lookup::{self, ResolvedJob};
use super::next_step;
use super::observe::{Observation, Observer};
use super::requests::JobQuery;
use crate::error::JobError;
use crate::launcher::{JobStatus, status};
use crate::process::on_file_threads;

const PENDING_CANCEL: &str = "a cancel is pending: it is sent when the launch has ended, and again at each poll while it fails, \
    unless the server is read-only";
/// The most bytes of an answer about a failed job, as far as what it quotes of the log can be cut.
const MAX_FAILED: usize = 700;

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

    /// Cuts what it quotes of the log of a failed job, so that all of it is short: the log has the rest.
    fn fit(&mut self) {
        let length = |part: serde_json::Result<serde_json::Value>| {
            part.map_or(0, |part| part.to_string().len())
        };
        let whole = length(self.to_json());
        if let Some(failure) = &mut self.failure {
            let room = MAX_FAILED.saturating_sub(whole - failure.quoted());
            failure.cut_quotes(room);
        }
    }

    /// Reports that a job was not found, or that its launcher gave no answer.
    fn failed(self, error: &JobError) -> Self {
        let (status, next) = if error.is_not_found() {
            // The error says it.
            (status::NOT_FOUND, String::new())
        } else {
            (status::UNKNOWN, next_step::next_after(error))
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

    pub(super) fn observer(&self) -> &Observer {
        &self.observer
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Asks the launcher of a job for its status.
    pub(super) async fn poll(self: &Arc<Self>, query: JobQuery) -> PollAnswer {
        let poller = Arc::clone(self);
        on_file_threads(async move { poller.poll_here(query).await }).await
    }

    async fn poll_here(&self, query: JobQuery) -> PollAnswer {
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
        let traits = self.context.traits(&identity.cloud);
        let answer = PollAnswer {
            job_id: identity.job_id.clone(),
            oumi_job_id: identity.oumi_job_id.clone(),
            cloud: if traits.is_local {
                String::new()
            } else {
                identity.cloud.clone()
            },
            cluster: identity.cluster.clone(),
            poll_interval: traits.poll_interval,
            ..PollAnswer::default()
        };
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
        answered(answer, &job, status, observation)
    }
}

/// Completes the answer about a job with its status, and with what was observed beside it.
fn answered(
    answer: PollAnswer,
    job: &ResolvedJob,
    mut status: JobStatus,
    observation: Observation,
) -> PollAnswer {
    let submitted = job.record.as_ref().and_then(|record| record.submitted_at());
    let age = submitted.and_then(|time| (Utc::now() - time).to_std().ok());
    // While it runs, what is in its folder is not yet what came of it.
    let output = observation.output.as_ref().filter(|_| status.is_done);
    let has_failure = observation.failure.is_some();
    // Of a failed job the message says how long it took, and how far it came.
    let duration = observation
        .duration
        .filter(|_| status.is_done && !has_failure);
    let mut answer = PollAnswer {
        success: true,
        message: next_step::message(&status, &observation),
        next: next_step::next(&status, &observation, age),
        metadata: metadata(job, &status, answer.cloud.is_empty()),
        status: status.status,
        state: status.state,
        is_done: status.is_done,
        output_dir: output.map_or_else(String::new, |output| output.dir.display().to_string()),
        last_checkpoint: output.and_then(|output| output.checkpoint.clone()),
        hourly_price: status.details.hourly_price,
        spent: status.details.spent.take(),
        duration_seconds: duration.map(|time| time.as_secs()),
        ended_at: status.details.ended_at.take(),
        progress: match observation.progress {
            Some(_) if has_failure => None,
            Some(progress) if status.is_done => Some(progress.at_the_end()),
            progress => progress,
        },
        links: observation.links,
        stalled: observation.stalled.map(|stalled| stalled.sentence()),
        failure: observation.failure,
        warnings: status.warnings,
        ..answer
    };
    answer.fit();
    answer
}

fn metadata(
    job: &ResolvedJob,
    status: &JobStatus,
    is_local: bool,
) -> serde_json::Map<String, serde_json::Value> {
    let mut metadata = status.details.to_map();
    if metadata
        .get("job_name")
        .is_some_and(|name| *name == job.identity.job_id)
    {
        metadata.remove("job_name");
    }
    // That of a job on this machine stands in the answer, once there is something in it.
    if let Some(record) = job.record.as_ref().filter(|_| !is_local && status.is_done) {
        metadata.insert("output_dir".to_owned(), record.output_dir.as_str().into());
    }
    metadata
}
