//! The price of a launch or a cluster, from the catalog of its launcher: what a config asks for, times its nodes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::clusters::cloud_of;
use super::{CloudBackend, CloudLauncher, is_plain};
use crate::error::JobError;
use crate::launcher::job_yaml::is_on;
use crate::launcher::{LaunchPlan, LaunchSpec, Offer, UpCluster};
use crate::parse::gpus::CatalogMachine;
use crate::parse::sky::Cluster;
use crate::sync::lock;

/// The time that an answer of the catalog is kept: SkyPilot fetches its catalog a few times a day.
const KEPT: Duration = Duration::from_hours(24);

/// A cloud by Oumi's name, accelerators such as `A100:8`, and if it was asked for the machines of each region.
type Query = (String, String, bool);

/// The answers of the catalog, with the time of each.
#[derive(Debug, Default)]
pub(super) struct Prices(Mutex<HashMap<Query, (Instant, Vec<CatalogMachine>)>>);

/// The machines of one kind that a config asks for, or a cluster has. A text is empty where any will do.
#[derive(Debug, Clone, Default)]
struct Machines {
    nodes: u64,
    cloud: String,
    accelerator: String,
    /// A node. May be a part of one.
    count: f64,
    instance_type: String,
    region: String,
    zone: String,
    is_spot: bool,
}

impl Prices {
    /// Prices what a job config asks for: from the cheapest to the dearest of its choices.
    pub(super) async fn of_config(
        &self,
        backend: &impl CloudBackend,
        config: &Value,
        deadline: Instant,
    ) -> Offer {
        let cloud = config.pointer("/resources/cloud").and_then(Value::as_str);
        let priceless = cloud.filter(|cloud| !backend.has_prices(cloud));
        let Some(choices) = choices(config).filter(|_| priceless.is_none()) else {
            return Offer::unknown(priceless.map_or_else(
                || {
                    "no accelerator is named, such as A100:8, and SkyPilot lists prices by these"
                        .to_owned()
                },
                |cloud| format!("there is no list of prices for {cloud}"),
            ));
        };
        let priced = choices.iter().map(|one| self.of(backend, one, deadline));
        let mut offers = join_all(priced).await;
        if offers.len() == 1 {
            return offers.remove(0);
        }
        let prices: Option<Vec<_>> = offers.iter().map(|offer| offer.hourly).collect();
        let prices = prices.into_iter().flatten();
        let range = |one: (f64, f64), other: (f64, f64)| (one.0.min(other.0), one.1.max(other.1));
        let notes: Vec<String> = offers.iter().map(Offer::text).collect();
        Offer {
            hourly: prices.reduce(range),
            note: format!("by the choice that is taken: {}", notes.join("; ")),
        }
    }

    /// Prices a cluster by its own facts.
    pub(super) async fn of_cluster(
        &self,
        backend: &impl CloudBackend,
        cluster: &Cluster,
        deadline: Instant,
    ) -> Offer {
        let asked = cluster.accelerators.as_deref().and_then(accelerators);
        let offer = match (cluster.hourly_price, asked.as_deref(), cloud_of(cluster)) {
            (Some(price), ..) => Offer::known(price, "SkyPilot reports it"),
            (None, Some([(accelerator, count)]), Some(cloud)) => {
                let machines = Machines {
                    nodes: cluster.nodes,
                    cloud,
                    accelerator: accelerator.clone(),
                    count: *count,
                    instance_type: cluster.instance_type.clone().unwrap_or_default(),
                    region: cluster.region.clone().unwrap_or_default(),
                    zone: String::new(),
                    is_spot: cluster.is_spot,
                };
                self.of(backend, &machines, deadline).await
            }
            _ => Offer::unknown("it has no accelerator, and SkyPilot lists prices by these"),
        };
        let note = format!(
            "cluster {} is {}: {}",
            cluster.name, cluster.status, offer.note
        );
        Offer { note, ..offer }
    }

    async fn of(
        &self,
        backend: &impl CloudBackend,
        machines: &Machines,
        deadline: Instant,
    ) -> Offer {
        if !backend.has_prices(&machines.cloud) {
            return Offer::unknown(format!("there is no list of prices for {}", machines.cloud));
        }
        let listed = match self.ask(backend, machines, deadline).await {
            Ok(listed) => listed,
            Err(error) => return Offer::unknown(error.to_string()),
        };
        let lowest = |price: fn(&CatalogMachine) -> Option<f64>| {
            let fitting = listed.iter().filter(|listed| machines.may_be(listed));
            let priced = fitting.filter_map(|listed| Some((price(listed)?, listed)));
            priced.min_by(|one, other| one.0.total_cmp(&other.0))
        };
        let on_demand = lowest(|listed| listed.price);
        let (found, kind) = match machines.is_spot {
            true => (lowest(|listed| listed.spot_price), "spot"),
            false => (on_demand, "on demand"),
        };
        let nodes = machines.nodes;
        let all = |price: f64| price * (nodes as f64);
        let wanted = format!("{}:{}", machines.accelerator, machines.count);
        if let Some((price, listed)) = found {
            let (machine, region) = (&listed.instance_type, &listed.region);
            let note = format!(
                "{nodes} × {machine} with {wanted}, {kind}, in {region}; the lowest price in SkyPilot's catalog"
            );
            return Offer::known(all(price), note);
        }
        let place = [machines.cloud.as_str(), &machines.region, &machines.zone].join(" ");
        let none = format!(
            "SkyPilot's catalog has no price for {wanted} {kind} on {}",
            place.trim_end()
        );
        Offer::unknown(on_demand.map_or_else(
            || none.clone(),
            |(price, _)| format!("{none} (on demand it is ${:.2} an hour)", all(price)),
        ))
    }

    /// Asks the catalog, unless its answer is kept. Simultaneous askers share one run of the program.
    async fn ask(
        &self,
        backend: &impl CloudBackend,
        machines: &Machines,
        deadline: Instant,
    ) -> Result<Vec<CatalogMachine>, JobError> {
        // SkyPilot cannot be asked for a part of one, and lists every count then.
        let count = machines.count;
        let count = if count.fract() == 0.0 {
            format!(":{count}")
        } else {
            String::new()
        };
        // Else its one spot price is that of the region with the lowest price on demand; and a region would be a pattern.
        let place = [machines.region.as_str(), &machines.zone].concat();
        let all_regions = machines.is_spot || !place.is_empty();
        let wanted = format!("{}{count}", machines.accelerator);
        let query = (machines.cloud.clone(), wanted, all_regions);
        let kept = lock(&self.0).get(&query).cloned();
        if let Some((_, listed)) = kept.filter(|(at, _)| at.elapsed() < KEPT) {
            return Ok(listed);
        }
        let listed = backend
            .catalog(&query.0, &query.1, all_regions, Some(deadline))
            .await?;
        lock(&self.0).insert(query, (Instant::now(), listed.clone()));
        Ok(listed)
    }
}

impl<B: CloudBackend> CloudLauncher<B> {
    /// Prices a launch: by its cluster where that is there already, else by its config.
    pub(super) async fn price_launch(
        &self,
        spec: &LaunchSpec,
        plan: &LaunchPlan,
        until: Instant,
    ) -> Option<Offer> {
        let (backend, prices) = (&self.backend, &self.prices);
        let config = plan.job_config.as_ref()?;
        let list = match spec.identity.cluster.as_str() {
            "" => Ok(None),
            _ => backend.clusters(Some(until)).await,
        };
        Some(
            match list.as_ref().map(|list| list.as_ref()?.get(&plan.cluster)) {
                Ok(Some(cluster)) => prices.of_cluster(backend, cluster, until).await,
                Ok(None) => prices.of_config(backend, config, until).await,
                Err(error) => Offer::unknown(error.to_string()),
            },
        )
    }

    /// Lists the clusters that are up with their prices.
    pub(super) async fn price_clusters(&self, until: Instant) -> Result<Vec<UpCluster>, JobError> {
        if B::find_program().is_err() {
            return Ok(Vec::new());
        }
        let list = self
            .backend
            .clusters(Some(until))
            .await?
            .unwrap_or_default();
        let up = list
            .clusters
            .iter()
            .filter(|cluster| cluster.status != "STOPPED");
        let priced = up.map(async |cluster| UpCluster {
            name: cluster.name.clone(),
            hourly_price: self
                .prices
                .of_cluster(&self.backend, cluster, until)
                .await
                .hourly
                .map(|(_, high)| high),
        });
        Ok(join_all(priced).await)
    }
}

impl Machines {
    fn may_be(&self, listed: &CatalogMachine) -> bool {
        let is =
            |wanted: &str, found: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(found);
        // `us-east-1a` is in `us-east-1`, `us-central1-a` in `us-central1`.
        let letter = self.zone.strip_prefix(&listed.region);
        let is_in_zone = letter.is_some_and(|rest| rest.trim_start_matches('-').len() <= 1);
        // A count may be a third.
        (self.count - listed.accelerators).abs() < 0.01
            && is(&self.instance_type, &listed.instance_type)
            && is(&self.region, &listed.region)
            && (self.zone.is_empty() || !self.region.is_empty() || is_in_zone)
    }
}

/// Lists the machines that a job config may get. `None` where one of its choices names no accelerators.
fn choices(config: &Value) -> Option<Vec<Machines>> {
    let base = config.get("resources")?.as_object()?;
    let lists = ["any_of", "ordered"]
        .iter()
        .filter_map(|key| base.get(*key)?.as_array());
    let mut places: Vec<Map<String, Value>> = Vec::new();
    for choice in lists.flatten().filter_map(Value::as_object) {
        let mut place = base.clone();
        if choice.contains_key("infra") {
            place.remove("cloud");
        }
        place.extend(choice.clone());
        places.push(place);
    }
    if places.is_empty() {
        places.push(base.clone());
    }
    let nodes = match config.get("num_nodes") {
        Some(Value::String(text)) => text.trim().parse().ok()?,
        other => other.and_then(Value::as_u64).unwrap_or(1),
    };
    let of_place = |place: &Map<String, Value>| {
        let text = |key: &str| {
            let text = place.get(key).and_then(Value::as_str).map(str::trim);
            text.filter(|text| *text != "*").unwrap_or_default()
        };
        let mut infra = text("infra").split('/').map(|part| part.trim_matches('*'));
        let on = infra.next().unwrap_or_default();
        let cloud = if text("cloud").is_empty() {
            on
        } else {
            text("cloud")
        };
        // Regions of another cloud than that of the launch say nothing.
        let mut infra = infra.filter(|_| on.is_empty() || on == cloud);
        let mut part = |key| match (text(key), infra.next()) {
            ("", part) => part.unwrap_or_default(),
            (named, _) => named,
        };
        let (region, zone) = (part("region"), part("zone"));
        let asked = wanted(place.get("accelerators")?)?.into_iter();
        let machines = asked.map(|(accelerator, count)| Machines {
            nodes,
            cloud: cloud.to_owned(),
            accelerator,
            count,
            instance_type: text("instance_type").to_owned(),
            region: region.to_owned(),
            zone: zone.to_owned(),
            is_spot: place.get("use_spot").is_some_and(is_on),
        });
        Some(machines.collect::<Vec<_>>())
    };
    places
        .iter()
        .map(of_place)
        .collect::<Option<Vec<_>>>()
        .map(|all| all.concat())
}

/// Reads `accelerators` of a config: a text, a map of types to counts, or a list of choices. `None` where it names no type.
fn wanted(value: &Value) -> Option<Vec<(String, f64)>> {
    match value {
        Value::Array(choices) if !choices.is_empty() => {
            let all: Option<Vec<_>> = choices.iter().map(wanted).collect();
            Some(all?.concat())
        }
        Value::String(_) | Value::Object(_) => accelerators(&value.to_string()),
        _ => None,
    }
}

/// Reads accelerators as SkyPilot, Python and JSON write them: `A100:8`, `A100`, `{'A100': 8, 'H100': 8}`.
fn accelerators(text: &str) -> Option<Vec<(String, f64)>> {
    let one = |text: &str| {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let (name, count) = (name.trim(), count.trim().parse::<f64>().ok()?);
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic());
        (is_name && is_plain(name, "-_.") && count > 0.0).then(|| (name.to_owned(), count))
    };
    let text = text.replace(['{', '}', '\'', '"'], "");
    text.split(',').map(one).collect()
}

#[cfg(test)]
#[path = "tests/price.rs"]
mod tests;
