//! The built server, and a small MCP client to it over real pipes. Every line the server says must be JSON-RPC, and every
//! answer of a tool must fit its schema and be the same as structured content and as text.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Index;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use oumi_mcp_server::settings::env_vars;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::schema::misfit;
use super::{DEADLINE, Home, pid, wait_until};

pub const PROTOCOL: &str = "2025-11-25";

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
        .env(env_vars::HOME.name, home.data())
        .env(env_vars::SKY.name, bin.join("sky"))
        .current_dir("/");
    command
}

/// A running server and the client to it. It is killed when it is dropped; its jobs are not.
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Result<Value, String>>,
    early: HashMap<u64, Value>,
    /// What the server asks its client, or tells it, in order.
    unasked: VecDeque<Value>,
    next_id: u64,
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
    /// Starts it and shakes hands.
    pub fn start(home: &Home) -> Self {
        Self::start_with(home, &[])
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
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap());
        // A group of its own, so that a test can signal that.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let (sender, said) = channel();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            // What a killed server did not finish is no line.
            while matches!(stdout.read_until(b'\n', &mut line), Ok(read) if read > 0)
                && line.ends_with(b"\n")
            {
                let message = serde_json::from_slice::<Value>(&line)
                    .ok()
                    .filter(|message| message["jsonrpc"] == "2.0")
                    .ok_or_else(|| String::from_utf8_lossy(&line).into_owned());
                if sender.send(message).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let mut server = Self {
            stdin: child.stdin.take(),
            child,
            said,
            early: HashMap::new(),
            unasked: VecDeque::new(),
            next_id: 1,
            project: home.project(),
            stderr,
            hello: Value::Null,
            tools: HashMap::new(),
        };
        let client = json!({ "name": "tests", "version": "0" });
        server.hello = server.request(
            "initialize",
            json!({ "protocolVersion": version, "capabilities": capabilities, "clientInfo": client }),
        );
        server.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let tools = server.request("tools/list", json!({}))["tools"].clone();
        for tool in tools.as_array().unwrap() {
            let name = tool["name"].as_str().unwrap().to_owned();
            server.tools.insert(name, tool.clone());
        }
        server
    }

    /// What it answered to `initialize`.
    pub fn hello(&self) -> &Value {
        &self.hello
    }

    /// A tool as `tools/list` describes it.
    pub fn tool(&self, name: &str) -> &Value {
        &self.tools[name]
    }

    pub fn id(&self) -> u32 {
        self.child.id()
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
        self.send_request(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }

    /// The same with a token for its progress.
    pub fn send_to_be_told(&mut self, tool: &str, arguments: Value) -> u64 {
        self.send_request(
            "tools/call",
            json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "told" } }),
        )
    }

    /// What was told of progress so far.
    pub fn told(&mut self) -> Vec<String> {
        let is_progress = |said: &Value| said["method"] == "notifications/progress";
        let (told, others): (VecDeque<_>, _) = self.unasked.drain(..).partition(is_progress);
        self.unasked = others;
        let message = |told: &Value| {
            assert_eq!(told["params"]["progressToken"], "told", "{told}");
            told["params"]["message"].as_str().unwrap().to_owned()
        };
        told.iter().map(message).collect()
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

    /// Says a request of any kind.
    pub fn send_request(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}")
            .and_then(|()| stdin.flush())
            .unwrap();
    }

    /// Calls a tool of a server that may be killed meanwhile; false when it is dead already.
    pub fn send_if_alive(&mut self, tool: &str, arguments: Value) -> Option<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let params = json!({ "name": tool, "arguments": arguments });
        let message =
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let stdin = self.stdin.as_mut()?;
        let written = writeln!(stdin, "{message}").and_then(|()| stdin.flush());
        written.ok().map(|()| id)
    }

    /// The answer of a call, unless the server died before it gave one.
    #[track_caller]
    pub fn answer_if_any(&mut self, id: u64) -> Option<Answer> {
        let message = self.message(id)?;
        assert!(message.get("error").is_none(), "{message}");
        Some(Answer {
            content: message["result"]["structuredContent"].clone(),
            is_error: message["result"]["isError"].as_bool().unwrap(),
        })
    }

    /// The message that answers a request; nothing when the server died before it said it.
    #[track_caller]
    fn message(&mut self, id: u64) -> Option<Value> {
        let deadline = Instant::now() + DEADLINE;
        while !self.early.contains_key(&id) {
            self.hear(deadline)?;
        }
        self.early.remove(&id)
    }

    /// Hears the next message; nothing when there are no more.
    #[track_caller]
    fn hear(&mut self, deadline: Instant) -> Option<()> {
        match self
            .said
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(Ok(message)) if message.get("method").is_some() => self.unasked.push_back(message),
            // Answers come in any order.
            Ok(Ok(message)) => {
                if let Some(answered) = message["id"].as_u64() {
                    self.early.insert(answered, message);
                }
            }
            Ok(Err(line)) => panic!("this on stdout is not JSON-RPC: {line}"),
            Err(RecvTimeoutError::Timeout) => panic!("no answer within {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        Some(())
    }

    /// The next message of a method that the server says of itself: what it asks its client, or tells it.
    #[track_caller]
    pub fn unasked(&mut self, method: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let is_it = |message: &Value| message["method"] == method;
            if let Some(at) = self.unasked.iter().position(is_it) {
                return self.unasked.remove(at).unwrap();
            }
            self.hear(deadline).expect("the server lives");
        }
    }

    /// Whether the server has asked its client anything that was not looked at.
    pub fn has_asked(&self) -> bool {
        let mut unasked = self.unasked.iter();
        unasked.any(|message| message.get("id").is_some())
    }

    /// Answers what the server asked.
    pub fn reply(&mut self, asked: &Value, result: Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }));
    }

    /// Gives up a call.
    pub fn give_up(&mut self, id: u64) {
        let params = json!({ "requestId": id });
        let method = "notifications/cancelled";
        self.say(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// The error that a request was answered with.
    #[track_caller]
    pub fn error(&mut self, id: u64) -> Value {
        let message = self.message(id).expect("the server lives");
        assert!(message["error"].is_object(), "{message}");
        message["error"].clone()
    }

    #[track_caller]
    fn result(&mut self, id: u64) -> Value {
        let message = self.message(id).unwrap_or_else(|| {
            panic!("the server closed its stdout; it logged: {}", self.stderr())
        });
        assert!(message.get("error").is_none(), "{message}");
        message["result"].clone()
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

    /// Launches a job, for its id.
    #[track_caller]
    pub fn submit(&mut self, config: &str, more: Value) -> String {
        let arguments = self.launch(config, more);
        let answer = self.call("run_job", arguments).ok();
        answer["job_id"].as_str().unwrap().to_owned()
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
        let answer = self.call("list_jobs", json!({ "status": status })).ok();
        let rows = answer["jobs"].as_array().unwrap();
        let ids = rows
            .iter()
            .map(|row| row["job_id"].as_str().unwrap().to_owned());
        (ids.collect(), answer)
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()).unwrap(), signal).unwrap();
    }

    /// Waits for its end, for how it ended and how long that took.
    #[track_caller]
    pub fn wait_exit(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let mut status = None;
        wait_until("the server has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), begun.elapsed())
    }

    /// Kills it, as a client or the kernel would.
    pub fn kill_9(mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        while let Ok(line) = self.said.recv_timeout(DEADLINE) {
            if let Err(line) = line
                && !std::thread::panicking()
            {
                panic!("this on stdout is not JSON-RPC: {line}");
            }
        }
    }
}

impl Answer {
    /// The answer, which must be one of success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(!self.is_error, "{:#}", self.content);
        self
    }

    /// The error of the answer, which must be one of failure.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert!(self.is_error, "{:#}", self.content);
        self["error"].as_str().unwrap()
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.content[field]
    }
}
