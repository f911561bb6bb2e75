//! The MCP side: tools, resources, prompts and tasks, over stdio. It knows the protocol and nothing of clouds.

mod arguments;
mod elicitation;
mod message;
mod progress;
mod prompts;
mod resources;
pub(crate) mod stderr_log;
mod tasks;
#[cfg(test)]
mod tests;
mod tools;
pub(crate) mod transport;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ClientNotification,
    ClientRequest, CustomRequest, CustomResult, ErrorCode, GetPromptRequestParams,
    GetPromptResponse, GetTaskParams, GetTaskResult, Icon, Implementation, InitializeRequestParams,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    PaginatedRequestParams as Page, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, ServerResult, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, Service};
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};
use tokio::time::timeout;

use self::elicitation::{ElicitingCaller, PendingPrompts};
use self::transport::CallPermit;
use crate::process::on_file_threads;
use crate::service::{JobService, setting_problems};
use crate::sync::lock;
use crate::text::shorten;

/// The methods that are answered, but those whose params have a sentence of their own.
const METHODS: &str =
    "ping server/discover tools/list prompts/list resources/list resources/templates/list";

/// The time that a call waits for the recovery of what an earlier server left. It usually takes milliseconds; longer where
/// another server holds the registry. With the time for the last answers it is less than the 2 s that clients leave a server.
const RECOVERY_WAIT: Duration = Duration::from_millis(700);

/// A request in which a call came.
type Context = RequestContext<RoleServer>;
type Answer<T> = Result<T, ErrorData>;
/// The call of a tool that rmcp has let through. It is handed over in the extensions of the request.
type Call = Arc<Mutex<Option<BoxFuture<'static, Answer<CallToolResponse>>>>>;

#[derive(Clone)]
pub(crate) struct Server {
    service: JobService,
    /// Made when a client first needs it: most of the time of a start would go into its schemas.
    router: Arc<OnceLock<ToolRouter<Self>>>,
    prompts: Arc<PendingPrompts>,
    recovery: Shared<BoxFuture<'static, ()>>,
}

impl Server {
    /// Begins the recovery of what an earlier server left.
    pub(crate) fn new(service: JobService) -> Self {
        let recovering = service.clone();
        let recovery = async move { recovering.recover().await };
        let recovery = tokio::spawn(on_file_threads(recovery.boxed()));
        Self {
            service,
            router: Arc::default(),
            prompts: Arc::default(),
            // A panic is logged, and must not fail the calls that wait.
            recovery: recovery.map(drop).boxed().shared(),
        }
    }

    /// Waits for the recovery, for a moment.
    pub(crate) async fn recovered(&self) {
        timeout(RECOVERY_WAIT, self.recovery.clone()).await.ok();
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
}

#[tool_handler(router = self.router())]
impl ServerHandler for Server {
    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: Context,
    ) -> Answer<InitializeResult> {
        let mut answer = self.negotiate_initialize(&request)?;
        // The extensions are tasks, which no version with `initialize` has.
        answer.capabilities.extensions = None;
        // The agreed version may differ from the one asked for.
        request.protocol_version = answer.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(answer)
    }

    async fn call_tool(
        &self,
        mut request: CallToolRequestParams,
        mut context: Context,
    ) -> Answer<CallToolResponse> {
        let dispatched = context.extensions.remove::<Call>().unwrap_or_default();
        let Some(tool) = self.router().get(&request.name) else {
            let error = format!("Unknown tool: {}", truncated(&request.name));
            return Err(ErrorData::invalid_params(error, None));
        };
        let arguments = request.arguments.take().unwrap_or_default();
        let (fitted, unknown) = match arguments::fit(&tool.input_schema, arguments) {
            Ok(fitted) => fitted,
            Err(error) => return Ok(tools::failure(&error.to_string()).into()),
        };
        request.arguments = Some(fitted);
        let mut server = self.clone();
        let caller = match tools::is_read_only(tool) {
            true => None,
            false => ElicitingCaller::new(&request, &context, Arc::clone(&self.prompts)),
        };
        let caller = caller.map(Arc::new);
        if let Some(caller) = &caller {
            server.service = server.service.with_consent(caller.clone());
        }
        let as_task = request.name == "run_job" && tasks::client_accepts_tasks(&context);
        let call = async move {
            server.recovered().await;
            let answer = progress::with_progress(&server, context, |server, context| {
                let call = ToolCallContext::new(server, request, context);
                server.router().call(call).boxed()
            });
            let mut answer = answer.await?;
            if let CallToolResponse::Complete(answer) = &mut answer {
                tools::warn_of_unknown(answer, &unknown);
            }
            if let Some(required) = caller.and_then(|caller| caller.input_required()) {
                return Ok(required.into());
            }
            let task = match as_task {
                true => tasks::from_run_answer(&server.service, &answer).await,
                false => None,
            };
            Ok(task.unwrap_or(answer))
        };
        *lock(&dispatched) = Some(call.boxed());
        // A placeholder: the dispatcher answers with the call above.
        Ok(CallToolResult::default().into())
    }

    async fn list_prompts(&self, _: Option<Page>, _: Context) -> Answer<ListPromptsResult> {
        let prompts = prompts::list(self.service.policy().read_only);
        Ok(ListPromptsResult::with_all_items(prompts))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: Context,
    ) -> Answer<GetPromptResponse> {
        prompts::get(request, self.service.policy().read_only).map(Into::into)
    }

    async fn list_resources(&self, _: Option<Page>, _: Context) -> Answer<ListResourcesResult> {
        self.recovered().await;
        resources::list(&self.service).await
    }

    async fn list_resource_templates(
        &self,
        _: Option<Page>,
        _: Context,
    ) -> Answer<ListResourceTemplatesResult> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Answer<ReadResourceResponse> {
        self.recovered().await;
        let read = resources::read(&self.service, request.uri).await;
        read.map(Into::into)
    }

    async fn get_task(&self, request: GetTaskParams, _: Context) -> Answer<GetTaskResult> {
        self.recovered().await;
        tasks::get(&self.service, &request.task_id).await
    }

    /// Ignores the input of a client: no task of ours asks for any.
    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Answer<()> {
        let record = tasks::record(&self.service, &request.task_id).await;
        record.map(drop)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Answer<()> {
        self.recovered().await;
        tasks::cancel(&self.service, &request.task_id).await
    }

    /// Refuses an unknown method, or wrong params of a known one. They may hold secrets and are not repeated.
    async fn on_custom_request(&self, request: CustomRequest, _: Context) -> Answer<CustomResult> {
        let needs = match request.method.as_str() {
            "tools/call" => "`name`, the name of a tool, and `arguments`, an object",
            "initialize" => "`protocolVersion`, a string such as \"2025-11-25\"",
            "prompts/get" => "`name`, the name of a prompt, and `arguments`, an object",
            "resources/read" => "`uri`, one of those that resources/list shows",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "`taskId`, the id of a task",
            method if METHODS.split(' ').any(|known| known == method) => "other params",
            method => return Err(method_not_found(method)),
        };
        let error = format!("`{}` needs {needs}", request.method);
        Err(ErrorData::invalid_params(error, None))
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
            // No job can be started as a task, and cancelling a task is a change.
            capabilities.extensions = None;
        }
        // Problems come first, since clients cut long instructions.
        let sentence = |problem| format!("Tell the user: {problem}. ");
        let problems: String = setting_problems().into_iter().map(sentence).collect();
        let instructions = match read_only {
            true => include_str!("server/instructions_read_only.md"),
            false => include_str!("server/instructions.md"),
        };
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(problems + instructions.trim_end())
    }
}

/// The service that rmcp runs: the [`Server`], whose tools answer in futures of their own. That of rmcp has room for the largest
/// of its handlers, 5 KB, which a thousand calls would keep while they wait.
pub(crate) struct Dispatcher(pub(crate) Server);

impl Service<RoleServer> for Dispatcher {
    /// Answers a request about jobs in a task of its own. A panic becomes an error of that request, and a request that the client
    /// cancels is answered at once while the work it began goes on, unless its tool gives that up.
    fn handle_request(
        &self,
        request: ClientRequest,
        mut context: Context,
    ) -> impl Future<Output = Answer<ServerResult>> + Send {
        let is_of_jobs = ["tools/call", "resources/list", "resources/read"]
            .contains(&request.method())
            || request.method().starts_with("tasks/");
        let (call, version) = (Call::default(), context.protocol_version());
        let (server, cancelled) = (self.0.clone(), context.ct.clone());
        // rmcp's router drops its copy before the tool runs.
        let permit = context.extensions.get::<CallPermit>().cloned();
        context.extensions.insert(Arc::clone(&call));
        // Made on the thread that answers: of a burst of requests each would hold room for the largest handler before it is begun.
        let begin: Box<dyn FnOnce() -> BoxFuture<'static, Answer<ServerResult>> + Send> =
            Box::new(move || async move { server.handle_request(request, context).await }.boxed());
        let answering = async move {
            let _permit = permit;
            let answer = begin().await;
            let Some(call) = lock(&call).take() else {
                return Box::new(answer);
            };
            // Boxed: what waits for an answer has room for one, in three places.
            let mut answer = Box::new(call.await.map(ServerResult::from));
            if version < Some(ProtocolVersion::V_2026_07_28)
                && let Ok(answer) = &mut *answer
            {
                answer.strip_result_type_for_legacy_peer();
            }
            answer
        };
        if !is_of_jobs {
            // Here, so that it is answered also while files hang.
            return answering.map(|answer| *answer).boxed();
        }
        let answering = tokio::spawn(on_file_threads(answering.boxed()));
        Box::pin(async move {
            tokio::select! {
                answered = answering => *answered.unwrap_or_else(|error| {
                    tracing::error!(%error, "a call panicked");
                    Box::new(Err(internal("the call failed inside the server; try again, and report it if it fails again")))
                }),
                () = cancelled.cancelled() => Err(internal("the client cancelled the call")),
            }
        })
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Answer<()> {
        self.0.handle_notification(notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        Service::get_info(&self.0)
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

fn internal(error: impl ToString) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// Shortens a text of the client to what an answer may repeat.
fn truncated(text: &str) -> Cow<'_, str> {
    shorten(text, 1000)
}
