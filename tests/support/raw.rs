//! A client that sends any bytes, right or wrong, to the built server.

use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oumi_mcp_server::env_vars;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mcp_client::{self as client, ClientError, McpClient};
use crate::support::{SOON, memory, poll_for};

pub use crate::support::mcp_client::{ANSWER_TIMEOUT as DEADLINE, request};

/// A server with a home of its own. The jobs of [`Raw::stubborn_job`] end with the home.
pub struct Raw {
    client: McpClient,
    home: Arc<TempDir>,
}

impl Deref for Raw {
    type Target = McpClient;

    fn deref(&self) -> &McpClient {
        &self.client
    }
}

impl DerefMut for Raw {
    fn deref_mut(&mut self) -> &mut McpClient {
        &mut self.client
    }
}

impl Raw {
    /// A server whose answers are read.
    pub fn start() -> Self {
        let mut raw = Self::start_unread();
        raw.start_reading();
        raw
    }

    /// The same, after `initialize` in the newest version that has it.
    pub fn ready() -> Self {
        let mut raw = Self::start();
        raw.initialize("2025-11-25");
        raw
    }

    /// A server whose answers nobody reads.
    pub fn start_unread() -> Self {
        let home = tempfile::tempdir().unwrap();
        let stderr = File::create(home.path().join("stderr")).unwrap();
        Self::start_in(Arc::new(home), stderr.into())
    }

    /// A server in this home, with this for its stderr; its answers are not read yet.
    pub fn start_in(home: Arc<TempDir>, stderr: Stdio) -> Self {
        fs::write(home.path().join("alive"), "").unwrap();
        let nothing = home.path().join("no-such-program");
        let mut command = Command::new(env!("CARGO_BIN_EXE_oumi-mcp-server"));
        command
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/bin:/bin")
            .env(env_vars::HOME, home.path().join("data"))
            .env(env_vars::OUMI, &nothing)
            .env(env_vars::SKY, &nothing)
            .env(env_vars::LOG, "warn")
            .current_dir("/")
            .stderr(stderr);
        let client = McpClient::spawn(&mut command).unwrap();
        Self { client, home }
    }

    /// Ends the server as a client does, and starts another one in its home.
    pub fn restart(mut self) -> Self {
        self.close_stdin();
        self.ended_within(SOON);
        let mut next = self.beside();
        // The jobs are the next server's now.
        self.home = Arc::new(tempfile::tempdir().unwrap());
        next.initialize("2025-11-25");
        next
    }

    /// Another server in the same home, whose answers are read.
    pub fn beside(&self) -> Self {
        let stderr = File::create(self.home.path().join("stderr-2")).unwrap();
        let mut other = Self::start_in(Arc::clone(&self.home), stderr.into());
        other.start_reading();
        other
    }

    /// The folder that the server has for a home, and jobs for a project.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it logged, if that goes into a file.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }

    /// Closes the end that its log would come from.
    pub fn close_stderr(&mut self) {
        self.child.stderr = None;
    }

    /// Sends a line.
    #[track_caller]
    pub fn say(&mut self, line: impl AsRef<[u8]>) {
        self.send_line(line).unwrap();
    }

    /// Sends bytes without an end of line.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.send_bytes(bytes.as_ref()).unwrap();
    }

    /// Sends a request.
    #[track_caller]
    pub fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.say(request(id, method, params));
    }

    /// Sends a call of a tool.
    #[track_caller]
    pub fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments });
        self.request(id, "tools/call", params);
    }

    /// The next message of the server.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let message = self.next_message();
        message.unwrap_or_else(|error| panic!("{error}; it logged: {}", self.stderr()))
    }

    /// The answer with this id.
    #[track_caller]
    pub fn answer(&mut self, id: impl Into<Value>) -> Value {
        let answer = self.client.answer(id);
        answer.unwrap_or_else(|error| panic!("{error}; it logged: {}", self.stderr()))
    }

    /// Reads until the answer with this id, which is a good one, and keeps nothing.
    #[track_caller]
    pub fn forget_until(&mut self, id: &str) {
        loop {
            let message = self.next();
            if message["id"] == id {
                assert_eq!(message["result"]["isError"], false, "{message}");
                return;
            }
        }
    }

    /// The structured content that the call with this id is answered with.
    #[track_caller]
    pub fn content(&mut self, id: impl Into<Value>) -> Value {
        let mut answer = self.answer(id);
        let content = answer["result"]["structuredContent"].take();
        assert!(content.is_object(), "{answer}");
        content
    }

    /// Everything that the server still writes until it closes its stdout.
    pub fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| match self.next_message() {
            Err(ClientError::Closed) => None,
            message => Some(message.unwrap()),
        })
        .collect()
    }

    /// Shakes hands in a version, for the answer.
    #[track_caller]
    pub fn initialize(&mut self, version: &str) -> Value {
        self.client.initialize(version, json!({})).unwrap()
    }

    /// The server answers a good request, and nothing comes before the answer.
    #[track_caller]
    pub fn lives(&mut self) {
        self.call("good", "list_jobs", json!({}));
        let answer = self.next();
        assert_eq!(answer["id"], "good", "{answer}");
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }

    /// The error that a line is answered with; the server answers the next one too.
    #[track_caller]
    pub fn refused(&mut self, line: impl AsRef<[u8]>) -> (i64, Value, String) {
        self.say(line);
        let answer = self.next();
        self.lives();
        let error = &answer["error"];
        (
            error["code"].as_i64().unwrap_or_else(|| panic!("{answer}")),
            answer["id"].clone(),
            error["message"].as_str().unwrap().to_owned(),
        )
    }

    /// Starts a job that a plain cancel does not end, so that the cancel takes its ten seconds. It ends with the home.
    #[track_caller]
    pub fn stubborn_job(&mut self) -> String {
        self.stubborn_job_of(&json!({}))
    }

    /// The same, by calls with this `_meta`.
    #[track_caller]
    pub fn stubborn_job_of(&mut self, meta: &Value) -> String {
        let call = |tool: &str, arguments: Value| json!({ "name": tool, "arguments": arguments, "_meta": meta });
        let alive = self.home.path().join("alive");
        let run = format!(
            "trap '' TERM; echo ready; while [ -e {} ]; do sleep 0.1; done",
            alive.display()
        );
        let config = json!({ "run": run }).to_string();
        // JSON is YAML.
        fs::write(self.home.path().join("job.yaml"), config).unwrap();
        let launch = json!({
            "config_path": "job.yaml", "command": "train", "client_cwd": self.home.path(),
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        });
        self.request("launch", "tools/call", call("run_job", launch));
        let launched = self.content("launch");
        let job_id = launched["job_id"].as_str().unwrap().to_owned();
        assert_eq!(launched["success"], true, "{launched}");
        poll_for(DEADLINE, || {
            let log = call("get_job_logs", json!({ "job_id": job_id }));
            self.request("log", "tools/call", log);
            let log = self.content("log");
            let is_ready = log["logs"] == "ready";
            is_ready.then_some(()).ok_or_else(|| log.to_string())
        });
        job_id
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its exit status, which it has within this time.
    #[track_caller]
    pub fn ended_within(&mut self, time: Duration) -> ExitStatus {
        self.wait_exit(time)
    }

    /// It is gone before a call of ten seconds would end, with exit code 0.
    #[track_caller]
    pub fn ends_well(&mut self) {
        assert_eq!(self.ended_within(SOON).code(), Some(0));
    }

    #[track_caller]
    pub fn stays_under(&self, megabytes: u64) {
        if let Some(peak) = memory(self.child.id(), "VmHWM") {
            assert!(peak < megabytes * 1024, "it took {peak} kB");
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.home.path().join("alive"));
    }
}

/// An `initialize` as a line.
pub fn initialize(id: impl Into<Value>, version: &str) -> String {
    request(id, "initialize", client::hello(version, json!({})))
}

/// The `_meta` of a request that needs no `initialize`.
pub fn meta(version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}
