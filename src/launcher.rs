//! The [`Launcher`] trait, the only source of a job's state, and its types.

pub(crate) mod cloud;
pub(crate) mod job_yaml;
pub(crate) mod local;
mod offer;
pub(crate) mod oumi;
pub(crate) mod skypilot;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{JobError, Result};
pub(crate) use crate::job_identity::JobIdentity;
pub(crate) use crate::parse::JobState;
pub(crate) use crate::parse::sky::exit_code;
use crate::process::job_dir::{JobDir, JobLock};
use crate::process::plan::Epilogue;
use crate::process::start;
use crate::settings::config::{Config, OumiCommand};
use crate::settings::data_dir::DataDir;
pub(crate) use offer::{ClusterInfo, Offer, PRICE, check_cloud, is_launched_by_hand, oumi_cloud};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobStatus {
    /// The launcher's own word, or one of [`status`].
    pub status: String,
    pub state: JobState,
    /// `true` when the status is final.
    pub is_done: bool,
    pub message: Option<String>,
    pub details: JobDetails,
    pub warnings: Vec<String>,
}

impl JobStatus {
    pub(crate) fn new(status: &str, state: JobState, is_done: bool) -> Self {
        Self {
            status: status.to_owned(),
            state,
            is_done,
            message: None,
            details: JobDetails::default(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn running() -> Self {
        Self::new(status::RUNNING, JobState::Running, false)
    }

    pub(crate) fn failed() -> Self {
        Self::new(status::FAILED, JobState::Failed, true)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(status::CANCELLED, JobState::Cancelled, true)
    }

    pub(crate) fn with_message(mut self, message: impl ToString) -> Self {
        self.message = Some(message.to_string());
        self
    }
}

/// The details of a job that its launcher knows; each is a key of `metadata` in answers. Times are RFC 3339. SkyPilot reports the
/// first three.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct JobDetails {
    pub submitted_at: Option<String>,
    pub start_at: Option<String>,
    pub end_at: Option<String>,
    /// The program or script that failed, on this machine.
    #[serde(skip)]
    pub step: Option<String>,
    /// Written by the supervisor on this machine.
    #[serde(skip)]
    pub ended_at: Option<String>,
    /// Shown where it says more than that the job ended well or badly.
    #[serde(skip_serializing_if = "is_plain")]
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// Processes that still run although the script of the job has ended. The job is not over until they have ended; 0 where a cancel
    /// has ended them.
    pub processes_left: Option<usize>,
    /// What to do next, where that is not to be seen in the state.
    #[serde(skip)]
    pub next: Option<&'static str>,
    pub job_name: Option<String>,
    pub resources: Option<String>,
    /// Of its cluster, in dollars.
    #[serde(skip)]
    pub hourly_price: Option<f64>,
    /// What its cluster has cost, and by what that is known: `$12.34 (cost report)`, `$12.34 (price × time)`.
    #[serde(skip)]
    pub spent: Option<String>,
    #[serde(flatten)]
    pub cluster: Option<ClusterDetails>,
}

fn is_plain(code: &Option<i32>) -> bool {
    matches!(code, None | Some(0 | 1))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ClusterDetails {
    pub cluster_status: String,
    /// `None` when the cluster never stops by itself.
    pub autostop_minutes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListedJob {
    /// Has no `job_id` when the job was started elsewhere.
    pub identity: JobIdentity,
    pub status: JobStatus,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Listing {
    pub jobs: Vec<ListedJob>,
    pub warnings: Vec<String>,
    /// The clouds and clusters that did not answer, with the reason. Jobs may be missing from `jobs` unless this is empty.
    pub incomplete: Vec<String>,
}

impl Listing {
    fn add(&mut self, identity: &JobIdentity, status: Result<JobStatus>) {
        match status {
            Ok(mut status) => {
                self.warnings.append(&mut status.warnings);
                self.jobs.push(ListedJob {
                    identity: identity.clone(),
                    status,
                });
            }
            Err(error) => {
                let (id, reason) = (&identity.job_id, format!(": {error}"));
                let mut known = self.warnings.iter_mut();
                match known.find(|warning| warning.ends_with(&reason)) {
                    // One host that is down has many jobs.
                    Some(warning) => {
                        warning.insert_str(warning.len() - reason.len(), &format!(", {id}"));
                    }
                    None => self.warnings.push(format!("job {id}{reason}")),
                }
            }
        }
    }
}

/// What a call asks of a launch beside its config. The docs of its fields are what a model reads.
// Without `Debug`: the values of `envs` are secret.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct LaunchOptions {
    /// GPUs of each machine, such as A100:8; on this machine also 4.
    pub accelerators: Option<String>,
    /// Machines. Cloud only.
    #[schemars(range(min = 1))]
    pub num_nodes: Option<u32>,
    /// Spot machines: cheaper, can be taken away. Cloud only.
    pub use_spot: bool,
    /// Disk in GiB. Cloud only.
    pub disk_size: Option<u32>,
    /// Idle minutes until the cluster ends itself; 0: never. Default 60. Cloud only.
    pub autostop_minutes: Option<u32>,
    /// Hours after which the run is ended.
    pub max_hours: Option<f64>,
    /// Environment variables for the job; they override the config's. Values are never shown or stored.
    pub envs: BTreeMap<String, String>,
    /// Remote path to local path. Cloud only.
    pub file_mounts: BTreeMap<String, String>,
    /// Replaces the generated setup when a training config goes to a cloud.
    pub setup_script: Option<String>,
    /// Replaces the generated run script, likewise.
    pub run_script: Option<String>,
}

impl LaunchOptions {
    pub(crate) fn time_limit_seconds(&self) -> Option<u64> {
        Some((self.max_hours? * 3600.0).ceil() as u64)
    }
}

#[derive(Clone)]
pub(crate) struct LaunchSpec {
    /// The identity of the job to be; its cluster may still be empty.
    pub identity: JobIdentity,
    pub command: OumiCommand,
    pub config: Config,
    /// The client's project folder, absolute.
    pub client_cwd: PathBuf,
    pub options: LaunchOptions,
}

impl LaunchSpec {
    /// Returns how many processes a training runs in on each machine, one a GPU: the number of `A100:4` or `4`. `None` for what
    /// is no training: `oumi distributed torchrun` is for `train` alone.
    pub(crate) fn processes(&self) -> Option<u32> {
        let asked = self.options.accelerators.as_deref().unwrap_or_default();
        let (_, count) = asked.rsplit_once(':').unwrap_or(("", asked));
        let trains = self.command.subcommand == "train";
        trains.then(|| count.trim().parse().unwrap_or(1).max(1))
    }
}

/// The launch of a spec: shown by a dry run, carried out by [`Launcher::start`].
#[derive(Clone)]
pub(crate) struct LaunchPlan {
    pub command_line: String,
    /// Empty on this machine.
    pub cluster: String,
    /// The job config that runs, with the values of `envs` hidden; `None` for a training config on this machine.
    pub job_config: Option<Value>,
    pub warnings: Vec<String>,
    /// What becomes of an idle cluster; `None` where the launcher makes none.
    pub autostop: Option<String>,
    /// The program that sets the autostop once the launch has ended.
    pub epilogue: Option<Epilogue>,
    pub process: start::StartRequest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobLog {
    /// A path, or `cloud:<cloud>/<cluster>`.
    pub log_file: String,
    pub content: LogContent,
    /// `true` when nothing more will be written to it. Checked before the log is read.
    pub ended: bool,
    /// `true` when the fetch was ended by its timeout: more may follow.
    pub timed_out: bool,
}

impl JobLog {
    /// The log of a supervised process, which has `ended` or not: to tell may take a list of all processes.
    fn of_output(dir: &JobDir, ended: impl FnOnce() -> bool) -> Result<Self> {
        let path = dir.log_path();
        let log_file = path.display().to_string();
        if !path.try_exists()? {
            let error = format!("the job has no log: {log_file} does not exist");
            return Err(JobError::not_found(error));
        }
        Ok(Self {
            log_file,
            content: LogContent::File(path),
            ended: ended(),
            timed_out: false,
        })
    }
}

/// Standard output and error together, with the carriage returns and escapes that the job wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogContent {
    /// A file on this machine, of any size.
    File(PathBuf),
    Text {
        text: String,
        /// `false` when earlier text may be missing.
        complete: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterAction {
    /// Stops its machines and keeps their disks.
    Stop,
    Down,
}

impl ClusterAction {
    fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Down => "down",
        }
    }
}

/// Starts jobs and reports their state. Knows nothing of the registry.
///
/// A launch has two halves, so that it survives the server: [`start`](Self::start) begins it, and
/// [`wait_for_launch`](Self::wait_for_launch), in this server or the next, waits for its end.
#[async_trait]
pub(crate) trait Launcher: Send + Sync {
    /// The clouds it serves, by Oumi's names.
    fn clouds(&self) -> &'static [&'static str];

    /// Tells if the jobs run on this machine, with their logs and folders. Elsewhere a launch may be billed.
    fn is_local(&self) -> bool {
        self.clouds().contains(&local::LOCAL)
    }

    /// Plans the launch of `spec`. Starts and writes nothing. Fails where the launch could not start now.
    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan>;

    /// Begins the launch. It goes on when this process ends. The supervisor inherits `lock`.
    async fn start(&self, identity: &JobIdentity, plan: LaunchPlan, lock: JobLock) -> Result<()>;

    /// Waits for the end of a launch that was begun, and returns the identity with the launcher's id. An error is the failure
    /// of the launch, unless its kind is `Unavailable`.
    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity>;

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus>;

    /// Lists the jobs of `known`, and those started elsewhere where the launcher sees them.
    async fn list(&self, known: &[JobIdentity]) -> Result<Listing>;

    /// As [`list`](Self::list), of the jobs of `known` alone where that costs less.
    async fn statuses(&self, known: &[JobIdentity]) -> Result<Listing> {
        self.list(known).await
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog>;

    /// Returns `false` for a job that cannot be told from another which may have its id by now. It is then neither cancelled nor
    /// its log read, unless named by the launcher's id alone.
    async fn is_certain(&self, _identity: &JobIdentity) -> bool {
        true
    }

    /// Tells whether the cluster of a job was made anew, so that its id names another job, or none.
    async fn is_replaced(&self, _identity: &JobIdentity) -> bool {
        false
    }

    /// Cancels the job and returns its status then; that of a job which had ended is another than cancelled. A job whose launch
    /// never began is marked as cancelled. May take minutes and is not cancellation-safe: spawn it where the caller can time out.
    async fn cancel(&self, identity: &JobIdentity, force: bool) -> Result<JobStatus>;

    /// Kills the launch of a job, so that it ends although it hangs, and returns what comes of it. `None` where there is none to kill.
    async fn kill_launch(&self, _: &JobIdentity) -> Result<Option<String>> {
        Ok(None)
    }

    /// Prices a launch onto a new cluster. `None` where nothing is billed.
    async fn offer(&self, _: &LaunchPlan) -> Option<Offer> {
        None
    }

    /// Returns the price that the launch of a job printed, in dollars an hour. Does file work.
    fn launch_price(&self, _: &JobIdentity) -> Option<f64> {
        None
    }

    /// Describes the cluster of this name, whoever launched it, where the launcher knows one; without a name those that are up or
    /// coming up.
    async fn clusters(&self, _name: Option<&str>) -> Result<Vec<ClusterInfo>> {
        Ok(Vec::new())
    }

    /// Names the jobs that live on a cluster, or with an id that one. `None` where they are not known.
    async fn live_jobs(&self, _: &JobIdentity) -> Option<String> {
        Some(String::new())
    }

    /// Tells if its clusters can be stopped or deleted.
    fn ends_clusters(&self) -> bool {
        false
    }

    /// Stops or deletes a cluster and returns a sentence for the answer. Not cancellation-safe, as [`cancel`](Self::cancel).
    async fn teardown_cluster(&self, _: &str, _: &str, _: ClusterAction) -> Result<String> {
        Err(JobError::failed("its clusters cannot be ended"))
    }
}

/// Returns the folder of a job that this server, or another on this machine, started. A job that is named by the launcher's id
/// alone has none.
fn job_dir(folder: &DataDir, identity: &JobIdentity) -> Result<JobDir> {
    folder.job(&identity.job_id).map(JobDir::at).ok_or_else(|| {
        let id = match identity.job_id.as_str() {
            "" => &identity.oumi_job_id,
            job_id => job_id,
        };
        let error = format!("{id:?} is not the id of a job on this machine");
        JobError::not_found(error).with_hint("call list_jobs for the ids")
    })
}
