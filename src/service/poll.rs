//! How a job is, as its launcher says now.

use super::JobService;
use super::answers::{JobAnswer, PollAnswer};
use super::find::NotFound;
use super::requests::JobQuery;
use crate::launcher::{JobState, JobStatus, LauncherError};

/// The status of a job that there is not, and of one whose launcher could not be asked.
const NOT_FOUND: &str = "not_found";
const NOT_ASKED: &str = "unknown";

impl PollAnswer {
    /// There is no such job, or no more.
    pub fn is_gone(&self) -> bool {
        !self.success && self.status == NOT_FOUND
    }

    /// There is such a job, but what runs it could not be asked now.
    pub fn is_unanswered(&self) -> bool {
        !self.success && self.status == NOT_ASKED
    }
}

impl JobService {
    /// How a job is.
    pub async fn poll(&self, query: JobQuery) -> PollAnswer {
        let found = match self.find(&query).await {
            Ok(found) => self.settled(found).await,
            Err(NotFound::Unknown(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    status: NOT_FOUND.to_owned(),
                    ..PollAnswer::failure(error)
                };
            }
            Err(NotFound::Failed(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    ..PollAnswer::failure(error)
                };
            }
        };
        let record = found.record.clone().unwrap_or_default();
        let known = PollAnswer {
            job_id: found.identity.job_id.clone(),
            oumi_job_id: found.identity.oumi_job_id.clone(),
            command: record.command,
            config_path: record.config_path,
            cloud: found.identity.cloud.clone(),
            cluster: found.identity.cluster.clone(),
            model_name: record.model_name,
            ..PollAnswer::default()
        };
        let asked = match self.launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.status(&found.identity).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let secrets = self.secrets(&found.identity.job_id).await;
        match asked {
            Ok(mut status) => {
                if !status.is_done && self.is_cancel_kept(&found.identity.job_id).await {
                    status.warnings.push(
                        "a cancel was asked for and is not carried out yet: that is done when the launch has ended, and \
                         tried again at each look while it fails"
                            .to_owned(),
                    );
                }
                let mut metadata = status.metadata.clone();
                for (key, value) in [
                    ("submit_time", record.submit_time),
                    ("output_dir", record.output_dir),
                ] {
                    if !value.is_empty() {
                        metadata.insert(key.to_owned(), value.into());
                    }
                }
                PollAnswer {
                    success: true,
                    message: secrets.hide(&next_step(&status)),
                    status: status.status,
                    state: status.state,
                    is_done: status.is_done,
                    log_file: status.log_file,
                    warnings: status
                        .warnings
                        .iter()
                        .map(|warning| secrets.hide(warning))
                        .collect(),
                    metadata,
                    ..known
                }
            }
            Err(error) => {
                let status = if matches!(error, LauncherError::NotFound(_)) {
                    NOT_FOUND
                } else {
                    NOT_ASKED
                };
                PollAnswer {
                    status: status.to_owned(),
                    error: Some(secrets.hide(&error.to_string())),
                    ..known
                }
            }
        }
    }
}

/// What is known beside a status, and what to do next.
pub(super) fn next_step(status: &JobStatus) -> String {
    let next = match status.state {
        JobState::Pending | JobState::Running => {
            "Call poll_status again later; get_job_logs shows what it says."
        }
        JobState::Succeeded => "get_job_logs shows what it said.",
        JobState::Failed => "Call get_job_logs to see why.",
        JobState::Cancelled => "Nothing of it runs any more.",
        JobState::Unknown if status.is_done => "Call get_job_logs to see how far it came.",
        JobState::Unknown => "Call poll_status again later.",
    };
    match &status.message {
        Some(message) => format!("{}. {next}", message.trim_end_matches('.')),
        None => next.to_owned(),
    }
}
