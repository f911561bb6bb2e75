//! Reads what `sky` prints of itself: the clouds that it may use, and its API server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{OutputError, split_json};

/// Reads the clouds of `sky check -o json`, which are named by workspace.
pub(crate) fn enabled_clouds(stdout: &str) -> Result<Vec<String>, OutputError> {
    let (_, workspaces) = split_json::<BTreeMap<String, BTreeMap<String, Value>>>(stdout)?;
    let clouds: BTreeSet<String> = workspaces
        .into_values()
        .flat_map(BTreeMap::into_keys)
        .collect();
    Ok(clouds.into_iter().collect())
}

/// Reads the output of `sky api info -o json`. Without a server it is a text.
pub(crate) fn api_info(stdout: &str) -> Option<Value> {
    split_json(stdout).ok().map(|(_, info)| info)
}
