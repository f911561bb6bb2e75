//! MCP over stdin and stdout: one JSON-RPC message a line.
//!
//! rmcp's own transport drops what it cannot read and ends when a message comes too early. This one follows JSON-RPC 2.0 and MCP:
//!
//! - A line that is no JSON, nests too deep or is longer than [`MAX_LINE`] is answered with -32700, JSON that is no message with
//!   -32600, and `params` that are no object with -32602, each with the id if one can be read. A notification or a response is never
//!   answered. An array of messages is refused: only 2025-03-26 had them.
//! - Until `initialize` is answered a request must be `ping` or carry its version in `_meta` (2026-07-28); everything after
//!   `initialize` waits for its answer. Tasks exist in 2026-07-28 only, `initialize` and `ping` only before it.
//! - At most [`MAX_CALLS`] calls are under way or answered and not yet written; a long one counts as several. A further one is
//!   refused at once. Pings need no place, and cancellations and the answers to elicitations are always read.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, GetExtensions, GetMeta,
    JsonRpcMessage, JsonRpcRequest, ProtocolVersion, RequestId, ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::message::{self, Refusal, invalid};
use super::method_not_found;
use crate::sync::lock;

/// The longest line, in bytes: far more than a job with its scripts. Parsed JSON takes up to forty times its length.
const MAX_LINE: usize = 1024 * 1024;

/// The most calls that are under way or have an answer that the client has not taken.
const MAX_CALLS: usize = 1024;

/// The bytes of a call that count as one more call.
const CALL_BYTES: usize = 16 * 1024;

/// Stdin and stdout as rmcp wants them.
pub(crate) struct Stdio {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    session: Arc<Session>,
}

impl Stdio {
    /// Reads until `input`, `output` or `stop` ends; then the receiver fires, and the calls under way may still be answered.
    pub(crate) fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, oneshot::Receiver<()>) {
        let (tx, messages) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let session = Arc::new(Session {
            output: tokio::sync::Mutex::new(Box::new(output)),
            output_closed: Notify::new(),
            answered: Notify::new(),
            permits: Arc::new(Semaphore::new(MAX_CALLS)),
            state: Mutex::default(),
        });
        let reading = Arc::clone(&session);
        tokio::spawn(async move {
            tokio::select! {
                _ = reading.read(BufReader::new(input), tx) => {}
                () = reading.output_closed.notified() => {}
                () = stop => {}
            }
            let _ = ended.send(());
        });
        (Self { messages, session }, end)
    }
}

impl Transport<RoleServer> for Stdio {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        // The permit of a call is kept until its answer is written, so that a client that does not read is not read either.
        let call = self.session.finish(&message);
        self.session.answered.notify_one();
        let session = Arc::clone(&self.session);
        async move {
            let _call = call;
            session.write(&message).await
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.messages.recv().await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of [`MAX_CALLS`]. It travels in the extensions of the request, so that a cancelled call counts while its work goes on.
pub(super) type CallPermit = Arc<OwnedSemaphorePermit>;

/// A line of the input, or why it is none.
type Line = Result<Vec<u8>, Box<Refusal>>;

struct Session {
    output: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    output_closed: Notify,
    /// Tells the reader that a call was answered.
    answered: Notify,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    initialized: bool,
    /// The calls that are to be answered.
    calls: HashMap<RequestId, CallPermit>,
}

impl Session {
    fn finish(&self, message: &ServerJsonRpcMessage) -> Option<CallPermit> {
        let mut state = lock(&self.state);
        match message {
            JsonRpcMessage::Response(response) => {
                let result = &response.result;
                state.initialized |= matches!(result, ServerResult::InitializeResult(_));
                state.calls.remove(&response.id)
            }
            JsonRpcMessage::Error(error) => state.calls.remove(error.id.as_ref()?),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        }
    }

    async fn write(&self, message: &impl Serialize) -> io::Result<()> {
        let mut output = self.output.lock().await;
        // Serialized only now: answers that wait for their turn take less memory so.
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let written = match output.write_all(&line).await {
            Ok(()) => output.flush().await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            self.output_closed.notify_one();
        }
        written
    }

    /// Answers wrong lines, and passes messages on, until the input ends or nobody takes messages or answers.
    async fn read(
        &self,
        mut input: impl AsyncBufRead + Send + Unpin,
        tx: mpsc::Sender<ClientJsonRpcMessage>,
    ) -> Option<()> {
        loop {
            let line = read_line(&mut input).await?;
            match self.accept(line).await {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let hello = match &message {
                        JsonRpcMessage::Request(call) if call.request.method() == "initialize" => {
                            Some(call.id.clone())
                        }
                        _ => None,
                    };
                    tx.send(message).await.ok()?;
                    let is_open = |id: &RequestId| lock(&self.state).calls.contains_key(id);
                    while hello.as_ref().is_some_and(is_open) {
                        self.answered.notified().await;
                    }
                }
                Err(refusal) => {
                    let Refusal { id, error } = *refusal;
                    let code = error.code.0;
                    tracing::warn!(code, "a message was refused: {}", error.message);
                    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
                    self.write(&answer).await.ok()?;
                }
            }
        }
    }

    /// Returns the message of a line, if it is to be passed on. A ping is answered here.
    async fn accept(&self, line: Line) -> Result<Option<ClientJsonRpcMessage>, Box<Refusal>> {
        let line = line?;
        let Some(mut message) = message::parse(&line)? else {
            return Ok(None);
        };
        match &mut message {
            JsonRpcMessage::Request(call) => {
                self.register(call, line.len())
                    .map_err(|error| Refusal::new(call.id.clone().into_json_value(), error))?;
                if call.request.method() == "ping" {
                    let pong = ServerResult::empty(());
                    let pong = ServerJsonRpcMessage::response(pong, call.id.clone());
                    // If this fails the output is closed, and reading ends.
                    self.write(&pong).await.ok();
                    return Ok(None);
                }
            }
            JsonRpcMessage::Notification(notification) => {
                let notification = &notification.notification;
                if let ClientNotification::CancelledNotification(cancelled) = notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    // rmcp does not answer a cancelled call.
                    lock(&self.state).calls.remove(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Ok(Some(message))
    }

    /// Registers a call of this length, or says why it may not be made now. A ping needs no place among the calls.
    fn register(
        &self,
        call: &mut JsonRpcRequest<ClientRequest>,
        length: usize,
    ) -> Result<(), ErrorData> {
        let JsonRpcRequest { id, request, .. } = call;
        let (method, version) = (request.method(), request.get_meta().protocol_version());
        let is_stateless =
            (version.as_ref()).is_some_and(|version| *version >= ProtocolVersion::V_2026_07_28);
        let mut state = lock(&self.state);
        let is_known = match method {
            "initialize" | "ping" => !is_stateless,
            _ => is_stateless || !method.starts_with("tasks/"),
        };
        if !is_known {
            return Err(method_not_found(method));
        }
        // Goes by the method's name: rmcp parses one that lacks its version as a custom request.
        let may_come_first = ["initialize", "ping", "server/discover"].contains(&method);
        if !may_come_first && version.is_none() && !state.initialized {
            let error = "`initialize` comes first; since 2026-07-28 each request carries its version and capabilities in `_meta` instead";
            return Err(ErrorData::invalid_params(error, None));
        }
        if state.calls.contains_key(id) {
            return Err(invalid("a call with this id is under way"));
        }
        if method == "ping" {
            return Ok(());
        }
        let weight = u32::try_from(1 + length / CALL_BYTES).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(weight);
        let permit = Arc::new(permit.map_err(|_| {
            let error =
                format!("{MAX_CALLS} calls are under way; call again when some are answered");
            ErrorData::internal_error(error, None)
        })?);
        request.extensions_mut().insert(Arc::clone(&permit));
        state.calls.insert(id.clone(), permit);
        Ok(())
    }
}

/// Reads a line, of which no more is kept than [`MAX_LINE`]. `None` at the end of the input.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> Option<Line> {
    let mut line = Vec::new();
    let mut is_whole = true;
    loop {
        let mut part = (&mut *input).take(MAX_LINE as u64 + 1);
        let read = part.read_until(b'\n', &mut line).await;
        read.inspect_err(|error| tracing::warn!(%error, "standard input cannot be read"))
            .ok()?;
        match line.pop()? {
            b'\n' if is_whole => return Some(Ok(line)),
            b'\n' => {
                let reason = format!("a message has at most {MAX_LINE} bytes");
                return Some(Err(Refusal::parse_error(Value::Null, reason)));
            }
            _ if line.len() >= MAX_LINE => (is_whole, line) = (false, Vec::new()),
            // The input ends within it.
            _ => return None,
        }
    }
}
