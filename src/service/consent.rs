//! Consent: asks the user before something is started or ended that costs money. The server knows how the user is reached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::OnProgress;
use super::consent_prompt;
use super::context::Context;
use super::plan_cache::PlanCache;
use super::prepare::PreparedLaunch;
use crate::error::JobError;
use crate::launcher::{ClusterAction, ClusterInfo, JobIdentity};
use crate::settings::env_vars;
use crate::settings::policy::AskPerson;

/// The wait for SkyPilot's description of a cluster, which the prompt shows.
const CLUSTER_INFO_WAIT: Duration = Duration::from_secs(15);

/// The thing that a user agrees to. Consent to one is none to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConsentSubject {
    /// The plan with this id is launched.
    Launch { plan_id: String },
    /// A job that this server did not start is cancelled.
    Cancel {
        oumi_job_id: String,
        cloud: String,
        cluster: String,
    },
    /// A cluster is stopped.
    Stop { cloud: String, cluster: String },
    /// A cluster is deleted.
    Down { cloud: String, cluster: String },
}

/// A question to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsentPrompt {
    /// Everything the user needs to decide, in lines.
    pub(crate) text: String,
    pub(crate) subject: ConsentSubject,
}

/// The way to the user of one call.
#[async_trait]
pub(crate) trait ConsentProvider: Send + Sync {
    /// Returns `false` where the client has no way to ask its user.
    fn can_ask(&self) -> bool;

    /// Asks and waits. Returns the subject the user agreed to, which an earlier call may have asked about.
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<ConsentSubject, JobError>;
}

/// The consent that a launch has.
pub(super) enum LaunchConsent {
    /// Launch it as it is prepared, with this warning.
    NotAsked { warning: Option<&'static str> },
    /// The user agreed to this plan, perhaps minutes ago: prepare the launch again and check it.
    Given { plan_id: String },
}

#[derive(Clone)]
pub(super) struct Consent {
    context: Arc<Context>,
    plans: Arc<PlanCache>,
    /// `None` where nobody is asked.
    provider: Option<Arc<dyn ConsentProvider>>,
}

impl Consent {
    pub(super) fn new(context: Arc<Context>, plans: Arc<PlanCache>) -> Self {
        Self {
            context,
            plans,
            provider: None,
        }
    }

    /// Asks through `provider`, unless the policy wants nobody asked.
    pub(super) fn with_provider(&self, provider: Arc<dyn ConsentProvider>) -> Self {
        let is_asked = self.context.policy.ask != AskPerson::Never && provider.can_ask();
        Self {
            provider: is_asked.then_some(provider),
            ..self.clone()
        }
    }

    /// Asks before a job is cancelled that this server did not start.
    pub(super) async fn confirm_cancel(&self, job: &JobIdentity) -> Result<(), JobError> {
        let info = self.cluster_info(&job.cloud, &job.cluster).await?;
        self.confirm(&consent_prompt::cancel(job, info.as_ref()))
            .await
    }

    /// Asks before a cluster is stopped or deleted, onto which these jobs are being launched.
    pub(super) async fn confirm_teardown(
        &self,
        action: ClusterAction,
        cloud: &str,
        cluster: &str,
        launching: &[String],
    ) -> Result<(), JobError> {
        let info = self.cluster_info(cloud, cluster).await?;
        let prompt = consent_prompt::teardown(action, cloud, cluster, info.as_ref(), launching);
        self.confirm(&prompt).await
    }

    pub(super) fn can_ask(&self) -> bool {
        self.provider.is_some()
    }

    /// Asks where the user can be reached; elsewhere the arguments of the call must do.
    async fn confirm(&self, prompt: &ConsentPrompt) -> Result<(), JobError> {
        match &self.provider {
            None => return Ok(()),
            Some(provider) if provider.ask(prompt).await? == prompt.subject => return Ok(()),
            Some(_) => {}
        }
        Err(JobError::blocked("the user agreed to something else")
            .with_hint("call the tool again, so that the user is asked again"))
    }

    /// Describes a cluster, where a prompt or the policy needs that. Fails where the policy forbids the cloud that the cluster
    /// is really on: the launcher goes by its name alone, whatever cloud the call gives.
    async fn cluster_info(
        &self,
        cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>, JobError> {
        let launcher = self.context.allowed_launcher(cloud)?;
        let is_limited = self.context.policy.clouds.is_some();
        if !is_limited && self.provider.is_none() {
            return Ok(None);
        }
        let describing = launcher.describe_cluster(cloud, cluster);
        let described = tokio::time::timeout(CLUSTER_INFO_WAIT, describing).await;
        let described = described.unwrap_or_else(|_| {
            let waited = CLUSTER_INFO_WAIT.as_secs();
            let error = format!("the cloud of cluster {cluster} was not found within {waited} s");
            Err(JobError::unavailable(error).with_hint("try again"))
        });
        if !is_limited {
            return Ok(described.unwrap_or_default());
        }
        let Some(info) = described? else {
            return Ok(None);
        };
        let forbidden = match &info.cloud {
            Some(found) => self.context.policy.forbids(found),
            None => Some(format!(
                "the cloud of cluster {cluster} is not known, and not every cloud may be used"
            )),
        };
        forbidden.map_or(Ok(Some(info)), |reason| Err(JobError::blocked(reason)))
    }

    /// Fails where the policy forbids the cloud that the cluster of a launch is on.
    pub(super) async fn check_cluster(&self, launch: &PreparedLaunch) -> Result<(), JobError> {
        let JobIdentity { cloud, cluster, .. } = &launch.spec.identity;
        let is_limited = self.context.policy.clouds.is_some();
        if is_limited && !cluster.is_empty() && self.context.traits(cloud).costs_money {
            self.cluster_info(cloud, cluster).await?;
        }
        Ok(())
    }

    /// Asks the user where the policy wants that. The launch was checked against the dry run that `plan_id` names.
    pub(super) async fn confirm_launch(
        &self,
        launch: &PreparedLaunch,
        plan_id: &str,
        on_progress: OnProgress<'_>,
    ) -> Result<LaunchConsent, JobError> {
        let has_plan_id = !plan_id.is_empty();
        let identity = &launch.spec.identity;
        let asks_always = self.context.policy.ask == AskPerson::Always;
        let costs_money = self.context.traits(&identity.cloud).costs_money;
        if !costs_money && !asks_always {
            return Ok(LaunchConsent::NotAsked { warning: None });
        }
        let Some(provider) = &self.provider else {
            if asks_always && !has_plan_id {
                let variable = env_vars::CONSENT;
                let error = format!("{variable}=always, and this client cannot ask its user");
                return Err(JobError::blocked(error).with_hint(
                    "call run_job with dry_run=true, show that to the user, and give its plan_id",
                ));
            }
            let warning =
                "no plan_id was given: whether the user saw this job could not be checked";
            return Ok(LaunchConsent::NotAsked {
                warning: (!has_plan_id).then_some(warning),
            });
        };
        let info = if identity.cluster.is_empty() {
            None
        } else {
            self.cluster_info(&identity.cloud, &identity.cluster)
                .await?
        };
        let plan_id = self.plans.insert(launch);
        let subject = ConsentSubject::Launch { plan_id };
        let mut prompt = consent_prompt::launch(launch, info.as_ref(), subject);
        prompt.text = launch.redactor().redact(&prompt.text);
        on_progress("waiting for the user to agree");
        match provider.ask(&prompt).await? {
            ConsentSubject::Launch { plan_id } => Ok(LaunchConsent::Given { plan_id }),
            _ => Err(JobError::blocked("the user agreed to something else")),
        }
    }
}
