//! The cancel race: whatever the order of launch, cancel and the death of a server, no job runs on after a cancel that was
//! acknowledged, and every answer is true.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/fake_launcher.rs"]
mod fake_launcher;

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use fake_launcher::{Call, Gate, Stage, World, by_id, cancel_by_id, run_request};
use oumi_mcp_server::launcher::JobState;
use oumi_mcp_server::launcher::job_dir::JobDir;
use oumi_mcp_server::paths::DataFolder;
use oumi_mcp_server::registry::JobRecord;
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::service::answers::{CancelAnswer, PollAnswer, RunAnswer};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const JOB: &str = "job";
const CLOUDS: &[&str] = &["gcp"];

/// One server process: a runtime of its own, whose clock and tasks stand still unless the test lets them go on.
struct Server {
    runtime: Runtime,
    service: JobService,
}

/// An answer that a server owes, with the stage of the job at the instant it was given.
type Owed<A> = JoinHandle<(A, Option<Stage>)>;

impl Server {
    fn new(folder: &DataFolder, world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            // File work is then done in the order in which it was asked for.
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let service = JobService::new(folder.clone(), vec![world.launcher(CLOUDS)]);
        Self { runtime, service }
    }

    /// Time passes. The clock only moves when nothing is left to do, so afterwards everything waits for the test.
    fn pass(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    fn settle_down(&self) {
        self.pass(Duration::from_millis(1));
    }

    /// The process is killed: its tasks end where they stand.
    fn die(self) {
        self.runtime.shutdown_background();
    }
}

/// A data folder, a world, and the server that is alive.
struct Race {
    home: tempfile::TempDir,
    folder: DataFolder,
    world: World,
    server: Server,
}

impl Race {
    /// Nothing has been submitted; launches do not end until the gate is opened.
    fn new() -> Self {
        // In memory where that can be had: thousands of orders are followed, and every write is synced.
        let memory = Path::new("/dev/shm");
        let home = tempfile::tempdir_in(memory)
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let folder = DataFolder::at(home.path().join("data"));
        folder.create().unwrap();
        let world = World::new(&folder);
        world.close(Gate::Launch);
        let server = Server::new(&folder, &world);
        Self {
            home,
            folder,
            world,
            server,
        }
    }

    /// A job is submitted, and its launch is under way.
    fn launching() -> Self {
        let race = Self::new();
        race.submit();
        race
    }

    /// A job is submitted and launched, and the registry knows who it is.
    fn launched() -> Self {
        let race = Self::launching();
        race.world.open(Gate::Launch);
        race.server.settle_down();
        assert!(race.server.service.in_flight().is_empty());
        race
    }

    fn owed<A: Send + 'static>(&self, call: impl Future<Output = A> + Send + 'static) -> Owed<A> {
        let world = self.world.clone();
        let owed = self
            .server
            .runtime
            .spawn(async move { (call.await, world.stage(JOB)) });
        self.server.settle_down();
        owed
    }

    fn submit(&self) -> Owed<RunAnswer> {
        let (service, request) = (
            self.server.service.clone(),
            run_request(self.home.path(), JOB, "gcp"),
        );
        self.owed(async move { service.run(request).await })
    }

    fn cancel(&self) -> Owed<CancelAnswer> {
        let service = self.server.service.clone();
        self.owed(async move { service.cancel(cancel_by_id(JOB)).await })
    }

    fn poll(&self) -> Owed<PollAnswer> {
        let service = self.server.service.clone();
        self.owed(async move { service.poll(by_id(JOB)).await })
    }

    /// Waits, for as long as it takes, for what the server owes.
    fn answer<A>(&self, owed: Owed<A>) -> A {
        self.server.runtime.block_on(owed).unwrap().0
    }

    fn polled(&self) -> PollAnswer {
        let owed = self.poll();
        self.answer(owed)
    }

    /// The server is killed, and the next one takes up what it left.
    fn restart(&mut self) {
        let next = Server::new(&self.folder, &self.world);
        std::mem::replace(&mut self.server, next).die();
        let service = self.server.service.clone();
        self.server
            .runtime
            .block_on(async move { service.recover().await });
        self.server.settle_down();
    }

    fn record(&self) -> JobRecord {
        let registry = self.server.service.registry();
        let found = self.server.runtime.block_on(registry.get(JOB));
        found.unwrap().expect("the job is in the registry")
    }

    fn dir(&self) -> JobDir {
        JobDir::at(self.folder.job(JOB).unwrap())
    }

    /// The lock that another process holds on the registry, until it is dropped.
    fn registry_lock(&self) -> File {
        let lock = File::create(self.folder.registry_lock()).unwrap();
        lock.lock().unwrap();
        lock
    }

    /// Lets everything go on for as long as a server tries, and checks what holds at the end of every order.
    fn end(&self) {
        self.world.open_all();
        self.server.pass(Duration::from_secs(300));
        assert!(
            self.server.service.in_flight().is_empty(),
            "an entry was left in the map"
        );
        assert!(self.world.starts(JOB) <= 1, "launched twice");
        assert_eq!(self.world.faults(), Vec::<String>::new());
    }

    /// [`end`](Self::end), and the job does not run.
    fn end_cancelled(&self) {
        self.end();
        assert_eq!(self.world.running(), Vec::<String>::new());
        assert!(
            !self.dir().is_cancel_kept(),
            "a cancel that was done is kept"
        );
    }
}

fn is_pending(answer: &CancelAnswer) -> bool {
    answer.success && answer.status == "launching" && !answer.is_done
}

fn is_cancelled(answer: &CancelAnswer) -> bool {
    answer.success && answer.state == JobState::Cancelled && answer.is_done
}

/// It says that the cancel failed and that the job may run.
fn says_it_failed(answer: &CancelAnswer) -> bool {
    let error = answer.error.as_deref().unwrap_or_default();
    !answer.success
        && !answer.is_done
        && error.contains("the cloud did not answer")
        && error.contains("may")
        && error.contains("running")
        && error.contains("cancel_job again")
}

fn says_the_launch_failed(answer: &CancelAnswer) -> bool {
    let error = answer.error.as_deref().unwrap_or_default();
    !answer.success && answer.is_done && answer.state == JobState::Failed && !error.is_empty()
}

const LONG: Duration = Duration::from_secs(11);

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
fn a_launch_that_fails_meanwhile_answers_the_cancel_with_its_failure() {
    for gate in [Gate::Launch, Gate::SettleReturn] {
        let race = Race::new();
        race.world.fail_launches(true);
        race.world.open(Gate::Launch);
        race.world.close(gate);
        race.submit();
        let cancel = race.cancel();
        race.world.open_all();
        let answer = race.answer(cancel);
        assert!(says_the_launch_failed(&answer), "{answer:?}");
        assert!(answer.error.unwrap().contains("no capacity"));
        race.end_cancelled();
    }
    for gate in [Gate::Start, Gate::StartReturn] {
        let race = Race::new();
        race.world.fail_starts(true);
        race.world.close(gate);
        race.submit();
        let cancel = race.cancel();
        race.world.open_all();
        let answer = race.answer(cancel);
        assert!(says_the_launch_failed(&answer), "{answer:?}");
        assert!(answer.error.unwrap().contains("no such machine"));
        race.end_cancelled();
        assert_eq!(race.world.cancels(JOB), 0);
    }
}

#[test]
fn a_cancel_that_always_fails_before_the_launch_started_starts_nothing() {
    let race = Race::new();
    race.world.fail_cancels(usize::MAX);
    let lock = race.registry_lock();
    let run = race.submit();
    race.server.service.in_flight().request_cancel(JOB);
    drop(lock);
    let answer = race.answer(run);
    assert_eq!((answer.success, answer.status.as_str()), (false, "unknown"));
    race.end();
    race.polled();
    race.end_cancelled();
    assert_eq!(race.world.starts(JOB), 0);
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
                        .logs(oumi_mcp_server::service::requests::LogsRequest {
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

#[test]
fn a_launch_whose_record_has_vanished_leaves_the_map_at_the_next_list() {
    let race = Race::launching();
    std::fs::write(race.folder.registry(), "[]").unwrap();
    let service = race.server.service.clone();
    race.owed(async move { service.list(Default::default()).await });
    assert!(race.server.service.in_flight().is_empty());
    race.end();
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
fn the_record_of_a_launch_under_way_vanishes_and_the_cancel_asked_before_is_still_carried_out() {
    let race = Race::launching();
    let cancel = race.cancel();
    std::fs::write(race.folder.registry(), "[]").unwrap();
    let service = race.server.service.clone();
    race.owed(async move { service.list(Default::default()).await });
    race.world.open(Gate::Launch);
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn a_launcher_that_panics_leaves_no_entry_and_loses_no_cancel() {
    let race = Race::new();
    race.world.open(Gate::Launch);
    race.world.close(Gate::StartReturn);
    race.world.panic_in_settle();
    race.submit();
    let cancel = race.cancel();
    race.world.open_all();
    let answer = race.answer(cancel);
    assert!(!answer.success && !answer.is_done, "{answer:?}");
    assert!(race.server.service.in_flight().is_empty());
    // The next look takes it up again.
    race.polled();
    race.end_cancelled();
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
fn a_cancel_that_always_fails_after_the_launch_says_so_and_that_the_job_may_run() {
    let race = Race::launching();
    race.world.fail_cancels(usize::MAX);
    let cancel = race.cancel();
    race.world.open(Gate::Launch);
    let answer = race.answer(cancel);
    assert!(says_it_failed(&answer), "{answer:?}");
    race.end();
    assert!(race.world.is_running(JOB));
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
    race.world.fail_cancels(0);
    race.polled();
    race.end_cancelled();
    assert_eq!(race.polled().warnings, Vec::<String>::new());
}

#[test]
fn a_cancel_that_fails_after_the_launch_was_recorded_says_so_and_that_the_job_may_run() {
    let race = Race::launched();
    race.world.fail_cancels(1);
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(says_it_failed(&answer), "{answer:?}");
    race.end();
    assert!(race.world.is_running(JOB));
    let cancel = race.cancel();
    assert!(is_cancelled(&race.answer(cancel)));
    race.end_cancelled();
}

#[test]
fn a_cancel_that_fails_for_a_while_is_tried_again_until_it_succeeds() {
    for failures in 1..=4 {
        let race = Race::launching();
        race.world.fail_cancels(failures);
        let cancel = race.cancel();
        race.world.open(Gate::Launch);
        let answer = race.answer(cancel);
        // Tried again after 1, 4, 15 and 60 s; the call answers within 10.
        if failures <= 2 {
            assert!(is_cancelled(&answer), "{failures}: {answer:?}");
        } else {
            assert!(says_it_failed(&answer), "{failures}: {answer:?}");
        }
        race.end_cancelled();
        assert_eq!(race.world.cancels(JOB), failures + 1);
    }
}

#[test]
fn a_cancel_that_cannot_be_written_down_is_carried_out_and_says_that_it_may_be_forgotten() {
    let race = Race::launching();
    // A folder in the place of the file, with something in it: nothing can replace it.
    std::fs::create_dir_all(race.dir().path().join("cancel-requested/in-the-way")).unwrap();
    let cancel = race.cancel();
    let answer = race.answer(cancel);
    assert!(is_pending(&answer));
    assert!(answer.message.contains("forgotten"), "{answer:?}");
    race.end();
    assert!(!race.world.is_running(JOB));
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

#[test]
fn a_registry_that_cannot_be_written_is_tried_again_and_the_last_try_comes_after_the_longest_wait()
{
    let race = Race::launching();
    // A folder in the place of the lock: it cannot be opened to write, not even by root.
    std::fs::remove_file(race.folder.registry_lock()).unwrap();
    std::fs::create_dir(race.folder.registry_lock()).unwrap();
    race.world.open(Gate::Launch);
    race.server.pass(Duration::from_secs(20));
    assert!(race.server.service.in_flight().contains(JOB));
    assert_eq!(race.record().oumi_job_id, "");
    std::fs::remove_dir(race.folder.registry_lock()).unwrap();
    race.server.pass(Duration::from_secs(20));
    assert_eq!(race.record().oumi_job_id, "1");
    race.end();
}

/// One step of an order. A submission comes first in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The start goes through.
    Starts,
    /// The launch returns with an id.
    Launches,
    /// The launch fails.
    Fails,
    /// `cancel_job` is called.
    Cancel,
    /// One more of the launcher's cancels will fail.
    CancelFails,
    /// `poll_status` is called.
    Poll,
    /// The server dies, and the next takes up what it left.
    Dies,
}

/// What is true of the job, by the order alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    /// Set going by nobody yet; the server that wanted to may still.
    Starting,
    /// The server that wanted to start it is dead.
    NeverStarted,
    Launching,
    Running,
    LaunchFailed,
    Cancelled,
}

struct Model {
    truth: Truth,
    /// A cancel was asked for while the launch was under way, so it must be carried out.
    cancel_is_due: bool,
}

impl Model {
    fn follow(&mut self, step: Step, cancels_to_fail: usize) {
        self.truth = match (step, self.truth) {
            (Step::Starts, Truth::Starting) => Truth::Launching,
            (Step::Launches, Truth::Launching) => Truth::Running,
            (Step::Fails, Truth::Launching) => Truth::LaunchFailed,
            (Step::Dies, Truth::Starting) => Truth::NeverStarted,
            (Step::Cancel, Truth::Starting | Truth::Launching) => {
                self.cancel_is_due = true;
                self.truth
            }
            (Step::Cancel, Truth::Running) if !self.cancel_is_due && cancels_to_fail == 0 => {
                Truth::Cancelled
            }
            (Step::Cancel, Truth::NeverStarted) if cancels_to_fail == 0 => Truth::Cancelled,
            (_, truth) => truth,
        };
    }

    /// How the job ends when every gate is opened and no order goes on.
    fn end(self) -> Truth {
        let launched = match self.truth {
            Truth::Starting | Truth::Launching => Truth::Running,
            truth => truth,
        };
        match launched {
            Truth::Running if self.cancel_is_due => Truth::Cancelled,
            truth => truth,
        }
    }
}

/// Whether a cancel was answered with the truth of that instant. `due` is whether it must still be carried out.
fn check_cancel(answer: &CancelAnswer, stage: Option<Stage>, due: bool, order: &str) {
    let said = answer.error.as_deref().unwrap_or_default();
    let is_true = match (answer.success, answer.is_done) {
        (true, true) => stage == Some(Stage::Cancelled) && is_cancelled(answer),
        (true, false) => is_pending(answer) && due,
        (false, true) => match stage {
            Some(Stage::LaunchFailed) => says_the_launch_failed(answer),
            Some(Stage::Cancelled) => answer.state == JobState::Cancelled,
            // Its launch was never set going.
            None => answer.state == JobState::Failed && said.contains("never set going"),
            _ => false,
        },
        (false, false) => says_it_failed(answer),
    };
    assert!(is_true, "{order}: {stage:?}, {due}, {answer:?}");
}

fn check_poll(answer: &PollAnswer, stage: Option<Stage>, order: &str) {
    let (state, is_done) = match stage {
        Some(Stage::Launching) => (JobState::Pending, false),
        Some(Stage::Running) => (JobState::Running, false),
        Some(Stage::LaunchFailed) => (JobState::Failed, true),
        Some(Stage::Cancelled) => (JobState::Cancelled, true),
        Some(Stage::Succeeded) => (JobState::Succeeded, true),
        None if answer.is_done => (JobState::Unknown, true),
        None => (JobState::Pending, false),
    };
    assert!(answer.success, "{order}: {answer:?}");
    assert_eq!((answer.state, answer.is_done), (state, is_done), "{order}");
}

/// Follows one order, letting `pace` pass after each step, then lets everything go on and compares with the model.
fn follow(steps: &[Step], pace: Duration) {
    let order = format!("{steps:?} every {pace:?}");
    let mut race = Race::new();
    let waits_to_start = steps.contains(&Step::Starts);
    if waits_to_start {
        race.world.close(Gate::Start);
    }
    let mut model = Model {
        truth: if waits_to_start {
            Truth::Starting
        } else {
            Truth::Launching
        },
        cancel_is_due: false,
    };
    race.submit();
    let mut cancels: Vec<(Owed<CancelAnswer>, bool)> = Vec::new();
    let mut polls = Vec::new();
    for step in steps {
        model.follow(*step, race.world.cancels_to_fail());
        match step {
            Step::Starts => race.world.open(Gate::Start),
            Step::Launches => race.world.open(Gate::Launch),
            Step::Fails => {
                race.world.fail_launches(true);
                race.world.open(Gate::Launch);
            }
            Step::Cancel => cancels.push((race.cancel(), model.cancel_is_due)),
            Step::CancelFails => race.world.fail_one_more_cancel(),
            Step::Poll => polls.push(race.poll()),
            Step::Dies => {
                race.restart();
            }
        }
        race.server.pass(pace);
    }
    race.end();
    // A look more, for a cancel that has used up its retries.
    race.polled();
    race.end();
    for (cancel, due) in cancels {
        match race.server.runtime.block_on(cancel) {
            Ok((answer, stage)) => check_cancel(&answer, stage, due, &order),
            // The server that owed it is dead.
            Err(error) => assert!(error.is_cancelled(), "{order}: {error}"),
        }
    }
    for poll in polls {
        match race.server.runtime.block_on(poll) {
            Ok((answer, stage)) => check_poll(&answer, stage, &order),
            Err(error) => assert!(error.is_cancelled(), "{order}: {error}"),
        }
    }
    let ended = model.end();
    let stage = match ended {
        Truth::Running => Some(Stage::Running),
        Truth::LaunchFailed => Some(Stage::LaunchFailed),
        Truth::Cancelled => Some(Stage::Cancelled),
        _ => None,
    };
    assert_eq!(race.world.stage(JOB), stage, "{order}");
    assert!(
        !race.dir().is_cancel_kept(),
        "{order}: a cancel is still kept"
    );
    let has_id = race.world.starts(JOB) == 1 && ended != Truth::LaunchFailed;
    assert_eq!(!race.record().oumi_job_id.is_empty(), has_id, "{order}");
}

/// All orders of `length` steps after the submission, in which a launch starts at most once and ends at most once.
fn orders(length: usize, starts: bool) -> Vec<Vec<Step>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..length {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<Step>| {
                let started = !starts || order.contains(&Step::Starts);
                let ended = order.contains(&Step::Launches) || order.contains(&Step::Fails);
                let mut next = vec![Step::Cancel, Step::CancelFails, Step::Poll, Step::Dies];
                if starts && !started {
                    next.push(Step::Starts);
                }
                if started && !ended {
                    next.extend([Step::Launches, Step::Fails]);
                }
                next.into_iter()
                    .map(move |step| [order.clone(), vec![step]].concat())
            })
            .collect();
    }
    orders
}

fn follow_all(orders: Vec<Vec<Step>>, pace: Duration) {
    let half = orders.len() / 2;
    std::thread::scope(|scope| {
        for part in [&orders[..half], &orders[half..]] {
            scope.spawn(move || part.iter().for_each(|steps| follow(steps, pace)));
        }
    });
}

#[test]
fn no_order_of_six_events_leaves_a_cancelled_job_running_or_an_entry_in_the_map() {
    let all: Vec<_> = (0..=5).flat_map(|length| orders(length, false)).collect();
    assert_eq!(all.len(), 4551);
    follow_all(all, Duration::from_millis(1));
}

#[test]
fn the_same_holds_when_retries_fall_between_the_events() {
    let all: Vec<_> = (0..=4).flat_map(|length| orders(length, false)).collect();
    follow_all(all, Duration::from_millis(1500));
}

#[test]
fn the_same_holds_when_the_server_dies_before_the_start_went_through() {
    let all: Vec<_> = (0..=5).flat_map(|length| orders(length, true)).collect();
    let with_start = all
        .into_iter()
        .filter(|order| order.contains(&Step::Starts));
    follow_all(with_start.collect(), Duration::from_millis(1));
}

/// Kills the server after so many turns of its tasks, each as long as `pause`. Where exactly that is depends on the file
/// work; what must hold afterwards does not.
fn kill_in_the_middle(during_launch: bool, turns: usize, pause: Duration) {
    let at = format!("after {turns} turns of {pause:?}, during the launch: {during_launch}");
    let mut race = Race::new();
    let (run, cancel) = (race.server.service.clone(), race.server.service.clone());
    let request = run_request(race.home.path(), JOB, "gcp");
    race.server
        .runtime
        .spawn(async move { run.run(request).await });
    if during_launch {
        race.server.settle_down();
    }
    race.world.open_all();
    let cancel = race.server.runtime.spawn(async move {
        loop {
            let answer = cancel.cancel(cancel_by_id(JOB)).await;
            if answer.status != "not_found" {
                return answer;
            }
        }
    });
    let answered = race.server.runtime.block_on(async {
        for _ in 0..turns {
            std::thread::sleep(pause);
            tokio::task::yield_now().await;
        }
        match cancel.is_finished() {
            true => Some(cancel.await.unwrap()),
            false => None,
        }
    });
    let is_kept = race.dir().is_cancel_kept();
    race.restart();
    race.end();
    race.polled();
    race.end();
    if is_kept || answered.is_some_and(|answer| answer.success) {
        assert!(!race.world.is_running(JOB), "{at}");
    }
    let registry = race.server.service.registry();
    let record = race.server.runtime.block_on(registry.get(JOB)).unwrap();
    let has_id = record.is_some_and(|record| !record.oumi_job_id.is_empty());
    assert_eq!(has_id, race.world.starts(JOB) == 1, "{at}");
    assert!(!race.dir().is_cancel_kept(), "{at}");
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_anything_loses_neither_job_nor_cancel() {
    for during_launch in [false, true] {
        for pause in [0, 10, 50, 150].map(Duration::from_micros) {
            for turns in 0..30 {
                kill_in_the_middle(during_launch, turns, pause);
            }
        }
    }
}

#[test]
fn many_calls_at_once_on_real_threads_leave_no_cancelled_job_running() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataFolder::at(home.path().join("data"));
    folder.create().unwrap();
    let world = World::new(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    // Two servers on one folder.
    let services = [(); 2].map(|()| JobService::new(folder.clone(), vec![world.launcher(CLOUDS)]));
    runtime.block_on(async {
        for number in 0..60 {
            let job_id = format!("job-{number}");
            let request = run_request(home.path(), &job_id, "gcp");
            let mut calls = tokio::task::JoinSet::new();
            let (service, id) = (services[number % 2].clone(), job_id.clone());
            calls.spawn(async move { assert_eq!(service.run(request).await.job_id, id) });
            for service in services.clone() {
                let id = job_id.clone();
                calls.spawn(async move {
                    while service.cancel(cancel_by_id(&id)).await.status == "not_found" {
                        tokio::task::yield_now().await;
                    }
                });
            }
            for service in services.clone() {
                let id = job_id.clone();
                calls.spawn(async move {
                    service.list(Default::default()).await;
                    service.poll(by_id(&id)).await;
                });
            }
            calls.join_all().await;
            assert!(!world.is_running(&job_id), "{job_id}");
            assert!(world.starts(&job_id) <= 1, "{job_id}");
        }
        // What was taken up by a look may still be on its way out.
        let is_idle = || {
            services
                .iter()
                .all(|service| service.in_flight().is_empty())
        };
        for _ in 0..1000 {
            if is_idle() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_idle());
        assert_eq!(world.faults(), Vec::<String>::new());
    });
}
