//! The tools: what a model sees of them, and how a call is read and answered.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::handler::server::common::schema_for_output;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Tool};
use rmcp::{tool, tool_router};
use serde::Serialize;
use serde_json::json;

use super::{Context, Server, progress, roots, schema};
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer, to_json,
};
use crate::service::requests::{
    CancelRequest, DownRequest, ListRequest, LogsRequest, PollRequest, RunRequest, StopRequest,
};

#[tool_router]
impl Server {
    /// Start an Oumi job from a config file, on this machine or a cloud, or preview it. By default (dry_run=true) nothing
    /// starts and the answer shows exactly what would: show that to the user. A real launch needs dry_run=false,
    /// confirm=true and user_confirmation="EXECUTE", given only once the user agreed. The answer's job_id names the job from
    /// then on; next call poll_status with it.
    #[tool(
        title = "Run a job",
        output_schema = schema_for_output::<RunAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    async fn run_job(
        &self,
        Parameters(mut request): Parameters<RunRequest>,
        context: Context,
    ) -> CallToolResult {
        request.config_path = request.config_path.trim().to_owned();
        if request.client_cwd.is_empty() {
            let root = Box::pin(roots::project_folder(&context)).await;
            request.client_cwd = root.unwrap_or_default();
        }
        let on_progress = progress::reporter(&context);
        answer(&self.service.run_with_progress(request, &on_progress).await)
    }

    /// Status of a job, asked of its launcher: status (the launcher's word), state (PENDING RUNNING SUCCEEDED FAILED CANCELLED UNKNOWN)
    /// and is_done; its progress; why it failed. Give job_id, or oumi_job_id and cloud for a job started elsewhere. `next`
    /// says when to ask again.
    #[tool(
        title = "Job status",
        output_schema = schema_for_output::<PollAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn poll_status(
        &self,
        Parameters(request): Parameters<PollRequest>,
        context: Context,
    ) -> CallToolResult {
        let report = progress::reporter(&context);
        let on_poll = |poll: &PollAnswer| report(&poll.message);
        let shows_progress = context.meta.get_progress_token().is_some();
        tokio::select! {
            poll = self.service.poll_until(request, &on_poll, shows_progress) => answer(&poll),
            () = context.ct.cancelled() => failure("the client cancelled the call"),
        }
    }

    /// A job's output, stderr included, also while it runs: its end, what is new since a cursor, or what matches grep.
    #[tool(
        title = "Job log",
        output_schema = schema_for_output::<LogsAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_job_logs(&self, Parameters(request): Parameters<LogsRequest>) -> CallToolResult {
        let mut logs = self.service.logs(request).await;
        let picture = logs.picture.take();
        let mut result = answer(&logs);
        let picture = picture.map(|png| ContentBlock::image(BASE64.encode(png), "image/png"));
        result.content.extend(picture);
        result
    }

    /// End a job and all its processes; what it computed and did not save is lost. Answers after at most some 10 s whether it
    /// has ended, or what is left and how to force it (force=true kills). A job that has ended is refused with its status.
    #[tool(
        title = "Cancel a job",
        output_schema = schema_for_output::<CancelAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel_job(
        &self,
        Parameters(request): Parameters<CancelRequest>,
        context: Context,
    ) -> CallToolResult {
        let on_progress = progress::reporter(&context);
        let cancelling = self.service.cancel_with_progress(request, &on_progress);
        answer(&cancelling.await)
    }

    /// The known jobs, newest first, each with its status now; `warnings` names what could not be asked. Use it to find a
    /// job_id again. status: all, running (not done) or completed (done, well or badly).
    #[tool(
        title = "List jobs",
        output_schema = schema_for_output::<ListAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn list_jobs(&self, Parameters(request): Parameters<ListRequest>) -> CallToolResult {
        answer(&self.service.list(request).await)
    }

    /// Stop a cloud cluster: its machines end, and so do the jobs on it; its disks are kept and cost a little. Not every cloud
    /// can; down_cluster always can.
    #[tool(
        title = "Stop a cluster",
        output_schema = schema_for_output::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn stop_cluster(&self, Parameters(request): Parameters<StopRequest>) -> CallToolResult {
        answer(&self.service.stop_cluster(request).await)
    }

    /// Delete a cloud cluster with everything on its disks, and so end its costs. Needs confirm=true and
    /// user_confirmation="DOWN", given only once the user agreed.
    #[tool(
        title = "Delete a cluster",
        output_schema = schema_for_output::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn down_cluster(&self, Parameters(request): Parameters<DownRequest>) -> CallToolResult {
        answer(&self.service.down_cluster(request).await)
    }
}

/// The tools. Their descriptions are the comments above, without the ends of the lines. Those that change something refuse
/// fields they do not know.
pub(super) fn router() -> ToolRouter<Server> {
    let mut router = Server::tool_router();
    for tool in router.map.values_mut().map(|route| &mut route.attr) {
        if let Some(description) = &mut tool.description {
            *description = description.replace('\n', " ").into();
        }
        let is_closed = !is_read_only(tool);
        let input = Arc::make_mut(&mut tool.input_schema);
        schema::simplify(input, false);
        if is_closed {
            input.insert("additionalProperties".to_owned(), false.into());
        }
        if let Some(output) = &mut tool.output_schema {
            schema::simplify(Arc::make_mut(output), true);
        }
    }
    router
}

pub(super) fn is_read_only(tool: &Tool) -> bool {
    let hints = tool.annotations.as_ref();
    hints.and_then(|hints| hints.read_only_hint) == Some(true)
}

fn answer(answer: &impl Serialize) -> CallToolResult {
    // Both as structured content and as text: some clients show one, some the other.
    match to_json(answer) {
        Ok(content) if content.get("error").is_none() => CallToolResult::structured(content),
        Ok(content) => CallToolResult::structured_error(content),
        Err(error) => failure(&error.to_string()),
    }
}

/// Returns the result of a call that failed before there was an answer.
pub(super) fn failure(error: &str) -> CallToolResult {
    CallToolResult::structured_error(json!({ "success": false, "error": error }))
}

/// Warns of arguments that were passed over.
pub(super) fn warn_of_unknown(answer: &mut CallToolResult, names: &str) {
    if !names.is_empty() {
        let content = answer.structured_content.get_or_insert_default();
        let mut warnings = content["warnings"].as_array().cloned().unwrap_or_default();
        warnings.push(format!("not known here, and ignored: {names}").into());
        content["warnings"] = warnings.into();
        answer.content[0] = ContentBlock::text(content.to_string());
    }
}
