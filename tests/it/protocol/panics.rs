//! A fault in a tool, which only a launcher of the test's own has.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oumi_mcp_server::error::JobError;
use oumi_mcp_server::launcher::{
    CancelOutcome, ClusterAction, JobIdentity, JobLog, JobStatus, LaunchPlan, LaunchSpec, Launcher,
    Listing,
};
use oumi_mcp_server::process::job_dir::JobLock;
use oumi_mcp_server::server::Server;
use oumi_mcp_server::server::transport::Stdio;
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::settings::data_dir::DataDir;
use rmcp::service::serve_directly;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::raw::{initialize, request};

struct Faulty;

#[async_trait::async_trait]
impl Launcher for Faulty {
    fn clouds(&self) -> &'static [&'static str] {
        &["faulty"]
    }

    async fn plan(&self, _: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        panic!("a fault")
    }

    async fn start(&self, _: &JobIdentity, _: LaunchPlan, _: JobLock) -> Result<(), JobError> {
        panic!("a fault")
    }

    async fn wait_for_launch(&self, _: &JobIdentity) -> Result<JobIdentity, JobError> {
        panic!("a fault")
    }

    async fn status(&self, _: &JobIdentity) -> Result<JobStatus, JobError> {
        panic!("a fault")
    }

    async fn list(&self, _: &[JobIdentity]) -> Result<Listing, JobError> {
        Ok(Listing::default())
    }

    async fn logs(&self, _: &JobIdentity) -> Result<JobLog, JobError> {
        panic!("a fault")
    }

    async fn cancel(&self, _: &JobIdentity, _: bool) -> Result<CancelOutcome, JobError> {
        panic!("a fault")
    }

    async fn teardown_cluster(
        &self,
        _: &str,
        _: &str,
        _: ClusterAction,
    ) -> Result<String, JobError> {
        panic!("a fault")
    }
}

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
async fn a_panic_in_a_tool_is_an_error_of_that_call_alone() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let logging = tracing_subscriber::fmt()
        .with_writer(Mutex::new(Log(Arc::clone(&log))))
        .finish();
    // The runtime of a test has this one thread.
    let _logging = tracing::subscriber::set_default(logging);
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path());
    folder.create().unwrap();
    let service = JobService::new(folder, vec![Arc::new(Faulty)]);
    let (ours, its) = tokio::io::duplex(4096);
    let (input, output) = tokio::io::split(its);
    let (stdio, _ended) = Stdio::new(input, output, std::future::pending());
    let server = serve_directly(Server::new(service), stdio, None);

    let (answers, mut questions) = tokio::io::split(ours);
    let mut answers = BufReader::new(answers).lines();
    let faulty = json!({ "oumi_job_id": "1", "cloud": "faulty", "cluster_name": "c" });
    let calls = [("poll_status", faulty), ("list_jobs", json!({}))];
    questions
        .write_all(format!("{}\n", initialize(0, "2025-11-25")).as_bytes())
        .await
        .unwrap();
    answers.next_line().await.unwrap().unwrap();
    for (tool, arguments) in calls {
        let call = request(
            tool,
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        );
        questions
            .write_all(format!("{call}\n").as_bytes())
            .await
            .unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), answers.next_line());
        let line = answer.await.expect("it is answered").unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], tool);
        if tool == "poll_status" {
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
        } else {
            assert_eq!(answer["result"]["isError"], false, "{answer}");
        }
    }
    let logged = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("a fault"), "{logged}");
    drop(questions);
    server.cancel().await.unwrap();
}
