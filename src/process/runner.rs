//! Runs external programs that change nothing, a few at a time. Equal queries share one run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::program::execute;
pub(crate) use super::program::{Capture, CliCall, Output};
use crate::error::Result;
use crate::sync::lock;

/// The limit of programs that run at once: each of them takes seconds of a core.
const MAX_CONCURRENT: usize = 4;
/// The time that a result is kept whose callers have all given up; the next equal query takes it.
const UNREAD_TTL: Duration = Duration::from_secs(60);
/// The time that a tool call waits for its queries in all: clients give up after a minute, some sooner.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(25);

tokio::task_local! {
    /// The instant until which the work that runs waits for its queries.
    static DEADLINE: Instant;
}

/// Has all the queries of a tool call together wait [`CALL_BUDGET`] at most.
pub(crate) async fn in_budget<T>(call: impl Future<Output = T>) -> T {
    until(Instant::now() + CALL_BUDGET, call).await
}

/// Has the queries of `work` wait until `deadline`, or that of the work around it. Others wait for the end of their run.
pub(crate) async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> T {
    let outer = DEADLINE.try_with(|outer| *outer).unwrap_or(deadline);
    DEADLINE.scope(deadline.min(outer), work).await
}

pub(crate) type QueryResult = Result<Arc<Output>>;
/// Answers a query in place of its program.
type Request = BoxFuture<'static, Output>;
/// A query that runs, waits for a slot, or has ended without a caller that read its result. Receivers are the waiting callers.
type Run = watch::Sender<Option<QueryResult>>;
type Waiting = watch::Receiver<Option<QueryResult>>;

/// Runs programs, [`MAX_CONCURRENT`] at a time. Clones share the slots and the queries.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    slots: Arc<Semaphore>,
    /// Each run is its task's, so that its callers are told where the task panics.
    queries: Arc<Mutex<HashMap<CliCall, Weak<Run>>>>,
}

impl Default for Cli {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            queries: Arc::default(),
        }
    }
}

impl Cli {
    /// Runs a program that changes nothing, or joins an equal query that runs already, and waits as [`until`] says. A run that
    /// has begun outlives its callers, and the next equal query takes its result.
    pub(crate) async fn query(&self, call: &CliCall) -> QueryResult {
        self.share(call, None).await
    }

    /// Answers a query by `request` in place of its program, and shares it likewise.
    pub(crate) async fn share(&self, call: &CliCall, request: Option<Request>) -> QueryResult {
        let started = Instant::now();
        let mut result = self.join_or_start(call, request);
        let waiting = result.wait_for(Option::is_some);
        let waited = match DEADLINE.try_with(|deadline| *deadline).ok() {
            Some(deadline) => tokio::time::timeout_at(deadline, waiting).await,
            None => Ok(waiting.await),
        };
        let problem = match waited.map(|finished| finished.ok()?.clone()) {
            Ok(Some(result)) => return result,
            Ok(None) => "did not end: the server is shutting down, or failed".to_owned(),
            Err(_) => match started.elapsed().as_secs() {
                // The call has waited for others.
                0 => "has not answered yet and still runs".to_owned(),
                seconds => format!("has not answered within {seconds} s and still runs"),
            },
        };
        Err(call.error(problem).with_hint("try again in a moment"))
    }

    /// Drops shared results, so that queries after a change do not see the state before it.
    pub(crate) fn invalidate(&self) {
        lock(&self.queries).clear();
    }

    fn join_or_start(&self, call: &CliCall, request: Option<Request>) -> Waiting {
        let mut queries = lock(&self.queries);
        if let Some(run) = queries.get(call).and_then(Weak::upgrade) {
            let result = run.subscribe();
            if result.borrow().is_some() {
                // One caller takes it: the next wants the state of then.
                queries.remove(call);
            }
            return result;
        }
        // One whose task panicked is left in it.
        queries.retain(|_, run| run.strong_count() > 0);
        let run = Arc::new(Run::new(None));
        let result = run.subscribe();
        queries.insert(call.clone(), Arc::downgrade(&run));
        tokio::spawn(self.clone().run_query(call.clone(), request, run));
        result
    }

    async fn run_query(self, call: CliCall, request: Option<Request>, run: Arc<Run>) {
        // After `invalidate`, an equal query may have a run of its own.
        let this = Arc::downgrade(&run);
        let forget = |queries: &mut HashMap<_, _>| queries.retain(|_, it| !this.ptr_eq(it));
        let output = match request {
            // It costs this machine nothing.
            Some(request) => Ok(request.await),
            None => {
                let _slot = self.slots.acquire().await;
                let mut queries = lock(&self.queries);
                if run.receiver_count() == 0 {
                    // Every caller gave up while it waited for its slot.
                    return forget(&mut queries);
                }
                drop(queries);
                execute(&call).await
            }
        };
        let result = match output {
            Ok(output) if output.timed_out && !call.is_log => {
                let seconds = call.timeout.as_secs();
                let error = call.error(format!("did not answer within {seconds} s and was ended"));
                Err(error.with_hint("see whether it works in a terminal"))
            }
            output => output.map(Arc::new),
        };
        {
            let mut queries = lock(&self.queries);
            run.send_replace(Some(result));
            if run.receiver_count() > 0 {
                return forget(&mut queries);
            }
        }
        tokio::time::sleep(UNREAD_TTL).await;
        forget(&mut lock(&self.queries));
    }
}

#[cfg(test)]
mod tests;
