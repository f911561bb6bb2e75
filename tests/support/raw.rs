//! A client that says what it likes: bytes in, lines out, over the pipes of the built server.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use oumi_mcp_server::settings::env_vars;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than any answer takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A server with a home of its own. It is killed when it is dropped; the jobs of [`Raw::stubborn_job`] end with the home.
pub struct Raw {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    lines: Option<Receiver<String>>,
    early: VecDeque<Value>,
    home: Arc<TempDir>,
}

impl Raw {
    /// A server whose answers are read.
    pub fn start() -> Self {
        let mut raw = Self::start_unread();
        raw.read_on();
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
        let mut child = Command::new(env!("CARGO_BIN_EXE_oumi-mcp-server"))
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/bin:/bin")
            .env(env_vars::HOME.name, home.path().join("data"))
            .env(env_vars::OUMI.name, &nothing)
            .env(env_vars::SKY.name, &nothing)
            .env(env_vars::LOG.name, "warn")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
            lines: None,
            early: VecDeque::new(),
            home,
        }
    }

    /// The server is ended as a client does it, and another one is started in its home.
    pub fn restart(mut self) -> Self {
        self.close_stdin();
        self.ended_within(Duration::from_secs(2));
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
        other.read_on();
        other
    }

    /// The folder that the server has for a home, and jobs for a project.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// From now on the answers are read.
    pub fn read_on(&mut self) {
        let stdout = BufReader::new(self.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        self.lines = Some(lines);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it logged, if that goes into a file.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }

    /// The stdin itself, for a thread that may have to wait.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes the end that answers come from.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Closes the end that its log would come from.
    pub fn close_stderr(&mut self) {
        self.child.stderr = None;
    }

    /// Says a line.
    #[track_caller]
    pub fn say(&mut self, line: impl AsRef<[u8]>) {
        self.write(line);
        self.write(b"\n");
    }

    /// Says bytes without an end of line.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes.as_ref()).unwrap();
    }

    /// Says a request.
    #[track_caller]
    pub fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.say(request(id, method, params));
    }

    /// Says a call of a tool.
    #[track_caller]
    pub fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.request(
            id,
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        );
    }

    /// The next message of the server, of which each is checked to be one.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        self.read()
    }

    #[track_caller]
    fn read(&self) -> Value {
        let lines = self.lines.as_ref().unwrap();
        let line = match lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => panic!("no answer ({error}); it logged: {}", self.stderr()),
        };
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The answer with this id, whatever comes before it; that is kept.
    #[track_caller]
    pub fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        if let Some(at) = self.early.iter().position(|message| message["id"] == id) {
            return self.early.remove(at).unwrap();
        }
        loop {
            let message = self.read();
            if message["id"] == id {
                return message;
            }
            self.early.push_back(message);
        }
    }

    /// The params of the next notification of this method, whatever comes before it; that is kept.
    #[track_caller]
    pub fn notification(&mut self, method: &str) -> Value {
        let is_it = |message: &Value| message["method"] == method;
        let mut message = match self.early.iter().position(is_it) {
            Some(at) => self.early.remove(at).unwrap(),
            None => loop {
                let message = self.read();
                if is_it(&message) {
                    break message;
                }
                self.early.push_back(message);
            },
        };
        message["params"].take()
    }

    /// The notifications that came and nobody has asked for.
    pub fn unheard(&self) -> Vec<&Value> {
        let early = self.early.iter();
        early
            .filter(|message| message.get("method").is_some())
            .collect()
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

    /// Everything that it still says until it closes its stdout.
    pub fn rest(&mut self) -> Vec<Value> {
        let read = self.lines.as_ref().unwrap().iter();
        let read = read.map(|line| serde_json::from_str(&line).unwrap());
        self.early.drain(..).chain(read).collect()
    }

    /// Shakes hands in a version, for the answer.
    #[track_caller]
    pub fn initialize(&mut self, version: &str) -> Value {
        self.say(initialize("hello", version));
        let answer = self.answer("hello");
        self.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        answer["result"].clone()
    }

    /// It answers a good request, and nothing before that but what was expected and read.
    #[track_caller]
    pub fn lives(&mut self) {
        self.call("good", "list_jobs", json!({}));
        let answer = self.next();
        assert_eq!(answer["id"], "good", "{answer}");
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }

    /// What a line is answered with; the server answers the next one too.
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
        let deadline = Instant::now() + DEADLINE;
        loop {
            let log = call("get_job_logs", json!({ "job_id": job_id }));
            self.request("log", "tools/call", log);
            let log = self.content("log");
            if log["logs"] == "ready" {
                return job_id;
            }
            assert!(Instant::now() < deadline, "the job does not start: {log}");
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ended, which it does in this time.
    #[track_caller]
    pub fn ended_within(&mut self, time: Duration) -> ExitStatus {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it is still there after {time:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// It is gone within two seconds, with exit code 0.
    #[track_caller]
    pub fn ends_well(&mut self) {
        assert_eq!(self.ended_within(Duration::from_secs(2)).code(), Some(0));
    }

    /// The most memory that it ever had, in MB, where the system says that.
    pub fn peak_memory(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.pid().as_raw_pid());
        let status = fs::read_to_string(path).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kilobytes| kilobytes / 1024)
    }

    #[track_caller]
    pub fn stays_under(&self, megabytes: u64) {
        if let Some(peak) = self.peak_memory() {
            assert!(peak < megabytes, "it took {peak} MB");
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.home.path().join("alive"));
    }
}

/// A request as a line.
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }).to_string()
}

/// An `initialize` as a line.
pub fn initialize(id: impl Into<Value>, version: &str) -> String {
    let client = json!({ "name": "raw", "version": "0" });
    let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
    request(id, "initialize", params)
}

/// The `_meta` of a request that needs no `initialize`.
pub fn meta(version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}
