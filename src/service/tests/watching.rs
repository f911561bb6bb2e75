//! Waiting for a job: one watcher for all that wait, its pace, and its end with the last of them.

use std::time::Duration;

use super::fake_launcher::{Call, Gate, Stage, by_id, direct, run_request};
use super::test_service::{TestService, test_service_with};
use crate::error::JobError;
use crate::launcher::JobState;
use crate::progress::tests::scan;
use crate::service::answers::{PollAnswer, ProgressAnswer};
use crate::service::requests::Until;
use crate::service::requests::{JobQuery, PollRequest};
use crate::service::watch::{Snapshot, is_change};
use crate::settings::policy::Policy;
use chrono::TimeDelta;
use tokio::sync::watch;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn test_service() -> TestService {
    test_service_with(&[&["gcp"], &["local"]], Policy::default())
}

impl TestService {
    /// A job that was submitted so long ago and runs.
    async fn add_running(&self, job_id: &str, cloud: &str, age: TimeDelta) {
        self.add(job_id, cloud, age, Some(Stage::Running)).await;
    }

    async fn wait(&self, job_id: &str, seconds: u64) -> PollAnswer {
        let request = PollRequest {
            job: by_id(job_id),
            wait_seconds: seconds,
            ..PollRequest::default()
        };
        self.service.poll_until(request, &|_| {}, false).await
    }

    async fn watch(&self, job_id: &str) -> JobWatch {
        self.watch_by(by_id(job_id)).await
    }

    async fn watch_by(&self, query: JobQuery) -> JobWatch {
        let asked_at = Instant::now();
        let last = self.service.poll(query).await;
        let snapshot = Snapshot::new(last.clone(), asked_at);
        let snapshots = self.service.watchers.subscribe(snapshot);
        JobWatch { snapshots, last }
    }

    fn looks(&self) -> usize {
        let calls = self.cloud.calls();
        let looks = calls.iter().filter(|call| matches!(call, Call::Status(_)));
        looks.count()
    }

    /// How often the launcher is asked from now on, for so long.
    async fn looks_within(&self, time: Duration) -> usize {
        let before = self.looks();
        tokio::time::sleep(time).await;
        self.looks() - before
    }
}

/// Waits for a job as a call does, without a deadline.
#[derive(Clone)]
struct JobWatch {
    snapshots: watch::Receiver<Snapshot>,
    last: PollAnswer,
}

impl JobWatch {
    fn now(&self) -> PollAnswer {
        self.snapshots.borrow().to_answer()
    }

    /// The next poll, changed or not.
    async fn next(&mut self) -> Option<PollAnswer> {
        if self.last.is_done || self.last.is_gone() {
            return None;
        }
        self.snapshots.changed().await.ok()?;
        Some(self.snapshots.borrow_and_update().to_answer())
    }

    /// The next poll with another state.
    async fn changed(&mut self) -> Option<PollAnswer> {
        loop {
            let answer = self.next().await?;
            if is_change(&self.last, &answer, Until::Change, Duration::ZERO) {
                self.last = answer.clone();
                return Some(answer);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_waiters_share_one_watcher() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let one = test.watch("train").await;
    let alone = test.looks_within(HOUR).await;
    drop(one);

    test.add_running("other", "gcp", TimeDelta::zero()).await;
    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(test.watch("other").await);
    }
    assert_eq!(test.service.watchers.count(), 1);
    let shared = test.looks_within(HOUR).await;
    assert_eq!(shared, alone, "ten cost what one does");
    test.cloud.finish("other");
    for watch in &mut ten {
        let end = watch.changed().await.unwrap();
        assert_eq!(
            (end.state, end.is_done, end.job_id.as_str()),
            (JobState::Succeeded, true, "other")
        );
        assert!(watch.changed().await.is_none(), "nothing comes after it");
        assert_eq!(watch.now(), end);
    }
    assert_eq!(test.service.watchers.count(), 0);
    assert_eq!(test.looks_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn cloud_pause_grows_with_the_age() {
    let test = test_service();
    test.add_running("young", "gcp", TimeDelta::zero()).await;
    let _watch = test.watch("young").await;
    let mut per_minute = Vec::new();
    for _ in 0..30 {
        per_minute.push(test.looks_within(Duration::from_secs(60)).await);
    }
    assert_eq!(per_minute[0], 19, "every three seconds: {per_minute:?}");
    assert_eq!(per_minute[29], 1, "once a minute: {per_minute:?}");
    // A minute may begin just before a look, or just after it.
    let sums: Vec<usize> = per_minute.chunks(5).map(|part| part.iter().sum()).collect();
    assert!(sums.is_sorted_by(|one, next| one >= next), "{per_minute:?}");
    assert!((10..20).contains(&sums[1]), "in between: {per_minute:?}");
}

#[tokio::test(start_paused = true)]
async fn old_cloud_job_is_polled_once_a_minute() {
    let test = test_service();
    test.add_running("old", "gcp", TimeDelta::days(2)).await;
    let _watch = test.watch("old").await;
    assert_eq!(test.looks_within(HOUR).await, 59);
}

#[tokio::test(start_paused = true)]
async fn local_job_is_polled_every_second() {
    let test = test_service();
    test.add_running("old", "local", TimeDelta::days(2)).await;
    let mut watch = test.watch("old").await;
    assert!(test.looks_within(Duration::from_secs(60)).await >= 59);
    test.cloud.finish("old");
    let finished = Instant::now();
    assert!(watch.changed().await.unwrap().is_done);
    assert!(finished.elapsed() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn watcher_ends_with_its_last_waiter() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let (first, second) = (test.watch("train").await, test.watch("train").await);
    let third = second.clone();
    drop((first, second));
    let minute = Duration::from_secs(60);
    assert!(test.looks_within(minute).await > 0);
    drop(third);
    assert_eq!(test.looks_within(minute).await, 0);
    assert_eq!(test.service.watchers.count(), 0);
    // And the next begins anew.
    let mut again = test.watch("train").await;
    test.cloud.finish("train");
    assert!(again.changed().await.unwrap().is_done);
}

#[tokio::test(start_paused = true)]
async fn dropped_waiter_leaves_no_watcher() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let mut watch = test.watch("train").await;
    let waiting = tokio::spawn(async move { watch.changed().await });
    test.cloud.close(Gate::Status);
    assert_eq!(test.looks_within(HOUR).await, 1, "one look, under way");
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(test.service.watchers.count(), 0);
    test.cloud.open(Gate::Status);
    assert_eq!(test.looks_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn launch_is_watched_to_the_end_of_its_job() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    let request = run_request(test.home.path(), "train", "gcp");
    test.service.run(request).await;
    let mut watch = test.watch("train").await;
    let before = watch.now();
    assert_eq!(
        (before.state, before.oumi_job_id.as_str()),
        (JobState::Pending, "")
    );
    assert!(
        test.looks_within(Duration::from_secs(60)).await >= 59,
        "a launch is here"
    );
    test.cloud.open(Gate::Launch);
    let running = watch.changed().await.unwrap();
    assert_eq!(running.state, JobState::Running);
    // The fake cloud shows a job before its launch has told the id.
    assert_eq!(watch.next().await.unwrap().oumi_job_id, "1");
    test.cloud.finish("train");
    assert!(watch.changed().await.unwrap().is_done);
    assert!(watch.changed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn failed_poll_is_a_warning_and_no_change() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let mut watch = test.watch("train").await;
    let error = JobError::unavailable("sky is slow".to_owned());
    test.cloud.fail_status(Some(error));
    assert!(test.looks_within(HOUR).await > 2);
    let seen = watch.now();
    assert_eq!((seen.success, seen.state), (true, JobState::Running));
    assert_eq!(seen.warnings.len(), 1, "{:?}", seen.warnings);
    assert!(
        seen.warnings[0].ends_with("there was no answer: sky is slow"),
        "{:?}",
        seen.warnings
    );
    test.cloud.fail_status(None);
    test.looks_within(HOUR).await;
    assert_eq!(watch.now().warnings, Vec::<String>::new());
    test.cloud.finish("train");
    let end = watch.changed().await.unwrap();
    assert_eq!(
        (end.state, end.is_done),
        (JobState::Succeeded, true),
        "the first change there was"
    );
}

#[tokio::test(start_paused = true)]
async fn finished_job_needs_no_watcher() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    test.cloud.finish("train");
    let mut watch = test.watch("train").await;
    assert!(watch.now().is_done);
    assert!(watch.changed().await.is_none());
    assert_eq!(test.service.watchers.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn removed_job_ends_the_watcher() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let mut watch = test.watch("train").await;
    std::fs::write(test.folder.registry(), "[]").unwrap();
    let gone = watch.changed().await.unwrap();
    assert!(gone.is_gone(), "{gone:?}");
    assert!(watch.changed().await.is_none());
    assert_eq!(test.service.watchers.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_watcher_for_all_ids_of_a_job() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let mut by_ours = test.watch("train").await;
    let theirs = direct("gcp", "train-cluster", "1");
    let mut by_theirs = test.watch_by(theirs).await;
    test.cloud.add_elsewhere("gcp", "shared", "7");
    let elsewhere = direct("gcp", "shared", "7");
    let _elsewhere = test.watch_by(elsewhere).await;
    assert_eq!(test.service.watchers.count(), 2);
    test.cloud.finish("train");
    assert!(by_ours.changed().await.unwrap().is_done);
    assert!(by_theirs.changed().await.unwrap().is_done);
    assert_eq!(test.service.watchers.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn poll_is_shared_with_waiters() {
    let test = test_service();
    test.add_running("old", "gcp", TimeDelta::days(2)).await;
    let mut watch = test.watch("old").await;
    test.cloud.finish("old");
    let begun = Instant::now();
    let newcomer = test.watch("old").await;
    assert!(newcomer.now().is_done);
    assert!(watch.changed().await.unwrap().is_done);
    assert!(watch.changed().await.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn poll_waits_until_change_or_deadline() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let begun = Instant::now();
    let answer = test.wait("train", 20).await;
    assert_eq!(answer.state, JobState::Running);
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    assert_eq!(test.looks_within(HOUR).await, 0);

    let begun = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        test.cloud.finish("train");
    };
    let (answer, ()) = tokio::join!(test.wait("train", 55), end);
    assert!(answer.is_done);
    assert!(
        begun.elapsed() <= Duration::from_secs(14),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(test.service.watchers.count(), 0);
}

#[test]
fn progress_is_news_by_part_of_the_run_and_time() {
    let answer = |step: u64, total: Option<u64>| {
        let log = format!("{{'loss': 2.0, 'epoch': 0.1, 'step': {step}}}\n");
        let mut progress = scan(log).0.unwrap();
        progress.metrics.total_steps = total;
        PollAnswer {
            progress: Some(ProgressAnswer {
                progress,
                age_seconds: None,
            }),
            ..PollAnswer::default()
        }
    };
    let is_news = |one: &PollAnswer, other: &PollAnswer, waited| {
        is_change(one, other, Until::Progress, Duration::from_secs(waited))
    };
    let total = Some(1000);
    for (one, other, waited, expected) in [
        (answer(100, total), answer(110, total), 15, true),
        (answer(100, total), answer(110, total), 14, false),
        (answer(100, total), answer(109, total), 50, false),
        (answer(5000, None), answer(5050, None), 15, true),
        (answer(5000, None), answer(5049, None), 50, false),
        (answer(3, None), answer(4, None), 15, true),
        (answer(3, None), answer(3, None), 50, false),
        (PollAnswer::default(), answer(1, total), 0, true),
    ] {
        let found = is_news(&one, &other, waited);
        assert_eq!(found, expected, "{one:?} {other:?} {waited}");
        assert!(!is_change(&one, &other, Until::Change, HOUR));
    }
    // What is bad is told at once.
    let fine = answer(100, total);
    let log = "{'loss': 1.0, 'step': 1}\n{'loss': 11.0, 'step': 2}\n";
    for bad in [log.to_owned(), log.replace("11.0", "nan")] {
        let mut news = fine.clone();
        news.progress.as_mut().unwrap().progress = scan(bad).0.unwrap();
        assert!(is_news(&fine, &news, 0));
        assert!(!is_news(&news, &news, 50), "it is known already");
    }
    let mut silent = fine.clone();
    silent.stalled = Some("silent for 7 h".to_owned());
    assert!(is_news(&fine, &silent, 0));
}

#[tokio::test(start_paused = true)]
async fn wait_counts_from_the_start_of_the_call() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    test.cloud.close(Gate::Status);
    let begun = Instant::now();
    let open = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        test.cloud.open(Gate::Status);
    };
    let (answer, ()) = tokio::join!(test.wait("train", 30), open);
    assert_eq!(answer.state, JobState::Running);
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn failed_poll_does_not_wait() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let begun = Instant::now();
    assert!(test.wait("nobody", 55).await.is_gone());
    let error = JobError::unavailable("sky is slow".to_owned());
    test.cloud.fail_status(Some(error));
    let answer = test.wait("train", 55).await;
    assert_eq!(answer.error.as_deref(), Some("sky is slow"));
    assert_eq!(answer.next, "Tell the user; ask again later.");
    test.cloud.fail_status(None);
    test.cloud.finish("train");
    assert!(test.wait("train", 55).await.is_done);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(test.service.watchers.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn cloud_log_is_fetched_seldom_and_after_the_end() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    let request = run_request(test.home.path(), "train", "gcp");
    test.service.run(request).await;
    let logs = || {
        let calls = test.cloud.calls();
        let logs = calls.iter().filter(|call| matches!(call, Call::Logs(_)));
        logs.count()
    };
    test.service.poll(by_id("train")).await;
    assert_eq!(logs(), 0, "a job that has not begun has no log");
    test.cloud.open(Gate::Launch);
    let watch = test.watch("train").await;
    let looks = test.looks_within(Duration::from_secs(120)).await;
    assert!(
        looks > 10 && (2..=3).contains(&logs()),
        "{looks}, {}",
        logs()
    );
    drop(watch);
    let before = logs();
    test.cloud.finish("train");
    for _ in 0..5 {
        assert!(test.service.poll(by_id("train")).await.is_done);
    }
    let after = logs() - before;
    assert!((1..=2).contains(&after), "{after}");
    tokio::time::sleep(HOUR).await;
    test.service.poll(by_id("train")).await;
    assert_eq!(logs() - before, after, "it says nothing more");
}
