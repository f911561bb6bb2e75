//! What a cluster costs, and how it ends: by itself, or by a call.

use std::time::SystemTime;

use super::launch_dir::seconds;
use crate::launcher::{ClusterDetails, JobDetails, oumi_cloud};
use crate::parse::sky::{Cluster, QueuedJob};

/// Tells if the machines of a cluster are stopped: they cost nothing, and an autostop has nothing left to do.
pub(super) fn is_stopped(cluster: &Cluster) -> bool {
    cluster.status == "STOPPED"
}

impl JobDetails {
    pub(super) fn add_cluster(&mut self, cluster: &Cluster) {
        let is_billed = !is_stopped(cluster);
        self.hourly_price = cluster.hourly_price.filter(|_| is_billed);
        self.cluster = Some(ClusterDetails {
            cluster_status: cluster.status.clone(),
            autostop_minutes: cluster.autostop_minutes.filter(|_| is_billed),
        });
    }
}

/// Tells if this cloud, by Oumi's name, can stop a cluster: the others delete it.
pub(super) fn can_stop(cloud: &str, is_spot: bool) -> bool {
    match cloud {
        "gcp" | "nebius" => true,
        "aws" | "azure" => !is_spot,
        _ => false,
    }
}

/// Tells if an idle cluster of this cloud, by Oumi's name, stays up whatever autostop it has: SkyPilot 0.12 accepts one there.
pub(super) fn stays_up(cloud: &str) -> bool {
    cloud == "sky-slurm"
}

/// The cloud of a cluster, by Oumi's name.
pub(super) fn cloud_of(cluster: &Cluster) -> Option<String> {
    cluster.cloud.as_deref().map(oumi_cloud)
}

/// Tells if an idle cluster ends by itself: an autostop that SkyPilot has accepted need not happen.
pub(super) fn ends_by_itself(cluster: &Cluster) -> bool {
    let stays = cloud_of(cluster).is_some_and(|cloud| stays_up(&cloud));
    cluster.autostop_minutes.is_some() && !stays
}

/// Says how a cluster that is up ends once it is idle.
pub(crate) fn idle_end(cluster: &Cluster) -> String {
    match cluster.autostop_minutes {
        Some(_) if !ends_by_itself(cluster) => {
            "does not end by itself, whatever its autostop says".to_owned()
        }
        Some(minutes) if cluster.to_down => format!("deletes itself after {minutes} idle minutes"),
        Some(minutes) => format!("stops itself after {minutes} idle minutes"),
        None => "does not stop by itself".to_owned(),
    }
}

/// Says what a cluster that is not stopped costs, and how it ends.
pub(super) fn cost_note(cluster: &Cluster) -> String {
    let price = cluster.hourly_price;
    let price = price.map_or_else(String::new, |price| format!(" at ${price:.2} an hour"));
    let cloud = cluster.cloud.as_deref().unwrap_or("of an unknown cloud");
    let (name, status) = (&cluster.name, &cluster.status);
    if status != "UP" {
        return format!(
            "cluster {name} ({cloud}) is {status} and may cost money{price}; down_cluster deletes it"
        );
    }
    let stop = match cloud_of(cluster).is_some_and(|cloud| can_stop(&cloud, cluster.is_spot)) {
        true => "stop_cluster stops it, ",
        false => "",
    };
    format!(
        "cluster {name} ({cloud}) is still up{price} and {}; {stop}down_cluster deletes it",
        idle_end(cluster)
    )
}

pub(super) fn price_times_time(cluster: &Cluster, jobs: &[QueuedJob]) -> Option<String> {
    let (price, since) = cluster.hourly_price.zip(cluster.launched_at)?;
    let hours = (seconds(SystemTime::now()) - since).max(0.0) / 3600.0;
    // It is the time of the newest launch onto the cluster.
    let is_older = |job: &QueuedJob| job.submitted_at.is_some_and(|at| at < since);
    let least = if jobs.iter().any(is_older) {
        "at least "
    } else {
        ""
    };
    (cluster.status == "UP").then(|| format!("{least}${:.2} (price × time)", price * hours))
}
