//! The launches in flight in this server: their watchers, and the cancels that were requested meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::job_identity::JobIdentity;
use crate::launcher::JobStatus;
use crate::sync::lock;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LaunchOutcome {
    Launched(JobIdentity),
    Failed(String),
    /// A cancel came meanwhile, and this is the job after it.
    Cancelled {
        job: Box<JobStatus>,
        was_launched: bool,
    },
    /// The job may be running: a cancel failed, or the end of the launch could not be found out.
    Unknown(String),
}

/// Watches one launch; holds its outcome once it has ended.
pub(crate) type LaunchWatch = watch::Receiver<Option<LaunchOutcome>>;

#[derive(Debug, Default)]
struct Entry {
    cancel_requested: bool,
    /// The error of the cancel that is being retried.
    cancel_error: Option<String>,
    outcome: watch::Sender<Option<LaunchOutcome>>,
}

/// The launches in flight. An entry lives from just before a launch starts until the identity of the job is recorded; from
/// then on the launcher is the one source of truth.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl InFlight {
    /// Adds a launch; `None` when one of that id is in flight already.
    pub(crate) fn insert(&self, job_id: &str) -> Option<LaunchWatch> {
        let mut entries = lock(&self.entries);
        if entries.contains_key(job_id) {
            return None;
        }
        let entry = entries.entry(job_id.to_owned()).or_default();
        Some(entry.outcome.subscribe())
    }

    /// Requests that the job be cancelled as soon as its launch has ended; `None` when none is in flight.
    pub(crate) fn request_cancel(&self, job_id: &str) -> Option<LaunchWatch> {
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(job_id)?;
        entry.cancel_requested = true;
        Some(entry.outcome.subscribe())
    }

    pub(crate) fn cancel_requested(&self, job_id: &str) -> bool {
        matches!(lock(&self.entries).get(job_id), Some(entry) if entry.cancel_requested)
    }

    pub(crate) fn set_cancel_error(&self, job_id: &str, error: String) {
        if let Some(entry) = lock(&self.entries).get_mut(job_id) {
            entry.cancel_error = Some(error);
        }
    }

    pub(crate) fn cancel_error(&self, job_id: &str) -> Option<String> {
        lock(&self.entries).get(job_id)?.cancel_error.clone()
    }

    /// Removes a launch and publishes its outcome. Returns `false`, and keeps the launch, where a cancel was requested and the
    /// outcome is `Launched`: no cancel is lost between the last check and this call.
    pub(crate) fn evict(&self, job_id: &str, outcome: LaunchOutcome) -> bool {
        let mut entries = lock(&self.entries);
        let entry = entries.get(job_id);
        let is_cancelled = entry.is_some_and(|entry| entry.cancel_requested);
        if is_cancelled && matches!(outcome, LaunchOutcome::Launched(_)) {
            return false;
        }
        if let Some(entry) = entries.remove(job_id) {
            entry.outcome.send_replace(Some(outcome));
        }
        true
    }

    pub(crate) fn contains(&self, job_id: &str) -> bool {
        lock(&self.entries).contains_key(job_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl InFlight {
        pub(crate) fn is_empty(&self) -> bool {
            lock(&self.entries).is_empty()
        }
    }

    fn launched() -> LaunchOutcome {
        LaunchOutcome::Launched(JobIdentity::default())
    }

    #[test]
    fn an_id_is_in_flight_once() {
        let in_flight = InFlight::default();
        assert!(in_flight.insert("a").is_some());
        assert!(in_flight.insert("a").is_none());
        assert!(in_flight.insert("b").is_some());
        assert!(in_flight.evict("a", launched()));
        assert!(!in_flight.contains("a"));
        assert!(in_flight.insert("a").is_some());
    }

    #[test]
    fn every_watch_gets_the_outcome() {
        let in_flight = InFlight::default();
        let first = in_flight.insert("a").unwrap();
        let second = in_flight.request_cancel("a").unwrap();
        assert_eq!(*first.borrow(), None);
        let outcome = LaunchOutcome::Failed("no capacity".to_owned());
        assert!(in_flight.evict("a", outcome.clone()));
        assert_eq!(*first.borrow(), Some(outcome.clone()));
        assert_eq!(*second.borrow(), Some(outcome));
        assert!(in_flight.is_empty());
    }

    #[test]
    fn a_requested_cancel_refuses_launched() {
        let in_flight = InFlight::default();
        assert!(in_flight.request_cancel("a").is_none());
        let watch = in_flight.insert("a").unwrap();
        assert!(!in_flight.cancel_requested("a"));
        in_flight.request_cancel("a");
        assert!(in_flight.cancel_requested("a"));
        assert!(!in_flight.evict("a", launched()));
        assert!(in_flight.contains("a") && watch.borrow().is_none());
        let reason = LaunchOutcome::Unknown("no answer".to_owned());
        assert!(in_flight.evict("a", reason));
        assert!(in_flight.is_empty());
    }

    #[test]
    fn notes_live_as_long_as_the_entry() {
        let in_flight = InFlight::default();
        in_flight.set_cancel_error("a", "too early".to_owned());
        in_flight.insert("a");
        assert_eq!(in_flight.cancel_error("a"), None);
        in_flight.set_cancel_error("a", "no answer".to_owned());
        assert_eq!(in_flight.cancel_error("a").as_deref(), Some("no answer"));
        in_flight.evict("a", launched());
        in_flight.insert("a");
        assert_eq!(in_flight.cancel_error("a"), None);
    }
}
