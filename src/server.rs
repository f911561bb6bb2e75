//! The MCP side: tools, resources, prompts and tasks, over stdio. It knows the protocol and nothing of clouds.

mod arguments;
mod elicitation;
mod message;
mod progress;
mod prompts;
mod resources;
mod roots;
mod schema;
pub(crate) mod stderr_log;
mod tasks;
#[cfg(test)]
mod tests;
mod tools;
pub(crate) mod transport;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CustomRequest, CustomResult,
    ErrorCode, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Icon,
    Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    TASKS_EXTENSION_ID, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};
use tokio::runtime::Handle;
use tokio::sync::{Notify, SetOnce};
use tokio::time::timeout;

use self::elicitation::{ElicitingCaller, PendingPrompts};
use self::transport::CallPermit;
use crate::process::on_file_threads;
use crate::service::{JobService, setting_problems};
use crate::text::shorten;

const INSTRUCTIONS: &str = "Runs Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud, and keeps \
track of them: they go on when this server or its client ends. \
Start: run_job with dry_run=true (the default) shows what would run and starts nothing; show it to the user. Once the user \
agrees, call run_job with dry_run=false, confirm=true, user_confirmation=\"EXECUTE\" and the plan_id of that dry run. For a \
cloud the user is then asked once more, where the client can: wait for them. Keep the job_id it answers. \
Watch: poll_status says how the job is, how far (`progress`), and why it failed (`failure`, with what to change). Do what \
`next` of its answer says. You have no clock: where minutes are left, wait with wait_seconds=55, which answers as soon as \
something changes; where hours are left, tell the user and end your turn; with a shell, `oumi-mcp-server wait JOB_ID` ends when \
the job does. get_job_logs returns the end of the output, \
stderr included, and with the `cursor` of its last answer only what is new. End: cancel_job. Lost the id: list_jobs. A cloud \
job's cluster goes on costing money after the \
job: stop_cluster or down_cluster ends that. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
the end was not recorded. A failed call has success=false and says in `error` what to do.";

const READ_ONLY_INSTRUCTIONS: &str = "Watches Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud. Whoever set this \
server up allows it to change nothing: no job can be started or ended here. \
list_jobs shows the jobs; poll_status says how one is, how far and why it failed: do what `next` of its answer says. You have \
no clock: where minutes are left, wait with wait_seconds=55; where hours are left, tell the user and end your turn. \
get_job_logs returns the end of its output, stderr included. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
the end was not recorded. A failed call has success=false and says in `error` what to do.";

/// The time that a client has for its handshake before the recovery takes a part of the processor.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// The time that a call waits for the recovery of what an earlier server left. It usually takes milliseconds; longer where
/// another server holds the registry. With the time for the last answers it is less than the 2 s that clients leave a server.
const RECOVERY_WAIT: Duration = Duration::from_millis(700);

/// The MCP server over a job service.
#[derive(Clone)]
pub(crate) struct Server {
    service: JobService,
    /// Made when a client first needs it: most of the time of a start would go into its schemas.
    router: Arc<OnceLock<ToolRouter<Self>>>,
    prompts: Arc<PendingPrompts>,
    called: Arc<Notify>,
    recovery: Arc<SetOnce<()>>,
    /// Runs the calls. The messages are read and written on another runtime, so that calls that hang do not hold them up.
    calls: Handle,
}

impl Server {
    /// A server over `service`, with the tools that its policy allows. Its calls run on `calls`, and so does the recovery of
    /// what an earlier server left, which begins with the first of them or after [`HANDSHAKE`].
    pub(crate) fn new(service: JobService, calls: Handle) -> Self {
        let recovery = Arc::new(SetOnce::new());
        let called = Arc::new(Notify::new());
        let (recovering, done) = (service.clone(), Arc::clone(&recovery));
        let first_call = Arc::clone(&called);
        calls.spawn(on_file_threads(calls.clone(), async move {
            timeout(HANDSHAKE, first_call.notified()).await.ok();
            recovering.recover().await;
            done.set(()).ok();
        }));
        Self {
            service,
            router: Arc::default(),
            prompts: Arc::default(),
            called,
            recovery,
            calls,
        }
    }

    /// Waits for the recovery, which begins now if it has not yet.
    pub(crate) async fn recovered(&self) {
        self.called.notify_one();
        timeout(RECOVERY_WAIT, self.recovery.wait()).await.ok();
    }

    fn router(&self) -> &ToolRouter<Self> {
        self.router.get_or_init(|| {
            let mut router = tools::router();
            if self.service.policy().read_only {
                let tools = &mut router.map;
                tools.retain(|_, route| tools::is_read_only(&route.attr));
            }
            router
        })
    }

    /// Answers a request in a task of its own. A panic becomes an error of that request, and a request that the client cancels
    /// is answered at once while the work it began goes on.
    async fn run<T: Send + 'static, F: Future<Output = Result<T, ErrorData>> + Send + 'static>(
        &self,
        context: RequestContext<RoleServer>,
        answer: impl FnOnce(Self, RequestContext<RoleServer>) -> F,
    ) -> Result<T, ErrorData> {
        let cancelled = context.ct.clone();
        // rmcp's router drops its copy before the tool runs.
        let permit = context.extensions.get::<CallPermit>().cloned();
        let (server, answering) = (self.clone(), answer(self.clone(), context));
        let call = tokio::spawn(on_file_threads(self.calls.clone(), async move {
            let _permit = permit;
            server.recovered().await;
            answering.await
        }));
        tokio::select! {
            called = call => called.unwrap_or_else(|error| {
                tracing::error!(%error, "a call panicked");
                Err(ErrorData::internal_error("the call failed inside the server; try again, and report it if it fails again", None))
            }),
            () = cancelled.cancelled() => Err(ErrorData::internal_error("the client cancelled the call", None)),
        }
    }
}

#[tool_handler(router = self.router())]
impl ServerHandler for Server {
    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if tasks::version_has_tasks(&context) {
            return Err(method_not_found("initialize"));
        }
        let mut answer = self.negotiate_initialize(&request)?;
        // No version with `initialize` has tasks.
        if let Some(mut extensions) = answer.capabilities.extensions.take() {
            extensions.remove(TASKS_EXTENSION_ID);
            answer.capabilities.extensions = Some(extensions).filter(|left| !left.is_empty());
        }
        // The version that was agreed on, which need not be the one asked for.
        request.protocol_version = answer.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(answer)
    }

    async fn call_tool(
        &self,
        mut request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.router().get(&request.name) else {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {}", truncated(&request.name)),
                None,
            ));
        };
        match arguments::fit(
            &tool.input_schema,
            request.arguments.take().unwrap_or_default(),
        ) {
            Ok(fitted) => request.arguments = Some(fitted),
            Err(error) => return Ok(tools::failure(&error.to_string()).into()),
        }
        let caller = ElicitingCaller::new(&request, &context, Arc::clone(&self.prompts));
        context.extensions.insert(Arc::new(caller));
        let as_task = request.name == "run_job" && tasks::client_accepts_tasks(&context);
        self.run(context, |server, context| async move {
            let call = |context| {
                let call = ToolCallContext::new(&server, request, context);
                server.router().call(call)
            };
            let answer = progress::with_progress(context, call).await?;
            Ok(if as_task {
                tasks::from_run_answer(&server.service, answer).await
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
        self.run(context, |server, _| async move {
            resources::list(&server.service).await
        })
        .await
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
        self.run(context, |server, _| async move {
            let read = resources::read(&server.service, &request.uri).await;
            read.map(ReadResourceResponse::from)
        })
        .await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.run(context, |server, _| async move {
            tasks::get(&server.service, &request.task_id).await
        })
        .await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.run(context, |server, _| async move {
            tasks::update(&server.service, &request.task_id).await
        })
        .await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.run(context, |server, _| async move {
            tasks::cancel(&server.service, &request.task_id).await
        })
        .await
    }

    /// Refuses what rmcp could parse as no request: an unknown method, or wrong params of a known one.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        let is_stateless = tasks::version_has_tasks(&context);
        if is_served(method, is_stateless, &self.get_info().capabilities) {
            Err(ErrorData::invalid_params(invalid_params(&request), None))
        } else {
            Err(method_not_found(method))
        }
    }

    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_title("Oumi jobs")
            .with_icons(vec![icon()]);
        let mut capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_tasks()
            .build();
        let read_only = self.service.policy().read_only;
        if read_only {
            // No job is started that could be a task, and cancelling one is a change.
            capabilities.extensions = None;
        }
        let instructions = if read_only {
            READ_ONLY_INSTRUCTIONS
        } else {
            INSTRUCTIONS
        };
        // In front, since clients cut long instructions.
        let problems = setting_problems();
        let problems = problems
            .iter()
            .map(|problem| format!("Tell the user: {problem}. "));
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(problems.collect::<String>() + instructions)
    }
}

/// The icon is a PNG, which every client that shows icons supports, as data: there is no URL to fetch it from.
fn icon() -> Icon {
    let png = BASE64.encode(include_bytes!("server/icon.png"));
    Icon::new(format!("data:image/png;base64,{png}"))
        .with_mime_type("image/png")
        .with_sizes(vec!["64x64".to_owned()])
}

fn method_not_found(method: &str) -> ErrorData {
    let error = format!("Method not found: {}", truncated(method));
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error, None)
}

/// Tells whether a server of these capabilities has the method, in the stateless versions or in those before.
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

/// Says what is wrong with the params of a request. They may hold secrets and are not repeated.
fn invalid_params(request: &CustomRequest) -> String {
    match (request.method.as_str(), &request.params) {
        ("tools/call", None) => "`tools/call` needs `name` and `arguments`".to_owned(),
        ("tools/call", Some(params)) if !params["name"].is_string() => {
            "`name` is the name of a tool, a string".to_owned()
        }
        ("tools/call", _) => "`arguments` is an object, not a list or a text".to_owned(),
        ("initialize", _) => {
            "`initialize` needs `protocolVersion`, a text such as \"2025-11-25\"".to_owned()
        }
        (method, _) => format!("the params do not fit {method}"),
    }
}

/// Shortens a text of the client to what an answer may repeat.
fn truncated(text: &str) -> Cow<'_, str> {
    shorten(text, 1000)
}
