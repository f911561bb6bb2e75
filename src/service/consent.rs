//! Consent: asks the user before something is started or ended that costs money. The server knows how the user is reached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::OnProgress;
use super::consent_prompt;
use super::context::Context;
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
    /// A job that this server did not start is cancelled, or a cluster stopped or deleted: in words, with all names.
    Change(String),
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

/// The way to the user of a call, as far as the policy wants it gone.
#[derive(Clone)]
pub(super) struct Consent {
    context: Arc<Context>,
    /// `None` where nobody is asked.
    provider: Option<Arc<dyn ConsentProvider>>,
}

impl Consent {
    pub(super) fn of_nobody(context: Arc<Context>) -> Self {
        Self {
            context,
            provider: None,
        }
    }

    /// Asks through `provider`, unless the policy wants nobody asked.
    pub(super) fn with_provider(&self, provider: Arc<dyn ConsentProvider>) -> Self {
        let is_asked = self.context.policy.ask != AskPerson::Never && provider.can_ask();
        Self {
            context: Arc::clone(&self.context),
            provider: is_asked.then_some(provider),
        }
    }

    pub(super) fn can_ask(&self) -> bool {
        self.provider.is_some()
    }

    /// Asks before a job is cancelled that this server did not start.
    pub(super) async fn confirm_cancel(&self, job: &JobIdentity) -> Result<(), JobError> {
        let info = self.cluster_info(&job.cloud, &job.cluster).await?;
        let prompt = consent_prompt::cancel(job, info.as_ref());
        self.confirm(&prompt).await
    }

    /// Asks before a cluster is stopped or deleted, onto which these jobs are being launched.
    pub(super) async fn confirm_teardown(
        &self,
        action: ClusterAction,
        (cloud, cluster): (&str, &str),
        launching: &str,
    ) -> Result<(), JobError> {
        let info = self.cluster_info(cloud, cluster).await?;
        let prompt = consent_prompt::teardown(action, (cloud, cluster), info.as_ref(), launching);
        self.confirm(&prompt).await
    }

    /// Asks where the user can be reached; elsewhere the arguments of the call must do.
    async fn confirm(&self, prompt: &ConsentPrompt) -> Result<(), JobError> {
        match &self.provider {
            Some(provider) if provider.ask(prompt).await? != prompt.subject => {
                Err(agreed_to_another())
            }
            _ => Ok(()),
        }
    }

    /// Describes a cluster, where a prompt or the policy needs that. Fails where the policy forbids the cloud that the cluster
    /// is really on: the launcher goes by its name alone, whatever cloud the call gives.
    async fn cluster_info(
        &self,
        cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>, JobError> {
        let policy = &self.context.policy;
        let launcher = self.context.allowed_launcher(cloud)?;
        let is_limited = policy.clouds.is_some();
        if cluster.is_empty() || (!is_limited && self.provider.is_none()) {
            return Ok(None);
        }
        let describing = launcher.clusters(Some(cluster));
        let described = tokio::time::timeout(CLUSTER_INFO_WAIT, describing).await;
        if !is_limited {
            let found = described.ok().and_then(Result::ok);
            return Ok(found.and_then(|mut found| found.pop()));
        }
        let described = described.map_err(|_| {
            let waited = CLUSTER_INFO_WAIT.as_secs();
            let error = format!("the cloud of cluster {cluster} was not found within {waited} s");
            JobError::unavailable(error).with_hint("try again")
        })?;
        let Some(info) = described?.pop() else {
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

    /// Fails where the policy forbids the cloud that the cluster of a launch is on.
    pub(super) async fn check_cluster(&self, launch: &PreparedLaunch) -> Result<(), JobError> {
        let JobIdentity { cloud, cluster, .. } = &launch.spec.identity;
        if self.context.policy.clouds.is_some() && !self.context.is_local(cloud) {
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
        let identity = &launch.spec.identity;
        let asks_always = self.context.policy.ask == AskPerson::Always;
        if self.context.is_local(&identity.cloud) && !asks_always {
            return Ok(LaunchConsent::NotAsked { warning: None });
        }
        let Some(provider) = &self.provider else {
            if asks_always && plan_id.is_empty() {
                let variable = env_vars::CONSENT;
                let error = format!("{variable}=always, and this client cannot ask its user");
                return Err(JobError::blocked(error).with_hint(
                    "call run_job with dry_run=true, show that to the user, and give its plan_id",
                ));
            }
            let warning =
                "no plan_id was given: whether the user saw this job could not be checked";
            return Ok(LaunchConsent::NotAsked {
                warning: plan_id.is_empty().then_some(warning),
            });
        };
        let info = self.cluster_info(&identity.cloud, &identity.cluster);
        let info = info.await?;
        let plan_id = self.context.plans.insert(launch);
        let subject = ConsentSubject::Launch { plan_id };
        let mut prompt = consent_prompt::launch(launch, info.as_ref(), subject);
        prompt.text = launch.redactor().redact(&prompt.text);
        on_progress("waiting for the user to agree");
        match provider.ask(&prompt).await? {
            ConsentSubject::Launch { plan_id } => Ok(LaunchConsent::Given { plan_id }),
            _ => Err(agreed_to_another()),
        }
    }
}

fn agreed_to_another() -> JobError {
    JobError::blocked("the user agreed to something else")
        .with_hint("call the tool again, so that the user is asked again")
}
