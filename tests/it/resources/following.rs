//! Who is told that a resource has changed, over real pipes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{INVALID_PARAMS, INVALID_REQUEST, RESOURCE_NOT_FOUND, SESSIONS, stateless};
use crate::raw::Raw;

const UPDATED: &str = "notifications/resources/updated";
const LIST_CHANGED: &str = "notifications/resources/list_changed";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

impl Raw {
    #[track_caller]
    fn subscribe(&mut self, uri: &str) {
        let done = self.result("resources/subscribe", json!({ "uri": uri }));
        assert_eq!(done, json!({}));
    }

    /// Opens a stream, for what was granted of it.
    #[track_caller]
    fn listen(&mut self, id: &str, notifications: Value) -> Value {
        let wish = stateless(json!({ "notifications": notifications }));
        self.request(id, "subscriptions/listen", wish);
        let granted = self.notification(ACKNOWLEDGED);
        assert_eq!(granted["_meta"][SUBSCRIPTION], id, "{granted}");
        granted["notifications"].clone()
    }

    fn give_up(&mut self, id: &str) {
        let params = json!({ "requestId": id });
        let cancelled =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        self.say(cancelled.to_string());
    }

    /// Waits until each of these was said to have changed, whatever else was.
    #[track_caller]
    fn told_of(&mut self, uris: &[&str]) {
        let mut missing: BTreeSet<&str> = uris.iter().copied().collect();
        while !missing.is_empty() {
            let update = self.notification(UPDATED);
            missing.remove(update["uri"].as_str().unwrap());
        }
    }

    /// Has everything said that is on its way, and forgets it.
    #[track_caller]
    fn settle(&mut self) {
        self.request("settled", "tools/list", stateless(json!({})));
        while self.next()["id"] != "settled" {}
    }
}

#[test]
fn a_session_is_told_of_a_change_once_it_subscribed_and_until_it_unsubscribes() {
    for version in SESSIONS {
        let mut raw = Raw::start();
        raw.initialize(version);
        let held = raw.until("held");
        raw.start_job("job", &held);
        for uri in ["jobs://job", "jobs://job/logs", "jobs://job"] {
            raw.subscribe(uri);
        }
        raw.let_end("held");
        raw.told_of(&["jobs://job", "jobs://job/logs"]);
        raw.settle();
        assert_eq!(raw.read_json("jobs://job")["is_done"], true);

        let held = raw.until("held");
        raw.start_job("other", &held);
        raw.subscribe("jobs://other");
        raw.subscribe("jobs://other/logs");
        let done = raw.result("resources/unsubscribe", json!({ "uri": "jobs://other" }));
        assert_eq!(done, json!({}));
        raw.let_end("held");
        raw.told_of(&["jobs://other/logs"]);
        raw.result("ping", json!({}));
        let unheard = raw.unheard();
        assert!(
            unheard.iter().all(|heard| heard["method"] == LIST_CHANGED),
            "{unheard:?}"
        );
        raw.result("resources/unsubscribe", json!({ "uri": "jobs://never" }));
    }
}

#[test]
fn a_session_is_told_of_the_lists_also_when_another_server_changes_them() {
    let mut raw = Raw::ready();
    raw.subscribe("jobs://running");
    raw.subscribe("jobs://completed");
    let mut other = raw.beside();
    other.initialize("2025-11-25");
    let held = other.until("held");
    other.start_job("theirs", &held);
    raw.told_of(&["jobs://running"]);
    // Nobody looked at the registry here but the watcher.
    raw.notification(LIST_CHANGED);
    assert_eq!(
        raw.read_json("jobs://running")["jobs"][0]["job_id"],
        "theirs"
    );
    other.let_end("held");
    raw.told_of(&["jobs://running", "jobs://completed"]);
    assert_eq!(
        raw.read_json("jobs://completed")["jobs"][0]["job_id"],
        "theirs"
    );
    assert_eq!(raw.read_json("jobs://running")["jobs"], json!([]));
}

#[test]
fn a_session_hears_of_new_jobs_without_asking_and_a_client_without_one_does_not() {
    let mut raw = Raw::ready();
    raw.start_job("new", "true");
    raw.notification(LIST_CHANGED);
    let list = raw.result("resources/list", json!({}));
    assert_eq!(list["resources"][2]["uri"], "jobs://new");

    let mut raw = Raw::start();
    // It has no session, whatever it says.
    raw.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let launch = raw.launch("new", "true");
    raw.result(
        "tools/call",
        stateless(json!({ "name": "run_job", "arguments": launch })),
    );
    raw.result("tools/list", stateless(json!({})));
    assert_eq!(raw.unheard(), [] as [&Value; 0]);
}

#[test]
fn a_stream_is_told_of_what_was_granted_until_it_is_given_up() {
    let mut raw = Raw::start();
    let mut other = raw.beside();
    other.initialize("2025-11-25");
    let held = other.until("held");
    other.start_job("job", &held);
    let wish = json!({
        "resourceSubscriptions": ["jobs://later", "jobs://job", "jobs://job", "file:///etc/passwd", "jobs://../.."],
        "resourcesListChanged": true, "toolsListChanged": true, "promptsListChanged": true,
    });
    let granted = raw.listen("stream", wish);
    let uris = json!(["jobs://job", "jobs://later"]);
    let expected = json!({ "resourcesListChanged": true, "resourceSubscriptions": uris });
    assert_eq!(granted["resourcesListChanged"], true);
    let mut of_resources: Vec<_> = granted["resourceSubscriptions"].as_array().unwrap().clone();
    of_resources.sort_by_key(ToString::to_string);
    of_resources.dedup();
    assert_eq!(Value::from(of_resources), expected["resourceSubscriptions"]);
    assert!(granted.get("toolsListChanged").is_none(), "{granted}");

    // A job that is not there yet is waited for.
    let launch = raw.launch("later", "true");
    raw.result(
        "tools/call",
        stateless(json!({ "name": "run_job", "arguments": launch })),
    );
    let changed = raw.notification(LIST_CHANGED);
    assert_eq!(changed["_meta"][SUBSCRIPTION], "stream", "{changed}");
    let updated = raw.notification(UPDATED);
    assert_eq!(updated["uri"], "jobs://later");
    assert_eq!(updated["_meta"][SUBSCRIPTION], "stream", "{updated}");
    other.let_end("held");
    raw.told_of(&["jobs://job"]);

    raw.give_up("stream");
    let held = other.until("held");
    raw.settle();
    other.start_job("more", &held);
    let call = stateless(json!({ "name": "list_jobs", "arguments": {} }));
    let listed = raw.result("tools/call", call);
    assert_eq!(listed["structuredContent"]["jobs"][0]["job_id"], "more");
    raw.result("tools/list", stateless(json!({})));
    assert_eq!(raw.unheard(), [] as [&Value; 0]);
}

#[test]
fn a_stream_of_a_job_that_ended_before_says_so_once() {
    let mut raw = Raw::start();
    let launch = raw.launch("over", "true");
    raw.result(
        "tools/call",
        stateless(json!({ "name": "run_job", "arguments": launch })),
    );
    let deadline = Instant::now() + crate::raw::DEADLINE;
    let is_done = |raw: &mut Raw| {
        let poll = json!({ "name": "poll_status", "arguments": { "job_id": "over" } });
        raw.result("tools/call", stateless(poll))["structuredContent"]["is_done"] == true
    };
    while !is_done(&mut raw) {
        assert!(Instant::now() < deadline);
    }
    raw.listen(
        "stream",
        json!({ "resourceSubscriptions": ["jobs://over"] }),
    );
    raw.told_of(&["jobs://over"]);
    raw.settle();
    assert_eq!(raw.unheard(), [] as [&Value; 0]);
}

#[test]
fn at_the_end_of_the_input_a_stream_is_ended_well_and_nothing_waits_for_it() {
    let mut raw = Raw::start();
    let uris = json!(["jobs://running", "jobs://nobody"]);
    raw.listen("stream", json!({ "resourceSubscriptions": uris }));
    // The library waits until what it has granted is written, and at the end of the input it would wait in vain.
    raw.settle();
    raw.settle();
    let closed = Instant::now();
    raw.close_stdin();
    raw.ends_well();
    assert!(
        closed.elapsed() < Duration::from_secs(1),
        "{:?}",
        closed.elapsed()
    );
    let rest = raw.rest();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["id"], "stream");
    assert_eq!(rest[0]["result"]["resultType"], "complete");
    assert_eq!(rest[0]["result"]["_meta"][SUBSCRIPTION], "stream");
}

#[test]
fn what_a_client_follows_is_bounded_and_free_again_when_it_ends() {
    let mut raw = Raw::ready();
    let error = raw.error("resources/subscribe", json!({ "uri": "jobs://nobody" }));
    assert_eq!(error["code"], RESOURCE_NOT_FOUND, "{error}");

    // Of a job that is done a stream tells once, as soon as it follows it.
    raw.start_job("over", "true");
    raw.wait_done("over");
    let mut many: Vec<String> = vec!["jobs://over".to_owned(); 100];
    many.extend((0..100).map(|number| format!("jobs://job-{number}")));
    let granted = raw.listen("many", json!({ "resourceSubscriptions": many }));
    let mut granted = granted["resourceSubscriptions"].as_array().unwrap().clone();
    granted.dedup();
    assert_eq!(granted.len(), 64);
    raw.told_of(&["jobs://over"]);
    let error = raw.error("resources/subscribe", json!({ "uri": "jobs://running" }));
    assert_eq!(error["code"], INVALID_REQUEST, "{error}");
    assert!(error["message"].as_str().unwrap().contains("64"), "{error}");
    let wish = stateless(json!({ "notifications": {} }));
    raw.request("more", "subscriptions/listen", wish);
    assert_eq!(raw.answer("more")["error"]["code"], INVALID_REQUEST);
    raw.give_up("many");
    // What was given up is over a moment later.
    let deadline = Instant::now() + crate::raw::DEADLINE;
    loop {
        raw.request(
            "again",
            "resources/subscribe",
            json!({ "uri": "jobs://running" }),
        );
        if raw.answer("again").get("result").is_some() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    raw.result("resources/unsubscribe", json!({ "uri": "jobs://running" }));

    // A stream takes room as long as it is open, and all of them never what calls need.
    raw.settle();
    for number in 0..64 {
        let wish = json!({ "resourceSubscriptions": ["jobs://over"] });
        raw.listen(&format!("idle-{number}"), wish);
        raw.told_of(&["jobs://over"]);
    }
    let wish = stateless(json!({ "notifications": {} }));
    raw.request("one more", "subscriptions/listen", wish);
    assert_eq!(raw.answer("one more")["error"]["code"], INVALID_REQUEST);
    let long: Vec<String> = (0..5_000)
        .map(|number| format!("jobs://a-long-name-{number}"))
        .collect();
    let error = raw.error(
        "subscriptions/listen",
        stateless(json!({ "notifications": { "resourceSubscriptions": long } })),
    );
    assert_eq!(error["code"], INVALID_PARAMS, "{error}");
    raw.settle();
}
