mod price;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::Barrier;

use super::*;
use crate::launcher::cloud::launch_dir::Verdict;
use crate::launcher::job_yaml::JobConfig;
use crate::launcher::{JobLog, LaunchSpec};
use crate::parse::prices::{self, CatalogMachine};
use crate::parse::sky::{Cluster, Queue, QueuedJob};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::plan::Epilogue;
use crate::process::runner::{CliCall, Output};
use crate::process::start::StartRequest;
use crate::process::tests::executable;

/// A cloud whose one cluster `dev` has one job, 7.
#[derive(Debug, Default)]
struct FakeCloud {
    is_unreachable: AtomicBool,
    cancelled: Mutex<Vec<String>>,
    ignores_cancels: bool,
    /// By cloud.
    catalog: BTreeMap<&'static str, serde_json::Value>,
    catalog_queries: AtomicUsize,
    /// The results of changes wait for each other.
    meeting: Option<Barrier>,
    /// That of the cluster, in SkyPilot's spelling.
    cloud: Option<&'static str>,
}

#[async_trait]
impl CloudBackend for FakeCloud {
    fn clouds(&self) -> &'static [&'static str] {
        &["fake", "other"]
    }

    fn is_skypilot(&self) -> bool {
        true
    }

    fn find_program(&self) -> Result<PathBuf, JobError> {
        Ok(PathBuf::from("fake"))
    }

    fn validate_cluster(&self, _cloud: &str, _cluster: &str) -> Result<(), JobError> {
        Ok(())
    }

    async fn prepare(&self, _: &LaunchSpec) -> Result<(String, JobConfig), JobError> {
        Err(JobError::failed("not planned here"))
    }

    async fn queue(&self, _: &str, _: &BTreeSet<String>) -> Result<Queue, JobError> {
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(JobError::unavailable("no answer"));
        }
        let is_cancelled = !self.cancelled.lock().unwrap().is_empty();
        let job = QueuedJob {
            job_id: "7".to_owned(),
            job_name: "train".to_owned(),
            submitted_at: Some(1_795_547_296.188_590_3),
            status: if is_cancelled { "CANCELLED" } else { "RUNNING" }.to_owned(),
            log_path: "~/sky_logs/sky-2026-11-24-19-07-32-946443".to_owned(),
            ..QueuedJob::default()
        };
        Ok([("dev".to_owned(), Ok(vec![job]))].into())
    }

    async fn clusters(&self, _: Option<&str>) -> Result<Vec<Cluster>, JobError> {
        let cluster = Cluster {
            name: "dev".to_owned(),
            cluster_hash: Some("first".to_owned()),
            status: "UP".to_owned(),
            cloud: self.cloud.map(ToOwned::to_owned),
            ..Cluster::default()
        };
        Ok(vec![cluster])
    }

    async fn catalog(
        &self,
        cloud: &str,
        accelerators: &str,
        _: bool,
    ) -> Result<Vec<CatalogMachine>, JobError> {
        self.catalog_queries.fetch_add(1, Ordering::Relaxed);
        let rows = self.catalog.get(cloud);
        let rows = rows.ok_or_else(|| JobError::failed("Failed to fetch the catalog"))?;
        let rows = rows.to_string().replace("\"NaN\"", "NaN");
        prices::machines(&rows, accelerators.split(':').next().unwrap())
    }

    async fn logs(&self, _: &JobIdentity) -> Result<JobLog, JobError> {
        Err(JobError::unavailable("no log"))
    }

    fn change_call(&self, change: &Change) -> Result<CliCall, JobError> {
        if change.verb == "cancel" && !self.ignores_cancels {
            let mut cancelled = self.cancelled.lock().unwrap();
            cancelled.push(change.oumi_job_id.clone());
        }
        let verb = [change.verb.as_str()];
        Ok(CliCall::new(
            Path::new("fake"),
            &verb,
            Duration::from_secs(5),
        ))
    }

    fn accepts_cancel(&self, output: &Output) -> bool {
        output.code == Some(0)
    }

    async fn teardown_result(&self, _: &Change, output: &Output) -> Result<String, JobError> {
        if let Some(meeting) = &self.meeting {
            meeting.wait().await;
        }
        match output.code {
            Some(0) => Ok("it is gone".to_owned()),
            _ => Err(JobError::failed(output.stdout.trim())),
        }
    }
}

/// Runs nothing: its program has ended at once, with 0.
const SUPERVISOR: &str = r#"#!/bin/sh
echo '{"code":0,"signal":null,"cancelled":false,"step":"x","error":null,"ended_at":""}' >"$2/new"
mv "$2/new" "$2/exit.json"
echo started
"#;

fn launcher() -> (TempDir, CloudLauncher) {
    launcher_on(FakeCloud::default().into())
}

fn launcher_on(cloud: Arc<FakeCloud>) -> (TempDir, CloudLauncher) {
    let home = tempfile::tempdir().unwrap();
    let folder = DataDir::at(home.path());
    folder.create().unwrap();
    let supervisor = home.path().join("supervisor");
    executable(&supervisor, SUPERVISOR);
    let launcher = CloudLauncher::new(folder, supervisor, Cli::default(), cloud);
    (home, launcher)
}

fn identity(oumi_job_id: &str) -> JobIdentity {
    JobIdentity {
        job_id: "a".to_owned(),
        cloud: "fake".to_owned(),
        cluster: "dev".to_owned(),
        oumi_job_id: oumi_job_id.to_owned(),
    }
}

/// The folder of a launch of job `a` that printed this and runs.
fn running_launch(home: &TempDir, output: &str) -> (JobDir, JobLock) {
    let (dir, lock) = JobDir::create(home.path().join("jobs/a")).unwrap();
    let start = r#"{"name": "train", "cluster": "dev", "before": null}"#;
    fs::write(dir.path().join("launch-start.json"), start).unwrap();
    fs::write(dir.log_path(), output).unwrap();
    (dir, lock)
}

/// The same of one that exited with this code.
fn ended_launch(home: &TempDir, output: &str, code: i32) -> JobDir {
    let (dir, _lock) = running_launch(home, output);
    let record = ExitRecord {
        code: Some(code),
        ..ExitRecord::now("launch")
    };
    dir.write_exit_record(&record).unwrap();
    dir
}

#[tokio::test]
async fn cancel_uses_the_printed_id() {
    let cloud = Arc::new(FakeCloud::default());
    let (home, launcher) = launcher_on(Arc::clone(&cloud));
    ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    let outcome = launcher.cancel(&identity(""), false).await;
    assert_eq!(outcome.unwrap().state, JobState::Cancelled);
    assert_eq!(*cloud.cancelled.lock().unwrap(), ["7"]);
}

#[tokio::test]
async fn cancel_without_recheck_says_what_came_of_it() {
    let cloud = Arc::new(FakeCloud::default());
    let (home, launcher) = launcher_on(Arc::clone(&cloud));
    ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    launcher.status(&identity("7")).await.unwrap();
    cloud.is_unreachable.store(true, Ordering::Relaxed);
    let outcome = launcher.cancel(&identity("7"), false).await.unwrap();
    assert_eq!(outcome.state, JobState::Running);
    assert!(!outcome.is_done);
    let refusing = SUPERVISOR.replace(r#""code":0"#, r#""code":1"#);
    executable(&home.path().join("supervisor"), &refusing);
    let error = launcher.cancel(&identity("7"), false).await.unwrap_err();
    assert!(error.message.starts_with("the cancel was refused"));
}

#[tokio::test]
async fn ended_launch_is_read_once() {
    let (home, launcher) = launcher();
    let output = "Found an existing cluster: dev.\nJob 7 queued on cluster dev.\n";
    let dir = ended_launch(&home, output, 0);
    let launch = launcher.launch(&identity("7")).unwrap();
    assert_eq!(launch.start.name, "train");
    assert!(launch.printed.is_onto_existing);
    assert_eq!(launch.oumi_job_id().unwrap(), "7");
    // Long enough ago for one change more to have another time.
    let folder = fs::File::open(dir.path()).unwrap();
    folder.set_modified(UNIX_EPOCH).unwrap();
    launcher.launch(&identity("7")).unwrap();
    fs::write(dir.log_path(), "").unwrap();
    assert_eq!(launcher.launch(&identity("7")).unwrap(), launch);
    // One of the same id is another.
    dir.remove().unwrap();
    drop(running_launch(&home, ""));
    let other = launcher.launch(&identity("7")).unwrap();
    assert_eq!(other.oumi_job_id(), None);
}

#[tokio::test]
async fn failed_launch_is_not_the_job_that_a_script_names() {
    let (home, launcher) = launcher();
    let dir = ended_launch(&home, "Job 7 queued on cluster dev.\nValueError: full\n", 1);
    let launch = launcher.launch(&identity("")).unwrap();
    assert_eq!(launch.oumi_job_id(), None);
    assert!(launch.printed.is_submitted);
    // It is looked for, for SkyPilot may have it.
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!((status.status.as_str(), status.is_done), ("lost", false));
    let start =
        r#"{"name": "a", "cluster": "dev", "before": {"cluster_hash": null, "last_job_id": 9}}"#;
    fs::write(dir.path().join(START), start).unwrap();
    let error = launcher.wait_for_launch(&identity("")).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!(status.state, JobState::Failed);
    assert!(status.message.unwrap().contains("full"));
    // Nor is one that was killed.
    let killed = ExitRecord {
        signal: Some(9),
        ..ExitRecord::now("launch")
    };
    fs::remove_file(dir.path().join("launch.json")).unwrap();
    dir.write_exit_record(&killed).unwrap();
    let launch = launcher.launch(&identity("")).unwrap();
    assert_eq!(launch.oumi_job_id(), None);
    assert!(launch.printed.is_submitted);
}

#[tokio::test]
async fn cluster_that_was_there_is_not_left_by_a_failed_launch() {
    for (existing, warnings) in [("Found an existing cluster: dev.\n", 0), ("", 1)] {
        let (home, launcher) = launcher();
        ended_launch(&home, &format!("{existing}Error: no\n"), 1);
        let status = launcher.status(&identity("")).await.unwrap();
        assert_eq!(status.warnings.len(), warnings, "{status:?}");
    }
}

#[tokio::test]
async fn autostop_that_nobody_sets_hides_no_costs() {
    let (home, launcher) = launcher();
    let dir = ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    let epilogue = r#"{"argv": ["sky", "autostop"], "unless_printed": null}"#;
    fs::write(dir.path().join("epilogue.json"), epilogue).unwrap();
    for (is_supervised, warnings) in [(true, 0), (false, 1)] {
        if !is_supervised {
            fs::write(dir.path().join("supervisor.pid"), "").unwrap();
        }
        let status = launcher.status(&identity("7")).await.unwrap();
        assert_eq!(status.warnings.len(), warnings, "{:?}", status.warnings);
    }
}

fn plan_of(cluster: &str, epilogue: Option<Epilogue>) -> LaunchPlan {
    LaunchPlan {
        command_line: String::new(),
        cluster: cluster.to_owned(),
        job_config: None,
        epilogue,
        process: StartRequest::default(),
        warnings: Vec::new(),
        autostop: None,
    }
}

/// As after a traceback. It was not cut off, so nothing is waited for.
#[tokio::test]
async fn launch_that_exits_and_names_no_job_has_failed() {
    let (home, launcher) = launcher();
    let output = "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: full\n";
    let dir = ended_launch(&home, output, 0);
    let start =
        r#"{"name": "a", "cluster": "dev", "before": {"cluster_hash": null, "last_job_id": 9}}"#;
    fs::write(dir.path().join(START), start).unwrap();
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!((status.status.as_str(), status.is_done), ("lost", false));
    let error = launcher.wait_for_launch(&identity("")).await.unwrap_err();
    assert!(error.to_string().contains("ValueError: full"), "{error}");
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!(status.state, JobState::Failed);
}

/// Its server ended while SkyPilot had not said yet which clusters are there.
#[tokio::test]
async fn launch_that_never_began_has_failed() {
    let (home, launcher) = launcher();
    let (_dir, lock) = JobDir::create(home.path().join("jobs/a")).unwrap();
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!(status.state, JobState::Pending);
    drop(lock);
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!((status.state, status.is_done), (JobState::Failed, true));
    assert!(status.message.unwrap().contains("call run_job again"));
}

/// SkyPilot ends with a cluster what it carries on of its launches.
#[tokio::test]
async fn launch_that_was_cut_off_ends_with_its_cluster() {
    let (home, launcher) = launcher();
    drop(running_launch(&home, "Launching\n"));
    for (cluster, action, state) in [
        ("dev", ClusterAction::Stop, JobState::Pending),
        // There is none yet.
        ("new", ClusterAction::Down, JobState::Pending),
        ("dev", ClusterAction::Down, JobState::Failed),
    ] {
        let ended = launcher.teardown_cluster("fake", cluster, action).await;
        assert_eq!(ended.unwrap(), "it is gone");
        let status = launcher.status(&identity("")).await.unwrap();
        assert_eq!(status.state, state, "{cluster} {action:?}");
    }
}

/// As where its supervisor was killed: the program goes on.
#[tokio::test]
async fn cancel_that_was_cut_off_is_not_known() {
    let cloud = FakeCloud {
        ignores_cancels: true,
        ..FakeCloud::default()
    };
    let (home, launcher) = launcher_on(cloud.into());
    executable(
        &home.path().join("supervisor"),
        "#!/bin/sh\ntouch \"$2/supervisor.pid\"\necho started\n",
    );
    ended_launch(&home, "Job 7 queued on cluster dev.\n", 0);
    let error = launcher.cancel(&identity("7"), false).await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("the cancel was cut off and may go on"),
        "{error}"
    );
}

/// A person may have taken minutes to agree.
#[tokio::test]
async fn launch_onto_a_cluster_of_another_cloud_is_not_begun() {
    let cloud = FakeCloud {
        cloud: Some("Other"),
        ..FakeCloud::default()
    };
    let (home, launcher) = launcher_on(Arc::new(cloud));
    let (_, lock) = JobDir::create(home.path().join("jobs/a")).unwrap();
    let plan = plan_of("dev", None);
    let error = launcher.start(&identity(""), plan, lock).await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("cluster dev is on other, not on fake; pass that cloud"),
        "{error}"
    );
    let status = launcher.status(&identity("")).await.unwrap();
    assert_eq!(
        (status.state, status.message),
        (JobState::Failed, Some(error))
    );
}

/// As on a cluster that was stopped, and has an earlier job of the name.
#[tokio::test]
async fn failed_launch_has_its_reason_where_the_queue_was_not_read_before() {
    let (home, launcher) = launcher();
    let output = "Synced workdir.  View logs: sky api logs -l sky-2026-11-24-19-18-45-442134/workdir_sync.log\nValueError: full\n";
    let dir = ended_launch(&home, output, 1);
    let start = r#"{"name": "train", "cluster": "dev", "before": null}"#;
    fs::write(dir.path().join(START), start).unwrap();
    let status = launcher.status(&identity("")).await.unwrap();
    let message = status.message.unwrap();
    assert!(
        message.contains("its launch failed (ValueError: full)"),
        "{message}"
    );
    let error = launcher.wait_for_launch(&identity("")).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    // It was not cut off.
    assert_eq!(launcher.kill_launch(&identity("")).await.unwrap(), None);
}

/// A launch that ends early prints nothing of the cluster, and would end it by an autostop that nobody asked for.
#[tokio::test]
async fn cluster_that_was_there_keeps_its_autostop() {
    for (cluster, is_named, is_asked_for, is_unreachable, by_server) in [
        ("dev", true, false, false, true),
        // Somebody has made it since the launch was given its name.
        ("dev", false, false, false, true),
        // A stopped cluster does not list its jobs.
        ("dev", true, false, true, true),
        ("dev", true, true, false, false),
        ("new", true, false, false, false),
        ("new", false, false, false, false),
    ] {
        let cloud = Arc::new(FakeCloud::default());
        cloud
            .is_unreachable
            .store(is_unreachable, Ordering::Relaxed);
        let (home, launcher) = launcher_on(cloud);
        let identity = JobIdentity {
            cluster: cluster.to_owned(),
            ..identity("")
        };
        let epilogue = Epilogue {
            argv: vec!["sky".to_owned(), "autostop".to_owned()],
            unless_printed: (!is_asked_for).then(|| "Found it".to_owned()),
            by_server: is_named && !is_asked_for,
        };
        let (dir, lock) = JobDir::create(home.path().join("jobs/a")).unwrap();
        let plan = plan_of(cluster, Some(epilogue));
        launcher.start(&identity, plan, lock).await.unwrap();
        let epilogue = dir.epilogue().unwrap().unwrap();
        assert_eq!(epilogue.by_server, by_server, "{cluster}");
    }
}

#[tokio::test]
async fn folder_of_an_answered_change_is_removed() {
    let (home, launcher) = launcher();
    let down = Change::new("down", "fake", "dev", "");
    fs::create_dir(home.path().join("changes")).unwrap();
    let dir = failed_change(&home, &down);
    // It is requested again before everyone who waits has read how it ended.
    let again = Change::new("down", "fake", "dev", "");
    let (_, lock) = launcher.join_or_create(&again).unwrap();
    assert!(lock.is_some() && dir.exit_record().unwrap().is_some());
    assert_eq!(launcher.list_changes().len(), 1);
    assert!(dir.exists().unwrap());
    // Nobody waits for it any more.
    let folder = fs::File::open(dir.path()).unwrap();
    folder.set_modified(UNIX_EPOCH).unwrap();
    launcher.list_changes();
    assert!(!dir.exists().unwrap());
}

/// Leaves a change of cluster `dev` that failed.
fn failed_change(home: &TempDir, change: &Change) -> JobDir {
    let path = home.path().join("changes").join(&change.verb);
    let (dir, _lock) = JobDir::create(path).unwrap();
    let text = serde_json::to_string(change).unwrap();
    fs::write(dir.path().join("change.json"), text).unwrap();
    let record = ExitRecord::not_started(&change.verb, "no disk");
    dir.write_exit_record(&record).unwrap();
    dir
}

#[tokio::test]
async fn results_of_changes_are_asked_for_at_once() {
    let cloud = FakeCloud {
        meeting: Some(Barrier::new(2)),
        ..FakeCloud::default()
    };
    let (home, launcher) = launcher_on(cloud.into());
    fs::create_dir(home.path().join("changes")).unwrap();
    for verb in ["stop", "down"] {
        failed_change(&home, &Change::new(verb, "fake", "dev", ""));
    }
    let listing = launcher.list(&[]);
    let listing = tokio::time::timeout(Duration::from_secs(60), listing).await;
    let warnings = listing.expect("they wait for each other").unwrap().warnings;
    let failed = |warning: &&String| warning.ends_with("may not have been carried out: no disk");
    assert_eq!(warnings.iter().filter(failed).count(), 2, "{warnings:?}");
}

#[tokio::test]
async fn all_who_wait_for_a_change_get_its_result() {
    let (_home, launcher) = launcher();
    let down = || launcher.teardown_cluster("fake", "dev", ClusterAction::Down);
    let results = tokio::join!(down(), down());
    assert_eq!(
        results,
        (Ok("it is gone".to_owned()), Ok("it is gone".to_owned()))
    );
}

#[tokio::test]
async fn cluster_of_another_cloud_is_not_ended() {
    for (found, is_other) in [
        (Some("Other"), true),
        (Some("FAKE"), false),
        // The launcher serves no such cloud, or it is not known.
        (Some("Elsewhere"), false),
        (None, false),
    ] {
        let cloud = FakeCloud {
            cloud: found,
            ..FakeCloud::default()
        };
        let (home, launcher) = launcher_on(cloud.into());
        for action in [ClusterAction::Stop, ClusterAction::Down] {
            let ended = launcher.teardown_cluster("fake", "dev", action).await;
            let error = ended.err().map_or_else(String::new, |it| it.to_string());
            let refused = "nothing was done: cluster dev is on other, not on fake";
            assert_eq!(error.starts_with(refused), is_other, "{found:?}: {error}");
        }
        assert_eq!(!home.path().join("changes").exists(), is_other, "{found:?}");
    }
}

#[tokio::test]
async fn job_id_without_a_cluster_asks_for_the_cluster() {
    let (_home, launcher) = launcher();
    let job = JobIdentity {
        job_id: String::new(),
        cluster: String::new(),
        ..identity("7")
    };
    for error in [
        launcher.status(&job).await.unwrap_err(),
        launcher.cancel(&job, false).await.unwrap_err(),
        launcher.logs(&job).await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("`cluster_name` is needed"), "{error}");
    }
}

mod claims {
    use super::*;
    use crate::launcher::cloud::claims::find_job;
    use crate::launcher::cloud::launch_dir::JobMark;
    use crate::launcher::cloud::launch_dir::{ClusterBefore, LaunchStart};

    fn job(id: &str, submitted_at: f64) -> QueuedJob {
        QueuedJob {
            job_id: id.to_owned(),
            job_name: "nightly".to_owned(),
            submitted_at: Some(submitted_at),
            log_path: format!("~/sky_logs/sky-{submitted_at}"),
            ..QueuedJob::default()
        }
    }

    /// A launch of `nightly` onto `dev` that began at this time and was cut off.
    fn cut_off(started_at: f64, last_job_id: Option<u64>) -> Launch {
        Launch {
            start: LaunchStart {
                name: "nightly".to_owned(),
                cluster: "dev".to_owned(),
                before: last_job_id.map(|last_job_id| ClusterBefore {
                    cluster_hash: Some("first".to_owned()),
                    last_job_id,
                }),
                ..LaunchStart::default()
            },
            started_at: Some(started_at),
            has_ended: true,
            ..Launch::default()
        }
    }

    fn found(launch: &Launch, jobs: &[QueuedJob], others: &[Launch]) -> Option<String> {
        find_job(launch, jobs, Some("first"), others).map(|job| job.job_id.clone())
    }

    #[test]
    fn cluster_that_was_made_during_a_launch_is_its_own() {
        let cluster = |hash: &str, launched_at| Cluster {
            cluster_hash: Some(hash.to_owned()),
            launched_at,
            ..Cluster::default()
        };
        let mut launch = Launch {
            last_output_at: Some(160.5),
            ..cut_off(100.9, Some(0))
        };
        let new = Some(ClusterBefore::default());
        for (before, hash, launched_at, expected) in [
            (new.clone(), "h", Some(100.0), Some(true)),
            (new.clone(), "h", Some(160.0), Some(true)),
            (new.clone(), "h", Some(-200.0), Some(false)),
            // By another clock.
            (new.clone(), "h", Some(90.0), None),
            // It came up after its launch was cut off, or is another.
            (new.clone(), "h", Some(600.0), None),
            (new, "h", None, None),
            (None, "h", Some(120.0), None),
            (launch.start.before.clone(), "first", Some(1.0), Some(true)),
            (launch.start.before.clone(), "h", Some(120.0), Some(false)),
        ] {
            launch.start.before = before;
            let made = launch.went_onto(&cluster(hash, launched_at));
            assert_eq!(made, expected, "{hash} {launched_at:?}");
        }
    }

    #[test]
    fn two_cut_off_launches_share_no_job() {
        let (a, b) = (cut_off(1.0, Some(3)), cut_off(2.0, Some(3)));
        let old = job("3", 30.0);
        let one = [job("4", 40.0), old.clone()];
        assert_eq!(
            found(&a, &one, std::slice::from_ref(&b)).as_deref(),
            Some("4")
        );
        assert_eq!(found(&b, &one, std::slice::from_ref(&a)), None);
        let mut of_jane = job("4", 40.0);
        of_jane.user = Some("jane".to_owned());
        assert_eq!(found(&a, &[of_jane], &[]), None);
        let two = [job("5", 50.0), job("4", 40.0), old];
        assert_eq!(
            found(&a, &two, std::slice::from_ref(&b)).as_deref(),
            Some("4")
        );
        assert_eq!(
            found(&b, &two, std::slice::from_ref(&a)).as_deref(),
            Some("5")
        );
        // Once claimed, a job stays with its launch, whichever began first.
        let mut claimed = b.clone();
        let mark = JobMark::of(&job("4", 40.0), Some("first"));
        claimed.verdict = mark.map(|mark| Verdict::Job("4".to_owned(), mark));
        assert_eq!(found(&a, &two, &[claimed]).as_deref(), Some("5"));
    }

    #[test]
    fn the_run_that_was_printed_decides() {
        let mut b = cut_off(2.0, None);
        let jobs = [job("5", 50.0), job("4", 40.0)];
        assert_eq!(found(&b, &jobs, &[]), None);
        b.printed.run = Some("sky-40".to_owned());
        assert_eq!(
            found(&b, &jobs, &[cut_off(1.0, None)]).as_deref(),
            Some("4")
        );
        // The client of SkyPilot may fail when its job is there. Nothing else is claimed then.
        let failed = |run: &str| {
            let mut failed = cut_off(2.0, Some(3));
            failed.failure = Some("ConnectionError".to_owned());
            failed.printed.run = Some(run.to_owned());
            found(&failed, &jobs, &[])
        };
        assert_eq!(failed("sky-40").as_deref(), Some("4"));
        assert_eq!(failed("sky-41"), None);
        // Nor need a new job have the name where Oumi printed its id.
        let queue = [QueuedJob {
            job_name: "sky-cmd".to_owned(),
            log_path: String::new(),
            ..job("4", 40.0)
        }];
        for (last_job_id, expected) in [(Some(3), Some("4")), (Some(4), None), (None, None)] {
            let mut launch = cut_off(2.0, last_job_id);
            launch.printed.oumi_job_id = Some("4".to_owned());
            launch.printed.is_detached = true;
            assert_eq!(found(&launch, &queue, &[]).as_deref(), expected);
        }
    }

    #[test]
    fn the_run_to_the_microsecond_decides_against_the_name() {
        let of_run = |id: &str, run: &str| QueuedJob {
            job_name: "sky-cmd".to_owned(),
            log_path: format!("~/sky_logs/{run}"),
            ..job(id, 40.0)
        };
        let run = "sky-2026-11-29-09-00-00-807771";
        for before in [None, Some(3)] {
            let mut launch = cut_off(1.0, before);
            launch.printed.run = Some(run.to_owned());
            let (own, next) = (of_run("4", run), of_run("5", &run.replace("771", "772")));
            let jobs = [job("6", 60.0), next.clone(), own.clone()];
            assert_eq!(found(&launch, &jobs, &[]).as_deref(), Some("4"));
            assert_eq!(found(&launch, &[next], &[]), None);
            // Another launch has it, or it was there before.
            let mut claimed = cut_off(2.0, Some(3));
            let mark = JobMark::of(&own, Some("first"));
            claimed.verdict = mark.map(|mark| Verdict::Job("4".to_owned(), mark));
            assert_eq!(found(&launch, &jobs, &[claimed]), None);
            launch.start.before = cut_off(1.0, Some(4)).start.before;
            assert_eq!(found(&launch, &jobs, &[]), None);
            // What has another form is no time.
            launch.start.before = None;
            launch.printed.run = Some("sky-0".to_owned());
            assert_eq!(found(&launch, &[of_run("4", "sky-0")], &[]), None);
        }
    }

    #[test]
    fn printed_words_alone_claim_no_other_job() {
        let other = QueuedJob {
            job_name: "theirs".to_owned(),
            ..job("4", 40.0)
        };
        // An id that was there before, or has another name, or is of another run.
        let mut a = cut_off(1.0, Some(4));
        a.printed.oumi_job_id = Some("4".to_owned());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        a.last_output_at = Some(now.as_secs_f64());
        assert_eq!(found(&a, &[job("4", 40.0)], &[]), None);
        a.start.before = None;
        assert_eq!(found(&a, &[job("4", 40.0)], &[]).as_deref(), Some("4"));
        // Later the cluster may be another: only its hash, or the run, tells.
        for ended_at in [now.as_secs_f64() - 100.0, now.as_secs_f64() + 100.0, 1.0] {
            a.last_output_at = Some(ended_at);
            assert_eq!(found(&a, &[job("4", 40.0)], &[]), None);
            let before = cut_off(1.0, Some(3)).start.before;
            let same = Launch {
                start: LaunchStart {
                    before,
                    ..a.start.clone()
                },
                ..a.clone()
            };
            assert_eq!(found(&same, &[job("4", 40.0)], &[]).as_deref(), Some("4"));
            let mut of_run = a.clone();
            of_run.printed.run = Some("sky-40".to_owned());
            assert_eq!(found(&of_run, &[job("4", 40.0)], &[]).as_deref(), Some("4"));
        }
        a.last_output_at = Some(now.as_secs_f64());
        assert_eq!(found(&a, std::slice::from_ref(&other), &[]), None);
        a.printed.run = Some("sky-50".to_owned());
        assert_eq!(found(&a, &[job("4", 40.0)], &[]), None);
        // A run that is another job's, by its name or its age.
        a.printed.run = Some("sky-40".to_owned());
        a.printed.oumi_job_id = None;
        assert_eq!(found(&a, &[other], &[]), None);
        a.start.before = cut_off(1.0, Some(4)).start.before;
        assert_eq!(found(&a, &[job("4", 40.0)], &[]), None);
    }

    #[test]
    fn jobs_of_one_second_are_told_apart_without_hashes() {
        let one = job("4", 40.0);
        let other = QueuedJob {
            log_path: "~/sky_logs/sky-41".to_owned(),
            ..one.clone()
        };
        let mark = JobMark::of(&one, None).unwrap();
        assert!(mark.fits(&one, Some("first")));
        assert!(!mark.fits(&other, Some("first")));
    }

    #[test]
    fn jobs_of_a_recreated_cluster_are_new() {
        let mut a = cut_off(1.0, Some(9));
        assert_eq!(found(&a, &[job("1", 1.0)], &[]), None);
        a.start.before = Some(ClusterBefore {
            cluster_hash: Some("older".to_owned()),
            last_job_id: 9,
        });
        assert_eq!(found(&a, &[job("1", 1.0)], &[]).as_deref(), Some("1"));
    }
}

mod surveys {
    use super::*;
    use crate::launcher::cloud::clusters::cost_note;
    use crate::launcher::cloud::survey::Survey;
    use crate::launcher::oumi::Oumi;
    use crate::launcher::skypilot::SkyPilot;
    use crate::launcher::{cloud::launch_dir::JobMark, status};
    use crate::parse::prices::{ClusterCost, CostReport};
    use crate::parse::sky;

    /// SkyPilot's answers about the cluster `dev` on GCP and its job 7.
    fn survey(queue: &str, clusters: &str) -> Survey {
        Survey {
            costs: CostReport::new(),
            backend: Arc::new(SkyPilot::new(Cli::default())),
            queue: Ok(sky::queue(queue).unwrap()),
            clusters: Ok(sky::clusters(clusters).unwrap()),
        }
    }

    const QUEUE: &str =
        r#"{"dev": [{"job_id": 7, "job_name": "a", "status": "RUNNING", "submitted_at": 5}]}"#;
    const CLUSTERS: &str = r#"[{"name": "dev", "status": "UP", "cloud": "GCP"}]"#;

    #[test]
    fn jobs_that_end_with_a_cluster_are_named_with_their_users() {
        let row = |id: u8, user: &str, status: &str| {
            format!(
                r#"{{"job_id": {id}, "job_name": "j{id}", "status": "{status}", "user_hash": "h-{user}", "username": "{user}"}}"#
            )
        };
        let jobs = [
            row(3, "jane", "PENDING"),
            row(2, "me", "RUNNING"),
            row(1, "me", "FAILED"),
        ];
        let jobs = jobs.join(", ");
        let queue = format!(
            "Failed to get the job queue for cluster 'gone'.\n  sky.exceptions.ClusterDoesNotExist: Cluster 'gone' does not \
             exist.\nFailed to get the job queue for cluster 'off'.\n  ClusterNotUpError: off\n{{{}}}",
            ["dev", "theirs", "sky-jobs-controller-1"]
                .map(|name| format!(r#""{name}": [{jobs}]"#))
                .join(", ")
        );
        for (cluster, status, id, named) in [
            ("dev", "UP", "", Some("j3 of jane, j2")),
            ("dev", "UP", "3", Some("j3 of jane")),
            ("dev", "UP", "1", Some("")),
            // One's own clusters do not have it.
            ("theirs", "", "", Some("j3 of jane, j2 of me")),
            ("sky-jobs-controller-1", "UP", "", None),
            ("gone", "", "", Some("")),
            ("off", "STOPPED", "", Some("")),
            ("off", "INIT", "", None),
            ("silent", "UP", "", None),
        ] {
            let own =
                format!(r#"[{{"name": "{cluster}", "status": "{status}", "user_hash": "h-me"}}]"#);
            let mut survey = survey(&queue, if status.is_empty() { "[]" } else { &own });
            survey.leave_out_own_user();
            let live = survey.live_jobs(cluster, id);
            assert_eq!(live.as_deref(), named, "{cluster} {status} {id}");
        }
    }

    fn job(job_id: &str, cloud: &str) -> JobIdentity {
        JobIdentity {
            job_id: job_id.to_owned(),
            cloud: cloud.to_owned(),
            ..identity("7")
        }
    }

    /// The launch of job 7 of the cluster with this hash.
    fn launch_onto(cluster_hash: Option<&str>) -> Launch {
        let mark = JobMark::of(&survey(QUEUE, CLUSTERS).jobs("dev")[0], cluster_hash);
        Launch {
            verdict: mark.map(|mark| Verdict::Job("7".to_owned(), mark)),
            ..Launch::default()
        }
    }

    fn launch_of_dev() -> Launch {
        launch_onto(None)
    }

    #[test]
    fn pending_job_waits_for_the_earlier_ones() {
        let row = |id: u64, status: &str| {
            format!(r#"{{"job_id": {id}, "job_name": "", "status": "{status}"}}"#)
        };
        let rows = [
            row(9, "RUNNING"),
            row(7, "PENDING"),
            row(6, "RUNNING"),
            row(5, "FAILED"),
        ];
        let survey = survey(&format!(r#"{{"dev": [{}]}}"#, rows.join(",")), CLUSTERS);
        let message = survey.job(&job("", "gcp"), None).status().unwrap().message;
        assert_eq!(
            message.unwrap(),
            "it waits for earlier jobs of cluster dev: 1"
        );
        // Slurm has an order of its own.
        let survey = Survey {
            backend: Arc::new(Oumi(Cli::default())),
            ..survey
        };
        let message = survey
            .job(&job("", "slurm"), None)
            .status()
            .unwrap()
            .message;
        assert_eq!(message, None);
    }

    #[test]
    fn cluster_of_another_cloud_is_another_cluster() {
        let survey = survey(QUEUE, CLUSTERS);
        let launch = launch_of_dev();
        let status = |id, cloud| survey.job(&job(id, cloud), Some(&launch)).status();
        assert_eq!(status("a", "gcp").unwrap().status, "RUNNING");
        assert_eq!(status("a", "aws").unwrap().status, status::CLUSTER_GONE);
        assert_eq!(status("", "gcp").unwrap().status, "RUNNING");
        let error = status("", "azure").unwrap_err();
        assert!(
            error.is_not_found() && error.to_string().contains("is on gcp"),
            "{error}"
        );
        let (azure, aws) = (job("", "azure"), job("a", "aws"));
        assert!(survey.job(&azure, None).check_id().is_err());
        let aws = survey.job(&aws, Some(&launch));
        assert!(aws.check_id().is_err());
        let mut gone = aws.status().unwrap();
        aws.warn_of_cluster(&mut gone);
        assert_eq!((gone.details.cluster, gone.warnings.len()), (None, 0));
    }

    #[test]
    fn answers_that_contradict_each_other_are_not_gone() {
        let not_up = "Failed to get the job queue for cluster 'dev'.\n  sky.exceptions.ClusterNotUpError: Getting the job \
                      queue: skipped for cluster 'dev' (status: INIT).\n{}\n";
        let (job, launch) = (job("a", "gcp"), launch_of_dev());
        let status = |queue| survey(queue, "[]").job(&job, Some(&launch)).status();
        let error = status(not_up);
        assert!(error.unwrap_err().to_string().contains("ClusterNotUpError"));
        assert_eq!(status("{}").unwrap().status, status::CLUSTER_GONE);
        let mut onto_anothers = launch_of_dev();
        onto_anothers.start.is_anothers = true;
        let survey = survey("{}", "[]");
        assert!(survey.job(&job, Some(&onto_anothers)).status().is_err());
        // Of a job that was not launched here, nobody knows that its cluster was there.
        let named = JobIdentity {
            job_id: String::new(),
            ..job
        };
        let error = survey.job(&named, None).status().unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(survey.job(&named, None).check_id().is_err());
    }

    #[test]
    fn cluster_that_did_not_answer_is_named_once() {
        let silent = "Failed to get the job queue for cluster 'dev'.\n  ValueError: no\n{}\n";
        let survey = survey(silent, CLUSTERS);
        let mut listing = Listing::default();
        listing.add_problems(&survey, survey.queue.as_ref().unwrap(), &[]);
        assert_eq!(listing.incomplete.len(), 1, "{:?}", listing.incomplete);
    }

    #[test]
    fn costs_of_a_cluster_that_is_not_up() {
        const NO_QUEUE: &str = "Failed to get the job queue for cluster 'dev'.\n  sky.exceptions.ClusterNotUpError: no\n{}";
        const MAY_COST: &str = "cluster dev (GCP) is INIT and may cost money at $2.50 an hour; down_cluster deletes it";
        for (word, price, warning) in [("STOPPED", None, ""), ("INIT", Some(2.5), MAY_COST)] {
            let row = format!(r#""{word}", "autostop": 9, "hourly_price": 2.5"#);
            let survey = survey(NO_QUEUE, &CLUSTERS.replace(r#""UP""#, &row));
            let job = job("a", "gcp");
            let status = survey.job(&job, Some(&launch_of_dev())).status();
            let details = status.unwrap().details;
            let cluster = details.cluster.unwrap();
            assert_eq!(details.hourly_price, price);
            assert_eq!(cluster.autostop_minutes.is_some(), price.is_some());
            let note = cost_note(survey.cluster("dev").unwrap());
            assert!(note.starts_with(warning), "{note}");
        }
    }

    #[test]
    fn only_a_cluster_that_lists_no_live_job_is_called_idle() {
        let launch = |has_ended| {
            let mut launch = launch_of_dev();
            launch.start.cluster = "dev".to_owned();
            Launch {
                has_ended,
                ..launch
            }
        };
        for (rows, launches, is_idle) in [
            ("", [].as_slice(), true),
            ("", &[launch(false)], false),
            // It was cut off.
            ("", &[launch(true)], true),
            (r#"{"job_id": 1.0}"#, &[], false),
        ] {
            let survey = survey(&format!(r#"{{"dev": [{rows}]}}"#), CLUSTERS);
            let mut listing = Listing::default();
            listing.warn_of_clusters(&survey, launches);
            assert_eq!(!listing.warnings.is_empty(), is_idle, "{rows}");
        }
        // One that never came up, and one that may be coming up.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for (launched_at, warnings) in [(5, 1), (now.as_secs(), 0)] {
            let row = format!(r#""INIT", "launched_at": {launched_at}"#);
            let mut survey = survey("{}", &CLUSTERS.replace(r#""UP""#, &row));
            let mut listing = Listing::default();
            listing.warn_of_clusters(&survey, &[]);
            assert_eq!(listing.warnings.len(), warnings, "{:?}", listing.warnings);
            // Its jobs may live, where nobody can tell.
            survey.queue = Err(JobError::failed("silent"));
            let mut listing = Listing::default();
            listing.warn_of_clusters(&survey, &[]);
            assert_eq!(listing.warnings.len(), 0, "{:?}", listing.warnings);
        }
    }

    #[test]
    fn cluster_of_an_ended_job_on_which_another_lives_is_not_to_be_deleted() {
        for (other, is_named) in [("RUNNING", false), ("FAILED", true)] {
            let queue = QUEUE.replace("RUNNING", "SUCCEEDED");
            let other = format!(r#"[{{"job_id": 8, "status": "{other}"}}, "#);
            let clusters = CLUSTERS.replace(r#""UP""#, r#""UP", "autostop": 9"#);
            let survey = survey(&queue.replace('[', &other), &clusters);
            let (job, launch) = (job("a", "gcp"), launch_of_dev());
            let job = survey.job(&job, Some(&launch));
            let mut status = job.status().unwrap();
            job.warn_of_cluster(&mut status);
            assert_eq!(status.warnings.is_empty(), !is_named, "{status:?}");
        }
    }

    #[test]
    fn live_jobs_from_elsewhere_are_listed_before_those_that_are_over() {
        let over = r#"{"job_id": 1, "status": "SUCCEEDED"}, "#.repeat(300);
        let queue = format!(r#"{{"dev": [{over}{{"job_id": 2, "status": "RUNNING"}}]}}"#);
        let survey = survey(&queue, "[]");
        let mut listing = Listing::default();
        listing.add_foreign_jobs("", &survey, &BTreeSet::new());
        let JobIdentity {
            cloud, oumi_job_id, ..
        } = &listing.jobs[0].identity;
        assert_eq!((&**cloud, &**oumi_job_id), ("unknown", "2"));
        assert_eq!(listing.incomplete.len(), 1);
    }

    #[test]
    fn queue_of_a_controller_says_nothing_of_managed_jobs() {
        let of_controller = |text: &str| text.replace("dev", "sky-jobs-controller-1");
        let survey = survey(&of_controller(QUEUE), &of_controller(CLUSTERS));
        let mut listing = Listing::default();
        listing.add_foreign_jobs("", &survey, &BTreeSet::new());
        listing.warn_of_clusters(&survey, &[]);
        assert!(listing.jobs.is_empty());
        let warnings = listing.warnings.join("; ");
        assert!(warnings.contains("`sky jobs queue`") && !warnings.contains("down_cluster"));
    }

    #[test]
    fn launch_before_sky_knew_its_user_is_not_elsewhere() {
        let mut launch = Launch::default();
        launch.start.place = "/home/me/.sky".to_owned();
        assert_eq!(launch.other_place("/home/me/.sky as user 1a2b"), None);
        assert!(launch.other_place("/other/.sky as user 1a2b").is_some());
    }

    #[test]
    fn job_of_another_name_is_not_called_gone() {
        // The launcher's words were all there was, and may have been a script's.
        let launch = Launch::default();
        let survey = survey(QUEUE, CLUSTERS);
        let status = survey
            .job(&job("a", "gcp"), Some(&launch))
            .status()
            .unwrap();
        assert_eq!(
            (status.status.as_str(), status.is_done),
            (status::UNKNOWN, false)
        );
    }

    #[test]
    fn costs_are_those_of_the_cluster_of_the_job() {
        const CLUSTERS: &str = r#"[{"name": "dev", "status": "UP", "cloud": "GCP", "cluster_hash": "h", "launched_at": 1}]"#;
        let costs = |hash: &str, price: Option<f64>, reported: Option<f64>| {
            let mut survey = survey(QUEUE, CLUSTERS);
            survey.costs.extend(reported.map(|dollars| {
                let hourly_price = Some(4.0);
                (
                    "h".to_owned(),
                    ClusterCost {
                        dollars,
                        hourly_price,
                    },
                )
            }));
            let mut launch = launch_onto(Some(hash));
            launch.start.cluster = "dev".to_owned();
            launch.hourly_price = price;
            survey.add_price(&launch);
            survey.add_reported_prices();
            let details = survey
                .job(&job("a", "gcp"), Some(&launch))
                .status()
                .unwrap()
                .details;
            (details.hourly_price, details.spent.unwrap_or_default())
        };
        assert_eq!(
            costs("h", Some(3.5), Some(12.345)),
            (Some(3.5), "$12.35 (cost report)".to_owned())
        );
        let (price, estimate) = costs("h", Some(3.5), None);
        assert!(
            price == Some(3.5)
                && estimate.starts_with('$')
                && estimate.ends_with(" (price × time)"),
            "{estimate}"
        );
        assert_eq!(costs("h", None, None), (None, String::new()));
        // Of a cluster that was there before its launch.
        assert_eq!(costs("h", None, Some(9.0)).0, Some(4.0));
        // The cluster was made again.
        assert_eq!(costs("older", Some(3.5), Some(9.0)), (None, String::new()));
    }
}
