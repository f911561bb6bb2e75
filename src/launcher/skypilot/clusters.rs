//! What is said of SkyPilot's clusters: how a job is whose cluster cannot be asked, and what a cluster costs.

use crate::launcher::{ClusterDetails, ClusterInfo, JobState, JobStatus, Listing, status};
use crate::parse;
use crate::parse::sky::{Cluster, Queue, QueuedJob};

pub(super) fn cluster_gone(cluster: &str) -> JobStatus {
    let mut status = JobStatus::new(status::CLUSTER_GONE, JobState::Unknown, true);
    status.message = Some(format!(
        "cluster {cluster} is not there any more, and how the job ended went with it"
    ));
    status
}

/// A job of ours that its cluster, which answers, does not have: jobs stay in a cluster's queue for as long as it is there.
pub(super) fn cluster_made_anew(cluster: &str) -> JobStatus {
    let mut status = cluster_gone(cluster);
    status.message = Some(format!(
        "the cluster that was called {cluster} is gone, and how the job ended went with it; there is another of that name now"
    ));
    status
}

pub(super) fn cluster_not_up(name: &str, clusters: &[Cluster]) -> JobStatus {
    let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) else {
        return cluster_gone(name);
    };
    let stopped = cluster.status == "STOPPED";
    let mut status = JobStatus::new(
        &format!("cluster_{}", cluster.status.to_lowercase()),
        JobState::Unknown,
        stopped,
    );
    status.message = Some(if stopped {
        format!(
            "cluster {name} is stopped: nothing runs on it, and how the job ended cannot be asked"
        )
    } else {
        format!(
            "cluster {name} is {}, and its jobs cannot be asked about now",
            cluster.status
        )
    });
    status.details.cluster = Some(cluster_details(cluster));
    status
}

pub(super) fn cluster_details(cluster: &Cluster) -> ClusterDetails {
    ClusterDetails {
        cluster_status: cluster.status.clone(),
        autostop_minutes: cluster.autostop_minutes,
        hourly_price: cluster.hourly_price,
    }
}

/// The cloud of a cluster, by the name Oumi gives it.
pub(super) fn cloud_of(cluster: &Cluster) -> Option<String> {
    let cloud = cluster.cloud.as_ref()?.to_lowercase();
    Some(match cloud.as_str() {
        "kubernetes" => "k8s".to_owned(),
        "slurm" => "sky-slurm".to_owned(),
        _ => cloud,
    })
}

pub(super) fn cluster_facts(cluster: &Cluster) -> ClusterInfo {
    let made_of = cluster.resources.as_ref().or(cluster.accelerators.as_ref());
    let about = [Some(&cluster.status), made_of, cluster.region.as_ref()];
    ClusterInfo {
        cloud: cloud_of(cluster),
        summary: about
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
        hourly_price: cluster.hourly_price,
    }
}

/// Names the clusters that are up with no live job: they cost money for nothing.
pub(super) fn mention_clusters(listing: &mut Listing, queue: Option<&Queue>, clusters: &[Cluster]) {
    let Some(queue) = queue else { return };
    for cluster in clusters.iter().filter(|cluster| cluster.status == "UP") {
        let jobs = queue.jobs.get(&cluster.name);
        // Where the jobs are not known, nobody can say that none lives.
        let Some(jobs) = jobs else { continue };
        let is_done =
            |job: &QueuedJob| parse::state_of(&job.status).is_some_and(|(_, is_done)| is_done);
        if jobs.iter().all(is_done) {
            listing
                .warnings
                .push(format!("no job lives on it: {}", still_up(cluster)));
        }
    }
}

pub(super) fn still_up(cluster: &Cluster) -> String {
    let autostop = match cluster.autostop_minutes {
        Some(minutes) if cluster.to_down => format!("deletes itself after {minutes} idle minutes"),
        Some(minutes) => format!("stops itself after {minutes} idle minutes"),
        None => "does not stop by itself".to_owned(),
    };
    let price = cluster
        .hourly_price
        .map_or_else(String::new, |price| format!(" at {price:.2} $/h"));
    format!(
        "cluster {} ({}) is still up{price} and {autostop}; stop_cluster stops it, down_cluster deletes it",
        cluster.name,
        cluster.cloud.as_deref().unwrap_or("of an unknown cloud")
    )
}

pub(super) fn setup_is_skipped() -> &'static str {
    "the job is added to it and SkyPilot skips its `setup`"
}

pub(super) fn setup_skipped(cluster: &str) -> String {
    format!(
        "cluster {cluster} was there before: SkyPilot added the job to it and skipped its `setup`"
    )
}
