//! `run_job`: shows what would be run, or starts it and waits a moment for its launch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::answers::{JobAnswer, RunAnswer};
use super::collisions::{self, free_job_id};
use super::consent::{Consent, LaunchConsent};
use super::context::Context;
use super::costs::{Costs, check_limit};
use super::excerpt::{config_excerpt, excerpt};
use super::launches::{self, outcome_within};
use super::observe::Observation;
use super::prepare::{PreparedLaunch, job_id_from_name, prepare, redactor_of};
use super::requests::RunRequest;
use super::sanitize::sanitize;
use super::{JobService, LAUNCH_WAIT, OnProgress, consent_prompt, next_step};
use crate::error::{ErrorKind, JobError};
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, status};

/// The value that `user_confirmation` must have for a real launch.
const CONFIRMATION: &str = "EXECUTE";
/// The pause between two reports of a launch.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The bytes of an error.
const MAX_ERROR: usize = 2048;

impl JobService {
    /// Runs a job, or shows what would be run.
    pub(crate) async fn run_with_progress(
        &self,
        request: RunRequest,
        on_progress: OnProgress<'_>,
    ) -> RunAnswer {
        let (context, consent) = (&self.context, &self.consent);
        let is_dry = request.dry_run;
        let plan_id = if is_dry { "" } else { &request.plan_id };
        let (answer, redactor) = match prepare_checked(context, consent, &request, plan_id).await {
            Ok(launch) => {
                let redactor = launch.redactor();
                let answer = if is_dry {
                    dry_run(context, consent, launch).await
                } else {
                    let started = start(context, consent, &request, launch, on_progress).await;
                    started.unwrap_or_else(|error| refused(&error.context("nothing was started")))
                };
                (answer, redactor)
            }
            Err(error) => {
                let envs = request.envs.iter().flatten();
                let redactor = redactor_of(envs.map(|(_, value)| value.as_str()));
                let error = if is_dry {
                    error
                } else {
                    error.context("nothing was started")
                };
                (refused(&error), redactor)
            }
        };
        let answer = RunAnswer {
            dry_run: is_dry,
            ..answer
        };
        // The config may have changed while the user was asked.
        let started = context.redactor(&answer.job_id);
        sanitize(answer, &[redactor, started])
    }
}

/// Prepares a launch and checks it: against the plan that was shown, for collisions, and against the policy.
async fn prepare_checked(
    context: &Context,
    consent: &Consent,
    request: &RunRequest,
    plan_id: &str,
) -> Result<PreparedLaunch, JobError> {
    let is_planned = !plan_id.is_empty();
    let planned = is_planned.then(|| context.plans.job_id(plan_id));
    let mut launch = prepare(context, request, planned.transpose()?).await?;
    if is_planned {
        context.plans.check(plan_id, &launch)?;
    }
    collisions::check_data_dir(&context.data_dir)?;
    // A name that comes after the dry run is no other plan.
    let wanted = match request.name().filter(|_| is_planned) {
        Some(name) => job_id_from_name(name)?,
        None => launch.spec.identity.job_id.clone(),
    };
    let job_id = free_job_id(context, &wanted).await?;
    launch.rename(context, &job_id).await?;
    if job_id != wanted {
        let note = format!("a job that is over has the name {wanted}: this one is {job_id}");
        launch.plan.warnings.push(note);
    }
    collisions::check(context, &mut launch, request.allow_shared_output).await?;
    consent.check_cluster(&launch).await?;
    Ok(launch)
}

async fn start(
    context: &Arc<Context>,
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
    let (is_limited, can_ask) = (context.policy.max_hourly.is_some(), consent.can_ask());
    if is_limited || can_ask {
        launch.costs = Costs::of(context, &launch).await;
        let doubt = check_limit(context, &launch, can_ask).await?;
        launch.plan.warnings.extend(doubt);
    } else {
        launch.costs = context.plans.costs(&request.plan_id);
    }
    let confirmed = consent.confirm_launch(&launch, &request.plan_id, on_progress);
    match confirmed.await? {
        LaunchConsent::NotAsked { warning } => {
            launch.plan.warnings.extend(warning.map(str::to_owned));
        }
        LaunchConsent::Given { plan_id } => {
            // The user may have taken minutes, and files may have changed meanwhile.
            let mut again = prepare_checked(context, consent, request, &plan_id).await?;
            again.costs = match is_limited {
                true => Costs::of(context, &again).await,
                false => launch.costs,
            };
            launch = again;
        }
    }
    let answer = RunAnswer {
        job_id: launch.spec.identity.job_id.clone(),
        cloud: context.cloud_name(&launch.spec.identity.cloud),
        warnings: launch.plan.warnings.clone(),
        ..RunAnswer::default()
    };
    let (identity, watch) = launches::submit(context, launch, can_ask).await?;
    Ok(submitted(context, answer, identity, watch, on_progress).await)
}

/// Shows what a launch would do. The message is what a person is shown: with the scripts in `job_config` it holds all that
/// they need for agreeing.
async fn dry_run(
    context: &Arc<Context>,
    consent: &Consent,
    mut launch: PreparedLaunch,
) -> RunAnswer {
    launch.costs = Costs::of(context, &launch).await;
    let offer = launch.costs.as_ref().map(|costs| costs.offer.clone());
    let offer = offer.unwrap_or_default();
    let answer = match check_limit(context, &launch, consent.can_ask()).await {
        Ok(doubt) => {
            launch.plan.warnings.extend(doubt);
            preview(context, launch)
        }
        Err(error) => refused(&error),
    };
    RunAnswer {
        hourly_price: offer.highest(),
        price_note: offer.note,
        ..answer
    }
}

fn preview(context: &Context, launch: PreparedLaunch) -> RunAnswer {
    let what = consent_prompt::preview(&launch);
    let plan_id = context.plans.insert(&launch);
    let job_config = launch.plan.job_config.as_ref().map(config_excerpt);
    let scripts = job_config.as_ref().map_or("", |_| " and job_config");
    RunAnswer {
        success: true,
        status: "dry_run".to_owned(),
        message: format!(
            "{what}\nShow this{scripts} to the user; once they agree, call run_job with dry_run=false, confirm=true, \
             user_confirmation=\"{CONFIRMATION}\" and the plan_id."
        ),
        plan_id,
        job_id: launch.spec.identity.job_id,
        cluster_name: launch.plan.cluster,
        job_config,
        warnings: launch.plan.warnings,
        ..RunAnswer::default()
    }
}

/// Answers a call that started nothing.
fn refused(error: &JobError) -> RunAnswer {
    let status = match error.kind {
        ErrorKind::Blocked => status::BLOCKED,
        _ => status::ERROR,
    };
    RunAnswer {
        status: status.to_owned(),
        ..RunAnswer::failure(excerpt(&error.to_string(), MAX_ERROR))
    }
}

/// Waits up to [`LAUNCH_WAIT`] for the launch of a submitted job and answers with its status.
async fn submitted(
    context: &Context,
    mut answer: RunAnswer,
    submitted: JobIdentity,
    watch: LaunchWatch,
    on_progress: OnProgress<'_>,
) -> RunAnswer {
    on_progress("the launch is under way");
    let outcome = tokio::select! {
        outcome = outcome_within(watch, LAUNCH_WAIT) => outcome,
        never = report_launch(context, &submitted, on_progress) => match never {},
    };
    let identity = match &outcome {
        Some(LaunchOutcome::Launched(identity)) => identity.clone(),
        _ => match context.registry.get(&submitted.job_id).await {
            Ok(Some(record)) => record.identity(),
            _ => submitted,
        },
    };
    answer.cluster_name = identity.cluster.clone();
    answer.cluster = identity.cluster.clone();
    answer.oumi_job_id = identity.oumi_job_id.clone();
    let (status, error) = match outcome {
        Some(LaunchOutcome::Failed(reason)) => (
            status::FAILED,
            format!("{reason}; call get_job_logs for the output"),
        ),
        Some(LaunchOutcome::Unknown(reason)) => (status::UNKNOWN, reason),
        launched => {
            let event = launched.map(|outcome| match outcome {
                LaunchOutcome::Cancelled(_) => "a cancel came during the launch",
                _ => "the job was launched",
            });
            answer.success = true;
            answer.launch_confirmed = event.is_some() && !identity.oumi_job_id.is_empty();
            return with_status(context, answer, &identity, event).await;
        }
    };
    RunAnswer {
        status: status.to_owned(),
        error: Some(error),
        ..answer
    }
}

/// Reports how far a launch is.
async fn report_launch(
    context: &Context,
    identity: &JobIdentity,
    on_progress: OnProgress<'_>,
) -> Infallible {
    let redactor = context.redactor(&identity.job_id);
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        if let Ok(launcher) = context.launcher(&identity.cloud)
            && let Ok(status) = launcher.status(identity).await
        {
            let message = next_step::message(&status, &Observation::default());
            on_progress(&redactor.redact(&message));
        }
    }
}

/// Completes the answer about a submitted job with its status.
async fn with_status(
    context: &Context,
    mut answer: RunAnswer,
    identity: &JobIdentity,
    event: Option<&str>,
) -> RunAnswer {
    let status = match context.launcher(&identity.cloud) {
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
