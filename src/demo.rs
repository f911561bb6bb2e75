//! The demo: runs the main jobs for real, as an MCP client would, and prints a line a call.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::commands::jobs::Format;
use crate::commands::text::first_line;
use crate::commands::{CommandResult, exit_code, interrupted, print};
use crate::settings::env_vars;

/// The example jobs: one that succeeds, one that fails, and one that would run for an hour. The name of the job is that of
/// its config.
const JOBS: [(&str, &str); 3] = [
    ("count", include_str!("demo/count.yaml")),
    ("fail", include_str!("demo/fail.yaml")),
    ("long", include_str!("demo/long.yaml")),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Demo<'a> {
    program: &'a Path,
    folder: TempDir,
    output: Format,
    server: Option<Server>,
}

/// A server and the pipes to it.
struct Server {
    process: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

/// Runs the example jobs with `program` as the server, in a folder that is removed at the end, also where it is interrupted.
pub fn run(output: Format, program: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ran = runtime.map(|runtime| runtime.block_on(run_and_clean_up(output, program)));
    exit_code(ran.map_err(Into::into).flatten())
}

async fn run_and_clean_up(output: Format, program: &Path) -> CommandResult {
    let mut demo = Demo {
        program,
        folder: TempDir::with_prefix("oumi-mcp-demo-")?,
        output,
        server: None,
    };
    let ran = tokio::select! {
        ran = demo.steps() => ran.map(|()| ExitCode::SUCCESS),
        code = interrupted() => code.map_err(Into::into),
    };
    // Nothing of it runs on.
    demo.stop().await?;
    for (job_id, _) in JOBS {
        let mut cancel = demo.command();
        cancel.args(["cancel", "--force", job_id]).output().await?;
    }
    ran
}

impl Demo<'_> {
    async fn steps(&mut self) -> Result<()> {
        for (name, text) in JOBS {
            fs::write(self.folder.path().join(format!("{name}.yaml")), text)?;
        }
        self.start().await?;
        self.say("A preview. Nothing is started.")?;
        self.launch("count", true).await?;
        self.say("A job is started, as the user has agreed, and watched to its end.")?;
        self.launch("count", false).await?;
        self.watch("count", "SUCCEEDED").await?;
        let logs = json!({ "job_id": "count", "lines": 2 });
        let answer = self.call("get_job_logs", logs).await?;
        expect(&answer, "logs", "step 5 of 5, loss 0.45\ndone")?;
        self.say("Another one fails. The answer says why, and what to change.")?;
        self.launch("fail", false).await?;
        self.watch("fail", "FAILED").await?;
        self.say("A third one would take an hour. The server ends, and the job goes on.")?;
        self.launch("long", false).await?;
        self.stop().await?;
        self.say("The next server finds all three, and ends the last one.")?;
        self.start().await?;
        let answer = self.call("list_jobs", json!({})).await?;
        expect(&answer["jobs"][0], "job_id", "long")?;
        let answer = self.call("cancel_job", json!({ "job_id": "long" })).await?;
        expect(&answer, "state", "CANCELLED")?;
        self.say("All steps passed. `oumi-mcp-server setup` adds the server to your client.")
    }

    fn say(&self, sentence: &str) -> Result<()> {
        Ok(print(&format!("\n{sentence}"))?)
    }

    async fn launch(&mut self, name: &str, dry_run: bool) -> Result<()> {
        let launch = json!({
            "config_path": format!("{name}.yaml"), "client_cwd": self.folder.path(), "command": "train", "job_name": name,
            "dry_run": dry_run, "confirm": !dry_run, "user_confirmation": if dry_run { "" } else { "EXECUTE" },
        });
        let answer = self.call("run_job", launch).await?;
        expect(&answer, "success", true)
    }

    async fn watch(&mut self, job_id: &str, end: &str) -> Result<()> {
        let wait = json!({ "job_id": job_id, "wait_seconds": 1, "until": "progress" });
        loop {
            let answer = self.call("poll_status", wait.clone()).await?;
            if answer["is_done"] == true {
                return expect(&answer, "state", end);
            }
        }
    }

    /// Calls a tool, and prints its answer: as JSON whole, else what it says in a line.
    async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        let params = json!({ "name": tool, "arguments": arguments });
        let mut result = self.request("tools/call", params).await?;
        let answer = result["structuredContent"].take();
        print(&if self.output.json {
            format!("-> {tool} {arguments}\n<- {answer:#}")
        } else {
            format!("  {tool:14}{}", summary(&answer))
        })?;
        Ok(answer)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env(env_vars::HOME, self.folder.path().join("data"));
        // The limits of the person's own server would only stop the demo.
        for variable in [env_vars::CONSENT, env_vars::CLOUDS, env_vars::READ_ONLY] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts a server as a client does, and shakes hands with it.
    async fn start(&mut self) -> Result<()> {
        let mut process = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the demo.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (requests, answers) = pipes.ok_or_else(closed)?;
        self.server = Some(Server {
            process,
            requests,
            answers: BufReader::new(answers).lines(),
            last_id: 0,
        });
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "demo", "version": env!("CARGO_PKG_VERSION") },
        });
        self.request("initialize", hello).await.map(|_| ())
    }

    /// Ends the server as a client does.
    async fn stop(&mut self) -> io::Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        drop(server.requests);
        server.process.wait().await.map(|_| ())
    }

    /// Sends a request and returns its result.
    async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        let server = self.server.as_mut().ok_or_else(closed)?;
        server.last_id += 1;
        let id = server.last_id;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let line = format!("{request}\n");
        server.requests.write_all(line.as_bytes()).await?;
        loop {
            let line = server.answers.next_line().await?.ok_or_else(closed)?;
            let mut message: Value = serde_json::from_str(&line)?;
            // Others are notifications.
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

/// Puts an answer into a line: its log, its jobs, or how the job is and what to do.
fn summary(answer: &Value) -> String {
    if let Some(log) = answer["logs"].as_str() {
        return log.replace('\n', " / ");
    }
    if let Some(jobs) = answer["jobs"].as_array() {
        let name = |job: &Value| format!("{} {}", job["job_id"], job["status"]).replace('"', "");
        return jobs.iter().map(name).collect::<Vec<_>>().join(", ");
    }
    let advice = answer["failure"]["advice"].as_str();
    let advice = advice.map(|advice| format!(". Advice: {advice}"));
    // A preview goes on.
    let first = first_line(answer);
    let lines: Vec<&str> = first.lines().take(3).collect();
    lines.join(" ") + &advice.unwrap_or_default()
}

fn expect(answer: &Value, field: &'static str, wanted: impl Into<Value>) -> Result<()> {
    let (found, wanted) = (answer[field].clone(), wanted.into());
    if found == wanted {
        return Ok(());
    }
    Err(format!("`{field}` is {found} and should be {wanted}").into())
}
