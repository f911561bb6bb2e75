//! The end of a launch, also of one that was cut off.

use std::time::Duration;

use super::launch_dir::LaunchResult;
use super::{CloudBackend, CloudLauncher};
use crate::error::JobError;
use crate::launcher::JobIdentity;
use crate::process::runner::call_deadline;

/// The first and the longest pause between two searches for the job of an interrupted launch.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl<B: CloudBackend> CloudLauncher<B> {
    /// Waits for the end of a launch. One that was cut off and left no id is looked for by its name on the cluster, until the job is
    /// there or no longer to be expected.
    pub(super) async fn wait_for_job(
        &self,
        identity: &JobIdentity,
    ) -> Result<JobIdentity, JobError> {
        let mut pause = RETRY_MIN;
        loop {
            let may_still_complete = match self.launches.wait(identity).await? {
                LaunchResult::Succeeded(launched) => {
                    // A query that began before does not show the job.
                    self.cli.invalidate();
                    if !B::IDS_RESTART {
                        return Ok(launched);
                    }
                    // While its cluster is certainly its own, it is marked. That decides against what was printed.
                    let (_, facts) = self.survey_job(identity, call_deadline()).await;
                    return Ok(JobIdentity {
                        oumi_job_id: facts
                            .and_then(|facts| facts.oumi_job_id)
                            .unwrap_or(launched.oumi_job_id),
                        ..identity.clone()
                    });
                }
                LaunchResult::Failed(reason) => return Err(JobError::failed(reason)),
                LaunchResult::Cancelled => {
                    return Err(JobError::failed("it was cancelled before it was launched"));
                }
                LaunchResult::Interrupted { .. } if !B::IDS_RESTART => {
                    let error = JobError::failed("its launch was cut off and left no id");
                    return Err(error.with_hint(
                        "call list_jobs: a job that is on the cluster is listed there",
                    ));
                }
                LaunchResult::Interrupted { may_still_complete } => may_still_complete,
            };
            match self.find_launched_job(identity).await {
                Ok(Some(oumi_job_id)) => {
                    return Ok(JobIdentity {
                        oumi_job_id,
                        ..identity.clone()
                    });
                }
                Ok(None) if may_still_complete => {}
                Ok(None) => {
                    let reason = "its launch was cut off before the job was on its cluster";
                    self.launches.record_failure(identity, reason).await?;
                    return Err(JobError::failed(reason));
                }
                Err(error) if may_still_complete => {
                    tracing::warn!(job_id = identity.job_id, %error, "cannot look for the job of an interrupted launch");
                }
                Err(error) => return Err(JobError::unavailable(error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Looks on the cluster for the job of an interrupted launch. `None` only where it is certainly not there.
    async fn find_launched_job(&self, identity: &JobIdentity) -> Result<Option<String>, JobError> {
        let (survey, facts) = self.survey_job(identity, None).await;
        if let Some(id) = facts.as_ref().and_then(|facts| facts.oumi_job_id.clone()) {
            return Ok(Some(id));
        }
        let is_certain = match &facts {
            Some(facts) => {
                let mut jobs = survey.jobs(&identity.cluster).iter();
                facts.start.before.is_some() || !jobs.any(|job| job.job_name == facts.start.name)
            }
            // It never began, unless another version of this server began it.
            None => self.launches.logs(identity).await.is_err(),
        };
        if !is_certain {
            let name = &identity.cluster;
            let error = format!("which job of cluster {name} is this one is not certain");
            return Err(JobError::unavailable(error));
        }
        if facts.is_some() {
            survey.missing_job::<B>(identity, facts.as_ref())?;
        }
        Ok(None)
    }
}
