//! The price of a launch or a cluster, from the catalog of its launcher: what a config asks for, times its nodes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::survey::{cloud_of, cost_of};
use super::{CloudLauncher, is_plain};
use crate::error::Result;
use crate::launcher::job_yaml::is_on;
use crate::launcher::{ClusterInfo, Offer};
use crate::parse::prices::CatalogMachine;
use crate::parse::sky::Cluster;
use crate::sync::lock;

/// The time that an answer of the catalog is kept: SkyPilot fetches its catalog a few times a day.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// A cloud by Oumi's name, accelerators such as `A100:8`, and if it was asked for the machines of each region.
type Query = (String, String, bool);

pub(super) type Prices = Mutex<HashMap<Query, (Instant, Vec<CatalogMachine>)>>;

/// The machines of one kind that a config asks for, or a cluster has. A text is empty where any will do.
#[derive(Debug, Clone, Default)]
struct Machines {
    /// 0 where that is not known.
    nodes: u64,
    cloud: String,
    /// Empty for none.
    accelerator: String,
    /// A node. May be a part of one.
    count: f64,
    instance_type: String,
    /// Or a zone.
    region: String,
    is_spot: bool,
}

impl CloudLauncher {
    pub(super) async fn describe(&self, cluster: &Cluster) -> ClusterInfo {
        let asked = cluster.accelerators.as_deref().and_then(accelerators);
        let asked = asked.filter(|asked| asked.len() == 1).unwrap_or_default();
        let (accelerator, count) = asked.into_iter().next().unwrap_or_default();
        let cloud = cloud_of(cluster);
        let machines = Machines {
            nodes: cluster.nodes,
            cloud: cloud.clone().unwrap_or_default(),
            accelerator,
            count,
            instance_type: cluster.instance_type.clone().unwrap_or_default(),
            region: cluster.region.clone().unwrap_or_default(),
            is_spot: cluster.is_spot,
        };
        let mut offer = match cluster.hourly_price {
            Some(price) => Offer::known(price, "SkyPilot reports it"),
            None => self.price(&machines).await,
        };
        if offer.hourly.is_none() {
            let costs = self.backend.costs().await;
            let cost = cost_of(&costs, cluster.cluster_hash.as_ref());
            let price = cost.and_then(|cost| cost.hourly_price);
            offer = price.map_or(offer, |price| {
                Offer::known(price, "by SkyPilot's cost report")
            });
        }
        let (name, status) = (&cluster.name, &cluster.status);
        let resources = cluster.resources.as_ref().or(cluster.accelerators.as_ref());
        let parts = [Some(status), resources, cluster.region.as_ref()];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        ClusterInfo {
            name: name.clone(),
            cloud,
            summary: parts.join(", "),
            offer: Offer {
                note: format!("cluster {name} is {status}: {}", offer.note),
                ..offer
            },
        }
    }

    /// Prices what a job config asks for: from the cheapest to the dearest of its choices.
    pub(super) async fn price_config(&self, config: &Value) -> Offer {
        let choices = choices(config);
        let mut offers = join_all(choices.iter().map(|one| self.price(one))).await;
        if offers.len() == 1 {
            return offers.remove(0);
        }
        let prices: Option<Vec<_>> = offers.iter().map(|offer| offer.hourly).collect();
        let range = |one: (f64, f64), other: (f64, f64)| (one.0.min(other.0), one.1.max(other.1));
        let notes: Vec<String> = offers.iter().map(Offer::text).collect();
        Offer {
            hourly: prices.into_iter().flatten().reduce(range),
            note: format!("by the choice that is taken: {}", notes.join("; ")),
        }
    }

    async fn price(&self, machines: &Machines) -> Offer {
        let (cloud, nodes) = (&machines.cloud, machines.nodes);
        let wanted = format!("{}:{}", machines.accelerator, machines.count);
        if !self.backend.has_prices(cloud) {
            return Offer::unknown(format!("there is no list of prices for {cloud}"));
        }
        if machines.accelerator.is_empty() || nodes == 0 {
            let reason =
                "no accelerator is named, such as A100:8, and SkyPilot lists prices by these";
            return Offer::unknown(reason);
        }
        let listed = match self.catalog(machines).await {
            Ok(listed) => listed,
            Err(error) => return Offer::unknown(error.to_string()),
        };
        let lowest = |price: fn(&CatalogMachine) -> Option<f64>| {
            let fitting = listed.iter().filter(|listed| machines.may_be(listed));
            let priced = fitting.filter_map(|listed| Some((price(listed)? * nodes as f64, listed)));
            priced.min_by(|one, other| one.0.total_cmp(&other.0))
        };
        let on_demand = lowest(|listed| listed.price);
        let (found, kind) = match machines.is_spot {
            true => (lowest(|listed| listed.spot_price), "spot"),
            false => (on_demand, "on demand"),
        };
        let Some((price, listed)) = found else {
            let place = [cloud.as_str(), &machines.region].join(" ");
            let place = place.trim_end();
            let mut reason =
                format!("SkyPilot's catalog has no price for {wanted} {kind} on {place}");
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
    async fn catalog(&self, machines: &Machines) -> Result<Vec<CatalogMachine>> {
        // SkyPilot cannot be asked for a part of one, and lists every count then.
        let wanted = match machines.count {
            count if count.fract() == 0.0 => format!("{}:{count}", machines.accelerator),
            _ => machines.accelerator.clone(),
        };
        // Else its one spot price is that of the region with the lowest price on demand; and a region would be a pattern.
        let all_regions = machines.is_spot || !machines.region.is_empty();
        let query = (machines.cloud.clone(), wanted, all_regions);
        let kept = lock(&self.prices).get(&query).cloned();
        if let Some((_, listed)) = kept.filter(|(at, _)| at.elapsed() < KEPT) {
            return Ok(listed);
        }
        let asked = self.backend.catalog(&query.0, &query.1, all_regions);
        let listed = asked.await?;
        lock(&self.prices).insert(query, (Instant::now(), listed.clone()));
        Ok(listed)
    }
}

impl Machines {
    fn may_be(&self, listed: &CatalogMachine) -> bool {
        let (machine, place) = (&self.instance_type, &self.region);
        // A count may be a third.
        (self.count - listed.accelerators).abs() < 0.01
            && (machine.is_empty() || machine.eq_ignore_ascii_case(&listed.instance_type))
            && (place.is_empty() || is_in(place, &listed.region))
    }
}

fn choices(config: &Value) -> Vec<Machines> {
    let base = config["resources"].as_object().cloned().unwrap_or_default();
    let nodes = match &config["num_nodes"] {
        Value::Null => 1,
        Value::String(text) => text.trim().parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    let lists = ["any_of", "ordered"].map(|key| base.get(key)?.as_array());
    let choices = lists.into_iter().flatten().flatten();
    let of_choice = |choice: &Map<String, Value>| {
        let mut place = base.clone();
        if choice.contains_key("infra") {
            place.remove("cloud");
        }
        place.extend(choice.clone());
        of_place(&place, nodes)
    };
    let machines: Vec<Machines> = choices
        .filter_map(Value::as_object)
        .flat_map(of_choice)
        .collect();
    match machines.is_empty() {
        true => of_place(&base, nodes),
        false => machines,
    }
}

/// Lists the machines that one choice of resources allows: one for each of its accelerators.
fn of_place(place: &Map<String, Value>, nodes: u64) -> Vec<Machines> {
    let text = |key: &str| {
        let text = place.get(key).and_then(Value::as_str).map(str::trim);
        text.filter(|text| *text != "*").unwrap_or_default()
    };
    let infra: Vec<&str> = text("infra").split('/').collect();
    let part = |index: usize| infra.get(index).map_or("", |part| part.trim_matches('*'));
    let named = |key| Some(text(key)).filter(|text| !text.is_empty());
    let cloud = named("cloud").unwrap_or(part(0));
    // Regions of another cloud than that of the launch say nothing.
    let is_here = ["", cloud].contains(&part(0));
    let place_of = |key, index| named(key).unwrap_or(if is_here { part(index) } else { "" });
    let place_or_zone = [place_of("region", 1), place_of("zone", 2)];
    let region = place_or_zone.into_iter().find(|it| !it.is_empty());
    let asked = place.get("accelerators").filter(|asked| !asked.is_null());
    let asked = asked.and_then(|asked| accelerators(&asked.to_string()));
    let asked = asked.unwrap_or_else(|| vec![Default::default()]);
    let machines = asked.into_iter().map(|(accelerator, count)| Machines {
        nodes,
        cloud: cloud.to_owned(),
        accelerator,
        count,
        instance_type: text("instance_type").to_owned(),
        region: region.unwrap_or_default().to_owned(),
        is_spot: place.get("use_spot").is_some_and(is_on),
    });
    machines.collect()
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
