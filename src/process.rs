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
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

/// Runs file work. A server's thread does it in place, and tokio gives the other calls of that thread to another one: handing
/// the work over would take longer than most of it does, and the work of many threads at once much memory. A panic becomes an
/// error. Who must not wait for a disk that hangs runs it in a task of its own.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        let ended = block_in_place(|| catch_unwind(AssertUnwindSafe(work)));
        return ended.map_err(|_| io::Error::other("the server failed in file work"));
    }
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
