//! What ends things on SkyPilot's clouds: a job, a cluster.

use std::time::Duration;

use super::{DEADLINE, SkyPilotLauncher};
use crate::error::{ErrorKind, JobError};
use crate::launcher::{CancelOutcome, ClusterAction, JobIdentity, JobState, JobStatus};
use crate::parse;
use crate::parse::sky::{self as printed, TeardownResult};

/// How long stopping or deleting a cluster may take.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(900);

impl SkyPilotLauncher {
    pub(super) async fn cancel_job(
        &self,
        identity: JobIdentity,
    ) -> Result<CancelOutcome, JobError> {
        if identity.oumi_job_id.is_empty() {
            return self.launch.cancel(&identity).await;
        }
        match self.status_of(&identity, None).await {
            Ok(before) if before.is_done => return Ok(already_done(before)),
            Err(error)
                if matches!(error.kind, ErrorKind::NotFound | ErrorKind::ProgramNotFound) =>
            {
                return Err(error);
            }
            // Who cannot be asked can still be told to stop.
            Ok(_) | Err(_) => {}
        }
        let arguments = ["cancel", "-y", &identity.cluster, &identity.oumi_job_id];
        let output = self
            .cli
            .run(&self.call(&arguments, DEADLINE)?)
            .await
            .map_err(JobError::failed)?;
        let accepted = printed::accepted_cancel(&format!("{}\n{}", output.stdout, output.stderr));
        // The exit code is 0 whatever happened: how the job is afterwards is what counts.
        let after = self.status_of(&identity, None).await;
        match (after, accepted) {
            (Ok(after), _) if after.state == JobState::Cancelled => Ok(CancelOutcome::Cancelled {
                message: after
                    .warnings
                    .first()
                    .map(|said| format!("the job was cancelled; {said}")),
            }),
            (Ok(after), _) if after.is_done => Ok(already_done(after)),
            (_, true) => Ok(CancelOutcome::Stopping {
                message: "SkyPilot has taken the cancel; call poll_status to see the job end"
                    .to_owned(),
            }),
            (Ok(after), _) => Err(JobError::failed(format!(
                "SkyPilot did not cancel the job, which is {}: {}; call cancel_job again, or down_cluster to delete cluster {}",
                after.status,
                parse::last_line(&output.stdout).unwrap_or_default(),
                identity.cluster
            ))),
            (Err(error), _) => Err(error),
        }
    }

    pub(super) async fn change(
        &self,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String, JobError> {
        let verb = match action {
            ClusterAction::Stop => "stop",
            ClusterAction::Down => "down",
        };
        let call = self.call(&[verb, "-y", cluster], CLUSTER_DEADLINE)?;
        let output = self.cli.run(&call).await.map_err(JobError::failed)?;
        let said = match printed::teardown(&format!("{}\n{}", output.stdout, output.stderr)) {
            TeardownResult::ClusterNotFound => {
                return Err(JobError::not_found(format!(
                    "SkyPilot knows no cluster {cluster:?}; call list_jobs for the clusters it knows"
                )));
            }
            TeardownResult::CannotStop(reason) => {
                return Err(JobError::failed(format!(
                    "cluster {cluster} cannot be stopped: {reason}; call down_cluster to delete it"
                )));
            }
            TeardownResult::Done => "done".to_owned(),
            TeardownResult::Failed(reason) => reason,
        };
        // Again it is the state afterwards that counts.
        let clusters = self.clusters(None).await?;
        let now = clusters
            .iter()
            .find(|known| known.name == cluster)
            .map(|known| known.status.as_str());
        match (action, now) {
            (ClusterAction::Down, None) => Ok(format!("cluster {cluster} was deleted")),
            (ClusterAction::Stop, Some("STOPPED")) => Ok(format!(
                "cluster {cluster} was stopped; its disks are kept and cost a little"
            )),
            (ClusterAction::Stop, None) => Ok(format!("cluster {cluster} is gone")),
            (_, Some(status)) => Err(JobError::failed(format!(
                "`sky {verb}` ended and cluster {cluster} is {status}: {said}; see list_jobs, and try again"
            ))),
        }
    }
}

fn already_done(status: JobStatus) -> CancelOutcome {
    let message = status
        .message
        .or_else(|| status.warnings.into_iter().next());
    CancelOutcome::AlreadyFinished {
        status: status.status,
        state: status.state,
        message,
    }
}
