//! The tools: what a model sees of them, and how a call is read and answered.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::elicitation::ElicitingCaller;
use super::schema::{input_schema, output_schema};
use super::{Server, progress, truncated};
use crate::error::JobError;
use crate::service::JobService;
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, JobAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer,
};
use crate::service::requests::{
    CancelRequest, DownRequest, ListRequest, LogsRequest, PollRequest, RunRequest, StopRequest,
};
use crate::text::clean_controls;

#[tool_router]
impl Server {
    /// Start an Oumi job from a config file, on this machine or a cloud, or preview it. By default (dry_run=true) nothing
    /// starts and the answer shows exactly what would: show that to the user. A real launch needs dry_run=false,
    /// confirm=true and user_confirmation="EXECUTE", given only once the user agreed. The answer's job_id names the job from
    /// then on; next call poll_status with it.
    #[tool(
        title = "Run a job",
        input_schema = input_schema::<RunRequest>(),
        output_schema = output_schema::<RunAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    async fn run_job(
        &self,
        Extension(caller): Extension<Arc<ElicitingCaller>>,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResponse {
        let on_progress = progress::reporter(&context);
        self.call_with_consent(caller, arguments, async |service, request: RunRequest| {
            service.run_with_progress(request, &on_progress).await
        })
        .await
    }

    /// Status of a job, asked of its launcher: status (the launcher's word), state (PENDING RUNNING SUCCEEDED FAILED CANCELLED UNKNOWN)
    /// and is_done; its progress; why it failed. Give job_id, or oumi_job_id and cloud for a job started elsewhere. `next`
    /// says when to ask again.
    #[tool(
        title = "Job status",
        input_schema = input_schema::<PollRequest>(),
        output_schema = output_schema::<PollAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn poll_status(
        &self,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        let on_progress = progress::reporter(&context);
        answer(arguments, |request: PollRequest| async {
            tokio::select! {
                answer = self.service.poll_until(request, &on_progress) => answer,
                () = context.ct.cancelled() => PollAnswer::failure("the client cancelled the call".to_owned()),
            }
        })
        .await
    }

    /// A job's output, stderr included, also while it runs: its end, what is new since a cursor, or what matches grep.
    #[tool(
        title = "Job log",
        input_schema = input_schema::<LogsRequest>(),
        output_schema = output_schema::<LogsAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_job_logs(&self, arguments: JsonObject) -> CallToolResult {
        let mut picture = None;
        let mut answered = answer(arguments, async |request: LogsRequest| {
            let mut answer = self.service.logs(request).await;
            picture = answer.picture.take();
            answer
        })
        .await;
        let picture = picture.map(|png| ContentBlock::image(BASE64.encode(png), "image/png"));
        answered.content.extend(picture);
        answered
    }

    /// End a job and all its processes; what it computed and did not save is lost. Answers after at most some 10 s whether it
    /// has ended, or what is left and how to force it (force=true kills). A job that has ended is refused with its status.
    #[tool(
        title = "Cancel a job",
        input_schema = input_schema::<CancelRequest>(),
        output_schema = output_schema::<CancelAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel_job(
        &self,
        Extension(caller): Extension<Arc<ElicitingCaller>>,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResponse {
        let on_progress = progress::reporter(&context);
        self.call_with_consent(
            caller,
            arguments,
            async |service, request: CancelRequest| {
                service.cancel_with_progress(request, &on_progress).await
            },
        )
        .await
    }

    /// The known jobs, newest first, each with its status now; `warnings` names what could not be asked. Use it to find a
    /// job_id again. status: all, running (not done) or completed (done, well or badly).
    #[tool(
        title = "List jobs",
        input_schema = input_schema::<ListRequest>(),
        output_schema = output_schema::<ListAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn list_jobs(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: ListRequest| self.service.list(request)).await
    }

    /// Stop a cloud cluster: its machines end, and so do the jobs on it; its disks are kept and cost a little. Not every cloud
    /// can; down_cluster always can.
    #[tool(
        title = "Stop a cluster",
        input_schema = input_schema::<StopRequest>(),
        output_schema = output_schema::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn stop_cluster(
        &self,
        Extension(caller): Extension<Arc<ElicitingCaller>>,
        arguments: JsonObject,
    ) -> CallToolResponse {
        self.call_with_consent(caller, arguments, async |service, request: StopRequest| {
            service.stop_cluster(request).await
        })
        .await
    }

    /// Delete a cloud cluster with everything on its disks, and so end its costs. Needs confirm=true and
    /// user_confirmation="DOWN", given only once the user agreed.
    #[tool(
        title = "Delete a cluster",
        input_schema = input_schema::<DownRequest>(),
        output_schema = output_schema::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn down_cluster(
        &self,
        Extension(caller): Extension<Arc<ElicitingCaller>>,
        arguments: JsonObject,
    ) -> CallToolResponse {
        self.call_with_consent(caller, arguments, async |service, request: DownRequest| {
            service.down_cluster(request).await
        })
        .await
    }
}

impl Server {
    /// Answers a call for which the person may be asked first.
    async fn call_with_consent<Q: DeserializeOwned, A: JobAnswer>(
        &self,
        caller: Arc<ElicitingCaller>,
        arguments: JsonObject,
        ask: impl AsyncFnOnce(JobService, Q) -> A,
    ) -> CallToolResponse {
        let service = self.service.with_consent(caller.clone());
        let result = answer(arguments, async |request| ask(service, request).await).await;
        caller.or_input_required(result)
    }
}

/// The tools. Their descriptions are the comments above, without the ends of the lines.
pub(super) fn router() -> ToolRouter<Server> {
    let mut router = Server::tool_router();
    for tool in router.map.values_mut() {
        if let Some(description) = &mut tool.attr.description {
            *description = description.replace('\n', " ").into();
        }
    }
    router
}

/// Parses the arguments of a call, runs it, and returns the answer both as structured content and as text. Wrong arguments are
/// answered like any other failure: in the tool's own fields.
async fn answer<Q, A, F>(arguments: JsonObject, run: impl FnOnce(Q) -> F) -> CallToolResult
where
    Q: DeserializeOwned,
    A: JobAnswer,
    F: Future<Output = A>,
{
    let answer = match parse_arguments(arguments) {
        Ok(request) => run(request).await,
        Err(error) => A::failure(clean_controls(&error.to_string()).into_owned()),
    };
    let (content, is_error) = match serde_json::to_value(&answer) {
        Ok(content) => (content, !answer.is_success()),
        Err(error) => (
            json!({ "success": false, "error": error.to_string() }),
            true,
        ),
    };
    structured(content, is_error)
}

/// Returns an answer both as structured content and as text: some clients show one, some the other.
pub(super) fn structured(content: Value, is_error: bool) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(content.to_string())]);
    result.structured_content = Some(content);
    result.is_error = Some(is_error);
    result
}

/// Parses arguments as a request. The error names the field, what was given and what is allowed. A `null` counts as not given.
/// Values of `envs` are secret and are not repeated.
pub(super) fn parse_arguments<Q: DeserializeOwned>(
    mut arguments: JsonObject,
) -> Result<Q, JobError> {
    arguments.retain(|_, value| !value.is_null());
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let (path, reason) = (error.path().to_string(), error.inner().to_string());
        let (path, reason) = (truncated(&path), truncated(&reason));
        let message = if path == "." {
            format!("the arguments do not fit: {reason}")
        } else if path == "envs" || path.starts_with("envs.") {
            format!("the argument `{path}` does not fit: environment variables are texts")
        } else {
            format!("the argument `{path}` does not fit: {reason}")
        };
        JobError::invalid(message).with_hint("correct it and call again")
    })
}
