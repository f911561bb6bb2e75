//! Watching a job: one watcher asks the launcher again and again, however many wait for what it sees.
//!
//! The watcher of a job lives in the background from the first [`JobWatch`] of it to the last, and looks as a poll does:
//! through the registry and the launcher, launches that have ended meanwhile included. What a look costs decides how often
//! it looks. On this machine, and while a launch is under way, that is a file or two, so every second. On a cloud it is a
//! run of `sky`, so the time between two looks grows with the age of the job, from seconds to a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::JobService;
use super::answers::PollAnswer;
use super::poll::age_of;
use super::requests::JobQuery;
use crate::launcher::JobState;
use crate::launcher::local::LOCAL;
use crate::sync::lock;

/// The time between two looks that cost nothing to speak of.
const CHEAP: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two looks that run a program.
const SHORTEST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);
/// In between it is this part of the job's age: a job that is twice as old is asked half as often.
const PART_OF_AGE: u32 = 20;

/// Watches one job. Dropping the last one of a job ends its watcher; a clone watches on from what this one has seen.
#[derive(Debug, Clone)]
pub struct JobWatch {
    looks: watch::Receiver<Look>,
    seen: Arc<PollAnswer>,
}

impl JobWatch {
    /// The newest look: what `poll_status` answers. Where the launcher could not be asked lately it is the last one that
    /// succeeded, with a warning that says so.
    pub fn now(&self) -> Arc<PollAnswer> {
        self.looks.borrow().answer.clone()
    }

    /// The next look at which status, state or progress differ from the last that this watch gave. The end of the job is
    /// one more change; after it, and once there is no such job any more, none is left. May be dropped and asked again.
    pub async fn changed(&mut self) -> Option<Arc<PollAnswer>> {
        while let Some(look) = self.next().await {
            if !is_same(&look, &self.seen) {
                self.seen = look.clone();
                return Some(look);
            }
        }
        None
    }

    /// The next look, changed or not; of several only the last. None as for [`changed`](Self::changed).
    pub async fn next(&mut self) -> Option<Arc<PollAnswer>> {
        if is_last(&self.seen) {
            return None;
        }
        self.looks.changed().await.ok()?;
        Some(self.looks.borrow_and_update().answer.clone())
    }
}

/// How a job was at one moment.
#[derive(Debug, Clone)]
struct Look {
    answer: Arc<PollAnswer>,
    /// When it was begun: of two looks the one that was begun later is the newer one.
    begun: Instant,
}

/// The watchers that are at work, by the job they watch.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    at_work: Mutex<HashMap<Watched, watch::Sender<Look>>>,
}

impl Watchers {
    fn at_work(&self) -> MutexGuard<'_, HashMap<Watched, watch::Sender<Look>>> {
        // No code under this lock can leave the map half-changed.
        lock(&self.at_work)
    }

    /// Ends a watcher for which nobody listens, and says whether that is so: from then on the next to listen begins another.
    fn leave(&self, whom: &Watched, looks: &watch::Sender<Look>) -> bool {
        let mut at_work = self.at_work();
        let is_alone = looks.receiver_count() == 0;
        if is_alone
            && at_work
                .get(whom)
                .is_some_and(|other| other.same_channel(looks))
        {
            at_work.remove(whom);
        }
        is_alone
    }
}

/// Which job is watched: the same one by whatever it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Watched {
    job_id: String,
    cloud: String,
    cluster: String,
    /// Empty for a job of ours, which gets it only when it is launched.
    oumi_job_id: String,
}

impl Watched {
    fn of(answer: &PollAnswer) -> Self {
        let elsewhere = |text: &str| match answer.job_id.as_str() {
            "" => text.to_owned(),
            _ => String::new(),
        };
        Self {
            job_id: answer.job_id.clone(),
            cloud: elsewhere(&answer.cloud),
            cluster: elsewhere(&answer.cluster),
            oumi_job_id: elsewhere(&answer.oumi_job_id),
        }
    }

    fn query(&self) -> JobQuery {
        JobQuery {
            job_id: self.job_id.clone(),
            oumi_job_id: self.oumi_job_id.clone(),
            cloud: self.cloud.clone(),
            cluster_name: self.cluster.clone(),
        }
    }
}

impl JobService {
    /// Watches a job, from a look at it that is made now. All who watch the same job share one watcher.
    ///
    /// # Errors
    /// The answer of a poll that names no job. A job whose launcher cannot be asked now is watched all the same.
    pub async fn watch(&self, query: &JobQuery) -> Result<JobWatch, Box<PollAnswer>> {
        let begun = Instant::now();
        let answer = self.poll(query.clone()).await;
        if answer.success || answer.is_unanswered() {
            Ok(self.watch_on(Arc::new(answer), begun))
        } else {
            Err(Box::new(answer))
        }
    }

    /// How many jobs are watched now.
    pub fn watchers(&self) -> usize {
        self.inner.watchers.at_work().len()
    }

    /// Watches the job of `answer`, which a poll that was begun then gave.
    pub(super) fn watch_on(&self, answer: Arc<PollAnswer>, begun: Instant) -> JobWatch {
        let whom = Watched::of(&answer);
        let look = Look { answer, begun };
        let mut at_work = self.inner.watchers.at_work();
        let mut watcher = None;
        let looks = match at_work.get(&whom) {
            Some(looks) => {
                publish(looks, look);
                looks.subscribe()
            }
            None => {
                let (sender, looks) = watch::channel(look.clone());
                if !is_last(&look.answer) {
                    at_work.insert(whom.clone(), sender.clone());
                    watcher = Some(Watcher::new(self.clone(), whom, sender, &look.answer));
                }
                looks
            }
        };
        drop(at_work);
        // Without the lock: a watcher that cannot be set going any more is dropped here, and takes it.
        if let Some(watcher) = watcher {
            tokio::spawn(watcher.work());
        }
        // What is given first is what is seen now: only a look after it can be a change.
        let seen = looks.borrow().answer.clone();
        JobWatch { looks, seen }
    }
}

/// Hands a look to all who listen, unless they know a newer one. One that failed is handed on as the one before it.
fn publish(looks: &watch::Sender<Look>, look: Look) {
    looks.send_if_modified(|known| {
        if look.begun < known.begun {
            return false;
        }
        *known = match &look.answer {
            failed if !failed.success && !failed.is_gone() && known.answer.success => {
                let warnings = failed
                    .error
                    .iter()
                    .map(|error| format!("{NOT_ASKED_AGAIN}: {error}"));
                Look {
                    answer: Arc::new(PollAnswer {
                        warnings: of_the_job(&known.answer).cloned().chain(warnings).collect(),
                        ..(*known.answer).clone()
                    }),
                    begun: known.begun,
                }
            }
            _ => look,
        };
        true
    });
}

const NOT_ASKED_AGAIN: &str = "this is how it was; asked again, there was no answer";

/// The warnings of a look, without that of a look after it that failed.
fn of_the_job(answer: &PollAnswer) -> impl Iterator<Item = &String> {
    answer
        .warnings
        .iter()
        .filter(|warning| !warning.starts_with(NOT_ASKED_AGAIN))
}

/// Whether two looks at a job show the same.
pub(super) fn is_same(one: &PollAnswer, other: &PollAnswer) -> bool {
    let metrics = |look: &PollAnswer| {
        let progress = look.progress.as_ref()?;
        Some(progress.progress.metrics.clone())
    };
    is_same_state(one, other) && metrics(one) == metrics(other)
}

/// Whether two looks at a job show the same, but for how far it is.
pub(super) fn is_same_state(one: &PollAnswer, other: &PollAnswer) -> bool {
    one.success == other.success
        && one.status == other.status
        && one.state == other.state
        && one.is_done == other.is_done
}

/// Whether nothing more can come after this look.
fn is_last(answer: &PollAnswer) -> bool {
    answer.is_done || answer.is_gone()
}

/// The one that looks.
struct Watcher {
    service: JobService,
    whom: Watched,
    looks: watch::Sender<Look>,
    /// When it began, and how old the job was then.
    begun: Instant,
    age: Duration,
}

impl Watcher {
    fn new(
        service: JobService,
        whom: Watched,
        looks: watch::Sender<Look>,
        first: &PollAnswer,
    ) -> Self {
        let submitted = first.metadata.get("submit_time");
        let age = submitted.and_then(|time| age_of(time.as_str()?));
        Self {
            service,
            whom,
            looks,
            begun: Instant::now(),
            age: age.unwrap_or_default(),
        }
    }

    async fn work(self) {
        loop {
            let pause = self.pause(&self.looks.borrow().answer);
            let look = async {
                tokio::time::sleep(pause).await;
                let begun = Instant::now();
                let answer = self.service.poll(self.whom.query()).await;
                Look {
                    answer: Arc::new(answer),
                    begun,
                }
            };
            tokio::select! {
                // No look goes on once nobody listens.
                biased;
                () = self.looks.closed() => {
                    if self.service.inner.watchers.leave(&self.whom, &self.looks) {
                        return;
                    }
                }
                look = look => {
                    // Others may have seen more meanwhile.
                    publish(&self.looks, look);
                    if is_last(&self.looks.borrow().answer) {
                        return;
                    }
                }
            }
        }
    }

    /// How long to wait before the next look.
    fn pause(&self, last: &PollAnswer) -> Duration {
        let is_launching = last.oumi_job_id.is_empty() && last.state == JobState::Pending;
        if last.cloud == LOCAL || is_launching {
            return CHEAP;
        }
        let age = self.age.saturating_add(self.begun.elapsed());
        (age / PART_OF_AGE).clamp(SHORTEST, LONGEST)
    }
}

impl Drop for Watcher {
    /// However it ends, those who listen hear that nothing more comes: the map holds the channel open.
    fn drop(&mut self) {
        let mut at_work = self.service.inner.watchers.at_work();
        if at_work
            .get(&self.whom)
            .is_some_and(|other| other.same_channel(&self.looks))
        {
            at_work.remove(&self.whom);
        }
    }
}
