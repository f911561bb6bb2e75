//! The job of a launch among those of its cluster: what tells one from another, and which launch has which.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::launch_dir::{ClusterBefore, LaunchFacts, LaunchState, number, seconds};
use crate::parse::sky::QueuedJob;

/// The shortest time in which a cluster can be deleted, created again under its name, and given a job.
const RECREATION: Duration = Duration::from_secs(60);

/// What tells a job apart from another that has its id on a cluster of its name. All of it is as SkyPilot gave it: the clocks of
/// this machine and of the cluster differ.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct JobMark {
    pub(super) cluster_hash: Option<String>,
    pub(super) submitted_at: Option<f64>,
    pub(super) job_name: String,
    /// Names the launch, to the microsecond. Empty where SkyPilot does not tell it.
    #[serde(default)]
    pub(super) log_path: String,
}

impl JobMark {
    /// The mark of a job on the cluster with this hash. `None` where it would tell nothing apart.
    pub(super) fn of(job: &QueuedJob, cluster_hash: Option<&str>) -> Option<Self> {
        let mark = Self {
            cluster_hash: cluster_hash.map(ToOwned::to_owned),
            submitted_at: job.submitted_at,
            job_name: job.job_name.clone(),
            log_path: job.log_path.clone(),
        };
        (mark.cluster_hash.is_some() || mark.submitted_at.is_some()).then_some(mark)
    }

    pub(super) fn fits(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        // A time that was written and read again may differ in its last digit.
        let is_near = |(one, other): (f64, f64)| (one - other).abs() < 0.001;
        let times = self.submitted_at.zip(job.submitted_at);
        let paths = [&self.log_path, &job.log_path];
        self.job_name == job.job_name
            && times.is_none_or(is_near)
            && (paths[0] == paths[1] || paths.iter().any(|path| path.is_empty()))
            && self.is_of_cluster(cluster_hash) != Some(false)
    }

    /// Tells whether a cluster is the job's own; `None` where one of the hashes is not known.
    pub(super) fn is_of_cluster(&self, cluster_hash: Option<&str>) -> Option<bool> {
        Some(self.cluster_hash.as_deref()? == cluster_hash?)
    }
}

impl LaunchFacts {
    /// Tells whether a job came onto the cluster with this launch, or after it, by its name and number; `None` where the cluster as
    /// it was before is not known.
    pub(super) fn may_have_launched(
        &self,
        job: &QueuedJob,
        cluster_hash: Option<&str>,
    ) -> Option<bool> {
        let is_new = |before: &ClusterBefore| {
            let hashes = before.cluster_hash.as_deref().zip(cluster_hash);
            number(job) > before.last_job_id || hashes.is_some_and(|(one, other)| one != other)
        };
        if job.job_name != self.start.name {
            return Some(false);
        }
        self.start.before.as_ref().map(is_new)
    }

    /// Tells whether the launch ended so lately that its cluster cannot have been deleted and created again.
    fn has_just_ended(&self) -> bool {
        let age = |ended_at: f64| seconds(SystemTime::now()) - ended_at;
        let age = self.last_output_at.map(age);
        age.is_some_and(|age| (-1.0..RECREATION.as_secs_f64()).contains(&age))
    }

    fn is_on_same_cluster(&self, cluster_hash: Option<&str>) -> bool {
        let before = self.start.before.as_ref();
        let before = before.and_then(|before| before.cluster_hash.as_deref());
        before.is_some() && before == cluster_hash
    }

    /// Tells whether a job is of the run that the launcher printed; `None` where one of them is not known.
    fn is_of_run(&self, job: &QueuedJob) -> Option<bool> {
        let (_, folder) = job.log_path.rsplit_once('/')?;
        let run = self.run.as_deref()?;
        folder.starts_with("sky-").then(|| folder == run)
    }
}

impl LaunchState {
    /// The job is known to be this launch's.
    fn has_claimed(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        let mark = self.facts.mark.as_ref();
        self.facts.oumi_job_id.as_ref() == Some(&job.job_id)
            && mark.is_some_and(|mark| mark.fits(job, cluster_hash))
    }

    /// The launch may still have a job of this name, and none is known to be its.
    fn may_claim(&self, name: &str) -> bool {
        let is_cancelled = self.exit.as_ref().is_some_and(|exit| exit.cancelled);
        self.facts.start.name == name
            && self.facts.oumi_job_id.is_none()
            && self.failure.is_none()
            && !is_cancelled
    }
}

/// Finds the job of a launch among the `jobs` of its cluster. A job that one of the `others`, the other launches, has claimed is
/// not found again. Of several launches that were cut off, the one that began first has the job that came first.
pub(super) fn find_job<'q>(
    facts: &LaunchFacts,
    jobs: &'q [QueuedJob],
    cluster_hash: Option<&str>,
    others: &[LaunchState],
) -> Option<&'q QueuedJob> {
    let (name, cluster) = (&facts.start.name, &facts.start.cluster);
    let on_cluster = |other: &&LaunchState| other.facts.start.cluster == *cluster;
    let others: Vec<&LaunchState> = others.iter().filter(on_cluster).collect();
    let is_free = |job: &&QueuedJob| {
        let mut others = others.iter();
        !others.any(|other| other.has_claimed(job, cluster_hash))
    };
    let mut free: Vec<&QueuedJob> = jobs.iter().filter(is_free).collect();
    free.retain(|job| facts.is_of_run(job) != Some(false));
    let may_be_own = |job: &QueuedJob| facts.may_have_launched(job, cluster_hash);
    let of_run = free
        .iter()
        .copied()
        .filter(|job| facts.is_of_run(job) == Some(true) && may_be_own(job) != Some(false));
    if let [job] = of_run.collect::<Vec<_>>()[..] {
        return Some(job);
    }
    if let Some(id) = &facts.oumi_job_id {
        let own = free.into_iter().find(|job| job.job_id == *id);
        let is_certain = facts.has_just_ended() || facts.is_on_same_cluster(cluster_hash);
        return own.filter(|job| is_certain && may_be_own(job) != Some(false));
    }
    let rivals = others.iter().filter(|other| other.may_claim(name));
    if rivals.clone().any(|rival| !rival.has_ended) {
        // Its own words will say which job is its.
        return None;
    }
    let earlier = rivals.filter(|rival| rival.facts.started_at < facts.started_at);
    let is_printed = |job: &QueuedJob| {
        let mut ids = others.iter().map(|other| &other.facts);
        ids.any(|other| other.mark.is_none() && other.oumi_job_id.as_ref() == Some(&job.job_id))
    };
    let mut candidates = free;
    candidates.retain(|job| may_be_own(job) == Some(true) && !is_printed(job));
    candidates.sort_by_key(|job| number(job));
    candidates.into_iter().nth(earlier.count())
}
