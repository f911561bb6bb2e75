//! Progress notifications for a call whose client gave a token. They never hold the call up: a slow client gets the newest only.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::ProgressNotificationParam;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Context;

/// After this time without news the client is told that the call goes on.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The newest message of a call. It travels in the extensions of the request.
type Newest = Arc<watch::Sender<String>>;

/// Returns what the call of `context` reports its progress with. Without a token it does nothing.
pub(super) fn reporter(context: &Context) -> impl Fn(&str) + Send + Sync + use<> {
    let newest = context.extensions.get::<Newest>().cloned();
    move |message| {
        if let Some(newest) = &newest {
            newest.send_if_modified(|last| std::mem::replace(last, message.to_owned()) != message);
        }
    }
}

pub(super) async fn with_progress<T, F: Future<Output = T>>(
    mut context: Context,
    work: impl FnOnce(Context) -> F,
) -> T {
    let Some(token) = context.meta.get_progress_token() else {
        return work(context).await;
    };
    let (newest, mut messages) = watch::channel(String::new());
    let (peer, cancelled) = (context.peer.clone(), context.ct.clone());
    context.extensions.insert(Arc::new(newest));
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
    tokio::join!(work(context), Box::pin(notifying)).0
}
