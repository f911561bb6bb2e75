//! The MCP client of the tests: it drives the built server over real pipes, and may say anything.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::poll_for;

/// Longer than any answer takes on a busy machine.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The newest protocol version with a handshake.
pub const PROTOCOL: &str = "2025-11-25";

/// A failed exchange with the server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A pipe of the server cannot be used.
    #[error("cannot talk to the server: {0}")]
    Io(#[from] io::Error),
    /// The server wrote a line that is no JSON-RPC message.
    #[error("the server wrote a line that is not JSON-RPC: {0}")]
    NotJsonRpc(String),
    /// No message came within [`ANSWER_TIMEOUT`].
    #[error("the server did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The server closed its standard output.
    #[error("the server closed its standard output")]
    Closed,
    /// The server answered with an error.
    #[error("the server answered with an error: {0}")]
    Refused(Value),
}

/// A running server and the pipes to it. Messages that nobody has asked for yet are kept in order.
pub struct McpClient {
    /// The server; dropping the client kills it.
    pub child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    lines: Option<Receiver<Vec<u8>>>,
    unread: VecDeque<Value>,
    last_id: u64,
}

impl McpClient {
    /// Starts `command` with pipes for its input and output. Nothing is read until [`Self::start_reading`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
            lines: None,
            unread: VecDeque::new(),
            last_id: 0,
        })
    }

    /// Reads what the server writes from now on, in a thread. A line that the server did not finish is dropped.
    pub fn start_reading(&mut self) {
        let Some(stdout) = self.stdout.take() else {
            return;
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok() && line.ends_with(b"\n") {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        self.lines = Some(lines);
    }

    /// Takes the input, for a thread that may have to wait for the server.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Closes the input, as a client does that ends.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes the output, if it is not being read.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(bytes)?;
        stdin.flush()
    }

    /// Sends any line.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> io::Result<()> {
        self.send_bytes(&[line.as_ref(), b"\n"].concat())
    }

    /// Sends a request with the next id, and returns the id.
    pub fn send_request(&mut self, method: &str, params: Value) -> io::Result<u64> {
        self.last_id += 1;
        self.send_line(request(self.last_id, method, params))?;
        Ok(self.last_id)
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) -> io::Result<()> {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.send_line(message.to_string())
    }

    /// Shakes hands and returns what the server answers.
    pub fn initialize(&mut self, version: &str, capabilities: Value) -> Result<Value, ClientError> {
        let id = self.send_request("initialize", hello(version, capabilities))?;
        let result = self.result(id)?;
        self.notify("notifications/initialized", json!({}))?;
        Ok(result)
    }

    /// Waits for the result of a request.
    pub fn result(&mut self, id: impl Into<Value>) -> Result<Value, ClientError> {
        let mut answer = self.answer(id)?;
        if answer["error"].is_object() {
            return Err(ClientError::Refused(answer["error"].take()));
        }
        Ok(answer["result"].take())
    }

    /// Waits for the message that answers a request.
    pub fn answer(&mut self, id: impl Into<Value>) -> Result<Value, ClientError> {
        let id = id.into();
        self.find(|message| message.get("method").is_none() && message["id"] == id)
    }

    /// Waits for the next request or notification of this method.
    pub fn incoming(&mut self, method: &str) -> Result<Value, ClientError> {
        self.find(|message| message["method"] == method)
    }

    /// Waits for the next message.
    pub fn next_message(&mut self) -> Result<Value, ClientError> {
        match self.unread.pop_front() {
            Some(message) => Ok(message),
            None => self.read(ANSWER_TIMEOUT),
        }
    }

    /// Waits for the first message that matches, and keeps the others.
    pub fn find(&mut self, matches: impl Fn(&Value) -> bool) -> Result<Value, ClientError> {
        if let Some(at) = self.unread.iter().position(&matches) {
            return self.unread.remove(at).ok_or(ClientError::Closed);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let message = self.read(deadline.saturating_duration_since(Instant::now()))?;
            if matches(&message) {
                return Ok(message);
            }
            self.unread.push_back(message);
        }
    }

    /// The messages that came and that nobody has asked for.
    pub fn unread(&self) -> impl Iterator<Item = &Value> {
        self.unread.iter()
    }

    /// Takes those of the kept messages that match.
    pub fn take_unread(&mut self, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (taken, kept) = self.unread.drain(..).partition(matches);
        self.unread = kept;
        Vec::from(taken)
    }

    /// Waits until the server has ended by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        poll_for(timeout, || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| "the server has not ended".to_owned())
        })
    }

    fn read(&self, timeout: Duration) -> Result<Value, ClientError> {
        let lines = self.lines.as_ref().ok_or(ClientError::Closed)?;
        let line = lines.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => ClientError::Timeout,
            RecvTimeoutError::Disconnected => ClientError::Closed,
        })?;
        serde_json::from_slice::<Value>(&line)
            .ok()
            .filter(|message| message["jsonrpc"] == "2.0")
            .ok_or_else(|| ClientError::NotJsonRpc(String::from_utf8_lossy(&line).into_owned()))
    }
}

impl Drop for McpClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as a line.
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }).to_string()
}

/// The params of an `initialize`.
pub fn hello(version: &str, capabilities: Value) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": capabilities,
        "clientInfo": { "name": "tests", "version": env!("CARGO_PKG_VERSION") },
    })
}
