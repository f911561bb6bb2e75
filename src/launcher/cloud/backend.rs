//! The programs that reach clouds, as the launcher of clouds sees them.

use std::collections::{BTreeMap, BTreeSet};
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

/// The clusters that a query of queues names.
#[derive(Debug, Default)]
pub(crate) struct QueueScope {
    /// Empty for every cloud.
    pub(in crate::launcher) cloud: String,
    /// Empty for every cluster.
    pub(in crate::launcher) clusters: BTreeSet<String>,
}

impl QueueScope {
    pub(super) fn of_job(identity: &JobIdentity) -> Self {
        Self {
            cloud: identity.cloud.clone(),
            clusters: BTreeSet::from([identity.cluster.clone()]),
        }
    }

    /// The queries that together list `jobs`: one for each cloud, or one run of `sky queue` for the clusters of all clouds.
    pub(super) fn of_list<B: CloudBackend>(jobs: &[&JobIdentity]) -> Vec<Self> {
        if B::IDS_RESTART {
            return vec![Self::default()];
        }
        let mut clouds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for job in jobs {
            let clusters = clouds.entry(&job.cloud).or_default();
            clusters.insert(job.cluster.clone());
        }
        let scope = |(cloud, clusters): (&str, _)| Self {
            cloud: cloud.to_owned(),
            clusters,
        };
        clouds.into_iter().map(scope).collect()
    }

    pub(super) fn includes(&self, identity: &JobIdentity) -> bool {
        self.cloud.is_empty() || self.cloud == identity.cloud
    }
}

/// The result of a program that cancels a job.
pub(crate) struct CancelRun {
    /// The program said, in its own way, that it cancelled the job.
    pub(in crate::launcher) accepted: bool,
    pub(in crate::launcher) reason: String,
}

/// A program that reaches clouds: SkyPilot or Oumi.
#[async_trait]
pub(crate) trait CloudBackend: Send + Sync + Sized + 'static {
    const CLOUDS: &'static [&'static str];
    /// `true` where a cluster that is created again counts its jobs from 1 again, as SkyPilot's do. There jobs have names, a
    /// cluster lists every job that it was ever given, and a launch onto an existing cluster skips the job's `setup`.
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

    async fn queue(&self, scope: &QueueScope, deadline: Option<Instant>)
    -> Result<Queue, JobError>;

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

    /// Reads what the program of [`cancel_call`](Self::cancel_call) printed.
    fn cancel_result(&self, output: &Output) -> CancelRun;

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
