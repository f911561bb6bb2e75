//! The price of the cluster of a job, and what it has cost.

use std::time::{SystemTime, UNIX_EPOCH};

use super::clusters::ends_by_itself;
use super::launch_dir::LaunchFacts;
use super::survey::Survey;
use crate::launcher::{JobIdentity, JobStatus};
use crate::parse::sky::Cluster;

impl Survey {
    /// Adds to a cluster without a price what its launch was told.
    pub(super) fn add_price(&mut self, facts: &LaunchFacts) {
        let Ok(Some(list)) = &mut self.clusters else {
            return;
        };
        let own = |cluster: &&mut Cluster| facts.is_of_cluster(cluster);
        for cluster in list.clusters.iter_mut().filter(own) {
            let chosen = facts.chosen.as_ref().filter(|_| !facts.is_onto_existing);
            let chosen = chosen.map(|chosen| chosen.hourly_price);
            cluster.hourly_price = cluster.hourly_price.or(chosen);
        }
    }

    /// Returns the cluster of a job, where it is not certainly another one of its name.
    fn own_cluster(&self, identity: &JobIdentity, facts: Option<&LaunchFacts>) -> Option<&Cluster> {
        let cluster = self.cluster_list()?.get(&identity.cluster)?;
        facts
            .is_none_or(|facts| facts.is_of_cluster(cluster))
            .then_some(cluster)
    }

    /// Adds to the status of a job what its cluster costs and has cost.
    pub(super) fn add_costs(
        &self,
        status: &mut JobStatus,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) {
        let cluster = self.own_cluster(identity, facts);
        let details = &mut status.details;
        details.hourly_price = cluster.and_then(|cluster| cluster.hourly_price);
        let mark = facts.and_then(|facts| facts.mark.as_ref());
        let hash = mark.and_then(|mark| mark.cluster_hash.as_ref());
        let hash = hash.or_else(|| cluster?.cluster_hash.as_ref());
        let mut report = self.costs.iter();
        let reported = report.find(|cost| Some(&cost.cluster_hash) == hash);
        details.spent = match (reported, cluster) {
            (Some(cost), _) if cost.dollars > 0.0 => {
                Some(format!("${:.2} (cost report)", cost.dollars))
            }
            (None, Some(cluster)) => estimate(cluster),
            _ => None,
        };
    }

    /// Warns of a cluster that never ends by itself, while the job on it runs.
    pub(super) fn warn_of_no_end(
        &self,
        status: &mut JobStatus,
        identity: &JobIdentity,
        facts: Option<&LaunchFacts>,
    ) {
        let is_pending = facts.is_some_and(|facts| facts.is_autostop_pending);
        if let Some(cluster) = self.own_cluster(identity, facts)
            && !(status.is_done || is_pending || ends_by_itself(cluster))
            && cluster.status == "UP"
        {
            status.warnings.push(format!(
                "cluster {} stays up until someone ends it: down_cluster deletes it",
                cluster.name
            ));
        }
    }
}

/// Multiplies the price of a cluster that is up by its time since it was launched.
fn estimate(cluster: &Cluster) -> Option<String> {
    let (price, since) = cluster.hourly_price.zip(cluster.launched_at)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let hours = (now.as_secs_f64() - since).max(0.0) / 3600.0;
    (cluster.status == "UP").then(|| format!("${:.2} (price × time)", price * hours))
}
