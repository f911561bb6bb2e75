//! Watching the lists of jobs: which run and which are done, while somebody listens.
//!
//! One watcher serves all who listen, and there is none when nobody does. It reads the registry every second, so that what
//! another server does is seen too, and asks each launcher about the jobs that are not known to be done: the one on this
//! machine every second, one that has to run a program three times a minute. Jobs that were started elsewhere are in a list
//! when it is read; nobody is told of them here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::JobService;
use super::requests::StatusFilter;
use crate::launcher::local::LOCAL;
use crate::launcher::{JobIdentity, Launcher, Listing};
use crate::sync::lock;

/// The time between two looks at the registry, and at the jobs on this machine.
const CHEAP: Duration = Duration::from_secs(1);
/// The time between two looks that run a program.
const DEAR: Duration = Duration::from_secs(20);

/// How often each list has changed since its watcher began.
#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    running: u64,
    completed: u64,
}

impl Changes {
    fn of(self, list: StatusFilter) -> u64 {
        match list {
            StatusFilter::All => self.running + self.completed,
            StatusFilter::Running => self.running,
            StatusFilter::Completed => self.completed,
        }
    }
}

/// Watches one list. When the last is dropped, the watcher ends.
#[derive(Debug)]
pub struct ListWatch {
    list: StatusFilter,
    seen: u64,
    changes: watch::Receiver<Changes>,
}

impl ListWatch {
    /// Waits until the list changes: a job comes or goes, or the status of one in it is another. What the watcher finds at
    /// its first look counts, so that nothing which happens before it is missed. False when there is no watcher any more.
    pub async fn changed(&mut self) -> bool {
        let (list, seen) = (self.list, self.seen);
        match self.changes.wait_for(|now| now.of(list) != seen).await {
            Ok(now) => {
                self.seen = now.of(list);
                true
            }
            Err(_) => false,
        }
    }
}

/// The watcher of the lists, if it is at work.
#[derive(Debug, Default)]
pub(super) struct ListWatcher {
    at_work: Mutex<Option<watch::Sender<Changes>>>,
}

impl ListWatcher {
    fn at_work(&self) -> MutexGuard<'_, Option<watch::Sender<Changes>>> {
        lock(&self.at_work)
    }
}

impl JobService {
    /// Watches a list of jobs.
    pub fn watch_list(&self, list: StatusFilter) -> ListWatch {
        let mut at_work = self.inner.list_watcher.at_work();
        let changes = match &*at_work {
            Some(known) => known.subscribe(),
            None => {
                let (sender, changes) = watch::channel(Changes::default());
                *at_work = Some(sender.clone());
                tokio::spawn(self.clone().look_while_heard(sender));
                changes
            }
        };
        let seen = changes.borrow().of(list);
        ListWatch {
            list,
            seen,
            changes,
        }
    }

    /// Whether the lists are watched now.
    pub fn lists_are_watched(&self) -> bool {
        self.inner.list_watcher.at_work().is_some()
    }

    async fn look_while_heard(self, changes: watch::Sender<Changes>) {
        let mut looking = JoinSet::new();
        for launcher in &self.context.launchers {
            looking.spawn(look_on(self.clone(), Arc::clone(launcher), changes.clone()));
        }
        loop {
            changes.closed().await;
            let mut at_work = self.inner.list_watcher.at_work();
            // Somebody may have begun to listen meanwhile; under the lock nobody can.
            if changes.receiver_count() == 0 {
                *at_work = None;
                return;
            }
        }
    }
}

/// Looks at the jobs of one launcher until it is aborted.
async fn look_on(
    service: JobService,
    launcher: Arc<dyn Launcher>,
    changes: watch::Sender<Changes>,
) {
    let pause = if launcher.clouds().contains(&LOCAL) {
        CHEAP
    } else {
        DEAR
    };
    let mut seen = Seen::default();
    let mut asked: Vec<JobIdentity> = Vec::new();
    let mut due = Instant::now();
    loop {
        if let Ok(records) = service.registry().records().await {
            let ours = service.jobs_of(launcher.as_ref(), &records);
            let mut changed = seen.forget_all_but(&ours);
            let open: Vec<JobIdentity> = ours
                .into_iter()
                .filter(|job| !seen.done.contains(&job.job_id))
                .collect();
            if open != asked || Instant::now() >= due {
                // What cannot be asked now is as it was.
                let listing = match open.as_slice() {
                    [] => Listing::default(),
                    open => launcher.list(open).await.unwrap_or_default(),
                };
                changed.add(seen.take(listing));
                (asked, due) = (open, Instant::now() + pause);
            }
            changes.send_if_modified(|known| {
                known.running += u64::from(changed.running);
                known.completed += u64::from(changed.completed);
                changed.running || changed.completed
            });
        }
        tokio::time::sleep(CHEAP).await;
    }
}

/// What was seen of the jobs of a launcher.
#[derive(Default)]
struct Seen {
    /// Those that were not done, with their status.
    running: BTreeMap<String, String>,
    /// Those that were: nothing more happens to them.
    done: BTreeSet<String>,
}

/// Which lists a look has found changed.
#[derive(Default)]
struct Changed {
    running: bool,
    completed: bool,
}

impl Changed {
    fn add(&mut self, other: Self) {
        self.running |= other.running;
        self.completed |= other.completed;
    }
}

impl Seen {
    /// Forgets the jobs that have no record any more.
    fn forget_all_but(&mut self, jobs: &[JobIdentity]) -> Changed {
        let (running, done) = (self.running.len(), self.done.len());
        let ids: BTreeSet<&str> = jobs.iter().map(|job| job.job_id.as_str()).collect();
        self.running.retain(|id, _| ids.contains(id.as_str()));
        self.done.retain(|id| ids.contains(id.as_str()));
        Changed {
            running: self.running.len() != running,
            completed: self.done.len() != done,
        }
    }

    fn take(&mut self, listing: Listing) -> Changed {
        let mut changed = Changed::default();
        let ours = listing
            .jobs
            .into_iter()
            .filter(|job| !job.identity.job_id.is_empty());
        for job in ours {
            let (id, status) = (job.identity.job_id, job.status);
            if status.is_done {
                changed.running |= self.running.remove(&id).is_some();
                changed.completed |= self.done.insert(id);
            } else {
                let before = self.running.insert(id, status.status.clone());
                changed.running |= before.as_ref() != Some(&status.status);
            }
        }
        changed
    }
}
