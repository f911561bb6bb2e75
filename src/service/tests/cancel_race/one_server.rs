//! A cancel at every point of a launch, with one server that lives on.

use std::time::Duration;

use crate::launcher::JobState;

use super::super::fake_launcher::{Call, Gate, Stage};
use super::{JOB, LONG, Race, is_cancelled, is_pending};

#[test]
fn a_cancel_of_a_job_that_is_not_recorded_yet_is_not_found_and_the_job_runs() {
    let race = Race::new();
    let lock = race.registry_lock();
    race.submit();
    let cancel = race.cancel();
    assert_eq!(race.answer(cancel).status, "not_found");
    drop(lock);
    race.end();
    assert!(race.world.is_running(JOB));
}

#[test]
fn a_cancel_during_the_start_is_carried_out_when_the_launch_ends() {
    for gate in [Gate::Start, Gate::StartReturn] {
        let race = Race::new();
        race.world.close(gate);
        race.submit();
        let cancel = race.cancel();
        assert!(!cancel.is_finished());
        race.world.open_all();
        assert!(is_cancelled(&race.answer(cancel)), "{gate:?}");
        race.end_cancelled();
    }
}

#[test]
fn a_cancel_during_the_launch_is_carried_out_when_it_ends() {
    for gate in [Gate::Launch, Gate::SettleReturn] {
        let race = Race::new();
        race.world.open(Gate::Launch);
        race.world.close(gate);
        race.submit();
        let cancel = race.cancel();
        assert!(!cancel.is_finished());
        race.world.open_all();
        assert!(is_cancelled(&race.answer(cancel)), "{gate:?}");
        race.end_cancelled();
    }
}

#[test]
fn a_cancel_is_acknowledged_after_ten_seconds_and_carried_out_an_hour_later() {
    for gate in [
        Gate::Start,
        Gate::StartReturn,
        Gate::Launch,
        Gate::SettleReturn,
    ] {
        let race = Race::new();
        race.world.open(Gate::Launch);
        race.world.close(gate);
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
fn a_cancel_between_the_end_of_the_launch_and_its_record_is_carried_out() {
    for held in [5, 60, 600] {
        let race = Race::launching();
        let lock = race.registry_lock();
        race.world.open(Gate::Launch);
        race.server.settle_down();
        assert_eq!(race.world.stage(JOB), Some(Stage::Running));
        let cancel = race.cancel();
        race.server.pass(Duration::from_secs(held));
        drop(lock);
        let answer = race.answer(cancel);
        assert!(is_cancelled(&answer) || is_pending(&answer), "{answer:?}");
        race.end_cancelled();
        race.polled();
        race.end_cancelled();
        assert_eq!(race.record().oumi_job_id, "1", "held for {held} s");
    }
}

#[test]
fn a_cancel_after_the_launch_goes_to_the_launcher_at_once() {
    let race = Race::launched();
    let cancel = race.cancel();
    assert!(cancel.is_finished());
    assert!(is_cancelled(&race.answer(cancel)));
    let again = race.cancel();
    let again = race.answer(again);
    assert_eq!((again.success, again.state), (false, JobState::Cancelled));
    assert!(again.error.unwrap().contains("already ended"));
    race.end_cancelled();
}

#[test]
fn a_cancel_that_outlasts_its_call_is_forgotten_once_it_is_carried_out() {
    let race = Race::launched();
    race.world.close(Gate::Cancel);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(31));
    assert!(race.answer(cancel).success);
    assert!(race.dir().is_cancel_kept());
    race.world.open(Gate::Cancel);
    race.server.settle_down();
    assert!(!race.world.is_running(JOB));
    assert!(!race.dir().is_cancel_kept());
}

#[test]
fn a_cancel_of_a_job_that_ended_by_itself_is_refused_with_its_status() {
    let race = Race::launched();
    race.world.finish(JOB);
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
fn a_job_that_ended_before_the_cancel_kept_for_it_is_carried_out_reads_as_it_ended() {
    let race = Race::new();
    race.world.open(Gate::Launch);
    race.world.close(Gate::SettleReturn);
    race.submit();
    let cancel = race.cancel();
    race.world.finish(JOB);
    race.world.open_all();
    let answer = race.answer(cancel);
    assert_eq!(
        (answer.status.as_str(), answer.success),
        ("SUCCEEDED", false)
    );
    race.end_cancelled();
    assert_eq!(race.polled().state, JobState::Succeeded);
}

#[test]
fn several_cancels_at_once_are_all_answered_and_one_is_carried_out() {
    let race = Race::launching();
    let cancels: Vec<_> = (0..5).map(|_| race.cancel()).collect();
    race.world.open(Gate::Launch);
    for cancel in cancels {
        assert!(is_cancelled(&race.answer(cancel)));
    }
    race.end_cancelled();
    assert_eq!(race.world.cancels(JOB), 1);
}

#[test]
fn a_list_while_a_job_is_submitted_and_launched_takes_nothing_from_the_map() {
    let race = Race::new();
    // The entry is there and the record is not yet.
    let lock = race.registry_lock();
    race.submit();
    let service = race.server.service.clone();
    let list = race.owed(async move { service.list(Default::default()).await });
    assert!(list.is_finished());
    drop(lock);
    race.server.pass(Duration::from_secs(1));
    assert!(race.server.service.in_flight().contains(JOB));
    let cancel = race.cancel();
    race.world.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
    let settled = race.world.calls();
    let settles = settled
        .iter()
        .filter(|call| matches!(call, Call::Settle(_)));
    assert_eq!(settles.count(), 1, "two drove the one launch");
}

#[test]
fn a_submission_that_nobody_waits_for_any_more_is_launched_all_the_same() {
    let race = Race::new();
    let lock = race.registry_lock();
    let run = race.submit();
    run.abort();
    race.server.settle_down();
    drop(lock);
    race.server.pass(Duration::from_secs(1));
    assert_eq!(race.world.starts(JOB), 1);
    let cancel = race.cancel();
    race.world.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn a_cancel_before_the_launch_starts_keeps_it_from_starting() {
    let race = Race::new();
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
    drop(lock);
    let answer = race.answer(run);
    assert_eq!(answer.status, "CANCELLED");
    assert!(
        !answer.launch_confirmed,
        "it was never launched: {answer:?}"
    );
    race.end_cancelled();
    assert_eq!(race.world.starts(JOB), 0);
    assert_eq!(race.polled().state, JobState::Cancelled);
}
