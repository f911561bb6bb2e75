//! Processes that outlive their script, their supervisor or their folder: they are counted, and can be ended.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::support::client::{Answer, Server};
use crate::support::{Home, alive, kill_9, pid, wait_until};

/// A child that keeps nothing of its parent but the environment: Python's children close what they inherit.
const LEAVES_A_CHILD: &str = r#"
mkdir pids
(setsid bash -c 'for n in 3 4 5 6 7 8 9 10 11 12; do eval "exec $n>&-"; done; echo $$ > pids/left; exec sleep 300' \
    </dev/null >/dev/null 2>&1 &)
while [ ! -s pids/left ]; do sleep 0.02; done
"#;

/// Waits until only the leftovers of the job live.
fn wait_for_leftovers(server: &mut Server, job_id: &str) -> Answer {
    let mut answer = server.poll(job_id);
    wait_until("only leftovers live", || {
        answer = server.poll(job_id);
        answer["metadata"]["processes_left"] != Value::Null
    });
    answer
}

#[test]
fn leftovers_keep_the_job_from_being_over() {
    for (end, status, force) in [("true", "completed", false), ("exit 3", "failed", true)] {
        let (home, mut server) = Server::in_new_home();
        let job_id = server.submit(home.job(&format!("{LEAVES_A_CHILD}{end}")), json!({}));
        let left = home.pids(1)[0];
        let answer = wait_for_leftovers(&mut server, &job_id);
        assert_eq!(answer["status"], "running");
        assert_eq!(
            (&answer["is_done"], &answer["metadata"]["processes_left"]),
            (&json!(false), &json!(1))
        );
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains("1 process") && message.contains("cancel_job"),
            "{message}"
        );
        assert_eq!(server.list("running").0, [job_id.as_str()]);
        assert!(alive(home.supervisor(&job_id)));

        let answer = server.cancel(&job_id, force).ok();
        assert!(!alive(left));
        assert_eq!(
            (&answer["status"], &answer["is_done"]),
            (&json!(status), &json!(true))
        );
        assert_eq!(server.poll(&job_id)["status"], status);
        assert!(server.cancel(&job_id, force).refused().contains(status));
    }
}

#[test]
fn leftovers_that_end_by_themselves_end_the_job() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job(LEAVES_A_CHILD), json!({}));
    wait_for_leftovers(&mut server, &job_id);
    kill_9(home.pids(1)[0]);
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    wait_until("the supervisor has ended", || {
        !alive(home.supervisor(&job_id))
    });
}

/// Without their supervisor they are found by their mark.
#[test]
fn leftovers_without_a_supervisor_are_ended() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job(LEAVES_A_CHILD), json!({}));
    wait_for_leftovers(&mut server, &job_id);
    kill_9(home.supervisor(&job_id));
    assert_eq!(server.poll(&job_id)["metadata"]["processes_left"], 1);
    // By a server that calls the data folder by another name, too.
    let link = home.root().join("link");
    std::os::unix::fs::symlink(home.data(), &link).unwrap();
    let mut server = Server::start_with(&home, &[("OUMI_MCP_HOME", link.to_str().unwrap())]);
    server.cancel(&job_id, false).ok();
    assert!(!alive(home.pids(1)[0]));
    assert_eq!(server.poll(&job_id)["status"], "completed");
}

/// A worker goes on when the leader of its job was killed; it holds the GPU.
#[test]
fn workers_of_a_killed_leader_are_ended() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job(&format!("{LEAVES_A_CHILD}kill -9 $$")), json!({}));
    let answer = wait_for_leftovers(&mut server, &job_id);
    assert_eq!(answer["is_done"], false);
    assert!(answer["message"].as_str().unwrap().contains("SIGKILL"));
    server.cancel(&job_id, false).ok();
    assert!(!alive(home.pids(1)[0]));
    assert_eq!(server.poll(&job_id)["status"], "failed");
}

#[test]
fn kill_of_the_own_process_group_leaves_the_supervisor() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("kill -9 0"), json!({}));
    let status = server.wait_done(&job_id);
    assert_eq!(
        (&status["status"], &status["metadata"]["signal"]),
        (&json!("failed"), &json!(9))
    );
}

#[test]
fn job_that_removed_its_folder_is_cancelled() {
    for force in [false, true] {
        let (home, mut server) = Server::in_new_home();
        let run = "mkdir pids; rm -r \"$OUMI_MCP_JOB_DIR\"; echo $$ > pids/main; sleep 300";
        let job_id = server.submit(home.job(run), json!({}));
        let main = home.pids(1)[0];
        let status = server.poll(&job_id);
        assert_eq!(
            (&status["status"], &status["is_done"]),
            (&json!("running"), &json!(false))
        );
        assert_eq!(server.cancel(&job_id, force).ok()["status"], "cancelled");
        assert!(!alive(main));
        assert_eq!(server.poll(&job_id)["status"], "cancelled");
    }
}

#[test]
fn job_that_removed_its_folder_has_its_end_recorded() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("rm -r \"$OUMI_MCP_JOB_DIR\"; exit 3"), json!({}));
    assert_eq!(server.wait_done(&job_id)["status"], "failed");
}

/// Whoever empties the data folder loses the records, not the processes.
#[test]
fn jobs_of_an_emptied_data_folder_are_listed_and_ended() {
    for force in [false, true] {
        let (home, mut server) = Server::in_new_home();
        let job_id = server.submit(
            home.job("mkdir pids; echo $$ > pids/main; sleep 300"),
            json!({}),
        );
        let main = home.pids(1)[0];
        fs::remove_dir_all(home.data()).unwrap();
        let (ids, answer) = server.list("running");
        assert_eq!(ids, [job_id.as_str()]);
        assert!(answer["warnings"].to_string().contains(&job_id), "{answer}");
        let refused = server.launch("job.yaml", json!({ "job_name": job_id }));
        assert!(
            server
                .call("run_job", refused)
                .refused()
                .contains("still use")
        );
        assert!(
            server.poll(&job_id)["message"]
                .as_str()
                .unwrap()
                .contains("removed")
        );
        let answer = server.cancel(&job_id, force).ok();
        assert_eq!(answer["status"], "cancelled");
        assert_eq!(answer["message"], "the job was cancelled");
        assert!(!alive(main));
        assert_eq!(server.list("running").0, [""; 0]);
    }
}

#[test]
fn pid_file_is_not_needed_for_a_cancel() {
    let damages: [fn(&Path); 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "garbled").unwrap(),
        |file| fs::write(file, std::process::id().to_string()).unwrap(),
    ];
    for damage in damages {
        let (home, mut server) = Server::in_new_home();
        // It would read as completed if its supervisor knew nothing of the cancel.
        let run =
            "trap 'exit 0' TERM; mkdir pids; echo $$ > pids/main; while :; do sleep 0.02; done";
        let job_id = server.submit(home.job(run), json!({}));
        let main = home.pids(1)[0];
        let supervisor = home.supervisor(&job_id);
        damage(&home.job_dir(&job_id).join("supervisor.pid"));
        assert_eq!(server.cancel(&job_id, false).ok()["status"], "cancelled");
        assert!(!alive(main));
        wait_until("the supervisor has ended", || !alive(supervisor));
        assert_eq!(server.poll(&job_id)["status"], "cancelled");
    }
}

/// The process that has the pid of a dead supervisor may be one of the same job. SIGUSR1 would end it.
#[test]
fn process_with_the_pid_of_a_supervisor_is_no_supervisor() {
    let (home, mut server) = Server::in_new_home();
    let run = "trap 'echo got > usr1' USR1; mkdir pids; echo $$ > pids/main; while :; do sleep 0.02; done";
    let job_id = server.submit(home.job(run), json!({}));
    let main = home.pids(1)[0];
    kill_9(home.supervisor(&job_id));
    fs::write(
        home.job_dir(&job_id).join("supervisor.pid"),
        main.to_string(),
    )
    .unwrap();
    assert_eq!(server.cancel(&job_id, false).ok()["status"], "cancelled");
    assert!(!alive(main) && !home.project().join("usr1").exists());
}

/// Kills a job with all its processes, so that nothing tells how it ended.
fn lose(home: &Home, server: &mut Server) -> String {
    let job_id = server.submit(
        home.job("rm -rf pids; mkdir pids; echo $$ > pids/main; exec sleep 300"),
        json!({}),
    );
    let main = pid(home.pids(1)[0]).unwrap();
    kill_9(home.supervisor(&job_id));
    kill_process(main, Signal::KILL).unwrap();
    wait_until("it reads as lost", || {
        server.poll(&job_id)["status"] == "lost"
    });
    job_id
}

#[test]
fn lost_job_stays_lost() {
    let (home, mut server) = Server::in_new_home();
    let job_id = lose(&home, &mut server);
    for name in ["", "output.log", "supervisor.pid"] {
        let _ = fs::remove_file(home.job_dir(&job_id).join(name));
        for force in [false, true] {
            assert!(server.cancel(&job_id, force).refused().contains("`lost`"));
        }
        assert_eq!(server.poll(&job_id)["status"], "lost", "without {name}");
    }
}

#[test]
fn job_of_another_machine_is_not_lost() {
    let (home, mut server) = Server::in_new_home();
    let job_id = lose(&home, &mut server);
    let lock = home.job_dir(&job_id).join("lock");
    let here: Value = serde_json::from_slice(&fs::read(&lock).unwrap()).unwrap();
    let log = fs::File::options().append(true).open(home.log(&job_id));
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    for (key, is_silent, is_done) in [
        ("boot", false, true),
        ("pid_namespace", false, false),
        ("pid_namespace", true, true),
        ("host", true, false),
    ] {
        let written = if is_silent {
            long_ago
        } else {
            SystemTime::now()
        };
        log.as_ref().unwrap().set_modified(written).unwrap();
        let mut there = here.clone();
        there[key] = json!("other");
        fs::write(&lock, there.to_string()).unwrap();
        let status = server.poll(&job_id);
        assert_eq!(
            (&status["status"], &status["is_done"]),
            (&json!("unknown"), &json!(is_done)),
            "{key}"
        );
        let error = server.cancel(&job_id, true).refused().to_owned();
        assert_eq!(error.contains("not known here"), !is_done, "{error}");
        assert_eq!(server.poll(&job_id)["status"], "unknown");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn process_that_holds_the_lock_keeps_the_job_running() {
    let (home, mut server) = Server::in_new_home();
    let run = "mkdir pids; (env -i setsid bash -c 'echo $$ > pids/stranger; exec sleep 300' &); sleep 300";
    let job_id = server.submit(home.job(run), json!({}));
    let stranger = home.pids(1)[0];
    let supervisor = home.supervisor(&job_id);
    let main = crate::support::children(supervisor)
        .into_iter()
        .find(|child| *child != stranger);
    kill_9(supervisor);
    kill_9(main.unwrap());
    assert_eq!(server.poll(&job_id)["status"], "running");
    kill_process(pid(stranger).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn job_without_a_record_keeps_its_secrets() {
    let (home, mut server) = Server::in_new_home();
    let envs = json!({ "envs": { "MINE": "correct-horse-battery" } });
    let job_id = server.submit(home.job("echo \"is $MINE\"; sleep 300"), envs);
    wait_until("it prints", || server.log(&job_id).starts_with("is "));
    fs::remove_file(home.registry()).unwrap();
    let log = server.log(&job_id);
    assert!(log.starts_with("is ") && !log.contains("horse"), "{log}");
}
