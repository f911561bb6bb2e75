//! Reads SkyPilot's prices: its catalog of machines, its report of what clusters have cost, and the table that a launch prints.

use std::collections::BTreeMap;

use serde_json::Value;

use super::sky::{price, text};
use super::split_json;
use crate::error::Result;
use crate::text::strip_escapes;

/// A machine of the catalog. Prices are dollars an hour; `None` where the catalog has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CatalogMachine {
    /// Empty for an accelerator that is attached to a machine of any type.
    pub(crate) instance_type: String,
    pub(crate) accelerator: String,
    pub(crate) accelerators: f64,
    pub(crate) cpus: Option<f64>,
    /// In GiB.
    pub(crate) memory: Option<f64>,
    pub(crate) region: String,
    pub(crate) price: Option<f64>,
    pub(crate) spot_price: Option<f64>,
}

/// Reads the output of `sky gpus list NAME -o json`: the machines with the accelerator of exactly this name, in upper or lower
/// case. SkyPilot takes the name for a pattern, and `A100` finds `A100-80GB` too. TPUs of several sizes are one group.
pub(crate) fn machines(stdout: &str, accelerator: &str) -> Result<Vec<CatalogMachine>> {
    let (_, catalog) = split_json::<BTreeMap<String, Vec<Value>>>(stdout)?;
    let machines = catalog.values().flatten().map(machine);
    let is_named = |it: &CatalogMachine| it.accelerator.eq_ignore_ascii_case(accelerator);
    Ok(machines.filter(is_named).collect())
}

/// Reads a row: an object of the CLI, or an array of the API with the same fields in their order.
fn machine(row: &Value) -> CatalogMachine {
    let field = |name: &str, index: usize| row.get(name).or_else(|| row.get(index));
    let text = |field: Option<&Value>| field.and_then(Value::as_str).unwrap_or("").to_owned();
    // A price of nothing is none: the catalog has it where a cloud names no price.
    let dollars = |field: Option<&Value>| field.and_then(price).filter(|price| *price > 0.0);
    let number = |field: Option<&Value>| field.and_then(Value::as_f64);
    CatalogMachine {
        instance_type: text(field("instance_type", 1)),
        accelerator: text(field("accelerator_name", 2)),
        accelerators: number(field("accelerator_count", 3)).unwrap_or_default(),
        cpus: number(field("cpu_count", 4)),
        memory: number(field("memory", 6)),
        region: text(field("region", 9)),
        price: dollars(field("price", 7)),
        spot_price: dollars(field("spot_price", 8)),
    }
}

/// The clusters of SkyPilot's cost report by their hashes, those that are gone too. A name may come several times.
pub(crate) type CostReport = BTreeMap<String, ClusterCost>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterCost {
    /// Of all its nodes, until now or until it was gone.
    pub(crate) dollars: f64,
    /// To the cent. `None` where it has cost nothing yet.
    pub(crate) hourly_price: Option<f64>,
}

/// Reads the answer to `/cost_report`. What cannot be read costs nothing that is known.
pub(crate) fn report(answer: &str) -> CostReport {
    let rows: Vec<Value> = split_json(answer).map(|(_, rows)| rows).unwrap_or_default();
    let cost = |row: &Value| {
        let row = row.as_object()?;
        let dollars = price(row.get("total_cost")?)?;
        let seconds = row.get("duration").and_then(Value::as_f64);
        let hourly = (dollars / seconds.unwrap_or_default() * 3600.0 * 100.0).round() / 100.0;
        let cost = ClusterCost {
            dollars,
            hourly_price: Some(hourly).filter(|price| price.is_finite() && *price > 0.0),
        };
        Some((text(row, "cluster_hash")?, cost))
    };
    rows.iter().filter_map(cost).collect()
}

/// Reads the price of all nodes from the row that is marked as chosen, in the last table before the cluster was launched: what a
/// script prints comes later. A price of 0 says that there is none.
pub(crate) fn chosen_price(output: &str) -> Option<f64> {
    let output = strip_escapes(output);
    let launch = output.split("Cluster launched: ").next()?;
    let (_, table) = launch.rsplit_once("Considered resources (")?;
    let rows = table.lines().map(|line| {
        let cells = line.split("  ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    });
    let mut rows = rows.skip_while(|row| !row.contains(&"COST ($)"));
    let header = rows.next()?;
    let row = rows.find(|row| row.len() == header.len() && row.last() == Some(&"✔"))?;
    let column = header.iter().position(|cell| *cell == "COST ($)")?;
    price(&(*row.get(column)?).into()).filter(|price| *price > 0.0)
}
