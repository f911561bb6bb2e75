//! The launches of this server: each runs to its end in a task of its own, across cancels and restarts of the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};

use super::context::Context;
use super::costs::HOURLY_PRICE;
use super::lookup::ResolvedJob;
use super::prepare::PreparedLaunch;
use crate::error::{ErrorKind, JobError};
use crate::in_flight::{InFlight, LaunchOutcome, LaunchWatch};
use crate::launcher::{CancelOutcome, JobIdentity, LaunchPlan};
use crate::process::blocking;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::start::{has_abandoned_epilogue, is_alive};
use crate::redact::Redactor;
use crate::registry::{JobRecord, RegistryError};

/// The advice about a job that was to be cancelled and may still run.
pub(super) const MAY_BE_RUNNING: &str =
    "it may still be running and cost money: call poll_status to see, and cancel_job again";
/// The wait of a call for a launch that an earlier server started and that may have ended since.
const RESUME_WAIT: Duration = Duration::from_secs(2);
/// The waits before a cancel that failed right after a launch is retried.
const CANCEL_RETRIES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// The waits before a registry that could not be written is retried.
const RECORD_RETRIES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
];

/// Runs launches. Clones share them.
#[derive(Clone)]
pub(super) struct Launches {
    context: Arc<Context>,
    in_flight: InFlight,
}

impl Launches {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            in_flight: InFlight::default(),
        }
    }

    pub(super) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Records a job and starts its launch, in a task of its own: dropping the future stops neither.
    pub(super) async fn submit(
        &self,
        launch: PreparedLaunch,
    ) -> Result<(JobIdentity, LaunchWatch), JobError> {
        let launches = self.clone();
        let submitting = tokio::spawn(async move { launches.record_and_spawn(launch).await });
        submitting.await.map_err(JobError::failed)?
    }

    async fn record_and_spawn(
        &self,
        launch: PreparedLaunch,
    ) -> Result<(JobIdentity, LaunchWatch), JobError> {
        let redactor = launch.redactor();
        let PreparedLaunch {
            spec,
            plan,
            costs,
            has_new_id,
            ..
        } = launch;
        let price = costs.and_then(|costs| Some(costs.offer.hourly?.1));
        let price = price.map(|price| (HOURLY_PRICE.to_owned(), price.into()));
        let identity = JobIdentity {
            cluster: plan.cluster.clone(),
            ..spec.identity
        };
        let job_id = identity.job_id.clone();
        let record = JobRecord {
            job_id: job_id.clone(),
            command: spec.command.name().to_owned(),
            config_path: spec.config.path.display().to_string(),
            cloud: identity.cloud.clone(),
            cluster_name: identity.cluster.clone(),
            oumi_job_id: String::new(),
            model_name: spec.config.model_name,
            submit_time: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false),
            output_dir: spec.config.output_dir,
            other: price.into_iter().collect(),
        };
        // Before the record, so that a call that finds the record finds the launch too.
        let Some(watch) = self.in_flight.insert(&job_id) else {
            return Err(RegistryError::Duplicate(job_id).into());
        };
        let dir = self.context.job_dir(&job_id);
        let create = move || create_job_dir(dir, has_new_id, &redactor);
        match self.context.registry.insert(record, create).await {
            Ok(lock) => {
                self.spawn(identity.clone(), Some((plan, lock)));
                Ok((identity, watch))
            }
            Err(error) => {
                let outcome = LaunchOutcome::Failed(error.to_string());
                self.in_flight.evict(&job_id, outcome);
                Err(error.into())
            }
        }
    }

    /// Runs a launch in a task of its own. A panic in it evicts the launch too.
    fn spawn(&self, identity: JobIdentity, start: Option<(LaunchPlan, JobLock)>) {
        let launches = self.clone();
        tokio::spawn(async move {
            let (runner, job_id) = (launches.clone(), identity.job_id.clone());
            let running = tokio::spawn(async move { runner.run(identity, start).await });
            if let Err(error) = running.await {
                tracing::error!(job_id, %error, "a launch panicked");
                let reason = format!(
                    "the server failed while it launched the job: {error}; {MAY_BE_RUNNING}"
                );
                let outcome = LaunchOutcome::Unknown(reason);
                launches.in_flight.evict(&job_id, outcome);
            }
        });
    }

    /// Runs a launch to its end, records the job, carries out a cancel that came meanwhile, and evicts the launch.
    async fn run(&self, identity: JobIdentity, start: Option<(LaunchPlan, JobLock)>) {
        let job_id = identity.job_id.as_str();
        self.in_flight.set_recorded(job_id);
        let mut outcome = self.launch(&identity, start).await;
        if let LaunchOutcome::Launched(launched) = &outcome {
            // Another server, or an earlier one, leaves its request beside the job.
            if !self.context.policy.read_only && self.context.has_pending_cancel(job_id).await {
                self.in_flight.request_cancel(job_id);
            }
            if self.in_flight.evict(job_id, outcome.clone()) {
                return;
            }
            outcome = self.cancel_launched(launched).await;
        }
        // A cancel that failed stays pending: the next call about the job retries it.
        if !matches!(outcome, LaunchOutcome::Unknown(_)) {
            self.clear_pending_cancel(job_id).await;
        }
        self.in_flight.evict(job_id, outcome);
    }

    pub(super) async fn clear_pending_cancel(&self, job_id: &str) {
        let clear = self
            .context
            .with_job_dir(job_id, |dir| dir.clear_pending_cancel());
        if let Err(error) = clear.await {
            tracing::warn!(job_id, %error, "cannot clear a cancel that was carried out");
        }
    }

    async fn launch(
        &self,
        identity: &JobIdentity,
        start: Option<(LaunchPlan, JobLock)>,
    ) -> LaunchOutcome {
        let launcher = match self.context.launcher(&identity.cloud) {
            Ok(launcher) => launcher,
            Err(error) => return LaunchOutcome::Failed(error.to_string()),
        };
        if let Some((plan, lock)) = start {
            if self.in_flight.cancel_requested(&identity.job_id) {
                let record = |dir: JobDir| dir.write_exit_record(&ExitRecord::cancelled("launch"));
                let recorded = self.context.with_job_dir(&identity.job_id, record).await;
                drop(lock);
                let message = "it was cancelled before it was launched".to_owned();
                return match recorded {
                    Ok(()) => LaunchOutcome::Cancelled(CancelOutcome::Cancelled {
                        message: Some(message),
                    }),
                    Err(error) => LaunchOutcome::Unknown(error.to_string()),
                };
            }
            if let Err(error) = launcher.start(identity, plan, lock).await {
                return LaunchOutcome::Failed(error.to_string());
            }
        }
        match launcher.wait_for_launch(identity).await {
            Ok(launched) => {
                self.record(&launched).await;
                LaunchOutcome::Launched(launched)
            }
            Err(error) if error.kind == ErrorKind::Unavailable => LaunchOutcome::Unknown(format!(
                "how the launch ended could not be found out: {error}; {MAY_BE_RUNNING}"
            )),
            Err(error) => LaunchOutcome::Failed(error.to_string()),
        }
    }

    /// Records the identity of a launched job. Should all retries fail, the next call about the job finds it out again.
    async fn record(&self, launched: &JobIdentity) {
        let mut retries = RECORD_RETRIES.into_iter();
        while let Err(error) = self.context.registry.update(launched.clone()).await {
            tracing::warn!(job_id = launched.job_id, %error, "cannot record a launched job");
            let Some(wait) = retries.next() else { return };
            tokio::time::sleep(wait).await;
        }
    }

    /// Cancels a job whose launch has just ended, with retries: the job costs money meanwhile.
    async fn cancel_launched(&self, launched: &JobIdentity) -> LaunchOutcome {
        let launcher = match self.context.launcher(&launched.cloud) {
            Ok(launcher) => launcher,
            Err(error) => return LaunchOutcome::Unknown(error.to_string()),
        };
        let mut retries = CANCEL_RETRIES.into_iter();
        loop {
            let error = match launcher.cancel(launched, false).await {
                Ok(outcome) => return LaunchOutcome::Cancelled(outcome),
                Err(error) => error,
            };
            let reason = format!(
                "the job was launched, and cancelling it failed: {error}; {MAY_BE_RUNNING}"
            );
            let Some(wait) = retries.next() else {
                return LaunchOutcome::Unknown(reason);
            };
            tracing::warn!(job_id = launched.job_id, %error, "a cancel failed; retrying");
            self.in_flight.set_cancel_error(&launched.job_id, reason);
            tokio::time::sleep(wait).await;
        }
    }

    /// Completes the identity of a job whose launch an earlier server started, where that launch ends within a moment.
    pub(super) async fn refresh_identity(&self, job: ResolvedJob) -> ResolvedJob {
        let Some(record) = &job.record else {
            return job;
        };
        let Some(watch) = self.resume(std::slice::from_ref(record)).await.pop() else {
            return job;
        };
        match outcome_within(watch, RESUME_WAIT).await {
            Some(LaunchOutcome::Launched(identity)) => ResolvedJob { identity, ..job },
            _ => self.reload(job).await,
        }
    }

    /// Reads a job from the registry again.
    pub(super) async fn reload(&self, job: ResolvedJob) -> ResolvedJob {
        let Some(record) = &job.record else {
            return job;
        };
        match self.context.registry.get(&record.job_id).await {
            Ok(Some(record)) => ResolvedJob {
                identity: record.identity(),
                record: Some(record),
            },
            _ => job,
        }
    }

    /// Resumes what earlier servers left unfinished: launches whose end is not recorded, and cancels. Returns a
    /// watch of each launch that was resumed now.
    pub(super) async fn resume(&self, records: &[JobRecord]) -> Vec<LaunchWatch> {
        // A job that costs no money is finished even where the policy forbids new ones.
        let is_allowed = |record: &&JobRecord| {
            !self.context.traits(&record.cloud).costs_money
                || self.context.policy.forbids(&record.cloud).is_none()
        };
        let allowed = records.iter().filter(is_allowed);
        let jobs: Vec<(JobRecord, JobDir)> = allowed
            .filter_map(|record| Some((record.clone(), self.context.job_dir(&record.job_id)?)))
            .collect();
        let read_only = self.context.policy.read_only;
        let unfinished = blocking(move || {
            let is_unfinished = |(record, dir): &(JobRecord, JobDir)| {
                let is_launching = record.oumi_job_id.is_empty();
                let is_unfinished = dir.exists().and_then(|exists| {
                    let is_to_change = || {
                        Ok::<_, io::Error>(
                            dir.has_pending_cancel()? || has_abandoned_epilogue(dir)?,
                        )
                    };
                    Ok(exists && (is_launching || (!read_only && is_to_change()?)))
                });
                is_unfinished.unwrap_or_else(|error| {
                    tracing::warn!(job_id = record.job_id, %error, "cannot see whether a job is to be resumed; the next call tries again");
                    false
                })
            };
            let unfinished = jobs.into_iter().filter(is_unfinished);
            Ok::<_, io::Error>(
                unfinished
                    .map(|(record, _)| record.identity())
                    .collect::<Vec<_>>(),
            )
        });
        let mut resumed = Vec::new();
        for identity in unfinished.await.unwrap_or_default() {
            if let Some(watch) = self.in_flight.insert(&identity.job_id) {
                self.spawn(identity, None);
                resumed.push(watch);
            }
        }
        resumed
    }
}

/// Creates the folder of a new job. A folder without a record was left by a server that died between the two; it is replaced
/// unless its processes live.
fn create_job_dir(
    dir: Option<JobDir>,
    has_new_id: bool,
    redactor: &Redactor,
) -> Result<JobLock, JobError> {
    let Some(dir) = dir else {
        let error = JobError::invalid("the job id is no name for a folder");
        return Err(error.with_hint("choose another job_name"));
    };
    let path = dir.path().display();
    let failed = |error: io::Error| {
        JobError::failed(format!("cannot make the job's folder {path}: {error}"))
            .with_hint("check its permissions and free space")
    };
    // Lists all processes of the machine, while no other job can be recorded.
    if !has_new_id && is_alive(&dir).map_err(failed)? {
        let error = format!("processes of an earlier job still use {path}");
        return Err(JobError::blocked(error).with_hint("choose another job_name"));
    }
    if dir.exists().map_err(failed)? {
        if !dir.is_listed().map_err(failed)? {
            let error = format!("{path} is the folder of a job whose name differs in case alone");
            return Err(JobError::blocked(error).with_hint("choose another job_name"));
        }
        dir.remove().map_err(failed)?;
    }
    let (dir, lock) = JobDir::create(dir.path()).map_err(failed)?;
    dir.write_secrets(redactor).map_err(failed)?;
    Ok(lock)
}

/// Waits for the outcome of a launch; `None` when it takes longer than `wait`.
pub(super) async fn outcome_within(
    mut watch: LaunchWatch,
    wait: Duration,
) -> Option<LaunchOutcome> {
    let ended = tokio::time::timeout(wait, watch.wait_for(Option::is_some)).await;
    ended.ok()?.ok()?.clone()
}
