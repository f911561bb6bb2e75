//! The identity of a job: the one word that the registry and the launchers share.

/// Names a job, as far as it is known. The registry stores it; a launcher is asked about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct JobIdentity {
    /// Our id; empty for a job that was started elsewhere.
    pub job_id: String,
    /// The cloud, lower case; `local` is this machine.
    pub cloud: String,
    /// The cluster; empty for a job on this machine.
    pub cluster: String,
    /// The launcher's id; empty until the launch has ended.
    pub oumi_job_id: String,
}
