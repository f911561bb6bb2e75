//! The rows of a cluster's queue: which of them is a job's, and the status of a job without one.

use std::future::Future;

use super::clusters::{cluster_gone, cluster_not_up, cluster_recreated};
use super::launch_dir::LaunchFacts;
use super::{CloudBackend, log_file};
use crate::error::JobError;
use crate::launcher::{JobDetails, JobIdentity, JobState, JobStatus};
use crate::parse;
use crate::parse::sky::{Cluster, Queue, QueueFailure, QueuedJob};

/// The largest error of a cluster's clock, in seconds.
const CLOCK_SLACK: f64 = 3600.0;
/// The shortest time in which a cluster can be recreated, in seconds.
const RECREATED_AFTER: f64 = 60.0;

pub(super) fn status_of_row(job: &QueuedJob, identity: &JobIdentity) -> JobStatus {
    let (state, is_done) = parse::state_of(&job.status).unwrap_or((JobState::Unknown, false));
    let mut status = JobStatus::new(&job.status, state, is_done);
    if parse::state_of(&job.status).is_none() {
        status.warnings.push(format!(
            "{:?}, the status of job {} on cluster {}, is not known to this server",
            job.status, job.job_id, identity.cluster
        ));
    }
    let time = |seconds: Option<f64>| {
        let time = chrono::DateTime::from_timestamp(seconds? as i64, 0)?;
        Some(time.to_rfc3339())
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    status.details = JobDetails {
        submitted_at: time(job.submitted_at),
        start_at: time(job.start_at),
        end_at: time(job.end_at),
        job_name: text(&job.job_name),
        resources: text(&job.resources),
        ..JobDetails::default()
    };
    status.log_file = log_file(identity);
    status
}

/// Finds the row of a job in the queue of its cluster. A recreated cluster counts its jobs from 1 again: the job that has the
/// id then is another one.
pub(super) fn own_row<'q, B: CloudBackend>(
    identity: &JobIdentity,
    queue: &'q Queue,
    facts: Option<&LaunchFacts>,
) -> Option<&'q QueuedJob> {
    let jobs = queue.jobs.get(&identity.cluster)?;
    let row = jobs.iter().find(|job| job.job_id == identity.oumi_job_id)?;
    let window = B::COMPLETION_WINDOW.unwrap_or_default().as_secs_f64();
    let is_another = facts.is_some_and(|facts| belongs_to_newer_job(row, facts, window));
    (!is_another).then_some(row)
}

/// Returns `true` for a job that was submitted after the launch had ended. A cluster's clock may be wrong, and SkyPilot may
/// change a name; both at once are unlikely.
fn belongs_to_newer_job(job: &QueuedJob, facts: &LaunchFacts, window: f64) -> bool {
    let slack = if job.job_name == facts.name {
        CLOCK_SLACK
    } else {
        RECREATED_AFTER
    };
    let slack = if facts.printed_job_id.is_some() {
        slack
    } else {
        slack.max(window)
    };
    let ended_at = facts.last_output_at.or(facts.started_at);
    job.submitted_at
        .zip(ended_at)
        .is_some_and(|(submitted_at, ended_at)| submitted_at > ended_at + slack)
}

/// Finds the job of a launch that printed no id: the first of its name that was submitted after the launch began.
pub(super) fn launched_job<'q>(
    identity: &JobIdentity,
    queue: &'q Queue,
    facts: Option<&LaunchFacts>,
) -> Option<&'q QueuedJob> {
    let facts = facts?;
    let started_at = facts.started_at?.floor();
    let newest_first = queue.jobs.get(&identity.cluster)?;
    newest_first.iter().rev().find(|job| {
        job.job_name == facts.name && job.submitted_at.is_some_and(|time| time >= started_at)
    })
}

/// Returns the status of a job that its cluster's queue does not list.
pub(super) async fn status_of_missing<B: CloudBackend>(
    identity: &JobIdentity,
    queue: &Queue,
    clusters: impl Future<Output = Result<Vec<Cluster>, JobError>>,
) -> Result<JobStatus, JobError> {
    let name = &identity.cluster;
    if queue.jobs.contains_key(name) {
        if B::LISTS_ENDED_JOBS && !identity.job_id.is_empty() {
            return Ok(cluster_recreated(name));
        }
        return Err(no_such_job(identity));
    }
    match queue.unanswered.get(name) {
        Some(QueueFailure::Other(reason)) => Err(JobError::failed(format!(
            "the queue of cluster {name} could not be read: {reason}"
        ))),
        Some(QueueFailure::ClusterGone) => Ok(cluster_gone(name)),
        Some(QueueFailure::ClusterNotUp(_)) | None => Ok(cluster_not_up(name, &clusters.await?)),
    }
}

pub(in crate::launcher) fn no_such_job(identity: &JobIdentity) -> JobError {
    JobError::not_found(format!(
        "cluster {} on {} has no job {:?}",
        identity.cluster, identity.cloud, identity.oumi_job_id
    ))
    .with_hint("call list_jobs for the jobs it has")
}
