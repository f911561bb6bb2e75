//! Jobs as tasks: the extension `io.modelcontextprotocol/tasks` (SEP-2663), which 2026-07-28 defines and no version before.
//!
//! A task is a job seen by a client that declared the extension: its id is the job id, the registry is the store, and how it
//! is, is what the launcher says when it is asked. So a task outlives the server, and every known job is one, however it was
//! started. By the extension's rules `failed` is for errors of the protocol: a job that ended badly is `completed`, with a
//! result that has `isError`.

use chrono::{DateTime, SecondsFormat, Utc};
use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult,
    DetailedTask, GetTaskResult, JsonObject, ProtocolVersion, Task, TaskPayload, TaskStatus,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;

use super::shown;
use crate::launcher::JobState;
use crate::launcher::local::LOCAL;
use crate::registry::{JobRecord, KEEP_DAYS};
use crate::service::JobService;
use crate::service::answers::{CancelAnswer, JobAnswer, PollAnswer, RunAnswer};
use crate::service::requests::{CancelRequest, JobQuery};
use crate::text::clean_controls;

/// How often a client may as well ask about a job on this machine, whose launcher looks at a file and a lock.
const LOCAL_POLL_MS: u64 = 2_000;
/// How often about one on a cloud, whose launcher takes seconds to a minute to answer.
const CLOUD_POLL_MS: u64 = 30_000;
/// A job that is done may be forgotten after this; one that runs is kept.
const DONE_TTL_MS: u64 = KEEP_DAYS.unsigned_abs() * 24 * 60 * 60 * 1000;

/// Whether a request is of a version that defines tasks.
pub(super) fn are_defined(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Whether the client of a request takes a task for an answer.
pub(super) fn are_taken(context: &RequestContext<RoleServer>) -> bool {
    let declared = context.client_capabilities();
    are_defined(context)
        && declared
            .as_ref()
            .is_some_and(ClientCapabilities::supports_tasks)
}

/// The answer of `run_job` as a task, if a job was started; a preview and a refusal stay as they are.
pub(super) async fn of_run(service: &JobService, response: CallToolResponse) -> CallToolResponse {
    let CallToolResponse::Complete(result) = &response else {
        return response;
    };
    let Some(answer) = &result.structured_content else {
        return response;
    };
    let job_id = answer["job_id"].as_str().unwrap_or_default();
    if answer["success"] != true || answer["dry_run"] != false || job_id.is_empty() {
        return response;
    }
    // Only what `tasks/get` will find is a task.
    let Ok(Some(record)) = service.registry().get(job_id).await else {
        return response;
    };
    let texts = answer["warnings"].as_array().into_iter().flatten();
    let said: Vec<&str> = std::iter::once(&answer["message"])
        .chain(texts)
        .filter_map(Value::as_str)
        .collect();
    let task = task(&record, TaskStatus::Working)
        .with_status_message(said.join("; "))
        .with_poll_interval_ms(poll_interval(&record));
    CallToolResponse::from(CreateTaskResult::new(task))
}

/// How a task is.
pub(super) async fn get(service: &JobService, task_id: &str) -> Result<GetTaskResult, ErrorData> {
    let record = record(service, task_id).await?;
    let query = JobQuery {
        job_id: task_id.to_owned(),
        ..JobQuery::default()
    };
    let answer = service.poll(query).await;
    Ok(GetTaskResult::new(detailed(&record, answer)?))
}

/// Nothing is ever asked of the client within a task: what it answers is answered to nothing, and ignored.
pub(super) async fn update(service: &JobService, task_id: &str) -> Result<(), ErrorData> {
    record(service, task_id).await.map(|_| ())
}

/// Ends a job. One that has ended is as the client wants it: nothing of it runs.
pub(super) async fn cancel(service: &JobService, task_id: &str) -> Result<(), ErrorData> {
    record(service, task_id).await?;
    let request = CancelRequest {
        job_id: task_id.to_owned(),
        ..CancelRequest::default()
    };
    match service.cancel(request).await {
        CancelAnswer { success: true, .. } | CancelAnswer { is_done: true, .. } => Ok(()),
        CancelAnswer { error, .. } => {
            Err(ErrorData::internal_error(error.unwrap_or_default(), None))
        }
    }
}

async fn record(service: &JobService, task_id: &str) -> Result<JobRecord, ErrorData> {
    let found = service.registry().get(task_id).await;
    found
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))?
        .ok_or_else(|| {
            let error = format!(
                "Task not found: {:?}; its id is the job id, which list_jobs shows",
                shown(task_id)
            );
            ErrorData::invalid_params(error, None)
        })
}

/// A task, as far as the registry knows it.
fn task(record: &JobRecord, status: TaskStatus) -> Task {
    let now = Utc::now();
    let created = record.submitted_at().unwrap_or(now);
    // A look at the launcher is what updates a task.
    Task::new(record.job_id.clone(), status, time(created), time(now))
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn poll_interval(record: &JobRecord) -> u64 {
    if record.cloud == LOCAL {
        LOCAL_POLL_MS
    } else {
        CLOUD_POLL_MS
    }
}

/// A task as the launcher says it is.
fn detailed(record: &JobRecord, answer: PollAnswer) -> Result<DetailedTask, ErrorData> {
    let is_done = answer.is_done || answer.is_gone();
    let status = match answer.state {
        _ if !is_done => TaskStatus::Working,
        JobState::Cancelled => TaskStatus::Cancelled,
        _ => TaskStatus::Completed,
    };
    let mut task = task(record, status).with_status_message(message(&answer));
    if !is_done {
        task = task.with_poll_interval_ms(poll_interval(record));
        return Ok(DetailedTask::new(task, TaskPayload::Working));
    }
    task = task.with_ttl_ms(DONE_TTL_MS);
    let ended = answer.metadata.get("ended_at").and_then(Value::as_str);
    if let Some(ended) = ended.and_then(|ended| DateTime::parse_from_rfc3339(ended).ok()) {
        task.last_updated_at = time(ended.to_utc());
    }
    let payload = match status {
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        _ => TaskPayload::Completed {
            result: result(record, answer)?,
        },
    };
    Ok(DetailedTask::new(task, payload))
}

/// The launcher's word, and what is known beside.
fn message(answer: &PollAnswer) -> String {
    let beside = answer.error.as_ref().unwrap_or(&answer.message);
    format!("{}: {beside}", answer.status)
}

/// What the call of `run_job` would have answered, had it waited for the job: a [`RunAnswer`], since that is what the tool's
/// schema promises, with everything of the [`PollAnswer`] in it.
fn result(record: &JobRecord, answer: PollAnswer) -> Result<JsonObject, ErrorData> {
    let broken = |error: serde_json::Error| ErrorData::internal_error(error.to_string(), None);
    let ended_well = answer.state == JobState::Succeeded;
    let run = RunAnswer {
        cluster_name: answer.cluster.clone(),
        launch_confirmed: !answer.oumi_job_id.is_empty(),
        output_dir: clean_controls(&record.output_dir).into_owned(),
        ..RunAnswer::default()
    };
    let poll = PollAnswer {
        success: ended_well,
        error: (!ended_well).then(|| message(&answer)),
        ..answer
    };
    let mut content = serde_json::to_value(run).map_err(broken)?;
    if let (Value::Object(content), Value::Object(poll)) =
        (&mut content, serde_json::to_value(&poll).map_err(broken)?)
    {
        content.extend(poll);
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(content.to_string())]);
    result.structured_content = Some(content);
    result.is_error = Some(!poll.is_success());
    match serde_json::to_value(result).map_err(broken)? {
        Value::Object(result) => Ok(result),
        _ => Ok(JsonObject::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answer: PollAnswer) -> DetailedTask {
        let record = JobRecord {
            job_id: "job".to_owned(),
            submit_time: "2026-11-25T01:02:03+01:00".to_owned(),
            ..JobRecord::default()
        };
        detailed(&record, answer).unwrap()
    }

    fn answer(status: &str, state: JobState, is_done: bool) -> PollAnswer {
        PollAnswer {
            success: true,
            status: status.to_owned(),
            state,
            is_done,
            ..PollAnswer::default()
        }
    }

    #[test]
    fn a_state_means_a_status_only_once_the_job_is_done() {
        use JobState::{Cancelled, Failed, Pending, Running, Succeeded, Unknown};
        for state in [Pending, Running, Succeeded, Failed, Cancelled, Unknown] {
            let task = asked(answer("word", state, false));
            assert_eq!(task.payload, TaskPayload::Working, "{state:?}");
            assert_eq!(task.task.ttl_ms, None);
            let task = asked(answer("word", state, true));
            assert_eq!(task.task.ttl_ms, Some(DONE_TTL_MS));
            match (state, task.payload) {
                (Cancelled, payload) => assert_eq!(payload, TaskPayload::Cancelled),
                (_, TaskPayload::Completed { result }) => {
                    assert_eq!(result["isError"], state != Succeeded, "{state:?}");
                    let content = &result["structuredContent"];
                    assert_eq!(content["success"], state == Succeeded);
                    assert_eq!(content["error"].is_null(), state == Succeeded);
                }
                (_, payload) => panic!("{state:?}: {payload:?}"),
            }
        }
    }

    #[test]
    fn a_job_that_cannot_be_asked_about_goes_on_and_one_that_nobody_knows_is_over() {
        let failed = |status: &str| PollAnswer {
            status: status.to_owned(),
            ..PollAnswer::failure("no answer from the cloud".to_owned())
        };
        let task = asked(failed("unknown"));
        assert_eq!(task.payload, TaskPayload::Working);
        let said = task.task.status_message.unwrap();
        assert!(said.contains("no answer from the cloud"), "{said}");
        let task = asked(failed("not_found"));
        assert_eq!(task.status(), TaskStatus::Completed);
    }

    #[test]
    fn the_times_of_a_task_are_those_of_its_job() {
        let mut ended = answer("failed", JobState::Failed, true);
        let when = "2026-11-25T00:05:00.5Z";
        ended.metadata.insert("ended_at".to_owned(), when.into());
        let task = asked(ended).task;
        assert_eq!(task.created_at, "2026-11-25T00:02:03.000Z");
        assert_eq!(task.last_updated_at, "2026-11-25T00:05:00.500Z");
    }
}
