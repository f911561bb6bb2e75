//! MCP over stdin and stdout: one JSON-RPC message a line.
//!
//! rmcp's own transport drops what it cannot read and ends when a message comes too early. This one follows JSON-RPC 2.0 and MCP
//! (base protocol, lifecycle, stdio, cancellation) in these points:
//!
//! - A line that is no JSON in UTF-8, nests too deep or is longer than [`MAX_LINE`] is answered with -32700 and the id `null`.
//!   An empty line is ignored.
//! - JSON that is no message is answered with -32600, with its id if it has one. An id is a string or an integer; the id of a
//!   call under way is refused. `params` that are no object are answered with -32602.
//! - A notification or a response is never answered, however wrong it is.
//! - An array of messages is refused: only 2025-03-26 had them, and no client is known to send them.
//! - Until `initialize` is answered a request must be `ping` or carry its version in `_meta` (2026-07-28); everything after
//!   `initialize` waits for its answer.
//! - The methods of tasks exist in 2026-07-28 only.
//! - A cancelled call is not answered.
//! - At most [`MAX_CALLS`] calls are under way or answered and not yet written. A further one waits for [`PERMIT_WAIT`] and is
//!   then refused, so that cancellations and the answers to elicitations are still read.
//! - The end of the input within a line discards that line.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures::StreamExt;
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorCode, ErrorData, GetExtensions,
    GetMeta, JsonObject, JsonRpcMessage, JsonRpcRequest, ProtocolVersion, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

use crate::sync::lock;

/// The longest line that is read, in bytes. The largest call of ours is a job with its scripts, some KB; parsed JSON takes up
/// to forty times its length in memory.
const MAX_LINE: usize = 1024 * 1024;

/// The most calls that are under way or have an answer that the client has not taken.
const MAX_CALLS: usize = 256;

/// How long a call waits for one of [`MAX_CALLS`] to end. A burst of short calls gets through; behind long ones reading goes on.
const PERMIT_WAIT: Duration = Duration::from_millis(200);

/// Stdin and stdout as rmcp wants them.
pub struct Stdio {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    session: Arc<Session>,
}

impl Stdio {
    /// Reads `input` and answers on `output`. Reading ends with `input`, when `output` is closed, or with `stop`; the receiver
    /// then fires, and the calls under way may still be answered.
    pub fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, oneshot::Receiver<()>) {
        let (tx, messages) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let session = Arc::new(Session {
            output: tokio::sync::Mutex::new(Box::new(output)),
            output_closed: Notify::new(),
            state: Mutex::default(),
        });
        let reader = Reader {
            session: Arc::clone(&session),
            tx,
            permits: Arc::new(Semaphore::new(MAX_CALLS)),
        };
        let writing = Arc::clone(&session);
        tokio::spawn(async move {
            tokio::select! {
                _ = reader.read(input) => {}
                () = writing.output_closed.notified() => {}
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
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let call = answered.map(|id| self.session.finish(id, &message));
        let session = Arc::clone(&self.session);
        async move {
            // The permit of a call is kept until its answer is written, so that a client that does not read is not read either.
            let _permit = match call {
                Some(None) => return Ok(()),
                Some(permit) => permit,
                None => None,
            };
            session.write(serde_json::to_vec(&message)?).await
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

/// What reading and writing share.
struct Session {
    output: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    output_closed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    initialized: bool,
    calls: HashMap<RequestId, Call>,
}

/// A request that was passed to rmcp.
struct Call {
    work: Weak<OwnedSemaphorePermit>,
    /// `None` once the client has cancelled the call.
    unanswered: Option<(CallPermit, oneshot::Sender<()>)>,
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Removes an answered call and returns its permit; `None` if the client waits for no answer to this id.
    fn finish(&self, id: &RequestId, message: &ServerJsonRpcMessage) -> Option<CallPermit> {
        let mut state = self.state();
        state.initialized |= matches!(message, JsonRpcMessage::Response(response)
            if matches!(response.result, ServerResult::InitializeResult(_)));
        let (permit, _answered) = state.calls.remove(id)?.unanswered?;
        Some(permit)
    }

    async fn write(&self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let mut output = self.output.lock().await;
        let written = match output.write_all(&line).await {
            Ok(()) => output.flush().await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            self.output_closed.notify_one();
        }
        written
    }
}

/// Reads lines, answers those that are wrong, and passes the messages on.
struct Reader {
    session: Arc<Session>,
    tx: mpsc::Sender<ClientJsonRpcMessage>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// Returns `None` at the end of the input, or when nobody takes the messages or the answers.
    async fn read(self, input: impl AsyncRead + Send + Unpin) -> Option<()> {
        let codec = LinesCodec::new_with_max_length(MAX_LINE);
        let mut lines = FramedRead::new(input, WholeLines(codec));
        loop {
            let line = lines.next().await?.inspect_err(|error| {
                tracing::warn!(%error, "standard input cannot be read");
            });
            let parsed = match line.ok()? {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => parse(&line),
                Err(reason) => Err(parse_error(reason)),
            };
            match parsed.map_err(Refusal::without_id).and_then(message_of) {
                Err(refusal) => self.refuse(*refusal).await?,
                Ok(Some(JsonRpcMessage::Request(call))) => self.call(call).await?,
                Ok(Some(message)) => self.forward(message).await?,
                Ok(None) => {}
            }
        }
    }

    async fn call(&self, mut call: JsonRpcRequest<ClientRequest>) -> Option<()> {
        let answered = match self.accept(&mut call).await {
            Ok(answered) => answered,
            Err(error) => return self.refuse(Refusal::new(call.id, error)).await,
        };
        let is_initialize = matches!(call.request, ClientRequest::InitializeRequest(_));
        self.tx.send(JsonRpcMessage::Request(call)).await.ok()?;
        if is_initialize {
            let _ = answered.await;
        }
        Some(())
    }

    /// Registers a call, or says why it may not be made now. The receiver ends when the call is answered.
    async fn accept(
        &self,
        call: &mut JsonRpcRequest<ClientRequest>,
    ) -> Result<oneshot::Receiver<()>, ErrorData> {
        let JsonRpcRequest { id, request, .. } = call;
        let version = request.get_meta().protocol_version();
        let is_stateless =
            (version.as_ref()).is_some_and(|version| *version >= ProtocolVersion::V_2026_07_28);
        let may_come_first = version.is_some()
            || matches!(
                request,
                ClientRequest::InitializeRequest(_)
                    | ClientRequest::PingRequest(_)
                    | ClientRequest::DiscoverRequest(_)
            );
        if !may_come_first && !self.session.state().initialized {
            let error = "`initialize` comes first; since 2026-07-28 each request carries its version and capabilities in `_meta` instead";
            return Err(ErrorData::invalid_params(error, None));
        }
        // rmcp would name a missing capability, of which these versions have never heard.
        if request.method().starts_with("tasks/") && !is_stateless {
            let error = format!("Method not found: {}", request.method());
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None));
        }
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(PERMIT_WAIT, permit).await else {
            let error =
                format!("{MAX_CALLS} calls are under way; call again when some are answered");
            return Err(ErrorData::internal_error(error, None));
        };
        let permit = Arc::new(permit);
        let mut state = self.session.state();
        state
            .calls
            .retain(|_, call| call.unanswered.is_some() || call.work.strong_count() > 0);
        if state.calls.contains_key(id) {
            return Err(invalid("this id is that of a call under way"));
        }
        request.extensions_mut().insert(Arc::clone(&permit));
        let (answered, end) = oneshot::channel();
        let call = Call {
            work: Arc::downgrade(&permit),
            unanswered: Some((permit, answered)),
        };
        state.calls.insert(id.clone(), call);
        Ok(end)
    }

    /// Passes a notification or a response on. A cancelled call is answered no more; its id stays in use while its work goes on.
    async fn forward(&self, message: ClientJsonRpcMessage) -> Option<()> {
        if let JsonRpcMessage::Notification(notification) = &message
            && let ClientNotification::CancelledNotification(cancelled) = &notification.notification
            && let Some(id) = &cancelled.params.request_id
            && let Some(call) = self.session.state().calls.get_mut(id)
        {
            call.unanswered = None;
        }
        self.tx.send(message).await.ok()
    }

    async fn refuse(&self, Refusal { id, error }: Refusal) -> Option<()> {
        let code = error.code.0;
        tracing::warn!(code, "a message was refused: {}", error.message);
        let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        self.session
            .write(answer.to_string().into_bytes())
            .await
            .ok()
    }
}

/// Splits the input into lines. What is wrong with one is an item, after which reading goes on.
struct WholeLines(LinesCodec);

impl Decoder for WholeLines {
    type Item = Result<String, String>;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(match self.0.decode(buffer) {
            Ok(line) => line.map(Ok),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                Some(Err(format!("a message has at most {MAX_LINE} bytes")))
            }
            Err(LinesCodecError::Io(_)) => Some(Err("the line is not UTF-8".to_owned())),
        })
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let line = self.decode(buffer)?;
        if line.is_none() {
            buffer.clear();
        }
        Ok(line)
    }
}

/// Parses a line as JSON. The error gives a position and nothing of the line, which may hold secrets.
fn parse(line: &str) -> Result<Value, ErrorData> {
    // Some editors and shells on Windows put a byte order mark first (RFC 8259, section 8.1).
    serde_json::from_str(line.trim_start_matches('\u{feff}'))
        .map_err(|error| parse_error(error.to_string()))
}

fn parse_error(reason: String) -> ErrorData {
    ErrorData::parse_error(format!("Parse error: {reason}"), None)
}

/// The answer to a line that is no message.
struct Refusal {
    id: Value,
    error: ErrorData,
}

impl Refusal {
    fn new(id: RequestId, error: ErrorData) -> Self {
        let id = id.into_json_value();
        Self { id, error }
    }

    fn without_id(error: ErrorData) -> Box<Self> {
        let id = Value::Null;
        Box::new(Self { id, error })
    }
}

/// Reads a JSON value as a message. `None` is a wrong notification or response, which is not answered.
fn message_of(json: Value) -> Result<Option<ClientJsonRpcMessage>, Box<Refusal>> {
    let Value::Object(mut message) = json else {
        let reason = "a message is an object, one to a line; arrays of them are not taken";
        return Err(Refusal::without_id(invalid(reason)));
    };
    let is_answer = message.contains_key("result") || message.contains_key("error");
    if is_answer && !message.contains_key("method") {
        return Ok(ok_or_log(serde_json::from_value(Value::Object(message))));
    }
    let id = message.remove("id");
    let refuse = |error| {
        let id = id.clone().filter(|id| id.is_string() || id.is_number());
        let id = id.unwrap_or(Value::Null);
        Err(Box::new(Refusal { id, error }))
    };
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return refuse(invalid("`jsonrpc` is \"2.0\""));
    }
    let Some(method) = message.remove("method").filter(Value::is_string) else {
        return refuse(invalid("a request has a `method`, a string"));
    };
    if is_answer {
        return refuse(invalid("a request has no `result` and no `error`"));
    }
    let params = message.remove("params").filter(|params| !params.is_null());
    let invalid_reason = params.as_ref().and_then(invalid_params);
    // The method first: rmcp then looks at the params of this method only.
    let mut body = JsonObject::from_iter([("method".to_owned(), method)]);
    body.extend(params.map(|params| ("params".to_owned(), params)));
    let Some(id) = &id else {
        let notification = serde_json::from_value(Value::Object(body));
        return Ok(ok_or_log(notification.map(JsonRpcMessage::notification)));
    };
    let Ok(id) = RequestId::deserialize(id) else {
        return refuse(invalid("`id` is a string or an integer"));
    };
    if let Some(reason) = invalid_reason {
        return refuse(ErrorData::invalid_params(reason, None));
    }
    match serde_json::from_value(Value::Object(body)) {
        Ok(request) => Ok(Some(JsonRpcMessage::request(request, id))),
        Err(_) => refuse(invalid("this is no request")),
    }
}

fn ok_or_log(parsed: serde_json::Result<ClientJsonRpcMessage>) -> Option<ClientJsonRpcMessage> {
    if parsed.is_err() {
        tracing::warn!("a malformed notification or response was ignored");
    }
    parsed.ok()
}

/// Says what is wrong with `params`, whatever the method.
fn invalid_params(params: &Value) -> Option<&'static str> {
    let Value::Object(params) = params else {
        return Some("`params` is an object");
    };
    let meta = params.get("_meta")?;
    (!meta.is_object() && !meta.is_null()).then_some("`_meta` is an object")
}

fn invalid(reason: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid Request: {reason}"), None)
}
