//! A server as a child process, and the least of a client: a line out, a line in.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_oumi-mcp-server");

/// The floor, which cargo puts beside the server.
pub fn floor_path() -> PathBuf {
    Path::new(PROGRAM).with_file_name("floor")
}

pub struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    last_id: u64,
    /// From the start of the process to the answer of `initialize`, in milliseconds.
    pub start_ms: f64,
}

impl Client {
    /// Starts the server that is measured, with a data folder in `home`.
    pub fn ours(home: &Path) -> Self {
        Self::start(Command::new(PROGRAM).env("OUMI_MCP_HOME", home.join("data")))
    }

    /// Starts the floor, which answers the JSON in a file.
    pub fn floor(answer: Option<&Path>) -> Self {
        let mut command = Command::new(floor_path());
        Self::start(command.envs(answer.map(|path| ("FLOOR_ANSWER", path))))
    }

    fn start(command: &mut Command) -> Self {
        let begin = Instant::now();
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.stderr(Stdio::null()).spawn().unwrap();
        let mut client = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            last_id: 0,
            start_ms: 0.0,
        };
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "bench", "version": "1" } });
        let line = client.request("initialize", hello);
        client.exchange(&line);
        client.start_ms = begin.elapsed().as_secs_f64() * 1e3;
        client.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
        client
    }

    fn request(&mut self, method: &str, params: Value) -> String {
        self.last_id += 1;
        let request =
            json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params });
        format!("{request}\n")
    }

    fn tool(&mut self, tool: &str, arguments: &Value) -> String {
        self.request(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }

    fn send(&mut self, line: &str) {
        self.stdin.write_all(line.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.contains("\"result\""), "the server answered {line:?}");
        line
    }

    fn exchange(&mut self, line: &str) -> String {
        self.send(line);
        self.receive()
    }

    /// Calls a tool and returns the milliseconds until its answer.
    pub fn time(&mut self, tool: &str, arguments: &Value) -> f64 {
        let line = self.tool(tool, arguments);
        super::milliseconds(|| drop(self.exchange(&line)))
    }

    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let line = self.tool(tool, &arguments);
        content(&self.exchange(&line))
    }

    /// Sends the calls of a tool with all these arguments at once.
    pub fn send_calls(&mut self, tool: &str, arguments: Vec<Value>) {
        let calls = arguments.iter().map(|each| self.tool(tool, each));
        let lines: String = calls.collect();
        self.send(&lines);
    }

    /// Reads the answers of so many calls, in any order.
    pub fn contents(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| content(&self.receive())).collect()
    }

    /// A line of `/proc/<pid>/status` in MB, such as `VmRSS`; 0 where there is none.
    pub fn memory(&self, name: &str) -> f64 {
        let file = format!("/proc/{}/status", self.child.id());
        super::kilobytes(file.as_ref(), name) / 1e3
    }
}

fn content(answer: &str) -> Value {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    let content = answer["result"]["structuredContent"].take();
    assert_ne!(content["success"], false, "{content}");
    content
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
