//! Waiting for a job: the calls that wait share its polls, whose pace is the job's age, and which end with the last call.

use std::time::Duration;

use super::fake_launcher::{Call, Gate, Stage, by_id, direct, run_request};
use super::test_service::{TestService, test_service_with};
use crate::error::JobError;
use crate::job_identity::JobIdentity;
use crate::launcher::JobState;
use crate::progress::tests::scan;
use crate::service::answers::PollAnswer;
use crate::service::poll::is_change;
use crate::service::requests::{PollRequest, Until};
use crate::settings::policy::Policy;
use chrono::TimeDelta;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

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
        self.service.poll_until(request, &|_| {}, true).await
    }

    /// Waits for an hour in a task of its own, which has polled the job once.
    async fn waiter(&self, job: JobIdentity) -> JoinHandle<PollAnswer> {
        let service = self.service.clone();
        let request = PollRequest {
            job,
            wait_seconds: 3600,
            ..PollRequest::default()
        };
        let waiter = tokio::spawn(async move { service.poll_until(request, &|_| {}, true).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        waiter
    }

    /// The jobs that calls wait for.
    fn waited_for(&self) -> usize {
        self.service.context.polls.sweep()
    }

    fn polls(&self) -> usize {
        let calls = self.cloud.calls();
        let polls = calls.iter().filter(|call| matches!(call, Call::Status(_)));
        polls.count()
    }

    /// How often the launcher is asked from now on, for so long.
    async fn polls_within(&self, time: Duration) -> usize {
        let before = self.polls();
        tokio::time::sleep(time).await;
        self.polls() - before
    }
}

#[tokio::test(start_paused = true)]
async fn many_waiters_cost_what_one_does() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let one = test.waiter(by_id("train")).await;
    let alone = test.polls_within(10 * MINUTE).await;
    one.abort();
    let mut waiters = Vec::new();
    for _ in 0..100 {
        waiters.push(test.waiter(by_id("train")).await);
    }
    assert_eq!(test.waited_for(), 1);
    assert!(test.polls_within(10 * MINUTE).await.abs_diff(alone) <= 1);
    test.cloud.finish("train");
    for waiter in waiters {
        let end = waiter.await.unwrap();
        let found = (end.state, end.is_done, end.job_id.as_str());
        assert_eq!(found, (JobState::Succeeded, true, "train"));
    }
    assert_eq!(test.waited_for(), 0);
    assert_eq!(test.polls_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn pause_grows_with_the_age_on_a_cloud() {
    for (cloud, age, polls) in [
        ("gcp", TimeDelta::zero(), 200),
        ("gcp", TimeDelta::minutes(5), 40),
        ("gcp", TimeDelta::minutes(10), 20),
        ("gcp", TimeDelta::days(2), 10),
        ("local", TimeDelta::days(2), 600),
    ] {
        let test = test_service();
        test.add_running("train", cloud, age).await;
        let _waiter = test.waiter(by_id("train")).await;
        let found = test.polls_within(10 * MINUTE).await;
        assert!(found.abs_diff(polls) <= 1, "{cloud} {age}: {found}");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_end_with_the_last_waiter() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let first = test.waiter(by_id("train")).await;
    let second = test.waiter(by_id("train")).await;
    first.abort();
    assert!(test.polls_within(MINUTE).await > 0);
    second.abort();
    assert_eq!(test.polls_within(MINUTE).await, 0);
    assert_eq!(test.waited_for(), 0);
    let again = test.waiter(by_id("train")).await;
    test.cloud.finish("train");
    assert!(again.await.unwrap().is_done);
}

#[tokio::test(start_paused = true)]
async fn poll_under_way_ends_with_the_last_waiter() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let waiter = test.waiter(by_id("train")).await;
    test.cloud.close(Gate::Status);
    assert_eq!(test.polls_within(HOUR / 2).await, 1, "one, under way");
    waiter.abort();
    assert!(waiter.await.unwrap_err().is_cancelled());
    assert_eq!(test.waited_for(), 0);
    test.cloud.open(Gate::Status);
    assert_eq!(test.polls_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn launch_is_polled_every_second() {
    let test = test_service();
    test.cloud.close(Gate::Launch);
    let request = run_request(test.home.path(), "train", "gcp");
    test.service.run(request).await;
    let waiter = test.waiter(by_id("train")).await;
    assert!(test.polls_within(MINUTE).await >= 59);
    test.cloud.open(Gate::Launch);
    assert_eq!(waiter.await.unwrap().state, JobState::Running);
    let end = test.waiter(by_id("train")).await;
    test.cloud.finish("train");
    assert!(end.await.unwrap().is_done);
}

#[tokio::test(start_paused = true)]
async fn failed_poll_is_a_warning_and_no_change() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let failing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let error = JobError::unavailable("sky is slow".to_owned());
        test.cloud.fail_status(Some(error));
    };
    let (answer, ()) = tokio::join!(test.wait("train", 30), failing);
    assert_eq!((answer.success, answer.state), (true, JobState::Running));
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings);
    };
    assert!(
        warning.ends_with("a later poll got no answer: sky is slow"),
        "{warning}"
    );
    test.cloud.fail_status(None);
    let waiter = test.waiter(by_id("train")).await;
    let error = JobError::unavailable("sky is slow".to_owned());
    test.cloud.fail_status(Some(error));
    assert!(test.polls_within(MINUTE).await > 2);
    test.cloud.fail_status(None);
    test.polls_within(MINUTE).await;
    test.cloud.finish("train");
    let end = waiter.await.unwrap();
    assert_eq!((end.state, end.warnings), (JobState::Succeeded, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn removed_job_ends_the_wait() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let waiter = test.waiter(by_id("train")).await;
    std::fs::write(test.folder.registry(), "[]").unwrap();
    let gone = waiter.await.unwrap();
    assert!(gone.is_gone(), "{gone:?}");
    assert_eq!(test.waited_for(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_ids_of_a_job_share_its_polls() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let by_ours = test.waiter(by_id("train")).await;
    let by_theirs = test.waiter(direct("gcp", "train-cluster", "1")).await;
    test.cloud.add_elsewhere("gcp", "shared", "7");
    let _elsewhere = test.waiter(direct("gcp", "shared", "7")).await;
    assert_eq!(test.waited_for(), 2);
    test.cloud.finish("train");
    assert!(by_ours.await.unwrap().is_done);
    assert!(by_theirs.await.unwrap().is_done);
    assert_eq!(test.waited_for(), 1);
}

#[tokio::test(start_paused = true)]
async fn poll_waits_until_change_or_deadline() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let start = Instant::now();
    let answer = test.wait("train", 20).await;
    assert_eq!(answer.state, JobState::Running);
    assert_eq!(start.elapsed(), Duration::from_secs(20));
    assert_eq!(test.polls_within(HOUR).await, 0);

    let start = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        test.cloud.finish("train");
    };
    let (answer, ()) = tokio::join!(test.wait("train", 55), end);
    assert!(answer.is_done);
    let waited = start.elapsed();
    assert!(waited <= Duration::from_secs(14), "{waited:?}");
    assert_eq!(test.waited_for(), 0);
}

#[test]
fn progress_is_news_by_part_of_the_run_and_time() {
    let answer = |step: u64, total: Option<u64>| {
        let log = format!("{{'loss': 2.0, 'epoch': 0.1, 'step': {step}}}\n");
        let mut progress = scan(log).0.unwrap();
        progress.metrics.total_steps = total;
        PollAnswer {
            measured: Some(progress),
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
        news.measured = scan(bad).0;
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
    let start = Instant::now();
    let open = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        test.cloud.open(Gate::Status);
    };
    let (answer, ()) = tokio::join!(test.wait("train", 30), open);
    assert_eq!(answer.state, JobState::Running);
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn failed_poll_does_not_wait() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let start = Instant::now();
    assert!(test.wait("nobody", 55).await.is_gone());
    let error = JobError::unavailable("sky is slow".to_owned());
    test.cloud.fail_status(Some(error));
    let answer = test.wait("train", 55).await;
    assert_eq!(answer.error.as_deref(), Some("sky is slow"));
    assert_eq!(answer.next, "Tell the user; ask again later.");
    test.cloud.fail_status(None);
    test.cloud.finish("train");
    assert!(test.wait("train", 55).await.is_done);
    assert_eq!(start.elapsed(), Duration::ZERO);
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
    assert_eq!(logs(), 0, "a job that has not start has no log");
    test.cloud.open(Gate::Launch);
    let waiter = test.waiter(by_id("train")).await;
    let polls = test.polls_within(2 * MINUTE).await;
    assert!(
        polls > 10 && (2..=3).contains(&logs()),
        "{polls}, {}",
        logs()
    );
    waiter.abort();
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
