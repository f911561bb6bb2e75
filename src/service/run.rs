//! `run_job`: shows what would be run, or starts it and waits a moment for its launch.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answers::RunAnswer;
use super::costs::Costs;
use super::launches::{self, MAY_BE_RUNNING, outcome_within};
use super::observe::Observation;
use super::prepare::{PreparedLaunch, redactor_of};
use super::requests::RunRequest;
use super::sanitize::sanitize;
use super::{JobService, LAUNCH_WAIT, STATUS_WAIT, consent, next_step};
use crate::error::{ErrorKind, JobError, Result};
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, status};
use crate::process::runner::{CALL_BUDGET, until};

const CONFIRMATION: &str = "EXECUTE";
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl JobService {
    pub(crate) async fn run(&self, request: RunRequest) -> RunAnswer {
        let is_dry = request.dry_run;
        let plan_id = if is_dry { "" } else { &request.plan_id };
        let deadline = Instant::now() + CALL_BUDGET;
        // Boxed, like the steps below: a call that waits for its launch keeps no memory for steps that are done.
        let prepared = until(deadline, Box::pin(self.prepare(&request, plan_id))).await;
        let redactor = match &prepared {
            Ok(launch) => launch.redactor(),
            Err(_) => {
                let values = request.options.envs.values();
                redactor_of(values.map(String::as_str))
            }
        };
        let mut answer = RunAnswer {
            dry_run: is_dry,
            ..RunAnswer::default()
        };
        let done = match prepared {
            Ok(launch) if is_dry => {
                until(deadline, Box::pin(self.preview(launch, &mut answer))).await
            }
            Ok(launch) => self.start(&request, launch, deadline, &mut answer).await,
            Err(error) => Err(error),
        };
        if let Err(mut error) = done {
            if !is_dry {
                error = error.context("nothing was started");
            }
            let status = match error.kind {
                ErrorKind::Blocked => status::BLOCKED,
                _ => status::ERROR,
            };
            end(&mut answer, status, error.to_string());
        }
        // The config may have changed while the user was asked.
        let started = self.context.redactor(&answer.job_id);
        sanitize(answer, &[redactor, started])
    }

    /// Shows what a launch would do. The message and the scripts in `job_config` hold all that the user needs to decide.
    async fn preview(&self, mut launch: PreparedLaunch, answer: &mut RunAnswer) -> Result<()> {
        let priced = self.price(&mut launch).await;
        if let Some(Costs { offer, .. }) = &launch.costs {
            answer.hourly_price = offer.highest().filter(|price| *price > 0.0);
            answer.price_note.clone_from(&offer.note);
        }
        priced?;
        let what = consent::preview(&launch);
        answer.job_config = launch.plan.job_config.clone();
        let scripts = answer.job_config.as_ref().map_or("", |_| " and job_config");
        answer.message = format!(
            "{what}\nShow this{scripts} to the user; once they agree, call run_job with dry_run=false, confirm=true, \
             user_confirmation=\"{CONFIRMATION}\" and the plan_id."
        );
        answer.plan_id = self.context.plans.insert(&launch);
        answer.success = true;
        answer.status = "dry_run".to_owned();
        answer.job_id = launch.spec.identity.job_id;
        answer.cluster_name = launch.plan.cluster;
        answer.warnings = launch.plan.warnings;
        Ok(())
    }

    async fn start(
        &self,
        request: &RunRequest,
        mut launch: PreparedLaunch,
        deadline: Instant,
        answer: &mut RunAnswer,
    ) -> Result<()> {
        if !request.confirm || request.user_confirmation != CONFIRMATION {
            return Err(JobError::blocked(format!(
                "a real launch needs confirm=true and user_confirmation=\"{CONFIRMATION}\""
            ))
            .with_hint("show the user a dry_run first and set them once the user has agreed"));
        }
        let names_cluster = !launch.spec.identity.cluster.is_empty();
        let may_change = names_cluster || self.context.policy.max_hourly.is_some();
        // Where nobody is shown a new price, the price of the dry run is good enough.
        if may_change || self.can_ask() || launch.costs.is_none() {
            until(deadline, Box::pin(self.price(&mut launch))).await?;
        }
        let confirmed = self.confirm_launch(&mut launch, &request.plan_id);
        if let Some(plan_id) = Box::pin(confirmed).await? {
            // The user may have taken minutes, and files may have changed meanwhile.
            let deadline = Instant::now() + CALL_BUDGET;
            launch = until(deadline, Box::pin(self.prepare(request, &plan_id))).await?;
            if may_change {
                until(deadline, Box::pin(self.price(&mut launch))).await?;
            }
        }
        let cloud = self.context.cloud_name(&launch.spec.identity.cloud);
        let warnings = launch.plan.warnings.clone();
        let submitted = launches::submit(&self.context, launch, self.can_ask()).await?;
        answer.job_id.clone_from(&submitted.0.job_id);
        (answer.cloud, answer.warnings) = (cloud, warnings);
        let deadline = Instant::now() + LAUNCH_WAIT + STATUS_WAIT;
        until(deadline, self.submitted(answer, submitted)).await;
        Ok(())
    }

    /// Waits up to [`LAUNCH_WAIT`] for the launch of a submitted job and answers with its status.
    async fn submitted(
        &self,
        answer: &mut RunAnswer,
        (submitted, watch): (JobIdentity, LaunchWatch),
    ) {
        let outcome = self.wait_for_launch(&submitted, watch).await;
        let identity = match &outcome {
            Some(LaunchOutcome::Launched(identity)) => identity.clone(),
            _ => match self.context.registry.get(&submitted.job_id).await {
                Ok(Some(record)) => record.identity(),
                _ => submitted,
            },
        };
        answer.cluster_name.clone_from(&identity.cluster);
        answer.oumi_job_id.clone_from(&identity.oumi_job_id);
        let (event, is_confirmed) = match outcome {
            Some(LaunchOutcome::Failed(reason)) => {
                let error = format!("{reason}; call get_job_logs for the output");
                // A launch that failed may have left a cluster.
                if let Ok(status) = self.context.status(&identity).await {
                    answer.warnings.extend(status.warnings);
                }
                return end(answer, status::FAILED, error);
            }
            Some(LaunchOutcome::Unknown(reason)) => {
                let error = format!("{reason}; {MAY_BE_RUNNING}");
                return end(answer, status::UNKNOWN, error);
            }
            Some(LaunchOutcome::Cancelled { was_launched, .. }) => {
                ("a cancel came during the launch", was_launched)
            }
            Some(LaunchOutcome::Launched(_)) => ("the job was launched", true),
            None => ("the launch is under way and not yet confirmed", false),
        };
        (answer.success, answer.launch_confirmed) = (true, is_confirmed);
        match self.context.status(&identity).await {
            Ok(status) => {
                let nothing = Observation::default();
                let message = next_step::message(&status, &nothing);
                let next = next_step::next(&status, &nothing, None);
                answer.message = match status.is_done {
                    true => format!("{event}; {message}. {next}"),
                    false => format!("{event}; call poll_status to follow it"),
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
    }

    /// Waits for the end of a launch, and reports what it prints.
    async fn wait_for_launch(
        &self,
        job: &JobIdentity,
        watch: LaunchWatch,
    ) -> Option<LaunchOutcome> {
        self.report("the launch is under way");
        let redactor = self.context.redactor(&job.job_id);
        let report = async {
            loop {
                sleep(PROGRESS_INTERVAL).await;
                if let Ok(status) = self.context.status(job).await {
                    let message = next_step::message(&status, &Observation::default());
                    self.report(&redactor.redact(&message));
                }
            }
        };
        tokio::select! {
            outcome = outcome_within(watch, LAUNCH_WAIT) => outcome,
            never = report => never,
        }
    }
}

fn end(answer: &mut RunAnswer, status: &str, error: String) {
    answer.status = status.to_owned();
    answer.error = Some(error);
}
