//! The demo: runs the main job for real, as an MCP client would, and prints every call and its answer.
#![allow(
    clippy::print_stdout,
    reason = "a person reads along; the server's own standard output is a pipe of ours"
)]

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::settings::env_vars;

const COUNT: &str = include_str!("demo/count.yaml");
const LONG: &str = include_str!("demo/long.yaml");

const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const JOB_DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(700);

/// A step of the demo was not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The server could not be started or talked to.
    #[error("the server could not be talked to: {0}")]
    Io(#[from] io::Error),
    /// It answered no JSON.
    #[error("the server answered something that is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It was silent.
    #[error("the server did not answer within {} s", ANSWER_DEADLINE.as_secs())]
    Silent,
    /// An answer was wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Runs `program` as a server in a temporary data folder, runs the example job to its end, and cancels a second one.
///
/// # Errors
/// When any step is not as it should be.
pub fn run(program: &Path) -> Result<(), DemoError> {
    let folder = tempfile::Builder::new()
        .prefix("oumi-mcp-demo-")
        .tempdir()?;
    for (name, text) in [("count.yaml", COUNT), ("long.yaml", LONG)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut client = Client::start(program, &folder.path().join("data")).await?;
        let told = story(&mut client, folder.path()).await;
        if told.is_err() {
            client.cancel_all().await?;
        }
        told?;
        client.end().await
    })?;
    println!(
        "\nAll was as it should be. To use it for real, see the README: how to add it to your client."
    );
    Ok(())
}

async fn story(client: &mut Client, folder: &Path) -> Result<(), DemoError> {
    let launch = |config: &str| {
        json!({
            "config_path": config, "command": "train", "client_cwd": folder,
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        })
    };

    say("First a preview: nothing is started.");
    let preview = json!({"config_path": "count.yaml", "command": "train", "client_cwd": folder});
    let answer = client.call("run_job", preview).await?;
    expect(&answer, "status", "dry_run")?;

    say("Now for real: the person has agreed.");
    let answer = client.call("run_job", launch("count.yaml")).await?;
    expect(&answer, "success", true)?;
    let count = text(&answer, "job_id")?;

    say("Followed to its end.");
    let deadline = Instant::now() + JOB_DEADLINE;
    loop {
        let answer = client.call("poll_status", json!({"job_id": count})).await?;
        if answer["is_done"] == true {
            expect(&answer, "state", "SUCCEEDED")?;
            break;
        }
        expect(&answer, "state", "RUNNING")?;
        if Instant::now() > deadline {
            return Err(DemoError::Wrong(
                "the example job did not end in time".to_owned(),
            ));
        }
        sleep(LOOK).await;
    }
    let answer = client
        .call("get_job_logs", json!({"job_id": count, "lines": 3}))
        .await?;
    if !text(&answer, "logs")?.contains("step 5 of 5, loss 0.45\ndone") {
        return Err(DemoError::Wrong(
            "the log does not end as the job does".to_owned(),
        ));
    }

    say("A second job, which would take an hour, is cancelled.");
    let answer = client.call("run_job", launch("long.yaml")).await?;
    expect(&answer, "status", "running")?;
    let long = text(&answer, "job_id")?;
    let answer = client.call("cancel_job", json!({"job_id": long})).await?;
    expect(&answer, "state", "CANCELLED")?;

    say("Both are known, also to the next server.");
    let answer = client.call("list_jobs", json!({})).await?;
    for (job, status) in [(&count, "completed"), (&long, "cancelled")] {
        let listed = answer["jobs"].as_array().into_iter().flatten();
        if !listed
            .into_iter()
            .any(|row| row["job_id"] == **job && row["status"] == status)
        {
            return Err(DemoError::Wrong(format!("{job} is not listed as {status}")));
        }
    }
    Ok(())
}

fn say(line: &str) {
    println!("\n# {line}");
}

fn expect(answer: &Value, field: &str, wanted: impl Into<Value>) -> Result<(), DemoError> {
    let wanted = wanted.into();
    if answer[field] == wanted {
        return Ok(());
    }
    Err(DemoError::Wrong(format!(
        "`{field}` is {} and should be {wanted}",
        answer[field]
    )))
}

fn text(answer: &Value, field: &str) -> Result<String, DemoError> {
    let text = answer[field]
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned);
    text.ok_or_else(|| DemoError::Wrong(format!("`{field}` is missing")))
}

/// The smallest MCP client that can tell the story.
struct Client {
    server: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

impl Client {
    async fn start(program: &Path, data: &Path) -> Result<Self, DemoError> {
        println!(
            "The server is started as a client would start it, over stdio, with its data in {}.",
            data.display()
        );
        let mut server = Command::new(program)
            .env(env_vars::HOME.name, data)
            // What limits the person's own server would only stop the demo.
            .env_remove(env_vars::CONSENT.name)
            .env_remove(env_vars::CLOUDS.name)
            .env_remove(env_vars::READ_ONLY.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (server.stdin.take(), server.stdout.take()) else {
            return Err(io::Error::other("the server has no pipes").into());
        };
        let mut client = Self {
            server,
            input,
            output: BufReader::new(output).lines(),
            last_id: 0,
        };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "demo", "version": env!("CARGO_PKG_VERSION")},
        });
        let answer = client.request("initialize", hello).await?;
        println!("It says it is {}.", answer["result"]["serverInfo"]);
        client
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(client)
    }

    /// Calls a tool, prints the call and its answer, and returns the structured content.
    async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value, DemoError> {
        println!("\n-> {tool} {arguments}");
        let mut answer = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await?;
        let content = answer["result"]["structuredContent"].take();
        if content.is_null() {
            return Err(DemoError::Wrong(format!("{tool} answered {answer}")));
        }
        println!("<- {content:#}");
        Ok(content)
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<Value, DemoError> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await?;
        loop {
            let line = timeout(ANSWER_DEADLINE, self.output.next_line())
                .await
                .map_err(|_| DemoError::Silent)??;
            let line = line.ok_or_else(|| DemoError::Wrong("the server ended".to_owned()))?;
            let answer: Value = serde_json::from_str(&line)?;
            if answer["id"] == id {
                return Ok(answer);
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), DemoError> {
        self.input
            .write_all(format!("{message}\n").as_bytes())
            .await?;
        Ok(self.input.flush().await?)
    }

    /// Leaves nothing running when a step went wrong.
    async fn cancel_all(&mut self) -> Result<(), DemoError> {
        let answer = self.call("list_jobs", json!({"status": "running"})).await?;
        for job in answer["jobs"].as_array().into_iter().flatten() {
            self.call(
                "cancel_job",
                json!({"job_id": job["job_id"], "force": true}),
            )
            .await?;
        }
        Ok(())
    }

    /// Closes the server's input, as a client does, and sees it end.
    async fn end(self) -> Result<(), DemoError> {
        let Self {
            mut server, input, ..
        } = self;
        drop(input);
        let status = timeout(ANSWER_DEADLINE, server.wait())
            .await
            .map_err(|_| DemoError::Silent)??;
        if status.success() {
            return Ok(());
        }
        Err(DemoError::Wrong(format!("the server ended with {status}")))
    }
}
