//! The programs that reach clouds, as the launcher of clouds sees them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::time::Instant;

use super::CloudLaunches;
use crate::error::JobError;
use crate::launcher::{ClusterAction, JobIdentity, JobLog, LaunchPlan, LaunchSpec};
use crate::parse;
use crate::parse::costs::ClusterCost;
use crate::parse::gpus::CatalogMachine;
use crate::parse::sky::{ClusterList, Queue};
use crate::process::runner::{Cli, CliCall, Output};

/// A program that reaches clouds: SkyPilot or Oumi.
#[async_trait]
pub(crate) trait CloudBackend: Send + Sync + Sized + 'static {
    const CLOUDS: &'static [&'static str];
    /// `true` where a cluster that is created again counts its jobs from 1 again, as SkyPilot's do. There jobs have names, a
    /// cluster lists every job that it was ever given, one query lists the jobs of all clouds, and a launch onto an existing
    /// cluster skips the job's `setup`.
    const IDS_RESTART: bool;

    fn new(cli: Cli) -> Self;

    fn find_program() -> Result<PathBuf, JobError>;

    /// Refuses names that the program would refuse, or take for options.
    fn validate_cluster(cloud: &str, cluster: &str) -> Result<(), JobError>;

    async fn plan(
        &self,
        launches: &CloudLaunches,
        spec: &LaunchSpec,
    ) -> Result<LaunchPlan, JobError>;

    /// Lists the jobs of these clusters; of every cluster where none is named.
    async fn queue(
        &self,
        cloud: &str,
        clusters: &BTreeSet<String>,
        deadline: Option<Instant>,
    ) -> Result<Queue, JobError>;

    /// Lists the clusters. `None` where the program cannot.
    async fn clusters(&self, _: Option<Instant>) -> Result<Option<ClusterList>, JobError> {
        Ok(None)
    }

    /// Tells if there is a catalog of what machines of a cloud cost.
    fn has_prices(&self, _cloud: &str) -> bool {
        false
    }

    /// Lists the machines with accelerators such as `A100:8` of a cloud that [has prices](Self::has_prices).
    async fn catalog(
        &self,
        _cloud: &str,
        _accelerators: &str,
        _all_regions: bool,
        _: Option<Instant>,
    ) -> Result<Vec<CatalogMachine>, JobError> {
        Ok(Vec::new())
    }

    /// Asks what each cluster has cost. Empty where the program cannot tell clusters of one name apart.
    async fn costs(&self, _: Option<Instant>) -> Result<Vec<ClusterCost>, JobError> {
        Ok(Vec::new())
    }

    /// Reads a job's log. An error of kind `Unavailable` means that it is gone with its cluster.
    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError>;

    fn cancel_call(&self, identity: &JobIdentity) -> Result<CliCall, JobError>;

    /// Returns why the program of [`cancel_call`](Self::cancel_call) has not cancelled the job; `None` where it says that it has.
    fn cancel_refusal(&self, output: &Output) -> Option<String>;

    fn teardown_call(
        &self,
        cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<CliCall, JobError>;

    /// Finds out what the program of [`teardown_call`](Self::teardown_call) did.
    async fn teardown_result(
        &self,
        cluster: &str,
        action: ClusterAction,
        output: &Output,
        deadline: Option<Instant>,
    ) -> Result<String, JobError>;
}

pub(in crate::launcher) fn log_file(identity: &JobIdentity) -> String {
    format!("cloud:{}/{}", identity.cloud, identity.cluster)
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
