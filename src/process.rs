//! Supervised processes, which outlive the server, and programs that are run for an answer. Knows nothing of Oumi's jobs.

pub(crate) mod find;
pub(crate) mod job_dir;
pub(crate) mod machine;
pub(crate) mod plan;
mod program;
pub(crate) mod runner;
pub(crate) mod start;
pub(crate) mod supervisor;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinError, spawn_blocking};

/// Runs a future on the runtime's threads for files, and holds none while it waits: a hand-over takes longer than reading a file.
pub(crate) async fn on_file_threads<T: Send + 'static>(future: BoxFuture<'static, T>) -> T {
    let (sender, done) = oneshot::channel();
    run(Box::pin(async move { drop(sender.send(future.await)) })).await;
    match done.await {
        Ok(done) => done,
        // The runtime is shutting down.
        Err(_) => std::future::pending().await,
    }
}

/// Runs a future without a result: one function for each type of result would make the program 40 KB larger.
async fn run(mut future: BoxFuture<'static, ()>) {
    struct Woken(Notify);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }
    let woken = Arc::new(Woken(Notify::new()));
    loop {
        let waker = Waker::from(Arc::clone(&woken));
        let step = spawn_blocking(move || {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            (future, polled)
        });
        match step.await.map_err(JoinError::try_into_panic) {
            Ok((rest, Poll::Pending)) => future = rest,
            Err(Ok(panic)) => resume_unwind(panic),
            Ok((_, Poll::Ready(()))) | Err(Err(_)) => return,
        }
        woken.0.notified().await;
    }
}
