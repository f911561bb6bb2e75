//! The launches under way in this server: who waits for them, and whether they are to be cancelled as soon as they end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::launcher::{CancelOutcome, JobIdentity};
use crate::sync::lock;

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchOutcome {
    /// It runs, as this job.
    Launched(JobIdentity),
    /// It failed, for this reason.
    Failed(String),
    /// A cancel came meanwhile, and has been carried out like this.
    Cancelled(CancelOutcome),
    /// A cancel that came meanwhile failed, or nobody could say how the launch ended: the job may be running.
    MayRun(String),
}

/// Watches one launch; holds its outcome once it has ended.
pub type LaunchWatch = watch::Receiver<Option<LaunchOutcome>>;

#[derive(Debug)]
struct Entry {
    /// Its job stands in the registry.
    recorded: bool,
    cancel_requested: bool,
    /// Why the cancel has failed so far.
    cancel_error: Option<String>,
    outcome: watch::Sender<Option<LaunchOutcome>>,
}

/// The map of launches under way. An entry lives from just before a launch is set going until who the job became is
/// written; from then on the launcher is the one source of truth.
#[derive(Debug, Clone, Default)]
pub struct InFlight {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl InFlight {
    /// Enters a launch. Nothing when one of that id is under way already.
    pub fn begin(&self, job_id: &str) -> Option<LaunchWatch> {
        let mut entries = self.entries();
        if entries.contains_key(job_id) {
            return None;
        }
        let (outcome, watch) = watch::channel(None);
        entries.insert(
            job_id.to_owned(),
            Entry {
                recorded: false,
                cancel_requested: false,
                cancel_error: None,
                outcome,
            },
        );
        Some(watch)
    }

    /// Notes that the job stands in the registry: from now on it can be missed there.
    pub fn set_recorded(&self, job_id: &str) {
        if let Some(entry) = self.entries().get_mut(job_id) {
            entry.recorded = true;
        }
    }

    /// The launches whose jobs stand in the registry.
    pub fn recorded(&self) -> Vec<String> {
        let entries = self.entries();
        let recorded = entries.iter().filter(|(_, entry)| entry.recorded);
        recorded.map(|(job_id, _)| job_id.clone()).collect()
    }

    /// Asks that the job be cancelled as soon as its launch has ended. Nothing when no launch of it is under way.
    pub fn request_cancel(&self, job_id: &str) -> Option<LaunchWatch> {
        let mut entries = self.entries();
        let entry = entries.get_mut(job_id)?;
        entry.cancel_requested = true;
        Some(entry.outcome.subscribe())
    }

    /// Whether a cancel was asked for.
    pub fn cancel_requested(&self, job_id: &str) -> bool {
        self.entries()
            .get(job_id)
            .is_some_and(|entry| entry.cancel_requested)
    }

    /// Notes that the cancel has failed for now, and will be tried again.
    pub fn set_cancel_error(&self, job_id: &str, error: String) {
        if let Some(entry) = self.entries().get_mut(job_id) {
            entry.cancel_error = Some(error);
        }
    }

    /// Why the cancel that is being tried again has failed so far.
    pub fn cancel_error(&self, job_id: &str) -> Option<String> {
        self.entries().get(job_id)?.cancel_error.clone()
    }

    /// Ends a launch and tells who waits for it. Refused, and false, when a cancel was asked for that the outcome does not
    /// honour: between the last look at the request and this call no cancel can be lost.
    pub fn evict(&self, job_id: &str, outcome: LaunchOutcome) -> bool {
        let mut entries = self.entries();
        let cancelled = entries
            .get(job_id)
            .is_some_and(|entry| entry.cancel_requested);
        if cancelled && matches!(outcome, LaunchOutcome::Launched(_)) {
            return false;
        }
        if let Some(entry) = entries.remove(job_id) {
            entry.outcome.send_replace(Some(outcome));
        }
        true
    }

    /// Evicts a launch whose job is not in the registry any more; but a cancel that was asked for is still to be honoured.
    pub fn forget(&self, job_id: &str) {
        let mut entries = self.entries();
        if entries
            .get(job_id)
            .is_some_and(|entry| !entry.cancel_requested)
        {
            entries.remove(job_id);
        }
    }

    /// Whether a launch of that id is under way.
    pub fn contains(&self, job_id: &str) -> bool {
        self.entries().contains_key(job_id)
    }

    /// How many launches are under way.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// No launch is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // No code under this lock can leave the map half-changed.
        lock(&self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched() -> LaunchOutcome {
        LaunchOutcome::Launched(JobIdentity::default())
    }

    #[test]
    fn an_id_is_in_flight_once() {
        let in_flight = InFlight::default();
        assert!(in_flight.begin("a").is_some());
        assert!(in_flight.begin("a").is_none());
        assert!(in_flight.begin("b").is_some());
        assert_eq!(in_flight.len(), 2);
        assert!(in_flight.evict("a", launched()));
        assert!(!in_flight.contains("a"));
        assert!(in_flight.begin("a").is_some());
    }

    #[test]
    fn every_watch_gets_the_outcome() {
        let in_flight = InFlight::default();
        let first = in_flight.begin("a").unwrap();
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
        let watch = in_flight.begin("a").unwrap();
        assert!(!in_flight.cancel_requested("a"));
        in_flight.request_cancel("a");
        assert!(in_flight.cancel_requested("a"));
        assert!(!in_flight.evict("a", launched()));
        assert!(in_flight.contains("a") && watch.borrow().is_none());
        let reason = LaunchOutcome::MayRun("no answer".to_owned());
        assert!(in_flight.evict("a", reason));
        assert!(in_flight.is_empty());
    }

    #[test]
    fn eviction_of_orphans_keeps_requested_cancels() {
        let in_flight = InFlight::default();
        let gone = in_flight.begin("gone").unwrap();
        in_flight.begin("cancelled");
        in_flight.request_cancel("cancelled");
        for job_id in ["gone", "cancelled", "never there"] {
            in_flight.forget(job_id);
        }
        assert!(!in_flight.contains("gone") && in_flight.contains("cancelled"));
        assert!(gone.has_changed().is_err(), "nobody will say how it ended");
    }

    #[test]
    fn notes_live_as_long_as_the_entry() {
        let in_flight = InFlight::default();
        in_flight.set_recorded("a");
        in_flight.set_cancel_error("a", "too early".to_owned());
        in_flight.begin("a");
        assert_eq!(in_flight.recorded(), Vec::<String>::new());
        assert_eq!(in_flight.cancel_error("a"), None);
        in_flight.set_recorded("a");
        in_flight.set_cancel_error("a", "no answer".to_owned());
        assert_eq!(in_flight.recorded(), ["a"]);
        assert_eq!(in_flight.cancel_error("a").as_deref(), Some("no answer"));
        in_flight.evict("a", launched());
        in_flight.begin("a");
        assert_eq!(in_flight.cancel_error("a"), None);
    }
}
