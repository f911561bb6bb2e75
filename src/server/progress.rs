//! Progress: what a call that takes long is at, told to a client that gave a token for it.
//!
//! A client that takes nothing is told no more than the newest, and the call goes on meanwhile. What was told is written
//! before the answer, and nothing after it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::sync::watch;
use tokio::time::Instant;

/// After so long without news the client hears that the call goes on.
const STILL: Duration = Duration::from_secs(5);

/// Where a call says what it is at. It travels in the extensions of the request.
#[derive(Clone)]
struct Line(Arc<watch::Sender<String>>);

/// What the call of `context` says what it is at with. Nobody hears it where the client gave no token.
pub(super) fn tell(context: &RequestContext<RoleServer>) -> impl Fn(&str) + Send + Sync + use<> {
    let line = context.extensions.get::<Line>().cloned();
    move |said| {
        let Some(Line(line)) = &line else { return };
        line.send_if_modified(|last| {
            let is_new = last != said;
            if is_new {
                said.clone_into(last);
            }
            is_new
        });
    }
}

/// Does the work of a call, which is given its context, and tells the client meanwhile what it says.
pub(super) async fn told<T, F: Future<Output = T>>(
    mut context: RequestContext<RoleServer>,
    work: impl FnOnce(RequestContext<RoleServer>) -> F,
) -> T {
    let Some(token) = context.meta.get_progress_token() else {
        return work(context).await;
    };
    let (line, mut heard) = watch::channel(String::new());
    // Ends with the call, or when the client gives it up.
    let (peer, given_up) = (context.peer.clone(), context.ct.clone());
    let over = given_up.child_token();
    let ended = over.clone();
    context.extensions.insert(Line(Arc::new(line)));
    let mut work = pin!(work(context));
    let begun = Instant::now();
    let mut telling = pin!(async {
        let mut count = 0_u32;
        let mut last = "at work".to_owned();
        loop {
            let message = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                Ok(()) = heard.changed() => {
                    last = heard.borrow_and_update().clone();
                    last.clone()
                }
                () = tokio::time::sleep(STILL) => {
                    format!("{last} (for {} s now)", begun.elapsed().as_secs())
                }
            };
            count += 1;
            let said =
                ProgressNotificationParam::new(token.clone(), count.into()).with_message(message);
            let written = tokio::select! {
                written = peer.notify_progress(said) => written.is_ok(),
                () = given_up.cancelled() => false,
            };
            if !written {
                return;
            }
        }
    });
    tokio::select! {
        done = &mut work => {
            over.cancel();
            // What is being written comes before the answer.
            telling.await;
            done
        }
        () = &mut telling => work.await,
    }
}
