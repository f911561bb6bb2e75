//! The demo: runs the main job for real, as an MCP client would, and prints every call and its answer.
#![allow(
    clippy::print_stdout,
    reason = "the demo is for a person at a terminal; the server's own standard output is a pipe"
)]

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rmcp::model::CallToolRequestParams;
use rmcp::service::{ClientInitializeError, RunningService, ServiceError};
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::settings::env_vars;

const COUNT: &str = include_str!("demo/count.yaml");
const LONG: &str = include_str!("demo/long.yaml");

const JOB_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(700);
/// Longer than the server takes to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A step of the demo that failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The example files cannot be written, or the server cannot be started.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server did not shake hands.
    #[error("{0}")]
    Start(#[from] Box<ClientInitializeError>),
    /// The server answered with an error or not at all.
    #[error("{0}")]
    Call(#[from] ServiceError),
    /// An answer was not the expected one.
    #[error("{0}")]
    Unexpected(String),
}

type Client = RunningService<RoleClient, ()>;

/// Runs `program` as a server in a temporary data folder, runs the example job to its end, and cancels a second one.
pub fn run(program: &Path) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_all(program))
}

async fn run_all(program: &Path) -> Result<(), DemoError> {
    let folder = tempfile::Builder::new()
        .prefix("oumi-mcp-demo-")
        .tempdir()?;
    for (name, text) in [("count.yaml", COUNT), ("long.yaml", LONG)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    let (client, mut server) = start(program, &folder.path().join("data")).await?;
    let steps = async {
        let count = run_and_watch(&client, folder.path()).await?;
        cancel_and_list(&client, folder.path(), &count).await
    };
    if let Err(error) = steps.await {
        cancel_all(&client).await?;
        return Err(error);
    }
    client.cancel().await.map_err(io::Error::from)?;
    let ended = tokio::time::timeout(EXIT_TIMEOUT, server.wait()).await;
    let status = ended.map_err(io::Error::from)??;
    if !status.success() {
        return Err(DemoError::Unexpected(format!(
            "the server ended with {status}"
        )));
    }
    println!("\nAll steps passed. The README says how to add the server to your client.");
    Ok(())
}

/// Starts the server and shakes hands with it. The server ends with its handle.
async fn start(program: &Path, data: &Path) -> Result<(Client, Child), DemoError> {
    println!(
        "The server starts as a client would start it, over stdio, with its data in {}.",
        data.display()
    );
    let mut command = Command::new(program);
    command
        .env(env_vars::HOME.name, data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    // The limits of the person's own server would only stop the demo.
    for variable in [env_vars::CONSENT, env_vars::CLOUDS, env_vars::READ_ONLY] {
        command.env_remove(variable.name);
    }
    let mut server = command.spawn()?;
    let pipes = server.stdout.take().zip(server.stdin.take());
    let client = ().serve(
        pipes
            .ok_or(io::ErrorKind::BrokenPipe)
            .map_err(io::Error::from)?,
    );
    let client = client.await.map_err(Box::new)?;
    let server_info = client.peer_info().and_then(|info| info.server_info.clone());
    let name = server_info.map(|server| server.name);
    println!("It is {}.", name.unwrap_or_default());
    Ok((client, server))
}

/// Previews and runs the short job, and returns its id.
async fn run_and_watch(client: &Client, folder: &Path) -> Result<String, DemoError> {
    heading("First a preview: nothing is started.");
    let preview = json!({"config_path": "count.yaml", "command": "train", "client_cwd": folder});
    let answer = call(client, "run_job", preview).await?;
    expect(&answer, "status", "dry_run")?;

    heading("Now the launch: the person has agreed.");
    let answer = call(client, "run_job", launch("count.yaml", folder)).await?;
    expect(&answer, "success", true)?;
    let job_id = text(&answer, "job_id")?;

    heading("The job is watched to its end.");
    let deadline = Instant::now() + JOB_TIMEOUT;
    loop {
        let answer = call(client, "poll_status", json!({"job_id": job_id})).await?;
        if answer["is_done"] == true {
            expect(&answer, "state", "SUCCEEDED")?;
            break;
        }
        expect(&answer, "state", "RUNNING")?;
        if Instant::now() > deadline {
            let error = "the example job did not end in time";
            return Err(DemoError::Unexpected(error.to_owned()));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let answer = call(
        client,
        "get_job_logs",
        json!({"job_id": job_id, "lines": 3}),
    )
    .await?;
    if !text(&answer, "logs")?.contains("step 5 of 5, loss 0.45\ndone") {
        let error = "the log does not end as the job does";
        return Err(DemoError::Unexpected(error.to_owned()));
    }
    Ok(job_id)
}

async fn cancel_and_list(client: &Client, folder: &Path, count: &str) -> Result<(), DemoError> {
    heading("A second job, which would take an hour, is cancelled.");
    let answer = call(client, "run_job", launch("long.yaml", folder)).await?;
    expect(&answer, "status", "running")?;
    let long = text(&answer, "job_id")?;
    let answer = call(client, "cancel_job", json!({"job_id": long})).await?;
    expect(&answer, "state", "CANCELLED")?;

    heading("Both jobs are listed, also by the next server.");
    let answer = call(client, "list_jobs", json!({})).await?;
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
async fn cancel_all(client: &Client) -> Result<(), DemoError> {
    let answer = call(client, "list_jobs", json!({"status": "running"})).await?;
    for job in answer["jobs"].as_array().into_iter().flatten() {
        let cancel = json!({"job_id": job["job_id"], "force": true});
        call(client, "cancel_job", cancel).await?;
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

async fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value, DemoError> {
    println!("\n-> {tool} {arguments}");
    let mut request = CallToolRequestParams::new(tool.to_owned());
    request.arguments = arguments.as_object().cloned();
    let answer = client.call_tool(request).await?;
    let content = answer.structured_content.unwrap_or_default();
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
