//! The service that rmcp runs: the [`Server`], whose tools answer in futures of their own.
//!
//! That of rmcp has room for the largest of its handlers, 5 KB, which a thousand calls would keep while they wait.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, ClientNotification, ClientRequest, ProtocolVersion, ServerConfig,
    ServerResult,
};
use rmcp::service::{NotificationContext, Service};

use super::{Answer, Context, Server};
use crate::sync::lock;

/// The call of a tool that rmcp has let through. It is handed over in the extensions of the request.
pub(super) type Call = Arc<Mutex<Option<BoxFuture<'static, Answer<CallToolResponse>>>>>;

pub(crate) struct Dispatcher(pub(crate) Server);

impl Service<RoleServer> for Dispatcher {
    fn handle_request(
        &self,
        request: ClientRequest,
        mut context: Context,
    ) -> impl Future<Output = Answer<ServerResult>> + Send {
        let (call, version) = (Call::default(), context.protocol_version());
        context.extensions.insert(Arc::clone(&call));
        let answer = self.0.handle_request(request, context).boxed();
        async move {
            let answer = answer.await;
            let Some(call) = lock(&call).take() else {
                return answer;
            };
            let mut answer = ServerResult::from(call.await?);
            if version < Some(ProtocolVersion::V_2026_07_28) {
                answer.strip_result_type_for_legacy_peer();
            }
            Ok(answer)
        }
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
