//! The MCP side: the tools, over stdio. It knows the protocol and nothing of clouds.

pub mod stderr;
pub mod stdio;
mod tools;

use std::borrow::Cow;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode,
    Implementation, InitializeRequestParams, InitializeResult, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};

use self::stdio::Room;
use crate::service::JobService;

const INSTRUCTIONS: &str = "Runs Oumi jobs (training, evaluation, inference, …) on this machine or on a cloud, and keeps \
track of them: they go on when this server or its client ends. \
Start: run_job with dry_run=true (the default) shows what would run and starts nothing; show it to the user. Once the user \
agrees, call run_job with dry_run=false, confirm=true, user_confirmation=\"EXECUTE\". Keep the job_id it answers. \
Watch: poll_status says how the job is (a training run takes minutes to days, so ask rarely); get_job_logs returns the end of \
its output, and with the `cursor` of its last answer only what is new. End: cancel_job. Lost the id: list_jobs. A cloud job's cluster goes on costing money after the \
job: stop_cluster or down_cluster ends that. \
`status` is the launcher's own word and `state` what it means: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or UNKNOWN where \
nobody saw the end. A failed call has success=false and says in `error` what to do.";

/// The MCP server over a job service.
#[derive(Clone)]
pub struct Server {
    service: JobService,
    router: ToolRouter<Self>,
}

impl Server {
    /// A server over `service`.
    pub fn new(service: JobService) -> Self {
        Self {
            service,
            router: Self::tool_router(),
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

/// The names of the tools.
pub fn tool_names() -> Vec<Cow<'static, str>> {
    Server::tool_router()
        .list_all()
        .into_iter()
        .map(|tool| tool.name)
        .collect()
}
