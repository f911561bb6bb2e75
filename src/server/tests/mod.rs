mod consent;
mod docs;
mod overload;
mod panics;

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::{RunningService, serve_directly};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};

use crate::server::transport::Stdio;
use crate::server::{Dispatcher, Server};
use crate::service::JobService;

/// A client of a server in this process.
struct Client {
    answers: Lines<BufReader<ReadHalf<DuplexStream>>>,
    requests: WriteHalf<DuplexStream>,
    server: RunningService<RoleServer, Dispatcher>,
}

impl Client {
    /// Starts a server, and shakes hands.
    async fn of(service: &JobService) -> Self {
        let (ours, its) = tokio::io::duplex(64 * 1024);
        let (input, output) = tokio::io::split(its);
        let (stdio, _ended) = Stdio::new(input, output, std::future::pending());
        let server = serve_directly(Dispatcher(Server::new(service.clone())), stdio, None);
        let (answers, requests) = tokio::io::split(ours);
        let answers = BufReader::new(answers).lines();
        let mut client = Self {
            answers,
            requests,
            server,
        };
        let hello = json!({
            "protocolVersion": "2025-11-25", "clientInfo": { "name": "test", "version": "0" },
            "capabilities": { "elicitation": { "form": {} } },
        });
        client.request("hello", "initialize", hello).await;
        assert_eq!(client.next().await["id"], "hello");
        client
    }

    async fn send(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.requests.write_all(line.as_bytes()).await.unwrap();
    }

    async fn request(&mut self, id: &str, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
    }

    async fn call(&mut self, id: &str, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments });
        self.request(id, "tools/call", params).await;
    }

    async fn next(&mut self) -> Value {
        // The clock of some tests is paused: the time is more than a prompt waits.
        let line = tokio::time::timeout(Duration::from_secs(1200), self.answers.next_line());
        let line = line.await.expect("the server writes").unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn end(self) {
        drop(self.requests);
        self.server.cancel().await.unwrap();
    }
}
