//! A made-up cloud behind the `Launcher` trait: the test holds the gates, and the cloud knows which jobs truly run.
//!
//! The cloud outlives every server: a launch that was set going goes on when the server that began it is dropped, and a
//! second `FakeLauncher` over the same cloud is the launcher of the next server.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::JobError;
use crate::launcher::{
    ClusterAction, ClusterDetails, ClusterInfo, JobIdentity, JobLog, JobState, JobStatus,
    LaunchOptions, LaunchPlan, LaunchSpec, Launcher, ListedJob, Listing, LogContent,
};
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::plan::SupervisorPlan;
use crate::process::runner::{Cli, CliCall, in_budget};
use crate::process::start::StartRequest;
use crate::service::requests::{CancelRequest, RunRequest};
use crate::settings::data_dir::DataDir;
use tokio::sync::watch;

/// Where a call waits while the gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// Before a launch is planned.
    Plan,
    /// Before a start goes through.
    Start,
    /// After it went through, before the server hears of it.
    StartReturn,
    /// Before a launch ends.
    Launch,
    /// After a launch ended, before the server hears of it.
    LaunchWaitReturn,
    /// Before a cancel has any effect.
    Cancel,
    /// Before a status is answered.
    Status,
    /// Before a cluster is stopped or deleted.
    Cluster,
}

/// A call of the service, by the job it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Start(String),
    WaitForLaunch(String),
    Status(String),
    Logs(String),
    Cancel(String),
    List(Vec<String>),
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Launching,
    Running,
    LaunchFailed,
    Cancelled,
    Succeeded,
    /// It has succeeded, and its cluster is there.
    ClusterStays,
}

struct Job {
    identity: JobIdentity,
    stage: Stage,
    starts: usize,
    /// Held while the launch is under way, as the supervisor of a real one does.
    lock: Option<JobLock>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    closed: BTreeSet<Gate>,
    jobs: BTreeMap<String, Job>,
    elsewhere: Vec<ListedJob>,
    faults: Vec<String>,
    launches_fail: bool,
    starts_fail: bool,
    cancels_to_fail: usize,
    panic_in_launch_wait: bool,
    panic_in_status: bool,
    status_error: Option<JobError>,
    list_error: Option<JobError>,
    incomplete: Vec<String>,
    silent: Option<Cli>,
}

/// What all servers of a test share.
#[derive(Clone)]
pub struct FakeCloud {
    folder: DataDir,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

impl FakeCloud {
    pub fn new(folder: &DataDir) -> Self {
        Self {
            folder: folder.clone(),
            state: Arc::default(),
            changes: watch::channel(0).0,
        }
    }

    /// A launcher of these clouds, for one server.
    pub fn launcher(&self, clouds: &'static [&'static str]) -> Arc<dyn Launcher> {
        Arc::new(FakeLauncher {
            cloud: self.clone(),
            clouds,
        })
    }

    pub fn close(&self, gate: Gate) {
        self.change(|state| state.closed.insert(gate));
    }

    pub fn open(&self, gate: Gate) {
        self.change(|state| {
            state.closed.remove(&gate);
            if gate == Gate::Launch {
                state.end_launches();
            }
        });
    }

    pub fn open_all(&self) {
        self.change(|state| {
            state.closed.clear();
            state.end_launches();
        });
    }

    /// Whether the launches that end from now on fail.
    pub fn fail_launches(&self, fail: bool) {
        self.change(|state| state.launches_fail = fail);
    }

    /// Whether the starts that come from now on fail, with nothing started.
    pub fn fail_starts(&self, fail: bool) {
        self.change(|state| state.starts_fail = fail);
    }

    /// The next `times` cancels fail; `usize::MAX` is always.
    pub fn fail_cancels(&self, times: usize) {
        self.change(|state| state.cancels_to_fail = times);
    }

    /// One more cancel fails.
    pub fn fail_one_more_cancel(&self) {
        self.change(|state| state.cancels_to_fail = state.cancels_to_fail.saturating_add(1));
    }

    /// How many of the next cancels fail.
    pub fn cancels_to_fail(&self) -> usize {
        self.state().cancels_to_fail
    }

    /// The next wait_for_launch panics.
    pub fn panic_in_launch_wait(&self) {
        self.change(|state| state.panic_in_launch_wait = true);
    }

    /// Each status panics from now on.
    pub fn panic_in_status(&self) {
        self.change(|state| state.panic_in_status = true);
    }

    pub fn fail_status(&self, error: Option<JobError>) {
        self.change(|state| state.status_error = error);
    }

    /// Makes lists say that a cluster did not answer.
    pub fn leave_out(&self, cluster: &str) {
        self.change(|state| {
            state
                .incomplete
                .push(format!("cluster {cluster}: no answer"))
        });
    }

    /// Each question waits for a program that does not answer.
    pub fn fall_silent(&self) {
        self.change(|state| state.silent = Some(Cli::default()));
    }

    async fn ask(&self) {
        let silent = self.state().silent.clone();
        if let Some(cli) = silent {
            let call = CliCall::new(Path::new("/bin/sleep"), &["2"], Duration::from_secs(120));
            drop(in_budget(cli.query(&call)).await);
        }
    }

    pub fn fail_list(&self, error: Option<JobError>) {
        self.change(|state| state.list_error = error);
    }

    /// A job that somebody else started runs there.
    pub fn add_elsewhere(&self, cloud: &str, cluster: &str, oumi_job_id: &str) {
        let mut status = JobStatus::new("RUNNING", JobState::Running, false);
        status.details.job_name = Some(format!("by-hand-{oumi_job_id}"));
        let job = ListedJob {
            identity: JobIdentity {
                job_id: String::new(),
                cloud: cloud.to_owned(),
                cluster: cluster.to_owned(),
                oumi_job_id: oumi_job_id.to_owned(),
            },
            status,
        };
        self.change(|state| state.elsewhere.push(job));
    }

    /// A job of ours that runs there, of which a launcher alone knows.
    pub fn add_running(&self, job_id: &str, cloud: &str) {
        self.add_elsewhere(cloud, "", job_id);
        self.change(|state| {
            let job = state.elsewhere.last_mut();
            job_id.clone_into(&mut job.unwrap().identity.job_id);
        });
    }

    /// The cloud knows a job of ours as it stands in a registry, at this stage.
    pub fn add_job(&self, identity: &JobIdentity, stage: Stage) {
        let job = Job {
            identity: identity.clone(),
            stage,
            starts: 1,
            lock: None,
        };
        self.change(|state| state.jobs.insert(identity.job_id.clone(), job));
    }

    /// The job ends well by itself.
    pub fn finish(&self, job_id: &str) {
        self.change(|state| {
            if let Some(job) = state.jobs.get_mut(job_id) {
                job.stage = Stage::Succeeded;
            }
        });
    }

    /// The ids of the jobs that run now: their start went through, their launch has not failed, nobody cancelled them.
    pub fn running(&self) -> Vec<String> {
        let state = self.state();
        let running = state
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.stage, Stage::Launching | Stage::Running));
        running.map(|(job_id, _)| job_id.clone()).collect()
    }

    pub fn is_running(&self, job_id: &str) -> bool {
        self.running().iter().any(|running| running == job_id)
    }

    pub fn stage(&self, job_id: &str) -> Option<Stage> {
        self.state().jobs.get(job_id).map(|job| job.stage)
    }

    pub fn starts(&self, job_id: &str) -> usize {
        self.state().jobs.get(job_id).map_or(0, |job| job.starts)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn cancels(&self, job_id: &str) -> usize {
        let cancel = Call::Cancel(job_id.to_owned());
        self.state()
            .calls
            .iter()
            .filter(|call| **call == cancel)
            .count()
    }

    /// What the service asked that it must never ask.
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under this lock")
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changes.send_modify(|version| *version += 1);
        changed
    }

    async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            changes.changed().await.expect("the cloud is still there");
        }
    }

    async fn pass(&self, gate: Gate) {
        self.wait_for(|state| (!state.closed.contains(&gate)).then_some(()))
            .await;
    }

    async fn is_locked(&self, job_id: &str) -> bool {
        self.in_job_dir(job_id, |dir| dir.is_locked().unwrap())
            .await
    }

    async fn is_recorded_as_cancelled(&self, job_id: &str) -> bool {
        let record = |dir: JobDir| dir.exit_record().unwrap();
        self.in_job_dir(job_id, move |dir| {
            record(dir).is_some_and(|record| record.cancelled)
        })
        .await
    }

    async fn in_job_dir(
        &self,
        job_id: &str,
        holds: impl FnOnce(JobDir) -> bool + Send + 'static,
    ) -> bool {
        let Some(dir) = self.folder.job(job_id).map(JobDir::at) else {
            return false;
        };
        tokio::task::spawn_blocking(move || holds(dir))
            .await
            .unwrap()
    }
}

impl State {
    fn end_launches(&mut self) {
        let place = |job: &Job| (job.identity.cloud.clone(), job.identity.cluster.clone());
        let named = |job: &&Job| !job.identity.oumi_job_id.is_empty();
        let mut taken: Vec<(String, String)> =
            self.jobs.values().filter(named).map(place).collect();
        for job in self.jobs.values_mut() {
            if job.stage != Stage::Launching {
                continue;
            }
            job.lock = None;
            if self.launches_fail {
                job.stage = Stage::LaunchFailed;
                continue;
            }
            job.stage = Stage::Running;
            // Ids count from 1 on each cluster.
            taken.push(place(job));
            let on_cluster = taken.iter().filter(|other| **other == place(job)).count();
            job.identity.oumi_job_id = on_cluster.to_string();
        }
    }

    fn job(&self, identity: &JobIdentity) -> Option<&Job> {
        if !identity.job_id.is_empty() {
            return self.jobs.get(&identity.job_id);
        }
        self.jobs.values().find(|job| {
            job.identity.cloud == identity.cloud
                && job.identity.cluster == identity.cluster
                && job.identity.oumi_job_id == identity.oumi_job_id
        })
    }

    fn elsewhere(&mut self, identity: &JobIdentity) -> Option<&mut ListedJob> {
        self.elsewhere.iter_mut().find(|job| {
            job.identity.cloud == identity.cloud
                && (identity.cluster.is_empty() || job.identity.cluster == identity.cluster)
                && job.identity.oumi_job_id == identity.oumi_job_id
        })
    }
}

/// The launcher of one server.
struct FakeLauncher {
    cloud: FakeCloud,
    clouds: &'static [&'static str],
}

fn status_of(stage: Stage) -> JobStatus {
    match stage {
        Stage::Launching => JobStatus::new("launching", JobState::Pending, false),
        Stage::Running => JobStatus::new("RUNNING", JobState::Running, false),
        Stage::LaunchFailed => JobStatus::new("launch_failed", JobState::Failed, true),
        Stage::Cancelled => JobStatus::new("CANCELLED", JobState::Cancelled, true),
        Stage::Succeeded => JobStatus::new("SUCCEEDED", JobState::Succeeded, true),
        Stage::ClusterStays => {
            let mut status = status_of(Stage::Succeeded);
            status.details.cluster = Some(ClusterDetails {
                cluster_status: "UP".to_owned(),
                autostop_minutes: None,
            });
            status
        }
    }
}

impl FakeLauncher {
    async fn look(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        // The lock first, as in `wait_for_launch`.
        let is_ours = !identity.job_id.is_empty();
        let may_start = is_ours && self.cloud.is_locked(&identity.job_id).await;
        let known = {
            let mut state = self.cloud.state();
            match state.job(identity).map(|job| job.stage) {
                Some(stage) => Some(status_of(stage)),
                None => state.elsewhere(identity).map(|job| job.status.clone()),
            }
        };
        match known {
            Some(status) => Ok(status),
            None if identity.job_id.is_empty() => Err(JobError::not_found(format!(
                "cluster {:?} has no job {}; call list_jobs",
                identity.cluster, identity.oumi_job_id
            ))),
            None if may_start => Ok(status_of(Stage::Launching)),
            None if self.cloud.is_recorded_as_cancelled(&identity.job_id).await => {
                Ok(status_of(Stage::Cancelled))
            }
            None => Ok(JobStatus::new("lost", JobState::Unknown, true)),
        }
    }
}

#[async_trait::async_trait]
impl Launcher for FakeLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        self.clouds
    }

    fn is_local(&self) -> bool {
        self.clouds.contains(&"local")
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        self.cloud.pass(Gate::Plan).await;
        self.cloud.ask().await;
        let cluster = if spec.identity.cluster.is_empty() {
            format!("{}-cluster", spec.identity.job_id)
        } else {
            spec.identity.cluster.clone()
        };
        let plan = LaunchPlan {
            command_line: format!("launch {}", spec.identity.job_id),
            cluster,
            job_config: None,
            autostop: None,
            epilogue: None,
            warnings: Vec::new(),
            process: StartRequest {
                plan: SupervisorPlan {
                    steps: Vec::new(),
                    working_dir: PathBuf::from("/"),
                    cancellable: false,
                    cleanup: Vec::new(),
                    time_limit_seconds: None,
                },
                envs: BTreeMap::new(),
                files: Vec::new(),
            },
        };
        Ok(plan)
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        _plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        let job_id = identity.job_id.clone();
        self.cloud
            .change(|state| state.calls.push(Call::Start(job_id.clone())));
        self.cloud.pass(Gate::Start).await;
        let started = self.cloud.change(|state| {
            let fails = state.starts_fail;
            let job = state.jobs.entry(job_id).or_insert_with(|| Job {
                identity: identity.clone(),
                stage: Stage::Launching,
                starts: 0,
                lock: None,
            });
            job.starts += 1;
            if fails {
                job.stage = Stage::LaunchFailed;
                return Err(JobError::failed("no such machine"));
            }
            job.stage = Stage::Launching;
            job.lock = Some(lock);
            if !state.closed.contains(&Gate::Launch) {
                state.end_launches();
            }
            Ok(())
        });
        self.cloud.pass(Gate::StartReturn).await;
        started
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        let job_id = &identity.job_id;
        let panics = self.cloud.change(|state| {
            state.calls.push(Call::WaitForLaunch(job_id.clone()));
            std::mem::take(&mut state.panic_in_launch_wait)
        });
        assert!(!panics, "a launcher that panics, as the test wanted");
        loop {
            // The lock first: once it is free, the launch was set going before or never will be.
            let may_start = self.cloud.is_locked(job_id).await;
            if self.cloud.stage(job_id).is_some() {
                break;
            }
            if !may_start {
                return Err(JobError::failed("its launch was never set going"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let launched = self
            .cloud
            .wait_for(|state| {
                let job = state.jobs.get(job_id)?;
                match job.stage {
                    Stage::Launching => None,
                    Stage::LaunchFailed => Some(Err(JobError::failed("no capacity"))),
                    _ if job.identity.oumi_job_id.is_empty() => {
                        Some(Err(JobError::failed("its launch was never set going")))
                    }
                    _ => Some(Ok(job.identity.clone())),
                }
            })
            .await;
        self.cloud.pass(Gate::LaunchWaitReturn).await;
        launched
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        self.cloud.ask().await;
        let error = self.cloud.change(|state| {
            state.calls.push(Call::Status(identity.job_id.clone()));
            state.status_error.clone()
        });
        let panics = self.cloud.state().panic_in_status;
        assert!(!panics, "a launcher that panics, as the test wanted");
        self.cloud.pass(Gate::Status).await;
        match error {
            Some(error) => Err(error),
            None => self.look(identity).await,
        }
    }

    async fn live_jobs(&self, meant: &JobIdentity) -> Option<String> {
        let listing = self.list(&[]).await.ok()?;
        let on_it = |job: &&ListedJob| job.identity.cluster == meant.cluster;
        let mut jobs = listing.jobs.iter().filter(on_it);
        let name = jobs.next().map(|job| job.status.details.job_name.clone());
        name.unwrap_or_else(|| listing.incomplete.is_empty().then(String::new))
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        self.cloud.ask().await;
        let ids = known.iter().map(|identity| identity.job_id.clone());
        let (error, elsewhere, incomplete) = self.cloud.change(|state| {
            state.calls.push(Call::List(ids.collect()));
            (
                state.list_error.clone(),
                state.elsewhere.clone(),
                state.incomplete.clone(),
            )
        });
        if let Some(error) = error {
            return Err(error);
        }
        let mut listing = Listing {
            incomplete,
            ..Listing::default()
        };
        for identity in known {
            let status = self.look(identity).await?;
            let identity = identity.clone();
            listing.jobs.push(ListedJob { identity, status });
            self.cloud.pass(Gate::Status).await;
        }
        let here = |job: &ListedJob| self.clouds.contains(&job.identity.cloud.as_str());
        listing.jobs.extend(elsewhere.into_iter().filter(here));
        Ok(listing)
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        self.cloud
            .change(|state| state.calls.push(Call::Logs(identity.job_id.clone())));
        let log = format!("log of {}/{}\n", identity.cluster, identity.oumi_job_id);
        let file = format!("cloud:{}/{}", identity.cloud, identity.cluster);
        self.look(identity).await?;
        Ok(JobLog {
            log_file: file,
            content: LogContent::Text {
                text: log,
                complete: true,
            },
            ended: false,
            timed_out: false,
        })
    }

    async fn cancel(&self, identity: &JobIdentity, _force: bool) -> Result<JobStatus, JobError> {
        let job_id = identity.job_id.clone();
        self.cloud
            .change(|state| state.calls.push(Call::Cancel(job_id.clone())));
        self.cloud.pass(Gate::Cancel).await;
        self.cloud.change(|state| {
            let stage = state.job(identity).map(|job| job.stage);
            // A cloud can cancel only a job that it has named.
            if stage == Some(Stage::Launching) {
                state
                    .faults
                    .push(format!("cancel of {job_id} during its launch"));
            }
            if stage == Some(Stage::Running) && identity.oumi_job_id.is_empty() {
                state
                    .faults
                    .push(format!("cancel of {job_id} without its id"));
            }
            if state.cancels_to_fail > 0 {
                if state.cancels_to_fail < usize::MAX {
                    state.cancels_to_fail -= 1;
                }
                return Err(JobError::failed("the cloud did not answer"));
            }
            if let Some(job) = state.elsewhere(identity) {
                job.status = status_of(Stage::Cancelled);
                return Ok(JobStatus::cancelled());
            }
            match stage {
                Some(Stage::Launching) => Err(JobError::failed("its launch is still under way")),
                Some(Stage::Running) => {
                    let found = state.job(identity).map(|job| job.identity.job_id.clone());
                    if let Some(job) = found.and_then(|job_id| state.jobs.get_mut(&job_id)) {
                        job.stage = Stage::Cancelled;
                    }
                    Ok(JobStatus::cancelled())
                }
                Some(done) => Ok(status_of(done)),
                None if job_id.is_empty() => {
                    Err(JobError::not_found("there is no such job".to_owned()))
                }
                // Its launch was never set going.
                None => {
                    let job = Job {
                        identity: identity.clone(),
                        stage: Stage::Cancelled,
                        starts: 0,
                        lock: None,
                    };
                    state.jobs.insert(job_id, job);
                    Ok(JobStatus::cancelled())
                }
            }
        })
    }

    async fn is_certain(&self, _: &JobIdentity) -> bool {
        self.cloud.ask().await;
        true
    }

    async fn clusters(&self, _: Option<&str>) -> Result<Vec<ClusterInfo>, JobError> {
        self.cloud.ask().await;
        let error = self.cloud.state().list_error.clone();
        error.map_or(Ok(Vec::new()), Err)
    }

    fn ends_clusters(&self) -> bool {
        true
    }

    async fn teardown_cluster(
        &self,
        _cloud: &str,
        cluster: &str,
        _action: ClusterAction,
    ) -> Result<String, JobError> {
        self.cloud.pass(Gate::Cluster).await;
        Ok(format!("cluster {cluster} was changed"))
    }
}

/// A request that launches `job_name` on `cloud`. Its config is written into `cwd`.
pub fn run_request(cwd: &Path, job_name: &str, cloud: &str) -> RunRequest {
    std::fs::write(
        cwd.join("train.yaml"),
        "model: {model_name: tiny}\ntraining: {output_dir: out}\n",
    )
    .unwrap();
    RunRequest {
        config_path: "train.yaml".to_owned(),
        command: "train".to_owned(),
        client_cwd: cwd.display().to_string(),
        dry_run: false,
        confirm: true,
        user_confirmation: "EXECUTE".to_owned(),
        plan_id: String::new(),
        job_name: Some(job_name.to_owned()),
        cloud: cloud.to_owned(),
        cluster_name: String::new(),
        options: LaunchOptions::default(),
        allow_shared_output: false,
    }
}

pub fn by_id(job_id: &str) -> JobIdentity {
    JobIdentity::of(job_id)
}

pub fn cancel_by_id(job_id: &str) -> CancelRequest {
    CancelRequest {
        job: by_id(job_id),
        force: false,
    }
}

pub fn direct(cloud: &str, cluster: &str, oumi_job_id: &str) -> JobIdentity {
    JobIdentity {
        job_id: String::new(),
        oumi_job_id: oumi_job_id.to_owned(),
        cloud: cloud.to_owned(),
        cluster: cluster.to_owned(),
    }
}
