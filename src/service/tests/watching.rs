//! Watching a job, over a fake launcher: one watcher however many listen, asked as often as it is worth, gone with the last.

use std::time::Duration;

use super::fake_launcher::{Call, Gate, Stage, by_id, direct, run_request};
use super::test_service::{TestService, test_service_with};
use crate::error::JobError;
use crate::launcher::JobState;
use crate::service::answers::PollAnswer;
use crate::service::requests::PollRequest;
use crate::service::watch::JobWatch;
use crate::settings::policy::Policy;
use chrono::TimeDelta;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn test_service() -> TestService {
    test_service_with(&[&["gcp", "local"]], Policy::default())
}

impl TestService {
    /// A job that was submitted so long ago and runs.
    async fn add_running(&self, job_id: &str, cloud: &str, age: TimeDelta) {
        self.add(job_id, cloud, age, Some(Stage::Running)).await;
    }

    async fn wait(&self, job_id: &str, seconds: u64) -> PollAnswer {
        let request = PollRequest {
            job_id: job_id.to_owned(),
            wait_seconds: seconds,
            ..PollRequest::default()
        };
        self.service.poll_until(request, &|_| {}).await
    }

    async fn watch(&self, job_id: &str) -> JobWatch {
        self.service.watch(&by_id(job_id)).await.unwrap()
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

#[tokio::test(start_paused = true)]
async fn ten_who_wait_cost_one_watcher_and_all_hear_of_the_end() {
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
    assert_eq!(test.service.watchers(), 1);
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
    assert_eq!(test.service.watchers(), 0);
    assert_eq!(test.looks_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_time_between_two_runs_of_a_cloud_s_program_grows_with_the_age_of_the_job() {
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
async fn an_old_job_on_a_cloud_is_asked_about_once_a_minute_from_the_start() {
    let test = test_service();
    test.add_running("old", "gcp", TimeDelta::days(2)).await;
    let _watch = test.watch("old").await;
    assert_eq!(test.looks_within(HOUR).await, 59);
}

#[tokio::test(start_paused = true)]
async fn a_job_on_this_machine_is_looked_at_every_second_however_old_it_is() {
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
async fn a_watcher_ends_with_the_last_that_listens() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let (first, second) = (test.watch("train").await, test.watch("train").await);
    let third = second.clone();
    drop((first, second));
    let minute = Duration::from_secs(60);
    assert!(test.looks_within(minute).await > 0);
    drop(third);
    assert_eq!(test.looks_within(minute).await, 0);
    assert_eq!(test.service.watchers(), 0);
    // And the next begins anew.
    let mut again = test.watch("train").await;
    test.cloud.finish("train");
    assert!(again.changed().await.unwrap().is_done);
}

#[tokio::test(start_paused = true)]
async fn who_is_dropped_while_it_waits_leaves_nothing_even_in_the_middle_of_a_look() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let mut watch = test.watch("train").await;
    let waiting = tokio::spawn(async move { watch.changed().await });
    test.cloud.close(Gate::Status);
    assert_eq!(test.looks_within(HOUR).await, 1, "one look, under way");
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(test.service.watchers(), 0);
    test.cloud.open(Gate::Status);
    assert_eq!(test.looks_within(HOUR).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_watched_until_it_is_a_job_and_then_to_its_end() {
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
async fn a_look_that_fails_is_no_change_and_is_told_beside_what_was_seen_before() {
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
async fn a_job_that_cannot_be_asked_about_yet_is_watched_until_it_can() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    test.cloud.fail_status(Some(JobError::failed("no network")));
    let mut watch = test.watch("train").await;
    assert!(watch.now().is_unanswered());
    test.cloud.fail_status(None);
    let seen = watch.changed().await.unwrap();
    assert_eq!((seen.success, seen.state), (true, JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_over_needs_no_watcher() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    test.cloud.finish("train");
    let mut watch = test.watch("train").await;
    assert!(watch.now().is_done);
    assert!(watch.changed().await.is_none());
    assert_eq!(test.service.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_watch_is_given_of_a_job_that_there_is_not() {
    let test = test_service();
    let answer = test.service.watch(&by_id("nobody")).await.unwrap_err();
    assert!(answer.is_gone(), "{answer:?}");
    let answer = test.service.watch(&by_id("")).await.unwrap_err();
    assert!(
        answer
            .error
            .as_deref()
            .unwrap()
            .starts_with("give job_id, or")
    );
    assert_eq!(test.service.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_known_no_more_ends_its_watch() {
    let test = test_service();
    test.add_running("train", "local", TimeDelta::zero()).await;
    let mut watch = test.watch("train").await;
    std::fs::write(test.folder.registry(), "[]").unwrap();
    let gone = watch.changed().await.unwrap();
    assert!(gone.is_gone(), "{gone:?}");
    assert!(watch.changed().await.is_none());
    assert_eq!(test.service.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_watcher_serves_a_job_by_whatever_it_is_called() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let mut by_ours = test.watch("train").await;
    let theirs = direct("gcp", "train-cluster", "1");
    let mut by_theirs = test.service.watch(&theirs).await.unwrap();
    test.cloud.add_elsewhere("gcp", "shared", "7");
    let elsewhere = direct("gcp", "shared", "7");
    let _elsewhere = test.service.watch(&elsewhere).await.unwrap();
    assert_eq!(test.service.watchers(), 2);
    test.cloud.finish("train");
    assert!(by_ours.changed().await.unwrap().is_done);
    assert!(by_theirs.changed().await.unwrap().is_done);
    assert_eq!(test.service.watchers(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_one_poll_sees_those_who_watch_hear_of() {
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
async fn a_poll_that_waits_is_answered_at_the_change_or_at_the_deadline_and_leaves_no_watcher() {
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
    assert_eq!(test.service.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_counts_from_the_beginning_of_the_call_however_long_the_first_look_takes() {
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
async fn a_poll_that_finds_no_job_or_no_answer_does_not_wait() {
    let test = test_service();
    test.add_running("train", "gcp", TimeDelta::zero()).await;
    let begun = Instant::now();
    assert!(test.wait("nobody", 55).await.is_gone());
    let error = JobError::unavailable("sky is slow".to_owned());
    test.cloud.fail_status(Some(error));
    let answer = test.wait("train", 55).await;
    assert_eq!(answer.error.as_deref(), Some("sky is slow"));
    assert_eq!(answer.next, "Ask again in a minute.");
    test.cloud.fail_status(None);
    test.cloud.finish("train");
    assert!(test.wait("train", 55).await.is_done);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(test.service.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_cloud_job_is_asked_for_once_it_runs_seldom_and_once_more_after_the_end() {
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
