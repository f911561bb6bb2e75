//! Jobs outlive the server, whatever ends it; and the server ends when it should.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process_group};
use serde_json::json;

use crate::support::client::{Server, command_of};
use crate::support::{
    Home, SOON, alive, children, copy_program, executable, in_one_of_three, kill_9, pid, wait_until,
};

/// Goes on until the test says so.
const WAITS: &str = "mkdir pids; echo $$ > pids/main; echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended";

fn waiting_job(home: &Home, server: &mut Server) -> String {
    let job_id = server.submit(home.job(WAITS), json!({}));
    wait_until("it says something", || server.log(&job_id) == "begun");
    job_id
}

/// The job goes on, is seen by another server, and ends there as it should.
fn goes_on(home: &Home, job_id: &str) {
    assert!(alive(home.pids(1)[0]));
    let mut server = Server::start(home);
    let status = server.poll(job_id);
    assert_eq!(
        (&status["status"], &status["state"]),
        (&json!("running"), &json!("RUNNING"))
    );
    assert_eq!(server.list("running").0, [job_id]);
    assert_eq!(server.log(job_id), "begun");
    home.write("go", "");
    assert_eq!(server.wait_done(job_id)["status"], "completed");
    assert_eq!(server.log(job_id), "begun\nended");
}

#[test]
fn status_and_logs_survive() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    server.kill_9();
    goes_on(&home, &job_id);
}

#[test]
fn job_survives_end_of_input() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    server.close_stdin();
    assert_eq!(server.wait_exit().0.code(), Some(0));
    goes_on(&home, &job_id);
}

#[test]
fn job_survives_sigterm() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().0.code(), Some(0));
    goes_on(&home, &job_id);
}

#[test]
fn job_survives_kill_of_the_process_group() {
    for signal in [Signal::TERM, Signal::KILL, Signal::HUP, Signal::INT] {
        let (home, mut server) = Server::in_new_home();
        let job_id = waiting_job(&home, &mut server);
        kill_process_group(pid(server.id()).unwrap(), signal).unwrap();
        // The tests may run where SIGHUP is ignored.
        server.kill_9();
        goes_on(&home, &job_id);
    }
}

#[test]
fn cancel_after_a_kill() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    server.kill_9();
    let mut server = Server::start(&home);
    assert_eq!(server.cancel(&job_id, false).ok()["status"], "cancelled");
    assert!(!alive(home.pids(1)[0]));
}

#[test]
fn cancelled_survives() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    server.cancel(&job_id, false).ok();
    server.kill_9();
    let mut server = Server::start(&home);
    let status = server.poll(&job_id);
    assert_eq!(
        (&status["status"], &status["state"]),
        (&json!("cancelled"), &json!("CANCELLED"))
    );
    assert_eq!(server.list("completed").1["jobs"][0]["status"], "cancelled");
}

#[test]
fn end_without_a_server_is_recorded() {
    let (home, mut server) = Server::in_new_home();
    let failing = server.submit(
        home.job("while [ ! -e go ]; do sleep 0.05; done; exit 9"),
        json!({}),
    );
    let succeeding = waiting_job(&home, &mut server);
    server.kill_9();
    home.write("go", "");
    let supervisors = [home.supervisor(&failing), home.supervisor(&succeeding)];
    wait_until("both have ended", || {
        !supervisors.iter().any(|supervisor| alive(*supervisor))
    });
    let mut server = Server::start(&home);
    let status = server.poll(&failing);
    assert_eq!(
        (&status["status"], &status["metadata"]["exit_code"]),
        (&json!("failed"), &json!(9))
    );
    assert_eq!(server.poll(&succeeding)["status"], "completed");
}

#[test]
fn cancel_survives_its_server() {
    let (home, mut server) = Server::in_new_home();
    let run = "trap 'echo > heard; sleep 0.5; exit 0' TERM; mkdir pids; echo $$ > pids/main; while :; do sleep 0.05; done";
    let job_id = server.submit(home.job(run), json!({}));
    home.pids(1);
    server.send("cancel_job", json!({ "job_id": job_id }));
    wait_until("the job hears of it", || {
        home.project().join("heard").exists()
    });
    server.kill_9();
    let mut server = Server::start(&home);
    assert_eq!(server.wait_done(&job_id)["status"], "cancelled");
}

#[test]
fn killed_supervisor_gives_running_then_lost() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    kill_9(home.supervisor(&job_id));
    assert_eq!(server.poll(&job_id)["status"], "running");
    assert_eq!(server.list("running").0, [job_id.as_str()]);
    server.kill_9();
    let mut server = Server::start(&home);
    assert_eq!(server.poll(&job_id)["status"], "running");

    home.write("go", "");
    let status = server.wait_done(&job_id);
    assert_eq!(
        (&status["status"], &status["state"]),
        (&json!("lost"), &json!("UNKNOWN"))
    );
    assert_eq!(status["is_done"], true);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("how it ended is not known")
    );
    assert_eq!(server.log(&job_id), "begun\nended");
    assert_eq!(server.list("completed").0, [job_id.as_str()]);
    // It is not taken for one that was cancelled either.
    let answer = server.cancel(&job_id, true);
    assert!(answer.refused().contains("`lost`"));
    assert_eq!(server.poll(&job_id)["status"], "lost");
}

#[test]
#[cfg(target_os = "linux")]
fn detached_grandchild_counts_as_running() {
    let (home, mut server) = Server::in_new_home();
    let run = r#"mkdir pids
setsid bash -c 'for n in 3 4 5 6 7 8 9 10 11 12; do eval "exec $n>&-"; done; echo $$ > pids/left; exec sleep 300' </dev/null >/dev/null 2>&1 &
echo $$ > pids/main
sleep 300"#;
    let job_id = server.submit(home.job(run), json!({}));
    home.pids(2);
    let pid_in = |name: &str| -> u32 { home.read(&format!("pids/{name}")).trim().parse().unwrap() };
    let (left, main) = (pid_in("left"), pid_in("main"));
    kill_9(home.supervisor(&job_id));
    // Its child `sleep` holds the lock until it is gone too: end the whole session but the one that left it.
    kill_9(main);
    let of_main = |process: &sysinfo::Process| {
        process
            .environ()
            .iter()
            .any(|entry| entry.to_string_lossy().contains(&job_id))
            && process.pid().as_u32() != left
    };
    let mut system = sysinfo::System::new().unwrap();
    system.refresh_processes_specifics(
        sysinfo::ProcessesToUpdate::All,
        true,
        sysinfo::ProcessRefreshKind::nothing()
            .without_tasks()
            .with_environ(sysinfo::UpdateKind::Always),
    );
    for process in system
        .processes()
        .values()
        .filter(|process| of_main(process))
    {
        kill_9(process.pid().as_u32());
    }
    assert_eq!(server.poll(&job_id)["status"], "running");
    kill_9(left);
    let status = server.poll(&job_id);
    assert_eq!(
        (&status["status"], &status["is_done"]),
        (&json!("lost"), &json!(true))
    );
}

#[test]
fn supervisor_ignores_cleanup_signals() {
    let (home, mut server) = Server::in_new_home();
    let job_id = waiting_job(&home, &mut server);
    let supervisor = home.supervisor(&job_id);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        rustix::process::kill_process(pid(supervisor).unwrap(), signal).unwrap();
    }
    home.write("go", "");
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
}

#[test]
fn server_does_not_end_with_its_calls() {
    let run = "trap '' TERM; mkdir pids; echo $$ > pids/main; while :; do sleep 0.1; done";
    for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
        for busy in [false, true] {
            let (home, mut server) = Server::in_new_home();
            if busy {
                // A call under way that takes ten seconds.
                let job_id = server.submit(home.job(run), json!({}));
                home.pids(1);
                server.send("cancel_job", json!({ "job_id": job_id }));
                let asked = home.job_dir(&job_id).join("terminate-requested");
                wait_until("the cancel is under way", || asked.exists());
            }
            let begun = Instant::now();
            match signal {
                Some(signal) => server.signal(signal),
                None => server.close_stdin(),
            }
            let (status, _) = server.wait_exit();
            let took = begun.elapsed();
            assert!(took < SOON, "{signal:?}, busy {busy}: {took:?}");
            assert_eq!(status.code(), Some(0), "{signal:?}, busy {busy}");
        }
    }
}

#[test]
fn a_cancel_that_died_with_its_supervisor_is_shown_and_can_be_repeated() {
    let (home, mut server) = Server::in_new_home();
    let run =
        "trap '' TERM; mkdir pids; echo $$ > pids/main; while [ ! -e go ]; do sleep 0.05; done";
    for forced in [true, false] {
        let job_id = server.submit(home.job(run), json!({}));
        let main = home.pids(1)[0];
        kill_9(home.supervisor(&job_id));
        // As a server leaves it that dies right after it wrote the request.
        std::fs::write(home.job_dir(&job_id).join("terminate-requested"), "").unwrap();
        let status = server.poll(&job_id);
        assert_eq!(status["status"], "running");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("asked to stop"), "{message}");
        if forced {
            assert_eq!(server.cancel(&job_id, true).ok()["status"], "cancelled");
        } else {
            home.write("go", "");
            wait_until("it ends by itself", || !alive(main));
        }
        assert!(!alive(main));
        assert_eq!(server.wait_done(&job_id)["status"], "cancelled");
        std::fs::remove_dir_all(home.project().join("pids")).unwrap();
    }
}

/// Its handlers are installed before its pid can be read.
#[test]
fn a_supervisor_survives_a_signal_at_once() {
    let home = Home::new();
    // Until it has had its signal.
    let config = home.job("while [ ! -e go ]; do sleep 0.02; done");
    let mut server = Server::start(&home);
    for at in 0..10 {
        let name = format!("job{at}");
        let arguments = server.launch(config, json!({ "job_name": name }));
        let recorded = home.job_dir(&name).join("supervisor.pid");
        let signalling = std::thread::spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(30);
            while Instant::now() < deadline {
                let text = std::fs::read_to_string(&recorded).unwrap_or_default();
                if let Some(supervisor) = text.parse().ok().and_then(pid) {
                    return rustix::process::kill_process(supervisor, Signal::USR1).is_ok();
                }
            }
            false
        });
        server.call("run_job", arguments).ok();
        assert!(signalling.join().unwrap());
        let go = home.write("go", "");
        assert_eq!(server.wait_done(&name)["status"], "completed");
        std::fs::remove_file(go).unwrap();
    }
}

#[test]
fn last_submission_runs() {
    let home = Home::new();
    let config = home.job("echo ran");
    in_one_of_three("it is answered", |at| {
        let name = format!("last{at}");
        let mut server = Server::start(&home);
        let call = server.send_run(config, json!({ "job_name": name }));
        server.close_stdin();
        let answer = server.answer_if_any(call);
        assert_eq!(server.wait_exit().0.code(), Some(0));
        answer.is_some_and(|answer| {
            answer.ok();
            let mut server = Server::start(&home);
            assert_eq!(server.wait_done(&name)["status"], "completed");
            assert_eq!(server.log(&name), "ran");
            true
        })
    });
}

#[test]
fn kill_during_launch_loses_no_running_job() {
    let home = Home::new();
    // Any instant will do, whatever has happened by then; the last is when it runs.
    let instants = (0..20).map(|at| Some(Duration::from_millis(2 * at)));
    for (at, instant) in instants.chain([None]).enumerate() {
        let name = format!("job{at}");
        let config = home.job(&format!("touch {name}; sleep 0.1"));
        let mut server = Server::start(&home);
        server.send_run(config, json!({ "job_name": name }));
        let ran = || home.project().join(&name).exists();
        match instant {
            Some(instant) => std::thread::sleep(instant),
            None => wait_until("it runs", ran),
        }
        server.kill_9();
        let mut server = Server::start(&home);
        if server.list("all").0.contains(&name) {
            let status = server.wait_done(&name);
            // Between its plan and its start nothing tells whether it began.
            let expected: &[&str] = if ran() {
                &["completed"]
            } else {
                &["failed", "lost"]
            };
            let word = status["status"].as_str().unwrap();
            assert!(
                expected.contains(&word),
                "killed at {instant:?}: {:#}",
                status.content
            );
        } else {
            assert!(!ran(), "killed at {instant:?}");
            // Nothing of it is in the way of another try.
            server.submit(config, json!({ "job_name": name }));
            assert_eq!(server.wait_done(&name)["status"], "completed");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn upgrade_under_a_running_server() {
    let home = Home::new();
    let program = home.root().join("oumi-mcp-server");
    copy_program(Path::new(env!("CARGO_BIN_EXE_oumi-mcp-server")), &program);
    let mut server = Server::spawn(&home, command_of(&home, &program));
    std::fs::remove_file(&program).unwrap();
    executable(&program, "#!/bin/sh\nexit 1\n");
    let job_id = server.submit(home.job("echo ran"), json!({}));
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
}

#[test]
#[cfg(target_os = "linux")]
fn no_process_or_file_is_leaked() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    let open_files = |server: &Server| {
        let folder = format!("/proc/{}/fd", server.id());
        std::fs::read_dir(folder).unwrap().count()
    };
    let job_id = server.submit(config, json!({}));
    server.wait_done(&job_id);
    let before = open_files(&server);
    let sleeping = server.submit(home.job("sleep 300"), json!({}));
    // The supervisor before it ends only after it has recorded the end of its job.
    wait_until("one supervisor is its child", || {
        children(server.id()).len() == 1
    });
    server.cancel(&sleeping, false).ok();
    home.job("true");
    for _ in 0..10 {
        let job_id = server.submit(config, json!({}));
        server.wait_done(&job_id);
        server.log(&job_id);
        server.cancel(&job_id, false);
        server.list("all");
    }
    wait_until("its children are reaped", || {
        children(server.id()).is_empty()
    });
    wait_until("its files are closed", || open_files(&server) <= before);
}

#[test]
fn pending_call_is_answered_at_end_of_input() {
    let run = "trap 'sleep 0.3; exit 0' TERM; mkdir pids; echo $$ > pids/main; while :; do sleep 0.05; done";
    in_one_of_three("it is answered", |_| {
        let (home, mut server) = Server::in_new_home();
        let job_id = server.submit(home.job(run), json!({}));
        home.pids(1);
        let call = server.send("cancel_job", json!({ "job_id": job_id }));
        let asked = home.job_dir(&job_id).join("terminate-requested");
        wait_until("the cancel is under way", || asked.exists());
        server.close_stdin();
        let answer = server.answer_if_any(call);
        answer.is_some_and(|answer| {
            assert_eq!(answer.ok()["status"], "cancelled");
            true
        })
    });
}

#[test]
fn time_limit_ends_the_whole_tree_without_a_server() {
    let (home, mut server) = Server::in_new_home();
    let run = "mkdir pids; setsid sh -c 'echo $$ > pids/escaped; exec sleep 300' & echo $$ > pids/main; \
               trap 'until [ -e saved ]; do sleep 0.1; done; exit' TERM; sleep 300 & wait";
    let job_id = server.submit(home.job(run), json!({ "max_hours": 0.0011 }));
    let pids = home.pids(2);
    server.kill_9();
    let mut server = Server::start(&home);
    wait_until("it is said to be saving", || {
        let status = server.poll(&job_id);
        let message = status["message"].as_str().unwrap();
        message.contains("limit has passed") && message.contains("may be saving")
    });
    home.write("saved", "");
    wait_until("nothing of it is left", || {
        !pids.iter().any(|pid| alive(*pid))
    });
    let status = server.wait_done(&job_id);
    assert_eq!(status["state"], "FAILED");
    assert_eq!(status["failure"]["cause"], "time_limit", "{status}");
    // The shell may add that its `sleep` was ended before it is ended itself.
    let log = server.log(&job_id);
    assert_eq!(log.lines().next(), Some("time limit: ended after 0.0011 h"));
}
