//! How a job is, as its launcher says now, or once something has changed.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::answers::{JobAnswer, PollAnswer};
use super::lookup::resolve;
use super::requests::{JobQuery, PollRequest, Until};
use super::sanitize::sanitize;
use super::watch::{is_same, is_same_state};
use super::{JobService, OnProgress, next_step};
use crate::launcher::status;
use crate::registry::JobRecord;

/// The longest a poll may wait, in seconds: many clients give a call up after a minute.
const LONGEST_WAIT: u64 = 55;

impl PollAnswer {
    /// There is no such job, or no more.
    pub fn is_gone(&self) -> bool {
        !self.success && self.status == status::NOT_FOUND
    }

    /// There is such a job, but what runs it could not be asked now.
    pub fn is_unanswered(&self) -> bool {
        !self.success && self.status == status::UNKNOWN
    }
}

impl JobService {
    /// Asks what runs a job how it is now.
    pub async fn poll(&self, query: JobQuery) -> PollAnswer {
        let answer = self.ask(query).await;
        let job_id = answer.job_id.clone();
        self.context.sanitize(answer, &job_id).await
    }

    async fn ask(&self, query: JobQuery) -> PollAnswer {
        let found = match resolve(&self.context, &query).await {
            Ok(found) => self.launches.refresh_identity(found).await,
            Err(error) if error.is_not_found() => {
                return PollAnswer {
                    job_id: query.job_id,
                    status: status::NOT_FOUND.to_owned(),
                    next: next_step::LOST.to_owned(),
                    ..PollAnswer::failure(error.to_string())
                };
            }
            Err(error) => {
                return PollAnswer {
                    job_id: query.job_id,
                    ..PollAnswer::failure(error.to_string())
                };
            }
        };
        let of_record = |field: fn(&JobRecord) -> &String| {
            found
                .record
                .as_ref()
                .map(field)
                .cloned()
                .unwrap_or_default()
        };
        let known = PollAnswer {
            job_id: found.identity.job_id.clone(),
            oumi_job_id: found.identity.oumi_job_id.clone(),
            command: of_record(|record| &record.command),
            config_path: of_record(|record| &record.config_path),
            cloud: found.identity.cloud.clone(),
            cluster: found.identity.cluster.clone(),
            model_name: of_record(|record| &record.model_name),
            ..PollAnswer::default()
        };
        let launcher = match self.context.allowed_launcher(&found.identity.cloud) {
            Ok(launcher) => launcher,
            Err(error) => return not_asked(known, error.to_string()),
        };
        // Beside the question for the status, and not after it.
        let insight = self.inner.insights.of(&found.identity);
        insight.ask_for_cloud_log(launcher, &found.identity);
        let begun = Instant::now();
        let asked = launcher.status(&found.identity).await;
        let mut status = match asked {
            Ok(status) => status,
            Err(error) if error.is_not_found() => {
                return PollAnswer {
                    status: status::NOT_FOUND.to_owned(),
                    error: Some(error.to_string()),
                    next: next_step::LOST.to_owned(),
                    ..known
                };
            }
            Err(error) => return not_asked(known, error.to_string()),
        };
        if !status.is_done
            && self
                .context
                .has_pending_cancel(&found.identity.job_id)
                .await
        {
            status.warnings.push(
                "a cancel was asked for and is not carried out yet: that is done when the launch has ended, and \
                 tried again at each look while it fails"
                    .to_owned(),
            );
        }
        let told = self.told(&found, launcher, &status, begun).await;
        let record = found.record.unwrap_or_default();
        let age = age_of(&record.submit_time);
        let mut metadata = status.details.to_map();
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
            message: next_step::message(&status, told.progress.as_ref()),
            next: next_step::next(&status, &told, age),
            status: status.status,
            state: status.state,
            is_done: status.is_done,
            log_file: status.log_file,
            progress: told.progress,
            stalled: told.stalled.map(|stalled| stalled.sentence()),
            failure: told.failure,
            warnings: status.warnings,
            metadata,
            ..known
        }
    }

    /// How a job is once something has changed, or it has ended, or the time is up, whichever comes first. The first look
    /// is made at once. `tell` hears how the job is meanwhile.
    pub async fn poll_until(&self, request: PollRequest, tell: OnProgress<'_>) -> PollAnswer {
        let begun = Instant::now();
        let wait = request.wait_seconds;
        if wait > LONGEST_WAIT {
            let error = format!(
                "`wait_seconds` is 0 to {LONGEST_WAIT}, not {wait}; call again with {LONGEST_WAIT}, as often as needed"
            );
            let answer = PollAnswer {
                job_id: request.job_id,
                ..PollAnswer::failure(error)
            };
            return sanitize(answer, &[]);
        }
        let first = self.poll(JobQuery::from(&request)).await;
        if wait == 0 || !first.success || first.is_done {
            return first;
        }
        let first = Arc::new(first);
        tell(&first.message);
        let mut watch = self.watch_on(Arc::clone(&first), begun);
        let awaited = |look: &PollAnswer| match request.until {
            Until::Change => !is_same_state(look, &first),
            Until::Progress => !is_same(look, &first),
        };
        let waiting = async {
            while !awaited(&watch.now()) {
                let Some(look) = watch.next().await else {
                    break;
                };
                tell(&look.message);
            }
        };
        // From the beginning of the call: the first look may have taken long, and clients wait for no more than a minute.
        let deadline = begun + Duration::from_secs(wait);
        let _ = tokio::time::timeout_at(deadline, waiting).await;
        (*watch.now()).clone()
    }
}

fn not_asked(known: PollAnswer, error: String) -> PollAnswer {
    PollAnswer {
        status: status::UNKNOWN.to_owned(),
        error: Some(error),
        next: next_step::NOT_ASKED.to_owned(),
        ..known
    }
}

/// How long ago a job was submitted.
pub(super) fn age_of(submit_time: &str) -> Option<Duration> {
    let submitted = DateTime::parse_from_rfc3339(submit_time).ok()?;
    (Utc::now() - submitted.to_utc()).to_std().ok()
}
