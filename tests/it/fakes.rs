//! The fake `oumi` and `sky` against what the real ones printed, so that the fakes cannot drift from them.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::captures::{Capture, capture};
use crate::fake_cloud::FakeCloud;

/// The command of a fake, with nothing of this test's environment but what is needed to run a script.
fn command(cloud: &FakeCloud, program: &str) -> Command {
    let mut command = Command::new(cloud.bin().join(program));
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(Stdio::null()).current_dir(cloud.folder());
    command
}

fn run(cloud: &FakeCloud, line: &str) -> Output {
    let mut words = line.split_whitespace();
    let mut command = command(cloud, words.next().unwrap());
    command.args(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the id that a launch printed.
fn printed_id(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("Job submitted, ID: ")?;
    let id = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(id.to_owned())
}

/// Runs the command of a capture, and compares everything.
fn check(cloud: &FakeCloud, name: &str, columns: Option<u32>) {
    let real = capture(name);
    let (program, args) = words(&real);
    let mut command = command(cloud, &program);
    command.args(args);
    command.env("OUMI_SLURM_CONNECTIONS", "root@localhost");
    if let Some(columns) = columns {
        command.env("COLUMNS", columns.to_string());
    }
    let fake = command.output().unwrap();
    assert_eq!(
        normalised(&stdout(&fake)),
        normalised(&real.out),
        "stdout of {name}"
    );
    let stderr = String::from_utf8(fake.stderr).unwrap();
    assert_eq!(
        normalised(&stderr),
        normalised(&real.err),
        "stderr of {name}"
    );
    assert_eq!(fake.status.code(), Some(real.exit), "exit code of {name}");
}

/// The program of a capture and its arguments.
fn words(real: &Capture) -> (String, Vec<String>) {
    let mut words = real.command.split_whitespace().map(ToOwned::to_owned);
    let mut program = words.next().unwrap();
    if program == "timeout" {
        program = words.nth(1).unwrap();
    }
    (program, words.collect())
}

/// Without what differs from one run to the next: times, pids, and the machines' own names.
fn normalised(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let json = line
            .trim_start()
            .strip_prefix('"')
            .and_then(|line| line.split_once("\": "));
        let varying = [
            "submitted_at",
            "start_at",
            "end_at",
            "launched_at",
            "log_path",
            "cluster_hash",
            "node_names",
        ];
        match json {
            Some((key, value)) if varying.contains(&key) => {
                let known = if value == "null," { "null" } else { "known" };
                lines.push_str(&format!("{key} {known}\n"));
            }
            _ => lines.push_str(&format!("{}\n", without_pids(line))),
        }
    }
    lines
}

fn without_pids(line: &str) -> String {
    let mut parts = line.split("pid=");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("pid=");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}

fn config(cloud: &FakeCloud, name: &str, text: &str) {
    cloud.write(&format!("jobs/{name}"), text);
}

const SKY_JOB: &str = "name: oumi-sky-hi\nresources:\n  cloud: sky-slurm\nrun: echo hi\n";
const SLURM_JOB: &str = "name: slurm-hi\nuser: root\nresources:\n  cloud: slurm\nrun: echo hi\n";

/// The cluster that most captures of `sky` were taken of.
fn skyc1() -> FakeCloud {
    let cloud = FakeCloud::new();
    cloud.add_cluster("skyc1", "Slurm", "UP");
    cloud.add_job("skyc1", "1", "sky-hi", "SUCCEEDED");
    cloud
}

fn skyc1_with_three_jobs(third: &str) -> FakeCloud {
    let cloud = skyc1();
    cloud.add_job("skyc1", "2", "failjob", "FAILED");
    cloud.add_job("skyc1", "3", "longjob", third);
    for id in ["2", "3"] {
        cloud.write(&format!("clusters/skyc1/jobs/{id}/resources"), "1x[CPU:1+]");
    }
    cloud
}

fn skyc3() -> FakeCloud {
    let cloud = FakeCloud::new();
    cloud.add_cluster("skyc3", "Slurm", "UP");
    cloud.add_job("skyc3", "1", "fs", "FAILED_SETUP");
    fs::remove_file(cloud.folder().join("clusters/skyc3/jobs/1/start_at")).unwrap();
    cloud.write("clusters/skyc3/jobs/1/setup_log", "in setup\n");
    cloud
}

fn three_clusters() -> FakeCloud {
    let cloud = FakeCloud::new();
    for (name, status) in [("lam1", "UP"), ("init1", "INIT"), ("stopped1", "STOPPED")] {
        cloud.add_cluster(name, "Slurm", status);
    }
    cloud
}

// ---- the same as the real ones

#[test]
fn sky_queue_prints_what_the_real_one_did() {
    check(&FakeCloud::new(), "sky/version", None);
    check(&FakeCloud::new(), "sky/queue-none", None);
    check(&FakeCloud::new(), "sky/queue-nocluster-json", None);
    let starting = FakeCloud::new();
    starting.write("api_down", "");
    check(&starting, "sky/queue-none-first", None);
    check(&starting, "sky/queue-none", None);
    check(&skyc1(), "sky/queue-json", None);
    check(
        &skyc1_with_three_jobs("RUNNING"),
        "sky/queue-json-mixed",
        None,
    );
    check(
        &skyc1_with_three_jobs("CANCELLED"),
        "sky/queue-json-after",
        None,
    );
    check(&skyc3(), "sky/queue-json-failsetup", None);
    check(&three_clusters(), "sky/queue-notup", None);
}

#[test]
fn sky_status_prints_what_the_real_one_did() {
    check(&FakeCloud::new(), "sky/status-empty-json", None);
    check(&skyc1(), "sky/status-up-json", None);
}

#[test]
fn sky_logs_prints_what_the_real_one_did() {
    let cloud = skyc1_with_three_jobs("RUNNING");
    cloud.set_log(
        "skyc1",
        "1",
        "hi from sky sky-2026-11-24-19-07-32-946443_skyc1_1\nstep 1\nstep 2\nstep 3\nstep 4\nstep 5\n",
    );
    cloud.set_log("skyc1", "2", "about to fail\n");
    let steps: String = (1..=40).map(|step| format!("step {step}\n")).collect();
    cloud.set_log("skyc1", "3", &steps);
    for name in [
        "logs-nofollow",
        "logs-nofollow-failed",
        "logs-nofollow-running",
        "logs-nofollow-unknown",
        "logs-nocluster",
        "logs-status-failed",
        "logs-status-notfound",
        "logs-status-running",
        "logs-status-succeeded",
    ] {
        check(&cloud, &format!("sky/{name}"), None);
    }
    cloud.set_job("skyc1", "3", "CANCELLED");
    check(&cloud, "sky/logs-status-cancelled", None);
    check(&skyc3(), "sky/logs-failsetup", None);
    check(&three_clusters(), "sky/logs-notup", None);
}

#[test]
fn sky_cancel_stop_and_down_print_what_the_real_ones_did() {
    let cloud = skyc1_with_three_jobs("RUNNING");
    check(&cloud, "sky/cancel-done", None);
    check(&cloud, "sky/cancel-unknown", None);
    check(&cloud, "sky/cancel-running", None);
    assert_eq!(cloud.job_status("skyc1", "3").as_deref(), Some("CANCELLED"));
    check(&cloud, "sky/cancel-nocluster", None);
    check(&cloud, "sky/down-nocluster", None);
    check(&cloud, "sky/stop-nocluster", None);
    let three = three_clusters();
    check(&three, "sky/cancel-notup", None);
    check(&three, "sky/stop-unsupported", None);
    let down = skyc3();
    check(&down, "sky/down", None);
    assert_eq!(down.read("clusters/skyc3/status"), None);
}

#[test]
fn sky_stop_prints_what_the_real_one_did_where_it_can_stop() {
    let cloud = FakeCloud::new();
    cloud.add_cluster("lam1", "GCP", "UP");
    // The real one was asked to stop a cluster that was never set up, and said so beside.
    let real = capture("sky/stop").out;
    let real: Vec<&str> = real
        .lines()
        .filter(|line| !line.contains("no provision yaml"))
        .collect();
    assert_eq!(
        stdout(&run(&cloud, "sky stop -y lam1"))
            .lines()
            .collect::<Vec<_>>(),
        real
    );
    assert_eq!(
        cloud.read("clusters/lam1/status").as_deref(),
        Some("STOPPED")
    );
}

#[test]
fn oumi_launch_on_a_cloud_prints_what_the_real_one_did() {
    let cloud = FakeCloud::new();
    config(&cloud, "oumi_sky_long.yaml", SKY_JOB);
    check(&cloud, "oumi-sky/up-detach-new", None);
    assert_eq!(cloud.staged(1).as_deref(), Some(SKY_JOB));
    check(&cloud, "oumi-sky/status-running", None);
    check(&cloud, "oumi-sky/cancel", None);
    check(&cloud, "oumi-sky/status-cancelled", None);
    check(&cloud, "oumi-sky/cancel-unknown", None);
    check(&skyc3(), "oumi-sky/status-failsetup", None);

    let existing = skyc1_with_three_jobs("CANCELLED");
    existing.add_job("skyc1", "4", "sky-cmd", "FAILED");
    existing.add_job("skyc1", "5", "sky-cmd", "CANCELLED");
    check(&existing, "oumi-sky/status-existing-cluster", None);
    config(&existing, "oumi_sky_slurm.yaml", SKY_JOB);
    existing.set(
        "first_log",
        "hi bar from /home/me/.sky_clusters/skyc1-fcd1e5cf/sky_workdir\ntrain.py\nstep 1\nstep 2\nstep 3\nstep 4\nstep 5\n",
    );
    existing.set("job_seconds", "0");
    check(&existing, "oumi-sky/up-blocking", None);
    check(&existing, "oumi-sky/stop", None);
    check(&existing, "oumi-sky/down", None);
    assert_eq!(existing.read("clusters/skyc1/status"), None);
}

#[test]
fn oumi_launch_on_slurm_prints_what_the_real_one_did() {
    let cloud = FakeCloud::new();
    cloud.add_job("root@localhost", "1", "slurm-hi", "COMPLETED");
    cloud.set_log(
        "root@localhost",
        "1",
        "setup-line\nhi bar from /home/me/oumi_launcher/20261124_184947227999 job 1\noops\n\
         step 1\nstep 2\nstep 3\nstep 4\nstep 5\n",
    );
    config(&cloud, "slurm_long.yaml", SLURM_JOB);
    config(&cloud, "slurm_hi.yaml", SLURM_JOB);
    for name in [
        "up-missing-arg",
        "up-bad-config",
        "up-no-cluster",
        "up-detach-existing-cluster",
        "status-inflight",
    ] {
        check(&cloud, &format!("oumi-slurm/{name}"), None);
    }
    check(&cloud, "oumi-slurm/status-inflight-cols30", Some(30));
    check(&cloud, "oumi-slurm/status-inflight-cols200", Some(200));
    for name in [
        "status-inflight-id",
        "status-unknown-id",
        "logs-completed",
        "logs-unknown-job",
        "cancel-inflight",
        "status-after-cancel",
        "stop",
        "down-unknown",
    ] {
        check(&cloud, &format!("oumi-slurm/{name}"), None);
    }
    check(&cloud, "oumi/launch-which", None);
}

#[test]
fn oumi_cancel_on_slurm_fails_as_the_real_one_did() {
    let cloud = FakeCloud::new();
    cloud.add_job("root@localhost", "1", "slurm-hi", "COMPLETED");
    cloud.write("hosts/root@localhost/jobs/1/forgotten", "");
    // Each has its own times of day in the lines of the logger.
    for (name, id) in [
        ("oumi-slurm/cancel-unknown-job", "999"),
        ("oumi-slurm/cancel-done-job", "1"),
    ] {
        let mut command = command(&cloud, "oumi");
        command.args([
            "launch",
            "cancel",
            "--cloud",
            "slurm",
            "--cluster",
            "root@localhost",
            "--id",
            id,
        ]);
        let fake = command
            .env("OUMI_SLURM_CONNECTIONS", "root@localhost")
            .output()
            .unwrap();
        let real = capture(name);
        assert_eq!(fake.status.code(), Some(real.exit));
        let without_times = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with("[2026-"));
            lines.map(ToOwned::to_owned).collect()
        };
        assert_eq!(
            without_times(&stdout(&fake)),
            without_times(&real.out),
            "{name}"
        );
    }
}

// ---- what tests turn

#[test]
fn every_call_is_noted_with_its_arguments_and_environment() {
    let cloud = FakeCloud::new();
    let mut status = command(&cloud, "oumi");
    status
        .args(["launch", "status", "--cloud", "slurm"])
        .env("COLUMNS", "4096");
    let child = status
        .env("OUMI_SLURM_CONNECTIONS", "a@b,c@d")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let lines = stdout(&child.wait_with_output().unwrap());
    assert!(lines.lines().any(|line| line.chars().count() == 4096));
    assert_eq!(run(&cloud, "sky queue -o json").status.code(), Some(0));
    let calls = cloud.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[0].program.as_str(), calls[0].pid), ("oumi", pid));
    assert_eq!(
        (calls[0].columns.as_str(), calls[0].connections.as_str()),
        ("4096", "a@b,c@d")
    );
    assert_eq!(calls[0].args, ["launch", "status", "--cloud", "slurm"]);
    assert_eq!(
        (calls[1].program.as_str(), calls[1].columns.as_str()),
        ("sky", "")
    );
    assert_eq!(cloud.calls_of(&["sky", "queue"]).len(), 1);
    assert_eq!(cloud.calls_of(&["sky", "cancel"]).len(), 0);
}

#[test]
fn launches_at_the_same_time_get_an_id_and_a_staged_config_each() {
    let cloud = FakeCloud::new();
    cloud.add_cluster("c", "Slurm", "UP");
    config(&cloud, "job.yaml", SKY_JOB);
    let config = cloud.folder().join("jobs/job.yaml");
    let launches: Vec<Child> = (0..6)
        .map(|_| {
            let mut up = command(&cloud, "oumi");
            up.args(["launch", "up", "--cluster", "c", "--detach", "-c"])
                .arg(&config);
            up.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut ids: Vec<String> = launches
        .into_iter()
        .map(|child| printed_id(&stdout(&child.wait_with_output().unwrap())).unwrap())
        .collect();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    assert!((1..=6).all(|n| cloud.staged(n).as_deref() == Some(SKY_JOB)));
}

#[test]
fn a_launch_blocks_between_the_cluster_and_the_job() {
    let cloud = FakeCloud::new();
    config(&cloud, "job.yaml", SKY_JOB);
    cloud.set("oumi-up.block", "");
    let mut up = command(&cloud, "oumi");
    up.args(["launch", "up", "--cluster", "c", "--detach", "-c"])
        .arg(cloud.folder().join("jobs/job.yaml"));
    let child = up.stdout(Stdio::piped()).spawn().unwrap();
    cloud.wait_for("blocked-oumi-up");
    assert_eq!(cloud.read("clusters/c/status").as_deref(), Some("INIT"));
    assert_eq!(cloud.job_status("c", "1"), None);
    cloud.set("oumi-up.go", "");
    let output = stdout(&child.wait_with_output().unwrap());
    assert_eq!(printed_id(&output).as_deref(), Some("1"));
    assert_eq!(cloud.read("clusters/c/status").as_deref(), Some("UP"));
}

#[test]
fn a_launch_is_killed_before_or_after_its_job_is_there() {
    for (when, job) in [("before-job", None), ("after-job", Some("RUNNING"))] {
        let cloud = FakeCloud::new();
        config(&cloud, "job.yaml", SKY_JOB);
        cloud.set("oumi-up.crash", when);
        let output = run(
            &cloud,
            &format!(
                "oumi launch up --cluster c --detach -c {}/jobs/job.yaml",
                cloud.folder().display()
            ),
        );
        assert_eq!(output.status.code(), None, "killed by a signal");
        assert_eq!(cloud.job_status("c", "1").as_deref(), job, "{when}");
        assert!(!stdout(&output).contains("queued on cluster"));
        assert_eq!(
            printed_id(&stdout(&output)).is_some(),
            job.is_some(),
            "{when}"
        );
    }
}

#[test]
fn garbage_and_crashes_are_what_they_say() {
    let cloud = skyc1();
    let ask = |knob: &str, says: &str| {
        cloud.set(knob, says);
        let output = run(&cloud, "sky queue -o json skyc1");
        cloud.unset(knob);
        output
    };
    let whole = stdout(&run(&cloud, "sky queue -o json skyc1"));
    let half = ask("sky-queue.garbage", "half");
    assert_eq!(
        (stdout(&half).as_str(), half.status.code()),
        (&whole[..whole.len() / 2], Some(0))
    );
    let crash = ask("sky-queue.crash", "");
    assert_eq!(
        (stdout(&crash).as_str(), crash.status.code()),
        (&whole[..whole.len() / 2], None)
    );
    assert!(!stdout(&ask("sky-queue.garbage", "text")).contains('"'));
    assert!(ask("sky-queue.garbage", "empty").stdout.is_empty());
    assert_eq!(ask("sky-queue.garbage", "bytes").stdout.len(), 64 << 10);
    assert_eq!(ask("sky-queue.garbage", "huge").stdout.len(), 100 << 20);
    let replayed = ask("sky-queue.replay", "oumi-slurm/up-unreachable");
    let real = capture("oumi-slurm/up-unreachable");
    assert_eq!(
        (stdout(&replayed), replayed.status.code()),
        (real.out, Some(1))
    );
}

#[test]
fn knobs_can_be_for_some_calls_only() {
    let cloud = FakeCloud::new();
    cloud.set("sky-queue.garbage", "empty");
    cloud.set("sky-queue.times", "2");
    let lengths: Vec<bool> = (0..4)
        .map(|_| run(&cloud, "sky queue -o json").stdout.is_empty())
        .collect();
    assert_eq!(lengths, [true, true, false, false]);
    assert!(!run(&cloud, "sky status -o json").stdout.is_empty());
}

#[test]
fn a_cancel_can_say_that_it_cancelled_and_not_do_it() {
    let cloud = skyc1_with_three_jobs("RUNNING");
    cloud.set("sky-cancel.noop", "");
    check(&cloud, "sky/cancel-running", None);
    assert_eq!(cloud.job_status("skyc1", "3").as_deref(), Some("RUNNING"));
}

/// Waits for the end of a child, or says that it did not come.
fn ends(child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn a_program_that_hangs_ignores_terminate_and_ends_with_its_cloud() {
    let cloud = FakeCloud::new();
    cloud.set("sky-queue.hang", "");
    let mut child = command(&cloud, "sky")
        .args(["queue", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cloud.wait_for("hanging-sky-queue");
    let terminate = || {
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap()
    };
    assert!(terminate().success());
    // A signal that is ignored leaves no trace, so this can only look for a while.
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    drop(cloud);
    assert!(ends(&mut child));
}

#[test]
fn logs_are_followed_until_the_job_ends() {
    let cloud = FakeCloud::new();
    cloud.add_job("root@localhost", "7", "slurm-hi", "RUNNING");
    cloud.set_log("root@localhost", "7", "one\n");
    let saved = cloud.folder().join("saved.log");
    let follow = |file: bool| {
        let mut logs = command(&cloud, "oumi");
        logs.args([
            "launch",
            "logs",
            "--cloud",
            "slurm",
            "--cluster",
            "root@localhost",
            "--job-id",
            "7",
        ]);
        if file {
            logs.arg("--output-filepath").arg(&saved);
        }
        logs.env("OUMI_SLURM_CONNECTIONS", "root@localhost")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (printed, mut to_file) = (follow(false), follow(true));
    let deadline = Instant::now() + Duration::from_secs(30);
    while fs::read_to_string(&saved).unwrap_or_default() != "one\n" {
        assert!(Instant::now() < deadline, "the log did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(to_file.try_wait().unwrap().is_none(), "it follows");
    cloud.set_log("root@localhost", "7", "one\ntwo\n");
    cloud.set_job("root@localhost", "7", "FAILED");
    assert!(ends(&mut to_file));
    assert_eq!(fs::read_to_string(&saved).unwrap(), "one\ntwo\n");
    let printed = printed.wait_with_output().unwrap();
    assert_eq!(printed.status.code(), Some(0), "whatever became of the job");
    assert!(stdout(&printed).ends_with("Logging to console...\none\ntwo\n"));
}
