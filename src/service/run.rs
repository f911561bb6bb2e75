//! `run_job`: shows what would be run, or starts it and waits a moment for its launch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::answers::{JobAnswer, RunAnswer};
use super::collisions::{self, free_job_id};
use super::consent::{Consent, LaunchConsent};
use super::consent_prompt;
use super::context::Context;
use super::costs::{Costs, check_limit};
use super::excerpt::{config_excerpt, excerpt};
use super::launches::{Launches, outcome_within};
use super::plan_cache::PlanCache;
use super::prepare::{PreparedLaunch, job_id_from_name, prepare, redactor_of};
use super::requests::RunRequest;
use super::{LAUNCH_WAIT, OnProgress, next_step};
use crate::error::{ErrorKind, JobError};
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, status};
use crate::redact::Redactor;

/// The value that `user_confirmation` must have for a real launch.
const CONFIRMATION: &str = "EXECUTE";
/// The bytes of an error.
const MAX_ERROR: usize = 2048;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Answers `run_job`.
#[derive(Clone)]
pub(super) struct Runner {
    pub(super) context: Arc<Context>,
    pub(super) launches: Launches,
    pub(super) plans: Arc<PlanCache>,
}

impl Runner {
    /// Answers a request. The redactor knows the secrets that the answer may hold.
    pub(super) async fn run(
        &self,
        consent: &Consent,
        request: RunRequest,
        on_progress: OnProgress<'_>,
    ) -> (RunAnswer, Redactor) {
        let plan_id = if request.dry_run {
            ""
        } else {
            &request.plan_id
        };
        let launch = match self.prepare(consent, &request, plan_id).await {
            Ok(launch) => launch,
            Err(error) => {
                let envs = request.envs.iter().flatten();
                let redactor = redactor_of(envs.map(|(_, value)| value.as_str()));
                return (refused(error, request.dry_run), redactor);
            }
        };
        let redactor = launch.redactor();
        let answer = if request.dry_run {
            self.dry_run(consent, launch).await
        } else {
            let started = self.start(consent, &request, launch, on_progress).await;
            started.unwrap_or_else(|error| refused(error, false))
        };
        (answer, redactor)
    }

    /// Prepares a launch and checks it: against the plan that was shown, for collisions, and against the policy.
    async fn prepare(
        &self,
        consent: &Consent,
        request: &RunRequest,
        plan_id: &str,
    ) -> Result<PreparedLaunch, JobError> {
        let is_planned = !plan_id.is_empty();
        let planned = is_planned.then(|| self.plans.job_id(plan_id)).transpose()?;
        let mut launch = prepare(&self.context, request, planned).await?;
        if is_planned {
            self.plans.check(plan_id, &launch)?;
        }
        collisions::check_data_dir(self.context.data_dir.clone()).await?;
        // A name that comes after the dry run is no other plan.
        let wanted = match request.name().filter(|_| is_planned) {
            Some(name) => job_id_from_name(name)?,
            None => launch.spec.identity.job_id.clone(),
        };
        let job_id = free_job_id(&self.context, &self.launches, &wanted).await?;
        if job_id != launch.spec.identity.job_id {
            launch.rename(&self.context, job_id.clone()).await?;
        }
        if job_id != wanted {
            let note = format!("a job that is over has the name {wanted}: this one is {job_id}");
            launch.plan.warnings.push(note);
        }
        collisions::check(&self.context, &mut launch, request.allow_shared_output).await?;
        consent.check_cluster(&launch).await?;
        Ok(launch)
    }

    async fn start(
        &self,
        consent: &Consent,
        request: &RunRequest,
        mut launch: PreparedLaunch,
        on_progress: OnProgress<'_>,
    ) -> Result<RunAnswer, JobError> {
        if !request.confirm || request.user_confirmation != CONFIRMATION {
            return Err(JobError::blocked(format!(
                "a real launch needs confirm=true and user_confirmation=\"{CONFIRMATION}\""
            ))
            .with_hint("show the user a dry_run first and set them once the user has agreed"));
        }
        let is_limited = self.context.policy.max_hourly.is_some();
        if is_limited || consent.can_ask() {
            launch.costs = Costs::of(&self.context, &launch).await;
            let doubt = check_limit(&self.context, &launch, consent.can_ask()).await?;
            launch.plan.warnings.extend(doubt);
        }
        let confirmed = consent.confirm_launch(&launch, &request.plan_id, on_progress);
        let (launch, warning) = match confirmed.await? {
            LaunchConsent::NotAsked { warning } => (launch, warning),
            LaunchConsent::Given { plan_id } => {
                // The user may have taken minutes, and files may have changed meanwhile.
                let mut again = self.prepare(consent, request, &plan_id).await?;
                again.costs = if is_limited {
                    Costs::of(&self.context, &again).await
                } else {
                    launch.costs
                };
                (again, None)
            }
        };
        let mut answer = RunAnswer {
            job_id: launch.spec.identity.job_id.clone(),
            cloud: if launch.is_local {
                String::new()
            } else {
                launch.spec.identity.cloud.clone()
            },
            warnings: launch.plan.warnings.clone(),
            ..RunAnswer::default()
        };
        answer.warnings.extend(warning.map(str::to_owned));
        let spending = self.context.spending.lock().await;
        check_limit(&self.context, &launch, consent.can_ask()).await?;
        let (identity, watch) = self.launches.submit(launch).await?;
        drop(spending);
        Ok(self.submitted(answer, identity, watch, on_progress).await)
    }

    /// Shows what a launch would do. The message is what a person is shown: with the scripts in `job_config` it holds all that
    /// they need for agreeing.
    async fn dry_run(&self, consent: &Consent, mut launch: PreparedLaunch) -> RunAnswer {
        launch.costs = Costs::of(&self.context, &launch).await;
        let offer = launch.costs.as_ref().map(|costs| costs.offer.clone());
        let offer = offer.unwrap_or_default();
        let (hourly_price, price_note) = (offer.hourly.map(|(_, high)| high), offer.note);
        match check_limit(&self.context, &launch, consent.can_ask()).await {
            Ok(doubt) => launch.plan.warnings.extend(doubt),
            Err(error) => {
                return RunAnswer {
                    hourly_price,
                    price_note,
                    ..refused(error, true)
                };
            }
        }
        let what = consent_prompt::preview(&launch);
        let plan_id = self.plans.insert(&launch);
        let (spec, plan) = (launch.spec, launch.plan);
        let job_config = plan.job_config.as_ref().map(config_excerpt);
        let parts = if job_config.is_some() {
            "this and job_config"
        } else {
            "this"
        };
        RunAnswer {
            success: true,
            status: "dry_run".to_owned(),
            dry_run: true,
            message: format!(
                "{what}\nShow {parts} to the user; once they agree, call run_job with dry_run=false, confirm=true, \
                 user_confirmation=\"{CONFIRMATION}\" and the plan_id."
            ),
            plan_id,
            job_id: spec.identity.job_id,
            cluster_name: plan.cluster,
            job_config,
            warnings: plan.warnings,
            hourly_price,
            price_note,
            ..RunAnswer::default()
        }
    }

    /// Waits up to [`LAUNCH_WAIT`] for the launch of a submitted job and answers with its status.
    async fn submitted(
        &self,
        answer: RunAnswer,
        submitted: JobIdentity,
        watch: LaunchWatch,
        on_progress: OnProgress<'_>,
    ) -> RunAnswer {
        let outcome = tokio::select! {
            outcome = outcome_within(watch, LAUNCH_WAIT) => outcome,
            never = self.report_progress(&submitted, on_progress) => match never {},
        };
        let identity = match &outcome {
            Some(LaunchOutcome::Launched(identity)) => identity.clone(),
            _ => match self.context.registry.get(&submitted.job_id).await {
                Ok(Some(record)) => record.identity(),
                _ => submitted,
            },
        };
        let mut answer = RunAnswer {
            cluster_name: identity.cluster.clone(),
            cluster: identity.cluster.clone(),
            oumi_job_id: identity.oumi_job_id.clone(),
            ..answer
        };
        let event = match outcome {
            Some(LaunchOutcome::Failed(reason)) => {
                return RunAnswer {
                    status: status::FAILED.to_owned(),
                    error: Some(format!("{reason}; call get_job_logs for the output")),
                    ..answer
                };
            }
            Some(LaunchOutcome::Unknown(reason)) => {
                return RunAnswer {
                    status: status::UNKNOWN.to_owned(),
                    error: Some(reason),
                    ..answer
                };
            }
            Some(LaunchOutcome::Launched(_)) => {
                answer.launch_confirmed = true;
                Some("the job was launched")
            }
            Some(LaunchOutcome::Cancelled(_)) => {
                answer.launch_confirmed = !identity.oumi_job_id.is_empty();
                Some("a cancel came during the launch")
            }
            None => None,
        };
        answer.success = true;
        self.add_status(answer, &identity, event).await
    }

    /// Completes the answer about a submitted job with its status.
    async fn add_status(
        &self,
        mut answer: RunAnswer,
        identity: &JobIdentity,
        event: Option<&str>,
    ) -> RunAnswer {
        let status = match self.context.launcher(&identity.cloud) {
            Ok(launcher) => launcher.status(identity).await,
            Err(error) => Err(error),
        };
        match status {
            Ok(status) => {
                answer.message = match event {
                    Some(event) if !status.is_done => format!("{event}; poll_status says how it goes"),
                    Some(event) => format!("{event}; {}", next_step::message_and_next(&status)),
                    None => "the launch is under way and its confirmation is pending; call poll_status with the job_id"
                        .to_owned(),
                };
                answer.status = status.status;
                answer.warnings.extend(status.warnings);
            }
            Err(error) => {
                answer.status = status::UNKNOWN.to_owned();
                answer.message = format!(
                    "the job was submitted, but its status could not be read: {error}; call poll_status"
                );
            }
        }
        answer
    }

    /// Reports the status of a launch until the future is dropped.
    async fn report_progress(
        &self,
        identity: &JobIdentity,
        on_progress: OnProgress<'_>,
    ) -> Infallible {
        let redactor = self.context.redactor(&identity.job_id).await;
        loop {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            if let Ok(launcher) = self.context.launcher(&identity.cloud)
                && let Ok(status) = launcher.status(identity).await
            {
                on_progress(&redactor.redact(&next_step::message(&status, &Default::default())));
            }
        }
    }
}

/// Answers a call that started nothing, or previewed something that cannot be launched.
fn refused(error: JobError, dry_run: bool) -> RunAnswer {
    let is_blocked = error.kind == ErrorKind::Blocked;
    let status = if is_blocked {
        status::BLOCKED
    } else {
        status::ERROR
    };
    let error = if dry_run {
        error
    } else {
        error.context("nothing was started")
    };
    RunAnswer {
        status: status.to_owned(),
        dry_run,
        ..RunAnswer::failure(excerpt(&error.to_string(), MAX_ERROR))
    }
}
