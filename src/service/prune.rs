//! Pruning: records that are too old or too many are removed with their folders, once their jobs are known to be done.

use std::collections::{HashMap, HashSet};

use super::context::Context;
use super::launches::Launches;
use crate::process::job_dir::JobDir;
use crate::registry::{JobRecord, expired};

/// Prunes `records` and returns the ids that are gone. `done` holds what the launchers said of the jobs already; a job that is
/// missing there is asked about where that is cheap, and else kept. A job whose state is unknown is kept: it may cost money.
pub(super) async fn prune(
    context: &Context,
    launches: &Launches,
    records: &[JobRecord],
    done: &HashMap<String, bool>,
) -> HashSet<String> {
    let mut unwanted = Vec::new();
    for record in expired(records, chrono::Utc::now()) {
        let is_done = match done.get(&record.job_id) {
            Some(is_done) => *is_done,
            None => context.traits(&record.cloud).is_local && is_done_here(context, record).await,
        };
        if is_done && !launches.in_flight().contains(&record.job_id) {
            unwanted.push(record.clone());
        }
    }
    let ids = unwanted.iter().map(|record| record.job_id.clone());
    let ids = ids.collect();
    let data_dir = context.data_dir.clone();
    let remove_dir = move |record: &JobRecord| {
        let Some(dir) = data_dir.job(&record.job_id).map(JobDir::at) else {
            return;
        };
        if let Err(error) = dir.remove() {
            tracing::warn!(folder = %dir.path().display(), %error, "cannot remove the folder of a pruned job");
        }
    };
    match context.registry.remove(unwanted, remove_dir).await {
        Ok(()) => ids,
        Err(error) => {
            tracing::warn!(%error, "cannot prune the registry");
            HashSet::new()
        }
    }
}

async fn is_done_here(context: &Context, record: &JobRecord) -> bool {
    let Ok(launcher) = context.launcher(&record.cloud) else {
        return false;
    };
    match launcher.status(&record.identity()).await {
        Ok(status) => status.is_done,
        Err(error) => error.is_not_found(),
    }
}
