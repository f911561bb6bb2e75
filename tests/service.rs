//! The service over a fake launcher: what is run, polled, read, cancelled, listed and let go.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/fake_launcher.rs"]
mod fake_launcher;

use std::fs;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use fake_launcher::{Call, Gate, Stage, World, by_id, cancel_by_id, direct, run_request};
use oumi_mcp_server::launcher::{JobIdentity, JobState, LauncherError};
use oumi_mcp_server::paths::DataFolder;
use oumi_mcp_server::registry::{JobRecord, KEEP_RECORDS};
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::service::answers::{JobRow, ListAnswer, RunAnswer};
use oumi_mcp_server::service::requests::{
    CancelRequest, JobQuery, ListRequest, LogsRequest, RunRequest, StatusFilter,
};
use tokio::time::Instant;

struct House {
    home: tempfile::TempDir,
    folder: DataFolder,
    world: World,
    service: JobService,
}

/// A service with one launcher for each of these sets of clouds, over one world.
fn house_of(launchers: &[&'static [&'static str]]) -> House {
    let home = tempfile::tempdir().unwrap();
    let folder = DataFolder::at(home.path().join("data"));
    folder.create().unwrap();
    let world = World::new(&folder);
    let launchers = launchers.iter().map(|clouds| world.launcher(clouds));
    let service = JobService::new(folder.clone(), launchers.collect());
    House {
        home,
        folder,
        world,
        service,
    }
}

fn house() -> House {
    house_of(&[&["gcp"], &["aws"]])
}

impl House {
    fn request(&self, job_name: &str, cloud: &str) -> RunRequest {
        run_request(self.home.path(), job_name, cloud)
    }

    async fn run(&self, job_name: &str, cloud: &str) -> RunAnswer {
        self.service.run(self.request(job_name, cloud)).await
    }

    async fn run_on(&self, job_name: &str, cloud: &str, cluster: &str) -> RunAnswer {
        let request = RunRequest {
            cluster_name: cluster.to_owned(),
            ..self.request(job_name, cloud)
        };
        self.service.run(request).await
    }

    async fn list(&self) -> ListAnswer {
        self.service.list(ListRequest::default()).await
    }

    async fn listed(&self, status: StatusFilter) -> Vec<String> {
        let answer = self.service.list(ListRequest { status }).await;
        ids(&answer.jobs)
    }

    fn registry_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.registry()).unwrap()
    }

    /// Puts a job into the registry and the world as if it had been submitted so long ago.
    async fn add(&self, job_id: &str, cloud: &str, age: TimeDelta, stage: Option<Stage>) {
        let record = JobRecord {
            job_id: job_id.to_owned(),
            cloud: cloud.to_owned(),
            cluster_name: format!("{job_id}-cluster"),
            oumi_job_id: "1".to_owned(),
            submit_time: (Utc::now() - age).to_rfc3339(),
            ..JobRecord::default()
        };
        if let Some(stage) = stage {
            self.world.add_job(&record.identity(), stage);
        }
        let folder = self.folder.job(job_id).unwrap();
        let prepare = move || fs::create_dir(folder).map_err(|error| error.to_string());
        let registry = self.service.registry();
        registry.insert(record, prepare).await.unwrap();
    }

    async fn is_known(&self, job_id: &str) -> bool {
        let known = self.service.registry().get(job_id).await.unwrap().is_some();
        let has_folder = self.folder.job(job_id).unwrap().exists();
        assert_eq!(
            known, has_folder,
            "{job_id}: a record and its folder go together"
        );
        known
    }
}

fn ids(rows: &[JobRow]) -> Vec<String> {
    rows.iter().map(|row| row.job_id.clone()).collect()
}

fn long_ago() -> TimeDelta {
    TimeDelta::days(8)
}

fn logs_of(query: JobQuery, lines: i64) -> LogsRequest {
    LogsRequest {
        job_id: query.job_id,
        lines,
        oumi_job_id: query.oumi_job_id,
        cloud: query.cloud,
        cluster_name: query.cluster_name,
        ..LogsRequest::default()
    }
}

fn cancel_of(query: JobQuery) -> CancelRequest {
    CancelRequest {
        job_id: query.job_id,
        oumi_job_id: query.oumi_job_id,
        cloud: query.cloud,
        cluster_name: query.cluster_name,
        force: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_launched_at_once_is_confirmed_and_recorded() {
    let house = house();
    let answer = house.run("job", "gcp").await;
    assert!(answer.success && answer.launch_confirmed, "{answer:?}");
    assert_eq!(
        (answer.job_id.as_str(), answer.status.as_str()),
        ("job", "RUNNING")
    );
    assert_eq!(
        (answer.oumi_job_id.as_str(), answer.cluster.as_str()),
        ("1", "job-cluster")
    );
    assert_eq!(
        (answer.model_name.as_str(), answer.output_dir.as_str()),
        ("tiny", "out")
    );
    let polled = house.service.poll(by_id("job")).await;
    assert!(
        polled.success && polled.state == JobState::Running,
        "{polled:?}"
    );
    assert_eq!(
        (polled.oumi_job_id.as_str(), polled.cluster.as_str()),
        ("1", "job-cluster")
    );
    assert_eq!(
        (polled.command.as_str(), polled.model_name.as_str()),
        ("train", "tiny")
    );
    assert_eq!(polled.metadata["output_dir"], "out");
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_takes_long_is_pending_after_ten_seconds_and_confirmed_by_a_poll() {
    let house = house();
    house.world.close(Gate::Launch);
    let began = Instant::now();
    let answer = house.run("job", "gcp").await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(answer.success && !answer.launch_confirmed, "{answer:?}");
    assert_eq!(
        (answer.status.as_str(), answer.oumi_job_id.as_str()),
        ("launching", "")
    );
    assert!(answer.message.contains("pending") && answer.message.contains("poll_status"));
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!((polled.state, polled.is_done), (JobState::Pending, false));
    house.world.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.status.as_str(), polled.oumi_job_id.as_str()),
        ("RUNNING", "1")
    );
    assert!(house.service.in_flight().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_is_answered_with_the_reason_and_stays_in_the_list() {
    let house = house();
    house.world.fail_launches(true);
    let answer = house.run("job", "gcp").await;
    assert!(!answer.success && !answer.launch_confirmed, "{answer:?}");
    let error = answer.error.unwrap();
    assert!(
        error.contains("no capacity") && error.contains("get_job_logs"),
        "{error}"
    );
    let asked = [
        Call::Start("job".to_owned()),
        Call::Settle("job".to_owned()),
    ];
    assert_eq!(
        house.world.calls(),
        asked,
        "the answer did not wait for more"
    );
    assert_eq!(
        house.service.poll(by_id("job")).await.state,
        JobState::Failed
    );
    assert_eq!(house.listed(StatusFilter::Completed).await, ["job"]);
    assert_eq!(house.world.starts("job"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_preview_and_an_unconfirmed_launch_start_and_write_nothing() {
    let house = house();
    let request = || house.request("job", "gcp");
    let preview = RunRequest {
        dry_run: true,
        ..request()
    };
    let answer = house.service.run(preview).await;
    assert!(answer.success && answer.dry_run, "{answer:?}");
    assert_eq!(
        (answer.status.as_str(), answer.command_line.as_str()),
        ("dry_run", "launch job")
    );
    let unconfirmed = [
        RunRequest {
            confirm: false,
            ..request()
        },
        RunRequest {
            user_confirmation: String::new(),
            ..request()
        },
        RunRequest {
            user_confirmation: "execute".to_owned(),
            ..request()
        },
        RunRequest {
            user_confirmation: "EXECUTE ".to_owned(),
            ..request()
        },
    ];
    for request in unconfirmed {
        let answer = house.service.run(request).await;
        assert_eq!((answer.status.as_str(), answer.success), ("blocked", false));
        assert!(answer.error.unwrap().contains("EXECUTE"));
    }
    assert!(!house.folder.registry().exists());
    assert_eq!(fs::read_dir(house.folder.jobs()).unwrap().count(), 0);
    assert_eq!(house.world.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_job_name_that_is_taken_is_refused_also_while_its_launch_is_under_way() {
    let house = house();
    let assert_refused = |answer: RunAnswer| {
        let error = answer.error.unwrap();
        assert!(!answer.success && answer.job_id.is_empty());
        assert!(
            error.contains("\"job\"") && error.contains("another job_name"),
            "{error}"
        );
    };
    house.world.close(Gate::Launch);
    house.run("job", "gcp").await;
    assert_refused(house.run("job", "gcp").await);
    assert!(house.service.in_flight().contains("job"));
    house.world.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_refused(house.run("job", "aws").await);
    assert!(house.service.in_flight().is_empty());
    assert_eq!(house.world.starts("job"), 1);
    assert!(house.world.is_running("job"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_run_is_refused_in_a_sentence_and_leaves_nothing() {
    let house = house();
    let request = || house.request("job", "gcp");
    let cases = [
        (
            RunRequest {
                command: "dance".to_owned(),
                ..request()
            },
            "dance",
        ),
        (
            RunRequest {
                cloud: "moon".to_owned(),
                ..request()
            },
            "moon",
        ),
        (
            RunRequest {
                num_nodes: 0,
                ..request()
            },
            "num_nodes",
        ),
        (
            RunRequest {
                client_cwd: "here".to_owned(),
                ..request()
            },
            "client_cwd",
        ),
        (
            RunRequest {
                config_path: "none.yaml".to_owned(),
                ..request()
            },
            "none.yaml",
        ),
        (
            RunRequest {
                job_name: Some("../..".to_owned()),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                job_name: Some("x".repeat(129)),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                job_name: Some("a\nb".to_owned()),
                ..request()
            },
            "job_name",
        ),
        (
            RunRequest {
                envs: Some([("A B".to_owned(), "secret".to_owned())].into()),
                ..request()
            },
            "A B",
        ),
    ];
    for (request, named) in cases {
        let answer = house.service.run(request).await;
        let error = answer.error.as_deref().unwrap();
        assert!(!answer.success && error.contains(named), "{named}: {error}");
        assert!(!error.contains("secret"));
    }
    assert_eq!(house.world.calls(), []);
    assert!(!house.folder.registry().exists());
}

#[tokio::test(start_paused = true)]
async fn a_job_name_becomes_the_id_without_what_leads_out_of_the_folder() {
    let house = house();
    for (name, job_id) in [
        ("my run", "my run"),
        ("../../etc/passwd", "etc_passwd"),
        ("a/b\\c", "a_b_c"),
        (" .-_x_-. ", "x"),
        ("v1..2", "v1_2"),
        ("größe", "größe"),
    ] {
        assert_eq!(house.run(name, "gcp").await.job_id, job_id);
        assert!(house.folder.job(job_id).unwrap().is_dir());
    }
    let unnamed = RunRequest {
        job_name: None,
        ..house.request("", "gcp")
    };
    let job_id = house.service.run(unnamed).await.job_id;
    let parts: Vec<&str> = job_id.split('_').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(
        (parts[0], lengths.as_slice()),
        ("train", &[5, 8, 6, 6][..]),
        "{job_id}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_id_on_two_clusters_is_two_jobs() {
    let house = house();
    house.run_on("first", "gcp", "one").await;
    house.run_on("second", "gcp", "two").await;
    house.world.add_elsewhere("gcp", "three", "1");
    let answer = house.list().await;
    let mut rows: Vec<(String, String)> = answer
        .jobs
        .iter()
        .map(|row| (row.job_id.clone(), row.cluster.clone()))
        .collect();
    rows.sort();
    let expected = [("1", "three"), ("first", "one"), ("second", "two")];
    assert_eq!(
        rows,
        expected.map(|(job, cluster)| (job.to_owned(), cluster.to_owned()))
    );
    assert_eq!(answer.warnings, Vec::<String>::new());

    // Without the cluster it is not clear which is meant: nothing is done, and the choices are named.
    let both = direct("gcp", "", "1");
    let polled = house.service.poll(both.clone()).await;
    let cancelled = house.service.cancel(cancel_of(both)).await;
    for error in [polled.error.unwrap(), cancelled.error.unwrap()] {
        for named in ["first", "\"one\"", "second", "\"two\"", "cluster_name"] {
            assert!(error.contains(named), "{named}: {error}");
        }
    }
    assert_eq!(house.world.running(), ["first", "second"]);

    // With it, it is clear.
    let second = direct("gcp", "two", "1");
    assert_eq!(house.service.poll(second.clone()).await.job_id, "second");
    let logs = house.service.logs(logs_of(second.clone(), 9)).await;
    assert_eq!(
        (logs.job_id.as_str(), logs.logs.as_str()),
        ("second", "log of two/1")
    );
    assert!(house.service.cancel(cancel_of(second)).await.success);
    assert_eq!(house.world.running(), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_started_elsewhere_is_asked_of_the_launcher() {
    let house = house();
    house.world.add_elsewhere("gcp", "theirs", "7");
    let query = || direct(" GCP", "theirs", "7");
    let polled = house.service.poll(query()).await;
    assert!(
        polled.success && polled.state == JobState::Running,
        "{polled:?}"
    );
    assert_eq!(
        (polled.job_id.as_str(), polled.oumi_job_id.as_str()),
        ("", "7")
    );
    assert_eq!(
        (polled.cloud.as_str(), polled.cluster.as_str()),
        ("gcp", "theirs")
    );
    let logs = house.service.logs(logs_of(query(), 200)).await;
    assert_eq!(
        (logs.success, logs.logs.as_str()),
        (true, "log of theirs/7")
    );
    assert_eq!(
        (logs.log_file.as_str(), logs.lines_returned),
        ("cloud:gcp/theirs", 1)
    );
    let row = &house.list().await.jobs[0];
    assert_eq!((row.job_id.as_str(), row.status.as_str()), ("7", "RUNNING"));
    assert!(house.service.cancel(cancel_of(query())).await.success);
    assert_eq!(house.service.poll(query()).await.state, JobState::Cancelled);
    assert!(
        !house.folder.registry().exists(),
        "it is not ours to record"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_nobody_knows_is_not_found_and_the_answer_says_what_to_call() {
    let house = house();
    house.run("job", "gcp").await;
    let polled = house.service.poll(by_id("nope")).await;
    assert_eq!(
        (
            polled.success,
            polled.status.as_str(),
            polled.job_id.as_str()
        ),
        (false, "not_found", "nope")
    );
    let cancelled = house.service.cancel(cancel_by_id("nope")).await;
    assert_eq!(
        (cancelled.success, cancelled.status.as_str()),
        (false, "not_found")
    );
    let logs = house.service.logs(logs_of(by_id("nope"), 1)).await;
    assert!(!logs.success);
    for error in [
        polled.error.unwrap(),
        cancelled.error.unwrap(),
        logs.error.unwrap(),
    ] {
        assert!(
            error.contains("\"nope\"") && error.contains("list_jobs"),
            "{error}"
        );
    }
    // The launcher's own word for one that it does not know.
    let polled = house.service.poll(direct("gcp", "c", "99")).await;
    assert_eq!(
        (polled.success, polled.status.as_str()),
        (false, "not_found")
    );
    assert!(polled.error.unwrap().contains("list_jobs"));
    let cancelled = house
        .service
        .cancel(cancel_of(direct("gcp", "c", "99")))
        .await;
    assert_eq!(
        (cancelled.success, cancelled.status.as_str()),
        (false, "not_found")
    );
    // Nothing to go by.
    for query in [
        JobQuery::default(),
        direct("gcp", "c", ""),
        direct("", "c", "1"),
    ] {
        let error = house.service.poll(query.clone()).await.error.unwrap();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{error}"
        );
        let error = house.service.cancel(cancel_of(query)).await.error.unwrap();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{error}"
        );
    }
    let error = house.service.poll(direct("moon", "c", "1")).await.error;
    assert!(error.unwrap().contains("gcp, aws"));
    let logs = house.service.logs(logs_of(direct("gcp", "", "1"), 1)).await;
    assert!(logs.error.unwrap().contains("cluster_name"));
}

#[tokio::test(start_paused = true)]
async fn a_launcher_that_cannot_answer_is_an_answer() {
    let house = house();
    house.run("job", "gcp").await;
    house
        .world
        .fail_status(Some(LauncherError::failed("the cloud is away")));
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!((polled.success, polled.status.as_str()), (false, "unknown"));
    assert_eq!((polled.state, polled.is_done), (JobState::Unknown, false));
    assert_eq!(polled.error.as_deref(), Some("the cloud is away"));
    assert_eq!(
        (polled.oumi_job_id.as_str(), polled.model_name.as_str()),
        ("1", "tiny")
    );
    let answer = house.run("other", "gcp").await;
    assert!(answer.success && answer.launch_confirmed, "{answer:?}");
    assert!(answer.message.contains("the cloud is away") && answer.message.contains("poll_status"));
}

#[tokio::test(start_paused = true)]
async fn a_look_changes_nothing_in_the_registry() {
    let house = house();
    house.run("job", "gcp").await;
    let before = house.registry_bytes();
    house.service.poll(by_id("job")).await;
    house.service.logs(logs_of(by_id("job"), 5)).await;
    house.list().await;
    house.world.finish("job");
    house.service.poll(by_id("job")).await;
    house.list().await;
    assert_eq!(house.registry_bytes(), before);
}

#[tokio::test(start_paused = true)]
async fn lines_below_zero_count_as_none() {
    let house = house();
    house.run("job", "gcp").await;
    for (asked, given) in [(-5, 0), (0, 0), (i64::MIN, 0), (1, 1), (i64::MAX, 1)] {
        let logs = house.service.logs(logs_of(by_id("job"), asked)).await;
        assert!(
            logs.success && logs.lines_returned == given,
            "{asked}: {logs:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_launcher_that_fails_costs_its_rows_and_the_warning_names_its_jobs() {
    let home = house();
    let failing = World::new(&home.folder);
    let launchers = vec![home.world.launcher(&["gcp"]), failing.launcher(&["aws"])];
    let service = JobService::new(home.folder.clone(), launchers);
    for (job_name, cloud) in [("ours", "gcp"), ("theirs", "aws"), ("more", "aws")] {
        service.run(home.request(job_name, cloud)).await;
    }
    for error in [
        LauncherError::failed("the cloud is away"),
        LauncherError::ProgramMissing("the cloud is away".to_owned()),
    ] {
        failing.fail_list(Some(error));
        let answer = service.list(ListRequest::default()).await;
        assert_eq!(ids(&answer.jobs), ["ours"]);
        assert_eq!((answer.success, answer.error), (None, None));
        let [warning] = answer.warnings.as_slice() else {
            panic!("{:?}", answer.warnings)
        };
        for named in ["theirs", "more", "the cloud is away"] {
            assert!(warning.contains(named), "{warning}");
        }
        assert!(!warning.contains("ours"));
    }
    failing.fail_list(None);
    assert_eq!(service.list(ListRequest::default()).await.jobs.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_nobody_serves_costs_its_rows_and_the_warning_names_its_jobs() {
    let house = house();
    house.run("job", "gcp").await;
    house.add("strange", "moon", TimeDelta::zero(), None).await;
    let answer = house.list().await;
    assert_eq!(ids(&answer.jobs), ["job"]);
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    assert!(
        warning.contains("strange") && warning.contains("moon"),
        "{warning}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_all_or_what_runs_or_what_is_done_newest_first() {
    let house = house();
    // Neither in the order of their age nor of their cloud.
    for (minutes, cloud, job_id, stage) in [
        (3, "gcp", "failed", Stage::LaunchFailed),
        (0, "aws", "launching", Stage::Launching),
        (4, "aws", "cancelled", Stage::Cancelled),
        (1, "gcp", "running", Stage::Running),
        (2, "aws", "succeeded", Stage::Succeeded),
    ] {
        house
            .add(job_id, cloud, TimeDelta::minutes(minutes), Some(stage))
            .await;
    }
    assert_eq!(
        house.listed(StatusFilter::All).await,
        ["launching", "running", "succeeded", "failed", "cancelled"]
    );
    assert_eq!(
        house.listed(StatusFilter::Running).await,
        ["launching", "running"]
    );
    assert_eq!(
        house.listed(StatusFilter::Completed).await,
        ["succeeded", "failed", "cancelled"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_is_listed_once_though_several_look_at_the_same_time() {
    let house = house();
    house.world.close(Gate::Launch);
    house.run("job", "gcp").await;
    let looks = (0..8).map(|_| {
        let service = house.service.clone();
        tokio::spawn(async move {
            service.poll(by_id("job")).await;
            ids(&service.list(ListRequest::default()).await.jobs)
        })
    });
    for look in looks.collect::<Vec<_>>() {
        assert_eq!(look.await.unwrap(), ["job"]);
    }
    house.world.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(house.service.in_flight().is_empty());
    let settles = Call::Settle("job".to_owned());
    let settles = house
        .world
        .calls()
        .into_iter()
        .filter(|call| *call == settles);
    assert_eq!(settles.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_could_not_be_recorded_at_all_is_found_by_the_next_look() {
    let house = house();
    house.world.close(Gate::Launch);
    house.run("job", "gcp").await;
    let lock = house.folder.registry_lock();
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    house.world.open(Gate::Launch);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(house.service.in_flight().is_empty());
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.state, polled.oumi_job_id.as_str()),
        (JobState::Running, "")
    );
    // That poll tries to record it as well, until it is given up.
    tokio::time::sleep(Duration::from_secs(60)).await;
    fs::remove_dir(&lock).unwrap();
    let polled = house.service.poll(by_id("job")).await;
    assert_eq!(
        (polled.state, polled.oumi_job_id.as_str()),
        (JobState::Running, "1")
    );
    assert!(house.service.in_flight().is_empty());
    assert_eq!(house.world.starts("job"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_cannot_be_recorded_is_refused_and_launches_nothing() {
    let house = house();
    fs::create_dir(house.folder.registry_lock()).unwrap();
    let answer = house.run("job", "gcp").await;
    assert!(!answer.success, "{answer:?}");
    assert!(answer.error.unwrap().contains("registry"));
    assert_eq!(house.world.calls(), []);
    assert!(house.service.in_flight().is_empty());
    fs::remove_dir(house.folder.registry_lock()).unwrap();
    assert!(house.run("job", "gcp").await.launch_confirmed);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_read_is_said_by_every_call() {
    let house = house();
    fs::create_dir(house.folder.registry()).unwrap();
    let service = &house.service;
    service.recover().await;
    let errors = [
        service.poll(by_id("job")).await.error,
        service.logs(logs_of(by_id("job"), 1)).await.error,
        service.cancel(cancel_by_id("job")).await.error,
        house.list().await.error,
        house.run("job", "gcp").await.error,
    ];
    for error in errors {
        assert!(error.unwrap().contains("oumi-jobs.json"));
    }
    assert_eq!(house.world.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_registry_is_named_by_the_list_until_its_copy_is_removed() {
    let house = house();
    house.run("one", "gcp").await;
    house.run("two", "gcp").await;
    let bytes = house.registry_bytes();
    fs::write(house.folder.registry(), &bytes[..bytes.len() - 1]).unwrap();
    for _ in 0..2 {
        let answer = house.list().await;
        assert_eq!(answer.jobs.len(), 2);
        let [warning] = answer.warnings.as_slice() else {
            panic!("{:?}", answer.warnings)
        };
        assert!(warning.contains("oumi-jobs.json.corrupt-"), "{warning}");
    }
    let aside = house.service.registry().put_aside().await.unwrap();
    fs::remove_file(&aside[0]).unwrap();
    assert_eq!(house.list().await.warnings, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_old_job_that_is_done_is_let_go_with_its_folder_and_one_that_may_run_is_kept() {
    let house = house();
    for (job_id, stage) in [
        ("launching", Stage::Launching),
        ("running", Stage::Running),
        ("succeeded", Stage::Succeeded),
        ("failed", Stage::LaunchFailed),
        ("cancelled", Stage::Cancelled),
    ] {
        house.add(job_id, "gcp", long_ago(), Some(stage)).await;
    }
    house
        .add("young", "gcp", TimeDelta::days(6), Some(Stage::Succeeded))
        .await;
    house.add("nobody's", "moon", long_ago(), None).await;
    assert_eq!(
        house.listed(StatusFilter::All).await.len(),
        3,
        "what was let go is no row"
    );
    for job_id in ["launching", "running", "young", "nobody's"] {
        assert!(house.is_known(job_id).await, "{job_id}");
    }
    for job_id in ["succeeded", "failed", "cancelled"] {
        assert!(!house.is_known(job_id).await, "{job_id}");
    }
    house.world.finish("running");
    house.list().await;
    assert!(!house.is_known("running").await);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_that_the_launcher_cannot_be_asked_about_is_kept() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    house
        .world
        .fail_list(Some(LauncherError::failed("the cloud is away")));
    house.list().await;
    assert!(house.is_known("job").await);
    house.world.fail_list(None);
    assert_eq!(house.listed(StatusFilter::All).await, ["job"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_whose_launch_is_taken_up_just_now_is_kept() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    let watch = house.service.in_flight().begin("job");
    house.list().await;
    assert!(house.is_known("job").await);
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_cap_the_oldest_that_are_done_are_let_go() {
    let house = house();
    let records: Vec<serde_json::Value> = (0..KEEP_RECORDS + 10)
        .map(|number| {
            let submitted = Utc::now() - TimeDelta::minutes(i64::try_from(number).unwrap());
            let identity = JobIdentity {
                job_id: format!("{number:03}"),
                cloud: "gcp".to_owned(),
                cluster: "c".to_owned(),
                oumi_job_id: number.to_string(),
            };
            let stage = if number % 2 == 0 {
                Stage::Running
            } else {
                Stage::Succeeded
            };
            house.world.add_job(&identity, stage);
            serde_json::json!({
                "job_id": identity.job_id, "cloud": "gcp", "cluster_name": "c",
                "oumi_job_id": identity.oumi_job_id, "submit_time": submitted.to_rfc3339(),
            })
        })
        .collect();
    fs::write(
        house.folder.registry(),
        serde_json::to_vec(&records).unwrap(),
    )
    .unwrap();
    let listed = house.listed(StatusFilter::All).await;
    assert_eq!(listed.len(), KEEP_RECORDS + 5);
    for (job_id, is_listed) in [
        ("199", true),
        ("200", true),
        ("201", false),
        ("208", true),
        ("209", false),
    ] {
        assert_eq!(
            listed.iter().any(|listed| listed == job_id),
            is_listed,
            "{job_id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_lets_go_of_old_jobs_here_and_asks_no_cloud() {
    let house = house_of(&[&["local"], &["gcp"]]);
    house
        .add("done", "local", long_ago(), Some(Stage::Succeeded))
        .await;
    house
        .add("runs", "local", long_ago(), Some(Stage::Running))
        .await;
    house.add("lost", "local", long_ago(), None).await;
    house
        .add("far", "gcp", long_ago(), Some(Stage::Succeeded))
        .await;
    house.service.recover().await;
    for (job_id, is_known) in [
        ("done", false),
        ("runs", true),
        ("lost", false),
        ("far", true),
    ] {
        assert_eq!(house.is_known(job_id).await, is_known, "{job_id}");
    }
    for call in house.world.calls() {
        assert!(!matches!(&call, Call::List(_)), "{call:?}");
        assert_ne!(call, Call::Status("far".to_owned()));
    }
    house
        .world
        .fail_status(Some(LauncherError::failed("no access")));
    house.world.finish("runs");
    house.service.recover().await;
    assert!(house.is_known("runs").await);
}

#[tokio::test(start_paused = true)]
async fn an_old_job_on_a_machine_without_its_program_is_let_go() {
    let house = house();
    house
        .add("job", "gcp", long_ago(), Some(Stage::Running))
        .await;
    house
        .world
        .fail_list(Some(LauncherError::ProgramMissing("install it".to_owned())));
    house.list().await;
    assert!(!house.is_known("job").await);
}
