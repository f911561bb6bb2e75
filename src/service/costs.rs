//! What a launch costs, beside what is up already: shown before it, and held against the limit of the policy.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::Context;
use crate::error::{JobError, Result};
use crate::launcher::{ClusterInfo, LaunchPlan, Offer};
use crate::process::runner::until;
use crate::registry::JobRecord;
use crate::settings::env_vars::MAX_HOURLY;

/// The wait for prices. A launch is shown without those that take longer.
const PRICES_WAIT: Duration = Duration::from_secs(12);

/// The costs of a launch that may be billed.
#[derive(Clone)]
pub(super) struct Costs {
    pub(super) offer: Offer,
    /// The clusters that are up, whoever launched them.
    up: Result<Vec<ClusterInfo>>,
    /// The jobs whose launch had ended before that was asked. The cluster of another may have come up since.
    launched: HashSet<String>,
}

impl Costs {
    /// Asks for the price of a launch, onto `existing` where its cluster is there, and for what is up. `None` where nothing is billed.
    pub(super) async fn of(
        context: &Context,
        cloud: &str,
        plan: &LaunchPlan,
        existing: Option<&ClusterInfo>,
        records: &[JobRecord],
    ) -> Option<Self> {
        let deadline = Instant::now() + PRICES_WAIT;
        let launched = records.iter().filter(|job| !context.is_launching(job));
        let launched = launched.map(|job| job.job_id.clone()).collect();
        let is_used = |name: &str| name == cloud || records.iter().any(|job| job.cloud == *name);
        let launchers = context.launchers.iter();
        let used = launchers.filter(|launcher| launcher.clouds().iter().any(|name| is_used(name)));
        let up = join_all(used.map(|launcher| launcher.clusters(None)));
        let launcher = context.launcher(cloud).ok()?;
        let offer = async {
            match existing {
                Some(cluster) => Some(cluster.offer.clone()),
                None => launcher.offer(plan).await,
            }
        };
        let (offer, up) = until(deadline, async { tokio::join!(offer, up) }).await;
        let up: Result<Vec<_>> = up.into_iter().collect();
        Some(Self {
            offer: offer?,
            up: up.map(|lists| lists.concat()),
            launched,
        })
    }

    /// Describes what is up already; empty where nothing is.
    pub(super) fn up_text(&self) -> String {
        let up = match &self.up {
            Err(error) => return format!("which clusters are up is not known: {error}"),
            Ok(up) if up.is_empty() => return String::new(),
            Ok(up) => up,
        };
        let mut text = match up.len() {
            1 => "1 cluster is up".to_owned(),
            count => format!("{count} clusters are up"),
        };
        let prices: Vec<f64> = up.iter().filter_map(|one| one.offer.highest()).collect();
        if !prices.is_empty() {
            let together = if prices.len() > 1 { " together" } else { "" };
            text += &format!(", ${:.2} an hour{together}", prices.iter().sum::<f64>());
        }
        if up.len() > prices.len() {
            let unknown = up.len() - prices.len();
            text += &format!("; the price of {unknown} is not known");
        }
        text
    }

    /// Refuses a launch onto `cluster` above the limit of costs. Where a price is not known it refuses too, or returns the doubt for
    /// the user to see, if they can be asked. Does file work.
    pub(super) fn check_limit(
        &self,
        context: &Context,
        cluster: &str,
        records: &[JobRecord],
        can_ask: bool,
    ) -> Result<Option<String>> {
        let Some(limit) = context.policy.max_hourly else {
            return Ok(None);
        };
        let (sum, mut unknown) = self.launched_here(context, cluster, records);
        let rule = format!(
            "{MAX_HOURLY} allows ${limit:.2} an hour for all that was launched here, and other clusters use ${sum:.2} of it"
        );
        match self.offer.highest() {
            Some(price) if sum + price > limit + 0.005 => {
                let error = format!("{rule}: the cluster of this job costs ${price:.2}");
                return Err(JobError::blocked(error).with_hint(
                    "ask for less, or end a cluster that list_jobs shows; only the user can change the limit",
                ));
            }
            Some(_) => {}
            None => unknown.push("this job".to_owned()),
        }
        let doubt = format!("{rule}; the price of {} is not known", unknown.join(", "));
        match unknown.as_slice() {
            [] => Ok(None),
            _ if can_ask => Ok(Some(doubt)),
            _ => Err(
                JobError::blocked(format!("{doubt}, and the client cannot ask its user"))
                    .with_hint("ask for machines whose price is known; down_cluster ends a cluster whose price is not"),
            ),
        }
    }

    /// Adds up what this registry launched and is up or coming up, the cluster `except` aside. Names what has no known price.
    fn launched_here(
        &self,
        context: &Context,
        except: &str,
        records: &[JobRecord],
    ) -> (f64, Vec<String>) {
        let mut clusters: BTreeMap<&str, Option<f64>> = BTreeMap::new();
        for job in records {
            let name = job.cluster_name.as_str();
            if [except, ""].contains(&name) || context.is_local(&job.cloud) {
                continue;
            }
            let up = self.up.iter().flatten().find(|up| up.name == name);
            let is_new = !self.launched.contains(&job.job_id);
            if up.is_some() || is_new || context.is_launching(job) {
                let price = up.and_then(|up| up.offer.highest());
                let launcher = context.launcher(&job.cloud).ok();
                let price = price.or_else(|| launcher?.launch_price(&job.identity()));
                let known = clusters.entry(name).or_default();
                // Two clusters may have had the name one after the other: the higher price counts.
                *known = known.iter().copied().chain(price).reduce(f64::max);
            }
        }
        let unknown = clusters.iter().filter(|(_, price)| price.is_none());
        let mut unknown: Vec<String> = unknown.map(|(name, _)| format!("cluster {name}")).collect();
        if let Err(error) = &self.up {
            unknown.push(format!("what is up ({error})"));
        }
        // `sum` of no prices would be -0.
        let prices = clusters.values().flatten();
        (prices.fold(0.0, |sum, price| sum + price), unknown)
    }
}
