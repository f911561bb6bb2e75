//! The requests to SkyPilot's API server that stand for runs of `sky`, and their results as `sky` prints them. The forms are
//! those of SkyPilot 0.12 and 0.14.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::runner::Output;

/// The clusters that `sky down` deletes only after a look at what they control.
const CONTROLLERS: [&str; 2] = ["sky-jobs-controller", "sky-serve-controller"];

pub(super) struct Request {
    pub(super) path: &'static str,
    /// The fields of the body but `env_vars`.
    pub(super) body: Value,
}

/// The error of a request, as the API server reports it.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("sky.exceptions.{kind}: {message}\n")]
pub(super) struct RequestError {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) message: String,
}

impl Request {
    /// Returns the request for a run of `sky` with these arguments. `None` where only the program can do it.
    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        let number = |text: &str| text.parse::<u64>().ok();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (path, body) = match arguments[..] {
            // A summary has no job configs, and no keys are asked for.
            ["status", "-o", "json"] => (
                "/status",
                json!({
                    "cluster_names": Value::Null, "refresh": "NONE", "all_users": false,
                    "summary_response": true, "include_handle": false, "include_credentials": false,
                }),
            ),
            ["queue", cluster, "-o", "json"] => (
                "/queue",
                json!({ "cluster_name": cluster, "skip_finished": false, "all_users": false }),
            ),
            // To the API server no number is the latest job.
            ["logs", cluster, id, "--no-follow", "--tail", lines] => (
                "/logs",
                json!({
                    "cluster_name": cluster, "job_id": number(id)?, "follow": false,
                    "tail": number(lines)?,
                }),
            ),
            [
                "gpus",
                "list",
                machine,
                "--infra",
                cloud,
                "-o",
                "json",
                ref all_regions @ ..,
            ] => {
                let (name, count) = machine.split_once(':').unwrap_or((machine, ""));
                let body = json!({
                    "name_filter": name, "quantity_filter": number(count), "clouds": cloud,
                    "all_regions": !all_regions.is_empty(), "gpus_only": true,
                    "case_sensitive": false,
                });
                ("/list_accelerators", body)
            }
            ["cost-report", "--days", days] => ("/cost_report", json!({ "days": number(days)? })),
            ["cancel", "-y", cluster, id] => (
                "/cancel",
                json!({
                    "cluster_name": cluster, "job_ids": [number(id)?], "all": false,
                    "all_users": false,
                }),
            ),
            [verb @ ("stop" | "down"), "-y", cluster]
                if !CONTROLLERS.iter().any(|name| cluster.starts_with(name)) =>
            {
                let path = if verb == "stop" { "/stop" } else { "/down" };
                (path, json!({ "cluster_name": cluster, "purge": false }))
            }
            ["autostop", cluster, "-y", ref how @ ..] => {
                let (minutes, down) = match how {
                    ["--cancel"] => (-1, false),
                    ["-i", minutes, down @ ..] => (minutes.parse().ok()?, *down == ["--down"]),
                    _ => return None,
                };
                let body =
                    json!({ "cluster_name": cluster, "idle_minutes": minutes, "down": down });
                ("/autostop", body)
            }
            _ => return None,
        };
        Some(Self { path, body })
    }

    /// The API server streams what it prints about it.
    pub(super) fn is_change(&self) -> bool {
        matches!(self.path, "/cancel" | "/stop" | "/down" | "/autostop")
    }

    /// Returns what `sky` puts out for the result of the request. `printed` is the text that came with it.
    pub(super) fn output(&self, result: Result<String, RequestError>, printed: String) -> Output {
        let name = &self.body["cluster_name"];
        let (stdout, code) = match (self.path, result) {
            ("/logs", Ok(code)) => (printed, code.trim().parse().ok()),
            ("/cancel" | "/autostop", Ok(_)) => (printed, Some(0)),
            ("/stop" | "/down", Ok(_)) => (format!("{printed}\nThe change...done.\n"), Some(0)),
            ("/stop" | "/down" | "/autostop", Err(error))
                if error.kind == "ClusterDoesNotExist" =>
            {
                ("Cluster(s) not found.\n".to_owned(), Some(0))
            }
            // It is tried again until it is set.
            ("/autostop", Err(error)) => (error.message, Some(1)),
            ("/cancel" | "/stop" | "/down", Err(error)) => (error.message, Some(0)),
            ("/queue", Ok(jobs)) => (format!("{{{name}: {jobs}}}"), Some(0)),
            ("/queue", Err(error)) => {
                let name = name.as_str().unwrap_or_default();
                let text =
                    format!("Failed to get the job queue for cluster '{name}'.\n{error}{{}}");
                (text, Some(0))
            }
            (_, Ok(value)) => (value, Some(0)),
            (_, Err(error)) => {
                return Output {
                    stderr: error.to_string(),
                    code: Some(1),
                    ..Output::default()
                };
            }
        };
        Output {
            stdout,
            code,
            ..Output::default()
        }
    }
}
