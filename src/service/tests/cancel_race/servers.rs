//! A cancel when the server dies, or is another than the one that launches.

use std::time::Duration;

use crate::launcher::JobState;

use super::super::fake_launcher::{Gate, by_id, cancel_by_id};
use super::{JOB, LONG, Race, Server, is_cancelled, is_pending, says_the_launch_failed};

#[test]
fn a_cancel_that_outlasts_its_call_is_carried_out_by_the_next_server_if_this_one_ends() {
    let mut race = Race::launched();
    race.world.close(Gate::Cancel);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(31));
    let answer = race.answer(cancel);
    assert!(answer.success && !answer.is_done, "{answer:?}");
    assert!(race.world.is_running(JOB));
    race.world.open(Gate::Cancel);
    race.restart();
    race.server.pass(Duration::from_secs(1));
    assert!(!race.world.is_running(JOB));
    assert!(!race.dir().is_cancel_kept());
}

#[test]
fn a_cancel_that_was_asked_for_survives_the_death_of_the_server_at_every_gate() {
    for gate in [
        Gate::StartReturn,
        Gate::Launch,
        Gate::SettleReturn,
        Gate::Cancel,
    ] {
        let mut race = Race::new();
        race.world.close(gate);
        race.submit();
        race.cancel();
        if gate != Gate::Launch {
            race.world.open(Gate::Launch);
            race.server.settle_down();
        }
        assert!(race.dir().is_cancel_kept(), "{gate:?}");
        race.restart();
        race.end_cancelled();
        assert_eq!(race.polled().state, JobState::Cancelled, "{gate:?}");
        assert_eq!(race.record().oumi_job_id, "1", "{gate:?}");
    }
}

#[test]
fn a_job_whose_server_died_before_the_start_went_through_never_runs() {
    let mut race = Race::new();
    race.world.close(Gate::Start);
    race.submit();
    race.cancel();
    race.restart();
    race.end_cancelled();
    assert_eq!(race.world.starts(JOB), 0);
    assert_eq!(race.polled().state, JobState::Unknown);
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(answer.is_done, "{answer:?}");
    race.end_cancelled();
}

#[test]
fn a_cancel_asked_of_another_server_while_the_first_dies_before_the_start_is_answered_truly() {
    let mut race = Race::new();
    race.world.close(Gate::Start);
    race.submit();
    let other = Server::new(&race.folder, &race.world);
    let first = std::mem::replace(&mut race.server, other);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(5));
    assert!(!cancel.is_finished());
    first.die();
    let answer = race.answer(cancel);
    assert!(says_the_launch_failed(&answer), "{answer:?}");
    race.end_cancelled();
    assert_eq!(race.world.starts(JOB), 0);
}

#[test]
fn a_cancel_that_was_kept_is_taken_up_by_whoever_looks_at_the_job_next() {
    enum Look {
        Poll,
        List,
        Logs,
        Cancel,
    }
    for look in [Look::Poll, Look::List, Look::Logs, Look::Cancel] {
        let mut race = Race::launching();
        race.cancel();
        // The next server could not read the registry when it began, say: it took nothing up.
        let next = Server::new(&race.folder, &race.world);
        std::mem::replace(&mut race.server, next).die();
        race.world.open(Gate::Launch);
        race.server.pass(Duration::from_secs(60));
        assert!(race.world.is_running(JOB));
        let service = race.server.service.clone();
        race.server.runtime.block_on(async {
            match look {
                Look::Poll => drop(service.poll(by_id(JOB)).await),
                Look::List => drop(service.list(Default::default()).await),
                Look::Logs => drop(
                    service
                        .logs(crate::service::requests::LogsRequest {
                            job_id: JOB.to_owned(),
                            ..Default::default()
                        })
                        .await,
                ),
                Look::Cancel => {
                    let answer = service.cancel(cancel_by_id(JOB)).await;
                    assert!(answer.is_done, "{answer:?}");
                }
            }
        });
        race.server.settle_down();
        assert!(!race.world.is_running(JOB));
        race.end_cancelled();
        assert_eq!(race.record().oumi_job_id, "1");
    }
}

#[test]
fn a_launch_that_ended_while_no_server_ran_is_completed_by_the_next() {
    let mut race = Race::launching();
    race.world.close(Gate::SettleReturn);
    race.world.open(Gate::Launch);
    race.server.settle_down();
    race.world.open(Gate::SettleReturn);
    assert_eq!(race.record().oumi_job_id, "");
    race.restart();
    assert_eq!(race.record().oumi_job_id, "1");
    race.end();
    assert!(race.world.is_running(JOB));
}

#[test]
fn a_cancel_asked_of_another_server_than_the_one_that_launches_is_carried_out() {
    for gate in [
        Gate::Start,
        Gate::StartReturn,
        Gate::Launch,
        Gate::SettleReturn,
    ] {
        for other_dies in [false, true] {
            let mut race = Race::new();
            race.world.open(Gate::Launch);
            race.world.close(gate);
            race.submit();
            let other = Server::new(&race.folder, &race.world);
            let first = std::mem::replace(&mut race.server, other);
            let cancel = race.cancel();
            race.server.pass(LONG + Duration::from_secs(2));
            let answer = race.answer(cancel);
            if race.world.is_running(JOB) || gate == Gate::Start {
                assert!(is_pending(&answer), "{gate:?}: {answer:?}");
            } else {
                assert!(is_cancelled(&answer), "{gate:?}: {answer:?}");
            }
            if other_dies {
                std::mem::replace(&mut race.server, first).die();
            } else {
                race.world.open_all();
                race.server.settle_down();
                first.settle_down();
                assert!(first.service.in_flight().is_empty());
            }
            race.end_cancelled();
            assert_eq!(race.world.starts(JOB), 1);
        }
    }
}
