use rmcp::model::{ClientRequest, RequestId};
use serde_json::json;

use super::*;

fn parsed(message: Value) -> Option<ClientJsonRpcMessage> {
    parse(message.to_string().as_bytes()).ok().unwrap()
}

#[test]
fn an_answer_is_that_to_the_question_with_the_number_of_its_id() {
    for id in [json!(3), json!("3"), json!(3.0)] {
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "action": "accept" } });
        let Some(JsonRpcMessage::Response(response)) = parsed(answer) else {
            panic!("{id} is no answer");
        };
        assert_eq!(response.id, RequestId::Number(3), "{id}");
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -1, "message": "no" } });
        let Some(JsonRpcMessage::Error(error)) = parsed(error) else {
            panic!("{id} is no error");
        };
        assert_eq!(error.id, Some(RequestId::Number(3)), "{id}");
    }
}

#[test]
fn a_request_that_is_no_json_is_answered_with_its_id() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for params in [&b"\"\\ud800\""[..], b"\"\xff\"", deep.as_bytes()] {
        let id = |call: &[u8]| parse(&[call, params, b"}"].concat()).unwrap_err().id;
        let request = br#"{"jsonrpc": "2.0", "id": "a", "method": "ping", "params": "#;
        assert_eq!(id(request), "a");
        // The client waits for no answer to its own.
        assert_eq!(
            id(br#"{"jsonrpc": "2.0", "id": 1, "result": "#),
            Value::Null
        );
        assert_eq!(
            id(br#"{"jsonrpc": "2.0", "id": 1.5, "method": "#),
            Value::Null
        );
    }
}

#[test]
fn a_malformed_answer_is_an_error_and_no_silence() {
    for answer in [
        json!({ "id": "3", "result": {} }),
        json!({ "jsonrpc": "2.0", "id": 3, "error": "no" }),
        json!({ "jsonrpc": "2.0", "id": "3", "error": { "message": "no code" } }),
        json!({ "jsonrpc": "1.0", "id": 3, "result": { "action": "accept" } }),
    ] {
        let Some(JsonRpcMessage::Error(error)) = parsed(answer.clone()) else {
            panic!("{answer} is no error");
        };
        assert_eq!(error.id, Some(RequestId::Number(3)), "{answer}");
    }
    assert!(parsed(json!({ "jsonrpc": "2.0", "id": [], "error": "no" })).is_none());
}

#[test]
fn an_initialize_needs_only_its_version() {
    for (hello, name) in [
        (json!({}), "unknown"),
        (
            json!({ "clientInfo": null, "capabilities": null }),
            "unknown",
        ),
        (json!({ "clientInfo": "me", "capabilities": [] }), "unknown"),
        (json!({ "clientInfo": { "name": "me" } }), "me"),
        (
            json!({ "clientInfo": { "name": "me", "version": 1, "icons": 7 } }),
            "me",
        ),
    ] {
        let mut params = hello.clone();
        params["protocolVersion"] = json!("2025-06-18");
        let message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let Some(JsonRpcMessage::Request(request)) = parsed(message) else {
            panic!("{hello} is no request");
        };
        let ClientRequest::InitializeRequest(hello) = request.request else {
            panic!("{hello} is not read as an initialize");
        };
        assert_eq!(hello.params.client_info.name, name);
    }
}

#[test]
fn capabilities_that_cannot_be_read_are_dropped_alone() {
    for (elicitation, can_ask) in [
        (json!({ "form": {} }), true),
        (json!({ "form": 7 }), true),
        (json!(true), false),
    ] {
        let hello = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "roots": true, "elicitation": elicitation, "sampling": 7, "experimental": [] },
        });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello });
        let Some(JsonRpcMessage::Request(request)) = parsed(message) else {
            panic!("it is no request");
        };
        let ClientRequest::InitializeRequest(hello) = request.request else {
            panic!("it is not read as an initialize");
        };
        let capabilities = hello.params.capabilities;
        assert_eq!(capabilities.elicitation.is_some(), can_ask, "{elicitation}");
        assert!(capabilities.roots.is_none());
    }
}
