//! The demo: runs the main jobs for real, as an MCP client would, and prints a line a call.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::commands::jobs::Format;
use crate::commands::text::{first_line, labelled, terminal_width};
use crate::commands::{exit_code, interrupted, print};
use crate::settings::env_vars;

/// The example jobs: one that succeeds, one that fails, and one that would run for an hour.
const CONFIGS: [(&str, &str); 3] = [
    ("count.yaml", include_str!("demo/count.yaml")),
    ("fail.yaml", include_str!("demo/fail.yaml")),
    ("long.yaml", include_str!("demo/long.yaml")),
];
/// The most answers about a job before its end.
const MOST_POLLS: usize = 60;
/// Longer than the server takes to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A server and the pipes to it. It ends with its handle.
struct Client {
    server: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

/// A client and the folder of its server.
struct Demo<'a> {
    program: &'a Path,
    folder: TempDir,
    output: Format,
    client: Option<Client>,
}

/// Runs the example jobs with `program` as the server, in a folder that is removed at the end, also where it is interrupted.
pub fn run(output: Format, program: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ran = runtime.map(|runtime| runtime.block_on(run_and_clean_up(output, program)));
    exit_code(ran.map_err(Into::into).flatten())
}

async fn run_and_clean_up(output: Format, program: &Path) -> Result<ExitCode> {
    let folder = tempfile::Builder::new()
        .prefix("oumi-mcp-demo-")
        .tempdir()?;
    for (name, text) in CONFIGS {
        fs::write(folder.path().join(name), text)?;
    }
    let mut demo = Demo {
        program,
        folder,
        output,
        client: None,
    };
    let ran = tokio::select! {
        ran = demo.steps() => ran.map(|()| ExitCode::SUCCESS),
        code = interrupted() => code.map_err(Into::into),
    };
    let cleaned_up = demo.clean_up().await;
    let code = ran?;
    cleaned_up.map(|()| code)
}

impl Demo<'_> {
    async fn steps(&mut self) -> Result<()> {
        self.start().await?;
        self.say("A preview. Nothing is started.")?;
        let preview = json!({ "config_path": "count.yaml", "command": "train" });
        let answer = self.call("run_job", preview).await?;
        expect(&answer, "status", "dry_run")?;
        self.say("A job is started, as the user has agreed, and watched to its end.")?;
        let count = self.launch("count.yaml").await?;
        self.watch(&count, "SUCCEEDED").await?;
        let logs = json!({ "job_id": count, "lines": 2 });
        let answer = self.call("get_job_logs", logs).await?;
        let end = answer["logs"].as_str().unwrap_or_default().trim_end();
        expect(
            &json!({ "logs": end }),
            "logs",
            "step 5 of 5, loss 0.45\ndone",
        )?;
        self.say("Another one fails. The answer says why, and what to change.")?;
        let fail = self.launch("fail.yaml").await?;
        self.watch(&fail, "FAILED").await?;
        self.say("A third one would take an hour. The server ends, and the job goes on.")?;
        let long = self.launch("long.yaml").await?;
        self.stop().await?;
        self.say("The next server finds all three, and ends the last one.")?;
        self.start().await?;
        let answer = self.call("list_jobs", json!({})).await?;
        expect(&answer["jobs"][0], "job_id", long.as_str())?;
        let answer = self.call("cancel_job", json!({ "job_id": long })).await?;
        expect(&answer, "state", "CANCELLED")?;
        self.say("All steps passed. `oumi-mcp-server setup` adds the server to your client.")
    }

    async fn start(&mut self) -> Result<()> {
        let data = self.folder.path().join("data");
        self.client = Some(Client::start(self.program, &data).await?);
        Ok(())
    }

    /// Ends the server as a client does.
    async fn stop(&mut self) -> Result<()> {
        let Some(Client {
            mut server,
            requests,
            ..
        }) = self.client.take()
        else {
            return Ok(());
        };
        drop(requests);
        let ended = tokio::time::timeout(EXIT_TIMEOUT, server.wait()).await;
        ended??;
        Ok(())
    }

    async fn launch(&mut self, config: &str) -> Result<String> {
        let launch = json!({
            "config_path": config, "command": "train",
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        });
        let answer = self.call("run_job", launch).await?;
        expect(&answer, "success", true)?;
        Ok(answer["job_id"].as_str().unwrap_or_default().to_owned())
    }

    async fn watch(&mut self, job_id: &str, end: &str) -> Result<()> {
        let wait = json!({ "job_id": job_id, "wait_seconds": 1, "until": "progress" });
        for _ in 0..MOST_POLLS {
            let answer = self.call("poll_status", wait.clone()).await?;
            if answer["is_done"] == true {
                return expect(&answer, "state", end);
            }
        }
        Err(format!("{job_id} does not end").into())
    }

    async fn call(&mut self, tool: &'static str, arguments: Value) -> Result<Value> {
        let answer = self.ask(tool, arguments.clone()).await?;
        if self.output.json {
            print(&format!("-> {tool} {arguments}\n<- {answer:#}"))?;
        } else {
            let line = summary(tool, &answer);
            print(&labelled(&format!("  {tool:14}"), &line, terminal_width()))?;
        }
        Ok(answer)
    }

    async fn ask(&mut self, tool: &'static str, mut arguments: Value) -> Result<Value> {
        if tool == "run_job" {
            arguments["client_cwd"] = json!(self.folder.path());
        }
        let client = self.client.as_mut().ok_or_else(closed)?;
        let params = json!({ "name": tool, "arguments": arguments });
        let mut answer = client.request("tools/call", params).await?;
        Ok(answer["structuredContent"].take())
    }

    fn say(&self, sentence: &str) -> Result<()> {
        Ok(print(&format!("\n{sentence}"))?)
    }

    /// Leaves nothing that runs.
    async fn clean_up(&mut self) -> Result<()> {
        if self.client.is_none() {
            self.start().await?;
        }
        let running = self
            .ask("list_jobs", json!({ "status": "running" }))
            .await?;
        for job in running["jobs"].as_array().into_iter().flatten() {
            let cancel = json!({ "job_id": job["job_id"], "force": true });
            self.ask("cancel_job", cancel).await?;
        }
        self.stop().await
    }
}

impl Client {
    /// Starts a server as a client does, and shakes hands with it.
    async fn start(program: &Path, data: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .env(env_vars::HOME, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the demo, which needs the server for what is to be cleaned up.
            .process_group(0)
            .kill_on_drop(true);
        // The limits of the person's own server would only stop the demo.
        for variable in [env_vars::CONSENT, env_vars::CLOUDS, env_vars::READ_ONLY] {
            command.env_remove(variable);
        }
        let mut server = command.spawn()?;
        let pipes = server.stdin.take().zip(server.stdout.take());
        let (requests, answers) = pipes.ok_or_else(closed)?;
        let mut client = Self {
            server,
            requests,
            answers: BufReader::new(answers).lines(),
            last_id: 0,
        };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "demo", "version": env!("CARGO_PKG_VERSION") },
        });
        client.request("initialize", hello).await?;
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        client.send(&ready).await?;
        Ok(client)
    }

    async fn send(&mut self, message: &Value) -> io::Result<()> {
        let line = format!("{message}\n");
        self.requests.write_all(line.as_bytes()).await
    }

    /// Sends a request and returns its result.
    async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(&request).await?;
        loop {
            let line = self.answers.next_line().await?.ok_or_else(closed)?;
            let mut message: Value = serde_json::from_str(&line)?;
            // Others are notifications, or answer a request that was interrupted.
            if message["id"] == id {
                return match message["result"].take() {
                    Value::Null => Err(message["error"].to_string().into()),
                    result => Ok(result),
                };
            }
        }
    }
}

/// The server has closed its end. Of another kind than the end of the demo's own reader.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server has ended")
}

/// Puts an answer into a line.
fn summary(tool: &str, answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match tool {
        "run_job" if answer["dry_run"] == true => {
            // Where it would run, and what.
            let message = text(&answer["message"]);
            let lines: Vec<&str> = message.lines().skip(1).take(2).collect();
            lines.join("; ")
        }
        "run_job" => format!("{}: {}", text(&answer["job_id"]), text(&answer["status"])),
        "get_job_logs" => text(&answer["logs"]).trim_end().replace('\n', " / "),
        "list_jobs" => {
            let jobs = answer["jobs"].as_array().into_iter().flatten();
            let jobs = jobs.map(|job| format!("{} {}", text(&job["job_id"]), text(&job["status"])));
            jobs.collect::<Vec<_>>().join(", ")
        }
        _ => {
            let advice = answer["failure"]["advice"].as_str();
            let advice = advice.map(|advice| format!(". Advice: {advice}"));
            first_line(answer) + &advice.unwrap_or_default()
        }
    }
}

fn expect(answer: &Value, field: &'static str, wanted: impl Into<Value>) -> Result<()> {
    let (found, wanted) = (answer[field].clone(), wanted.into());
    if found == wanted {
        return Ok(());
    }
    Err(format!("`{field}` is {found} and should be {wanted}").into())
}
