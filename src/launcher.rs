//! The one source of how a job is: the [`Launcher`] trait and the words it speaks.

pub mod cloud;
pub mod job_yaml;
pub mod local;
pub mod oumi;
pub mod skypilot;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use serde_json::{Map, Value};

use crate::error::JobError;
pub use crate::job_identity::JobIdentity;
pub use crate::parse::JobState;
use crate::process::job_dir::JobLock;
use crate::process::supervisor;
use crate::settings::config::{Config, OumiCommand};

/// What a launcher answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, JobError>> + Send + 'a>>;

/// How a job is, in the launcher's words and in ours.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// The launcher's own word.
    pub status: String,
    /// What that word means.
    pub state: JobState,
    /// Nothing more will happen to it.
    pub is_done: bool,
    /// A sentence more, where there is one: the launcher's last line, the reason of a failure.
    pub message: Option<String>,
    /// What else is known: times, exit codes, resources.
    pub metadata: Map<String, Value>,
    /// Where its log is.
    pub log_file: String,
    /// What the reader should know beside.
    pub warnings: Vec<String>,
}

impl JobStatus {
    /// A status with the launcher's word and what it means; the rest is empty.
    pub fn new(status: &str, state: JobState, is_done: bool) -> Self {
        Self {
            status: status.to_owned(),
            state,
            is_done,
            message: None,
            metadata: Map::new(),
            log_file: String::new(),
            warnings: Vec::new(),
        }
    }
}

/// A job in a list, with how it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedJob {
    /// Who it is; without our id when it was started elsewhere.
    pub identity: JobIdentity,
    /// How it is.
    pub status: JobStatus,
}

/// What a launcher found when it was asked for everything it knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// The jobs.
    pub jobs: Vec<ListedJob>,
    /// What could not be found out, and what else the reader should know.
    pub warnings: Vec<String>,
}

/// The size of what a cloud job runs on; all of it optional.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Such as `A100:8`.
    pub accelerators: Option<String>,
    /// How many nodes; none means one.
    pub num_nodes: Option<u32>,
    /// Spot or pre-emptible machines.
    pub use_spot: bool,
    /// GiB of disk.
    pub disk_size: Option<u32>,
}

/// Everything a launcher needs to know to start a job.
#[derive(Clone)]
pub struct LaunchSpec {
    /// Who the job will be; the cluster may still be empty.
    pub identity: JobIdentity,
    /// What Oumi is to do.
    pub command: OumiCommand,
    /// The config, read.
    pub config: Config,
    /// The caller's project folder, absolute.
    pub client_cwd: PathBuf,
    /// What the caller asked for to run it on.
    pub resources: Resources,
    /// The caller's environment variables. Their values are secret.
    pub envs: BTreeMap<String, String>,
    /// The caller's file mounts, remote path to local path.
    pub file_mounts: BTreeMap<String, String>,
    /// Replaces the generated setup script of a wrapped training config.
    pub setup_script: Option<String>,
    /// Replaces the generated run script of a wrapped training config.
    pub run_script: Option<String>,
}

/// What a launcher would do for a spec: shown by a dry run, and carried out by [`Launcher::start`].
#[derive(Clone)]
pub struct LaunchPlan {
    /// The exact command line that would run.
    pub command_line: String,
    /// The cluster it would run on; empty on this machine.
    pub cluster: String,
    /// For a cloud: the job config that would be launched, values of `envs` hidden.
    pub job_config: Option<Value>,
    /// What the caller asked for and will not get, and what else is worth knowing beforehand.
    pub warnings: Vec<String>,
    /// Why it cannot be started as things are. Empty when it can.
    pub obstacle: Option<String>,
    /// The supervised process.
    pub process: supervisor::StartRequest,
}

/// The log of a job, or as much of its end as is fetched at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLog {
    /// Where it is: a path, or `cloud:<cloud>/<cluster>`.
    pub log_file: String,
    /// What it holds.
    pub content: LogContent,
    /// Nothing more will be written to it, as far as that was seen before it was read.
    pub ended: bool,
    /// A sentence more, where there is one.
    pub message: Option<String>,
}

/// What a log holds: stdout and stderr together, as the job wrote them, carriage returns and terminal escapes too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogContent {
    /// A file on this machine, of any size: whoever reads it reads a part of it.
    File(PathBuf),
    /// What a program fetched.
    Text {
        /// Its text.
        text: String,
        /// It begins where the log does; else more may stand before it.
        whole: bool,
        /// It was taken as far as it had come after a time; more may follow.
        cut_off: bool,
    },
}

/// How a cancel went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is over: the job has ended and nothing of it is left.
    Cancelled {
        /// A sentence more, where there is one.
        message: Option<String>,
    },
    /// It was asked to stop and has not yet.
    Stopping {
        /// What is left, and what to do next.
        message: String,
    },
    /// It had ended before, with the status given.
    AlreadyDone {
        /// The launcher's word.
        status: String,
        /// What that word means.
        state: JobState,
        /// A sentence more, where there is one.
        message: Option<String>,
    },
}

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterAction {
    /// Stop its machines and keep their disks.
    Stop,
    /// Delete it.
    Down,
}

/// What is known of a cluster before something is done with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterInfo {
    /// The cloud it is on, by the name Oumi gives it.
    pub cloud: Option<String>,
    /// How it is, and of what, in the launcher's words.
    pub about: String,
    /// What it costs, in dollars.
    pub hourly_price: Option<f64>,
}

/// Starts jobs, and is the only one that knows how they are. It knows nothing of the registry.
///
/// A launch has two halves, so that it can survive the server: [`start`](Self::start) sets it going, and
/// [`wait_for_launch`](Self::wait_for_launch), in this server or the next, waits for its end and says who the job became.
pub trait Launcher: Send + Sync {
    /// The clouds it serves, by the names Oumi gives them.
    fn clouds(&self) -> &'static [&'static str];

    /// What it would do for `spec`. Nothing is started or written.
    fn plan<'a>(&'a self, spec: &'a LaunchSpec) -> Answer<'a, LaunchPlan>;

    /// Sets the launch going; it goes on whatever becomes of this process. `lock` is the job's and goes with it.
    fn start<'a>(
        &'a self,
        identity: &'a JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Answer<'a, ()>;

    /// Waits for the end of a launch that was set going, and says who the job became. An error is the launch's failure,
    /// unless it is [`JobError::Unavailable`].
    fn wait_for_launch<'a>(&'a self, identity: &'a JobIdentity) -> Answer<'a, JobIdentity>;

    /// How a job is.
    fn status<'a>(&'a self, identity: &'a JobIdentity) -> Answer<'a, JobStatus>;

    /// How all jobs are: those of `known`, and those started elsewhere where the launcher sees them.
    fn list<'a>(&'a self, known: &'a [JobIdentity]) -> Answer<'a, Listing>;

    /// A job's log.
    fn logs<'a>(&'a self, identity: &'a JobIdentity) -> Answer<'a, JobLog>;

    /// Ends a job, and tells the truth about it afterwards. One whose launch was never set going is marked as cancelled. It
    /// may take minutes, and must not be given up halfway: who cannot wait has it go on in a task of its own.
    fn cancel<'a>(&'a self, identity: &'a JobIdentity, force: bool) -> Answer<'a, CancelOutcome>;

    /// What is known of a cluster; nothing when there is none of that name, or this launcher cannot tell.
    fn cluster<'a>(
        &'a self,
        _cloud: &'a str,
        _cluster: &'a str,
    ) -> Answer<'a, Option<ClusterInfo>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Stops or deletes a cluster, and says in a sentence what became of it. As long, and as little to be given up, as
    /// [`cancel`](Self::cancel).
    fn change_cluster<'a>(
        &'a self,
        cloud: &'a str,
        cluster: &'a str,
        action: ClusterAction,
    ) -> Answer<'a, String>;
}
