//! The MCP side: the tools, over stdio. It knows the protocol and nothing of clouds.

pub mod stderr;
pub mod stdio;

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::{ToolCallContext, schema_for_input, schema_for_output};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest,
    CustomResult, ErrorCode, Implementation, InitializeRequestParams, InitializeResult, JsonObject,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::stdio::Room;
use crate::service::JobService;
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, JobAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer,
};
use crate::service::requests::{
    CancelRequest, DownRequest, JobQuery, ListRequest, LogsRequest, RunRequest, StopRequest,
};

const INSTRUCTIONS: &str = "Runs Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud, and keeps \
track of them: they go on when this server or its client ends. \
Start: run_job with dry_run=true (the default) shows what would run and starts nothing; show it to the user. Once the user \
agrees, call run_job with dry_run=false, confirm=true, user_confirmation=\"EXECUTE\". Keep the job_id it answers. \
Watch: poll_status says how the job is (a training run takes minutes to days, so ask rarely); get_job_logs returns the end of \
its output, stderr included. End: cancel_job. Lost the id: list_jobs. A cloud job's cluster goes on costing money after the \
job: stop_cluster or down_cluster ends that. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
nobody saw the end. A failed call has success=false and says in `error` what to do.";

/// The MCP server over a job service.
#[derive(Clone)]
pub struct Server {
    service: JobService,
    router: ToolRouter<Self>,
}

#[tool_router]
impl Server {
    /// A server over `service`.
    pub fn new(service: JobService) -> Self {
        Self {
            service,
            router: Self::tool_router(),
        }
    }

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
    async fn run_job(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: RunRequest| self.service.run(request)).await
    }

    /// How a job is, asked of what runs it: status (its own word), state (PENDING RUNNING SUCCEEDED FAILED CANCELLED UNKNOWN)
    /// and is_done. Give job_id, or oumi_job_id and cloud for a job started elsewhere. Jobs take minutes to days: wait between
    /// two calls. When it failed, call get_job_logs.
    #[tool(
        title = "Job status",
        input_schema = input_schema::<JobQuery>(),
        output_schema = output_schema::<PollAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn poll_status(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |query: JobQuery| self.service.poll(query)).await
    }

    /// The last lines of a job's output, stdout and stderr together, also while it runs and after it failed. Give job_id, or
    /// oumi_job_id, cloud and cluster_name.
    #[tool(
        title = "Job log",
        input_schema = input_schema::<LogsRequest>(),
        output_schema = output_schema::<LogsAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_job_logs(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: LogsRequest| self.service.logs(request)).await
    }

    /// End a job and all its processes; what it computed and did not save is lost. Answers after at most some 10 s whether it
    /// has ended, or what is left and how to force it (force=true kills). A job that has ended is refused with its status.
    #[tool(
        title = "Cancel a job",
        input_schema = input_schema::<CancelRequest>(),
        output_schema = output_schema::<CancelAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel_job(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: CancelRequest| {
            self.service.cancel(request)
        })
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
    async fn stop_cluster(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: StopRequest| {
            self.service.stop_cluster(request)
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
    async fn down_cluster(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: DownRequest| {
            self.service.down_cluster(request)
        })
        .await
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Server {
    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let answer = self.negotiate_initialize(&request)?;
        // What was agreed holds from now on, which need not be what was asked for.
        request.protocol_version = answer.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(answer)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !self.router.has_route(&request.name) {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {}", shown(&request.name)),
                None,
            ));
        }
        let (server, given_up) = (self.clone(), context.ct.clone());
        // In a task of its own: a panic in a tool is then an error of that call alone, and a call that the client gives up
        // is not waited for, while a launch it has begun goes on.
        let call = tokio::spawn(async move {
            // The router drops it before the tool runs.
            let _room = context.extensions.get::<Room>().cloned();
            let call = ToolCallContext::new(&server, request, context);
            server.router.call(call).await
        });
        tokio::select! {
            called = call => called.unwrap_or_else(|error| {
                tracing::error!(%error, "a tool call broke");
                Err(ErrorData::internal_error("the call broke inside the server; try again, and report it if it stays", None))
            }),
            () = given_up.cancelled() => Err(ErrorData::internal_error("the call was given up by the client", None)),
        }
    }

    /// What no typed request could be made of: a method that is not here, or params that do not fit one that is.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        if is_served(method, &self.get_info().capabilities) {
            Err(ErrorData::invalid_params(unfit_params(&request), None))
        } else {
            let error = format!("Method not found: {}", shown(method));
            Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None))
        }
    }

    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_title("Oumi jobs");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }
}

/// Whether a server of these capabilities has the method.
fn is_served(method: &str, capabilities: &ServerCapabilities) -> bool {
    match method {
        "initialize" | "ping" | "server/discover" => true,
        "completion/complete" => capabilities.completions.is_some(),
        "subscriptions/listen" => capabilities.resources.is_some(),
        _ => match method.split_once('/') {
            Some(("tools", "call" | "list")) => capabilities.tools.is_some(),
            Some(("prompts", "get" | "list")) => capabilities.prompts.is_some(),
            Some((
                "resources",
                "list" | "read" | "templates/list" | "subscribe" | "unsubscribe",
            )) => capabilities.resources.is_some(),
            Some(("tasks", "get" | "update" | "cancel")) => capabilities.supports_tasks(),
            _ => false,
        },
    }
}

/// What is wrong with the params of a request. They are not repeated: they may hold secrets.
fn unfit_params(request: &CustomRequest) -> String {
    match (request.method.as_str(), &request.params) {
        ("tools/call", None) => "`tools/call` needs `name` and `arguments`".to_owned(),
        ("tools/call", Some(params)) if !params["name"].is_string() => {
            "`name` is the name of a tool, a string".to_owned()
        }
        ("tools/call", _) => "`arguments` is an object, not a list or a text".to_owned(),
        (method, _) => format!("the params do not fit {method}"),
    }
}

/// What a client said, short enough to be said again.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(1000) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Reads the arguments of a call, has it answered, and gives the answer both as structured content and as text. Arguments
/// that do not fit are answered like any other failure: in the tool's own fields.
async fn answer<Q, A, F>(arguments: JsonObject, ask: impl FnOnce(Q) -> F) -> CallToolResult
where
    Q: DeserializeOwned,
    A: JobAnswer,
    F: Future<Output = A>,
{
    let answered = match read_arguments(arguments) {
        Ok(request) => ask(request).await,
        Err(error) => A::failure(error),
    };
    let (content, is_error) = match serde_json::to_value(&answered) {
        Ok(content) => (content, !answered.is_success()),
        Err(error) => (
            serde_json::json!({ "success": false, "error": error.to_string() }),
            true,
        ),
    };
    let content = without_controls(content);
    let mut result = CallToolResult::success(vec![ContentBlock::text(content.to_string())]);
    result.structured_content = Some(content);
    result.is_error = Some(is_error);
    result
}

/// An answer without what a terminal obeys: whoever shows it must not be led by what a job, a launcher or a config says.
/// Newlines and tabs only lay out text. A mark is left, since a name without a part of it would be another's.
fn without_controls(value: Value) -> Value {
    let obeyed = |other: char| other.is_control() && !matches!(other, '\n' | '\t');
    let clean = |text: String| {
        if text.contains(obeyed) {
            text.replace("\r\n", "\n").replace(obeyed, "\u{fffd}")
        } else {
            text
        }
    };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => items.into_iter().map(without_controls).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (clean(name), without_controls(field)))
            .collect(),
        other => other,
    }
}

/// Arguments as a request, or a sentence that says which field, what was given and what is allowed. A `null` counts as
/// not given. What was given is not repeated for `envs`, whose values are secret.
fn read_arguments<Q: DeserializeOwned>(mut arguments: JsonObject) -> Result<Q, String> {
    arguments.retain(|_, value| !value.is_null());
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let (path, reason) = (error.path().to_string(), error.inner().to_string());
        let (path, reason) = (shown(&path), shown(&reason));
        match path.as_ref() {
            "." => format!("the arguments do not fit: {reason}; correct them and call again"),
            _ if path == "envs" || path.starts_with("envs.") => {
                format!("the argument `{path}` does not fit: environment variables are texts; correct it and call again")
            }
            // The reason names the unknown field already.
            _ if reason.starts_with("unknown field") => format!("{reason}; correct the arguments and call again"),
            _ => format!("the argument `{path}` does not fit: {reason}; correct it and call again"),
        }
    })
}

fn input_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    slim(schema_for_input::<T>().unwrap_or_else(|error| {
        // Only a type that is no object can come here, and every request is one.
        tracing::error!(%error, "a tool has no schema");
        Default::default()
    }))
}

/// The fields of an answer explain themselves: no model is shown this schema, and clients pay for its bytes. The formats are
/// Rust's (`uint64`), and strict clients complain of them.
fn output_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    let mut schema = slim(schema_for_output::<T>());
    Arc::make_mut(&mut schema)
        .values_mut()
        .for_each(without_remarks);
    schema
}

fn without_remarks(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // A field may itself be named so; then it is a schema and no text.
            object.retain(|key, value| {
                !(matches!(key.as_str(), "description" | "format") && value.is_string())
            });
            object.values_mut().for_each(without_remarks);
        }
        Value::Array(array) => array.iter_mut().for_each(without_remarks),
        _ => {}
    }
}

/// A schema without what a model has no use for: it pays for every byte of it in each conversation.
fn slim(mut schema: Arc<JsonObject>) -> Arc<JsonObject> {
    let slimmed = Arc::make_mut(&mut schema);
    for key in ["$schema", "title", "description"] {
        slimmed.remove(key);
    }
    if let Some(Value::Object(properties)) = slimmed.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.retain(|key, value| {
                key != "format" && !(key == "default" && (value == "" || value.is_null()))
            });
        }
    }
    schema
}

/// The names of the tools.
pub fn tool_names() -> Vec<Cow<'static, str>> {
    Server::tool_router()
        .list_all()
        .into_iter()
        .map(|tool| tool.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_has_a_format_that_json_schema_does_not_know() {
        for tool in Server::tool_router().list_all() {
            let schemas =
                serde_json::to_string(&(&tool.input_schema, &tool.output_schema)).unwrap();
            assert!(
                !schemas.contains(r#""format":"#),
                "{}: {schemas}",
                tool.name
            );
        }
    }
}
