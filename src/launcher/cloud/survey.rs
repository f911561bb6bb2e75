//! The answers of SkyPilot or Oumi about clusters and their queues, and the status of a job by them.

use super::CloudBackend;
use super::clusters::{cloud_of, cluster_details, cluster_gone, cluster_not_up, cluster_recreated};
use super::launch_dir::{LaunchFacts, number};
use crate::error::JobError;
use crate::launcher::{CancelOutcome, JobDetails, JobIdentity, JobState, JobStatus, status};
use crate::parse;
use crate::parse::costs::ClusterCost;
use crate::parse::sky::{ClusterList, Queue, QueueFailure, QueuedJob};

/// The answers to one query of queues, and to one of clusters that was asked at the same time.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) queue: Result<Queue, JobError>,
    /// `None` where the program cannot list clusters.
    pub(super) clusters: Result<Option<ClusterList>, JobError>,
    /// Empty where the program has no report of costs.
    pub(super) costs: Vec<ClusterCost>,
}

/// The job that a cluster has under the id of ours.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'q> {
    Own(&'q QueuedJob),
    /// It may be ours: too little is known of ours to compare.
    Uncertain(&'q QueuedJob),
    /// It is another one, on a cluster that was created again under the name of ours.
    Another,
    Nothing,
}

impl Survey {
    pub(super) fn cluster_list(&self) -> Option<&ClusterList> {
        self.clusters.as_ref().ok()?.as_ref()
    }

    pub(super) fn cluster_hash(&self, cluster: &str) -> Option<&str> {
        self.cluster_list()?.get(cluster)?.cluster_hash.as_deref()
    }

    /// The jobs of a cluster; empty where it did not answer.
    pub(super) fn jobs(&self, cluster: &str) -> &[QueuedJob] {
        let queue = self.queue.as_ref().ok();
        queue
            .and_then(|queue| queue.jobs.get(cluster))
            .map_or(&[], Vec::as_slice)
    }

    /// The cloud of the cluster that has the name of a job's, where it is another than the job's. SkyPilot knows clusters by name
    /// alone.
    pub(super) fn other_cloud<B: CloudBackend>(&self, identity: &JobIdentity) -> Option<String> {
        let cloud = cloud_of(self.cluster_list()?.get(&identity.cluster)?)?;
        let is_other = B::CLOUDS.contains(&cloud.as_str()) && cloud != identity.cloud;
        is_other.then_some(cloud)
    }

    /// Fails where a job that no record has is named with another cloud than that of its cluster.
    fn check_cloud<B: CloudBackend>(&self, identity: &JobIdentity) -> Result<(), JobError> {
        match self.other_cloud::<B>(identity) {
            Some(cloud) if identity.job_id.is_empty() => Err(JobError::not_found(format!(
                "cluster {} is on {cloud}, not on {}",
                identity.cluster, identity.cloud
            ))
            .with_hint("call list_jobs for the jobs it has")),
            _ => Ok(()),
        }
    }

    /// Finds a job by its id. An identity without an id of ours names whatever job is on the cluster now.
    pub(super) fn find<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Found<'_> {
        let mut jobs = self.jobs(&identity.cluster).iter();
        let Some(job) = jobs.find(|job| job.job_id == identity.oumi_job_id) else {
            return Found::Nothing;
        };
        if !B::IDS_RESTART || identity.job_id.is_empty() {
            return Found::Own(job);
        }
        let cluster_hash = self.cluster_hash(&identity.cluster);
        match facts.and_then(|facts| facts.mark.as_ref()) {
            _ if self.other_cloud::<B>(identity).is_some() => Found::Another,
            Some(mark) if mark.fits(job, cluster_hash) => Found::Own(job),
            Some(_) => Found::Another,
            None => Found::Uncertain(job),
        }
    }

    /// Tells whether the cluster of a job's name is its own; `None` where that is not known.
    fn is_own_cluster<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Option<bool> {
        if self.other_cloud::<B>(identity).is_some() {
            return Some(false);
        }
        let mark = facts?.mark.as_ref()?;
        mark.is_of_cluster(self.cluster_hash(&identity.cluster))
    }

    /// Fails where the launcher's id of a job may be another job's by now.
    pub(super) fn check_id<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Result<(), JobError> {
        let cluster = &identity.cluster;
        self.check_cloud::<B>(identity)?;
        match self.find::<B>(identity, facts) {
            Found::Own(_) => Ok(()),
            Found::Uncertain(_) => Err(JobError::blocked(uncertain(identity)).with_hint(
                "if the job that is there now is meant, name it by oumi_job_id, cloud and cluster_name, without job_id",
            )),
            Found::Another => Err(JobError::unavailable(format!(
                "the cluster {cluster} of this job is gone, and another has its name"
            ))),
            Found::Nothing if !B::IDS_RESTART || identity.job_id.is_empty() => Ok(()),
            Found::Nothing if self.is_own_cluster::<B>(identity, facts) == Some(true) => Ok(()),
            Found::Nothing => {
                let reason = self.status_of_missing::<B>(identity, facts).err();
                let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                Err(JobError::unavailable(format!(
                    "it is not certain which job has its id now{reason}"
                )))
            }
        }
    }

    /// Fails where a job that no queue lists may be on its cluster all the same.
    pub(super) fn missing_job<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Result<(), JobError> {
        let name = &identity.cluster;
        match &self.queue {
            Ok(queue) if queue.jobs.contains_key(name) => Ok(()),
            _ => match self.status_of_missing::<B>(identity, facts)? {
                status if status.is_done => Ok(()),
                status => Err(unknown(status.message.unwrap_or_default())),
            },
        }
    }

    /// Returns the status of a job. An error means that it is not known now, or of kind `NotFound` that there is no such job.
    pub(super) fn status<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Result<JobStatus, JobError> {
        self.check_cloud::<B>(identity)?;
        match self.find::<B>(identity, facts) {
            Found::Own(job) => Ok(JobStatus {
                message: self.why_waiting(job, &identity.cluster),
                ..status_of_row(job, identity)
            }),
            Found::Uncertain(job) => {
                let row = status_of_row(job, identity);
                Ok(JobStatus {
                    status: status::UNKNOWN.to_owned(),
                    state: JobState::Unknown,
                    message: Some(format!(
                        "{}; there it is {}",
                        uncertain(identity),
                        row.status
                    )),
                    ..row
                })
            }
            Found::Another => Ok(cluster_recreated(&identity.cluster)),
            Found::Nothing => self.status_of_missing::<B>(identity, facts),
        }
    }

    /// Says what a job waits for: a cluster runs its jobs in the order of their ids, as far as there is room.
    fn why_waiting(&self, job: &QueuedJob, cluster: &str) -> Option<String> {
        let is_over = |status: &str| parse::state_of(status).is_some_and(|(_, is_done)| is_done);
        let jobs = self.jobs(cluster).iter();
        let before = jobs
            .filter(|other| number(other) < number(job) && !is_over(&other.status))
            .count();
        let jobs = match before {
            1 => "an earlier job".to_owned(),
            _ => format!("{before} earlier jobs"),
        };
        (job.status == "PENDING" && before > 0)
            .then(|| format!("it waits for {jobs} of cluster {cluster}"))
    }

    /// Returns the status of a job that no queue lists. Its cluster is gone only where SkyPilot says so, and says nothing else.
    fn status_of_missing<B: CloudBackend>(
        &self,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) -> Result<JobStatus, JobError> {
        let name = &identity.cluster;
        if self.is_own_cluster::<B>(identity, facts) == Some(false) {
            return Ok(cluster_recreated(name));
        }
        let reason = match &self.queue {
            Ok(queue) if queue.jobs.contains_key(name) => {
                if !B::IDS_RESTART || identity.job_id.is_empty() {
                    return Err(no_such_job(identity));
                }
                let id = &identity.oumi_job_id;
                return Err(unknown(format!(
                    "job {id} is not in the queue of cluster {name}"
                )));
            }
            Ok(queue) => match queue.unanswered.get(name) {
                Some(QueueFailure::ClusterGone) => return Ok(cluster_gone(name)),
                Some(QueueFailure::ClusterNotUp(reason) | QueueFailure::Other(reason)) => unknown(
                    format!("the queue of cluster {name} could not be read: {reason}"),
                ),
                None => unknown(format!("`sky queue` said nothing of cluster {name}")),
            },
            Err(error) => error.clone(),
        };
        let Some(list) = self.cluster_list() else {
            return Err(reason);
        };
        let mut failures = self
            .queue
            .iter()
            .flat_map(|queue| queue.unanswered.get(name));
        let is_there = failures.any(|failure| matches!(failure, QueueFailure::ClusterNotUp(_)));
        match list.get(name) {
            Some(cluster) if cluster.status != "UP" => Ok(cluster_not_up(name, cluster)),
            None if !is_there => Ok(cluster_gone(name)),
            _ => Err(reason),
        }
    }

    /// Adds its cluster to a status, with a warning if the job has ended and the cluster still costs money.
    pub(super) fn add_cluster(&self, status: &mut JobStatus, name: &str) {
        let cluster = self.cluster_list().and_then(|list| list.get(name));
        // What is there now is not the cluster that is gone.
        if let Some(cluster) = cluster.filter(|_| status.status != status::CLUSTER_GONE) {
            status.details.cluster = Some(cluster_details(cluster));
            if status.is_done && cluster.status == "UP" {
                let note = super::clusters::cost_note(cluster);
                status.warnings.push(format!("its {note}"));
            }
        }
    }
}

fn unknown(reason: String) -> JobError {
    JobError::failed(reason).with_hint("ask again in a minute")
}

/// Says that the job on a cluster may be another one than `identity`.
fn uncertain(identity: &JobIdentity) -> String {
    format!(
        "it is not certain that job {} on cluster {} is this one, since nothing was kept of it to compare",
        identity.oumi_job_id, identity.cluster
    )
}

pub(super) fn status_of_row(job: &QueuedJob, identity: &JobIdentity) -> JobStatus {
    let meaning = parse::state_of(&job.status);
    let (state, is_done) = meaning.unwrap_or((JobState::Unknown, false));
    let mut status = JobStatus::new(&job.status, state, is_done);
    if meaning.is_none() {
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
    status
}

pub(in crate::launcher) fn no_such_job(identity: &JobIdentity) -> JobError {
    JobError::not_found(format!(
        "cluster {} on {} has no job {:?}",
        identity.cluster, identity.cloud, identity.oumi_job_id
    ))
    .with_hint("call list_jobs for the jobs it has")
}

/// The outcome of a cancel that found the job in this final status.
pub(super) fn already_finished(status: JobStatus) -> CancelOutcome {
    let first_warning = status.warnings.into_iter().next();
    CancelOutcome::AlreadyFinished {
        status: status.status,
        state: status.state,
        message: status.message.or(first_warning),
    }
}
