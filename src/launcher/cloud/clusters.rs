//! Clusters: their clouds, their ends, and what they cost.

use std::time::SystemTime;

use super::autostop::stays_up;
use super::launch_dir::seconds;
use crate::launcher::{ClusterDetails, JobStatus};
use crate::parse::sky::Cluster;

pub(super) fn cluster_details(cluster: &Cluster) -> ClusterDetails {
    ClusterDetails {
        cluster_status: cluster.status.clone(),
        autostop_minutes: cluster.autostop_minutes,
        hourly_price: cluster.hourly_price,
    }
}

/// Adds to the status of a job its cluster, with a warning if the job has ended and the cluster still costs money.
pub(super) fn add_cluster(status: &mut JobStatus, cluster: &Cluster) {
    status.details.cluster = Some(cluster_details(cluster));
    if status.is_done && cluster.status == "UP" {
        status.warnings.push(format!("its {}", cost_note(cluster)));
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
    let price = cluster.hourly_price;
    let price = price.map_or_else(String::new, |price| format!(" at ${price:.2} an hour"));
    let cloud = cluster.cloud.as_deref().unwrap_or("of an unknown cloud");
    format!(
        "cluster {} ({cloud}) is still up{price} and {autostop}; stop_cluster stops it, down_cluster deletes it",
        cluster.name
    )
}

/// Multiplies the price of a cluster that is up by its time since it was launched.
pub(super) fn price_times_time(cluster: &Cluster) -> Option<String> {
    let (price, since) = cluster.hourly_price.zip(cluster.launched_at)?;
    let hours = (seconds(SystemTime::now()) - since).max(0.0) / 3600.0;
    (cluster.status == "UP").then(|| format!("${:.2} (price × time)", price * hours))
}
