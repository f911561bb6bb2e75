//! `stop_cluster` and `down_cluster`.

use std::sync::Arc;

use super::answers::ClusterAnswer;
use super::consent::Change;
use super::requests::{DownRequest, StopRequest};
use super::sanitize::sanitize;
use super::{CHANGE_WAIT, JobService, run_detached};
use crate::error::{JobError, Result};
use crate::launcher::ClusterAction;
use crate::redact::Redactor;

/// The value that `user_confirmation` must have for a cluster to be deleted.
const DOWN_CONFIRMATION: &str = "DOWN";

impl JobService {
    /// Stops a cluster; its disks are kept.
    pub(crate) async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        let cloud = request.cloud.trim().to_lowercase();
        let change = self.teardown(ClusterAction::Stop, &cloud, &request.cluster_name);
        let done = change.await;
        self.answer(cloud, request.cluster_name, done).await
    }

    /// Deletes a cluster, once the user has agreed.
    pub(crate) async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        let cloud = request.cloud.trim().to_lowercase();
        let done = if request.confirm && request.user_confirmation == DOWN_CONFIRMATION {
            let change = self.teardown(ClusterAction::Down, &cloud, &request.cluster_name);
            change.await
        } else {
            Err(JobError::blocked(format!(
                "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
                 user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
            )))
        };
        self.answer(cloud, request.cluster_name, done).await
    }

    async fn answer(
        &self,
        cloud: String,
        cluster_name: String,
        done: Result<String>,
    ) -> ClusterAnswer {
        // Its launcher may quote the secrets of any job on it.
        let records = self.context.registry.records().await.unwrap_or_default();
        let on_it = records.iter();
        let on_it = on_it.filter(|record| record.cluster_name == cluster_name);
        let redactors = on_it.map(|record| self.context.redactor(&record.job_id));
        let redactors: Vec<Redactor> = redactors.chain([Redactor::default()]).collect();
        let answer = ClusterAnswer {
            success: done.is_ok(),
            cloud,
            cluster_name,
            error: done.as_ref().err().map(ToString::to_string),
            message: done.unwrap_or_default(),
        };
        sanitize(answer, &redactors)
    }

    async fn teardown(&self, action: ClusterAction, cloud: &str, cluster: &str) -> Result<String> {
        let context = &self.context;
        let launcher = Arc::clone(context.allowed_launcher(cloud)?);
        // The jobs whose launches onto it are under way, in this server or another one.
        let records = context.registry.records().await?;
        let launching = records.iter();
        let launching =
            launching.filter(|job| job.cluster_name == cluster && context.is_launching(job));
        let launching: Vec<&str> = launching.map(|job| job.job_id.as_str()).collect();
        let launching = launching.join(", ");
        let (question, consequence) = match action {
            ClusterAction::Stop => (
                "Stop this cluster?",
                "The jobs on it end. Its disks are kept and cost a little.",
            ),
            ClusterAction::Down => (
                "Delete this cluster?",
                "The jobs on it end, and everything on its disks is lost.",
            ),
        };
        let change = Change {
            question,
            job: "",
            cloud,
            cluster,
            launching: &launching,
            consequence,
        };
        self.confirm(&change).await?;
        let (cloud, cluster) = (cloud.to_owned(), cluster.to_owned());
        let work = async move {
            let done = launcher.teardown_cluster(&cloud, &cluster, action).await;
            done.inspect_err(
                |error| tracing::warn!(cluster, %error, "a change of a cluster failed"),
            )
        };
        let done = match run_detached(work).await {
            Some(done) => done?,
            None => format!(
                "the request is not finished after {} s and goes on, also without this server: list_jobs tells how it ended",
                CHANGE_WAIT.as_secs()
            ),
        };
        Ok(match launching.as_str() {
            "" => done,
            jobs => format!(
                "{done}; the launch of {jobs} onto it was under way: call poll_status to see what came of it"
            ),
        })
    }
}
