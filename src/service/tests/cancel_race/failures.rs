//! A cancel when the launch, the cancel itself or the registry fails.

use crate::launcher::JobState;

use super::super::fake_launcher::Gate;
use super::{JOB, Race, is_cancelled, is_pending, says_it_failed, says_the_launch_failed};

#[test]
fn a_failed_launch_answers_the_cancel() {
    for gate in [Gate::Launch, Gate::LaunchWaitReturn] {
        let race = Race::new();
        race.cloud.fail_launches(true);
        race.cloud.open(Gate::Launch);
        race.cloud.close(gate);
        race.submit();
        let cancel = race.cancel();
        race.cloud.open_all();
        let answer = race.answer(cancel);
        assert!(says_the_launch_failed(&answer), "{answer:?}");
        assert!(answer.error.unwrap().contains("no capacity"));
        race.end_cancelled();
    }
    for gate in [Gate::Start, Gate::StartReturn] {
        let race = Race::new();
        race.cloud.fail_starts(true);
        race.cloud.close(gate);
        race.submit();
        let cancel = race.cancel();
        race.cloud.open_all();
        let answer = race.answer(cancel);
        assert!(says_the_launch_failed(&answer), "{answer:?}");
        assert!(answer.error.unwrap().contains("no such machine"));
        race.end_cancelled();
        assert_eq!(race.cloud.cancels(JOB), 0);
    }
}

#[test]
fn a_vanished_record_loses_no_cancel() {
    let race = Race::launching();
    let cancel = race.cancel();
    std::fs::write(race.folder.registry(), "[]").unwrap();
    let service = race.server.service.clone();
    race.owed(async move { service.list(Default::default()).await });
    race.cloud.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn a_launcher_panic_loses_no_cancel() {
    let race = Race::new();
    race.cloud.open(Gate::Launch);
    race.cloud.close(Gate::StartReturn);
    race.cloud.panic_in_launch_wait();
    race.submit();
    let cancel = race.cancel();
    race.cloud.open_all();
    let answer = race.answer(cancel);
    assert!(!answer.success && !answer.is_done, "{answer:?}");
    assert!(race.server.service.in_flight().is_empty());
    // The next look takes it up again.
    race.polled();
    race.end_cancelled();
}

#[test]
fn a_failing_cancel_says_the_job_may_run() {
    let race = Race::launching();
    race.cloud.fail_cancels(usize::MAX);
    let cancel = race.cancel();
    race.cloud.open(Gate::Launch);
    let answer = race.answer(cancel);
    assert!(says_it_failed(&answer), "{answer:?}");
    race.end();
    assert!(race.cloud.is_running(JOB));
    // It is still to be cancelled, and a poll says so.
    let polled = race.polled();
    assert_eq!(polled.state, JobState::Running);
    assert!(
        polled
            .warnings
            .iter()
            .any(|warning| warning.contains("cancel")),
        "{polled:?}"
    );
    race.end();
    // The next look tries again.
    race.cloud.fail_cancels(0);
    race.polled();
    race.end_cancelled();
    assert_eq!(race.polled().warnings, Vec::<String>::new());
}

#[test]
fn a_failing_cancel_of_a_launched_job_says_so() {
    let race = Race::launched();
    race.cloud.fail_cancels(1);
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(says_it_failed(&answer), "{answer:?}");
    race.end();
    assert!(race.cloud.is_running(JOB));
    let cancel = race.cancel();
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn a_failing_cancel_is_retried() {
    for failures in 1..=4 {
        let race = Race::launching();
        race.cloud.fail_cancels(failures);
        let cancel = race.cancel();
        race.cloud.open(Gate::Launch);
        let answer = race.answer(cancel);
        // Tried again after 1, 4, 15 and 60 s; the call answers within 10.
        if failures <= 2 {
            assert!(is_cancelled(&answer), "{failures}: {answer:?}");
        } else {
            assert!(says_it_failed(&answer), "{failures}: {answer:?}");
        }
        race.end_cancelled();
        assert_eq!(race.cloud.cancels(JOB), failures + 1);
    }
}

#[test]
fn an_unwritable_cancel_is_carried_out_with_a_note() {
    let race = Race::launching();
    // A folder in the place of the file, with something in it: nothing can replace it.
    std::fs::create_dir_all(race.dir().path().join("cancel-requested/in-the-way")).unwrap();
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(is_pending(&answer));
    assert!(answer.message.contains("not repeated"), "{answer:?}");
    race.end();
    assert!(!race.cloud.is_running(JOB));
}
