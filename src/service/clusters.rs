//! `stop_cluster` and `down_cluster`.

use std::sync::Arc;

use super::answers::{ClusterAnswer, JobAnswer};
use super::consent::Consent;
use super::context::Context;
use super::requests::{DownRequest, StopRequest};
use super::sanitize::sanitize;
use super::{CHANGE_WAIT, JobService, run_detached};
use crate::error::JobError;
use crate::launcher::ClusterAction;
use crate::redact::Redactor;

/// The value that `user_confirmation` must have for a cluster to be deleted.
const DOWN_CONFIRMATION: &str = "DOWN";

impl JobService {
    /// Stops a cluster; its disks are kept.
    pub(crate) async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        let StopRequest {
            cloud,
            cluster_name,
        } = request;
        self.teardown(ClusterAction::Stop, &cloud, cluster_name)
            .await
    }

    /// Deletes a cluster, once the user has agreed.
    pub(crate) async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        let name = request.cluster_name;
        if request.confirm && request.user_confirmation == DOWN_CONFIRMATION {
            return self
                .teardown(ClusterAction::Down, &request.cloud, name)
                .await;
        }
        let error = format!(
            "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
             user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
        );
        let answer = ClusterAnswer {
            cloud: request.cloud,
            cluster_name: name,
            ..ClusterAnswer::failure(error)
        };
        sanitize(answer, &[Redactor::default()])
    }

    async fn teardown(&self, action: ClusterAction, cloud: &str, name: String) -> ClusterAnswer {
        let context = &self.context;
        let cloud = cloud.trim().to_lowercase();
        let result = try_teardown(context, &self.consent, action, (&cloud, &name)).await;
        let answer = ClusterAnswer {
            success: result.is_ok(),
            cloud,
            error: result.as_ref().err().map(ToString::to_string),
            message: result.unwrap_or_default(),
            cluster_name: name,
        };
        // Its launcher may quote the secrets of any job on it.
        let records = context.registry.records().await.unwrap_or_default();
        let on_it = records.iter();
        let on_it = on_it.filter(|record| record.cluster_name == answer.cluster_name);
        let redactors = on_it.map(|record| context.redactor(&record.job_id));
        let mut redactors: Vec<Redactor> = redactors.collect();
        redactors.push(Redactor::default());
        sanitize(answer, &redactors)
    }
}

async fn try_teardown(
    context: &Arc<Context>,
    consent: &Consent,
    action: ClusterAction,
    (cloud, cluster): (&str, &str),
) -> Result<String, JobError> {
    let launcher = Arc::clone(context.allowed_launcher(cloud)?);
    // The jobs whose launches onto it are under way, in this server or another one.
    let records = context.registry.records().await?;
    let launching = records.iter();
    let launching =
        launching.filter(|job| job.cluster_name == cluster && context.is_launching(job));
    let launching: Vec<&str> = launching.map(|job| job.job_id.as_str()).collect();
    let launching = launching.join(", ");
    let confirmed = consent.confirm_teardown(action, (cloud, cluster), &launching);
    let confirmed = confirmed.await;
    confirmed.map_err(|error| error.context("nothing was done"))?;
    let (cloud, cluster) = (cloud.to_owned(), cluster.to_owned());
    let work = async move {
        let done = launcher.teardown_cluster(&cloud, &cluster, action).await;
        done.inspect_err(|error| tracing::warn!(cluster, %error, "a change of a cluster failed"))
    };
    let done = run_detached(work).await.unwrap_or_else(|| {
        Ok(format!(
            "the request is not finished after {} s and goes on, also without this server: list_jobs tells how it ended",
            CHANGE_WAIT.as_secs()
        ))
    })?;
    Ok(match launching.as_str() {
        "" => done,
        jobs => format!(
            "{done}; the launch of {jobs} onto it was under way: call poll_status to see what came of it"
        ),
    })
}
