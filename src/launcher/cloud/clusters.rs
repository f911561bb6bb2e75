//! Clusters: the status of a job whose cluster is gone or not up, and costs.

use chrono::DateTime;

use super::autostop::stays_up;
use crate::launcher::{ClusterDetails, ClusterInfo, JobState, JobStatus, Listing, Offer, status};
use crate::parse;
use crate::parse::sky::{Cluster, Queue, QueuedJob};

pub(super) fn cluster_gone(cluster: &str) -> JobStatus {
    let mut status = JobStatus::new(status::CLUSTER_GONE, JobState::Unknown, true);
    status.message = Some(format!(
        "cluster {cluster} is not there any more, and the job's result went with it"
    ));
    status
}

/// The status of a job whose cluster was deleted, and another of the same name created.
pub(super) fn cluster_recreated(cluster: &str) -> JobStatus {
    let mut status = cluster_gone(cluster);
    status.message = Some(format!(
        "the cluster {cluster} of this job is gone, and the job's result with it; the cluster of that name is another one"
    ));
    status
}

pub(super) fn cluster_not_up(name: &str, cluster: &Cluster) -> JobStatus {
    let stopped = cluster.status == "STOPPED";
    let word = format!("cluster_{}", cluster.status.to_lowercase());
    let mut status = JobStatus::new(&word, JobState::Unknown, stopped);
    status.message = Some(if stopped {
        format!(
            "cluster {name} is stopped: nothing runs on it, and the job's result cannot be read"
        )
    } else {
        let word = &cluster.status;
        format!("cluster {name} is {word}, and the status of its jobs cannot be read now")
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

/// The cloud of a cluster, by Oumi's name.
pub(super) fn cloud_of(cluster: &Cluster) -> Option<String> {
    let cloud = cluster.cloud.as_ref()?.to_lowercase();
    Some(match cloud.as_str() {
        "kubernetes" => "k8s".to_owned(),
        "slurm" => "sky-slurm".to_owned(),
        _ => cloud,
    })
}

pub(super) fn cluster_info(cluster: &Cluster, offer: Offer) -> ClusterInfo {
    let resources = cluster.resources.as_ref().or(cluster.accelerators.as_ref());
    let parts = [Some(&cluster.status), resources, cluster.region.as_ref()];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    ClusterInfo {
        cloud: cloud_of(cluster),
        summary: parts.join(", "),
        offer,
    }
}

/// Warns of the clusters that are up and have no live job.
pub(super) fn warn_about_idle(listing: &mut Listing, queue: &Queue, clusters: &[Cluster]) {
    let is_done =
        |job: &QueuedJob| parse::state_of(&job.status).is_some_and(|(_, is_done)| is_done);
    for cluster in clusters.iter().filter(|cluster| cluster.status == "UP") {
        // A cluster that did not answer may have live jobs.
        let jobs = queue.jobs.get(&cluster.name);
        if jobs.is_some_and(|jobs| jobs.iter().all(is_done)) {
            let ends = jobs.into_iter().flatten().filter_map(|job| job.end_at);
            let since = ends.reduce(f64::max).or(cluster.launched_at);
            let since = since.and_then(|at| DateTime::from_timestamp(at as i64, 0));
            let since = since.map_or_else(String::new, |at| {
                at.format(" since %Y-%m-%dT%H:%MZ").to_string()
            });
            let note = cost_note(cluster);
            listing
                .warnings
                .push(format!("no job lives on it{since}: {note}"));
        }
    }
}

/// Tells if an idle cluster ends by itself: an autostop that SkyPilot has accepted need not happen.
pub(super) fn ends_by_itself(cluster: &Cluster) -> bool {
    let stays = cloud_of(cluster).is_some_and(|cloud| stays_up(&cloud));
    cluster.autostop_minutes.is_some() && !stays
}

pub(super) fn cost_note(cluster: &Cluster) -> String {
    let autostop = match cluster.autostop_minutes {
        Some(_) if !ends_by_itself(cluster) => {
            "does not end by itself, whatever its autostop says".to_owned()
        }
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
