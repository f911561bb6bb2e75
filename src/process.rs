//! Supervised processes, which outlive the server, and programs that are run for an answer. Knows nothing of Oumi's jobs.

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

/// Runs file work off the async threads.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<std::io::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}
