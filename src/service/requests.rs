//! The arguments of the tools, with their defaults. The docs of their fields are what a model reads.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job_identity::JobIdentity;
use crate::launcher::LaunchOptions;
use crate::logs::read::DEFAULT_MAX_BYTES;

/// A job to run.
#[derive(Clone, Deserialize, JsonSchema)]
pub(crate) struct RunRequest {
    /// Oumi YAML file, absolute or relative to client_cwd; `~` expands.
    pub config_path: String,
    /// train, evaluate (or eval), infer, synth, analyze, tune or quantize.
    pub command: String,
    /// Absolute path of the project folder. Default: the client's root, or config_path's folder.
    #[serde(default)]
    pub client_cwd: String,
    /// Preview only: nothing starts.
    #[serde(default = "yes")]
    pub dry_run: bool,
    /// Must be true, with user_confirmation, for a real launch.
    #[serde(default)]
    pub confirm: bool,
    /// Exactly EXECUTE for a real launch, once the user has agreed to the preview.
    #[serde(default)]
    pub user_confirmation: String,
    /// From the dry run: refused if what would run has changed.
    #[serde(default)]
    pub plan_id: String,
    /// Becomes the job id. Default: made from command and time.
    pub job_name: Option<String>,
    /// `local` (default) is this machine; else a cloud such as gcp, aws, lambda, slurm.
    #[serde(default)]
    pub cloud: String,
    /// Cloud cluster to use or make. Default: a new one.
    #[serde(default)]
    pub cluster_name: String,
    #[serde(flatten)]
    pub options: LaunchOptions,
    /// Launch even if a running job writes to the same folder.
    #[serde(default)]
    pub allow_shared_output: bool,
}

/// A job to ask about, and how long to wait for news of it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct PollRequest {
    #[serde(flatten)]
    pub job: JobIdentity,
    /// Seconds to wait for news; above 55 only where the client shows progress.
    #[schemars(range(min = 0, max = 3600))]
    pub wait_seconds: u64,
    /// What counts as news: a change of status (default), or progress too: 1 % of the run after 15 s, or bad news.
    pub until: Until,
}

/// The news that a poll waits for.
// Serialize, as for the filter below, puts the default into the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Until {
    #[default]
    Change,
    // One percent of the run after 15 s, a loss gone bad, or a stall.
    Progress,
}

/// A job whose log is to be read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct LogsRequest {
    #[serde(flatten)]
    pub job: JobIdentity,
    /// Lines from the end; with grep, lines that match.
    pub lines: i64,
    /// From an earlier answer: only what is new since.
    pub cursor: String,
    /// Only lines that match this regular expression.
    pub grep: String,
    /// Lines around each match.
    pub context: u32,
    /// Bytes of text, 1024 to 262144.
    pub max_bytes: usize,
    /// Lines as written: bars and repeats are not folded.
    pub raw: bool,
    /// Add the loss as a PNG and a sparkline.
    pub plot: bool,
}

impl Default for LogsRequest {
    fn default() -> Self {
        Self {
            job: JobIdentity::default(),
            lines: 200,
            cursor: String::new(),
            grep: String::new(),
            context: 0,
            max_bytes: DEFAULT_MAX_BYTES,
            raw: false,
            plot: false,
        }
    }
}

/// A job to cancel.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct CancelRequest {
    #[serde(flatten)]
    pub job: JobIdentity,
    /// Kill the processes at once instead of asking them to end. On a cloud: kill a launch that hangs.
    pub force: bool,
}

/// A cluster to stop.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(crate) struct StopRequest {
    /// The cloud it is on.
    pub cloud: String,
    /// Its name.
    pub cluster_name: String,
}

/// A cluster to delete.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(crate) struct DownRequest {
    #[serde(flatten)]
    pub cluster: StopRequest,
    /// Must be true, with user_confirmation.
    #[serde(default)]
    pub confirm: bool,
    /// Exactly DOWN, once the user has agreed.
    #[serde(default)]
    pub user_confirmation: String,
}

/// The arguments of `list_jobs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct ListRequest {
    /// The jobs to list.
    pub status: StatusFilter,
    /// At most so many, newest first.
    pub limit: u32,
}

impl Default for ListRequest {
    fn default() -> Self {
        Self {
            status: StatusFilter::All,
            limit: 20,
        }
    }
}

/// The jobs that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum StatusFilter {
    #[default]
    All,
    // Not done.
    Running,
    // Done, well or badly.
    Completed,
    Succeeded,
    Failed,
    Cancelled,
}

fn yes() -> bool {
    true
}
