//! The words of `status` in answers that are ours. The clouds' own words pass through beside them.

/// The states of a job that has begun.
pub(crate) const OURS: [&str; 4] = [RUNNING, COMPLETED, FAILED, CANCELLED];

pub(crate) const LAUNCHING: &str = "launching";
pub(crate) const RUNNING: &str = "running";
pub(crate) const COMPLETED: &str = "completed";
pub(crate) const FAILED: &str = "failed";
pub(crate) const CANCELLED: &str = "cancelled";
/// The job ended while nothing watched it.
pub(crate) const LOST: &str = "lost";
/// The job's cluster was deleted, and its queue with it.
pub(crate) const CLUSTER_GONE: &str = "cluster_gone";
pub(crate) const NOT_FOUND: &str = "not_found";
/// The launcher could not be asked.
pub(crate) const UNKNOWN: &str = "unknown";
/// The call failed before anything was started.
pub(crate) const ERROR: &str = "error";
/// The call was refused before anything was started.
pub(crate) const BLOCKED: &str = "blocked";
