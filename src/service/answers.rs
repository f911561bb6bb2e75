//! The answers of the tools. Every field is always there, unless its doc says when it is absent.

use schemars::JsonSchema;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::launcher::JobState;
use crate::progress::Progress;
use crate::settings::config::ConfigKind;

/// An answer of a tool.
pub(crate) trait JobAnswer: Serialize {
    /// Tells if the call did what it was asked to.
    fn is_success(&self) -> bool;
    /// Answers a call that failed.
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
pub(crate) struct RunAnswer {
    /// `false` when nothing was started or previewed.
    pub success: bool,
    /// Names the job from now on; empty when nothing was started.
    pub job_id: String,
    /// `dry_run`, `blocked`, or the launcher's word.
    pub status: String,
    pub dry_run: bool,
    pub command: String,
    pub config_path: String,
    pub cloud: String,
    pub cluster_name: String,
    pub model_name: String,
    pub message: String,
    pub error: Option<String>,
    /// `true` when the launcher has accepted the job.
    pub launch_confirmed: bool,
    pub oumi_job_id: String,
    pub cluster: String,
    /// Names the plan that a dry run showed.
    pub plan_id: String,
    pub command_line: String,
    pub output_dir: String,
    pub config_kind: Option<ConfigKind>,
    /// The job config that a cloud gets.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub job_config: Option<Value>,
    pub warnings: Vec<String>,
}
job_answer!(RunAnswer);

/// The answer of `poll_status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(crate) struct PollAnswer {
    /// `true` when the launcher reported the job.
    pub success: bool,
    /// Empty for a job started elsewhere.
    pub job_id: String,
    pub oumi_job_id: String,
    /// The launcher's word, or one of ours (`launcher::status`).
    pub status: String,
    pub state: JobState,
    pub command: String,
    pub config_path: String,
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    pub model_name: String,
    /// `true` when the status is final.
    pub is_done: bool,
    pub metadata: Map<String, Value>,
    /// A path, or `cloud:<cloud>/<cluster>`.
    pub log_file: String,
    #[serde(serialize_with = "without_nulls")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub progress: Option<ProgressAnswer>,
    pub stalled: Option<String>,
    #[serde(serialize_with = "without_nulls")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub failure: Option<Failure>,
    pub error: Option<String>,
    pub message: String,
    pub next: String,
    pub warnings: Vec<String>,
}
job_answer!(PollAnswer);

/// The progress of a job, by its own words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProgressAnswer {
    #[serde(flatten)]
    pub progress: Progress,
    /// The age of the newest metric; `None` where it is not known.
    pub age_seconds: Option<u64>,
}

/// Leaves out the fields that are null.
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
pub(crate) struct LogsAnswer {
    pub success: bool,
    pub job_id: String,
    pub lines_requested: usize,
    pub lines_returned: usize,
    /// A path, or `cloud:<cloud>/<cluster>`.
    pub log_file: String,
    /// The lines, stdout and stderr together.
    pub logs: String,
    pub error: Option<String>,
    /// `true` when lines were left out, one was cut, or lines remain to be read.
    pub truncated: bool,
    pub message: String,
    /// The position to go on from: everything before it was given or left out.
    pub cursor: String,
    /// The line that is still being written; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub unfinished: Option<String>,
    /// The count of new bytes, the newest ones, that are not here; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub remaining_bytes: Option<u64>,
    /// The count of lines that match; absent without a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub matches: Option<usize>,
    /// The loss as a line of text; absent unless it was asked for and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub sparkline: Option<String>,
    /// The loss as a PNG, which comes as an image beside the fields.
    #[serde(skip)]
    pub picture: Option<Vec<u8>>,
}
job_answer!(LogsAnswer);

/// The answer of `cancel_job`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(crate) struct CancelAnswer {
    /// `true` when the job was cancelled, or asked to stop.
    pub success: bool,
    pub job_id: String,
    pub oumi_job_id: String,
    pub status: String,
    pub state: JobState,
    /// `true` when no process of it is left.
    pub is_done: bool,
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    pub message: String,
    pub error: Option<String>,
}
job_answer!(CancelAnswer);

/// The answer of `stop_cluster` and `down_cluster`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(crate) struct ClusterAnswer {
    /// `true` when the change is done, or goes on.
    pub success: bool,
    pub cloud: String,
    pub cluster_name: String,
    pub message: String,
    pub error: Option<String>,
}
job_answer!(ClusterAnswer);

/// One job of a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct JobRow {
    /// The launcher's id for a job started elsewhere.
    pub job_id: String,
    pub command: String,
    /// The launcher's word.
    pub status: String,
    pub cloud: String,
    /// Empty on this machine.
    pub cluster: String,
    pub model_name: String,
    /// `true` when the status is final.
    pub is_done: bool,
    /// The idle minutes after which its cluster stops; absent when it does not, or that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub autostop_minutes: Option<u64>,
    /// Dollars an hour; absent when not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub hourly_price: Option<f64>,
}

/// The answer of `list_jobs`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
pub(crate) struct ListAnswer {
    pub jobs: Vec<JobRow>,
    pub warnings: Vec<String>,
    /// `false` when the call failed, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub success: Option<bool>,
    /// Absent unless the call failed.
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
