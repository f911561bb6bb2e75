use rmcp::model::RequestId;
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
