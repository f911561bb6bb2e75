//! Asking the person: what is asked, and what comes of it. How a person is reached is the protocol's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::consent_prompt::launch_question;
use super::requests::RunRequest;
use super::run::secrets_of;
use super::{JobService, OnProgress};
use crate::launcher::local::LOCAL;
use crate::launcher::{ClusterInfo, LaunchPlan, LaunchSpec};
use crate::settings::env_vars;
use crate::settings::policy::AskPerson;

/// How long SkyPilot is waited for, to tell the person more of a cluster.
const FACTS_WAIT: Duration = Duration::from_secs(15);

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// All that the person needs to know, in lines.
    pub text: String,
    /// What exactly would be done: consent to one thing is none to another.
    pub about: String,
}

/// A way to the person.
pub trait Consent: Send + Sync {
    /// Whether there is one.
    fn can_ask(&self) -> bool;

    /// Asks, and waits for what comes of it: [`Question::about`] of what the person agreed to, which may have been asked in an
    /// earlier call, or why they did not.
    fn ask<'a>(&'a self, question: &'a Question) -> Asking<'a>;
}

/// What comes of a question, later.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// Where there is no way to the person.
pub(super) struct Nobody;

impl Consent for Nobody {
    fn can_ask(&self) -> bool {
        false
    }

    fn ask<'a>(&'a self, _: &'a Question) -> Asking<'a> {
        Box::pin(std::future::ready(Err("nobody can be asked".to_owned())))
    }
}

impl JobService {
    /// The same service for a call whose person is reached this way.
    pub fn asking(&self, consent: Arc<dyn Consent>) -> Self {
        match self.context.policy.ask {
            AskPerson::Never => self.clone(),
            AskPerson::ForClouds | AskPerson::Always => Self {
                consent,
                ..self.clone()
            },
        }
    }

    /// Asks the person before a thing is ended; an error says why it is not. Where nobody can be asked, what the call says has
    /// to do.
    pub(super) async fn agreed(&self, question: &Question) -> Result<(), String> {
        if !self.consent.can_ask() {
            return Ok(());
        }
        match self.consent.ask(question).await {
            Ok(about) if about == question.about => Ok(()),
            Ok(_) => Err(
                "nothing was done: it is no longer what the person was asked about; call the tool anew, so that they are asked"
                    .to_owned(),
            ),
            Err(reason) => Err(format!("nothing was done: {reason}")),
        }
    }

    /// What is known of a cluster that something is to be done with, where somebody wants to know it. An error says that it is
    /// none that may be touched: the launcher goes by the name alone, whatever cloud the call says.
    pub(super) async fn facts(
        &self,
        cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>, String> {
        let policy = &self.context.policy;
        let is_limited = policy.clouds.is_some();
        if !is_limited && !self.consent.can_ask() {
            return Ok(None);
        }
        let asked = tokio::time::timeout(
            FACTS_WAIT,
            self.context
                .allowed_launcher(cloud)?
                .describe_cluster(cloud, cluster),
        );
        let facts = match asked.await {
            Ok(Ok(facts)) => facts,
            Ok(Err(error)) if is_limited => return Err(error.to_string()),
            Err(_) if is_limited => {
                return Err(format!(
                    "which cloud cluster {cluster} is on was not answered within {} s; try again",
                    FACTS_WAIT.as_secs()
                ));
            }
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(facts) = &facts
            && is_limited
        {
            match &facts.cloud {
                Some(found) => policy.forbids(found).map_or(Ok(()), Err)?,
                None => {
                    return Err(format!(
                        "which cloud cluster {cluster} is on is not known, and not every cloud may be used"
                    ));
                }
            }
        }
        Ok(facts)
    }

    /// Sees to it that what is launched is what was shown and agreed to: holds the plan against the preview that the call names,
    /// and asks the person, while nothing is held. An error says why nothing is started; what is returned beside the plan is
    /// what to know of one that nobody was seen to agree to.
    pub(super) async fn agreed_to_run(
        &self,
        request: &RunRequest,
        spec: LaunchSpec,
        plan: LaunchPlan,
        tell: OnProgress<'_>,
    ) -> Result<(LaunchSpec, LaunchPlan, Option<String>), String> {
        let (previews, named) = (&self.plans, request.name().is_some());
        let is_bound = !request.plan_id.is_empty();
        let secrets = secrets_of(&spec.config, &spec.envs);
        let check = |plan_id: &str, spec: &LaunchSpec, plan: &LaunchPlan| {
            previews.check(plan_id, spec, plan, named)
        };
        if is_bound {
            check(&request.plan_id, &spec, &plan)?;
        }
        let is_here = spec.identity.cloud == LOCAL;
        let always = self.context.policy.ask == AskPerson::Always;
        if is_here && !always {
            return Ok((spec, plan, None));
        }
        if !self.consent.can_ask() {
            if always && !is_bound {
                return Err(format!(
                    "{}=always, and this client cannot ask the person: call run_job with dry_run=true, show that to the user, and \
                     give its plan_id",
                    env_vars::CONSENT.name
                ));
            }
            let unbound = (!is_bound).then(|| {
                "no plan_id was given: that this is what the user was shown could not be checked".to_owned()
            });
            return Ok((spec, plan, unbound));
        }
        let cluster = spec.identity.cluster.as_str();
        let facts = if cluster.is_empty() {
            None
        } else {
            self.facts(&spec.identity.cloud, cluster).await?
        };
        // With the names that were made up, so that those are used which the person saw.
        let plan_id = previews.keep(&spec, &plan, named);
        let about = format!("{plan_id} {}", spec.identity.job_id);
        let mut question = launch_question(&spec, &plan, facts.as_ref(), about);
        question.text = secrets.redact(&question.text);
        tell("waiting for the person to agree");
        let agreed_to = self.consent.ask(&question).await?;
        let (plan_id, job_id) = agreed_to.split_once(' ').unwrap_or((&agreed_to, ""));
        // The person may have taken minutes, and files change.
        let (spec, plan) = self.prepare(request, Some(job_id.to_owned())).await?;
        check(plan_id, &spec, &plan)?;
        match plan.blocked_by {
            Some(obstacle) => Err(obstacle),
            None => Ok((spec, plan, None)),
        }
    }
}
