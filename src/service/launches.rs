//! The launches of this server: each runs to its end in a task of its own, across cancels and restarts of the server.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use futures::FutureExt;

use super::Context;
use super::lookup::{self, ResolvedJob};
use super::prepare::PreparedLaunch;
use crate::error::{ErrorKind, JobError, Result};
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, JobStatus, LaunchPlan, PRICE};
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::on_file_threads;
use crate::process::start::{is_alive, is_supervised};
use crate::redact::Redactor;
use crate::registry::{JobRecord, duplicate};

/// The advice about a job that was to be cancelled and may still run.
pub(super) const MAY_BE_RUNNING: &str =
    "it may still be running and cost money: call poll_status to see, and cancel_job again";
/// The wait of a call for a launch that an earlier server started and that may have ended since.
const RESUME_WAIT: Duration = Duration::from_secs(2);
/// The waits in seconds before a cancel that failed right after a launch is retried.
const CANCEL_RETRIES: [u64; 4] = [1, 4, 15, 60];

/// What starts a launch: its plan, and the lock of its folder.
type Start = (LaunchPlan, JobLock);

/// Records a job, unless it goes above the limit of costs, and starts its launch. Dropping the future stops neither.
pub(super) fn submit(
    context: &Arc<Context>,
    launch: PreparedLaunch,
    can_ask: bool,
) -> impl Future<Output = Result<(JobIdentity, LaunchWatch)>> + use<> {
    let context = Arc::clone(context);
    let submitting = async move {
        let job_id = launch.spec.identity.job_id.clone();
        // Before the record, so that a call that finds the record finds the launch too.
        let watch = context.in_flight.insert(&job_id);
        let watch = watch.ok_or_else(|| duplicate(&job_id))?;
        let recording = AssertUnwindSafe(record(&context, launch, can_ask)).catch_unwind();
        let panicked = |_| Err(JobError::failed("the server failed to record the job"));
        let recorded = recording.await.unwrap_or_else(panicked);
        let (identity, start) = recorded.inspect_err(|error| {
            let outcome = LaunchOutcome::Failed(error.to_string());
            context.in_flight.evict(&job_id, outcome);
        })?;
        spawn(&context, identity.clone(), Some(start));
        Ok((identity, watch))
    };
    let submitting = tokio::spawn(on_file_threads(submitting.boxed()));
    async move { submitting.await.map_err(JobError::failed)? }
}

async fn record(
    context: &Arc<Context>,
    launch: PreparedLaunch,
    can_ask: bool,
) -> Result<(JobIdentity, Start)> {
    let redactor = launch.redactor();
    let (spec, plan, costs) = (launch.spec, launch.plan, launch.costs);
    let mut identity = JobIdentity {
        cluster: plan.cluster.clone(),
        ..spec.identity
    };
    if launch.is_local {
        // The id that its launcher will report, so that the record need not be written again.
        identity.oumi_job_id.clone_from(&identity.job_id);
    }
    let price = costs.as_ref().and_then(|costs| costs.offer.highest());
    let record = JobRecord {
        job_id: identity.job_id.clone(),
        command: spec.command.name.to_owned(),
        config_path: spec.config.path.display().to_string(),
        cloud: identity.cloud.clone(),
        cluster_name: identity.cluster.clone(),
        oumi_job_id: identity.oumi_job_id.clone(),
        model_name: spec.config.model_name,
        submit_time: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false),
        output_dir: spec.config.output_dir,
        ..JobRecord::default()
    };
    // Under the lock of the registry, so that launches of all servers count one another.
    let prepare = |records: &[JobRecord]| {
        if let Some(costs) = &costs {
            costs.check_limit(context, &identity.cluster, records, can_ask)?;
        }
        let dir = context.job_dir(&identity.job_id);
        create_job_dir(dir, launch.has_new_id, &redactor, price)
    };
    let lock = context.registry.insert(record, prepare).await?;
    Ok((identity, (plan, lock)))
}

/// Runs a launch in a task of its own. A panic in it evicts the launch too.
fn spawn(context: &Arc<Context>, identity: JobIdentity, start: Option<Start>) {
    let context = Arc::clone(context);
    let launching = Box::pin(async move {
        let running = AssertUnwindSafe(run(&context, &identity, start)).catch_unwind();
        if running.await.is_err() {
            tracing::error!(job_id = identity.job_id, "a launch panicked");
            let reason = "the server failed while it launched the job";
            let outcome = LaunchOutcome::Unknown(reason.to_owned());
            context.in_flight.evict(&identity.job_id, outcome);
        }
    });
    tokio::spawn(on_file_threads(launching));
}

/// Runs a launch to its end, records the job, carries out a cancel that came meanwhile, and evicts the launch.
async fn run(context: &Context, identity: &JobIdentity, start: Option<Start>) {
    let (job_id, in_flight) = (identity.job_id.as_str(), &context.in_flight);
    let launching = launch(context, identity, start).await;
    let mut outcome = launching.unwrap_or_else(|error| match error.kind {
        ErrorKind::Unavailable => LaunchOutcome::Unknown(error.to_string()),
        _ => LaunchOutcome::Failed(error.to_string()),
    });
    if let LaunchOutcome::Launched(launched) = &outcome {
        // Another server, or an earlier one, leaves its request beside the job.
        if !context.policy.read_only && context.has_pending_cancel(job_id) {
            in_flight.request_cancel(job_id);
        }
        if in_flight.evict(job_id, outcome.clone()) {
            return;
        }
        outcome = match cancel_with_retries(context, launched).await {
            Ok(job) => LaunchOutcome::Cancelled {
                job: Box::new(job),
                was_launched: true,
            },
            Err(error) => LaunchOutcome::Unknown(error.to_string()),
        };
    }
    // A cancel that failed stays pending: the next call about the job retries it.
    if !matches!(outcome, LaunchOutcome::Unknown(_)) {
        clear_pending_cancel(context, job_id);
    }
    in_flight.evict(job_id, outcome);
}

pub(super) fn clear_pending_cancel(context: &Context, job_id: &str) {
    let clear = context.with_job_dir(job_id, |dir| dir.clear_pending_cancel());
    if let Err(error) = clear {
        tracing::warn!(job_id, %error, "cannot clear a cancel that was carried out");
    }
}

async fn launch(
    context: &Context,
    identity: &JobIdentity,
    start: Option<Start>,
) -> Result<LaunchOutcome> {
    let launcher = context.launcher(&identity.cloud)?;
    if let Some((plan, lock)) = start {
        if context.in_flight.cancel_requested(&identity.job_id) {
            let record = |dir: JobDir| dir.write_exit_record(&ExitRecord::cancelled("launch"));
            let recorded = context.with_job_dir(&identity.job_id, record);
            drop(lock);
            recorded.map_err(|error| {
                JobError::unavailable(format!(
                    "it was cancelled before its launch, but that could not be recorded ({error}): the next call about it decides"
                ))
            })?;
            let job = JobStatus::cancelled();
            return Ok(LaunchOutcome::Cancelled {
                job: Box::new(job.with_message("it was cancelled before it was launched")),
                was_launched: false,
            });
        }
        let starting = launcher.start(identity, plan, lock).await;
        // Whatever its kind, the error means that the job did not start.
        starting.map_err(JobError::failed)?;
    }
    let launched = launcher.wait_for_launch(identity).await;
    let launched = launched.map_err(|error| match error.kind {
        ErrorKind::Unavailable => error.context("how the launch ended is not known"),
        _ => error,
    })?;
    if launched != *identity
        && let Err(error) = context.registry.update(launched.clone()).await
    {
        // The next call about the job asks for its identity again.
        tracing::warn!(job_id = launched.job_id, %error, "cannot record a launched job");
    }
    Ok(LaunchOutcome::Launched(launched))
}

/// Cancels a job whose launch has just ended, with retries: the job costs money meanwhile.
async fn cancel_with_retries(context: &Context, launched: &JobIdentity) -> Result<JobStatus> {
    let (launcher, job_id) = (context.launcher(&launched.cloud)?, &launched.job_id);
    let failed = |error: JobError| error.context("the job was launched, and cancelling it failed");
    for wait in CANCEL_RETRIES {
        match launcher.cancel(launched, false).await.map_err(failed) {
            Ok(job) => return Ok(job),
            Err(error) => {
                context.warn(job_id, &error, "a cancel failed; retrying");
                let in_flight = &context.in_flight;
                in_flight.set_cancel_error(job_id, error.to_string());
            }
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
    launcher.cancel(launched, false).await.map_err(failed)
}

/// Resolves a query. Resumes the launch that an earlier server started of the job, and waits [`RESUME_WAIT`] for its end.
pub(super) async fn resolve(context: &Arc<Context>, query: &JobIdentity) -> Result<ResolvedJob> {
    let job = lookup::resolve(context, query).await?;
    let watch = job.record.as_ref().and_then(|it| resume(context, it));
    let Some(watch) = watch else {
        return Ok(job);
    };
    Ok(match outcome_within(watch, RESUME_WAIT).await {
        Some(LaunchOutcome::Launched(identity)) => ResolvedJob { identity, ..job },
        _ => reload(context, job).await,
    })
}

pub(super) async fn reload(context: &Context, job: ResolvedJob) -> ResolvedJob {
    let job_id = &job.identity.job_id;
    match context.registry.get(job_id).await {
        Ok(Some(record)) if job.record.is_some() => ResolvedJob::of(record),
        _ => job,
    }
}

/// Resumes the launch or the cancel of a job that an earlier server left unfinished, and returns a watch of it if it began now.
pub(super) fn resume(context: &Arc<Context>, job: &JobRecord) -> Option<LaunchWatch> {
    // A launch on this machine is finished even where the policy forbids new ones: it costs nothing.
    let is_local = context.is_local(&job.cloud);
    if !is_local && context.policy.check(&job.cloud).is_err() {
        return None;
    }
    let job_id = &job.job_id;
    let is_unfinished = is_unfinished(context, job).unwrap_or_else(|error| {
        tracing::warn!(job_id, %error, "cannot see whether a job is to be resumed; the next call tries again");
        false
    });
    if !is_unfinished {
        return None;
    }
    let watch = context.in_flight.insert(job_id)?;
    spawn(context, job.identity(), None);
    Some(watch)
}

fn is_unfinished(context: &Context, job: &JobRecord) -> io::Result<bool> {
    let Some(dir) = context.job_dir(&job.job_id) else {
        return Ok(false);
    };
    if job.oumi_job_id.is_empty() {
        return dir.exists();
    }
    if context.policy.read_only {
        return Ok(false);
    }
    // A job on this machine has no epilogue. That of a launch is left over where its supervisor was killed.
    let is_cloud = !context.is_local(&job.cloud);
    let has_epilogue = is_cloud && dir.epilogue()?.is_some() && !is_supervised(&dir)?;
    Ok(has_epilogue || dir.has_pending_cancel()?)
}

/// Creates the folder of a new job. One that a server left without a record is replaced, unless its processes live.
fn create_job_dir(
    dir: Option<JobDir>,
    has_new_id: bool,
    redactor: &Redactor,
    price: Option<f64>,
) -> Result<JobLock> {
    let dir = dir.ok_or_else(|| JobError::invalid("the job id cannot name a folder"))?;
    let path = dir.path().display();
    let failed = |error: io::Error| {
        JobError::failed(format!("cannot make the job's folder {path}: {error}"))
            .with_hint("check its permissions and free space")
    };
    // This lists all processes, while the registry is locked: only done where it is needed.
    if !has_new_id && is_alive(&dir).map_err(failed)? {
        let error = format!("processes of an earlier job still use {path}");
        return Err(JobError::blocked(error).with_hint("choose another job_name"));
    }
    if dir.exists().map_err(failed)? {
        dir.remove().map_err(failed)?;
    }
    let (dir, lock) = JobDir::create(dir.path()).map_err(failed)?;
    dir.write_secrets(redactor).map_err(failed)?;
    if let Some(price) = price {
        let written = dir.write_new(PRICE, price.to_string().as_bytes());
        written.map_err(failed)?;
    }
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
