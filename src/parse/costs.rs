//! Reads what clusters cost: SkyPilot's report, and the table of choices that it prints at a launch.

use serde_json::Value;

use super::sky::{price, text};
use super::split_json;
use crate::text::strip_escapes;

/// A cluster of SkyPilot's cost report, which lists those that are gone too.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterCost {
    /// A name may come several times.
    pub(crate) cluster_hash: String,
    /// Of all its nodes, until now or until it was gone.
    pub(crate) dollars: f64,
    /// To the cent. `None` where it has cost nothing yet.
    pub(crate) hourly_price: Option<f64>,
}

/// Reads the answer to `/cost_report`. What cannot be read costs nothing that is known.
pub(crate) fn report(answer: &str) -> Vec<ClusterCost> {
    let rows: Vec<Value> = split_json(answer).map(|(_, rows)| rows).unwrap_or_default();
    let cost = |row: &Value| {
        let row = row.as_object()?;
        let dollars = price(row.get("total_cost")?)?;
        let seconds = row.get("duration").and_then(Value::as_f64);
        let hourly = (dollars / seconds.unwrap_or_default() * 3600.0 * 100.0).round() / 100.0;
        Some(ClusterCost {
            cluster_hash: text(row, "cluster_hash")?,
            dollars,
            hourly_price: Some(hourly).filter(|price| price.is_finite() && *price > 0.0),
        })
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
