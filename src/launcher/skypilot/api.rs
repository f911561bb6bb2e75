//! SkyPilot's API server in place of `sky`: a request is posted, and its result is fetched when it has ended.

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::endpoint::Endpoint;
use super::request::{Request, RequestError};
use crate::error::{ErrorKind, JobError, Result};
use crate::parse::sky::set_autostop;
use crate::process::runner::{Capture, Cli, CliCall, Output};

/// The versions of the interface whose forms are known: SkyPilot 0.12.3 to 0.14.
const VERSIONS: RangeInclusive<u32> = 50..=62;
/// The version that this client speaks, and the version of SkyPilot that has it.
const OWN_VERSION: (&str, &str) = ("50", "0.12.3");
const HEALTH_TIMEOUT: Duration = Duration::from_secs(4);
/// The time that a server is taken for healthy, or for absent; SkyPilot's own client keeps it as long.
const HEALTH_TTL: Duration = Duration::from_secs(5);
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for an autostop, by request and program: less than its supervisor allows, so that no `sky` is left over.
const AUTOSTOP_TIMEOUT: Duration = Duration::from_secs(240);
/// The errors that are answers. With any other the program is asked, whose words are then the answer.
const OWN_ERRORS: &str = "ClusterDoesNotExist ClusterNotUpError ClusterOwnerIdentityMismatchError CloudError \
    CloudUserIdentityError CommandError NotSupportedError RuntimeError ValueError";

#[derive(Default)]
pub(super) struct Api {
    health: Mutex<Option<(Instant, Option<Arc<Endpoint>>)>>,
}

/// An answer, as far as it has come. Of a long one the end is kept.
#[derive(Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The id of the request, of letters and digits.
    pub(super) id: Option<String>,
    pub(super) body: Capture,
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
        let mut server = Endpoint::find().map(Arc::new);
        if let Some(found) = &server {
            let checked = timeout(HEALTH_TIMEOUT, found.check_health()).await;
            let checked = checked.unwrap_or_else(|_| Err(JobError::failed("it is silent")));
            // Where nothing listens there is nothing to say.
            if let Err(problem) = &checked
                && problem.kind != ErrorKind::Unavailable
            {
                tracing::warn!("SkyPilot's API server is not used, but `sky`: {problem}");
            }
            server = server.filter(|_| checked.is_ok());
        }
        *health = Some((Instant::now(), server.clone()));
        server
    }

    pub(super) async fn forget(&self) {
        *self.health.lock().await = None;
    }
}

impl Endpoint {
    async fn check_health(&self) -> Result<()> {
        let mut reply = Reply::default();
        self.send("/api/health", None, &mut reply).await?;
        let health = reply.read()?;
        if health["status"] != "healthy" || health["basic_auth_enabled"] == true {
            return Err(JobError::failed("it is not healthy, or asks for a login"));
        }
        let version = health["api_version"].to_string();
        let number = version.trim_matches('"').parse();
        if number.is_ok_and(|number| VERSIONS.contains(&number)) {
            return Ok(());
        }
        let version: String = version.chars().take(20).collect();
        let problem = format!("version {version} of its interface is not known to this server");
        Err(JobError::failed(problem))
    }

    /// Answers `call` as the program does. Without an exit code the answer cannot be used.
    pub(super) async fn answer(self: Arc<Self>, call: CliCall, request: Request) -> Output {
        let mut posted = Reply::default();
        match timeout(call.timeout, self.run(&request, &mut posted)).await {
            Ok(Ok(output)) => output,
            Ok(Err(problem)) => {
                log_unusable(&call, &problem);
                Output::default()
            }
            Err(_) => {
                if let Some(id) = &posted.id {
                    let body = json!({ "request_ids": [id] });
                    let mut reply = Reply::default();
                    let cancel = self.send("/api/cancel", Some(&body), &mut reply);
                    let _ = timeout(CANCEL_TIMEOUT, cancel).await;
                }
                Output {
                    stdout: posted.body.take_text(),
                    timed_out: true,
                    front_truncated: posted.body.front_truncated,
                    ..Output::default()
                }
            }
        }
    }

    /// Posts a request and waits for its end. The API server carries it on when this process ends.
    async fn run(&self, request: &Request, posted: &mut Reply) -> Result<Output> {
        let body = Some(&request.body);
        self.send(request.path, body, posted).await?;
        let id = posted.id.as_ref().filter(|_| posted.status == 200);
        let id = id.ok_or_else(|| posted.problem())?;
        let mut streamed = Reply::default();
        if request.is_change() {
            let path = format!("/api/stream?request_id={id}&format=plain");
            self.send(&path, None, &mut streamed).await?;
        }
        let mut ended = Reply::default();
        let path = format!("/api/get?request_id={id}");
        self.send(&path, None, &mut ended).await?;
        let printed = if request.is_change() {
            &mut streamed
        } else {
            &mut *posted
        };
        let mut output = request.output(ended.result()?, printed.body.take_text());
        output.front_truncated = printed.body.front_truncated;
        // A log whose end cannot be read.
        output.code.map(|_| output).ok_or_else(|| ended.problem())
    }

    /// Gets `path`, or posts `body` to it, and reads the answer into `reply`. The connection ends with the future.
    async fn send(&self, path: &str, body: Option<&Value>, reply: &mut Reply) -> Result<()> {
        let method = if body.is_some() { "POST" } else { "GET" };
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
            .body(Full::<hyper::body::Bytes>::from(body));
        let request = request.map_err(JobError::failed)?;
        let stream = TcpStream::connect(self.address).await;
        let stream = TokioIo::new(stream.map_err(JobError::unavailable)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(JobError::failed)?;
        let exchange = async move {
            let answer = sender.send_request(request).await;
            let (head, mut body) = answer.map_err(JobError::failed)?.into_parts();
            reply.status = head.status.as_u16();
            let id = head.headers.get("X-SkyPilot-Request-ID");
            let id = id.and_then(|id| id.to_str().ok().map(ToOwned::to_owned));
            let is_plain = |id: &String| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            reply.id = id.filter(is_plain);
            while let Some(frame) = body.frame().await {
                if let Some(block) = frame.map_err(JobError::failed)?.data_ref() {
                    reply.body.push(block);
                }
            }
            Ok(())
        };
        // The sender is dropped with the answer, and the connection ends.
        let (exchanged, _) = tokio::join!(exchange, connection);
        exchanged
    }
}

impl Reply {
    /// The error of an answer that cannot be used. It repeats no part of the body, which may hold secrets.
    fn problem(&self) -> JobError {
        JobError::failed(match self.status {
            200 | 500 => "its answer could not be read".to_owned(),
            status => format!("it answered with status {status}"),
        })
    }

    fn read(&mut self) -> Result<Value> {
        if self.body.front_truncated {
            return Err(JobError::failed("its answer is too large"));
        }
        serde_json::from_str(&self.body.take_text()).map_err(|_| self.problem())
    }

    /// Reads the result of a request that has ended: its value, or an error of SkyPilot's own. Both are texts of JSON.
    pub(super) fn result(&mut self) -> Result<Result<String, RequestError>> {
        let body = match self.status {
            200 | 500 => self.read()?,
            _ => return Err(self.problem()),
        };
        if self.status == 200
            && body["status"] == "SUCCEEDED"
            && let Some(value) = body["return_value"].as_str()
        {
            return Ok(Ok(value.to_owned()));
        }
        let error = body["detail"]["error"].as_str().unwrap_or_default();
        let error: RequestError = serde_json::from_str(error).map_err(|_| self.problem())?;
        if OWN_ERRORS.split(' ').any(|own| own == error.kind) {
            return Ok(Err(error));
        }
        let kind: String = error.kind.chars().take(40).collect();
        Err(JobError::failed(format!("it failed with {kind}")))
    }
}

/// Logs why the program is run instead; where there is no such program, its answer is left out.
pub(super) fn log_unusable(call: &CliCall, problem: &dyn Display) {
    let command = call.command_line();
    tracing::warn!("SkyPilot's API server cannot answer `{command}`: {problem}");
}

/// Makes the change that these arguments of `sky` mean over the API server, and prints the result as `sky` does: in a process of
/// its own under the supervisor of changes, so that it goes on when the server ends. Blocks until it has ended. Becomes the
/// `program` where the API server cannot be used, but for an autostop: that is tried again where it fails, and `sky` exits 0.
pub fn change(program: &Path, arguments: &[String]) -> io::Result<ExitCode> {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let change = async {
        let request = Request::of(arguments)?;
        let server = Api::default().server().await?;
        let changed = server.run(&request, &mut Reply::default()).await;
        let refused = |problem: &_| {
            tracing::warn!("SkyPilot's API server did not do it: {problem}; `sky` is run")
        };
        changed.inspect_err(refused).ok()
    };
    if let Some(output) = runtime.block_on(change) {
        io::stdout().write_all(output.stdout.as_bytes())?;
        return Ok(ExitCode::from(u8::from(output.code != Some(0))));
    }
    if arguments.first().is_none_or(|verb| verb != "autostop") {
        return Err(Command::new(program).args(arguments).exec());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let left = AUTOSTOP_TIMEOUT.saturating_sub(started.elapsed());
    let call = CliCall::new(program, &arguments, left);
    let output = runtime.block_on(Cli::default().query(&call));
    let output = output.map_err(io::Error::other)?;
    io::stderr().write_all(output.stderr.as_bytes())?;
    io::stdout().write_all(output.stdout.as_bytes())?;
    let is_done = output.code == Some(0) && set_autostop(&output.stdout);
    Ok(ExitCode::from(u8::from(!is_done)))
}

#[cfg(test)]
mod tests;
