//! The identity of a job: the one word that the registry and the launchers share.

/// Names a job, as far as it is known. The registry stores it; a launcher is asked about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct JobIdentity {
    /// Our id; empty for a job that was started elsewhere.
    pub(crate) job_id: String,
    /// The cloud, lower case; `local` is this machine.
    pub(crate) cloud: String,
    /// The cluster; empty for a job on this machine.
    pub(crate) cluster: String,
    /// The launcher's id; empty until the launch has ended.
    pub(crate) oumi_job_id: String,
}
