//! The fake `oumi` and `sky` against what the real ones printed, so that the fakes cannot drift from them.

use std::process::{Child, Command, Stdio};

use crate::captures::capture;
use crate::fake_cloud::FakeCloud;

/// A call of a fake with nothing of this test's environment but the programs' folders.
fn command(cloud: &FakeCloud, line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(cloud.bin().join(words.next().unwrap()));
    command.args(words).env_clear().stdin(Stdio::null());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("OUMI_SLURM_CONNECTIONS", "root@localhost");
    command.current_dir(cloud.folder());
    command
}

fn spawn(cloud: &FakeCloud, line: &str) -> Child {
    let mut command = command(cloud, line);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn text(child: Child) -> String {
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Runs the commands of captures, one after the other, and compares everything.
fn check(cloud: &FakeCloud, group: &str, names: &str) {
    for name in names.split_whitespace() {
        let real = capture(&format!("{group}/{name}"));
        let line = real.command.trim_start_matches("timeout ");
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let mut command = command(cloud, line);
        if let Some((_, columns)) = name.split_once("-cols") {
            command.env("COLUMNS", columns);
        }
        let fake = command.output().unwrap();
        for (fake, real) in [(&fake.stdout, &real.out), (&fake.stderr, &real.err)] {
            let fake = String::from_utf8_lossy(fake);
            assert_eq!(normalised(&fake), normalised(real), "{name}");
        }
        assert_eq!(fake.status.code(), Some(real.exit), "exit code of {name}");
    }
}

/// Removes what differs from one run to the next: times, pids, colours in a line's middle, and names of machines.
fn normalised(text: &str) -> String {
    let varying = [
        "_at\"",
        "\"log_path\"",
        "\"cluster_hash\"",
        "\"node_names\"",
    ];
    let is_kept = |line: &&str| !line.starts_with("[2026-") && !line.contains("no provision yaml");
    let without_numbers = |line: &str| match line.split_once(':') {
        Some((key, value)) if varying.iter().any(|end| key.ends_with(end)) => {
            format!("{key} {}\n", value.trim() == "null,")
        }
        _ if line.contains("pid=") || line.contains("workdir_sync.log") => {
            line.replace(|c: char| c.is_ascii_digit(), "") + "\n"
        }
        _ => format!("{line}\n"),
    };
    text.lines().filter(is_kept).map(without_numbers).collect()
}

/// A cluster with jobs `1`, `2`, …: their names and statuses.
fn cluster(name: &str, jobs: &[(&str, &str)]) -> FakeCloud {
    let cloud = FakeCloud::new();
    if !name.contains('@') {
        cloud.add_cluster(name, "Slurm", "UP");
    }
    for (at, (job, status)) in jobs.iter().enumerate() {
        let id = (at + 1).to_string();
        cloud.add_job(name, &id, job, status);
        if at > 0 {
            cloud.write(
                &format!("clusters/{name}/jobs/{id}/resources"),
                "1x[CPU:1+]",
            );
        }
    }
    cloud
}

fn three_jobs(third: &str) -> FakeCloud {
    let jobs = [
        ("sky-hi", "SUCCEEDED"),
        ("failjob", "FAILED"),
        ("longjob", third),
    ];
    cluster("skyc1", &jobs)
}

fn failed_setup() -> FakeCloud {
    let cloud = cluster("skyc3", &[("fs", "FAILED_SETUP")]);
    std::fs::remove_file(cloud.folder().join("clusters/skyc3/jobs/1/start_at")).unwrap();
    cloud.write("clusters/skyc3/jobs/1/setup_log", "in setup\n");
    cloud
}

#[test]
fn sky_prints_as_captured() {
    let first = "version queue-none queue-nocluster-json status-empty-json";
    check(&FakeCloud::new(), "sky", first);
    let starting = FakeCloud::new();
    starting.write("api_down", "");
    check(&starting, "sky", "queue-none-first queue-none");
    let one = cluster("skyc1", &[("sky-hi", "SUCCEEDED")]);
    check(&one, "sky", "queue-json status-up-json");
    check(&three_jobs("CANCELLED"), "sky", "queue-json-after");
    let story = "queue-json-failsetup logs-failsetup down down-nocluster";
    check(&failed_setup(), "sky", story);
    let three = FakeCloud::new();
    for (name, status) in [("lam1", "UP"), ("init1", "INIT"), ("stopped1", "STOPPED")] {
        three.add_cluster(name, "Slurm", status);
    }
    let story = "queue-notup logs-notup cancel-notup stop-unsupported";
    check(&three, "sky", story);
    let stops = FakeCloud::new();
    stops.add_cluster("lam1", "GCP", "UP");
    check(&stops, "sky", "stop stop-nocluster");

    let cloud = three_jobs("RUNNING");
    let steps = |count: u32| -> String { (1..=count).map(|n| format!("step {n}\n")).collect() };
    let first = "hi from sky sky-2026-11-24-19-07-32-946443_skyc1_1\n".to_owned() + &steps(5);
    for (id, log) in [("1", &*first), ("2", "about to fail\n"), ("3", &steps(40))] {
        cloud.set_log("skyc1", id, log);
    }
    let logs = "logs-nofollow logs-nofollow-failed logs-nofollow-running logs-nofollow-unknown";
    check(&cloud, "sky", logs);
    let story = "logs-nocluster queue-json-mixed cancel-done cancel-unknown cancel-running";
    check(&cloud, "sky", story);
    check(&cloud, "sky", "cancel-nocluster");
    assert_eq!(cloud.job_status("skyc1", "3").as_deref(), Some("CANCELLED"));
}

#[test]
fn oumi_on_clouds_prints_as_captured() {
    let cloud = FakeCloud::new();
    let job = r#"{"name": "oumi-sky-hi", "resources": {"cloud": "sky-slurm"}}"#;
    cloud.write("jobs/oumi_sky_long.yaml", job);
    let story = "up-detach-new status-running cancel status-cancelled cancel-unknown";
    check(&cloud, "oumi-sky", story);
    check(&failed_setup(), "oumi-sky", "status-failsetup");
    let statuses = ["SUCCEEDED", "FAILED", "CANCELLED", "FAILED", "CANCELLED"];
    let existing = cluster("skyc1", &statuses.map(|status| ("job", status)));
    check(&existing, "oumi-sky", "status-existing-cluster stop down");
    assert_eq!(existing.read("clusters/skyc1/status"), None);
}

#[test]
fn oumi_on_slurm_prints_as_captured() {
    let cloud = cluster("root@localhost", &[("slurm-hi", "COMPLETED")]);
    let log = capture("oumi-slurm/logs-completed").out;
    let (_, log) = log.split_once("console...\n").unwrap();
    cloud.set_log("root@localhost", "1", log);
    let job = r#"{"name": "slurm-hi", "user": "root", "resources": {"cloud": "slurm"}}"#;
    cloud.write("jobs/slurm_long.yaml", job);
    let story = "up-detach-existing-cluster status-inflight status-inflight-cols30 \
                 status-inflight-cols200 status-inflight-id status-unknown-id logs-completed \
                 logs-unknown-job cancel-inflight cancel-unknown-job status-after-cancel \
                 stop down-unknown";
    check(&cloud, "oumi-slurm", story);
}

const UP: &str = "oumi launch up --cluster c --detach -c job.yaml";

fn with_job_config() -> FakeCloud {
    let cloud = FakeCloud::new();
    cloud.write(
        "job.yaml",
        r#"{"name": "a", "resources": {"cloud": "gcp"}}"#,
    );
    cloud
}

#[test]
fn calls_and_configs_are_recorded() {
    let cloud = with_job_config();
    cloud.add_cluster("c", "GCP", "UP");
    let launches: Vec<Child> = (0..4).map(|_| spawn(&cloud, UP)).collect();
    launches.into_iter().for_each(|launch| drop(text(launch)));
    for n in 1..=4 {
        assert_eq!(cloud.staged(n), cloud.read("job.yaml"));
        assert_eq!(
            cloud.job_status("c", &n.to_string()).as_deref(),
            Some("RUNNING")
        );
    }
    let call = cloud.calls_of(&["oumi", "launch"]).remove(3);
    assert_eq!(
        (call.args.join(" "), &*call.connections),
        (UP[5..].to_owned(), "root@localhost")
    );
}
