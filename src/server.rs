//! The MCP side: tools, resources, prompts and tasks, over stdio. It knows the protocol and nothing of clouds.

mod elicitation;
mod icon;
mod progress;
mod prompts;
mod resources;
pub mod stderr_log;
mod tasks;
#[cfg(test)]
mod tests;
mod tools;
pub mod transport;

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CustomRequest, CustomResult,
    ErrorCode, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult,
    Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    TASKS_EXTENSION_ID, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};

use self::elicitation::{Person, Questions};
use self::transport::CallPermit;
use crate::service::JobService;

const INSTRUCTIONS: &str = "Runs Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud, and keeps \
track of them: they go on when this server or its client ends. \
Start: run_job with dry_run=true (the default) shows what would run and starts nothing; show it to the user. Once the user \
agrees, call run_job with dry_run=false, confirm=true, user_confirmation=\"EXECUTE\" and the plan_id of that dry run. For a \
cloud the user is then asked once more, where the client can: wait for them. Keep the job_id it answers. \
Watch: poll_status says how the job is, how far (`progress`), and why it failed (`failure`, with what to change). Do what \
`next` of its answer says: a run takes minutes to days, and it tells when asking again is worth it. wait_seconds=55 answers \
as soon as something changes, so wait that way instead of polling in a loop. get_job_logs returns the end of the output, \
stderr included, and with the `cursor` of its last answer only what is new. End: cancel_job. Lost the id: list_jobs. A cloud \
job's cluster goes on costing money after the \
job: stop_cluster or down_cluster ends that. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
nobody saw the end. A failed call has success=false and says in `error` what to do.";

const READ_ONLY_INSTRUCTIONS: &str = "Watches Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud. Whoever set this \
server up allows it to change nothing: no job can be started or ended here. \
list_jobs shows the jobs; poll_status says how one is, how far and why it failed: do what `next` of its answer says, and wait with \
wait_seconds=55 instead of polling in a loop; get_job_logs returns the end of its output, stderr included. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
nobody saw the end. A failed call has success=false and says in `error` what to do.";

/// The MCP server over a job service.
#[derive(Clone)]
pub struct Server {
    service: JobService,
    router: ToolRouter<Self>,
    questions: Arc<Questions>,
}

impl Server {
    /// A server over `service`, with the tools that its policy allows.
    pub fn new(service: JobService) -> Self {
        let mut router = tools::router();
        if service.policy().read_only {
            for tool in router.list_all() {
                let annotations = tool.annotations.as_ref();
                if annotations.and_then(|hints| hints.read_only_hint) != Some(true) {
                    router.remove_route(&tool.name);
                }
            }
        }
        Self {
            service,
            router,
            questions: Arc::default(),
        }
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Server {
    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if tasks::are_defined(&context) {
            return Err(method_not_found("initialize"));
        }
        let mut answer = self.negotiate_initialize(&request)?;
        // No version with `initialize` defines them.
        if let Some(mut extensions) = answer.capabilities.extensions.take() {
            extensions.remove(TASKS_EXTENSION_ID);
            answer.capabilities.extensions = Some(extensions).filter(|left| !left.is_empty());
        }
        // What was agreed holds from now on, which need not be what was asked for.
        request.protocol_version = answer.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(answer)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !self.router.has_route(&request.name) {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {}", shown(&request.name)),
                None,
            ));
        }
        let person = Person::of(&request, &context, Arc::clone(&self.questions));
        context.extensions.insert(Arc::new(person));
        let as_task = request.name == "run_job" && tasks::are_taken(&context);
        let server = self.clone();
        apart(context, |context| async move {
            let call = |context| {
                let call = ToolCallContext::new(&server, request, context);
                server.router.call(call)
            };
            let answer = progress::told(context, call).await?;
            Ok(if as_task {
                tasks::of_run(&server.service, answer).await
            } else {
                answer
            })
        })
        .await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = prompts::list(self.service.policy().read_only);
        Ok(ListPromptsResult::with_all_items(prompts))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(request, self.service.policy().read_only).map(Into::into)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let service = self.service.clone();
        apart(context, |_| async move { resources::list(&service).await }).await
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let service = self.service.clone();
        apart(context, |_| async move {
            let read = resources::read(&service, &request.uri).await;
            read.map(ReadResourceResponse::from)
        })
        .await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let service = self.service.clone();
        apart(context, |_| async move {
            tasks::get(&service, &request.task_id).await
        })
        .await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::update(&self.service, &request.task_id).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let service = self.service.clone();
        apart(context, |_| async move {
            tasks::cancel(&service, &request.task_id).await
        })
        .await
    }

    /// What no typed request could be made of: a method that is not here, or params that do not fit one that is.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        let is_stateless = tasks::are_defined(&context);
        if is_served(method, is_stateless, &self.get_info().capabilities) {
            Err(ErrorData::invalid_params(unfit_params(&request), None))
        } else {
            Err(method_not_found(method))
        }
    }

    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_title("Oumi jobs")
            .with_icons(vec![icon::icon()]);
        let mut capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_tasks()
            .build();
        let read_only = self.service.policy().read_only;
        if read_only {
            // Nothing is started that could be one, and to cancel one is a change.
            capabilities.extensions = None;
        }
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(if read_only {
                READ_ONLY_INSTRUCTIONS
            } else {
                INSTRUCTIONS
            })
    }
}

fn method_not_found(method: &str) -> ErrorData {
    let error = format!("Method not found: {}", shown(method));
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None)
}

/// Whether a server of these capabilities has the method, in the versions that are stateless or in those before.
fn is_served(method: &str, is_stateless: bool, capabilities: &ServerCapabilities) -> bool {
    match method {
        "initialize" | "ping" => !is_stateless,
        "server/discover" => true,
        _ => match method.split_once('/') {
            Some(("tools", "call" | "list")) => capabilities.tools.is_some(),
            Some(("prompts", "get" | "list")) => capabilities.prompts.is_some(),
            Some(("resources", "list" | "read" | "templates/list")) => {
                capabilities.resources.is_some()
            }
            Some(("tasks", "get" | "update" | "cancel")) => {
                is_stateless && capabilities.supports_tasks()
            }
            _ => false,
        },
    }
}

/// Has a request answered in a task of its own: a panic in it is then an error of that request alone, and one that the client
/// gives up is not waited for, while what it has begun goes on.
async fn apart<T: Send + 'static, F: Future<Output = Result<T, ErrorData>> + Send + 'static>(
    context: RequestContext<RoleServer>,
    answer: impl FnOnce(RequestContext<RoleServer>) -> F,
) -> Result<T, ErrorData> {
    let given_up = context.ct.clone();
    // rmcp's router drops its copy before the tool runs.
    let permit = context.extensions.get::<CallPermit>().cloned();
    let answering = answer(context);
    let call = tokio::spawn(async move {
        let _permit = permit;
        answering.await
    });
    tokio::select! {
        called = call => called.unwrap_or_else(|error| {
            tracing::error!(%error, "a call broke");
            Err(ErrorData::internal_error("the call broke inside the server; try again, and report it if it stays", None))
        }),
        () = given_up.cancelled() => Err(ErrorData::internal_error("the call was given up by the client", None)),
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
