//! The requests to SkyPilot's API server that stand for runs of `sky`, and their results as `sky` prints them. The forms are
//! those of SkyPilot 0.12 and 0.14.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::parse::sky::is_controller;
use crate::process::runner::Output;
use crate::text::from_yaml;

static TABLE: LazyLock<Vec<Row>> =
    LazyLock::new(|| from_yaml(include_str!("requests.yaml")).unwrap_or_default());

#[derive(Deserialize)]
struct Row {
    run: String,
    path: String,
    body: Value,
}

pub(super) struct Request {
    pub(super) path: &'static str,
    /// The fields of the body but `env_vars`.
    pub(super) body: Value,
}

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
        TABLE.iter().find_map(|row| row.request(arguments))
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
            (_, Err(error)) => (error.to_string(), Some(1)),
        };
        Output {
            stdout,
            code,
            ..Output::default()
        }
    }
}

impl Row {
    fn request(&'static self, arguments: &[String]) -> Option<Request> {
        let words: Vec<&str> = self.run.split(' ').collect();
        let mut body = self.body.clone();
        for (&word, argument) in words.iter().zip(arguments) {
            let (name, value) = match word.strip_prefix('<').map(|it| it.trim_end_matches('>')) {
                None if word == argument => continue,
                None => return None,
                Some(name) => match name.strip_prefix('#') {
                    Some(name) => (name, argument.parse::<u64>().ok()?.into()),
                    None => (name, argument.as_str().into()),
                },
            };
            match &mut body[name] {
                Value::Array(list) => list.push(value),
                field => *field = value,
            }
        }
        let cluster = body["cluster_name"].as_str().unwrap_or_default();
        // `sky` ends those only after a look at what they control.
        let ends_controller = is_controller(cluster) && body["purge"] == false;
        if words.len() != arguments.len() || ends_controller {
            return None;
        }
        let machine = body["name_filter"].as_str().map(ToOwned::to_owned);
        if let Some((name, count)) = machine.as_ref().and_then(|machine| machine.split_once(':')) {
            body["name_filter"] = name.into();
            body["quantity_filter"] = count.parse::<u64>().ok().into();
        }
        let path = self.path.as_str();
        Some(Request { path, body })
    }
}
