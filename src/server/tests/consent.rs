//! Consent without a client: the service and a person of the test's own, and a person who never answers.

use std::fs;
use std::sync::{Arc, Mutex};

use crate::error::JobError;
use crate::server::tests::Client;
use crate::service::consent::{ConsentPrompt, ConsentProvider};
use crate::service::requests::{CancelRequest, ListRequest, RunRequest};
use crate::service::tests::fake_launcher::{Gate, cancel_by_id, direct};
use crate::service::tests::test_service::{TestService, test_service_with};
use crate::settings::policy::{AskUser, Policy};
use serde_json::{Value, json};
use tokio::sync::Notify;

fn test(ask: AskUser) -> TestService {
    let policy = Policy {
        ask,
        ..Policy::default()
    };
    test_service_with(&[&["local"], &["gcp"]], policy)
}

impl TestService {
    /// Who says this, each time they are asked, once they are let.
    fn person(&self, says: fn(&ConsentPrompt) -> Result<String, JobError>) -> Arc<Person> {
        Arc::new(Person {
            says,
            asked: Mutex::default(),
            has_looked: Notify::new(),
            may_answer: Notify::new(),
        })
    }
}

struct Person {
    says: fn(&ConsentPrompt) -> Result<String, JobError>,
    asked: Mutex<Vec<ConsentPrompt>>,
    has_looked: Notify,
    may_answer: Notify,
}

impl Person {
    fn asked(&self) -> Vec<ConsentPrompt> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl ConsentProvider for Person {
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<String, JobError> {
        self.asked.lock().unwrap().push(prompt.clone());
        self.has_looked.notify_one();
        self.may_answer.notified().await;
        (self.says)(prompt)
    }
}

fn agrees(prompt: &ConsentPrompt) -> Result<String, JobError> {
    Ok(prompt.subject.clone())
}

fn declines(_: &ConsentPrompt) -> Result<String, JobError> {
    Err(JobError::blocked("no"))
}

#[tokio::test(start_paused = true)]
async fn only_the_prompted_launch_waits() {
    let test = test(AskUser::ForClouds);
    let person = test.person(agrees);
    let service = test.service.with_consent(person.clone());
    let request = test.request("asked", "gcp");
    let launch = tokio::spawn(async move { service.run(request).await });
    person.has_looked.notified().await;
    let here = test.service.run(test.request("here", "local")).await;
    assert!(here.success, "{here:?}");
    let listed = test.service.list(ListRequest::default()).await;
    assert_eq!(listed.jobs.len(), 1, "{listed:?}");
    assert!(test.service.cancel(cancel_by_id("here")).await.success);
    assert_eq!(test.cloud.starts("asked"), 0);
    person.may_answer.notify_one();
    let launched = launch.await.unwrap();
    assert!(launched.success, "{launched:?}");
    assert_eq!((test.cloud.starts("asked"), person.asked().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn prompts_follow_the_policy() {
    for (ask, cloud, is_asked) in [
        (AskUser::ForClouds, "gcp", true),
        (AskUser::ForClouds, "local", false),
        (AskUser::Always, "gcp", true),
        (AskUser::Always, "local", true),
        (AskUser::Never, "gcp", false),
        (AskUser::Never, "local", false),
    ] {
        let test = test(ask);
        let person = test.person(declines);
        person.may_answer.notify_one();
        let service = test.service.with_consent(person.clone());
        let answer = service.run(test.request("job", cloud)).await;
        assert_eq!(
            person.asked().len(),
            usize::from(is_asked),
            "{ask:?} {cloud}"
        );
        assert_eq!(answer.success, !is_asked, "{answer:?}");
        assert_eq!(test.cloud.starts("job"), usize::from(!is_asked));
        if is_asked {
            assert_eq!(answer.error.unwrap(), "nothing was started: no");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn consent_binds_to_its_subject() {
    let test = test(AskUser::ForClouds);
    test.cloud.add_elsewhere("gcp", "dev", "7");
    test.cloud.add_elsewhere("gcp", "dev", "8");
    let person = test.person(|_| Ok("another".to_owned()));
    let service = test.service.with_consent(person.clone());
    person.may_answer.notify_one();
    let answer = service.run(test.request("job", "gcp")).await;
    assert!(answer.error.unwrap().contains("is not known"));
    person.may_answer.notify_one();
    let cancel = CancelRequest {
        job: direct("gcp", "dev", "7"),
        force: false,
    };
    let answer = service.cancel(cancel).await;
    assert!(answer.error.unwrap().contains("agreed to something else"));
    assert_eq!((test.cloud.starts("job"), test.cloud.faults()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_plan_id_expires_after_a_day() {
    let test = test(AskUser::ForClouds);
    let preview = RunRequest {
        dry_run: true,
        ..test.request("job", "gcp")
    };
    let plan_id = test.service.run(preview).await.plan_id;
    let bound = |job_name: &str| RunRequest {
        plan_id: plan_id.clone(),
        ..test.request(job_name, "gcp")
    };
    tokio::time::advance(std::time::Duration::from_secs(23 * 3600)).await;
    let renamed = test.service.run(bound("other")).await;
    assert!(renamed.success, "a name is no other plan: {renamed:?}");
    tokio::time::advance(std::time::Duration::from_secs(2 * 3600)).await;
    let old = test.service.run(bound("job")).await.error.unwrap();
    assert!(old.contains("is not known"), "{old}");
}

/// The arguments that launch `job` on a cloud.
pub(super) fn cloud_launch(test: &TestService, job: &str) -> Value {
    fs::write(test.home.path().join("job.yaml"), "run: echo hi\n").unwrap();
    json!({
        "config_path": "job.yaml", "command": "train", "client_cwd": test.home.path(), "cloud": "gcp",
        "job_name": job, "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
    })
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_prompt_times_out() {
    let test = test(AskUser::ForClouds);
    let mut client = Client::of(&test.service).await;
    client
        .call("launch", "run_job", cloud_launch(&test, "job"))
        .await;
    let asked = client.next().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let withdrawn = client.next().await;
    assert_eq!(
        withdrawn["method"], "notifications/cancelled",
        "{withdrawn}"
    );
    assert_eq!(withdrawn["params"]["requestId"], asked["id"]);
    let answer = client.next().await;
    let error = &answer["result"]["structuredContent"]["error"];
    assert_eq!(
        error,
        "nothing was started: nobody answered within 10 minutes"
    );
    assert_eq!(test.cloud.starts("job"), 0);
    client.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_given_up_before_it_is_looked_at_to_the_end_does_not_begin() {
    let test = test(AskUser::Never);
    let mut client = Client::of(&test.service).await;
    for is_open in [true, false] {
        if !is_open {
            test.cloud.close(Gate::Plan);
        }
        client
            .call("given up", "run_job", cloud_launch(&test, "job"))
            .await;
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "given up" } })).await;
        // Read after it.
        client.call("list", "list_jobs", json!({})).await;
        assert_eq!(client.next().await["id"], "list");
    }
    test.cloud.open(Gate::Plan);
    client
        .call("wanted", "run_job", cloud_launch(&test, "other"))
        .await;
    assert_eq!(client.next().await["id"], "wanted");
    let starts = (test.cloud.starts("job"), test.cloud.starts("other"));
    assert_eq!(starts, (0, 1));
    client.end().await;
}

#[tokio::test(start_paused = true)]
async fn answers_count_by_their_number_and_refusals_name_the_way_out() {
    let unseen = "closed the question without an answer";
    for (answer, error) in [
        (json!({ "result": { "action": "accept" } }), None),
        (
            json!({ "result": { "action": "decline" } }),
            Some("the user declined"),
        ),
        (json!({ "result": { "action": "cancel" } }), Some(unseen)),
        (
            json!({ "result": { "action": "shrug" } }),
            Some("OUMI_MCP_CONSENT=flags"),
        ),
        (json!({ "result": 7 }), Some("OUMI_MCP_CONSENT=flags")),
        (
            json!({ "error": { "code": -32601, "message": "no such method" } }),
            Some("OUMI_MCP_CONSENT=flags"),
        ),
    ] {
        let test = test(AskUser::ForClouds);
        let mut client = Client::of(&test.service).await;
        client
            .call("launch", "run_job", cloud_launch(&test, "job"))
            .await;
        let asked = client.next().await;
        let mut message = answer.clone();
        message["jsonrpc"] = json!("2.0");
        message["id"] = json!(asked["id"].to_string());
        client.send(message).await;
        let content = client.next().await["result"]["structuredContent"].take();
        match error {
            None => assert_eq!(content["success"], true, "{content}"),
            Some(words) => {
                let error = content["error"].as_str().unwrap();
                assert!(error.contains(words), "{answer}: {error}");
                if words == unseen {
                    assert!(error.contains("OUMI_MCP_CONSENT=flags"), "{error}");
                }
            }
        }
        assert_eq!(test.cloud.starts("job"), usize::from(error.is_none()));
        client.end().await;
    }
}
