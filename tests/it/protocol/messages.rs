//! Single messages: what is no message, and what is one all the same.

use serde_json::{Value, json};

use super::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::raw::{Raw, request};

const MB: usize = 1024 * 1024;

#[test]
fn a_line_that_is_no_json_is_answered_and_logged() {
    let mut raw = Raw::ready();
    let deep = "[".repeat(100_000);
    let closed = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let inside = request(1, "tools/list", json!({})).replace("{}", &closed);
    let lines: [&[u8]; 12] = [
        b"hello",
        b"{",
        b"Content-Length: 120",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"} trailing",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\0ng\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1e999,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\\ud800\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\xff\"}",
        b"\xff\xfe{\0}\0",
        b"\xed\xa0\x80",
        deep.as_bytes(),
        inside.as_bytes(),
    ];
    for (at, line) in lines.into_iter().enumerate() {
        let (code, id, message) = raw.refused(line);
        let start = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        // Of a call whose text or params are the fault the id can be read.
        let known = if [6, 7, 11].contains(&at) {
            json!(1)
        } else {
            Value::Null
        };
        assert_eq!((code, id), (PARSE_ERROR, known), "{start}");
        assert!(message.starts_with("Parse error: "), "{message}");
        assert!(message.len() < 200, "{message}");
        assert!(raw.stderr().contains(&message), "{message} is not logged");
    }
    raw.stays_under(64);
}

#[test]
fn a_line_without_end_is_not_kept_and_is_answered() {
    let mut raw = Raw::ready();
    let part = vec![b'x'; MB];
    for megabytes in [17, 100] {
        let line = part.repeat(megabytes - 1);
        raw.write(&line);
        let (code, id, message) = raw.refused(&part);
        assert_eq!((code, id), (PARSE_ERROR, Value::Null));
        assert!(message.contains("at most 1048576 bytes"), "{message}");
    }
    // The largest that is taken.
    let text = |length: usize| request(1, "nothing", json!({ "text": "x".repeat(length) }));
    let room = MB - text(0).len();
    assert_eq!(raw.refused(text(room)).0, METHOD_NOT_FOUND);
    assert_eq!(raw.refused(text(room + 1)).0, PARSE_ERROR);
    raw.stays_under(64);
}

#[test]
fn a_large_call_is_taken_in_little_memory() {
    let mut raw = Raw::ready();
    for field in ["setup_script", "job_name", "unknown"] {
        let arguments = json!({
            "config_path": "job.yaml", "command": "train", "client_cwd": "/",
            field: "\u{1}\u{e9}".repeat(MB / 10),
        });
        raw.call(1, "run_job", arguments);
        let content = raw.content(1);
        assert_eq!(content["success"], false, "{field}");
        assert!(content["error"].as_str().unwrap().len() < 5000, "{field}");
    }
    raw.call(2, &"x".repeat(MB / 2), json!({}));
    let answer = raw.answer(2);
    assert_eq!(answer["error"]["code"], INVALID_PARAMS);
    assert!(answer["error"]["message"].as_str().unwrap().len() < 5000);
    raw.lives();
    raw.stays_under(64);
}

#[test]
fn json_that_is_no_request_is_refused_with_its_id_where_it_has_one() {
    let mut raw = Raw::ready();
    let without_id = [
        "7",
        "\"ping\"",
        "null",
        "true",
        "{}",
        "[]",
        "[1]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","method":7}"#,
        r#"{"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#,
    ];
    for line in without_id {
        let (code, id, message) = raw.refused(line);
        assert_eq!((code, id), (INVALID_REQUEST, Value::Null), "{line}");
        assert!(message.starts_with("Invalid Request: "), "{message}");
        assert!(raw.stderr().contains(&message), "{message} is not logged");
    }
    let with_id = [
        (r#"{"id":7}"#, json!(7)),
        (r#"{"jsonrpc":"2.0","id":"a"}"#, json!("a")),
        (r#"{"id":7,"method":"ping"}"#, json!(7)),
        (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, json!(7)),
        (r#"{"jsonrpc":2.0,"id":7,"method":"ping"}"#, json!(7)),
        (r#"{"jsonrpc":"2.0","id":7,"method":null}"#, json!(7)),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, json!(1.5)),
        (
            r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"ping"}"#,
            json!(u64::MAX),
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","result":{}}"#,
            json!(7),
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","error":{}}"#,
            json!(7),
        ),
    ];
    for (line, wanted) in with_id {
        let (code, id, _) = raw.refused(line);
        assert_eq!((code, id), (INVALID_REQUEST, wanted), "{line}");
    }
}

#[test]
fn arrays_of_messages_are_refused_in_the_version_that_had_them_too() {
    let mut raw = Raw::start();
    raw.initialize("2025-03-26");
    let (code, id, message) = raw.refused(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#);
    assert_eq!((code, id), (INVALID_REQUEST, Value::Null));
    assert!(message.contains("one object on one line"), "{message}");
}

#[test]
fn params_that_do_not_fit_are_invalid_params() {
    let mut raw = Raw::ready();
    let cases = [
        (r#""method":"tools/call""#, "needs `name`"),
        (r#""method":"tools/call","params":null"#, "needs `name`"),
        (r#""method":"tools/call","params":{}"#, "`name`"),
        (r#""method":"tools/call","params":[]"#, "`params`"),
        (r#""method":"tools/call","params":"list_jobs""#, "`params`"),
        (
            r#""method":"tools/call","params":{"arguments":{}}"#,
            "`name`",
        ),
        (r#""method":"tools/call","params":{"name":7}"#, "`name`"),
        (
            r#""method":"tools/call","params":{"name":"list_jobs","arguments":["secret"]}"#,
            "`arguments`",
        ),
        (
            r#""method":"tools/call","params":{"name":"list_jobs","arguments":"[\"secret\"]"}"#,
            "`arguments`",
        ),
        (
            r#""method":"tools/call","params":{"name":"list_jobs","_meta":7}"#,
            "`_meta`",
        ),
        (r#""method":"initialize","params":{}"#, "initialize"),
        (r#""method":"initialize""#, "initialize"),
    ];
    for (body, word) in cases {
        let (code, id, message) = raw.refused(format!(r#"{{"jsonrpc":"2.0","id":7,{body}}}"#));
        assert_eq!((code, id), (INVALID_PARAMS, json!(7)), "{body}: {message}");
        assert!(message.contains(word), "{body}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert!(!raw.stderr().contains("secret"));
}

#[test]
fn what_is_not_here_is_said_to_be_unknown() {
    let mut raw = Raw::ready();
    let (code, id, message) = raw.refused(request(7, "jobs/destroy", json!({})));
    assert_eq!((code, id), (METHOD_NOT_FOUND, json!(7)));
    assert_eq!(message, "Method not found: jobs/destroy");
    for method in ["prompts/subscribe", "tasks/get", "logging/setLevel"] {
        let params = json!({ "level": "info", "taskId": "x" });
        assert_eq!(
            raw.refused(request(7, method, params)).0,
            METHOD_NOT_FOUND,
            "{method}"
        );
    }
    let unknown = request(
        8,
        "tools/call",
        json!({ "name": "destroy_jobs", "arguments": {} }),
    );
    let (code, id, message) = raw.refused(unknown);
    assert_eq!((code, id), (INVALID_PARAMS, json!(8)));
    assert_eq!(message, "Unknown tool: destroy_jobs");
}

#[test]
fn notifications_and_responses_are_never_answered_however_wrong() {
    let mut raw = Raw::ready();
    let lines = [
        "",
        "   ",
        "\r",
        r#"{"jsonrpc":"2.0","method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","method":"no/such"}"#,
        r#"{"jsonrpc":"2.0","method":"no/such","params":7}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[]}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":7}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"id":99,"error":"no"}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"}}"#,
        r#"{"jsonrpc":"2.0","id":99,"result":{},"error":{}}"#,
    ];
    for line in lines {
        raw.say(line);
        raw.lives();
    }
}

#[test]
fn sloppy_requests_are_understood() {
    let mut raw = Raw::ready();
    let list = request(1, "tools/list", json!({}));
    for line in [
        format!("{list}\r"),
        format!("  {list}  "),
        format!("\u{feff}{list}"),
        request(1, "tools/list", Value::Null),
        request(1, "tools/list", json!({ "_meta": null, "more": 7 })),
        r#"{"method":"tools/list","params":{},"more":7,"id":1.0,"jsonrpc":"2.0"}"#.to_owned(),
        request(1, "tools/call", json!({ "name": "list_jobs" })),
        request(
            1,
            "tools/call",
            json!({ "name": "list_jobs", "arguments": null }),
        ),
    ] {
        raw.say(&line);
        let answer = raw.next();
        assert!(answer["result"].is_object(), "{line}: {answer}");
        assert_eq!(answer["id"], 1);
    }
    for id in [
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(""),
        json!("7"),
        json!(7),
    ] {
        raw.request(id.clone(), "ping", json!({}));
        assert_eq!(
            raw.next(),
            json!({ "jsonrpc": "2.0", "id": id, "result": {} })
        );
    }
}
