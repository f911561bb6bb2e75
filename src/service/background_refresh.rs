//! A look at something that may be slow, beside what a call must wait for.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::sync::lock;

/// A look that may take long: one at a time, waited for with patience. It goes on when the patience is over, and what the
/// last one saw is kept.
#[derive(Debug)]
pub(super) struct Aside<T> {
    state: Arc<Mutex<State<T>>>,
}

#[derive(Debug)]
struct State<T> {
    begun: Option<Instant>,
    /// Closed once the look has ended, however.
    under_way: Option<watch::Receiver<()>>,
    seen: Option<T>,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        let state = State {
            begun: None,
            under_way: None,
            seen: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl<T: Clone + Send + 'static> Aside<T> {
    /// Begins a look, unless one is under way or the last was begun within `every`. It is given what the last one saw; one
    /// that sees nothing leaves that as it is.
    pub(super) fn begin<F>(&self, every: Duration, look: impl FnOnce(Option<T>) -> F)
    where
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let mut state = self.state();
        let is_under_way = state
            .under_way
            .as_ref()
            .is_some_and(|ended| ended.has_changed().is_ok());
        if is_under_way || state.begun.is_some_and(|begun| begun.elapsed() < every) {
            return;
        }
        let (ends, ended) = watch::channel(());
        state.begun = Some(Instant::now());
        state.under_way = Some(ended);
        let look = look(state.seen.clone());
        drop(state);
        let kept = Arc::clone(&self.state);
        tokio::spawn(async move {
            let seen = look.await;
            if seen.is_some() {
                lock(&kept).seen = seen;
            }
            drop(ends);
        });
    }

    /// When the last look was begun.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.state().begun
    }

    /// What the last look saw that has ended.
    pub(super) fn now(&self) -> Option<T> {
        self.state().seen.clone()
    }

    /// What the look under way sees, or the last one where it takes longer than `patience`.
    pub(super) async fn seen(&self, patience: Duration) -> Option<T> {
        let under_way = self.state().under_way.clone();
        if let Some(mut ended) = under_way {
            // Nothing is ever sent: it closes, or it takes too long.
            let _ = tokio::time::timeout(patience, ended.changed()).await;
        }
        self.now()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn after(seconds: u32, seen: Option<u32>) -> Option<u32> {
        tokio::time::sleep(SECOND * seconds).await;
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_patience_gets_what_was_seen_before() {
        let aside = Aside::default();
        assert_eq!(aside.seen(SECOND).await, None);
        aside.begin(SECOND, |_| after(1, Some(7)));
        assert_eq!(aside.seen(SECOND * 2).await, Some(7));
        tokio::time::sleep(SECOND).await;
        aside.begin(SECOND, |last| after(3, last.map(|seen| seen + 1)));
        assert_eq!(aside.seen(SECOND).await, Some(7), "it goes on");
        assert_eq!(aside.seen(SECOND * 9).await, Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn one_look_at_a_time_and_no_more_often_than_asked() {
        let aside = Aside::default();
        aside.begin(Duration::ZERO, |_| after(5, Some(1)));
        aside.begin(Duration::ZERO, |_| after(0, Some(2)));
        assert_eq!(aside.seen(SECOND * 9).await, Some(1));
        aside.begin(SECOND * 9, |_| after(0, Some(3)));
        assert_eq!(aside.seen(SECOND).await, Some(1));
        aside.begin(SECOND * 4, |_| after(0, Some(4)));
        assert_eq!(aside.seen(SECOND).await, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_or_breaks_leaves_what_was_seen() {
        let aside = Aside::default();
        aside.begin(Duration::ZERO, |_| after(0, Some(1)));
        assert_eq!(aside.seen(SECOND).await, Some(1));
        aside.begin(Duration::ZERO, |_| after(0, None));
        assert_eq!(aside.seen(SECOND).await, Some(1));
        aside.begin(Duration::ZERO, |_| async { panic!("as the test wanted") });
        assert_eq!(aside.seen(SECOND).await, Some(1));
        aside.begin(Duration::ZERO, |_| after(0, Some(2)));
        assert_eq!(aside.seen(SECOND).await, Some(2));
    }
}
