//! A cancel when the server dies, or is another than the one that launches.

use std::time::Duration;

use crate::launcher::JobState;

use super::super::fake_launcher::{Gate, by_id, cancel_by_id};
use super::{JOB, LONG, Race, Server, is_cancelled, is_pending, says_the_launch_failed};

#[test]
fn a_slow_cancel_passes_to_the_next_server() {
    let mut race = Race::launched();
    race.cloud.close(Gate::Cancel);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(31));
    let answer = race.answer(cancel);
    assert!(answer.success && !answer.is_done, "{answer:?}");
    assert!(race.cloud.is_running(JOB));
    race.cloud.open(Gate::Cancel);
    race.restart();
    race.server.pass(Duration::from_secs(1));
    assert!(!race.cloud.is_running(JOB));
    assert!(!race.dir().has_pending_cancel().unwrap());
}

#[test]
fn a_cancel_survives_server_death_at_every_gate() {
    for gate in [
        Gate::StartReturn,
        Gate::Launch,
        Gate::LaunchWaitReturn,
        Gate::Cancel,
    ] {
        let mut race = Race::new();
        race.cloud.close(gate);
        race.submit();
        race.cancel();
        if gate != Gate::Launch {
            race.cloud.open(Gate::Launch);
            race.server.run_until_idle();
        }
        assert!(race.dir().has_pending_cancel().unwrap(), "{gate:?}");
        race.restart();
        race.end_cancelled();
        assert_eq!(race.polled().state, JobState::Cancelled, "{gate:?}");
        assert_eq!(race.record().oumi_job_id, "1", "{gate:?}");
    }
}

#[test]
fn death_before_start_runs_nothing() {
    let mut race = Race::new();
    race.cloud.close(Gate::Start);
    race.submit();
    race.cancel();
    race.restart();
    race.end_cancelled();
    assert_eq!(race.cloud.starts(JOB), 0);
    assert_eq!(race.polled().state, JobState::Unknown);
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(answer.is_done, "{answer:?}");
    race.end_cancelled();
}

#[test]
fn cancel_by_a_second_server_while_the_first_dies() {
    let mut race = Race::new();
    race.cloud.close(Gate::Start);
    race.submit();
    let other = Server::new(&race.folder, &race.cloud);
    let first = std::mem::replace(&mut race.server, other);
    let cancel = race.cancel();
    race.server.pass(Duration::from_secs(5));
    assert!(!cancel.is_finished());
    first.die();
    let answer = race.answer(cancel);
    assert!(says_the_launch_failed(&answer), "{answer:?}");
    race.end_cancelled();
    assert_eq!(race.cloud.starts(JOB), 0);
}

#[test]
fn a_pending_cancel_is_resumed_by_any_call() {
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
        let next = Server::new(&race.folder, &race.cloud);
        std::mem::replace(&mut race.server, next).die();
        race.cloud.open(Gate::Launch);
        race.server.pass(Duration::from_secs(60));
        assert!(race.cloud.is_running(JOB));
        let service = race.server.service.clone();
        race.server.runtime.block_on(async {
            match look {
                Look::Poll => drop(service.poll(by_id(JOB)).await),
                Look::List => drop(service.list(Default::default()).await),
                Look::Logs => drop(
                    service
                        .logs(crate::service::requests::LogsRequest {
                            job: by_id(JOB),
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
        race.server.run_until_idle();
        assert!(!race.cloud.is_running(JOB));
        race.end_cancelled();
        assert_eq!(race.record().oumi_job_id, "1");
    }
}

#[test]
fn a_launch_that_ended_unwatched_is_recorded() {
    let mut race = Race::launching();
    race.cloud.close(Gate::LaunchWaitReturn);
    race.cloud.open(Gate::Launch);
    race.server.run_until_idle();
    race.cloud.open(Gate::LaunchWaitReturn);
    assert_eq!(race.record().oumi_job_id, "");
    race.restart();
    assert_eq!(race.record().oumi_job_id, "1");
    race.end();
    assert!(race.cloud.is_running(JOB));
}

#[test]
fn cancel_by_a_second_server() {
    for gate in [
        Gate::Start,
        Gate::StartReturn,
        Gate::Launch,
        Gate::LaunchWaitReturn,
    ] {
        for other_dies in [false, true] {
            let mut race = Race::new();
            race.cloud.open(Gate::Launch);
            race.cloud.close(gate);
            race.submit();
            let other = Server::new(&race.folder, &race.cloud);
            let first = std::mem::replace(&mut race.server, other);
            let cancel = race.cancel();
            race.server.pass(LONG + Duration::from_secs(2));
            let answer = race.answer(cancel);
            if race.cloud.is_running(JOB) || gate == Gate::Start {
                assert!(is_pending(&answer), "{gate:?}: {answer:?}");
            } else {
                assert!(is_cancelled(&answer), "{gate:?}: {answer:?}");
            }
            if other_dies {
                std::mem::replace(&mut race.server, first).die();
            } else {
                race.cloud.open_all();
                race.server.run_until_idle();
                first.run_until_idle();
                assert!(first.service.in_flight().is_empty());
            }
            race.end_cancelled();
            assert_eq!(race.cloud.starts(JOB), 1);
        }
    }
}
