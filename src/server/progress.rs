//! Progress notifications for a call whose client gave a token. They never hold the call up: a slow client gets the newest only.

use std::time::Duration;

use futures::future::BoxFuture;
use rmcp::model::ProgressNotificationParam;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Context, Server};

/// After this time without news the client is told that the call goes on.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Does the work of a call with a service that reports its progress to the client.
pub(super) async fn with_progress<T>(
    server: &Server,
    context: Context,
    work: impl for<'a> FnOnce(&'a Server, Context) -> BoxFuture<'a, T>,
) -> T {
    let Some(token) = context.meta.get_progress_token() else {
        return work(server, context).await;
    };
    let (newest, mut messages) = watch::channel(String::new());
    let (peer, cancelled) = (context.peer.clone(), context.ct.clone());
    let mut server = server.clone();
    server.service = server.service.reporting(move |message| {
        newest.send_if_modified(|last| std::mem::replace(last, message.to_owned()) != message);
    });
    let started_at = Instant::now();
    let notifying = async {
        let mut last = "working".to_owned();
        for count in 1_u32.. {
            let message = match timeout(HEARTBEAT, messages.changed()).await {
                Ok(Ok(())) => {
                    last.clone_from(&messages.borrow_and_update());
                    last.clone()
                }
                // The call is done.
                Ok(Err(_)) => return,
                Err(_) => format!("{last} (for {} s now)", started_at.elapsed().as_secs()),
            };
            let progress =
                ProgressNotificationParam::new(token.clone(), count.into()).with_message(message);
            if cancelled.is_cancelled() || peer.notify_progress(progress).await.is_err() {
                return;
            }
        }
    };
    // Boxed: most calls have no token, and need no memory for this.
    let working = Box::pin(async move { work(&server, context).await });
    tokio::join!(working, Box::pin(notifying)).0
}
