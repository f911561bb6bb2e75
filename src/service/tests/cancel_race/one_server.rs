//! A cancel at every point of a launch, with one server that lives on.

use std::time::Duration;

use crate::launcher::JobState;

use super::super::fake_launcher::{Call, Gate, Stage};
use super::{JOB, LONG, Race, is_cancelled, is_pending};

#[test]
fn an_unrecorded_job_is_not_found() {
    let race = Race::new();
    let lock = race.registry_lock();
    race.submit();
    let cancel = race.cancel();
    assert_eq!(race.answer(cancel).status, "not_found");
    lock.unlock().unwrap();
    race.end();
    assert!(race.cloud.is_running(JOB));
}

#[test]
fn cancel_during_start() {
    for gate in [Gate::Start, Gate::StartReturn] {
        let race = Race::new();
        race.cloud.close(gate);
        race.submit();
        let cancel = race.cancel();
        assert!(!cancel.is_finished());
        race.cloud.open_all();
        assert!(is_cancelled(&race.answer(cancel)), "{gate:?}");
        race.end_cancelled();
    }
}

#[test]
fn cancel_during_launch() {
    for gate in [Gate::Launch, Gate::LaunchWaitReturn] {
        let race = Race::new();
        race.cloud.open(Gate::Launch);
        race.cloud.close(gate);
        race.submit();
        let cancel = race.cancel();
        assert!(!cancel.is_finished());
        race.cloud.open_all();
        assert!(is_cancelled(&race.answer(cancel)), "{gate:?}");
        race.end_cancelled();
    }
}

#[test]
fn acknowledged_in_ten_seconds_done_in_an_hour() {
    for gate in [
        Gate::Start,
        Gate::StartReturn,
        Gate::Launch,
        Gate::LaunchWaitReturn,
    ] {
        let race = Race::new();
        race.cloud.open(Gate::Launch);
        race.cloud.close(gate);
        race.submit();
        let cancel = race.cancel();
        race.server.pass(LONG);
        assert!(cancel.is_finished());
        assert!(is_pending(&race.answer(cancel)), "{gate:?}");
        race.server.pass(Duration::from_secs(3600));
        race.end_cancelled();
        let polled = race.polled();
        assert_eq!((polled.state, polled.is_done), (JobState::Cancelled, true));
        assert_eq!(race.record().oumi_job_id, "1");
    }
}

#[test]
fn cancel_between_launch_and_record() {
    for held in [5, 60, 600] {
        let race = Race::launching();
        let lock = race.registry_lock();
        race.cloud.open(Gate::Launch);
        race.server.run_until_idle();
        assert_eq!(race.cloud.stage(JOB), Some(Stage::Running));
        let cancel = race.cancel();
        race.server.pass(Duration::from_secs(held));
        lock.unlock().unwrap();
        let answer = race.answer(cancel);
        assert!(is_cancelled(&answer) || is_pending(&answer), "{answer:?}");
        race.end_cancelled();
        race.polled();
        race.end_cancelled();
        assert_eq!(race.record().oumi_job_id, "1", "held for {held} s");
    }
}

#[test]
fn cancel_after_launch() {
    let race = Race::launched();
    let cancel = race.cancel();
    assert!(cancel.is_finished());
    assert!(is_cancelled(&race.answer(cancel)));
    let again = race.cancel();
    let again = race.answer(again);
    assert_eq!((again.success, again.state), (true, JobState::Cancelled));
    race.end_cancelled();
}

#[test]
fn a_slow_cancel_is_cleared_when_done() {
    let race = Race::launched();
    race.cloud.close(Gate::Cancel);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(31));
    assert!(race.answer(cancel).success);
    assert!(race.dir().has_pending_cancel().unwrap());
    race.cloud.open(Gate::Cancel);
    race.server.run_until_idle();
    assert!(!race.cloud.is_running(JOB));
    assert!(!race.dir().has_pending_cancel().unwrap());
}

#[test]
fn a_finished_job_is_refused_with_its_status() {
    let race = Race::launched();
    race.cloud.finish(JOB);
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert_eq!(
        (answer.status.as_str(), answer.success),
        ("SUCCEEDED", false)
    );
    assert!(answer.is_done && answer.error.unwrap().contains("SUCCEEDED"));
    race.end_cancelled();
}

#[test]
fn a_job_that_ends_before_its_pending_cancel() {
    let race = Race::new();
    race.cloud.open(Gate::Launch);
    race.cloud.close(Gate::LaunchWaitReturn);
    race.submit();
    let cancel = race.cancel();
    race.cloud.finish(JOB);
    race.cloud.open_all();
    let answer = race.answer(cancel);
    assert_eq!(
        (answer.status.as_str(), answer.success),
        ("SUCCEEDED", false)
    );
    race.end_cancelled();
    assert_eq!(race.polled().state, JobState::Succeeded);
}

#[test]
fn concurrent_cancels_run_once() {
    let race = Race::launching();
    let cancels: Vec<_> = (0..5).map(|_| race.cancel()).collect();
    race.cloud.open(Gate::Launch);
    for cancel in cancels {
        assert!(is_cancelled(&race.answer(cancel)));
    }
    race.end_cancelled();
    assert_eq!(race.cloud.cancels(JOB), 1);
}

#[test]
fn a_list_leaves_a_new_launch_alone() {
    let race = Race::new();
    // The entry is there and the record is not yet.
    let lock = race.registry_lock();
    race.submit();
    let service = race.server.service.clone();
    let list = race.owed(async move { service.list(Default::default()).await });
    assert!(list.is_finished());
    lock.unlock().unwrap();
    race.server.pass(Duration::from_secs(1));
    assert!(race.server.service.in_flight().contains(JOB));
    let cancel = race.cancel();
    race.cloud.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
    let calls = race.cloud.calls();
    let waits = calls
        .iter()
        .filter(|call| matches!(call, Call::WaitForLaunch(_)));
    assert_eq!(waits.count(), 1, "two drove the one launch");
}

#[test]
fn an_abandoned_submission_is_launched() {
    let race = Race::new();
    let lock = race.registry_lock();
    let run = race.submit();
    run.abort();
    race.server.run_until_idle();
    lock.unlock().unwrap();
    race.server.pass(Duration::from_secs(1));
    assert_eq!(race.cloud.starts(JOB), 1);
    let cancel = race.cancel();
    race.cloud.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn cancel_before_start_prevents_it() {
    let race = Race::new();
    // The launcher is not needed for it.
    race.cloud.fail_cancels(usize::MAX);
    // Nobody can write the record yet, so the launch cannot start either.
    let lock = race.registry_lock();
    let run = race.submit();
    assert!(
        race.server
            .service
            .in_flight()
            .request_cancel(JOB)
            .is_some()
    );
    lock.unlock().unwrap();
    let answer = race.answer(run);
    assert_eq!(answer.status, "CANCELLED");
    assert!(
        !answer.launch_confirmed,
        "it was never launched: {answer:?}"
    );
    race.end_cancelled();
    assert_eq!(race.cloud.starts(JOB), 0);
    assert_eq!(race.polled().state, JobState::Cancelled);
}
