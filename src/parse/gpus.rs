//! Reads SkyPilot's catalog of machines with accelerators: what `sky gpus list -o json` prints, and what its API answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::sky::price;
use super::split_json;
use crate::error::Result;

/// A machine of the catalog. Prices are dollars an hour; `None` where the catalog has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CatalogMachine {
    /// Empty for an accelerator that is attached to a machine of any type.
    pub(crate) instance_type: String,
    pub(crate) accelerators: f64,
    pub(crate) region: String,
    pub(crate) price: Option<f64>,
    pub(crate) spot_price: Option<f64>,
}

/// Reads the output of `sky gpus list NAME -o json`: the machines with the accelerator of exactly this name, in upper or lower
/// case. SkyPilot takes the name for a pattern, and `A100` finds `A100-80GB` too.
pub(crate) fn machines(stdout: &str, accelerator: &str) -> Result<Vec<CatalogMachine>> {
    let (_, catalog) = split_json::<BTreeMap<String, Vec<Value>>>(stdout)?;
    let is_named = |(name, _): &(&String, _)| name.eq_ignore_ascii_case(accelerator);
    let rows = catalog.iter().filter(is_named).flat_map(|(_, rows)| rows);
    Ok(rows.map(machine).collect())
}

/// Reads a row: an object of the CLI, or an array of the API with the same fields in their order.
fn machine(row: &Value) -> CatalogMachine {
    let field = |name: &str, index: usize| row.get(name).or_else(|| row.get(index));
    let text = |field: Option<&Value>| field.and_then(Value::as_str).unwrap_or("").to_owned();
    // A price of nothing is none: the catalog has it where a cloud names no price.
    let dollars = |field: Option<&Value>| field.and_then(price).filter(|price| *price > 0.0);
    let count = field("accelerator_count", 3).and_then(Value::as_f64);
    CatalogMachine {
        instance_type: text(field("instance_type", 1)),
        accelerators: count.unwrap_or_default(),
        region: text(field("region", 9)),
        price: dollars(field("price", 7)),
        spot_price: dollars(field("spot_price", 8)),
    }
}
