//! Reads a line as a JSON-RPC message, or says what is wrong with it.

use rmcp::model::{
    ClientCapabilities, ClientJsonRpcMessage, ErrorData, JsonObject, JsonRpcMessage, RequestId,
};
use serde::Deserialize;
use serde_json::Value;

/// The answer to a line that is no message.
pub(super) struct Refusal {
    pub(super) id: Value,
    pub(super) error: ErrorData,
}

impl Refusal {
    pub(super) fn parse_error(reason: impl std::fmt::Display) -> Box<Self> {
        let error = ErrorData::parse_error(format!("Parse error: {reason}"), None);
        let id = Value::Null;
        Box::new(Self { id, error })
    }
}

/// Parses a line as a message. `None` is an empty line, or a malformed notification or response, which is not answered. The
/// error gives a position and nothing of the line, which may hold secrets.
pub(super) fn parse(line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, Box<Refusal>> {
    // Some editors and shells on Windows put a byte order mark first (RFC 8259, section 8.1).
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let json = serde_json::from_slice(line).map_err(Refusal::parse_error)?;
    let Value::Object(mut message) = json else {
        let reason = "a message is an object, one to a line; arrays of them are not taken";
        let (id, error) = (Value::Null, invalid(reason));
        return Err(Box::new(Refusal { id, error }));
    };
    let is_answer = message.contains_key("result") || message.contains_key("error");
    if is_answer && !message.contains_key("method") {
        return Ok(answer(message));
    }
    let id = message.remove("id");
    let refuse = |error| {
        let is_id = |id: &&Value| id.is_string() || id.is_number();
        let id = id.as_ref().filter(is_id).cloned().unwrap_or_default();
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
    let mut params = message.remove("params").filter(|params| !params.is_null());
    let invalid_reason = params.as_ref().and_then(invalid_params);
    if let (Some("initialize"), Some(Value::Object(params))) = (method.as_str(), &mut params) {
        complete_hello(params);
    }
    // The method first: rmcp then looks at the params of this method only.
    let mut body = JsonObject::from_iter([("method".to_owned(), method)]);
    body.extend(params.map(|params| ("params".to_owned(), params)));
    let Some(id) = id.as_ref() else {
        let notification = serde_json::from_value(Value::Object(body));
        let notification = notification.inspect_err(|_| {
            tracing::warn!("a malformed notification was ignored");
        });
        return Ok(notification.ok().map(JsonRpcMessage::notification));
    };
    let Ok(request_id) = RequestId::deserialize(id) else {
        return refuse(invalid("`id` is a string or an integer"));
    };
    if let Some(reason) = invalid_reason {
        return refuse(ErrorData::invalid_params(reason, None));
    }
    match serde_json::from_value(Value::Object(body)) {
        Ok(request) => Ok(Some(JsonRpcMessage::request(request, request_id))),
        Err(_) => refuse(invalid("this is no request")),
    }
}

/// Reads the answer to a question of ours. Our ids are numbers; some clients give them back as texts. An answer that cannot be
/// read becomes an error, so that nobody waits for another one.
fn answer(mut message: JsonObject) -> Option<ClientJsonRpcMessage> {
    let id = message.get_mut("id")?;
    if let Some(number) = id.as_str().and_then(|text| text.parse::<u32>().ok()) {
        *id = number.into();
    }
    let id = RequestId::deserialize(&*id).ok();
    let parsed = serde_json::from_value(Value::Object(message));
    parsed.ok().or_else(|| {
        tracing::warn!("a malformed response was taken for an error");
        let error = invalid("the answer is no JSON-RPC response");
        id.map(|id| JsonRpcMessage::error(error, Some(id)))
    })
}

/// Fills in what an `initialize` lacks, and drops the capabilities that cannot be read: neither is a reason to refuse a client.
/// Only the version has no default.
fn complete_hello(params: &mut JsonObject) {
    let object = |value: Option<Value>| match value {
        Some(Value::Object(fields)) => fields,
        _ => JsonObject::new(),
    };
    let mut capabilities = object(params.remove("capabilities"));
    capabilities.retain(|name, value| {
        let alone = JsonObject::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<ClientCapabilities>(alone.into()).is_ok()
    });
    let mut client = object(params.remove("clientInfo"));
    client.retain(|_, value| value.is_string());
    for field in ["name", "version"] {
        client.entry(field).or_insert_with(|| "unknown".into());
    }
    params.insert("capabilities".to_owned(), capabilities.into());
    params.insert("clientInfo".to_owned(), client.into());
}

/// Says what is wrong with `params`, whatever the method.
fn invalid_params(params: &Value) -> Option<&'static str> {
    let Value::Object(params) = params else {
        return Some("`params` is an object");
    };
    let meta = params.get("_meta")?;
    (!meta.is_object() && !meta.is_null()).then_some("`_meta` is an object")
}

pub(super) fn invalid(reason: &str) -> ErrorData {
    ErrorData::invalid_request(format!("Invalid Request: {reason}"), None)
}

#[cfg(test)]
#[path = "tests/message.rs"]
mod tests;
