//! What resources there are, and what is read at each, in every version.

use std::fs;

use serde_json::{Value, json};

use super::{
    INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, SESSIONS, STATELESS, TASKS, stateless,
};
use crate::raw::Raw;

fn uris(list: &Value) -> Vec<&str> {
    let resources = list["resources"].as_array().unwrap();
    resources
        .iter()
        .map(|resource| resource["uri"].as_str().unwrap())
        .collect()
}

#[test]
fn each_version_says_what_it_can_and_no_more() {
    for version in SESSIONS {
        let mut raw = Raw::start();
        let said = raw.initialize(version)["capabilities"].clone();
        assert_eq!(said["resources"], json!({}), "{said}");
        assert!(said.get("completions").is_none(), "{said}");
        // Tasks are of 2026-07-28.
        assert!(said.get("extensions").is_none(), "{said}");
    }
    let mut raw = Raw::start();
    let found = raw.result("server/discover", stateless(json!({})));
    let said = &found["capabilities"];
    assert_eq!(said["resources"], json!({}));
    assert_eq!(said["extensions"], json!({ TASKS: {} }));
}

#[test]
fn the_list_has_the_two_lists_and_the_newest_jobs_with_their_logs() {
    let mut raw = Raw::ready();
    let empty = raw.result("resources/list", json!({}));
    assert_eq!(uris(&empty), ["jobs://running", "jobs://completed"]);
    for name in ["first", "second"] {
        raw.start_job(name, "true");
    }
    let list = raw.result("resources/list", json!({}));
    assert_eq!(
        uris(&list),
        [
            "jobs://running",
            "jobs://completed",
            "jobs://second",
            "jobs://second/logs",
            "jobs://first",
            "jobs://first/logs",
        ]
    );
    for resource in list["resources"].as_array().unwrap() {
        let is_log = resource["uri"].as_str().unwrap().ends_with("/logs");
        let kind = if is_log {
            "text/plain"
        } else {
            "application/json"
        };
        assert_eq!(resource["mimeType"], kind, "{resource}");
        for text in ["name", "title", "description"] {
            assert!(resource[text].as_str().is_some_and(|text| !text.is_empty()));
        }
    }
    assert!(list.get("ttlMs").is_none(), "{list}");

    let list = raw.result("resources/list", stateless(json!({})));
    assert_eq!(uris(&list).len(), 6);
    assert_eq!(list["ttlMs"], 0, "it can be old at once: {list}");
    assert_eq!(list["resultType"], "complete");

    let templates = raw.result("resources/templates/list", json!({}));
    let templates: Vec<&Value> = templates["resourceTemplates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|template| &template["uriTemplate"])
        .collect();
    assert_eq!(templates, ["jobs://{job_id}", "jobs://{job_id}/logs"]);
}

#[test]
fn the_list_is_short_however_many_jobs_there_are() {
    let raw = Raw::start();
    let records: Vec<Value> = (0..150)
        .map(|number| {
            json!({
                "job_id": format!("job-{number}"), "command": "train", "cloud": "gcp", "config_path": "/c.yaml",
                "cluster_name": "c", "oumi_job_id": "1", "model_name": "m", "output_dir": "",
                "submit_time": (chrono::Utc::now() - chrono::TimeDelta::minutes(number)).to_rfc3339(),
            })
        })
        .collect();
    fs::create_dir_all(raw.home().join("data")).unwrap();
    // In one step: the first server looks at it some time.
    let (new, registry) = ["new", "data/oumi-jobs.json"]
        .map(|name| raw.home().join(name))
        .into();
    fs::write(&new, Value::from(records).to_string()).unwrap();
    fs::rename(new, registry).unwrap();
    let mut raw = raw.beside();
    raw.initialize("2025-11-25");
    let list = raw.result("resources/list", json!({}));
    let uris = uris(&list);
    assert_eq!(uris.len(), 2 + 2 * 20);
    // The newest first, in whatever order they stand in the file.
    assert_eq!(uris[2..4], ["jobs://job-0", "jobs://job-0/logs"]);
    assert!(list.to_string().len() < 12 * 1024);
}

#[test]
fn what_is_read_is_what_the_tools_answer() {
    let mut raw = Raw::ready();
    let held = raw.until("held");
    let runs = raw.start_job("runs", &format!("echo ready; {held}"));
    let failed = raw.start_job("failed", "echo no luck; exit 3");
    raw.wait_done(&failed);

    for (list, id) in [("running", &runs), ("completed", &failed)] {
        raw.call("list", "list_jobs", json!({ "status": list }));
        let listed = raw.content("list");
        assert_eq!(raw.read_json(&format!("jobs://{list}")), listed);
        assert_eq!(listed["jobs"][0]["job_id"], **id);
        assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
    }
    let status = raw.wait_done(&failed);
    assert_eq!(raw.read_json("jobs://failed"), status);
    assert_eq!(status["state"], "FAILED");
    let read = raw.read_json("jobs://runs");
    assert_eq!(read["state"], "RUNNING", "{read}");
    raw.call("log", "get_job_logs", json!({ "job_id": failed }));
    let log = raw.content("log")["logs"].as_str().unwrap().to_owned();
    assert!(log.contains("no luck"), "{log}");
    let read = raw.read_text("jobs://failed/logs");
    assert_eq!(read, ("text/plain".to_owned(), log));

    let read = raw.result(
        "resources/read",
        stateless(json!({ "uri": "jobs://failed" })),
    );
    assert_eq!(read["resultType"], "complete");
    assert_eq!(read["ttlMs"], 0, "{read}");
}

#[test]
fn secrets_stay_hidden_in_a_log_and_controls_are_taken_out() {
    let mut raw = Raw::ready();
    let mut launch = raw.launch("quiet", r#"printf 'token %s \033[31mred\n' "$API_KEY""#);
    launch["envs"] = json!({ "API_KEY": "sk-very-secret-value" });
    raw.call("start", "run_job", launch);
    raw.content("start");
    raw.wait_done("quiet");
    let (_, log) = raw.read_text("jobs://quiet/logs");
    assert!(log.starts_with("token "), "{log}");
    assert!(!log.contains("very-secret"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn any_name_has_an_address() {
    let mut raw = Raw::ready();
    for name in ["my job: 50% ü", "..%2e.a?b#c", "running"] {
        let job_id = raw.start_job(name, "true");
        raw.wait_done(&job_id);
    }
    let list = raw.result("resources/list", json!({}));
    let uris = uris(&list);
    // The word is that of the list; the job of that name has its log.
    assert_eq!(uris[2], "jobs://running/logs");
    assert_eq!(uris[5], "jobs://my%20job%3A%2050%25%20%C3%BC");
    assert_eq!(uris.len(), 7);
    for uri in &uris[3..] {
        assert!(
            uri.is_ascii() && !uri[7..].contains(['?', '#', ' ']),
            "{uri}"
        );
        raw.read_text(uri);
    }
    let read = raw.read_json(uris[5]);
    assert_eq!(read["job_id"], "my job: 50% ü");
    let running = raw.read_json("jobs://running");
    assert_eq!(running["jobs"], json!([]));
    raw.read_text("jobs://running/logs");
}

#[test]
fn what_is_not_there_is_not_found_in_the_words_of_each_version() {
    let uris = [
        "jobs://nobody",
        "jobs://nobody/logs",
        "jobs://../..",
        "jobs://..",
        "jobs://%2e%2e%2f%2e%2e/logs",
        "jobs://a/b/c",
        "jobs://%zz",
        "jobs://",
        "file:///etc/passwd",
        "",
        "jobs://a\u{1b}[31m",
    ];
    for version in SESSIONS {
        let mut raw = Raw::start();
        raw.initialize(version);
        for uri in uris {
            let error = raw.error("resources/read", json!({ "uri": uri }));
            assert_eq!(
                error["code"], RESOURCE_NOT_FOUND,
                "{version} {uri}: {error}"
            );
            assert_eq!(error["data"]["uri"], uri);
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("list_jobs"), "{message}");
            assert!(!message.contains('\u{1b}'), "{message:?}");
        }
        let error = raw.error("resources/read", json!({}));
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("`resources/read` needs `uri`"),
            "{message}"
        );
        raw.lives();
    }
    let mut raw = Raw::start();
    for uri in uris {
        let error = raw.error("resources/read", stateless(json!({ "uri": uri })));
        assert_eq!(error["code"], INVALID_PARAMS, "{uri}: {error}");
        assert_eq!(error["data"]["uri"], uri);
    }
}

#[test]
fn methods_by_version() {
    let everywhere = ["resources/read", "prompts/get"];
    let sessions = ["initialize"];
    let without = ["tasks/get", "tasks/update", "tasks/cancel"];
    let nowhere = [
        "resources/subscribe",
        "resources/unsubscribe",
        "subscriptions/listen",
        "completion/complete",
        "resources/write",
        "tasks/list",
        "tasks/result",
        "prompts/set",
        "logging/setLevel",
    ];
    let wrong = json!({ "uri": 1, "taskId": 1, "ref": 1, "notifications": 1 });
    for version in SESSIONS.iter().chain([&STATELESS]) {
        let mut raw = Raw::start();
        let is_session = *version != STATELESS;
        let params = if is_session {
            raw.initialize(version);
            wrong.clone()
        } else {
            stateless(wrong.clone())
        };
        for (methods, is_there) in [
            (everywhere.as_slice(), true),
            (&sessions, is_session),
            (&without, !is_session),
            (&nowhere, false),
        ] {
            let code = if is_there {
                INVALID_PARAMS
            } else {
                METHOD_NOT_FOUND
            };
            for method in methods {
                let error = raw.error(method, params.clone());
                assert_eq!(error["code"], code, "{version} {method}: {error}");
            }
        }
        // Well formed, and let go all the same.
        for (method, mut params) in [
            ("subscriptions/listen", json!({ "notifications": {} })),
            ("resources/subscribe", json!({ "uri": "jobs://running" })),
        ] {
            if !is_session {
                params = stateless(params);
            }
            let error = raw.error(method, params);
            assert_eq!(
                error["code"], METHOD_NOT_FOUND,
                "{version} {method}: {error}"
            );
        }
    }
}
