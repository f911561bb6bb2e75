//! The programs that reach clouds, as the launcher of clouds sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;

use super::changes::Change;
use crate::error::{JobError, Result};
use crate::launcher::job_yaml::JobConfig;
use crate::launcher::{JobIdentity, JobLog, LaunchSpec};
use crate::parse;
use crate::parse::prices::{CatalogMachine, CostReport};
use crate::parse::sky::{Cluster, Queue};
use crate::process::runner::{CliCall, Output};

#[async_trait]
pub(crate) trait CloudBackend: Send + Sync {
    fn clouds(&self) -> &'static [&'static str];

    /// `true` for SkyPilot, whose clusters count their jobs from 1 again when they are created again, and can be ended. There jobs
    /// have names, a cluster lists every job that it was ever given, and one query lists the jobs of all clouds.
    fn is_skypilot(&self) -> bool;

    fn find_program(&self) -> Result<PathBuf>;

    /// The place that holds what the program knows of clusters, for one user. Empty where there is none.
    fn place(&self) -> String {
        String::new()
    }

    /// The hash of the user that jobs are launched as, where it is known. Does file work.
    fn user(&self) -> Option<String> {
        None
    }

    /// Refuses names that the program would refuse, or take for options.
    fn validate_cluster(&self, cloud: &str, cluster: &str) -> Result<()>;

    /// The variables that `oumi launch up` needs for a cluster.
    fn envs(&self, _cloud: &str, _cluster: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Returns the cluster and the job config of a launch.
    async fn prepare(&self, spec: &LaunchSpec) -> Result<(String, JobConfig)>;

    /// Lists the jobs of these clusters; of every cluster where none is named.
    async fn queue(&self, cloud: &str, clusters: &BTreeSet<String>) -> Result<Queue>;

    /// Lists the clusters of this user, or with a name that one alone, whoever's it is; none where the program cannot.
    async fn clusters(&self, _name: Option<&str>) -> Result<Vec<Cluster>> {
        Ok(Vec::new())
    }

    /// Lists the machines with accelerators such as `A100:8` of a cloud, with their prices.
    async fn catalog(
        &self,
        _cloud: &str,
        _accelerators: &str,
        _all_regions: bool,
    ) -> Result<Vec<CatalogMachine>> {
        Ok(Vec::new())
    }

    /// Asks what each cluster has cost. Empty where the program cannot tell clusters of one name apart.
    async fn costs(&self) -> CostReport {
        CostReport::new()
    }

    /// Reads a job's log. An error of kind `Unavailable` means that it is gone with its cluster.
    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog>;

    fn change_call(&self, change: &Change) -> Result<CliCall>;

    /// Tells if the program says that it cancels a job.
    fn accepts_cancel(&self, output: &Output) -> bool;

    /// Returns what a stop or a down has done, or why it was not done.
    async fn teardown_result(&self, _: &Change, output: &Output) -> Result<String> {
        Err(JobError::failed(failure_text(output)))
    }
}

pub(in crate::launcher) fn log_file(identity: &JobIdentity) -> String {
    format!("cloud:{}/{}", identity.cloud, identity.cluster)
}

/// Merges the answers of clusters that were asked one by one. Where none answered, the error of the first is that of the query.
pub(in crate::launcher) fn merge_queues(answers: Vec<(String, Result<Queue>)>) -> Result<Queue> {
    let is_silent = answers.iter().all(|(_, answer)| answer.is_err());
    let mut merged = Queue::new();
    for (cluster, answer) in answers {
        match answer {
            Ok(queue) => merged.extend(queue),
            Err(error) if is_silent => return Err(error),
            Err(error) => drop(merged.insert(cluster, Err(JobError::failed(error)))),
        }
    }
    Ok(merged)
}

/// Returns the reason that a program printed for its failure.
pub(in crate::launcher) fn failure_text(output: &Output) -> String {
    parse::failure_reason(&output.stdout)
        .or_else(|| parse::failure_reason(&output.stderr))
        .or_else(|| parse::last_line(&output.stderr))
        .or_else(|| parse::last_line(&output.stdout))
        .unwrap_or_else(|| "it printed no reason".to_owned())
}

/// Returns `true` for a text of letters, digits and `others` that is no option.
pub(in crate::launcher) fn is_plain(text: &str, others: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    !text.starts_with('-') && text.chars().all(is_allowed)
}
