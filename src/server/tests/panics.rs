//! A panic in a tool: an error of that call alone.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::server::tests::Client;
use crate::service::tests::test_service::test_service_with;
use crate::settings::policy::Policy;
use serde_json::json;

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
    let mut client = Client::of(&test.service).await;
    let job = json!({ "oumi_job_id": "1", "cloud": "gcp", "cluster_name": "c" });
    client.call("poll", "poll_status", job).await;
    let answer = client.next().await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    client.call("list", "list_jobs", json!({})).await;
    let answer = client.next().await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let logged = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("as the test wanted"), "{logged}");
    client.end().await;
}
