//! Waiting of `poll_status` for a change: one watcher polls a job, however many calls wait for it.
//!
//! A watcher lives from the first call that waits for its job to the last. The cost of a poll decides its pace. On this machine,
//! and during a launch, a poll reads a file or two, so it comes every second. On a cloud it runs `sky`, so the pause grows
//! with the age of the job, from seconds to a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::Instant;

use super::OnProgress;
use super::answers::{JobAnswer, PollAnswer};
use super::poll::Poller;
use super::requests::{JobQuery, PollRequest, Until};
use super::sanitize::sanitize;
use crate::launcher::JobState;
use crate::progress::Progress;
use crate::progress::metrics::Metrics;
use crate::sync::lock;

/// The pause between two polls during a launch.
const LAUNCH_INTERVAL: Duration = Duration::from_secs(1);
/// New figures are worth an answer once a call has waited so long.
const NEWS_INTERVAL: Duration = Duration::from_secs(15);
/// The bounds of the pause between two polls that run a program, …
const SHORTEST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);
/// … which is this part of the job's age in between.
const PART_OF_AGE: u32 = 20;

/// The active watchers, by the job that they watch. Clones are the same watchers.
#[derive(Clone)]
pub(super) struct Watchers {
    poller: Arc<Poller>,
    active: Arc<Mutex<HashMap<JobKey, watch::Sender<Snapshot>>>>,
}

/// The last successful poll of a job, and the error of a later one.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) answer: Arc<PollAnswer>,
    /// Orders polls that overlap: the one that was begun later is newer.
    asked_at: Instant,
    error: Option<String>,
}

impl Snapshot {
    pub(super) fn new(answer: PollAnswer, asked_at: Instant) -> Self {
        Self {
            answer: Arc::new(answer),
            asked_at,
            error: None,
        }
    }

    /// Tells if nothing can come after it.
    fn is_last(&self) -> bool {
        self.answer.is_done || self.answer.is_gone()
    }

    /// Returns the answer, with a warning where a later poll failed.
    pub(super) fn to_answer(&self) -> PollAnswer {
        let mut answer = (*self.answer).clone();
        answer.warnings.extend(self.error.as_ref().map(|error| {
            format!("this is the last known status; asked again, there was no answer: {error}")
        }));
        answer
    }

    /// Takes over a newer poll.
    fn update(&mut self, newer: Self) -> bool {
        if newer.asked_at < self.asked_at {
            return false;
        }
        let failed = !newer.answer.success && !newer.answer.is_gone();
        if failed && self.answer.success {
            self.error = newer.answer.error.clone();
        } else {
            *self = newer;
        }
        true
    }
}

/// The job of a watcher: the same key by whichever id the job was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum JobKey {
    Ours(String),
    Elsewhere {
        cloud: String,
        cluster: String,
        oumi_job_id: String,
    },
}

impl JobKey {
    fn new(answer: &PollAnswer) -> Self {
        if answer.job_id.is_empty() {
            Self::Elsewhere {
                cloud: answer.cloud.clone(),
                cluster: answer.cluster.clone(),
                oumi_job_id: answer.oumi_job_id.clone(),
            }
        } else {
            Self::Ours(answer.job_id.clone())
        }
    }

    fn query(&self) -> JobQuery {
        match self.clone() {
            Self::Ours(job_id) => JobQuery::of(&job_id),
            Self::Elsewhere {
                cloud,
                cluster,
                oumi_job_id,
            } => JobQuery {
                oumi_job_id,
                cloud,
                cluster_name: cluster,
                ..JobQuery::default()
            },
        }
    }
}

impl Watchers {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self {
            poller,
            active: Arc::default(),
        }
    }

    /// Polls a job until something has changed, it has ended, or the time is up, whichever comes first.
    pub(super) async fn poll_until(
        &self,
        request: PollRequest,
        on_progress: OnProgress<'_>,
        max_wait: u64,
    ) -> PollAnswer {
        let called_at = Instant::now();
        let wait = request.wait_seconds;
        if wait > max_wait {
            let error = format!(
                "`wait_seconds` is 0 to {max_wait}, not {wait}; call again with {max_wait}, as often as needed"
            );
            let answer = PollAnswer {
                job_id: request.job.job_id,
                ..PollAnswer::failure(error)
            };
            return sanitize(answer, &[]);
        }
        // Boxed: while the call waits, the memory of a poll is free.
        let first = Box::pin(self.poller.poll(request.job.clone())).await;
        if wait == 0 || !first.success || first.is_done {
            return first;
        }
        on_progress(&first.message);
        let mut snapshots = self.subscribe(Snapshot::new(first.clone(), called_at));
        let waiting = async {
            loop {
                let answer = Arc::clone(&snapshots.borrow_and_update().answer);
                if is_change(&first, &answer, request.until, called_at.elapsed()) {
                    break;
                }
                if snapshots.changed().await.is_err() {
                    break;
                }
                on_progress(&snapshots.borrow().answer.message);
            }
        };
        // From the start of the call: the first poll may have taken long, and clients wait for no more than a minute.
        let deadline = called_at + Duration::from_secs(wait);
        let _ = tokio::time::timeout_at(deadline, waiting).await;
        snapshots.borrow().to_answer()
    }

    /// Subscribes to the polls of a job that was just polled, by its watcher or a new one.
    pub(super) fn subscribe(&self, snapshot: Snapshot) -> watch::Receiver<Snapshot> {
        let key = JobKey::new(&snapshot.answer);
        let mut active = self.active();
        if let Some(sender) = active.get(&key) {
            sender.send_if_modified(|known| known.update(snapshot));
            return sender.subscribe();
        }
        let is_last = snapshot.is_last();
        let (sender, receiver) = watch::channel(snapshot);
        if !is_last {
            active.insert(key.clone(), sender.clone());
            drop(active);
            // Without the lock: a task that cannot be spawned drops the watcher here, which takes the lock.
            tokio::spawn(Watcher::new(self.clone(), key, sender).run());
        }
        receiver
    }

    /// Locks the map, which no code under the lock can leave half changed.
    fn active(&self) -> MutexGuard<'_, HashMap<JobKey, watch::Sender<Snapshot>>> {
        lock(&self.active)
    }

    /// Returns how many jobs are watched.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.active().len()
    }
}

/// Tells if two polls of a job differ in what a call that has `waited` so long waits for.
pub(super) fn is_change(
    one: &PollAnswer,
    other: &PollAnswer,
    until: Until,
    waited: Duration,
) -> bool {
    let state = |answer: &PollAnswer| (answer.success, answer.state, answer.is_done);
    state(one) != state(other)
        || one.status != other.status
        || (until == Until::Progress && is_news(one, other, waited))
}

/// Tells if the progress between two polls is worth an answer: something bad, the first figures, or, after a while, a part of
/// the run.
fn is_news(before: &PollAnswer, now: &PollAnswer, waited: Duration) -> bool {
    let progress = |answer: &'_ PollAnswer| answer.progress.clone().map(|all| all.progress);
    let (earlier, later) = (progress(before), progress(now));
    let bad = |progress: &Option<Progress>| progress.as_ref().map_or(0, |all| all.bad_news.len());
    let is_bad = before.stalled.is_none() && now.stalled.is_some();
    is_bad
        || bad(&later) > bad(&earlier)
        || match (earlier, later) {
            (None, Some(_)) => true,
            (Some(earlier), Some(later)) if waited >= NEWS_INTERVAL => {
                has_advanced(&earlier.metrics, &later.metrics)
            }
            _ => false,
        }
}

/// Tells if a run has advanced by one percent: of its steps, or of those that were done where their number is not known.
fn has_advanced(before: &Metrics, now: &Metrics) -> bool {
    match (before.step, now.step, before.epoch, now.epoch) {
        (Some(before), Some(step), ..) => {
            let run = now.total_steps.unwrap_or(before);
            step.saturating_sub(before) >= run.div_ceil(100).max(1)
        }
        (_, _, Some(before), Some(epoch)) => epoch - before >= 0.01,
        _ => before != now,
    }
}

/// Returns how often a job of this age is worth a question.
pub(super) fn pause_at(age: Duration) -> Duration {
    (age / PART_OF_AGE).min(LONGEST)
}

/// Polls one job while a call waits for it.
struct Watcher {
    watchers: Watchers,
    key: JobKey,
    sender: watch::Sender<Snapshot>,
}

impl Watcher {
    fn new(watchers: Watchers, key: JobKey, sender: watch::Sender<Snapshot>) -> Self {
        Self {
            watchers,
            key,
            sender,
        }
    }

    async fn run(self) {
        let (started, age) = (Instant::now(), self.age().await);
        loop {
            let pause = self.pause(age + started.elapsed());
            let poll = async {
                tokio::time::sleep(pause).await;
                let asked_at = Instant::now();
                let answer = self.watchers.poller.poll(self.key.query()).await;
                Snapshot::new(answer, asked_at)
            };
            tokio::select! {
                // No poll goes on once nobody waits.
                biased;
                () = self.sender.closed() => {
                    if self.stop_if_idle() {
                        return;
                    }
                }
                snapshot = poll => {
                    self.sender.send_if_modified(|known| known.update(snapshot));
                    if self.sender.borrow().is_last() {
                        return;
                    }
                }
            }
        }
    }

    /// Removes the watcher unless a call has subscribed meanwhile: the next one to subscribe makes a new watcher then.
    fn stop_if_idle(&self) -> bool {
        let mut active = self.watchers.active();
        let is_idle = self.sender.receiver_count() == 0;
        if is_idle {
            active.remove(&self.key);
        }
        is_idle
    }

    /// Returns how long ago the job was submitted; zero where the registry does not know it.
    async fn age(&self) -> Duration {
        let job_id = self.sender.borrow().answer.job_id.clone();
        let registry = &self.watchers.poller.context().registry;
        let record = registry.get(&job_id).await.ok().flatten();
        let submitted = record.and_then(|record| record.submitted_at());
        let age = submitted.and_then(|time| (Utc::now() - time).to_std().ok());
        age.unwrap_or_default()
    }

    /// Returns how long to wait before the next poll of a job of this age.
    fn pause(&self, age: Duration) -> Duration {
        let last = Arc::clone(&self.sender.borrow().answer);
        if last.oumi_job_id.is_empty() && last.state == JobState::Pending {
            return LAUNCH_INTERVAL;
        }
        last.poll_interval
            .unwrap_or_else(|| pause_at(age).max(SHORTEST))
    }
}

impl Drop for Watcher {
    /// Closes the channel, which the map holds open: those who wait learn that no more comes.
    fn drop(&mut self) {
        let mut active = self.watchers.active();
        let other = active.get(&self.key);
        if other.is_some_and(|other| other.same_channel(&self.sender)) {
            active.remove(&self.key);
        }
    }
}
