//! Jobs as tasks: the extension `io.modelcontextprotocol/tasks` (SEP-2663) of 2026-07-28.
//!
//! The id of a task is the job id, the registry is the store, and the launcher gives the status. So a task outlives the server,
//! and every known job is one, however it was started. By the extension's rules `failed` is for errors of the protocol: a job
//! that failed is a `completed` task whose result has `isError`.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, CallToolResult, CreateTaskResult, DetailedTask, GetTaskResult, JsonObject,
    ProtocolVersion, Task, TaskPayload, TaskStatus,
};
use serde_json::Value;

use super::{Answer, Context, internal, truncated};
use crate::job_identity::JobIdentity;
use crate::launcher::JobState;
use crate::registry::JobRecord;
use crate::service::JobService;
use crate::service::answers::{PollAnswer, to_json};
use crate::service::requests::CancelRequest;

pub(super) fn version_has_tasks(context: &Context) -> bool {
    let version = context.protocol_version();
    version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

pub(super) fn client_accepts_tasks(context: &Context) -> bool {
    let client = context.client_capabilities();
    version_has_tasks(context) && client.is_some_and(|client| client.supports_tasks())
}

/// Makes a task of the answer of `run_job`, if a job was started.
pub(super) async fn from_run_answer(
    service: &JobService,
    response: &CallToolResponse,
) -> Option<CallToolResponse> {
    let CallToolResponse::Complete(result) = response else {
        return None;
    };
    let answer = result.structured_content.as_ref()?;
    if answer["success"] != true || answer["dry_run"] == true {
        return None;
    }
    // `tasks/get` looks in the registry.
    let record = service.registry().get(answer["job_id"].as_str()?).await;
    let record = record.ok()??;
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    let messages = std::iter::once(&answer["message"]).chain(warnings);
    let messages: Vec<&str> = messages.filter_map(Value::as_str).collect();
    let task = task(&record, TaskStatus::Working)
        .with_status_message(messages.join("; "))
        .with_poll_interval_ms(service.task_interval(&record).as_millis() as u64);
    Some(CreateTaskResult::new(task).into())
}

pub(super) async fn get(service: &JobService, task_id: &str) -> Answer<GetTaskResult> {
    let record = record(service, task_id).await?;
    let answer = service.poll(JobIdentity::of(task_id)).await;
    let (interval, kept) = (service.task_interval(&record), service.policy().kept());
    let task = detailed(&record, answer, interval, kept);
    task.map(GetTaskResult::new).map_err(internal)
}

/// Cancels the job. A finished one is no error.
pub(super) async fn cancel(service: &JobService, task_id: &str) -> Answer<()> {
    record(service, task_id).await?;
    let request = CancelRequest {
        job: JobIdentity::of(task_id),
        force: false,
    };
    let answer = service.cancel(request).await;
    match answer.success || answer.is_done {
        true => Ok(()),
        false => Err(internal(answer.error.unwrap_or_default())),
    }
}

pub(super) async fn record(service: &JobService, task_id: &str) -> Answer<JobRecord> {
    let found = service.registry().get(task_id).await.map_err(internal)?;
    found.ok_or_else(|| {
        let id = truncated(task_id);
        let error = format!("Task not found: {id:?}; its id is the job id, which list_jobs shows");
        ErrorData::invalid_params(error, None)
    })
}

/// Builds a task from what the registry knows.
fn task(record: &JobRecord, status: TaskStatus) -> Task {
    let now = Utc::now();
    let created = record.submitted_at().unwrap_or(now);
    Task::new(record.job_id.clone(), status, time(created), time(now))
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Builds a task from the answer of `poll_status`. The record of a finished job may be removed once it was `kept` so long.
fn detailed(
    record: &JobRecord,
    mut answer: PollAnswer,
    poll_interval: Duration,
    kept: Duration,
) -> serde_json::Result<DetailedTask> {
    // The launcher's status word, with the error or the message.
    let detail = answer.error.as_ref().unwrap_or(&answer.message);
    let message = format!("{}: {detail}", answer.status);
    if !(answer.is_done || answer.is_gone()) {
        let task = task(record, TaskStatus::Working)
            .with_status_message(message)
            .with_poll_interval_ms(poll_interval.as_millis() as u64);
        return Ok(DetailedTask::new(task, TaskPayload::Working));
    }
    let is_time = |text: &String| DateTime::parse_from_rfc3339(text).is_ok();
    let ended = answer.ended_at.take().filter(is_time);
    let (status, payload) = match answer.state {
        JobState::Cancelled => (TaskStatus::Cancelled, TaskPayload::Cancelled),
        _ => {
            let result = result(answer, &message)?;
            (TaskStatus::Completed, TaskPayload::Completed { result })
        }
    };
    let mut task = task(record, status)
        .with_status_message(message)
        .with_ttl_ms(kept.as_millis() as u64);
    if let Some(ended) = ended {
        task.last_updated_at = ended;
    }
    Ok(DetailedTask::new(task, payload))
}

/// Builds the result of the `run_job` call from the fields of a [`PollAnswer`]. A model is woken with it: what it must see is first.
fn result(mut answer: PollAnswer, message: &str) -> serde_json::Result<JsonObject> {
    answer.success = answer.state == JobState::Succeeded;
    answer.error = (!answer.success).then(|| message.to_owned());
    let mut fields: JsonObject = serde_json::from_value(to_json(&answer)?)?;
    let first = ["message", "next"].map(|name| fields.shift_remove_entry(name));
    let content: JsonObject = first.into_iter().flatten().chain(fields).collect();
    let result = match answer.success {
        true => CallToolResult::structured(content.into()),
        false => CallToolResult::structured_error(content.into()),
    };
    serde_json::from_value(serde_json::to_value(result)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_of(answer: PollAnswer) -> DetailedTask {
        let record = JobRecord {
            job_id: "job".to_owned(),
            submit_time: "2026-11-25T01:02:03+01:00".to_owned(),
            ..JobRecord::default()
        };
        detailed(
            &record,
            answer,
            Duration::from_secs(2),
            Duration::from_secs(60),
        )
        .unwrap()
    }

    fn answer(status: &str, state: JobState, is_done: bool) -> PollAnswer {
        PollAnswer {
            success: true,
            status: status.to_owned(),
            state,
            is_done,
            message: "it ended".to_owned(),
            next: "Then do this.".to_owned(),
            ..PollAnswer::default()
        }
    }

    #[test]
    fn status_follows_state_once_the_job_is_done() {
        use JobState::{Cancelled, Failed, Pending, Running, Succeeded, Unknown};
        for state in [Pending, Running, Succeeded, Failed, Cancelled, Unknown] {
            let task = task_of(answer("word", state, false));
            assert_eq!(task.payload, TaskPayload::Working, "{state:?}");
            assert_eq!(task.task.ttl_ms, None);
            let task = task_of(answer("word", state, true));
            assert_eq!(task.task.ttl_ms, Some(60_000));
            match (state, task.payload) {
                (Cancelled, payload) => assert_eq!(payload, TaskPayload::Cancelled),
                (_, TaskPayload::Completed { result }) => {
                    assert_eq!(result["isError"], state != Succeeded, "{state:?}");
                    let text = result["content"][0]["text"].as_str().unwrap();
                    let beginning = r#"{"message":"it ended","next":"Then do this.""#;
                    assert!(text.starts_with(beginning), "{text}");
                    let content = &result["structuredContent"];
                    assert_eq!(content["success"], state == Succeeded);
                    assert_eq!(content["error"].is_null(), state == Succeeded);
                }
                (_, payload) => panic!("{state:?}: {payload:?}"),
            }
        }
    }

    #[test]
    fn unreachable_jobs_work_on_and_unknown_ones_are_completed() {
        let failed = |status: &str| PollAnswer {
            status: status.to_owned(),
            error: Some("no answer from the cloud".to_owned()),
            ..PollAnswer::default()
        };
        let task = task_of(failed("unknown"));
        assert_eq!(task.payload, TaskPayload::Working);
        let said = task.task.status_message.unwrap();
        assert!(said.contains("no answer from the cloud"), "{said}");
        let task = task_of(failed("not_found"));
        assert_eq!(task.status(), TaskStatus::Completed);
    }

    #[test]
    fn times_are_those_of_the_job() {
        let mut ended = answer("failed", JobState::Failed, true);
        let when = "2026-11-25T00:05:00.5Z";
        ended.ended_at = Some(when.to_owned());
        let task = task_of(ended).task;
        assert_eq!(task.created_at, "2026-11-25T00:02:03.000Z");
        assert_eq!(task.last_updated_at, when);
        let mut damaged = answer("failed", JobState::Failed, true);
        damaged.ended_at = Some(String::new());
        let updated = task_of(damaged).task.last_updated_at;
        assert!(DateTime::parse_from_rfc3339(&updated).is_ok(), "{updated}");
    }
}
