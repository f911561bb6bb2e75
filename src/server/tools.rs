//! The tools: what a model sees of them, and how a call is read and answered.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use rmcp::handler::server::common::schema_for_output;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool};
use rmcp::{tool, tool_router};
use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};
use serde::Serialize;
use serde_json::{Value, json};

use super::tasks::version_has_tasks;
use super::{Context, Server};
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer, to_json,
};
use crate::service::requests::{
    CancelRequest, DownRequest, ListRequest, LogsRequest, PollRequest, RunRequest, StopRequest,
};

/// The wait for the client's roots.
const ROOTS_WAIT: Duration = Duration::from_secs(5);

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
            let root = Box::pin(project_folder(&context)).await;
            request.client_cwd = root.unwrap_or_default();
        }
        if context.ct.is_cancelled() {
            return failure("the client cancelled the call");
        }
        // A launch that has begun goes on. A question to the user is withdrawn first.
        tokio::select! {
            biased;
            run = self.service.run(request) => answer(&run),
            () = context.ct.cancelled() => failure("the client cancelled the call"),
        }
    }

    /// Get a job's status, asked of its launcher: status (the launcher's word), state (PENDING RUNNING SUCCEEDED FAILED CANCELLED UNKNOWN)
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
        let on_poll = |poll: &PollAnswer| self.service.report(&poll.message);
        let shows_progress = context.meta.get_progress_token().is_some();
        tokio::select! {
            poll = self.service.poll_until(request, &on_poll, shows_progress) => answer(&poll),
            () = context.ct.cancelled() => failure("the client cancelled the call"),
        }
    }

    /// Read a job's output, stderr included, even while it runs: its end, what is new since a cursor, or what matches grep.
    #[tool(
        title = "Job log",
        output_schema = schema_for_output::<LogsAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_job_logs(&self, Parameters(request): Parameters<LogsRequest>) -> CallToolResult {
        let logs = self.service.logs(request).await;
        let mut result = answer(&logs);
        let picture = logs.picture.map(|png| BASE64.encode(png));
        let picture = picture.map(|png| ContentBlock::image(png, "image/png"));
        result.content.extend(picture);
        result
    }

    /// End a job and all its processes; what it computed and did not save is lost. Answers within about 10 s, on a cloud a minute,
    /// that it has ended, or what is left and how to force it (force=true kills). A job that has ended is refused with its status.
    #[tool(
        title = "Cancel a job",
        output_schema = schema_for_output::<CancelAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel_job(&self, Parameters(request): Parameters<CancelRequest>) -> CallToolResult {
        answer(&self.service.cancel(request).await)
    }

    /// List the known jobs, newest first, each with its current status; `warnings` names what could not be asked. Use it to find
    /// a job_id again. status: running means not done, completed means done, however it ended.
    #[tool(
        title = "List jobs",
        output_schema = schema_for_output::<ListAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn list_jobs(&self, Parameters(request): Parameters<ListRequest>) -> CallToolResult {
        answer(&self.service.list(request).await)
    }

    /// Stop a cloud cluster: its machines and the jobs on it end; its disks are kept and billed. Not every cloud can;
    /// down_cluster always can.
    #[tool(
        title = "Stop a cluster",
        output_schema = schema_for_output::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn stop_cluster(&self, Parameters(request): Parameters<StopRequest>) -> CallToolResult {
        answer(&self.service.stop_cluster(request).await)
    }

    /// Delete a cloud cluster and everything on its disks, which ends its costs. Needs confirm=true and
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

/// The tools. Their descriptions are the comments above. Those that change something refuse fields they do not know.
pub(super) fn router() -> ToolRouter<Server> {
    let mut router = Server::tool_router();
    for tool in router.map.values_mut().map(|route| &mut route.attr) {
        if let Some(description) = &mut tool.description {
            *description = description.replace('\n', " ").into();
        }
        let is_closed = !is_read_only(tool);
        let input = Arc::make_mut(&mut tool.input_schema);
        simplify(input, false);
        if is_closed {
            input.insert("additionalProperties".to_owned(), false.into());
        }
        if let Some(output) = &mut tool.output_schema {
            simplify(Arc::make_mut(output), true);
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
        warnings.push(format!("unknown arguments were ignored: {names}").into());
        content["warnings"] = warnings.into();
        answer.content[0] = ContentBlock::text(content.to_string());
    }
}

/// Removes from a schema what a model has no use for: it pays for every byte in each conversation. Formats are Rust's (`uint64`),
/// and strict clients reject them. Nothing in an answer is null, only `success` is required, and no model is shown its descriptions.
fn simplify(schema: &mut JsonObject, is_answer: bool) {
    for key in ["$schema", "title", "description"] {
        schema.remove(key);
    }
    let mut whole = Schema::from(std::mem::take(schema));
    let mut transform = RecursiveTransform(|schema: &mut Schema| {
        let Some(schema) = schema.as_object_mut() else {
            return;
        };
        // Not every client accepts a type that may be null.
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let (Some(Value::Array(required)), true) = (schema.get_mut("required"), is_answer) {
            required.retain(|name| name == "success");
        }
        schema.retain(|key, value| match key.as_str() {
            "format" => false,
            "description" | "minimum" => !is_answer,
            "default" => !(*value == "" || value.is_null() || *value == json!({})),
            "required" => *value != Value::Array(Vec::new()),
            // The default.
            "additionalProperties" => *value != true,
            _ => true,
        });
    });
    transform.transform(&mut whole);
    *schema = std::mem::take(whole.ensure_object());
}

/// Returns the folder of the user's project: the client's first root that is a folder of this machine.
#[expect(
    deprecated,
    reason = "rmcp deprecates roots with 2026-07-28; every version before has them"
)]
async fn project_folder(context: &Context) -> Option<String> {
    context.client_capabilities()?.roots?;
    // In 2026-07-28 a server sends no requests.
    if version_has_tasks(context) {
        return None;
    }
    let listed = tokio::time::timeout(ROOTS_WAIT, context.peer.list_roots());
    let listed = listed.await.ok()?.ok()?;
    listed.roots.iter().find_map(|root| folder(&root.uri))
}

/// Reads the path of a `file:` URI (RFC 8089).
fn folder(uri: &str) -> Option<String> {
    let path = uri.strip_prefix("file://")?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let path = percent_decode_str(path).decode_utf8().ok()?;
    path.starts_with('/').then(|| path.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_no_nulls() {
        let mut schema = json!({ "properties": {
            "perhaps": { "items": { "description": "some", "type": ["object", "null"], "required": ["a"] } },
            "description": { "type": "integer", "format": "uint64", "minimum": 0 },
        }, "required": ["success", "perhaps"] });
        simplify(schema.as_object_mut().unwrap(), true);
        assert_eq!(
            schema,
            json!({ "properties": {
                "perhaps": { "items": { "type": "object" } },
                "description": { "type": "integer" },
            }, "required": ["success"] })
        );
    }

    #[test]
    fn no_tool_has_a_format_of_rust() {
        for tool in router().list_all() {
            let schemas =
                serde_json::to_string(&(&tool.input_schema, &tool.output_schema)).unwrap();
            assert!(
                !schemas.contains(r#""format":"#),
                "{}: {schemas}",
                tool.name
            );
        }
    }

    #[test]
    fn roots_are_folders_of_this_machine() {
        for (uri, path) in [
            ("file:///home/me/my%20project", Some("/home/me/my project")),
            ("file://localhost/p", Some("/p")),
            ("file://elsewhere/p", None),
            ("https://example.org/p", None),
            ("/p", None),
        ] {
            assert_eq!(folder(uri).as_deref(), path, "{uri}");
        }
    }
}
