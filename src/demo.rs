//! `demo`: runs small jobs for real and prints a line a call. Each call has a server of its own, which finds the earlier jobs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::commands::jobs::Format;
use crate::commands::text::first_line;
use crate::commands::{CommandResult, print, until_interrupted};
use crate::settings::env_vars;

/// The example jobs, by name: one that succeeds, one that fails, and one that would run for an hour.
const JOBS: [(&str, &str); 3] = [
    ("count", include_str!("demo/count.yaml")),
    ("fail", include_str!("demo/fail.yaml")),
    ("long", include_str!("demo/long.yaml")),
];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs the example jobs with `program` as the server, in a folder that is removed at the end, also where it is interrupted.
pub fn run(output: Format, program: &Path) -> CommandResult {
    let folder = TempDir::with_prefix("oumi-mcp-demo-")?;
    let demo = Demo {
        program,
        folder,
        output,
    };
    let ran = until_interrupted(demo.steps());
    // Nothing is left running.
    for (job_id, _) in JOBS {
        let mut cancel = demo.command().into_std();
        cancel.args(["cancel", "--force", job_id]).output()?;
    }
    ran
}

struct Demo<'a> {
    program: &'a Path,
    folder: TempDir,
    output: Format,
}

impl Demo<'_> {
    async fn steps(&self) -> CommandResult {
        for (name, text) in JOBS {
            fs::write(self.folder.path().join(format!("{name}.yaml")), text)?;
        }
        print("\nA preview. Nothing is started.")?;
        self.launch("count", true).await?;
        print("\nA job is started, as the user has agreed, and watched to its end.")?;
        self.launch("count", false).await?;
        self.watch("count", "SUCCEEDED").await?;
        let logs = json!({ "job_id": "count", "lines": 2 });
        let answer = self.call("get_job_logs", logs).await?;
        expect(&answer, "logs", "step 5 of 5, loss 0.45\ndone")?;
        print("\nAnother one fails. The answer says why, and what to change.")?;
        self.launch("fail", false).await?;
        self.watch("fail", "FAILED").await?;
        print("\nA third one would take an hour. The server ends, and the job goes on.")?;
        self.launch("long", false).await?;
        print("\nThe next server finds all three, and ends the last one.")?;
        let answer = self.call("list_jobs", json!({})).await?;
        expect(&answer["jobs"][0], "job_id", "long")?;
        let long = json!({ "job_id": "long" });
        let answer = self.call("cancel_job", long).await?;
        expect(&answer, "state", "CANCELLED")?;
        print("\nAll steps passed. `oumi-mcp-server setup` adds the server to your client.")
    }

    async fn launch(&self, name: &str, dry_run: bool) -> Result<()> {
        let launch = json!({
            "config_path": format!("{name}.yaml"), "client_cwd": self.folder.path(), "command": "train", "job_name": name,
            "dry_run": dry_run, "confirm": !dry_run, "user_confirmation": if dry_run { "" } else { "EXECUTE" },
        });
        let answer = self.call("run_job", launch).await?;
        expect(&answer, "success", true)
    }

    async fn watch(&self, job_id: &str, end: &str) -> Result<()> {
        let wait = json!({ "job_id": job_id, "wait_seconds": 1, "until": "progress" });
        loop {
            let answer = self.call("poll_status", wait.clone()).await?;
            if answer["is_done"] == true {
                return expect(&answer, "state", end);
            }
        }
    }

    /// Has a server answer a call, and prints the answer: as JSON whole, else what it says in a line.
    async fn call(&self, tool: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": {
            "name": tool, "arguments": arguments, "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": { "name": "demo", "version": env!("CARGO_PKG_VERSION") },
            },
        } });
        let mut server = self.command();
        server.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C ends the demo, and not the server before it.
        let mut server = server.process_group(0).kill_on_drop(true).spawn()?;
        let pipes = server.stdin.take().zip(server.stdout.take());
        let (mut requests, answers) = pipes.ok_or("the server has no pipes")?;
        let request = format!("{request}\n");
        requests.write_all(request.as_bytes()).await?;
        let line = BufReader::new(answers).lines().next_line().await?;
        // Ends the server as a client does.
        drop(requests);
        server.wait().await?;
        let mut message: Value = serde_json::from_str(&line.ok_or("the server has ended")?)?;
        let answer = message["result"]["structuredContent"].take();
        if answer.is_null() {
            return Err(message["error"].to_string().into());
        }
        print(&match self.output.json {
            true => format!("-> {tool} {arguments}\n<- {answer:#}"),
            false => format!("  {tool:14}{}", summary(&answer)),
        })?;
        Ok(answer)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env(env_vars::HOME, self.folder.path().join("data"));
        // The settings of the person's own server would get in the way.
        for variable in [env_vars::CONSENT, env_vars::CLOUDS, env_vars::READ_ONLY] {
            command.env_remove(variable);
        }
        command
    }
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
    // A preview has more lines.
    let first = first_line(answer);
    let first = first.lines().take(3).collect::<Vec<_>>().join(" ");
    match answer["failure"]["advice"].as_str() {
        Some(advice) => format!("{first}. Advice: {advice}"),
        None => first,
    }
}

fn expect(answer: &Value, field: &'static str, wanted: impl Into<Value>) -> Result<()> {
    let (found, wanted) = (&answer[field], wanted.into());
    match *found == wanted {
        true => Ok(()),
        false => Err(format!("`{field}` is {found} and should be {wanted}").into()),
    }
}
