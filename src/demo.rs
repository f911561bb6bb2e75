//! The demo: runs the main job for real, as an MCP client would, and prints every call and its answer.
#![allow(
    clippy::print_stdout,
    reason = "the demo is for a person at a terminal; the server's own standard output is a pipe"
)]

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::settings::env_vars;

const COUNT: &str = include_str!("demo/count.yaml");
const LONG: &str = include_str!("demo/long.yaml");

const JOB_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(700);

/// A step of the demo that failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The example files cannot be written, or the server cannot be started.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An answer was not the expected one.
    #[error("{0}")]
    Unexpected(String),
}

/// The server and the pipes to it. Dropping it ends the server.
struct Client {
    server: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    last_id: u64,
}

/// Runs `program` as a server in a temporary data folder, runs the example job to its end, and cancels a second one.
pub fn run(program: &Path) -> Result<(), DemoError> {
    let folder = tempfile::Builder::new()
        .prefix("oumi-mcp-demo-")
        .tempdir()?;
    for (name, text) in [("count.yaml", COUNT), ("long.yaml", LONG)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    let mut client = Client::start(program, &folder.path().join("data"))?;
    let steps = run_and_watch(&mut client, folder.path())
        .and_then(|count| cancel_and_list(&mut client, folder.path(), &count));
    if let Err(error) = steps {
        cancel_all(&mut client)?;
        return Err(error);
    }
    client.requests = None;
    let status = client.server.wait()?;
    if !status.success() {
        return Err(DemoError::Unexpected(format!(
            "the server ended with {status}"
        )));
    }
    println!("\nAll steps passed. The README says how to add the server to your client.");
    Ok(())
}

impl Client {
    /// Starts the server and shakes hands with it.
    fn start(program: &Path, data: &Path) -> Result<Self, DemoError> {
        println!(
            "The server starts as a client would start it, over stdio, with its data in {}.",
            data.display()
        );
        let mut command = Command::new(program);
        command
            .env(env_vars::HOME.name, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // The limits of the person's own server would only stop the demo.
        for variable in [env_vars::CONSENT, env_vars::CLOUDS, env_vars::READ_ONLY] {
            command.env_remove(variable.name);
        }
        let mut server = command.spawn()?;
        let requests = server.stdin.take();
        let answers = server.stdout.take().ok_or(io::ErrorKind::BrokenPipe);
        let mut client = Self {
            answers: BufReader::new(answers.map_err(io::Error::from)?),
            requests,
            server,
            last_id: 0,
        };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "demo", "version": env!("CARGO_PKG_VERSION") },
        });
        let answer = client.request("initialize", &hello)?;
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))?;
        println!("It is {}.", text(&answer["serverInfo"], "name")?);
        Ok(client)
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        let mut requests = self.requests.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        requests.write_all(format!("{message}\n").as_bytes())
    }

    /// Sends a request and returns its result.
    fn request(&mut self, method: &str, params: &Value) -> Result<Value, DemoError> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err(DemoError::Unexpected("the server has ended".to_owned()));
            }
            let mut message: Value = serde_json::from_str(&line).map_err(io::Error::from)?;
            match message["result"].take() {
                _ if message["id"] != id => {}
                Value::Null => return Err(DemoError::Unexpected(message["error"].to_string())),
                result => return Ok(result),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Previews and runs the short job, and returns its id.
fn run_and_watch(client: &mut Client, folder: &Path) -> Result<String, DemoError> {
    heading("First a preview: nothing is started.");
    let preview = json!({"config_path": "count.yaml", "command": "train", "client_cwd": folder});
    let answer = call(client, "run_job", preview)?;
    expect(&answer, "status", "dry_run")?;

    heading("Now the launch: the person has agreed.");
    let answer = call(client, "run_job", launch("count.yaml", folder))?;
    expect(&answer, "success", true)?;
    let job_id = text(&answer, "job_id")?;

    heading("The job is watched to its end.");
    let deadline = Instant::now() + JOB_TIMEOUT;
    loop {
        let answer = call(client, "poll_status", json!({"job_id": job_id}))?;
        if answer["is_done"] == true {
            expect(&answer, "state", "SUCCEEDED")?;
            break;
        }
        expect(&answer, "state", "RUNNING")?;
        if Instant::now() > deadline {
            let error = "the example job did not end in time";
            return Err(DemoError::Unexpected(error.to_owned()));
        }
        sleep(POLL_INTERVAL);
    }
    let answer = call(
        client,
        "get_job_logs",
        json!({"job_id": job_id, "lines": 3}),
    )?;
    if !text(&answer, "logs")?.contains("step 5 of 5, loss 0.45\ndone") {
        let error = "the log does not end as the job does";
        return Err(DemoError::Unexpected(error.to_owned()));
    }
    Ok(job_id)
}

fn cancel_and_list(client: &mut Client, folder: &Path, count: &str) -> Result<(), DemoError> {
    heading("A second job, which would take an hour, is cancelled.");
    let answer = call(client, "run_job", launch("long.yaml", folder))?;
    expect(&answer, "status", "running")?;
    let long = text(&answer, "job_id")?;
    let answer = call(client, "cancel_job", json!({"job_id": long}))?;
    expect(&answer, "state", "CANCELLED")?;

    heading("Both jobs are listed, also by the next server.");
    let answer = call(client, "list_jobs", json!({}))?;
    for (job, status) in [(count, "completed"), (&long, "cancelled")] {
        let mut rows = answer["jobs"].as_array().into_iter().flatten();
        if !rows.any(|row| row["job_id"] == job && row["status"] == status) {
            let error = format!("{job} is not listed as {status}");
            return Err(DemoError::Unexpected(error));
        }
    }
    Ok(())
}

/// Leaves nothing running when a step failed.
fn cancel_all(client: &mut Client) -> Result<(), DemoError> {
    let answer = call(client, "list_jobs", json!({"status": "running"}))?;
    for job in answer["jobs"].as_array().into_iter().flatten() {
        let cancel = json!({"job_id": job["job_id"], "force": true});
        call(client, "cancel_job", cancel)?;
    }
    Ok(())
}

fn launch(config: &str, folder: &Path) -> Value {
    json!({
        "config_path": config, "command": "train", "client_cwd": folder,
        "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
    })
}

fn heading(line: &str) {
    println!("\n# {line}");
}

fn call(client: &mut Client, tool: &str, arguments: Value) -> Result<Value, DemoError> {
    println!("\n-> {tool} {arguments}");
    let params = json!({ "name": tool, "arguments": arguments });
    let content = client.request("tools/call", &params)?["structuredContent"].take();
    println!("<- {content:#}");
    Ok(content)
}

fn expect(answer: &Value, field: &str, wanted: impl Into<Value>) -> Result<(), DemoError> {
    let wanted = wanted.into();
    if answer[field] == wanted {
        return Ok(());
    }
    Err(DemoError::Unexpected(format!(
        "`{field}` is {} and should be {wanted}",
        answer[field]
    )))
}

fn text(answer: &Value, field: &str) -> Result<String, DemoError> {
    match answer[field].as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(DemoError::Unexpected(format!("`{field}` is missing"))),
    }
}
