//! `run_job`: shows what would be run, or starts it and waits a moment for its launch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::answers::{JobAnswer, RunAnswer};
use super::consent::{Consent, LaunchConsent};
use super::context::Context;
use super::launches::{Launches, outcome_within};
use super::plan_cache::PlanCache;
use super::prepare::{PreparedLaunch, prepare, redactor_of};
use super::requests::RunRequest;
use super::{LAUNCH_WAIT, OnProgress, next_step};
use crate::error::JobError;
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, status};
use crate::redact::Redactor;
use crate::settings::config::ConfigKind;

/// The value that `user_confirmation` must have for a real launch.
const CONFIRMATION: &str = "EXECUTE";
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
        let launch = match prepare(&self.context, &request, None).await {
            Ok(launch) => launch,
            Err(error) => {
                let envs = request
                    .envs
                    .iter()
                    .flatten()
                    .map(|(_, value)| value.as_str());
                let redactor = redactor_of(envs);
                let answer = RunAnswer {
                    status: status::ERROR.to_owned(),
                    dry_run: request.dry_run,
                    command: request.command,
                    config_path: request.config_path,
                    cloud: request.cloud,
                    cluster_name: request.cluster_name,
                    ..RunAnswer::failure(error.to_string())
                };
                return (answer, redactor);
            }
        };
        let redactor = launch.redactor();
        let answer = if request.dry_run {
            self.dry_run(launch)
        } else {
            self.start(consent, &request, launch, on_progress).await
        };
        (answer, redactor)
    }

    async fn start(
        &self,
        consent: &Consent,
        request: &RunRequest,
        launch: PreparedLaunch,
        on_progress: OnProgress<'_>,
    ) -> RunAnswer {
        let refused = RunAnswer {
            job_id: String::new(),
            status: status::BLOCKED.to_owned(),
            ..answer_of(&launch)
        };
        if !request.confirm || request.user_confirmation != CONFIRMATION {
            let error = format!(
                "nothing was started: a real launch needs confirm=true and user_confirmation=\"{CONFIRMATION}\"; show the \
                 user a dry_run first and set them once the user has agreed"
            );
            return RunAnswer {
                error: Some(error),
                ..refused
            };
        }
        if let Some(obstacle) = launch.plan.blocked_by {
            return RunAnswer {
                status: status::ERROR.to_owned(),
                error: Some(obstacle),
                ..refused
            };
        }
        let confirmed = self.confirm(consent, request, launch, on_progress).await;
        let (launch, warning) = match confirmed {
            Ok(confirmed) => confirmed,
            Err(error) => {
                return RunAnswer {
                    error: Some(error.context("nothing was started").to_string()),
                    ..refused
                };
            }
        };
        let mut answer = answer_of(&launch);
        answer.warnings.extend(warning.map(str::to_owned));
        match self.launches.submit(launch).await {
            Ok((identity, watch)) => self.submitted(answer, identity, watch, on_progress).await,
            Err(error) => RunAnswer {
                job_id: String::new(),
                status: status::ERROR.to_owned(),
                error: Some(error.to_string()),
                ..answer
            },
        }
    }

    fn dry_run(&self, launch: PreparedLaunch) -> RunAnswer {
        let mut answer = RunAnswer {
            success: true,
            status: "dry_run".to_owned(),
            dry_run: true,
            message: dry_run_message(&launch),
            plan_id: self.plans.insert(&launch),
            ..answer_of(&launch)
        };
        if !launch.is_named {
            // The id was generated for this call alone.
            answer.job_id = String::new();
        }
        answer.job_config = launch.plan.job_config;
        let obstacle = launch.plan.blocked_by;
        let obstacle = obstacle.map(|obstacle| format!("it cannot be launched now: {obstacle}"));
        answer.warnings.extend(obstacle);
        answer
    }

    /// Has the launch confirmed. After the user was asked it is prepared again, since files may have changed meanwhile.
    async fn confirm(
        &self,
        consent: &Consent,
        request: &RunRequest,
        launch: PreparedLaunch,
        on_progress: OnProgress<'_>,
    ) -> Result<(PreparedLaunch, Option<&'static str>), JobError> {
        let confirmed = consent.confirm_launch(&launch, &request.plan_id, on_progress);
        match confirmed.await? {
            LaunchConsent::NotAsked { warning } => Ok((launch, warning)),
            LaunchConsent::Given { plan_id, job_id } => {
                let launch = prepare(&self.context, request, Some(job_id)).await?;
                self.plans.check(&plan_id, &launch)?;
                match launch.plan.blocked_by {
                    Some(obstacle) => Err(JobError::blocked(obstacle)),
                    None => Ok((launch, None)),
                }
            }
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
                on_progress(&redactor.redact(&next_step::message(&status, None)));
            }
        }
    }
}

/// Fills in what is known of a launch before it has started.
fn answer_of(launch: &PreparedLaunch) -> RunAnswer {
    let (spec, plan) = (&launch.spec, &launch.plan);
    RunAnswer {
        job_id: spec.identity.job_id.clone(),
        command: spec.command.to_string(),
        config_path: spec.config.path.display().to_string(),
        cloud: spec.identity.cloud.clone(),
        cluster_name: plan.cluster.clone(),
        model_name: spec.config.model_name.clone(),
        cluster: plan.cluster.clone(),
        command_line: plan.command_line.clone(),
        output_dir: spec.config.output_dir.clone(),
        config_kind: Some(spec.config.kind),
        warnings: plan.warnings.clone(),
        ..RunAnswer::default()
    }
}

fn dry_run_message(launch: &PreparedLaunch) -> String {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let cluster = match plan.cluster.as_str() {
        "" => String::new(),
        cluster => format!(", cluster {cluster}"),
    };
    // Some variables change what runs, so the user must see their names.
    let names: Vec<&str> = spec.envs.keys().map(String::as_str).collect();
    let variables = match names.as_slice() {
        [] => String::new(),
        names => format!("Variables (values not shown): {}\n", names.join(", ")),
    };
    let kind = match spec.config.kind {
        ConfigKind::Job => "job",
        ConfigKind::Training => "training",
    };
    format!(
        "Dry run: nothing was started. Would run, on {}{cluster}: {}\nModel: {}\nOutput: {}\nConfig: {} ({kind} config)\n{variables}\
         Show this to the user; once they agree, call run_job again with dry_run=false, confirm=true, \
         user_confirmation=\"{CONFIRMATION}\" and the plan_id.",
        spec.identity.cloud,
        plan.command_line,
        spec.config.model_name,
        spec.config.output_dir,
        spec.config.path.display(),
    )
}
