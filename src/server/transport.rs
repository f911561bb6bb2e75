//! MCP over stdin and stdout: one JSON-RPC message a line, whatever is on the other end.
//!
//! The library's own transport drops what it cannot read, ends when a message comes too early, and keeps every answer that
//! nobody takes. This one holds to these rules (JSON-RPC 2.0; MCP base protocol, "Messages" and "Responses"; "Lifecycle";
//! "Transports", stdio; "Cancellation"):
//!
//! - A line that is no JSON in UTF-8, nests deeper than the parser goes, is longer than [`MAX_LINE`] or holds more than
//!   [`MAX_VALUES`] values is answered with -32700 and the id `null`. An empty line is none.
//! - JSON that is no message is answered with -32600, with its id if it has one. An id is a string or an integer, never
//!   `null`; the id of a call under way is not taken twice. `params` that are no object are answered with -32602.
//! - A notification or a response is never answered, however wrong it is.
//! - Several messages in an array are refused as a whole: only 2025-03-26 had them, and no client is known to send them.
//! - Until `initialize` is answered a request must be `ping` or carry its version in `_meta` (2026-07-28); everything after
//!   `initialize` waits for its answer.
//! - The methods of tasks are those of 2026-07-28 and of no version before.
//! - A cancelled call is not answered.
//! - At most [`MAX_CALLS`] calls are under way or answered and not yet taken, and at most [`MAX_LINE`] bytes of them: past
//!   that nothing is read until the client has read.
//! - The end of the input within a line makes that line nothing.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorCode, ErrorData, GetExtensions,
    GetMeta, JsonObject, JsonRpcMessage, JsonRpcRequest, ProtocolVersion, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::sync::lock;

/// The longest line that is read, in bytes. The largest call of ours is a job with its scripts, some KB; what a call needs
/// is a few times its line.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// The most values in one line: `[0,0,…]` takes forty times its length in memory.
pub const MAX_VALUES: usize = 10_000;

/// The most calls that are under way or have an answer that the client has not taken.
pub const MAX_CALLS: u32 = 256;

/// What a line may leave allocated.
const KEPT_LINE: usize = 64 * 1024;

/// Stdin and stdout as the library wants them.
pub struct Stdio {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    session: Arc<Session>,
}

impl Stdio {
    /// Reads `input` and answers on `output`. Reading ends with `input`, when `output` takes nothing more, or with `stop`; the
    /// receiver hears of it, and the calls under way may still be answered.
    pub fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, oneshot::Receiver<()>) {
        let (hand_on, messages) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let session = Arc::new(Session {
            output: tokio::sync::Mutex::new(Box::new(output)),
            output_broke: Notify::new(),
            state: Mutex::default(),
        });
        let reader = Reader {
            session: Arc::clone(&session),
            hand_on,
            room: Arc::new(Semaphore::new(MAX_CALLS as usize)),
        };
        let broken = Arc::clone(&session);
        tokio::spawn(async move {
            tokio::select! {
                () = reader.read(input) => {}
                () = broken.output_broke.notified() => {}
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
        let sent = self.session.outgoing(&message);
        let session = Arc::clone(&self.session);
        async move {
            match sent? {
                // The room of a call is free again once its answer is on its way.
                Some((line, _room)) => session.write(line).await,
                None => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.messages.recv().await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Room for a call, taken up until all that hold it are gone. It travels with the request, in its extensions, so that a call
/// which the client has given up counts as long as it goes on.
pub(crate) type Room = Arc<OwnedSemaphorePermit>;

/// What reading and writing share.
struct Session {
    output: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    output_broke: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `initialize` was answered well.
    initialized: bool,
    calls: HashMap<RequestId, Call>,
}

/// A request that was handed on.
struct Call {
    /// Ends when nothing works on it any more.
    work: Weak<OwnedSemaphorePermit>,
    /// Nothing once the client has given it up.
    waiting: Option<Waiting>,
}

/// What ends when a call is answered or given up.
struct Waiting {
    room: Room,
    /// Told by its end.
    _answered: oneshot::Sender<()>,
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The line to write for a message, with the room its call takes up; nothing when nobody waits for it.
    fn outgoing(
        &self,
        message: &ServerJsonRpcMessage,
    ) -> io::Result<Option<(Vec<u8>, Option<Room>)>> {
        let id = match message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let Some(id) = id else {
            return Ok(Some((serde_json::to_vec(message)?, None)));
        };
        let waiting = {
            let mut state = self.state();
            state.initialized |= matches!(message, JsonRpcMessage::Response(response)
                if matches!(response.result, ServerResult::InitializeResult(_)));
            state.calls.remove(id).and_then(|call| call.waiting)
        };
        let Some(waiting) = waiting else {
            return Ok(None);
        };
        Ok(Some((serde_json::to_vec(message)?, Some(waiting.room))))
    }

    async fn write(&self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let mut output = self.output.lock().await;
        let written = match output.write_all(&line).await {
            Ok(()) => output.flush().await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            self.output_broke.notify_one();
        }
        written
    }
}

/// Reads line after line, answers what is wrong, and hands on the rest. It ends by returning nothing: with the input, or
/// when nobody takes what it hands on.
struct Reader {
    session: Arc<Session>,
    hand_on: mpsc::Sender<ClientJsonRpcMessage>,
    room: Arc<Semaphore>,
}

impl Reader {
    async fn read(self, input: impl AsyncRead + Send + Unpin) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        loop {
            let read = match read_line(&mut input, &mut line).await {
                Ok(Some(read)) => read,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read");
                    return;
                }
            };
            if matches!(read, LineRead::Whole) && line.trim_ascii().is_empty() {
                continue;
            }
            let length = line.len();
            let parsed = match read {
                LineRead::Whole => parse(&line),
                LineRead::TooLong => Err(ErrorData::parse_error(
                    format!("Parse error: a message has at most {MAX_LINE} bytes"),
                    None,
                )),
            };
            line.clear();
            line.shrink_to(KEPT_LINE);
            let gone_on = match parsed.map_err(Refusal::without_id).and_then(message_of) {
                Err(refusal) => self.refuse(*refusal).await,
                Ok(Some(JsonRpcMessage::Request(call))) => self.call(call, length).await,
                Ok(Some(message)) => self.pass(message).await,
                Ok(None) => Some(()),
            };
            if gone_on.is_none() {
                return;
            }
        }
    }

    async fn call(&self, mut call: JsonRpcRequest<ClientRequest>, length: usize) -> Option<()> {
        let room = self.room_for(length).await?;
        let answered = match self.accept(&mut call, room) {
            Ok(answered) => answered,
            Err(error) => return self.refuse(Refusal::of(call.id, error)).await,
        };
        let is_hello = matches!(call.request, ClientRequest::InitializeRequest(_));
        self.hand_on
            .send(JsonRpcMessage::Request(call))
            .await
            .ok()?;
        if is_hello {
            let _ = answered.await;
        }
        Some(())
    }

    /// Room for a call: one of [`MAX_CALLS`], and its part of [`MAX_LINE`].
    async fn room_for(&self, length: usize) -> Option<Room> {
        let part = length * (MAX_CALLS as usize - 1) / MAX_LINE;
        let wanted = u32::try_from(1 + part).unwrap_or(MAX_CALLS).min(MAX_CALLS);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await;
        room.ok().map(Arc::new)
    }

    /// Enters a call, unless it may not be made now. What is returned ends with the call.
    fn accept(
        &self,
        call: &mut JsonRpcRequest<ClientRequest>,
        room: Room,
    ) -> Result<oneshot::Receiver<()>, ErrorData> {
        let JsonRpcRequest { id, request, .. } = call;
        let needs_no_hello = matches!(
            request,
            ClientRequest::InitializeRequest(_)
                | ClientRequest::PingRequest(_)
                | ClientRequest::DiscoverRequest(_)
        ) || request.get_meta().protocol_version().is_some();
        let mut state = self.session.state();
        if !state.initialized && !needs_no_hello {
            let error = "`initialize` comes first; since 2026-07-28 each request carries its version and capabilities in `_meta` instead";
            return Err(ErrorData::invalid_params(error, None));
        }
        // The library would tell a session that it lacks a capability, of which it has never heard.
        if request.method().starts_with("tasks/") && !is_stateless(request) {
            let error = format!("Method not found: {}", request.method());
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None));
        }
        // The calls that were given up and have ended since.
        let over = |call: &Call| call.waiting.is_none() && call.work.strong_count() == 0;
        state.calls.retain(|_, call| !over(call));
        if state.calls.contains_key(id) {
            return Err(invalid("this id is that of a call under way"));
        }
        request.extensions_mut().insert(Arc::clone(&room));
        let (answered, ends) = oneshot::channel();
        let call = Call {
            work: Arc::downgrade(&room),
            waiting: Some(Waiting {
                room,
                _answered: answered,
            }),
        };
        state.calls.insert(id.clone(), call);
        Ok(ends)
    }

    /// Hands on a notification or a response. Who gives up a call gets no answer to it; its id stays taken while something
    /// works on it.
    async fn pass(&self, message: ClientJsonRpcMessage) -> Option<()> {
        if let JsonRpcMessage::Notification(notification) = &message
            && let ClientNotification::CancelledNotification(cancelled) = &notification.notification
            && let Some(id) = &cancelled.params.request_id
            && let Some(call) = self.session.state().calls.get_mut(id)
        {
            call.waiting = None;
        }
        self.hand_on.send(message).await.ok()
    }

    async fn refuse(&self, Refusal { id, error }: Refusal) -> Option<()> {
        tracing::warn!(
            code = error.code.0,
            "a message was refused: {}",
            error.message
        );
        let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        let line = answer.to_string().into_bytes();
        self.session.write(line).await.ok()
    }
}

/// Whether a request is of a version without sessions, as it says itself.
fn is_stateless(request: &ClientRequest) -> bool {
    let version = request.get_meta().protocol_version();
    version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

enum LineRead {
    /// The line is there, without its end.
    Whole,
    /// It was longer than [`MAX_LINE`], and is gone.
    TooLong,
}

/// Reads the next line into `line`, which is empty. Nothing at the end of the input, within a line too.
async fn read_line(
    input: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<Option<LineRead>> {
    let mut too_long = false;
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if too_long || line.len() + part.len() > MAX_LINE {
            too_long = true;
            *line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let read = part.len() + usize::from(end.is_some());
        input.consume(read);
        if end.is_some() {
            return Ok(Some(if too_long {
                LineRead::TooLong
            } else {
                LineRead::Whole
            }));
        }
    }
}

/// A line as JSON. The reasons hold positions and nothing of the line, which may hold secrets.
fn parse(line: &[u8]) -> Result<Value, ErrorData> {
    let wrong = |reason: String| ErrorData::parse_error(format!("Parse error: {reason}"), None);
    // Some editors and shells on Windows put a byte order mark first (RFC 8259, section 8.1).
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?;
    if has_more_values_than(MAX_VALUES, text) {
        return Err(wrong(format!("more than {MAX_VALUES} values")));
    }
    serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
}

/// Whether a text of JSON holds more values than `most`, counted without building them: each but the first stands behind
/// one of `,`, `:`, `[` outside of strings.
fn has_more_values_than(most: usize, text: &str) -> bool {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' if !in_string => values += 1,
            _ => {}
        }
    }
    values > most
}

/// What is answered to a message that is none.
struct Refusal {
    /// The message's id, or `null` where it has none that can stand in an answer.
    id: Value,
    error: ErrorData,
}

impl Refusal {
    fn of(id: RequestId, error: ErrorData) -> Self {
        let id = id.into_json_value();
        Self { id, error }
    }

    fn without_id(error: ErrorData) -> Box<Self> {
        let id = Value::Null;
        Box::new(Self { id, error })
    }
}

/// The message that a client's JSON is; nothing for one that is wrong and is yet not to be answered.
fn message_of(json: Value) -> Result<Option<ClientJsonRpcMessage>, Box<Refusal>> {
    let Value::Object(mut said) = json else {
        let reason = "a message is an object, one to a line; arrays of them are not taken";
        return Err(Refusal::without_id(invalid(reason)));
    };
    let is_answer = said.contains_key("result") || said.contains_key("error");
    if is_answer && !said.contains_key("method") {
        return Ok(unless_wrong(serde_json::from_value(Value::Object(said))));
    }
    let id = said.remove("id");
    let refuse = |error| {
        let id = id.clone().filter(|id| id.is_string() || id.is_number());
        let id = id.unwrap_or(Value::Null);
        Err(Box::new(Refusal { id, error }))
    };
    if said.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return refuse(invalid("`jsonrpc` is \"2.0\""));
    }
    let Some(method) = said.remove("method").filter(Value::is_string) else {
        return refuse(invalid("a request has a `method`, a string"));
    };
    if is_answer {
        return refuse(invalid("a request has no `result` and no `error`"));
    }
    let params = said.remove("params").filter(|params| !params.is_null());
    let unfit = params.as_ref().and_then(unfit_params);
    // The method first, so that the library need not look at the params for each method it knows.
    let mut body = JsonObject::from_iter([("method".to_owned(), method)]);
    body.extend(params.map(|params| ("params".to_owned(), params)));
    let Some(id) = &id else {
        let notification = serde_json::from_value(Value::Object(body));
        return Ok(unless_wrong(notification.map(JsonRpcMessage::notification)));
    };
    let Ok(id) = RequestId::deserialize(id) else {
        return refuse(invalid("`id` is a string or an integer"));
    };
    if let Some(reason) = unfit {
        return refuse(ErrorData::invalid_params(reason, None));
    }
    match serde_json::from_value(Value::Object(body)) {
        Ok(request) => Ok(Some(JsonRpcMessage::request(request, id))),
        Err(_) => refuse(invalid("this is no request")),
    }
}

/// A notification or a response: nobody answers it, however wrong it is.
fn unless_wrong(message: serde_json::Result<ClientJsonRpcMessage>) -> Option<ClientJsonRpcMessage> {
    if message.is_err() {
        tracing::warn!("a notification or a response was ignored: it is wrong");
    }
    message.ok()
}

/// What is wrong with `params` whatever the method.
fn unfit_params(params: &Value) -> Option<&'static str> {
    let Value::Object(params) = params else {
        return Some("`params` is an object");
    };
    let meta = params.get("_meta")?;
    (!meta.is_object() && !meta.is_null()).then_some("`_meta` is an object")
}

fn invalid(reason: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid Request: {reason}"), None)
}
