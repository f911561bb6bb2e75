//! The five versions of the protocol, and what comes before one is agreed on.

use serde_json::{Value, json};

use super::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::raw::{Raw, initialize, meta, request};

#[test]
fn what_comes_before_initialize_ends_nothing() {
    let mut raw = Raw::start();
    for line in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
        r#"{"jsonrpc":"2.0","method":"no/such"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"no"}}"#,
    ] {
        raw.say(line);
    }
    for (line, code) in [
        ("hello", PARSE_ERROR),
        ("{}", INVALID_REQUEST),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_jobs"}}"#,
            INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#,
            INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#,
            INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            INVALID_PARAMS,
        ),
    ] {
        raw.say(line);
        let answer = raw.next();
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
    }
    raw.request(2, "ping", json!({}));
    assert_eq!(raw.next()["result"], json!({}));
    raw.initialize("2025-11-25");
    raw.lives();
}

#[test]
fn an_initialize_that_lacks_something_is_answered() {
    for lacking in ["clientInfo", "capabilities"] {
        let mut raw = Raw::start();
        let mut hello: Value = serde_json::from_str(&initialize(1, "2025-06-18")).unwrap();
        hello["params"].as_object_mut().unwrap().remove(lacking);
        raw.say(hello.to_string());
        assert_eq!(
            raw.answer(1)["result"]["protocolVersion"],
            "2025-06-18",
            "{lacking}"
        );
        raw.lives();
    }
    let mut raw = Raw::start();
    let mut hello: Value = serde_json::from_str(&initialize(1, "2025-06-18")).unwrap();
    hello["params"]
        .as_object_mut()
        .unwrap()
        .remove("protocolVersion");
    raw.say(hello.to_string());
    let error = raw.next()["error"].clone();
    assert_eq!(error["code"], INVALID_PARAMS);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("`protocolVersion`"), "{message}");
}

#[test]
fn what_follows_initialize_at_once_waits_for_its_answer() {
    let mut raw = Raw::start();
    let call = request(2, "tools/call", json!({ "name": "list_jobs" }));
    let lines = [
        initialize(1, "2025-06-18"),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        call,
        request(3, "ping", json!({})),
    ];
    raw.say(lines.join("\n"));
    assert_eq!(raw.next()["id"], 1);
    assert_eq!(raw.content(2)["jobs"], json!([]));
    assert_eq!(raw.answer(3)["result"], json!({}));
}

#[test]
fn each_version_with_initialize_is_spoken() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut raw = Raw::start();
        let hello = raw.initialize(version);
        assert_eq!(hello["protocolVersion"], version);
        assert_eq!(hello["serverInfo"]["name"], "oumi-mcp-server");
        raw.request(1, "tools/list", json!({}));
        let tools = raw.answer(1);
        assert!(tools["result"]["tools"].as_array().unwrap().len() >= 5);
        assert!(tools["result"].get("resultType").is_none(), "{tools}");
        raw.request(2, "ping", json!({}));
        assert_eq!(raw.answer(2)["result"], json!({}));
        raw.lives();
    }
    // One that nobody knows, and one that has no initialize, are answered with the newest that has.
    for version in ["2099-01-01", "2026-07-28", "1.0"] {
        let mut raw = Raw::start();
        assert_eq!(raw.initialize(version)["protocolVersion"], "2025-11-25");
        raw.request(1, "ping", json!({}));
        assert_eq!(raw.answer(1)["result"], json!({}));
        raw.request(2, "tools/list", json!({}));
        assert!(raw.answer(2)["result"].get("resultType").is_none());
        raw.lives();
    }
}

#[test]
fn the_version_without_initialize_is_spoken_beside_the_others() {
    let mut raw = Raw::start();
    let with_meta = |more: Value| {
        let mut params = json!({ "_meta": meta("2026-07-28") });
        params
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        params
    };
    let stateless = |raw: &mut Raw, id: &str| {
        raw.request(id, "tools/list", with_meta(json!({})));
        let tools = raw.answer(id)["result"].clone();
        assert_eq!(tools["resultType"], "complete", "{tools}");
        assert!(tools.get("ttlMs").is_some(), "{tools}");
        let call = with_meta(json!({ "name": "list_jobs", "arguments": {} }));
        raw.request(id, "tools/call", call);
        let answer = raw.answer(id)["result"].clone();
        assert_eq!(answer["resultType"], "complete", "{answer}");
        assert_eq!(answer["structuredContent"]["jobs"], json!([]), "{answer}");
    };
    raw.request(1, "server/discover", with_meta(json!({})));
    let found = raw.answer(1)["result"].clone();
    let versions = found["supportedVersions"].as_array().unwrap();
    assert_eq!(versions.len(), 5, "{found}");
    assert!(versions.contains(&json!("2026-07-28")), "{found}");
    stateless(&mut raw, "before");

    // A request without its `_meta` is none of this version, and no other was agreed on.
    raw.request(2, "tools/list", json!({}));
    assert_eq!(raw.answer(2)["error"]["code"], INVALID_PARAMS);
    let mut half = meta("2026-07-28");
    half.as_object_mut()
        .unwrap()
        .remove("io.modelcontextprotocol/clientCapabilities");
    raw.request(3, "tools/list", json!({ "_meta": half }));
    assert_eq!(raw.answer(3)["error"]["code"], INVALID_PARAMS);
    raw.request(4, "tools/list", json!({ "_meta": meta("2099-01-01") }));
    let refused = raw.answer(4);
    assert_eq!(refused["error"]["code"], -32022, "{refused}");
    // What this version has no more; the handshake that follows is another client's.
    let mut hello: Value = serde_json::from_str(&initialize(5, "2025-11-25")).unwrap();
    hello["params"]["_meta"] = meta("2026-07-28");
    for (method, params) in [
        ("ping", with_meta(json!({}))),
        ("initialize", with_meta(json!({}))),
        ("initialize", hello["params"].take()),
        ("logging/setLevel", with_meta(json!({ "level": "info" }))),
    ] {
        raw.request(5, method, params);
        let refused = raw.answer(5);
        assert_eq!(refused["error"]["code"], METHOD_NOT_FOUND, "{refused}");
    }

    // An older client on the same process.
    assert_eq!(
        raw.initialize("2025-06-18")["protocolVersion"],
        "2025-06-18"
    );
    raw.lives();
    raw.request(6, "tools/list", json!({}));
    assert!(raw.answer(6)["result"].get("resultType").is_none());
    stateless(&mut raw, "after");
}
