//! SkyPilot's API server in place of `sky`: a request is posted, and its result is fetched when it has ended. The forms are
//! those of SkyPilot 0.12 and 0.14.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HOST};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::endpoint::Endpoint;
use super::http::{Reply, Unusable, exchange};
use crate::process::blocking;
use crate::process::runner::{CliCall, Output};

/// The versions of the interface whose forms are known: SkyPilot 0.12.3 to 0.14.
const VERSIONS: RangeInclusive<u32> = 50..=62;
/// The version that this client speaks, and the version of SkyPilot that has it.
const OWN_VERSION: (&str, &str) = ("50", "0.12.3");
const HEALTH_TIMEOUT: Duration = Duration::from_millis(300);
/// The time that a server is taken for healthy, or for absent; SkyPilot's own client keeps it as long.
const HEALTH_TTL: Duration = Duration::from_secs(5);
/// The time for the cancel of a request that took too long.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// The errors that `sky` itself answers with. With any other the program is asked, whose words are then the answer.
const OWN_ERRORS: [&str; 9] = [
    "ClusterDoesNotExist",
    "ClusterNotUpError",
    "ClusterOwnerIdentityMismatchError",
    "CloudError",
    "CloudUserIdentityError",
    "CommandError",
    "NotSupportedError",
    "RuntimeError",
    "ValueError",
];

/// A request to the API server.
pub(super) struct Question {
    pub(super) path: &'static str,
    /// The fields of the body but `env_vars`.
    pub(super) body: Value,
}

/// The API server, where there is one for `sky` on this machine.
#[derive(Default)]
pub(super) struct Api {
    health: Mutex<Option<(Instant, Option<Arc<Endpoint>>)>>,
}

/// Its endpoint holds secrets.
impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Api").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Health {
    status: String,
    api_version: Value,
    #[serde(default)]
    basic_auth_enabled: bool,
}

/// A request that has ended.
#[derive(Deserialize)]
struct Ended {
    status: String,
    /// A text of JSON.
    return_value: Option<String>,
    /// A text of JSON.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    detail: Ended,
}

#[derive(Deserialize)]
struct OwnError {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

impl Api {
    /// Returns the server, if it is healthy and speaks a version that is known here.
    pub(super) async fn server(&self) -> Option<Arc<Endpoint>> {
        let mut health = self.health.lock().await;
        if let Some((at, server)) = &*health
            && at.elapsed() < HEALTH_TTL
        {
            return server.clone();
        }
        let found = blocking(|| Ok::<_, std::io::Error>(Endpoint::find())).await;
        let mut server = found.ok().flatten().map(Arc::new);
        if let Some(found) = &server {
            let checked = timeout(HEALTH_TIMEOUT, found.check_health()).await;
            match checked.unwrap_or(Err(Unusable::Late)) {
                Ok(()) => {}
                Err(Unusable::NoConnection(_)) => server = None,
                Err(problem) => {
                    tracing::warn!("SkyPilot's API server is not used, but `sky`: {problem}");
                    server = None;
                }
            }
        }
        *health = Some((Instant::now(), server.clone()));
        server
    }

    /// Has the server's health looked at again before the next request.
    pub(super) async fn forget(&self) {
        *self.health.lock().await = None;
    }
}

impl Endpoint {
    async fn check_health(&self) -> Result<(), Unusable> {
        let mut reply = Reply::new(false);
        self.send(Method::GET, "/api/health", None, &mut reply)
            .await?;
        let health: Health = read(&reply)?;
        if health.status != "healthy" || health.basic_auth_enabled {
            return Err(Unusable::Unhealthy);
        }
        let version = health.api_version;
        let version = version.as_str().map_or(version.to_string(), str::to_owned);
        match version.parse() {
            Ok(number) if VERSIONS.contains(&number) => Ok(()),
            _ => Err(Unusable::Version(version.chars().take(20).collect())),
        }
    }

    /// Answers `call` as the program does: the JSON of the answer or the log on standard output, or an error on standard error
    /// with exit code 1. Without an exit code the answer cannot be used.
    pub(super) async fn answer(self: Arc<Self>, call: CliCall, question: Question) -> Output {
        let mut posted = Reply::new(call.is_log);
        let asking = self.ask(&question, call.is_log, &mut posted);
        match timeout(call.timeout, asking).await {
            Ok(Ok(output)) => output,
            Ok(Err(problem)) => {
                let command = call.command_line();
                tracing::warn!(
                    "SkyPilot's API server cannot answer `{command}`: {problem}; the program is run"
                );
                Output::default()
            }
            Err(_) => {
                if let Ok(id) = request_id(&posted) {
                    let body = serde_json::json!({ "request_ids": [id] });
                    let mut reply = Reply::new(false);
                    let cancel = self.send(Method::POST, "/api/cancel", Some(&body), &mut reply);
                    let _ = timeout(CANCEL_TIMEOUT, cancel).await;
                }
                Output {
                    stdout: posted.body.text(),
                    timed_out: true,
                    front_truncated: posted.body.front_truncated,
                    ..Output::default()
                }
            }
        }
    }

    async fn ask(
        &self,
        question: &Question,
        is_log: bool,
        posted: &mut Reply,
    ) -> Result<Output, Unusable> {
        self.send(Method::POST, question.path, Some(&question.body), posted)
            .await?;
        let mut output = self.result(request_id(posted)?).await?;
        if is_log && output.code == Some(0) {
            // The exit code of `sky logs`.
            output.code = output.stdout.trim().parse().ok();
            output.stdout = posted.body.text();
            output.front_truncated = posted.body.front_truncated;
        }
        Ok(output)
    }

    /// Makes a change, and returns what SkyPilot printed about it on standard output. The API server carries it on when this
    /// process ends.
    pub(super) async fn change(&self, question: &Question) -> Result<Output, Unusable> {
        let mut posted = Reply::new(false);
        self.send(
            Method::POST,
            question.path,
            Some(&question.body),
            &mut posted,
        )
        .await?;
        let id = request_id(&posted)?;
        let mut printed = Reply::new(true);
        let path = format!("/api/stream?request_id={id}&format=plain");
        self.send(Method::GET, &path, None, &mut printed).await?;
        let mut output = self.result(id).await?;
        output.stdout = printed.body.text();
        Ok(output)
    }

    /// Waits for the end of a request.
    async fn result(&self, id: &str) -> Result<Output, Unusable> {
        let mut ended = Reply::new(false);
        let path = format!("/api/get?request_id={id}");
        self.send(Method::GET, &path, None, &mut ended).await?;
        output(&ended)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        reply: &mut Reply,
    ) -> Result<(), Unusable> {
        let body = body.cloned().map_or_else(String::new, |mut body| {
            body["env_vars"] = self.env_vars.clone().into();
            body.to_string()
        });
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header("X-SkyPilot-API-Version", OWN_VERSION.0)
            .header("X-SkyPilot-Version", OWN_VERSION.1)
            .body(Full::from(body))?;
        exchange(self.address, request, reply).await
    }
}

/// Returns the id of the request that a reply answers.
fn request_id(reply: &Reply) -> Result<&str, Unusable> {
    if reply.status != 200 {
        return Err(Unusable::Status(reply.status));
    }
    let id = reply.headers.get("X-SkyPilot-Request-ID");
    let id = id.and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    id.filter(is_plain).ok_or(Unusable::Unreadable)
}

/// Reads the result of a request that has ended.
fn output(reply: &Reply) -> Result<Output, Unusable> {
    match reply.status {
        200 => {
            let ended: Ended = read(reply)?;
            match ended.return_value {
                Some(value) if ended.status == "SUCCEEDED" => Ok(Output {
                    stdout: value,
                    code: Some(0),
                    ..Output::default()
                }),
                _ => Err(Unusable::Unreadable),
            }
        }
        500 => {
            let Failed { detail } = read(reply)?;
            let error = detail.error.ok_or(Unusable::Unreadable)?;
            let error = serde_json::from_str(&error).map_err(|_| Unusable::Unreadable)?;
            let OwnError { kind, message } = error;
            if !OWN_ERRORS.contains(&kind.as_str()) {
                return Err(Unusable::Failed(kind.chars().take(40).collect()));
            }
            Ok(Output {
                stderr: format!("sky.exceptions.{kind}: {message}\n"),
                code: Some(1),
                ..Output::default()
            })
        }
        status => Err(Unusable::Status(status)),
    }
}

fn read<T: DeserializeOwned>(reply: &Reply) -> Result<T, Unusable> {
    // The error of the reader may repeat what it read.
    serde_json::from_str(&reply.body.text()).map_err(|_| Unusable::Unreadable)
}

#[cfg(test)]
mod tests;
