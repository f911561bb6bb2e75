//! The built server as the tests start it, and an MCP client to it that holds every answer against its schema.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Index;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oumi_mcp_server::env_vars;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::mcp_client::{ClientError, McpClient};
use super::schema::misfit;
use super::{DEADLINE, Home, pid, wait_until};

pub use super::mcp_client::PROTOCOL;

/// The server as cargo built it, with nothing in its environment but the test's own. The `sky` of this machine, if there is
/// one, is never asked: only one that the test has put into its home.
pub fn command(home: &Home) -> Command {
    command_of(home, Path::new(env!("CARGO_BIN_EXE_oumi-mcp-server")))
}

/// The same for another copy of the program.
pub fn command_of(home: &Home, program: &Path) -> Command {
    let mut command = Command::new(program);
    let bin = home.root().join("bin");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    command
        .env_clear()
        .env("HOME", home.root())
        .env("PATH", path)
        .env(env_vars::HOME, home.data())
        .env(env_vars::SKY, bin.join("sky"))
        .current_dir("/");
    command
}

/// A running server and the client to it. It is killed when it is dropped; its jobs are not.
pub struct Server {
    client: McpClient,
    project: PathBuf,
    stderr: PathBuf,
    hello: Value,
    tools: HashMap<String, Value>,
}

/// The answer of a tool.
#[derive(Debug, Clone)]
pub struct Answer {
    pub content: Value,
    pub is_error: bool,
}

impl Server {
    /// Starts it in a home of its own.
    pub fn in_new_home() -> (Home, Self) {
        let home = Home::new();
        let server = Self::start(&home);
        (home, server)
    }

    /// Starts it and shakes hands.
    pub fn start(home: &Home) -> Self {
        Self::start_with(home, &[])
    }

    /// Bytes that the server has read so far, by Linux's own count; 0 elsewhere.
    pub fn bytes_read(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap_or_default();
        let count = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// Starts it with more in its environment.
    pub fn start_with(home: &Home, envs: &[(&str, &str)]) -> Self {
        let mut command = command(home);
        command.envs(envs.iter().copied());
        Self::spawn(home, command)
    }

    /// Starts it by a command of the test's own.
    pub fn spawn(home: &Home, command: Command) -> Self {
        Self::spawn_as(home, command, PROTOCOL, json!({}))
    }

    /// The same for a client of this version, with these capabilities.
    pub fn spawn_as(home: &Home, mut command: Command, version: &str, capabilities: Value) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stderr = home.root().join(format!("server-{count}.stderr"));
        // A group of its own, so that a test can signal that.
        command
            .stderr(File::create(&stderr).unwrap())
            .process_group(0);
        let mut client = McpClient::spawn(&mut command).unwrap();
        client.start_reading();
        let mut server = Self {
            client,
            project: home.project(),
            stderr,
            hello: Value::Null,
            tools: HashMap::new(),
        };
        let hello = server.client.initialize(version, capabilities);
        server.hello = server.checked(hello);
        let tools = server.request("tools/list", json!({}))["tools"].clone();
        for tool in tools.as_array().unwrap() {
            let name = tool["name"].as_str().unwrap().to_owned();
            server.tools.insert(name, tool.clone());
        }
        server
    }

    /// The answer to `initialize`.
    pub fn hello(&self) -> &Value {
        &self.hello
    }

    /// A tool as `tools/list` describes it.
    pub fn tool(&self, name: &str) -> &Value {
        &self.tools[name]
    }

    pub fn id(&self) -> u32 {
        self.client.child.id()
    }

    /// What it logged so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Calls a tool and waits for its answer.
    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        let id = self.send(tool, arguments);
        self.answer(tool, id)
    }

    /// Calls a tool; [`Self::answer`] waits for it.
    pub fn send(&mut self, tool: &str, arguments: Value) -> u64 {
        let params = json!({ "name": tool, "arguments": arguments });
        self.send_request("tools/call", params)
    }

    /// The same with a token for its progress.
    pub fn send_with_progress(&mut self, tool: &str, arguments: Value) -> u64 {
        self.send_request(
            "tools/call",
            json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "progress" } }),
        )
    }

    /// The messages of progress so far.
    pub fn progress_messages(&mut self) -> Vec<String> {
        let progress = self
            .client
            .take_unread(|message| message["method"] == "notifications/progress");
        let message = |progress: &Value| {
            assert_eq!(
                progress["params"]["progressToken"], "progress",
                "{progress}"
            );
            progress["params"]["message"].as_str().unwrap().to_owned()
        };
        progress.iter().map(message).collect()
    }

    /// The answer of a call that was sent.
    #[track_caller]
    pub fn answer(&mut self, tool: &str, id: u64) -> Answer {
        let result = self.result(id);
        let content = result["structuredContent"].clone();
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(result["content"].as_array().unwrap().len(), 1, "{result}");
        let same: Value = serde_json::from_str(text).unwrap();
        assert_eq!(same, content, "the text is not the structured content");
        let schema = &self.tools[tool]["outputSchema"];
        if let Some(reason) = misfit(&content, schema, schema) {
            panic!("an answer of {tool} does not fit its schema: {reason}\n{content:#}");
        }
        let is_error = result["isError"].as_bool().unwrap();
        let success = content
            .get("success")
            .map_or(!is_error, |success| success == true);
        assert_eq!(success, !is_error, "{content:#}");
        Answer { content, is_error }
    }

    /// A request of any kind, answered well.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        self.result(id)
    }

    /// Sends a request of any kind.
    pub fn send_request(&mut self, method: &str, params: Value) -> u64 {
        self.client.send_request(method, params).unwrap()
    }

    /// Calls a tool of a server that may be killed meanwhile; `None` when it is dead already.
    pub fn send_if_alive(&mut self, tool: &str, arguments: Value) -> Option<u64> {
        let params = json!({ "name": tool, "arguments": arguments });
        self.client.send_request("tools/call", params).ok()
    }

    /// The answer of a call, unless the server died before it gave one.
    #[track_caller]
    pub fn answer_if_any(&mut self, id: u64) -> Option<Answer> {
        let result = match self.client.result(id) {
            Err(ClientError::Closed) => return None,
            result => self.checked(result),
        };
        Some(Answer {
            content: result["structuredContent"].clone(),
            is_error: result["isError"].as_bool().unwrap(),
        })
    }

    /// The next message of a method that the server sends of itself: a request to its client, or a notification.
    #[track_caller]
    pub fn incoming_message(&mut self, method: &str) -> Value {
        let message = self.client.incoming(method);
        self.checked(message)
    }

    /// Whether the server has asked its client anything that was not looked at.
    pub fn has_asked(&self) -> bool {
        let mut unread = self.client.unread();
        unread.any(|message| message.get("id").is_some() && message.get("method").is_some())
    }

    /// Answers what the server asked.
    pub fn reply(&mut self, asked: &Value, result: Value) {
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        self.client.send_line(answer.to_string()).unwrap();
    }

    /// Cancels a call.
    pub fn give_up(&mut self, id: u64) {
        let params = json!({ "requestId": id });
        self.client
            .notify("notifications/cancelled", params)
            .unwrap();
    }

    /// The error that a request was answered with.
    #[track_caller]
    pub fn error(&mut self, id: u64) -> Value {
        match self.client.result(id) {
            Err(ClientError::Refused(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn result(&mut self, id: u64) -> Value {
        let result = self.client.result(id);
        self.checked(result)
    }

    #[track_caller]
    fn checked(&self, result: Result<Value, ClientError>) -> Value {
        result.unwrap_or_else(|error| panic!("{error}; the server logged: {}", self.stderr()))
    }

    /// The arguments of a real launch of a config of the project, with `more` over them.
    pub fn launch(&self, config: &str, more: Value) -> Value {
        let mut arguments = json!({
            "config_path": config,
            "command": "train",
            "client_cwd": self.project,
            "dry_run": false,
            "confirm": true,
            "user_confirmation": "EXECUTE",
        });
        let fields = arguments.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        arguments
    }

    /// Launches a config as [`Self::launch`] says.
    #[track_caller]
    pub fn run(&mut self, config: &str, more: Value) -> Answer {
        self.call("run_job", self.launch(config, more))
    }

    /// The same; [`Self::answer`] waits for it.
    pub fn send_run(&mut self, config: &str, more: Value) -> u64 {
        self.send("run_job", self.launch(config, more))
    }

    /// Launches a job, for its id.
    #[track_caller]
    pub fn submit(&mut self, config: &str, more: Value) -> String {
        let answer = self.run(config, more).ok();
        let job_id = answer["job_id"].as_str().unwrap().to_owned();
        if answer["status"] == "launching" {
            // On a busy machine it takes longer than a call waits for it.
            wait_until("it is launched", || {
                self.poll(&job_id)["status"] != "launching"
            });
        }
        job_id
    }

    #[track_caller]
    pub fn poll(&mut self, job_id: &str) -> Answer {
        self.call("poll_status", json!({ "job_id": job_id })).ok()
    }

    /// How the job is once nothing more will happen to it.
    #[track_caller]
    pub fn wait_done(&mut self, job_id: &str) -> Answer {
        let mut answer = self.poll(job_id);
        wait_until("the job is done", || {
            answer = self.poll(job_id);
            answer["is_done"] == true
        });
        answer
    }

    /// The text that `get_job_logs` gives by default.
    #[track_caller]
    pub fn log(&mut self, job_id: &str) -> String {
        let answer = self.call("get_job_logs", json!({ "job_id": job_id })).ok();
        answer["logs"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn cancel(&mut self, job_id: &str, force: bool) -> Answer {
        self.call("cancel_job", json!({ "job_id": job_id, "force": force }))
    }

    /// The ids that `list_jobs` gives, and the whole answer.
    #[track_caller]
    pub fn list(&mut self, status: &str) -> (Vec<String>, Answer) {
        let answer = self
            .call("list_jobs", json!({ "status": status, "limit": 1000 }))
            .ok();
        let rows = answer["jobs"].as_array().unwrap();
        let ids = rows
            .iter()
            .map(|row| row["job_id"].as_str().unwrap().to_owned());
        (ids.collect(), answer)
    }

    pub fn close_stdin(&mut self) {
        self.client.close_stdin();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()).unwrap(), signal).unwrap();
    }

    /// Waits for its end, for its exit status and how long that took.
    #[track_caller]
    pub fn wait_exit(&mut self) -> (ExitStatus, Duration) {
        let since = Instant::now();
        let status = self.client.wait_exit(DEADLINE);
        (status, since.elapsed())
    }

    /// Kills it, as a client or the kernel would.
    pub fn kill_9(mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.client.child.kill();
        let _ = self.client.child.wait();
        loop {
            match self.client.next_message() {
                Ok(_) => {}
                Err(error @ ClientError::NotJsonRpc(_)) => {
                    assert!(std::thread::panicking(), "{error}");
                }
                Err(_) => return,
            }
        }
    }
}

impl Answer {
    /// The answer, which must be one of success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(!self.is_error, "{self}");
        self
    }

    /// The error of the answer, which must be one of failure.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert!(self.is_error, "{self}");
        self["error"].as_str().unwrap()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.content)
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    /// A field as a client reads it: what is left out is empty, or as the field that it would repeat.
    fn index(&self, field: &str) -> &Value {
        static EMPTY: LazyLock<[Value; 3]> = LazyLock::new(|| [json!(""), json!([]), json!(false)]);
        let [text, list, flag] = &*EMPTY;
        let left_out = || match field {
            "cluster" => self.content.get("cluster_name").unwrap_or(text),
            "oumi_job_id" => self.content.get("job_id").unwrap_or(text),
            "warnings" => list,
            "dry_run" | "launch_confirmed" | "truncated" => flag,
            "job_id" | "status" | "cluster_name" | "message" | "next" | "cloud" | "plan_id" => text,
            _ => &Value::Null,
        };
        self.content.get(field).unwrap_or_else(left_out)
    }
}
