//! No room on the disk, a disk that cannot be written, no home, no handles left: an error of that call that says so, the
//! registry still whole, no wrong answer, and all is well again afterwards.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::client::{Server, command_of};
use crate::support::{Home, alive, copy_program, everything_in, kill_9, skipped, wait_until};
use crate::tools::handles;

const LONG: &str = "echo begun; sleep 3000 & wait";
/// The same, of a job that lets go of the lock that it was handed: it is found by its mark alone.
const LOCKLESS: &str =
    "for fd in {3..40}; do eval \"exec $fd>&-\"; done; echo begun; sleep 3000 & wait";

/// A small disk of its own. It is unmounted when it is dropped, also while something still uses it.
struct Disk(PathBuf);

impl Disk {
    /// Nothing where this user may not mount; it is said why.
    fn mount(place: &Path) -> Option<Self> {
        fs::create_dir_all(place).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"])
            .arg(place);
        let mounted = mount.stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place.to_owned()));
        }
        skipped("a small disk cannot be mounted here (it takes root on Linux)");
        None
    }

    fn remount(&self, option: &str) {
        let mut mount = Command::new("mount");
        let status = mount
            .args(["-o", &format!("remount,{option}")])
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut size = 64 * 1024;
        let mut count = 0;
        while size > 0 {
            let path = self.0.join(format!("filler-{count}"));
            count += 1;
            if fs::write(path, vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.0).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn launch(server: &mut Server, config: &str, name: &str) -> crate::support::client::Answer {
    server.run(config, json!({ "job_name": name }))
}

#[test]
fn full_disk_fails_only_the_call() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.data()) else {
        return;
    };
    home.write(
        "long.yaml",
        &serde_json::to_string(&json!({ "run": LONG })).unwrap(),
    );
    home.write("short.yaml", "run: echo said\n");
    let mut server = Server::start(&home);
    for job in ["long", "orphan"] {
        launch(&mut server, "long.yaml", job).ok();
        wait_until("it says something", || server.log(job) == "begun");
    }
    launch(&mut server, "short.yaml", "short").ok();
    server.wait_done("short");
    kill_9(home.supervisor("orphan"));
    let before = fs::read(home.registry()).unwrap();
    disk.fill();
    for _ in 0..3 {
        let error = launch(&mut server, "short.yaml", "refused")
            .refused()
            .to_owned();
        assert!(error.contains("No space left"), "{error}");
    }
    // The same in a server that finds it so.
    for server in [&mut server, &mut Server::start(&home)] {
        assert_eq!(server.poll("long")["status"], "running");
        assert_eq!(server.poll("orphan")["status"], "running");
        assert_eq!(server.poll("short")["status"], "completed");
        assert_eq!(server.log("short"), "said");
        let mut listed = server.list("all").0;
        listed.sort();
        assert_eq!(listed, ["long", "orphan", "short"]);
        assert_eq!(
            server.call("poll_status", json!({ "job_id": "refused" }))["status"],
            "not_found"
        );
    }
    assert_eq!(fs::read(home.registry()).unwrap(), before);
    // What runs can be ended, and reads so at once: perhaps it is what fills the disk.
    for job in ["long", "orphan"] {
        assert_eq!(server.cancel(job, false).ok()["status"], "cancelled");
        assert_eq!(server.poll(job)["status"], "cancelled");
    }
    disk.free();
    launch(&mut server, "short.yaml", "refused").ok();
    assert_eq!(server.wait_done("refused")["status"], "completed");
    assert_eq!(home.records().len(), 4);
    drop(server);
    wait_until("nothing runs on the disk any more", || {
        home.running().is_empty()
    });
}

#[test]
fn full_disk_allows_a_forced_cancel() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.data()) else {
        return;
    };
    let run = "trap '' TERM; echo begun; while :; do sleep 0.05; done";
    home.job(run);
    let mut server = Server::start(&home);
    launch(&mut server, "job.yaml", "job").ok();
    wait_until("it says something", || server.log("job") == "begun");
    disk.fill();
    // Asked first, and then forced, while the first still waits.
    let asked = server.send("cancel_job", json!({ "job_id": "job" }));
    let request = home.job_dir("job").join("terminate-requested");
    wait_until("it was asked", || request.exists());
    assert_eq!(server.cancel("job", true).ok()["status"], "cancelled");
    assert_eq!(
        server.answer("cancel_job", asked).ok()["status"],
        "cancelled"
    );
    assert_eq!(server.poll("job")["status"], "cancelled");
}

#[test]
fn read_only_disk_fails_only_the_call() {
    // Where something has a file open for writing, it is not made read-only: that is what the supervisors have.
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.data()) else {
        return;
    };
    home.write("short.yaml", "run: echo said\n");
    let mut server = Server::start(&home);
    launch(&mut server, "short.yaml", "short").ok();
    server.wait_done("short");
    wait_until("its supervisor has ended", || home.running().len() == 1);
    let before = fs::read(home.registry()).unwrap();
    disk.remount("ro");
    for server in [&mut server, &mut Server::start(&home)] {
        let error = launch(server, "short.yaml", "refused").refused().to_owned();
        assert!(error.contains("Read-only file system"), "{error}");
        assert_eq!(server.poll("short")["status"], "completed");
        assert_eq!(server.log("short"), "said");
        assert_eq!(server.list("all").0, ["short"]);
        assert!(
            server
                .cancel("short", true)
                .refused()
                .contains("already ended")
        );
    }
    assert_eq!(fs::read(home.registry()).unwrap(), before);
    disk.remount("rw");
    launch(&mut server, "short.yaml", "refused").ok();
    assert_eq!(server.wait_done("refused")["status"], "completed");
    assert_eq!(home.records().len(), 2);
}

#[test]
fn an_end_on_a_full_disk_is_recorded_once_there_is_room() {
    let home = Home::new();
    let Some(disk) = Disk::mount(&home.data()) else {
        return;
    };
    home.job("while [ ! -e go ]; do sleep 0.05; done; touch ended; exit 7");
    let mut server = Server::start(&home);
    launch(&mut server, "job.yaml", "job").ok();
    disk.fill();
    home.write("go", "");
    wait_until("it has ended", || home.project().join("ended").exists());
    assert_eq!(server.poll("job")["status"], "running");
    disk.free();
    let status = server.wait_done("job");
    assert_eq!(
        (&status["status"], &status["metadata"]["exit_code"]),
        (&json!("failed"), &json!(7))
    );
}

/// Starts a server that is not root's, which may write everywhere: nobody's, where the tests are root.
fn start_without_privileges(home: &Home) -> Server {
    if !rustix::process::geteuid().is_root() {
        return Server::start(home);
    }
    const NOBODY: u32 = 65534;
    let program = home.root().join("oumi-mcp-server");
    if !program.exists() {
        copy_program(Path::new(env!("CARGO_BIN_EXE_oumi-mcp-server")), &program);
    }
    for path in everything_in(home.root())
        .iter()
        .map(PathBuf::as_path)
        .chain([home.root()])
    {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = command_of(home, &program);
    command.uid(NOBODY).gid(NOBODY);
    Server::spawn(home, command)
}

#[test]
fn forbidden_folder_fails_only_the_call() {
    let home = Home::new();
    home.write("short.yaml", "run: echo said\n");
    home.job(LONG);
    let mut server = start_without_privileges(&home);
    launch(&mut server, "job.yaml", "long").ok();
    launch(&mut server, "short.yaml", "short").ok();
    server.wait_done("short");
    wait_until("it says something", || server.log("long") == "begun");
    let before = fs::read(home.registry()).unwrap();
    let may = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let jobs = home.data().join("jobs");

    for (path, closed) in [(&home.data(), 0o500), (&jobs, 0o500), (&jobs, 0)] {
        may(path, closed);
        for server in [&mut server, &mut start_without_privileges(&home)] {
            let error = launch(server, "short.yaml", "new").refused().to_owned();
            assert!(error.contains("Permission denied"), "{error}");
            let status = server.call("poll_status", json!({ "job_id": "new" }));
            assert_eq!(status["status"], "not_found");
            for (job, word) in [("long", "running"), ("short", "completed")] {
                let status = server.call("poll_status", json!({ "job_id": job }));
                if closed == 0 {
                    assert!(status.refused().contains("Permission denied"), "{status}");
                    assert_eq!(
                        (&status["status"], &status["is_done"]),
                        (&json!("unknown"), &json!(false))
                    );
                } else {
                    assert_eq!(status.ok()["status"], word);
                    server.log(job);
                }
            }
        }
        may(path, 0o700);
    }
    // A registry that may not be read is not one that is empty.
    may(&home.registry(), 0);
    for server in [&mut server, &mut start_without_privileges(&home)] {
        for (tool, arguments) in [
            ("list_jobs", json!({})),
            ("poll_status", json!({ "job_id": "long" })),
            ("cancel_job", json!({ "job_id": "long" })),
        ] {
            let answer = server.call(tool, arguments);
            assert!(answer.refused().contains("Permission denied"), "{tool}");
        }
        let error = launch(server, "short.yaml", "new").refused().to_owned();
        assert!(error.contains("Permission denied"), "{error}");
    }
    may(&home.registry(), 0o600);
    assert_eq!(fs::read(home.registry()).unwrap(), before);

    // What runs can be ended, whatever may not be written beside it.
    may(&home.data(), 0o500);
    assert_eq!(server.cancel("long", false).ok()["status"], "cancelled");
    assert_eq!(server.poll("long")["status"], "cancelled");
    may(&home.data(), 0o700);
    launch(&mut server, "short.yaml", "new").ok();
    assert_eq!(server.wait_done("new")["status"], "completed");
}

/// A server whose data folder cannot be made: every call says so, and once it can, all is well.
#[test]
fn missing_home_fails_calls_until_it_appears() {
    let home = Home::new();
    home.write("job.yaml", "run: echo said\n");
    // A file where the folder should be stops root too.
    fs::write(home.data(), "in the way").unwrap();
    let mut server = Server::start(&home);
    let says = home.data().display().to_string();
    let error = launch(&mut server, "job.yaml", "job").refused().to_owned();
    assert!(error.contains(&says), "{error}");
    for (tool, arguments) in [
        ("list_jobs", json!({})),
        ("poll_status", json!({ "job_id": "job" })),
        ("get_job_logs", json!({ "job_id": "job" })),
        ("cancel_job", json!({ "job_id": "job" })),
    ] {
        let answer = server.call(tool, arguments);
        assert!(
            answer.refused().contains(&says),
            "{tool}: {:#}",
            answer.content
        );
        // Nobody can say that there is no such job.
        assert_ne!(answer["status"], "not_found", "{tool}");
    }
    assert_eq!(fs::read_to_string(home.data()).unwrap(), "in the way");
    fs::remove_file(home.data()).unwrap();
    launch(&mut server, "job.yaml", "job").ok();
    assert_eq!(server.wait_done("job")["status"], "completed");
}

/// Gives a running server this many handles; it can be given more again.
fn limit_handles(server: &Server, count: usize) -> bool {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([
        "--pid",
        &server.id().to_string(),
        &format!("--nofile={count}:"),
    ]);
    prlimit
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A status that is answered while handles run out must be true; an error says nothing of the job.
fn is_true_or_an_error(answer: &crate::support::client::Answer, name: &str, truth: &str) {
    let status = answer["status"].as_str().unwrap();
    if !answer.is_error {
        assert_eq!(status, truth, "{name}: {:#}", answer.content);
        return;
    }
    assert!(
        matches!(status, "unknown" | ""),
        "{name}: {:#}",
        answer.content
    );
    // A call that did not get as far as the job has no state.
    let state = answer["state"].as_str().unwrap_or("UNKNOWN");
    assert_eq!(state, "UNKNOWN", "{name}: {:#}", answer.content);
    assert_ne!(answer["is_done"], true, "{name}: {:#}", answer.content);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("Too many open files")
            || error.contains("cannot be listed")
            || error.contains("not shown"),
        "{name}: {error}"
    );
}

#[test]
fn no_handles_gives_no_wrong_answer() {
    let (home, mut server) = Server::in_new_home();
    let Some(open) = handles(server.id()) else {
        skipped("there is no /proc here");
        return;
    };
    if !limit_handles(&server, 1024) {
        skipped("there is no prlimit here");
        return;
    }
    home.write(
        "long.yaml",
        &serde_json::to_string(&json!({ "run": LONG })).unwrap(),
    );
    home.write(
        "lockless.yaml",
        &serde_json::to_string(&json!({ "run": LOCKLESS })).unwrap(),
    );
    home.write("short.yaml", "run: echo said\n");
    let jobs = [
        ("long", "running"),
        ("orphan", "running"),
        ("short", "completed"),
        ("lost", "lost"),
    ];
    for (name, config) in [
        ("long", "long.yaml"),
        ("orphan", "lockless.yaml"),
        ("short", "short.yaml"),
        ("lost", "long.yaml"),
    ] {
        launch(&mut server, config, name).ok();
    }
    server.wait_done("short");
    wait_until("it says something", || server.log("orphan") == "begun");
    kill_9(home.supervisor("orphan"));
    kill_9(home.supervisor("lost"));
    // Its processes go too, so that nobody knows how it ended.
    let job = home.job_dir("lost");
    wait_until("nothing of it is left", || {
        let members = crate::support::job_members(&job);
        members.iter().for_each(|pid| {
            let pid = crate::support::pid(*pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        });
        members.is_empty()
    });
    let before = home.records();
    let open = open.max(handles(server.id()).unwrap());
    let (mut errors, mut refused, mut answers) = (0, 0, 0);
    for limit in open.saturating_sub(2)..open + 24 {
        assert!(limit_handles(&server, limit));
        for (name, truth) in jobs {
            let answer = server.call("poll_status", json!({ "job_id": name }));
            answers += 1;
            errors += usize::from(answer.is_error);
            is_true_or_an_error(&answer, name, truth);
        }
        let answer = server.call("list_jobs", json!({ "limit": 1000 }));
        if !answer.is_error {
            let rows = answer["jobs"].as_array().unwrap();
            let listed = |name: &str| rows.iter().find(|row| row["job_id"] == name);
            for (row, truth) in jobs
                .iter()
                .filter_map(|(name, truth)| Some((listed(name)?, truth)))
            {
                assert_eq!(row["status"], *truth, "{answer}");
            }
            let missing = jobs
                .iter()
                .filter(|(name, _)| listed(name).is_none())
                .count();
            let warned = answer["warnings"].as_array().unwrap().len();
            assert!(missing == 0 || warned > 0, "{answer}");
        }
        let name = format!("new-{limit}");
        let answer = launch(&mut server, "short.yaml", &name);
        if answer.is_error {
            refused += 1;
            let error = answer["error"].as_str().unwrap();
            assert!(error.contains("Too many open files"), "{limit}: {error}");
        }
        // A job that has ended is never cancelled now, and one that is lost neither.
        for name in ["short", "lost"] {
            let answer = server.cancel(name, false);
            assert!(answer.is_error, "{limit}: {:#}", answer.content);
        }
        assert!(alive(home.supervisor("long")));
    }
    // Many at once take the handles from each other, in the middle of whatever each is doing.
    for limit in (open + 2..open + 20).step_by(2) {
        assert!(limit_handles(&server, limit));
        let sent: Vec<_> = (0..60)
            .map(|at| {
                // Mostly the one that is found by its mark alone.
                let (name, truth) = jobs[if at % 4 == 0 { at / 4 % jobs.len() } else { 1 }];
                (
                    server.send("poll_status", json!({ "job_id": name })),
                    name,
                    truth,
                )
            })
            .collect();
        for (id, name, truth) in sent {
            let answer = server.answer("poll_status", id);
            answers += 1;
            errors += usize::from(answer.is_error);
            is_true_or_an_error(&answer, name, truth);
        }
    }
    println!(
        "{open} handles open; {errors} of {answers} polls were errors, {refused} launches were refused"
    );
    assert!(
        errors > 0 && refused > 0,
        "handles did not run out: {errors}, {refused}"
    );
    assert!(limit_handles(&server, 1024));
    for (name, truth) in jobs {
        assert_eq!(server.poll(name)["status"], truth);
    }
    let records = home.records();
    assert!(
        before.iter().all(|record| records.contains(record)),
        "{records:#?}"
    );
    launch(&mut server, "short.yaml", "afterwards").ok();
    assert_eq!(server.wait_done("afterwards")["status"], "completed");
    for name in ["long", "orphan"] {
        assert_eq!(
            server.cancel(name, true).ok()["status"],
            "cancelled",
            "{name}"
        );
    }
    drop(server);
    wait_until("no process is left over", || home.running().is_empty());
}

#[test]
fn cancel_without_handles_stays_truthful() {
    let (home, mut server) = Server::in_new_home();
    let Some(open) = handles(server.id()).filter(|_| limit_handles(&server, 1024)) else {
        skipped("it takes /proc and prlimit");
        return;
    };
    // It has a child of its own session, and does not end when it is asked to.
    let script = "trap '' TERM; echo begun; setsid sleep 3000 & while :; do sleep 0.05; done";
    home.write(
        "stubborn.yaml",
        &serde_json::to_string(&json!({ "run": script })).unwrap(),
    );
    let mut wrong: Vec<Value> = Vec::new();
    for (at, limit) in (open.saturating_sub(1)..open + 12).enumerate() {
        let name = format!("job-{at}");
        launch(&mut server, "stubborn.yaml", &name).ok();
        wait_until("it says something", || server.log(&name) == "begun");
        let supervisor = home.supervisor(&name);
        if at % 2 == 0 {
            kill_9(supervisor);
        }
        assert!(limit_handles(&server, limit));
        let answer = server.cancel(&name, true);
        assert!(limit_handles(&server, 1024));
        let mut left = crate::support::job_members(&home.job_dir(&name));
        // It ends only after it has written that the job is over.
        left.remove(&supervisor);
        if answer["is_done"] == true && !left.is_empty() {
            wrong.push(answer.content);
        } else if answer.is_error {
            assert!(
                answer["error"]
                    .as_str()
                    .unwrap()
                    .contains("Too many open files")
                    || answer["error"]
                        .as_str()
                        .unwrap()
                        .contains("cannot be listed"),
                "{answer}"
            );
        }
        let again = server.cancel(&name, true);
        let status = server.wait_done(&name);
        assert_eq!(status["status"], "cancelled", "{limit} {:#}", again.content);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
