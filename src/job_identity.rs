//! The identity of a job: the one word that calls, the registry and the launchers share.

use schemars::JsonSchema;
use serde::Deserialize;

/// Names a job, as far as it is known. A call gives a part of it, the registry stores it, and a launcher is asked about it. The docs
/// of its fields are what a model reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct JobIdentity {
    /// The id that run_job or list_jobs gave.
    // Ours; empty for a job that was started elsewhere.
    pub(crate) job_id: String,
    /// The launcher's id, for a job without a job_id; needs cloud.
    // Empty until the launch has ended.
    pub(crate) oumi_job_id: String,
    /// Its cloud, with oumi_job_id.
    // In lower case; `local` is this machine.
    pub(crate) cloud: String,
    /// Its cluster, with oumi_job_id: ids repeat from cluster to cluster.
    // Empty for a job on this machine.
    #[serde(rename = "cluster_name")]
    pub(crate) cluster: String,
}

impl JobIdentity {
    /// The job with this id of ours.
    pub(crate) fn of(job_id: &str) -> Self {
        Self {
            job_id: job_id.to_owned(),
            ..Self::default()
        }
    }

    /// Leaves out what an id of ours says already.
    pub(crate) fn shortest(self) -> Self {
        match self.job_id.as_str() {
            "" => self,
            job_id => Self::of(job_id),
        }
    }
}
