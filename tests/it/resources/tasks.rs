//! A job as a task, for a client that declares the extension in the version that defines it.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, SESSIONS, TASKS, stateless, taking_tasks,
};
use crate::raw::{DEADLINE, Raw};
use crate::support::schema::misfit;

impl Raw {
    #[track_caller]
    fn run_as_task(&mut self, launch: Value) -> Value {
        let call = taking_tasks(json!({ "name": "run_job", "arguments": launch }));
        self.result("tools/call", call)
    }

    #[track_caller]
    fn task(&mut self, task_id: &str) -> Value {
        self.result("tasks/get", taking_tasks(json!({ "taskId": task_id })))
    }

    #[track_caller]
    fn task_done(&mut self, task_id: &str) -> Value {
        crate::support::poll_for(DEADLINE, || {
            let task = self.task(task_id);
            if task["status"] == "working" {
                Err(task.to_string())
            } else {
                Ok(task)
            }
        })
    }
}

/// What holds of every task.
#[track_caller]
fn is_task(task: &Value, id: &str) {
    assert_eq!(task["taskId"], id, "{task}");
    let time = |key: &str| {
        let text = task[key].as_str().unwrap_or_else(|| panic!("{task}"));
        chrono::DateTime::parse_from_rfc3339(text).unwrap()
    };
    assert!(time("createdAt") <= time("lastUpdatedAt"), "{task}");
    assert!(task["ttlMs"].is_null() || task["ttlMs"].is_u64(), "{task}");
    assert!(!task["statusMessage"].as_str().unwrap().is_empty());
}

#[test]
fn a_job_is_a_task_of_its_id_that_the_next_server_finds_and_finishes() {
    let mut raw = Raw::start();
    let held = raw.until("held");
    let launch = raw.launch("long", &held);
    let created = raw.run_as_task(launch);
    assert_eq!(created["resultType"], "task", "{created}");
    assert_eq!(created["status"], "working");
    is_task(&created, "long");
    assert!(created["pollIntervalMs"].as_u64().unwrap() >= 1000);
    assert!(created["ttlMs"].is_null(), "while it runs it is kept");
    let task = raw.task("long");
    assert_eq!(
        (&task["resultType"], &task["status"]),
        (&json!("complete"), &json!("working"))
    );
    is_task(&task, "long");
    assert_eq!(task["createdAt"], created["createdAt"]);

    // In the middle of it another server takes over.
    raw.signal(Signal::KILL);
    raw.ended_within(DEADLINE);
    let mut next = raw.beside();
    let task = next.task("long");
    assert_eq!(task["status"], "working", "{task}");
    assert_eq!(task["createdAt"], created["createdAt"]);
    raw.let_end("held");
    let task = next.task_done("long");
    is_task(&task, "long");
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(task["ttlMs"], 7 * 24 * 60 * 60 * 1000);
    let result = &task["result"];
    assert_eq!(result["isError"], false, "{result}");
    let content = &result["structuredContent"];
    assert_eq!(content["state"], "SUCCEEDED");
    assert_eq!(content["job_id"], "long");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), *content);
    // It is the result of `run_job`, and what `poll_status` says is in it.
    let tools = next.result("tools/list", stateless(json!({})));
    for name in ["run_job", "poll_status"] {
        let tools = tools["tools"].as_array().unwrap();
        let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
        let schema = &tool["outputSchema"];
        let mut of_the_tool = content.clone();
        let fields = of_the_tool.as_object_mut().unwrap();
        fields.retain(|field, _| schema["properties"].get(field).is_some());
        assert_eq!(
            misfit(&of_the_tool, schema, schema),
            None,
            "{name}: {content:#}"
        );
    }
    assert_eq!(next.task_done("long"), task, "it stays as it is");
}

#[test]
fn a_job_that_ends_badly_is_completed_with_an_error_in_its_result() {
    let mut raw = Raw::start();
    let launch = raw.launch("bad", "echo oh no; exit 7");
    assert_eq!(raw.run_as_task(launch)["resultType"], "task");
    let task = raw.task_done("bad");
    assert_eq!(task["status"], "completed", "{task}");
    let result = &task["result"];
    assert_eq!(result["isError"], true);
    let content = &result["structuredContent"];
    assert_eq!(
        (&content["success"], &content["state"]),
        (&json!(false), &json!("FAILED"))
    );
    assert!(
        content["error"].as_str().unwrap().starts_with("failed"),
        "{content}"
    );
    assert!(
        task["statusMessage"]
            .as_str()
            .unwrap()
            .starts_with("failed"),
        "{task}"
    );
}

#[test]
fn a_cancel_ends_the_job_and_is_taken_again_when_it_is_over() {
    let mut raw = Raw::start();
    let held = raw.until("held");
    let launch = raw.launch("doomed", &held);
    raw.run_as_task(launch);
    let ack = raw.result("tasks/cancel", taking_tasks(json!({ "taskId": "doomed" })));
    assert_eq!(ack, json!({ "resultType": "complete" }));
    let task = raw.task_done("doomed");
    assert_eq!(task["status"], "cancelled", "{task}");
    assert!(task.get("result").is_none() && task.get("error").is_none());
    let ack = raw.result("tasks/cancel", taking_tasks(json!({ "taskId": "doomed" })));
    assert_eq!(ack, json!({ "resultType": "complete" }));
    let call = stateless(json!({ "name": "poll_status", "arguments": { "job_id": "doomed" } }));
    raw.request("poll", "tools/call", call);
    assert_eq!(raw.content("poll")["state"], "CANCELLED");
}

#[test]
fn what_starts_nothing_is_answered_plainly() {
    let mut raw = Raw::start();
    let held = raw.until("held");
    let launch = raw.launch("twice", &held);
    let mut preview = launch.clone();
    preview["dry_run"] = json!(true);
    let mut blocked = launch.clone();
    blocked["confirm"] = json!(false);
    let mut wrong = launch.clone();
    wrong["config_path"] = json!("no-such.yaml");
    for (arguments, is_error) in [(preview, false), (blocked, true), (wrong, true)] {
        let answer = raw.run_as_task(arguments);
        assert_eq!(answer["resultType"], "complete", "{answer}");
        assert_eq!(answer["isError"], is_error, "{answer}");
    }
    assert_eq!(raw.run_as_task(launch.clone())["resultType"], "task");
    let again = raw.run_as_task(launch);
    assert_eq!(
        (&again["resultType"], &again["isError"]),
        (&json!("complete"), &json!(true))
    );
    // Nor is any other tool's answer a task.
    let call = taking_tasks(json!({ "name": "list_jobs", "arguments": {} }));
    assert_eq!(raw.result("tools/call", call)["resultType"], "complete");
}

#[test]
fn who_does_not_declare_tasks_gets_none() {
    let mut raw = Raw::start();
    let launch = raw.launch("plain", "true");
    let call = stateless(json!({ "name": "run_job", "arguments": launch }));
    let answer = raw.result("tools/call", call);
    assert_eq!(answer["resultType"], "complete");
    assert_eq!(answer["structuredContent"]["job_id"], "plain");
    for method in ["tasks/get", "tasks/cancel"] {
        let error = raw.error(method, stateless(json!({ "taskId": "plain" })));
        assert_eq!(error["code"], MISSING_CAPABILITY, "{error}");
        let required = &error["data"]["requiredCapabilities"]["extensions"];
        assert_eq!(*required, json!({ TASKS: {} }), "{error}");
    }
    // It is a task all the same for who does.
    assert_eq!(raw.task_done("plain")["status"], "completed");
}

#[test]
fn a_version_before_them_has_no_tasks_whatever_its_client_declares() {
    for version in SESSIONS {
        let mut raw = Raw::start();
        let hello = json!({
            "protocolVersion": version, "clientInfo": { "name": "eager", "version": "0" },
            "capabilities": { "extensions": { TASKS: {} }, "tasks": { "requests": { "tools": { "call": {} } } } },
        });
        raw.result("initialize", hello);
        raw.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let launch = raw.launch("plain", "true");
        let call = json!({ "name": "run_job", "arguments": launch, "task": { "ttl": 60_000 } });
        let answer = raw.result("tools/call", call);
        assert_eq!(answer["structuredContent"]["job_id"], "plain", "{answer}");
        assert!(answer.get("resultType").is_none(), "{answer}");
        for method in ["tasks/get", "tasks/cancel", "tasks/result"] {
            let error = raw.error(method, json!({ "taskId": "plain" }));
            assert_eq!(
                error["code"], METHOD_NOT_FOUND,
                "{version} {method}: {error}"
            );
        }
    }
}

#[test]
fn a_task_that_there_is_not_is_said_to_be_none() {
    let mut raw = Raw::start();
    for task_id in ["nobody", "", "../..", "a\u{1b}b"] {
        for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
            let params = json!({ "taskId": task_id, "inputResponses": {} });
            let error = raw.error(method, taking_tasks(params));
            assert_eq!(error["code"], INVALID_PARAMS, "{method}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("Task not found: "), "{message}");
            assert!(!message.contains('\u{1b}'), "{message:?}");
        }
    }
    // Nothing is ever asked within a task: answers to nothing are taken and ignored.
    let launch = raw.launch("known", "true");
    raw.run_as_task(launch);
    let params = json!({ "taskId": "known", "inputResponses": { "x": { "action": "accept" } } });
    let ack = raw.result("tasks/update", taking_tasks(params));
    assert_eq!(ack, json!({ "resultType": "complete" }));
}
