//! The cancel race: whatever the order of launch, cancel and the death of a server, no job runs on after a cancel that was
//! acknowledged, and every answer is true.

mod anywhere;
mod failures;
mod one_server;
mod orders;
mod servers;

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use super::fake_launcher::{FakeCloud, Gate, Stage, by_id, cancel_by_id, run_request};
use crate::launcher::JobState;
use crate::process::job_dir::JobDir;
use crate::registry::JobRecord;
use crate::service::JobService;
use crate::service::answers::{CancelAnswer, PollAnswer, RunAnswer};
use crate::settings::data_dir::DataDir;
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
    fn new(folder: &DataDir, cloud: &FakeCloud) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            // File work is then done in the order in which it was asked for.
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let service = JobService::new(folder.clone(), vec![cloud.launcher(CLOUDS)]);
        Self { runtime, service }
    }

    /// Time passes. The clock only moves when nothing is left to do, so afterwards everything waits for the test.
    fn pass(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    fn run_until_idle(&self) {
        self.pass(Duration::from_millis(1));
    }

    /// The process is killed: its tasks end where they stand.
    fn die(self) {
        // File work that is under way ends first: what is killed for real writes nothing afterwards.
        drop(self.runtime);
    }
}

/// A data folder, a cloud, and the server that is alive.
struct Race {
    home: tempfile::TempDir,
    folder: DataDir,
    cloud: FakeCloud,
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
        let folder = DataDir::at(home.path().join("data"));
        folder.create().unwrap();
        let cloud = FakeCloud::new(&folder);
        cloud.close(Gate::Launch);
        let server = Server::new(&folder, &cloud);
        Self {
            home,
            folder,
            cloud,
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
        race.cloud.open(Gate::Launch);
        race.server.run_until_idle();
        assert!(race.server.service.in_flight().is_empty());
        race
    }

    fn owed<A: Send + 'static>(&self, call: impl Future<Output = A> + Send + 'static) -> Owed<A> {
        let cloud = self.cloud.clone();
        let owed = self
            .server
            .runtime
            .spawn(async move { (call.await, cloud.stage(JOB)) });
        self.server.run_until_idle();
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
        let next = Server::new(&self.folder, &self.cloud);
        std::mem::replace(&mut self.server, next).die();
        // A program that another test is just starting has copies of the locks.
        while self.cloud.stage(JOB).is_none() && self.dir().is_locked().unwrap() {
            std::thread::yield_now();
        }
        let service = self.server.service.clone();
        self.server
            .runtime
            .block_on(async move { service.recover().await });
        self.server.run_until_idle();
    }

    fn record(&self) -> JobRecord {
        let registry = self.server.service.registry();
        let found = self.server.runtime.block_on(registry.get(JOB));
        found.unwrap().expect("the job is in the registry")
    }

    fn dir(&self) -> JobDir {
        JobDir::at(self.folder.job(JOB).unwrap())
    }

    /// The lock that another process holds on the registry, until it is unlocked.
    fn registry_lock(&self) -> File {
        let lock = File::create(self.folder.registry_lock()).unwrap();
        lock.lock().unwrap();
        lock
    }

    /// Lets everything go on for as long as a server tries, and checks what holds at the end of every order.
    fn end(&self) {
        self.cloud.open_all();
        self.server.pass(Duration::from_secs(300));
        assert!(
            self.server.service.in_flight().is_empty(),
            "an entry was left in the map"
        );
        assert!(self.cloud.starts(JOB) <= 1, "launched twice");
        assert_eq!(self.cloud.faults(), Vec::<String>::new());
    }

    /// [`end`](Self::end), and the job does not run.
    fn end_cancelled(&self) {
        self.end();
        assert_eq!(self.cloud.running(), Vec::<String>::new());
        assert!(
            !self.dir().has_pending_cancel().unwrap(),
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
