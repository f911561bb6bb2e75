//! Reads a line as a JSON-RPC message, or says what is wrong with it.

use rmcp::model::{
    ClientCapabilities, ClientJsonRpcMessage, ErrorData, JsonObject, JsonRpcMessage, RequestId,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The answer to a line that is no message.
pub(super) struct Refusal {
    pub(super) id: Value,
    pub(super) error: ErrorData,
}

impl Refusal {
    pub(super) fn new(id: Value, error: ErrorData) -> Box<Self> {
        Box::new(Self { id, error })
    }

    pub(super) fn parse_error(id: Value, reason: impl std::fmt::Display) -> Box<Self> {
        let error = ErrorData::parse_error(format!("Parse error: {reason}"), None);
        Self::new(id, error)
    }
}

/// Parses a line as a message. `None` is an empty line, or a malformed notification or response, which is not answered. The
/// error gives a position and nothing of the line, which may hold secrets.
pub(super) fn parse(line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, Box<Refusal>> {
    // Some editors and shells put a byte order mark first (RFC 8259, section 8.1).
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let json = serde_json::from_slice(line);
    let json = json.map_err(|error| Refusal::parse_error(id_of(line), error))?;
    let Value::Object(mut message) = json else {
        let reason = "a message is one object on one line; arrays are not accepted";
        return Err(Refusal::new(Value::Null, invalid(reason)));
    };
    let is_answer = message.contains_key("result") || message.contains_key("error");
    if is_answer && !message.contains_key("method") {
        return Ok(answer(message));
    }
    let id = message.remove("id");
    let is_id = |id: &&Value| id.is_string() || id.is_number();
    let id_or_null = id.as_ref().filter(is_id).cloned().unwrap_or_default();
    let refuse = |error| Err(Refusal::new(id_or_null, error));
    let id = id.map(RequestId::deserialize).transpose();
    let method = message.remove("method").filter(Value::is_string);
    let is_version_2 = message.get("jsonrpc").is_some_and(|it| it == "2.0");
    let (Ok(id), Some(method), true, false) = (id, method, is_version_2, is_answer) else {
        let reason = "a request has `jsonrpc`, \"2.0\", `method`, a string, and `id`, a string or an integer, and no `result` or `error`";
        return refuse(invalid(reason));
    };
    let mut params = message.remove("params").filter(|params| !params.is_null());
    let fits = params.as_ref().is_none_or(|params| {
        params.is_object() && (params["_meta"].is_null() || params["_meta"].is_object())
    });
    if let (Some(Value::Object(params)), true) = (&mut params, method == "initialize") {
        complete_hello(params);
    }
    // The method comes first: rmcp then parses the params as those of this method only.
    let mut body = JsonObject::from_iter([("method".to_owned(), method)]);
    body.extend(params.map(|params| ("params".to_owned(), params)));
    let body = Value::Object(body);
    let Some(id) = id else {
        let notification = serde_json::from_value(body);
        let notification = notification.inspect_err(|_| {
            tracing::warn!("a malformed notification was ignored");
        });
        return Ok(notification.ok().map(JsonRpcMessage::notification));
    };
    if !fits {
        let reason = "`params` is an object, and so is `_meta` in it";
        return refuse(ErrorData::invalid_params(reason, None));
    }
    match serde_json::from_value(body) {
        Ok(request) => Ok(Some(JsonRpcMessage::request(request, id))),
        Err(_) => refuse(invalid("this is not a request")),
    }
}

/// Reads the id of a request whose params are no JSON, such as half of a surrogate pair or an invalid byte: its sender waits.
fn id_of(line: &[u8]) -> Value {
    #[derive(Deserialize)]
    struct Call {
        id: RequestId,
        #[serde(rename = "method")]
        _method: IgnoredAny,
    }
    let call = serde_json::from_slice::<Call>(line);
    call.map_or(Value::Null, |call| call.id.into_json_value())
}

/// Reads the answer to a request of ours. One that cannot be read becomes an error, so that nobody waits for another.
fn answer(mut message: JsonObject) -> Option<ClientJsonRpcMessage> {
    let id = message.get_mut("id")?;
    // Our ids are numbers. Some clients give them back as texts.
    if let Some(number) = id.as_str().and_then(|text| text.parse::<u32>().ok()) {
        *id = number.into();
    }
    let id = RequestId::deserialize(&*id).ok();
    serde_json::from_value(message.into()).ok().or_else(|| {
        tracing::warn!("a malformed response was taken for an error");
        let error = invalid("the answer is not a JSON-RPC response");
        id.map(|id| JsonRpcMessage::error(error, Some(id)))
    })
}

/// Fills in what an `initialize` lacks but its version, and drops unreadable capabilities: neither is a reason to refuse a client.
fn complete_hello(params: &mut JsonObject) {
    let object = |value: Option<Value>| match value {
        Some(Value::Object(fields)) => fields,
        _ => JsonObject::new(),
    };
    let mut capabilities = object(params.remove("capabilities"));
    capabilities.retain(|name, value| {
        let alone = JsonObject::from_iter([(name.clone(), value.clone())]);
        if serde_json::from_value::<ClientCapabilities>(alone.into()).is_ok() {
            return true;
        }
        tracing::warn!(name, "a capability of the client cannot be read");
        // The client can ask its user, whatever else it says about that.
        let asks = name == "elicitation" && value.is_object();
        *value = JsonObject::new().into();
        asks
    });
    let mut client = object(params.remove("clientInfo"));
    client.retain(|_, value| value.is_string());
    for field in ["name", "version"] {
        client.entry(field).or_insert_with(|| "unknown".into());
    }
    params.insert("capabilities".to_owned(), capabilities.into());
    params.insert("clientInfo".to_owned(), client.into());
}

pub(super) fn invalid(reason: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid Request: {reason}"), None)
}

#[cfg(test)]
#[path = "tests/message.rs"]
mod tests;
