//! What models and the people before them see of the server, kept beside this file so that a change of it is seen in review:
//! `INSTA_UPDATE=always cargo test --test it seen` takes it over.

use serde_json::{Value, json};

use crate::raw::Raw;

fn listed(method: &str) -> String {
    let mut raw = Raw::ready();
    raw.request(1, method, json!({}));
    let answer: Value = raw.answer(1);
    serde_json::to_string_pretty(&answer["result"]).unwrap()
}

#[test]
fn the_tools_are_those_of_the_snapshot() {
    insta::assert_snapshot!("tools", listed("tools/list"));
}

#[test]
fn the_prompts_are_those_of_the_snapshot() {
    insta::assert_snapshot!("prompts", listed("prompts/list"));
}

#[test]
fn the_resource_templates_are_those_of_the_snapshot() {
    insta::assert_snapshot!("resource_templates", listed("resources/templates/list"));
}
