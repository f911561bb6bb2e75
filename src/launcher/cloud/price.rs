//! The price of a launch or a cluster, from the catalog of its launcher: what a config asks for, times its nodes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::clusters::{cloud_of, idle_end, is_stopped};
use super::{CloudLauncher, is_plain};
use crate::error::Result;
use crate::launcher::job_yaml::is_on;
use crate::launcher::{ClusterInfo, Offer};
use crate::parse::prices::CatalogMachine;
use crate::parse::sky::Cluster;
use crate::sync::lock;

/// The time that an answer of the catalog is kept: SkyPilot fetches its catalog a few times a day.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// The clouds, by Oumi's names, whose machines are there anyway.
const UNBILLED: [&str; 5] = ["sky-slurm", "slurm", "polaris", "frontier", "perlmutter"];
/// The clouds without a catalog of prices. Of Kubernetes SkyPilot lists what is free instead.
const UNPRICED: [&str; 2] = ["k8s", "modal"];

/// A cloud by Oumi's name, accelerators such as `A100:8`, and if it was asked for the machines of each region.
type Query = (String, String, bool);

pub(super) type Prices = Mutex<HashMap<Query, (Instant, Vec<CatalogMachine>)>>;

impl CloudLauncher {
    pub(super) async fn describe(&self, cluster: &Cluster) -> ClusterInfo {
        let cloud = cloud_of(cluster);
        let mut offer = match cluster.hourly_price {
            Some(price) => Offer::known(price, "SkyPilot reports it"),
            None => self.price(cluster, cloud.as_deref()).await,
        };
        if offer.hourly.is_none() {
            let costs = self.backend.costs().await;
            let hash = cluster.cluster_hash.as_ref();
            if let Some(price) = hash.and_then(|hash| costs.get(hash)?.hourly_price) {
                offer = Offer::known(price, "by SkyPilot's cost report");
            }
        }
        let (name, status) = (&cluster.name, &cluster.status);
        let whose = cluster.user.iter().map(|user| format!(" of {user}"));
        let whose: String = whose.collect();
        // Of one that is stopped a launch sets it anew.
        let end = (status == "UP").then(|| format!(" and {}", idle_end(cluster)));
        let end = end.unwrap_or_default();
        let resources = cluster.resources.as_ref().or(cluster.accelerators.as_ref());
        let (place, region) = (cluster.cloud.as_ref(), cluster.region.as_ref());
        let user = cluster.user.as_ref();
        let by = user.map(|user| format!("launched by {user}"));
        let parts = [Some(status), resources, place, region, by.as_ref()];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        ClusterInfo {
            name: name.clone(),
            cloud,
            summary: parts.join(", "),
            is_stopped: is_stopped(cluster),
            offer: Offer {
                note: format!("cluster {name}{whose} is {status}{end}: {}", offer.note),
                ..offer
            },
        }
    }

    /// Prices what a job config asks for: from the cheapest to the dearest of its choices.
    pub(super) async fn price_config(&self, config: &Value) -> Offer {
        let choices = choices(config);
        let pricing = choices.iter();
        let pricing = pricing.map(|one| self.price(one, one.cloud.as_deref()));
        let mut offers = join_all(pricing).await;
        if offers.len() == 1 {
            return offers.remove(0);
        }
        let prices: Option<Vec<_>> = offers.iter().map(|offer| offer.hourly).collect();
        let range = |one: (f64, f64), other: (f64, f64)| (one.0.min(other.0), one.1.max(other.1));
        let notes: Vec<String> = offers.iter().map(Offer::text).collect();
        Offer {
            hourly: prices.into_iter().flatten().reduce(range),
            note: format!("it depends on the choice: {}", notes.join("; ")),
        }
    }

    /// Prices a cluster by its machines, which it has or is to have, and by Oumi's name of its cloud.
    async fn price(&self, cluster: &Cluster, cloud: Option<&str>) -> Offer {
        let (cloud, nodes) = (cloud.unwrap_or_default(), cluster.nodes);
        if UNBILLED.contains(&cloud) {
            return Offer::known(0.0, format!("{cloud} is not billed by the hour"));
        }
        if UNPRICED.contains(&cloud) {
            return Offer::unknown(format!("there is no list of prices for {cloud}"));
        }
        let asked = cluster.accelerators.as_deref().and_then(accelerators);
        let (Some([(accelerator, count)]), 1..) = (asked.as_deref(), nodes) else {
            let reason =
                "no accelerator is named, such as A100:8, and SkyPilot lists prices by accelerator";
            return Offer::unknown(reason);
        };
        let wanted = format!("{accelerator}:{count}");
        // SkyPilot cannot be asked for a part of one, and lists every count then.
        let is_whole = count.fract() == 0.0;
        let name = if is_whole { &wanted } else { accelerator };
        // Else SkyPilot gives one spot price, of the region with the lowest price on demand, and takes a region for a pattern.
        let all_regions = cluster.is_spot || cluster.region.is_some();
        let query = (cloud.to_owned(), name.clone(), all_regions);
        let listed = match self.catalog(query).await {
            Ok(listed) => listed,
            Err(error) => return Offer::unknown(error.to_string()),
        };
        let lowest = |price: fn(&CatalogMachine) -> Option<f64>| {
            let fitting = listed.iter().filter(|listed| fits(cluster, *count, listed));
            let priced = fitting.filter_map(|listed| Some((price(listed)? * nodes as f64, listed)));
            priced.min_by(|one, other| one.0.total_cmp(&other.0))
        };
        let on_demand = lowest(|listed| listed.price);
        let (found, kind) = match cluster.is_spot {
            true => (lowest(|listed| listed.spot_price), "spot"),
            false => (on_demand, "on demand"),
        };
        let Some((price, listed)) = found else {
            let place = cluster.region.as_ref();
            let place = place.map_or(cloud.to_owned(), |place| format!("{cloud} {place}"));
            let size = cluster.cpus.as_ref().or(cluster.memory.as_ref());
            let size = size.map_or("", |_| " with these cpus and memory");
            let mut reason =
                format!("SkyPilot's catalog has no price for {wanted}{size} {kind} on {place}");
            if let Some((price, _)) = on_demand {
                reason.push_str(&format!(" (on demand it is ${price:.2} an hour)"));
            }
            return Offer::unknown(reason);
        };
        let (machine, region) = (&listed.instance_type, &listed.region);
        let note = format!(
            "{nodes} × {machine} with {wanted}, {kind}, in {region}; the lowest price in SkyPilot's catalog"
        );
        Offer::known(price, note)
    }

    /// Asks the catalog, unless its answer is kept. Simultaneous askers share one run of the program.
    async fn catalog(&self, query: Query) -> Result<Vec<CatalogMachine>> {
        let kept = lock(&self.prices).get(&query).cloned();
        if let Some((_, listed)) = kept.filter(|(at, _)| at.elapsed() < KEPT) {
            return Ok(listed);
        }
        let (cloud, accelerators, all_regions) = &query;
        let asked = self.backend.catalog(cloud, accelerators, *all_regions);
        let listed = asked.await?;
        lock(&self.prices).insert(query, (Instant::now(), listed.clone()));
        Ok(listed)
    }
}

/// Lists the clusters that a config may come to have: one for each of its accelerators.
fn choices(config: &Value) -> Vec<Cluster> {
    let place = &config["resources"];
    let nodes = match &config["num_nodes"] {
        Value::Null => 1,
        Value::String(text) => text.trim().parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    let text = |key: &str| {
        let text = place[key].as_str().map(str::trim);
        text.filter(|text| !["", "*"].contains(text))
            .map(ToOwned::to_owned)
    };
    let asked = Some(&place["accelerators"]).filter(|asked| !asked.is_null());
    let asked = asked.and_then(|asked| accelerators(&asked.to_string()));
    let of = |(name, count)| Some(format!("{name}:{count}"));
    let asked = asked.map_or(vec![None], |asked| asked.into_iter().map(of).collect());
    // Numbers, or texts.
    let size = |key: &str| {
        let size = Some(&place[key]).filter(|size| !size.is_null())?;
        Some(size.to_string().trim_matches('"').trim().to_owned())
    };
    let clusters = asked.into_iter().map(|accelerators| Cluster {
        nodes,
        cloud: text("cloud"),
        accelerators,
        instance_type: text("instance_type"),
        // A zone names its region too.
        region: text("region").or(text("zone")),
        is_spot: is_on(&place["use_spot"]),
        cpus: size("cpus"),
        memory: size("memory"),
        ..Cluster::default()
    });
    clusters.collect()
}

/// Tells if a machine is one that a cluster has or may get.
fn fits(cluster: &Cluster, count: f64, listed: &CatalogMachine) -> bool {
    let (machine, place) = (cluster.instance_type.as_ref(), cluster.region.as_ref());
    // Exactly `8`, at least `8+`, or memory `4x` the vCPUs.
    let has_enough = |asked: Option<&String>, has: Option<f64>| {
        let Some(asked) = asked else { return true };
        let number = asked.trim_end_matches(['+', 'x']).parse::<f64>().ok();
        let numbers = has.zip(number).zip(listed.cpus);
        numbers.is_some_and(|((has, number), cpus)| match asked {
            _ if asked.ends_with('+') => has >= number,
            _ if asked.ends_with('x') => has >= number * cpus,
            _ => (has - number).abs() < 0.01,
        })
    };
    // A count may be a third.
    (count - listed.accelerators).abs() < 0.01
        && machine.is_none_or(|name| name.eq_ignore_ascii_case(&listed.instance_type))
        && place.is_none_or(|place| is_in(place, &listed.region))
        && has_enough(cluster.cpus.as_ref(), listed.cpus)
        && has_enough(cluster.memory.as_ref(), listed.memory)
}

/// Tells if a place is this region or one of its zones, such as `us-east-1a`, `us-central1-a` or `eastus-1`.
fn is_in(place: &str, region: &str) -> bool {
    let place = place.to_ascii_lowercase();
    let zone = place.strip_prefix(&region.to_ascii_lowercase());
    zone.is_some_and(|zone| match zone.strip_prefix('-') {
        Some(zone) => zone.len() == 1,
        None => zone.is_empty() || zone.len() == 1 && zone.starts_with(char::is_alphabetic),
    })
}

/// Reads accelerators as SkyPilot, Python and JSON write them: `A100:8`, `A100`, `{'A100': 8, 'H100': 8}`, `["A100:8", "H100:8"]`.
fn accelerators(text: &str) -> Option<Vec<(String, f64)>> {
    let one = |text: &str| {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let (name, count) = (name.trim(), count.trim().parse::<f64>().ok()?);
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic());
        (is_name && is_plain(name, "-_.") && count > 0.0).then(|| (name.to_owned(), count))
    };
    let text = text.replace(['{', '}', '[', ']', '\'', '"'], "");
    text.split(',').map(one).collect()
}
