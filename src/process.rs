//! Supervised processes, which outlive the server, and programs that are run for an answer. Knows nothing of Oumi's jobs.

mod children;
pub(crate) mod find;
pub(crate) mod job_dir;
pub(crate) mod machine;
mod program;
pub(crate) mod runner;
pub(crate) mod start;
pub(crate) mod supervisor;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::io;

use tokio::task::spawn_blocking;

/// Runs file work on a thread of its own. A panic becomes an error.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)
}

/// Runs file work that may fail, as [`run_blocking`] does.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    run_blocking(work).await?
}
