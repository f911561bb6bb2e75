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
//! - At most [`MAX_CALLS`] calls are under way or answered and not yet written; a long one counts as several. A further one is
//!   refused at once, and a ping needs no place among them: cancellations and the answers to elicitations are always read.
//! - The end of the input within a line discards that line.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures::StreamExt;
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, EmptyObject, ErrorCode, ErrorData,
    GetExtensions, GetMeta, JsonRpcMessage, JsonRpcRequest, ProtocolVersion, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::Transport;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

use super::message::{self, Refusal, invalid};
use crate::sync::lock;

/// The longest line that is read, in bytes. The largest call of ours is a job with its scripts, some KB; parsed JSON takes up
/// to forty times its length in memory.
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
    /// Reads `input` and answers on `output`. Reading ends with `input`, when `output` is closed, or with `stop`; the receiver
    /// then fires, and the calls under way may still be answered.
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

/// The state that reading and writing share.
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

    async fn write(&self, message: &impl Serialize) -> io::Result<()> {
        let mut output = self.output.lock().await;
        // Only now: answers that wait for their turn take less room unwritten.
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
            let (parsed, length) = match line.ok()? {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => (message::parse(&line), line.len()),
                Err(refusal) => (Err(refusal), 0),
            };
            match parsed {
                Err(refusal) => self.refuse(*refusal).await?,
                Ok(Some(JsonRpcMessage::Request(call))) => self.call(call, length).await?,
                Ok(Some(message)) => self.forward(message).await?,
                Ok(None) => {}
            }
        }
    }

    async fn call(&self, mut call: JsonRpcRequest<ClientRequest>, length: usize) -> Option<()> {
        let answered = match self.accept(&mut call, length) {
            Ok(Some(answered)) => answered,
            Ok(None) => {
                let pong = ServerResult::EmptyResult(EmptyObject {});
                let pong: ServerJsonRpcMessage = JsonRpcMessage::response(pong, call.id);
                return self.session.write(&pong).await.ok();
            }
            Err(error) => {
                let id = call.id.into_json_value();
                return self.refuse(Refusal { id, error }).await;
            }
        };
        let is_initialize = matches!(call.request, ClientRequest::InitializeRequest(_));
        self.tx.send(JsonRpcMessage::Request(call)).await.ok()?;
        if is_initialize {
            let _ = answered.await;
        }
        Some(())
    }

    /// Registers a call of this length, or says why it may not be made now. The receiver ends when the call is answered. A ping
    /// is not registered: it is answered here.
    fn accept(
        &self,
        call: &mut JsonRpcRequest<ClientRequest>,
        length: usize,
    ) -> Result<Option<oneshot::Receiver<()>>, ErrorData> {
        let JsonRpcRequest { id, request, .. } = call;
        let version = request.get_meta().protocol_version();
        let is_stateless =
            (version.as_ref()).is_some_and(|version| *version >= ProtocolVersion::V_2026_07_28);
        let may_come_first = version.is_some()
            || matches!(
                request,
                ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_)
            )
            // By its method: one that lacks its version is a custom request to rmcp.
            || request.method() == "initialize";
        if !may_come_first && !self.session.state().initialized {
            let error = "`initialize` comes first; since 2026-07-28 each request carries its version and capabilities in `_meta` instead";
            return Err(ErrorData::invalid_params(error, None));
        }
        // rmcp would name a missing capability, of which these versions have never heard.
        if request.method().starts_with("tasks/") && !is_stateless {
            let error = format!("Method not found: {}", request.method());
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None));
        }
        let mut state = self.session.state();
        state
            .calls
            .retain(|_, call| call.unanswered.is_some() || call.work.strong_count() > 0);
        if state.calls.contains_key(id) {
            return Err(invalid("this id is that of a call under way"));
        }
        if !is_stateless && matches!(request, ClientRequest::PingRequest(_)) {
            return Ok(None);
        }
        let weight = u32::try_from(1 + length / CALL_BYTES).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(weight);
        let permit = Arc::new(permit.map_err(|_| {
            let error =
                format!("{MAX_CALLS} calls are under way; call again when some are answered");
            ErrorData::internal_error(error, None)
        })?);
        request.extensions_mut().insert(Arc::clone(&permit));
        let (answered, end) = oneshot::channel();
        let call = Call {
            work: Arc::downgrade(&permit),
            unanswered: Some((permit, answered)),
        };
        state.calls.insert(id.clone(), call);
        Ok(Some(end))
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
        self.session.write(&answer).await.ok()
    }
}

/// Splits the input into lines. What is wrong with one is an item, after which reading goes on.
struct WholeLines(LinesCodec);

impl Decoder for WholeLines {
    type Item = Result<String, Box<Refusal>>;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(match self.0.decode(buffer) {
            Ok(line) => line.map(Ok),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                let reason = format!("a message has at most {MAX_LINE} bytes");
                Some(Err(Refusal::parse_error(reason)))
            }
            Err(LinesCodecError::Io(_)) => Some(Err(Refusal::parse_error("the line is not UTF-8"))),
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
