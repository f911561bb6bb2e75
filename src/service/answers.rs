//! The answers of the tools. A field that says nothing is left out ([`to_json`]).

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sanitize::answers;
use crate::launcher::JobState;
use crate::progress::Progress;

/// Returns an answer as JSON, without the fields that say nothing: a model pays for each byte. A failed call has an `error`.
pub(crate) fn to_json(answer: &impl Serialize) -> serde_json::Result<Value> {
    let mut answer = serde_json::to_value(answer)?;
    leave_out_empty(&mut answer);
    Ok(answer)
}

/// The fields that are there even where they are `false` or empty.
const KEPT: [&str; 4] = ["success", "is_done", "logs", "jobs"];

/// Removes the fields that are `null`, `false`, empty, or a repetition, also in objects within but the user's own config.
pub(crate) fn leave_out_empty(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            if fields.get("oumi_job_id") == fields.get("job_id") {
                fields.remove("oumi_job_id");
            }
            let empty = [json!(false), json!(""), json!([]), json!({})];
            fields.retain(|name, value| {
                // Serde leaves out the empty fields of rows.
                if !["job_config", "jobs"].contains(&name.as_str()) {
                    leave_out_empty(value);
                }
                let is_kept = KEPT.contains(&name.as_str()) || !empty.contains(value);
                is_kept && !value.is_null()
            });
            if fields.contains_key("success") && !fields.contains_key("status") {
                // The call did not get as far as the job.
                fields.remove("state");
                fields.remove("is_done");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_empty),
        _ => {}
    }
}

answers! {
    /// The answer of `run_job`.
    pub(crate) struct RunAnswer {
        /// `false` when nothing was started or previewed.
        pub success: bool,
        /// Names the job from now on; for a dry run, the id it will have if launched with the plan_id. Empty after an error.
        pub job_id: String,
        /// `dry_run`, `blocked`, or the launcher's word.
        pub status: String,
        pub dry_run: bool,
        pub cloud: String,
        pub cluster_name: String,
        pub message: String,
        pub error: Option<String>,
        /// `true` when the launcher has accepted the job.
        pub launch_confirmed: bool,
        pub oumi_job_id: String,
        /// Names the plan that the dry run showed.
        pub plan_id: String,
        /// The job config that a cloud gets.
        #[schemars(with = "Option<Map<String, Value>>")]
        pub job_config: Option<Value>,
        /// Dollars an hour, at most; absent where that is not known, or nothing is billed.
        pub hourly_price: Option<f64>,
        /// What the price is for, or why it is not known.
        pub price_note: String,
        pub warnings: Vec<String>,
    }

    /// The answer of `poll_status`. A job is polled again and again: what does not change is left to `list_jobs`.
    pub(crate) struct PollAnswer {
        /// `true` when the launcher reported the job.
        pub success: bool,
        /// Empty for a job started elsewhere.
        pub job_id: String,
        pub oumi_job_id: String,
        /// The launcher's word, or `launching`, `lost`, `unknown`, `not_found`, `cluster_gone` or the like.
        pub status: String,
        pub state: JobState,
        /// Empty on this machine.
        pub cloud: String,
        /// Empty on this machine.
        pub cluster: String,
        /// `true` when the status is final.
        pub is_done: bool,
        pub metadata: Map<String, Value>,
        #[serde(skip)]
        pub ended_at: Option<String>,
        /// The wait before the next poll.
        #[serde(skip)]
        pub pause: Duration,
        /// The time from start to end.
        pub duration_seconds: Option<u64>,
        /// Dollars an hour for its cluster.
        pub hourly_price: Option<f64>,
        /// What its cluster has cost, and the source of that figure.
        pub spent: Option<String>,
        /// Absolute; empty where the config names none, or it does not exist.
        pub output_dir: String,
        /// The name of the last whole checkpoint in `output_dir`.
        pub last_checkpoint: Option<String>,
        pub progress: Option<Map<String, Value>>,
        /// The figures of `progress`, for code.
        #[serde(skip)]
        pub measured: Option<Progress>,
        /// The pages that show the run: W&B, TensorBoard, Trackio, Comet.
        pub links: Vec<String>,
        pub stalled: Option<String>,
        pub failure: Option<Map<String, Value>>,
        pub error: Option<String>,
        pub message: String,
        pub next: String,
        pub warnings: Vec<String>,
    }

    /// The answer of `get_job_logs`.
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
        /// Where to continue: everything before it was returned or left out.
        pub cursor: String,
        /// The line that is still being written.
        pub unfinished: Option<String>,
        /// The number of new bytes, the newest ones, that are not in this answer.
        pub remaining_bytes: Option<u64>,
        /// The number of lines that match.
        pub matches: Option<usize>,
        /// The loss as a line of text.
        pub sparkline: Option<String>,
        /// The loss as a PNG; absent unless it was asked for and there is one.
        pub plot_file: Option<String>,
        /// The same, which comes as an image beside the fields.
        #[serde(skip)]
        pub picture: Option<Vec<u8>>,
        pub warnings: Vec<String>,
    }

    /// The answer of `cancel_job`.
    pub(crate) struct CancelAnswer {
        /// `true` when the job was cancelled, or asked to stop.
        pub success: bool,
        pub job_id: String,
        pub oumi_job_id: String,
        pub status: String,
        pub state: JobState,
        /// `true` when no process of it is left.
        pub is_done: bool,
        /// Empty on this machine.
        pub cloud: String,
        /// Empty on this machine.
        pub cluster: String,
        /// As in `poll_status`.
        pub output_dir: String,
        /// As in `poll_status`.
        pub last_checkpoint: Option<String>,
        pub message: String,
        pub error: Option<String>,
    }

    /// The answer of `stop_cluster` and `down_cluster`.
    pub(crate) struct ClusterAnswer {
        /// `true` when the change is done or still under way.
        pub success: bool,
        pub cloud: String,
        pub cluster_name: String,
        pub message: String,
        pub error: Option<String>,
    }

    /// One job of a list.
    // Serde leaves out the empty fields: a list may have hundreds of rows.
    #[schemars(inline)]
    pub(crate) struct JobRow {
        /// Names the job; the launcher's id for a job started elsewhere.
        pub job_id: String,
        /// The command; empty where the job's id begins with it.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub command: String,
        /// Its name on its cluster, for a job started elsewhere.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// The launcher's word.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub status: String,
        pub state: JobState,
        /// Empty on this machine.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub cloud: String,
        /// Empty on this machine.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub cluster: String,
        /// The model; empty where there is a config, which names it.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub model_name: String,
        /// `true` when the status is final.
        pub is_done: bool,
        /// Month, day and time.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub submitted: String,
        /// The time, with month and day where they differ from those of `submitted`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub ended: String,
        /// The name of the config file.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub config: String,
        /// Step and loss, unless the job succeeded.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub progress: Option<String>,
        /// The output folder that the config names, once the job has succeeded; `~` is the home folder.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub output: String,
        /// The idle minutes after which its cluster stops; `None` when it does not stop, or that is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub autostop_minutes: Option<u64>,
        /// Dollars an hour.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hourly_price: Option<f64>,
        /// What its cluster has cost, and the source of that figure.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub spent: Option<String>,
    }

    /// The answer of `list_jobs`.
    pub(crate) struct ListAnswer {
        pub jobs: Vec<JobRow>,
        /// The zone of the times in `jobs`.
        pub times: &'static str,
        /// The number of older matching jobs left out by the limit.
        pub not_shown: Option<usize>,
        pub warnings: Vec<String>,
        /// `false` when the call failed, else absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub success: Option<bool>,
        pub error: Option<String>,
    }
}

/// Returns the fields of a part of an answer.
pub(super) fn fields(part: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(part) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}
