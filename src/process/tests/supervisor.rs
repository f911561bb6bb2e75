//! The start of a supervisor, with shell scripts in its place, and its exit record.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::plan::{Step, SupervisorPlan};
use crate::process::start::{self, StartRequest};
use crate::process::supervisor::{supervise_on, write_exit_record_with_retry};
use crate::process::table::ProcessTable;
use crate::process::tests::executable;

fn plan() -> SupervisorPlan {
    SupervisorPlan {
        steps: Vec::new(),
        working_dir: PathBuf::from("/"),
        cancellable: true,
        cleanup: Vec::new(),
        time_limit_seconds: None,
    }
}

/// Starts a script as the supervisor of a job. Returns whether the job started, whether its supervisor lives, and how many
/// other processes, and whether it is recorded as failed.
async fn start(script: &str) -> (bool, bool, usize, bool) {
    let parent = tempfile::tempdir().unwrap();
    let program = parent.path().join("supervisor");
    executable(&program, script);
    let (dir, lock) = JobDir::create(parent.path().join("job")).unwrap();
    let job = StartRequest {
        plan: plan(),
        envs: Default::default(),
        files: Vec::new(),
    };
    let started = start::start(&program, &dir, lock, job).await;
    let table = ProcessTable::read().unwrap();
    let job = table.job(dir.path());
    let has_failed = dir.exit_record().unwrap().is_some();
    for member in job.members.iter().chain(&job.supervisor) {
        let pid = Pid::from_raw(i32::try_from(*member).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::KILL);
    }
    (
        started.is_ok(),
        job.supervisor.is_some(),
        job.members.len(),
        has_failed,
    )
}

/// A job that runs must not be called failed, and one that failed must not run. A supervisor that is held up is no failed start.
#[tokio::test]
async fn start_fails_only_once_nothing_lives() {
    // The child closes the handle of the lock, as those of Python do.
    const JOB: &str =
        "#!/bin/sh\necho $$ >\"$2/supervisor.pid\"\nsleep 3000 </dev/null >/dev/null 2>&1 &\n";
    for (case, script, expected) in [
        (
            "killed after the start",
            format!("{JOB}kill -9 $$\n"),
            (true, false, 1, false),
        ),
        (
            "killed before",
            "#!/bin/sh\nkill -9 $$\n".to_owned(),
            (false, false, 0, true),
        ),
        (
            "held up after the start",
            format!("{JOB}while :; do sleep 3000; done\n"),
            (true, true, 2, false),
        ),
        (
            "held up before",
            "#!/bin/sh\nexec sleep 3000\n".to_owned(),
            (false, false, 0, true),
        ),
    ] {
        assert_eq!(start(&script).await, expected, "{case}");
    }
}

/// A supervisor, whose time passes at once while nothing happens, and its child, which was there before.
#[test]
#[ignore = "the next test runs it, as a process of its own"]
fn supervisor_of_a_deaf_process() {
    let script = "trap '' TERM; echo; while :; do sleep 3000; done";
    let mut deaf = Command::new("sh");
    let deaf = deaf.args(["-c", script]).stdout(Stdio::piped()).spawn();
    let mut ready = deaf.unwrap().stdout.take().unwrap();
    ready.read_exact(&mut [0]).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.start_paused(true);
    let job = std::env::var_os("JOB").unwrap();
    supervise_on(Path::new(&job), runtime).unwrap();
}

#[test]
fn time_limit_kills_what_is_deaf_to_sigterm() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
    let mut plan = plan();
    plan.time_limit_seconds = Some(3600);
    plan.steps.push(Step {
        name: "run".to_owned(),
        argv: vec!["sleep".to_owned(), "3000".to_owned()],
    });
    dir.write_new("plan.json", &serde_json::to_vec(&plan).unwrap())
        .unwrap();
    let supervisor = "process::tests::supervisor::supervisor_of_a_deaf_process";
    let supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", supervisor])
        .env("JOB", dir.path())
        .output();
    assert!(supervisor.unwrap().status.success());
    // It ends once it has no child any more.
    let record = dir.exit_record().unwrap().unwrap();
    assert_eq!(record.error.unwrap(), "time limit: ended after 1 h");
}

#[tokio::test(start_paused = true)]
async fn exit_record_is_written_however_late() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
    // Stands in for a full disk: no file can replace a folder.
    let obstacle = dir.path().join("exit.json");
    fs::create_dir(&obstacle).unwrap();
    let record = ExitRecord::now("run");
    let writing = tokio::spawn({
        let (dir, record) = (dir.clone(), record.clone());
        async move { write_exit_record_with_retry(&dir, &record).await }
    });
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    fs::remove_dir(&obstacle).unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(dir.exit_record().unwrap(), Some(record));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_another_server_disturbed_is_written_again() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, _lock) = JobDir::create(parent.path().join("job")).unwrap();
    let folder = dir.path().to_owned();
    let remover = std::thread::spawn(move || {
        let is_removed = |file: &Path| {
            file.to_string_lossy().contains("/job/.tmp-") && fs::remove_file(file).is_ok()
        };
        while !folder
            .read_dir()
            .unwrap()
            .flatten()
            .any(|file| is_removed(&file.path()))
        {}
    });
    let record = ExitRecord::now("run");
    while !remover.is_finished() {
        write_exit_record_with_retry(&dir, &record).await.unwrap();
    }
    assert_eq!(dir.exit_record().unwrap(), Some(record));
}
