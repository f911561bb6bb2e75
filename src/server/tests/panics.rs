//! A panic in a tool: an error of that call alone.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::server::Server;
use crate::server::transport::Stdio;
use crate::service::tests::test_service::test_service_with;
use crate::settings::policy::Policy;
use rmcp::service::serve_directly;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_in_a_tool_fails_its_call_alone() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let logging = tracing_subscriber::fmt()
        .with_writer(Mutex::new(Log(Arc::clone(&log))))
        .finish();
    // The runtime of a test has this one thread.
    let _logging = tracing::subscriber::set_default(logging);
    let test = test_service_with(&[&["gcp"]], Policy::default());
    test.cloud.panic_in_status();
    let (ours, its) = tokio::io::duplex(4096);
    let (input, output) = tokio::io::split(its);
    let (stdio, _ended) = Stdio::new(input, output, std::future::pending());
    let server = serve_directly(Server::new(test.service.clone()), stdio, None);
    let (answers, mut requests) = tokio::io::split(ours);
    let mut answers = BufReader::new(answers).lines();
    let mut call = async |id: &str, method: &str, params: Value| -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let line = format!("{request}\n");
        requests.write_all(line.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), answers.next_line());
        let line = answer.await.expect("it is answered").unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], id);
        answer
    };
    let client = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" },
    });
    call("hello", "initialize", client).await;
    let job = json!({ "oumi_job_id": "1", "cloud": "gcp", "cluster_name": "c" });
    let poll = json!({ "name": "poll_status", "arguments": job });
    let answer = call("poll", "tools/call", poll).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let list = json!({ "name": "list_jobs", "arguments": {} });
    let answer = call("list", "tools/call", list).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let logged = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("as the test wanted"), "{logged}");
    server.cancel().await.unwrap();
}
