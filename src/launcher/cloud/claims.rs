//! The job of a launch among those of its cluster: what tells one from another, and which launch has which.

use std::time::{Duration, SystemTime};

use super::launch_dir::{ClusterBefore, Launch, Verdict, number, seconds};
use crate::parse::sky::{Cluster, QueuedJob};

/// The shortest time in which a cluster can be deleted, created again under its name, and given a job.
const RECREATION: Duration = Duration::from_secs(60);
/// The most that the clock of SkyPilot's API server may be behind ours.
const MAX_SKEW: Duration = Duration::from_secs(300);

impl Launch {
    /// Tells whether a job may have come onto the cluster with this launch, or after it: by its name, its run or the id that was
    /// printed, and its number.
    pub(super) fn may_have_launched(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        let is_new = |before: &ClusterBefore| {
            let hashes = before.cluster_hash.as_deref().zip(cluster_hash);
            number(job) > before.last_job_id || hashes.is_some_and(|(one, other)| one != other)
        };
        // The queue may call the job otherwise. A run is named to the microsecond, and no other launch's.
        let has_time = |run: &String| run.len() == "sky-2026-11-24-19-18-45-442134".len();
        let has_run = self.printed.run.as_ref().is_some_and(has_time);
        let before = self.start.before.as_ref();
        let is_printed = self.printed.oumi_job_id.as_ref() == Some(&job.job_id);
        // A name that the config gives may be a colleague's too.
        let may_be_named = is_printed || job.user.is_none();
        let is_its = may_be_named && job.job_name == self.start.name
            || has_run && self.is_of_run(job) == Some(true)
            || is_printed && self.printed.is_detached && before.is_some();
        is_its && before.is_none_or(is_new)
    }

    /// Tells whether a cluster of the name is the one that the launch went onto: it was there before, or the launch ended so lately
    /// that it cannot have been deleted and created again.
    pub(super) fn is_on_same_cluster(&self, cluster_hash: Option<&str>) -> bool {
        let before = self.start.before.as_ref();
        let before = before.and_then(|before| before.cluster_hash.as_deref());
        let age = self
            .last_output_at
            .map(|at| seconds(SystemTime::now()) - at);
        age.is_some_and(|age| (-1.0..RECREATION.as_secs_f64()).contains(&age))
            || (before.is_some() && before == cluster_hash)
    }

    /// Tells whether a cluster of the name is the one that the launch went onto, however long ago; `None` where that is not certain.
    pub(super) fn went_onto(&self, cluster: &Cluster) -> Option<bool> {
        if self.is_on_same_cluster(cluster.cluster_hash.as_deref()) {
            return Some(true);
        }
        let before = self.start.before.as_ref()?;
        if let Some(hash) = &before.cluster_hash {
            return Some(hash == cluster.cluster_hash.as_ref()?);
        }
        let launched_at = cluster.launched_at?;
        // In whole seconds. SkyPilot sets it again when the cluster is up, and with each later launch: a late one tells nothing.
        let earlier = self.started_at? - launched_at;
        if earlier > 2.0 {
            // The clock is that of its API server, which may be another machine.
            return (earlier > MAX_SKEW.as_secs_f64()).then_some(false);
        }
        (launched_at <= self.last_output_at? + 1.0 && !self.printed.is_onto_existing)
            .then_some(true)
    }

    /// Tells whether a job is of the run that the launcher printed; `None` where one of them is not known.
    pub(super) fn is_of_run(&self, job: &QueuedJob) -> Option<bool> {
        let (_, folder) = job.log_path.rsplit_once('/')?;
        let run = self.printed.run.as_deref()?;
        folder.starts_with("sky-").then(|| folder == run)
    }

    /// Tells if this job was found to be the launch's.
    fn has(&self, job: &QueuedJob, cluster_hash: Option<&str>) -> bool {
        match &self.verdict {
            Some(Verdict::Job(id, mark)) => *id == job.job_id && mark.fits(job, cluster_hash),
            _ => false,
        }
    }

    /// Tells if the launch printed the id of this job, and none was found to be its.
    fn has_printed(&self, job: &QueuedJob) -> bool {
        self.mark().is_none() && self.printed.oumi_job_id.as_ref() == Some(&job.job_id)
    }
}

/// Finds the job of a launch among the `jobs` of its cluster. A job that one of the `others`, the other launches onto it, has
/// claimed is not found again. Of several launches that were cut off, the one that began first has the job that came first.
pub(super) fn find_job<'q>(
    launch: &Launch,
    jobs: &'q [QueuedJob],
    cluster_hash: Option<&str>,
    others: &[Launch],
) -> Option<&'q QueuedJob> {
    let may_be_own = |job: &&QueuedJob| {
        launch.may_have_launched(job, cluster_hash)
            && launch.is_of_run(job) != Some(false)
            && !others.iter().any(|other| other.has(job, cluster_hash))
    };
    let mut free: Vec<&QueuedJob> = jobs.iter().filter(may_be_own).collect();
    let is_of_run = |job: &&&QueuedJob| launch.is_of_run(job) == Some(true);
    let mut of_run = free.iter().filter(is_of_run);
    if let (Some(job), None) = (of_run.next(), of_run.next()) {
        return Some(job);
    }
    if launch.failure.is_some() && !launch.printed.is_submitted {
        // Its run alone tells: what failed earlier has no job.
        return None;
    }
    if let Some(id) = launch.oumi_job_id() {
        let own = free.into_iter().find(|job| job.job_id == *id);
        return own.filter(|_| launch.is_on_same_cluster(cluster_hash));
    }
    let is_rival = |other: &&Launch| {
        let is_over = other.is_cancelled() || other.failure.is_some();
        other.start.name == launch.start.name && other.oumi_job_id().is_none() && !is_over
    };
    let rivals: Vec<&Launch> = others.iter().filter(is_rival).collect();
    // The output of one that runs will say which job is its.
    if launch.start.before.is_none() || rivals.iter().any(|rival| !rival.has_ended) {
        return None;
    }
    let is_earlier = |rival: &&&Launch| rival.started_at < launch.started_at;
    let earlier = rivals.iter().filter(is_earlier).count();
    free.retain(|job| !others.iter().any(|other| other.has_printed(job)));
    free.sort_by_key(|job| number(job));
    free.into_iter().nth(earlier)
}
