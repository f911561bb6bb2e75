//! `stop_cluster` and `down_cluster`.

use std::sync::Arc;

use super::answers::{ClusterAnswer, JobAnswer};
use super::consent::Consent;
use super::context::Context;
use super::detached::{CHANGE_WAIT, run_detached};
use super::requests::{DownRequest, StopRequest};
use crate::error::JobError;
use crate::launcher::ClusterAction;

/// The value that `user_confirmation` must have for a cluster to be deleted.
const DOWN_CONFIRMATION: &str = "DOWN";

/// Stops a cluster; its disks are kept.
pub(super) async fn stop(
    context: &Context,
    consent: &Consent,
    request: StopRequest,
) -> ClusterAnswer {
    let StopRequest {
        cloud,
        cluster_name,
    } = request;
    teardown(context, consent, ClusterAction::Stop, &cloud, cluster_name).await
}

/// Deletes a cluster.
pub(super) async fn down(
    context: &Context,
    consent: &Consent,
    request: DownRequest,
) -> ClusterAnswer {
    let DownRequest {
        cloud,
        cluster_name,
        ..
    } = request;
    if !request.confirm || request.user_confirmation != DOWN_CONFIRMATION {
        let error = format!(
            "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
             user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
        );
        return ClusterAnswer {
            cloud,
            cluster_name,
            ..ClusterAnswer::failure(error)
        };
    }
    teardown(context, consent, ClusterAction::Down, &cloud, cluster_name).await
}

async fn teardown(
    context: &Context,
    consent: &Consent,
    action: ClusterAction,
    cloud: &str,
    cluster_name: String,
) -> ClusterAnswer {
    let cloud = cloud.trim().to_lowercase();
    let result = try_teardown(context, consent, action, &cloud, &cluster_name).await;
    ClusterAnswer {
        success: result.is_ok(),
        cloud,
        cluster_name,
        error: result.as_ref().err().map(ToString::to_string),
        message: result.unwrap_or_default(),
    }
}

async fn try_teardown(
    context: &Context,
    consent: &Consent,
    action: ClusterAction,
    cloud: &str,
    cluster: &str,
) -> Result<String, JobError> {
    let launcher = Arc::clone(context.allowed_launcher(cloud)?);
    let launching = launches_onto(context, cluster).await?;
    let confirmed = consent
        .confirm_teardown(action, cloud, cluster, &launching)
        .await;
    confirmed.map_err(|error| error.context("nothing was done"))?;
    let (on, name) = (cloud.to_owned(), cluster.to_owned());
    let work = async move { launcher.teardown_cluster(&on, &name, action).await };
    let done = match run_detached(work).await {
        Ok(done) => done?,
        Err(task) => {
            let cluster = cluster.to_owned();
            tokio::spawn(async move {
                if let Ok(Err(error)) = task.await {
                    tracing::warn!(cluster, %error, "a change of a cluster failed after its call was answered");
                }
            });
            format!(
                "the request is not finished after {} s and goes on, also without this server: list_jobs tells how it ended",
                CHANGE_WAIT.as_secs()
            )
        }
    };
    Ok(match launching.as_slice() {
        [] => done,
        jobs => format!(
            "{done}; the launch of {} onto it was under way: call poll_status to see what came of it",
            jobs.join(", ")
        ),
    })
}

/// Lists the jobs whose launches onto a cluster are under way, in this server or another one.
async fn launches_onto(context: &Context, cluster: &str) -> Result<Vec<String>, JobError> {
    let mut jobs = context.registry.records().await?;
    jobs.retain(|record| record.cluster_name == cluster);
    let jobs = context.launching(jobs).await?.into_iter();
    Ok(jobs.map(|record| record.job_id).collect())
}
