//! What the service answers: the fields of the tools' results. Every field is always there.

use schemars::JsonSchema;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::launcher::JobState;
use crate::progress::Progress;
use crate::settings::config::ConfigKind;

/// What every answer can be asked: whether it is one of success, and how it looks when it is not.
pub trait JobAnswer: Serialize {
    /// It answers what was asked.
    fn is_success(&self) -> bool;
    /// The answer to a call that failed for this reason.
    fn failure(error: String) -> Self;
}

macro_rules! job_answer {
    ($answer:ty) => {
        impl JobAnswer for $answer {
            fn is_success(&self) -> bool {
                self.success
            }

            fn failure(error: String) -> Self {
                Self {
                    error: Some(error),
                    ..Self::default()
                }
            }
        }
    };
}

/// The answer of `run_job`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct RunAnswer {
    /// False when nothing was started or previewed.
    pub success: bool,
    /// Name the job by it from now on.
    pub job_id: String,
    /// dry_run, blocked, or the launcher's word.
    pub status: String,
    /// Nothing was started.
    pub dry_run: bool,
    /// What Oumi does.
    pub command: String,
    /// Absolute.
    pub config_path: String,
    /// local or a cloud.
    pub cloud: String,
    /// The cluster asked for or chosen.
    pub cluster_name: String,
    /// From the config.
    pub model_name: String,
    /// What happened, and what to do next.
    pub message: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The launcher has taken the job.
    pub launch_confirmed: bool,
    /// The launcher's id.
    pub oumi_job_id: String,
    /// Where it runs.
    pub cluster: String,
    /// Of a dry run: names what it showed.
    pub plan_id: String,
    /// The exact command line.
    pub command_line: String,
    /// From the config.
    pub output_dir: String,
    /// job or training.
    pub config_kind: Option<ConfigKind>,
    /// For a cloud: what would be launched.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub job_config: Option<Value>,
    /// What was asked for and does not apply, and what to know.
    pub warnings: Vec<String>,
}
job_answer!(RunAnswer);

/// The answer of `poll_status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct PollAnswer {
    /// The job was found and asked about.
    pub success: bool,
    /// Ours; empty for a job started elsewhere.
    pub job_id: String,
    /// The launcher's.
    pub oumi_job_id: String,
    /// The launcher's word, or not_found.
    pub status: String,
    /// What it means.
    pub state: JobState,
    /// What Oumi does.
    pub command: String,
    /// Absolute.
    pub config_path: String,
    /// local or a cloud.
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    /// From the config.
    pub model_name: String,
    /// Nothing more will happen to it.
    pub is_done: bool,
    /// Times, exit code, output_dir.
    pub metadata: Map<String, Value>,
    /// A path, or cloud:cloud/cluster.
    pub log_file: String,
    /// How far it is, where it says so.
    #[serde(serialize_with = "without_nulls")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub progress: Option<ProgressAnswer>,
    /// That its log has been silent for too long.
    pub stalled: Option<String>,
    /// Why it failed.
    #[serde(serialize_with = "without_nulls")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub failure: Option<Failure>,
    /// Why the call failed.
    pub error: Option<String>,
    /// How it is, in a sentence.
    pub message: String,
    /// What to do, and when to ask again.
    pub next: String,
    /// What to know.
    pub warnings: Vec<String>,
}
job_answer!(PollAnswer);

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProgressAnswer {
    /// What it said.
    #[serde(flatten)]
    pub progress: Progress,
    /// How long ago it said that; nothing where nobody knows.
    pub age_seconds: Option<u64>,
}

/// What is known, and not a word of what is not.
fn without_nulls<T: Serialize, S: Serializer>(
    known: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut known = serde_json::to_value(known).map_err(S::Error::custom)?;
    if let Value::Object(fields) = &mut known {
        fields.retain(|_, field| !field.is_null());
    }
    known.serialize(serializer)
}

/// The answer of `get_job_logs`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct LogsAnswer {
    /// The log was read.
    pub success: bool,
    /// Ours.
    pub job_id: String,
    /// As asked.
    pub lines_requested: usize,
    /// As given.
    pub lines_returned: usize,
    /// A path, or cloud:cloud/cluster.
    pub log_file: String,
    /// What was asked for of the log, stdout and stderr.
    pub logs: String,
    /// Why the call failed.
    pub error: Option<String>,
    /// Not all that was asked for is here: lines were left out, or one was cut, or they remain to be read.
    pub truncated: bool,
    /// What to know.
    pub message: String,
    /// Where to go on: everything up to it has been given, or was left out.
    pub cursor: String,
    /// The line that is being written, as it stands; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub unfinished: Option<String>,
    /// How many bytes are new and not here: the newest. Absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub remaining_bytes: Option<u64>,
    /// How many lines match; absent without a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub matches: Option<usize>,
    /// The course of the loss in a line of text; absent unless it was asked for and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub sparkline: Option<String>,
    /// The loss as a PNG; it is no field of the answer, but comes beside it.
    #[serde(skip)]
    pub picture: Option<Vec<u8>>,
}
job_answer!(LogsAnswer);

/// The answer of `cancel_job`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct CancelAnswer {
    /// The job was cancelled, or asked to stop.
    pub success: bool,
    /// Ours.
    pub job_id: String,
    /// The launcher's.
    pub oumi_job_id: String,
    /// The launcher's word, now.
    pub status: String,
    /// What it means.
    pub state: JobState,
    /// Nothing of it runs any more.
    pub is_done: bool,
    /// local or a cloud.
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    /// What happened, and what to do next.
    pub message: String,
    /// Why it failed.
    pub error: Option<String>,
}
job_answer!(CancelAnswer);

/// The answer of `stop_cluster` and `down_cluster`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct ClusterAnswer {
    /// It was done, or goes on.
    pub success: bool,
    /// The cloud it is on.
    pub cloud: String,
    /// Its name.
    pub cluster_name: String,
    /// What became of it, and what to do next.
    pub message: String,
    /// Why it failed.
    pub error: Option<String>,
}
job_answer!(ClusterAnswer);

/// One job of a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct JobRow {
    /// Ours when known, else the launcher's.
    pub job_id: String,
    /// What Oumi does.
    pub command: String,
    /// The launcher's word.
    pub status: String,
    /// local or a cloud.
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    /// From the config.
    pub model_name: String,
    /// Nothing more will happen to it.
    pub is_done: bool,
    /// After how many idle minutes its cluster stops; absent when it does not, or nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub autostop_minutes: Option<u64>,
    /// What its cluster costs, in dollars; absent when nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub hourly_price: Option<f64>,
}

/// The answer of `list_jobs`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub struct ListAnswer {
    /// Newest first.
    pub jobs: Vec<JobRow>,
    /// What could not be asked, and what to know.
    pub warnings: Vec<String>,
    /// Only when the call failed: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub success: Option<bool>,
    /// Only when the call failed: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub error: Option<String>,
}

impl JobAnswer for ListAnswer {
    fn is_success(&self) -> bool {
        self.error.is_none()
    }

    fn failure(error: String) -> Self {
        Self {
            success: Some(false),
            error: Some(error),
            ..Self::default()
        }
    }
}
