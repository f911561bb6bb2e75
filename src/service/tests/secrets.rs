//! No text of any answer shows a secret of its job, whichever launcher, log or config brought it in.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::error::JobError;
use crate::failure::Failure;
use crate::launcher::{
    ClusterAction, JobDetails, JobIdentity, JobLog, JobState, JobStatus, LaunchOptions, LaunchPlan,
    LaunchSpec, Launcher, ListedJob, Listing, LogContent,
};
use crate::process::job_dir::JobLock;
use crate::process::plan::SupervisorPlan;
use crate::process::start::StartRequest;
use crate::redact::Redactor;
use crate::service::JobService;
use crate::service::answers::{LogsAnswer, PollAnswer, fields};
use crate::service::requests::{DownRequest, ListRequest, LogsRequest, RunRequest, StopRequest};
use crate::service::sanitize::sanitize;
use crate::settings::data_dir::DataDir;

use super::fake_launcher::{by_id, cancel_by_id, direct, run_request};

const SECRET: &str = "correct-horse-battery";

/// A launcher that says the secret of its job wherever it can say anything.
struct Leaky {
    is_down: bool,
}

fn leak(field: &str) -> String {
    format!("{field} {SECRET}\u{1b}[2J")
}

impl Leaky {
    fn status(&self) -> JobStatus {
        JobStatus {
            message: Some(leak("message")),
            warnings: vec![leak("warning")],
            details: JobDetails {
                job_name: Some(leak("job_name")),
                resources: Some(leak("resources")),
                ..JobDetails::default()
            },
            ..JobStatus::new(&leak("status"), JobState::Failed, false)
        }
    }

    fn answer<T>(&self, answer: T) -> Result<T, JobError> {
        if self.is_down {
            Err(JobError::failed(leak("error")))
        } else {
            Ok(answer)
        }
    }
}

#[async_trait::async_trait]
impl Launcher for Leaky {
    fn clouds(&self) -> &'static [&'static str] {
        &["gcp"]
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        if spec.config.model_name.contains("blocked") {
            return Err(JobError::failed(leak("obstacle")));
        }
        let plan = LaunchPlan {
            command_line: leak("launch"),
            cluster: "c".to_owned(),
            job_config: Some(
                json!({ "run": leak("run"), leak("key"): { "cloud": leak("cloud") } }),
            ),
            autostop: None,
            epilogue: None,
            warnings: vec![leak("warning")],
            process: StartRequest {
                plan: SupervisorPlan {
                    steps: Vec::new(),
                    working_dir: "/".into(),
                    cancellable: false,
                    cleanup: Vec::new(),
                    time_limit_seconds: None,
                },
                envs: Default::default(),
                files: Vec::new(),
            },
        };
        Ok(plan)
    }

    async fn start(&self, _: &JobIdentity, _: LaunchPlan, _: JobLock) -> Result<(), JobError> {
        self.answer(())
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        let identity = JobIdentity {
            oumi_job_id: "1".to_owned(),
            ..identity.clone()
        };
        self.answer(identity)
    }

    async fn status(&self, _: &JobIdentity) -> Result<JobStatus, JobError> {
        self.answer(self.status())
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        let jobs = known.iter().map(|identity| ListedJob {
            identity: identity.clone(),
            status: self.status(),
        });
        let listing = Listing {
            jobs: jobs.collect(),
            warnings: vec![leak("warning")],
            incomplete: Vec::new(),
        };
        self.answer(listing)
    }

    async fn logs(&self, _: &JobIdentity) -> Result<JobLog, JobError> {
        let log = JobLog {
            log_file: "cloud:gcp/c".to_owned(),
            content: LogContent::Text {
                text: format!("{0}\nValueError: {0}\n{0}", leak("log")),
                complete: true,
            },
            ended: false,
            timed_out: true,
        };
        self.answer(log)
    }

    async fn cancel(&self, _: &JobIdentity, _: bool) -> Result<JobStatus, JobError> {
        self.answer(JobStatus::running().with_message(leak("message")))
    }

    fn ends_clusters(&self) -> bool {
        true
    }

    async fn teardown_cluster(
        &self,
        _: &str,
        _: &str,
        _: ClusterAction,
    ) -> Result<String, JobError> {
        self.answer(leak("message"))
    }
}

fn assert_hidden(answer: &impl Serialize) {
    let text = serde_json::to_string(answer).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    assert!(!text.contains("\\u001b"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn no_answer_shows_a_secret() {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path().join("data"));
    folder.create().unwrap();
    let service = |is_down| {
        let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(Leaky { is_down })];
        JobService::new(folder.clone(), launchers)
    };
    let request = |job_name: &str, model: &str| {
        let request = RunRequest {
            options: LaunchOptions {
                envs: [("A".to_owned(), SECRET.to_owned())].into(),
                ..LaunchOptions::default()
            },
            ..run_request(home.path(), job_name, "gcp")
        };
        let config = format!("model: {{model_name: '{model} {SECRET}'}}\n");
        std::fs::write(home.path().join("train.yaml"), config).unwrap();
        request
    };
    let launched = service(false).run(request("job", "model")).await;
    assert!(launched.launch_confirmed, "{launched:?}");
    assert_hidden(&launched);
    for is_down in [false, true] {
        let service = service(is_down);
        let dry_run = RunRequest {
            dry_run: true,
            ..request("dry", "model")
        };
        assert_hidden(&service.run(dry_run).await);
        assert_hidden(&service.run(request("blocked", "blocked")).await);
        assert_hidden(&service.run(request("failing", "model")).await);
        for query in [by_id("job"), direct("gcp", "c", "1")] {
            assert_hidden(&service.poll(query).await);
        }
        // A second look shows what the log brought.
        assert_hidden(&service.poll(by_id("job")).await);
        for grep in ["", "log"] {
            let request = LogsRequest {
                job: by_id("job"),
                grep: grep.to_owned(),
                ..LogsRequest::default()
            };
            assert_hidden(&service.logs(request).await);
        }
        assert_hidden(&service.list(ListRequest::default()).await);
        assert_hidden(&service.cancel(cancel_by_id("job")).await);
        let (cloud, cluster_name) = ("gcp".to_owned(), "c".to_owned());
        let stop = StopRequest {
            cloud: cloud.clone(),
            cluster_name: cluster_name.clone(),
        };
        assert_hidden(&service.stop_cluster(stop).await);
        let down = DownRequest {
            cluster: StopRequest {
                cloud,
                cluster_name,
            },
            confirm: true,
            user_confirmation: "DOWN".to_owned(),
        };
        assert_hidden(&service.down_cluster(down).await);
    }
}

#[test]
fn ids_and_paths_stay_usable() {
    let answer = PollAnswer {
        job_id: SECRET.to_owned(),
        output_dir: format!("/out/{SECRET}"),
        metadata: serde_json::from_value(json!({ "output_dir": SECRET, "resources": SECRET }))
            .unwrap(),
        status: SECRET.to_owned(),
        ..PollAnswer::default()
    };
    let shown = sanitize(answer.clone(), &[Redactor::new([SECRET])]);
    assert_eq!(
        (&shown.job_id, &shown.output_dir),
        (&answer.job_id, &answer.output_dir)
    );
    assert_eq!(shown.metadata["output_dir"], SECRET);
    assert_eq!(
        (shown.metadata["resources"].as_str(), shown.status.as_str()),
        (Some("***"), "***")
    );
}

#[test]
fn own_words_survive_unreadable_secrets() {
    let unreadable = Redactor::unreadable(&std::io::Error::other("no permission"));
    let answer = PollAnswer {
        status: "RUNNING".to_owned(),
        message: "the job runs: step 1".to_owned(),
        next: "Ask again.".to_owned(),
        progress: json!({ "activity": { "what": "saving" } })
            .as_object()
            .cloned(),
        failure: fields(&Failure {
            exit: Some("exit code 1".to_owned()),
            evidence: Some("a line of the log".to_owned()),
            ..Failure::default()
        }),
        ..PollAnswer::default()
    };
    let shown = sanitize(answer, &[unreadable]);
    assert_eq!(
        (shown.status.as_str(), shown.next.as_str()),
        ("RUNNING", "Ask again.")
    );
    assert!(shown.message.contains("not shown"), "{}", shown.message);
    assert_eq!(shown.progress.unwrap()["activity"]["what"], "saving");
    let failure = shown.failure.unwrap();
    assert_eq!(failure["exit"], "exit code 1");
    assert!(failure["evidence"].as_str().unwrap().contains("not shown"));
}

#[test]
fn log_text_is_not_touched_again() {
    let answer = LogsAnswer {
        logs: format!("10%\r20% {SECRET}"),
        ..LogsAnswer::default()
    };
    let shown = sanitize(answer.clone(), &[Redactor::new([SECRET])]);
    assert_eq!(shown.logs, answer.logs);
}

#[test]
fn long_arguments_are_not_repeated() {
    let answer = LogsAnswer {
        job_id: "x".repeat(1_000_000),
        message: "y".repeat(1_000_000),
        logs: "z".repeat(200_000),
        ..LogsAnswer::default()
    };
    let shown = sanitize(answer, &[]);
    assert!(shown.job_id.len() <= 16 * 1024 && shown.message.ends_with('…'));
    assert_eq!(shown.logs.len(), 200_000);
}
