//! Consent: asks the user before something is started or ended that costs money. The server knows how the user is reached.

use std::time::Duration;

use async_trait::async_trait;

use super::prepare::PreparedLaunch;
use super::{JobService, OnProgress, consent_prompt};
use crate::error::{JobError, Result};
use crate::launcher::{ClusterInfo, check_cloud};
use crate::settings::env_vars;
use crate::settings::policy::AskPerson;

/// The wait for SkyPilot's description of a cluster, which the prompt shows.
const CLUSTER_INFO_WAIT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(crate) struct ConsentPrompt {
    /// Everything the user needs to decide, in lines.
    pub(crate) text: String,
    /// Names what the user agrees to: the id of a plan, or a change in words. Consent to one is none to another.
    pub(crate) subject: String,
}

/// A change that the user is asked about: a job that this server did not start is cancelled, or a cluster stopped or deleted.
pub(super) struct Change<'a> {
    pub(super) question: &'static str,
    /// The launcher's id of the job; empty for a cluster.
    pub(super) job: &'a str,
    pub(super) cloud: &'a str,
    pub(super) cluster: &'a str,
    /// The jobs that are being launched onto the cluster.
    pub(super) launching: &'a str,
    pub(super) consequence: &'static str,
}

/// The way to the user of one call.
#[async_trait]
pub(crate) trait ConsentProvider: Send + Sync {
    /// Returns `false` where the client has no way to ask its user.
    fn can_ask(&self) -> bool;

    /// Asks and waits. Returns the subject the user agreed to, which an earlier call may have asked about.
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<String>;
}

impl JobService {
    pub(super) fn can_ask(&self) -> bool {
        self.provider.is_some()
    }

    /// Asks before a change, where the user can be reached; elsewhere the arguments of the call must do.
    pub(super) async fn confirm(&self, change: &Change<'_>) -> Result<()> {
        let asking = async {
            let info = self.cluster_info(change.cloud, change.cluster).await?;
            if let Some(info) = &info {
                let clouds = self.context.launcher(change.cloud)?.clouds();
                check_cloud(&info.name, info.cloud.as_deref(), change.cloud, clouds)?;
            }
            let Some(provider) = &self.provider else {
                return Ok(());
            };
            let prompt = consent_prompt::change(change, info.as_ref());
            if provider.ask(&prompt).await? == prompt.subject {
                return Ok(());
            }
            Err(JobError::blocked("the user agreed to something else")
                .with_hint("call the tool again, so that the user is asked again"))
        };
        let asked: Result<()> = asking.await;
        asked.map_err(|error| error.context("nothing was done"))
    }

    /// Describes a cluster, where a prompt or the policy needs that. Fails where the policy forbids the cloud that the cluster
    /// is really on: the launcher goes by its name alone, whatever cloud the call gives.
    pub(super) async fn cluster_info(
        &self,
        cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>> {
        let policy = &self.context.policy;
        let launcher = self.context.allowed_launcher(cloud)?;
        let is_limited = policy.clouds.is_some();
        if cluster.is_empty() || !(is_limited || self.can_ask()) {
            return Ok(None);
        }
        let describing = launcher.clusters(Some(cluster));
        let described = tokio::time::timeout(CLUSTER_INFO_WAIT, describing).await;
        let described = described.unwrap_or_else(|_| {
            let waited = CLUSTER_INFO_WAIT.as_secs();
            let error = format!("the cloud of cluster {cluster} was not found within {waited} s");
            Err(JobError::unavailable(error).with_hint("try again"))
        });
        if !is_limited {
            return Ok(described.ok().and_then(|found| found.into_iter().next()));
        }
        let Some(info) = described?.into_iter().next() else {
            return Ok(None);
        };
        let forbidden = match &info.cloud {
            Some(found) => policy.forbids(found),
            None => Some(format!(
                "the cloud of cluster {cluster} is not known, and not every cloud may be used"
            )),
        };
        forbidden.map_or(Ok(Some(info)), |reason| Err(JobError::blocked(reason)))
    }

    /// Asks the user where the policy wants that, and returns the plan that they agreed to, perhaps minutes ago. The launch was
    /// checked against the dry run that `plan_id` names.
    pub(super) async fn confirm_launch(
        &self,
        launch: &mut PreparedLaunch,
        plan_id: &str,
        on_progress: OnProgress<'_>,
    ) -> Result<Option<String>> {
        let asks_always = self.context.policy.ask == AskPerson::Always;
        if launch.is_local && !asks_always {
            return Ok(None);
        }
        let Some(provider) = &self.provider else {
            if plan_id.is_empty() && asks_always {
                let variable = env_vars::CONSENT;
                let error = format!("{variable}=always, and this client cannot ask its user");
                return Err(JobError::blocked(error).with_hint(
                    "call run_job with dry_run=true, show that to the user, and give its plan_id",
                ));
            }
            if plan_id.is_empty() {
                let warning =
                    "no plan_id was given: whether the user saw this job could not be checked";
                launch.plan.warnings.push(warning.to_owned());
            }
            return Ok(None);
        };
        let identity = &launch.spec.identity;
        let info = self
            .cluster_info(&identity.cloud, &identity.cluster)
            .await?;
        let plan_id = self.context.plans.insert(launch);
        let mut prompt = consent_prompt::launch(launch, info.as_ref(), plan_id);
        prompt.text = launch.redactor().redact(&prompt.text);
        on_progress("waiting for the user to agree");
        provider.ask(&prompt).await.map(Some)
    }
}
