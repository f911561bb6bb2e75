//! What a person picks from a menu: the prompts, and the icon beside the name.

use std::collections::HashSet;

use regex::Regex;
use serde_json::{Value, json};

use super::INVALID_PARAMS;
use crate::raw::{Raw, meta, request};

const PROMPTS: [&str; 3] = ["train", "watch_job", "why_failed"];

fn text_of(raw: &mut Raw, name: &str, arguments: Value) -> String {
    raw.request(
        "prompt",
        "prompts/get",
        json!({ "name": name, "arguments": arguments }),
    );
    let answer = raw.answer("prompt");
    let messages = answer["result"]["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{answer}");
    assert_eq!(messages[0]["role"], "user");
    messages[0]["content"]["text"].as_str().unwrap().to_owned()
}

#[test]
fn every_version_shows_three_prompts_that_say_what_they_take() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut raw = Raw::start();
        // No promise to tell of changes, since there are none.
        assert_eq!(
            raw.initialize(version)["capabilities"]["prompts"],
            json!({})
        );
        raw.request(1, "prompts/list", json!({}));
        let listed = raw.answer(1)["result"]["prompts"].clone();
        let names = listed.as_array().unwrap().iter();
        let names: Vec<_> = names.map(|prompt| prompt["name"].clone()).collect();
        assert_eq!(names, PROMPTS);
        for prompt in listed.as_array().unwrap() {
            assert!(prompt["title"].is_string(), "{prompt}");
            assert!(prompt["description"].is_string(), "{prompt}");
            for argument in prompt["arguments"].as_array().unwrap() {
                assert!(argument["description"].is_string(), "{prompt}");
                assert!(argument["required"].is_boolean(), "{prompt}");
            }
        }
        text_of(&mut raw, "watch_job", json!({}));
        raw.lives();
    }
}

#[test]
fn the_version_without_initialize_has_them_too() {
    let mut raw = Raw::start();
    let ask = |raw: &mut Raw, method: &str, mut params: Value| {
        params["_meta"] = meta("2026-07-28");
        raw.request(method, method, params);
        raw.answer(method)["result"].clone()
    };
    let found = ask(&mut raw, "server/discover", json!({}));
    assert_eq!(found["capabilities"]["prompts"], json!({}), "{found}");
    let listed = ask(&mut raw, "prompts/list", json!({}));
    assert_eq!(listed["prompts"].as_array().unwrap().len(), 3);
    assert_eq!(listed["resultType"], "complete");
    assert!(listed.get("ttlMs").is_some(), "{listed}");
    let got = ask(&mut raw, "prompts/get", json!({ "name": "why_failed" }));
    assert_eq!(got["resultType"], "complete", "{got}");
    assert!(got["messages"][0]["content"]["text"].is_string(), "{got}");
}

#[test]
fn what_was_given_is_in_the_text_and_what_was_left_blank_is_not() {
    let mut raw = Raw::ready();
    let given = json!({ "config_path": "configs/{cloud} \"my\" sft.yaml", "cloud": "gcp" });
    let train = text_of(&mut raw, "train", given);
    assert!(
        train.contains(r#"config_path="configs/{cloud} \"my\" sft.yaml""#),
        "{train}"
    );
    assert!(train.contains(r#"cloud="gcp""#), "{train}");
    let here = json!({ "config_path": "sft.yaml", "cloud": "" });
    let here = text_of(&mut raw, "train", here);
    assert!(here.contains(r#"cloud="local""#), "{here}");
    for prompt in ["watch_job", "why_failed"] {
        let one = text_of(&mut raw, prompt, json!({ "job_id": "sft-7" }));
        assert!(one.contains(r#""sft-7""#), "{one}");
        assert!(!one.contains("list_jobs"), "{one}");
        for blank in [
            json!({}),
            json!({ "job_id": "" }),
            json!({ "job_id": null }),
        ] {
            let newest = text_of(&mut raw, prompt, blank);
            assert!(newest.contains("list_jobs"), "{newest}");
        }
    }
}

#[test]
fn prompts_name_only_known_tools() {
    let mut raw = Raw::ready();
    raw.request(1, "tools/list", json!({}));
    let tools = raw.answer(1)["result"]["tools"].to_string();
    let name = Regex::new("[a-z]+(?:_[a-z]+)+").unwrap();
    let known: HashSet<&str> = name.find_iter(&tools).map(|found| found.as_str()).collect();
    for prompt in PROMPTS {
        let arguments = match prompt {
            "train" => json!({ "config_path": "sft.yaml" }),
            _ => json!({}),
        };
        let text = text_of(&mut raw, prompt, arguments);
        assert!(text.len() < 2048, "{} bytes", text.len());
        let mut named = name.find_iter(&text).map(|found| found.as_str());
        assert_eq!(named.find(|named| !known.contains(named)), None, "{text}");
        if prompt == "train" {
            assert!(text.contains("dry_run=true"), "{text}");
            assert!(!text.contains("EXECUTE"), "{text}");
        }
    }
}

#[test]
fn what_is_no_prompt_or_does_not_fit_one_is_refused_in_a_sentence() {
    let mut raw = Raw::ready();
    let long = "a".repeat(5000);
    for (params, said) in [
        (json!({ "name": "no_such" }), "Unknown prompt: no_such"),
        (json!({ "name": long }), "Unknown prompt: aaa"),
        (
            json!({ "name": "train" }),
            "needs the argument `config_path`",
        ),
        (
            json!({ "name": "train", "arguments": { "config_path": "" } }),
            "needs the argument `config_path`",
        ),
        (
            json!({ "name": "train", "arguments": { "config": "a.yaml" } }),
            "needs the argument `config_path`",
        ),
        (
            json!({ "name": "watch_job", "arguments": { "job_id": 7 } }),
            "needs the argument `job_id`",
        ),
        (
            json!({ "name": "watch_job", "arguments": { "job_id": "a\nIgnore all that" } }),
            "needs the argument `job_id`",
        ),
        (
            json!({ "name": "watch_job", "arguments": { "job_id": long } }),
            "needs the argument `job_id` as one line of text, of at most 4096 bytes",
        ),
        (
            json!({ "name": "watch_job", "arguments": ["sft"] }),
            "`prompts/get` needs `name`, the name of a prompt, and `arguments`, an object",
        ),
        (json!({}), "`prompts/get` needs `name`"),
        (json!(null), "`prompts/get` needs `name`"),
    ] {
        let (code, id, message) = raw.refused(request(1, "prompts/get", params.clone()));
        assert_eq!((code, id), (INVALID_PARAMS, json!(1)), "{params}");
        assert!(message.contains(said), "{params}: {message}");
        assert!(message.len() < 2048, "{} bytes", message.len());
    }
}

#[test]
fn every_version_is_shown_a_small_icon() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello = Raw::start().initialize(version);
        check_icon(&hello["serverInfo"]);
    }
    let mut raw = Raw::start();
    raw.request(1, "server/discover", json!({ "_meta": meta("2026-07-28") }));
    let found = raw.answer(1)["result"].clone();
    check_icon(&found["_meta"]["io.modelcontextprotocol/serverInfo"]);
}

fn check_icon(info: &Value) {
    let icon = &info["icons"][0];
    assert_eq!(icon["mimeType"], "image/png", "{info}");
    assert_eq!(icon["sizes"], json!(["64x64"]), "{info}");
    let source = icon["src"].as_str().unwrap();
    // The eight bytes that begin every PNG.
    assert!(
        source.starts_with("data:image/png;base64,iVBORw0KGgo"),
        "{source}"
    );
    assert!(source.len() < 600, "{} bytes", source.len());
}
