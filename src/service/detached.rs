//! Work that outlasts the call that asked for it.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::JobError;

/// The wait of a call for a cancel, or for a cluster to be stopped or deleted.
pub(super) const CHANGE_WAIT: Duration = Duration::from_secs(30);

/// Runs work in a task of its own, which a dropped call does not end. Returns the task where it takes longer than
/// [`CHANGE_WAIT`].
pub(super) async fn run_detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, JobError>> + Send + 'static,
) -> Result<Result<T, JobError>, JoinHandle<Result<T, JobError>>> {
    let mut task = tokio::spawn(work);
    match tokio::time::timeout(CHANGE_WAIT, &mut task).await {
        Ok(done) => Ok(done.map_err(JobError::failed).flatten()),
        Err(_) => Err(task),
    }
}
