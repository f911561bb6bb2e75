//! The end of a launch, also of one that was cut off.

use std::time::Duration;

use super::launch_dir::LaunchFacts;
use super::survey::{Found, Survey, SurveyedJob};
use super::{CloudBackend, CloudLauncher};
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobState};
use crate::parse::sky::QueuedJob;
use crate::process::runner::call_deadline;

/// The first and the longest pause between two searches for the job of an interrupted launch.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl<B: CloudBackend> CloudLauncher<B> {
    /// Waits for the end of a launch. The job of one that was cut off and left no id is looked for by its name on the cluster,
    /// until it is there or no longer to be expected.
    pub(super) async fn wait_for_job(
        &self,
        identity: &JobIdentity,
    ) -> Result<JobIdentity, JobError> {
        let launched = |oumi_job_id| JobIdentity {
            oumi_job_id,
            ..identity.clone()
        };
        let mut pause = RETRY_MIN;
        loop {
            let launch = self.launches.wait(identity).await?;
            let status = launch.status(B::IDS_RESTART);
            let printed = launch.facts.oumi_job_id;
            match (status.state, &printed) {
                (JobState::Cancelled, _) => {
                    return Err(JobError::failed("it was cancelled before it was launched"));
                }
                (JobState::Failed, _) => {
                    return Err(JobError::failed(status.message.unwrap_or_default()));
                }
                (_, Some(id)) if !B::IDS_RESTART => return Ok(launched(id.clone())),
                (_, None) if !B::IDS_RESTART => {
                    let error = JobError::failed("its launch was cut off and left no id");
                    return Err(error.with_hint(
                        "call list_jobs: a job that is on the cluster is listed there",
                    ));
                }
                _ => {}
            }
            let may_still_complete = status.state == JobState::Pending;
            if printed.is_some() {
                // A query that began before does not show the job.
                self.cli.invalidate();
            }
            // While its cluster is certainly its own, the job is marked. That decides against what was printed.
            // The programs have timeouts of their own; a launch that printed its id need not wait for them.
            let deadline = printed.as_ref().and_then(|_| call_deadline());
            let (survey, facts) = self.survey_job(identity, deadline).await;
            let found = facts.as_ref().and_then(|facts| facts.oumi_job_id.clone());
            if let Some(id) = found.or(printed) {
                return Ok(launched(id));
            }
            match self.check_is_missing(identity, &survey, facts.as_ref()) {
                Ok(()) if !may_still_complete => {
                    let reason = "its launch was cut off before the job was on its cluster";
                    self.launches.record_failure(identity, reason)?;
                    return Err(JobError::failed(reason));
                }
                Err(error) if !may_still_complete => return Err(JobError::unavailable(error)),
                Err(error) => {
                    tracing::warn!(job_id = identity.job_id, %error, "cannot look for the job of an interrupted launch");
                }
                Ok(()) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Fails where the job of an interrupted launch may be on its cluster all the same.
    fn check_is_missing(
        &self,
        identity: &JobIdentity,
        survey: &Survey,
        facts: Option<&LaunchFacts>,
    ) -> Result<(), JobError> {
        match facts {
            Some(facts) => check_is_not_listed(&survey.job(identity, Some(facts)), facts),
            None => match self.launches.logs(identity) {
                // It never began.
                Err(error) if error.is_not_found() => Ok(()),
                _ => Err(JobError::unavailable(
                    "what its launch did could not be read",
                )),
            },
        }
    }
}

/// Fails where the job of a launch may be on its cluster.
fn check_is_not_listed(job: &SurveyedJob<'_>, facts: &LaunchFacts) -> Result<(), JobError> {
    let cluster = &job.identity.cluster;
    let has_its_name = |row: &QueuedJob| row.job_name == facts.start.name;
    if facts.start.before.is_none() && job.survey.jobs(cluster).iter().any(has_its_name) {
        let error = format!("which job of cluster {cluster} is this one is not certain");
        return Err(JobError::unavailable(error));
    }
    match job.find() {
        Found::NotListed => Ok(()),
        _ => match job.status()? {
            status if status.is_done => Ok(()),
            status => Err(JobError::unavailable(status.message.unwrap_or_default())),
        },
    }
}
