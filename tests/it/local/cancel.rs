//! The cancel of a job: the whole tree of its processes ends, or the answer says what is left.

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::support::client::{Answer, Server};
use crate::support::{Home, alive, kill_9, pid, wait_until};

/// The shape of torchrun: workers in sessions of their own with children, and what lost its parent: 7 processes.
#[cfg(target_os = "linux")]
const TREE: &str = r#"
mkdir pids
cat > worker.sh <<'END'
echo $$ > pids/worker$1
sleep 300 &
echo $! > pids/child$1
wait
END
setsid bash worker.sh 1 &
setsid bash worker.sh 2 &
(setsid sleep 300 & echo $! > pids/orphan)
# It knows nothing of the job any more: no environment, no open files, no parent.
(env -i setsid bash -c 'for n in 3 4 5 6 7 8 9 10 11 12; do eval "exec $n>&-"; done; echo $$ > pids/stranger; exec sleep 300' </dev/null >/dev/null 2>&1 &)
echo $$ > pids/main
wait
"#;

fn is_cancelled(answer: &Answer) {
    assert_eq!(
        (&answer["status"], &answer["state"]),
        (&json!("cancelled"), &json!("CANCELLED"))
    );
    assert_eq!(answer["is_done"], true);
}

#[test]
#[cfg(target_os = "linux")]
fn kills_descendants() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job(TREE), json!({}));
    let pids = home.pids(7);
    assert!(pids.iter().all(|pid| alive(*pid)));
    let answer = server.cancel(&job_id, false).ok();
    let left: Vec<&u32> = pids.iter().filter(|pid| alive(**pid)).collect();
    is_cancelled(&answer);
    assert!(left.is_empty(), "{left:?} of {pids:?}");
    is_cancelled(&server.poll(&job_id));
    wait_until("the supervisor has ended too", || {
        !alive(home.supervisor(&job_id))
    });
}

#[test]
#[cfg(target_os = "linux")]
fn force_kills_a_tree_ignoring_sigterm() {
    let (home, mut server) = Server::in_new_home();
    let deaf = TREE.replace("setsid bash worker", "trap '' TERM; setsid bash worker");
    let job_id = server.submit(home.job(&deaf), json!({}));
    let pids = home.pids(7);
    is_cancelled(&server.cancel(&job_id, true).ok());
    assert!(!pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn ignoring_sigterm_is_stopping_until_forced() {
    let (home, mut server) = Server::in_new_home();
    let run = "trap '' TERM; mkdir pids; sleep 300 & echo $! > pids/child; echo $$ > pids/main; wait; wait; sleep 300";
    let job_id = server.submit(home.job(run), json!({}));
    let pids = home.pids(2);
    let call = server.send("cancel_job", json!({ "job_id": job_id }));
    // Other calls do not wait for it.
    for _ in 0..20 {
        assert_eq!(server.poll(&job_id)["status"], "running");
        server.list("all");
    }
    let answer = server.answer("cancel_job", call).ok();
    assert_eq!(
        (&answer["status"], &answer["state"]),
        (&json!("running"), &json!("RUNNING"))
    );
    assert_eq!(answer["is_done"], false);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("2 processes are still there"), "{message}");
    assert!(message.contains("force=true"), "{message}");
    assert!(pids.iter().all(|pid| alive(*pid)));

    let status = server.poll(&job_id);
    assert_eq!(status["status"], "running");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("asked to stop")
    );
    is_cancelled(&server.cancel(&job_id, true).ok());
    assert!(!pids.iter().any(|pid| alive(*pid)));
    is_cancelled(&server.poll(&job_id));
}

#[test]
fn job_has_time_to_save() {
    let (home, mut server) = Server::in_new_home();
    let run = "trap 'sleep 0.5 && echo saved; exit 0' TERM; mkdir pids; echo $$ > pids/main; while :; do sleep 0.05; done";
    let job_id = server.submit(home.job(run), json!({}));
    home.pids(1);
    is_cancelled(&server.cancel(&job_id, false).ok());
    assert!(server.log(&job_id).ends_with("saved"));
    // It exited with 0, but because of SIGTERM.
    is_cancelled(&server.poll(&job_id));
}

#[test]
#[cfg(target_os = "linux")]
fn ranks_save_beside_a_process_that_is_deaf_to_sigterm() {
    let (home, mut server) = Server::in_new_home();
    let rank = "import os, signal, sys, time\n\
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.mkdir('saved')))\n\
                os.write(os.open('pids/rank', os.O_CREAT | os.O_WRONLY), b'%d\\n' % os.getpid())\n\
                while True: time.sleep(0.05)\n";
    home.write("rank.py", rank);
    let run = "mkdir pids; (trap '' TERM; echo $BASHPID > pids/deaf; while :; do sleep 0.05; done) & \
               python3 -c 'import subprocess; subprocess.run([\"python3\", \"rank.py\"])'";
    let job_id = server.submit(home.job(run), json!({}));
    home.pids(2);
    server.cancel(&job_id, false);
    assert!(home.project().join("saved").exists());
    is_cancelled(&server.cancel(&job_id, true).ok());
}

#[test]
#[cfg(target_os = "linux")]
fn processes_started_on_sigterm_are_killed() {
    let (home, mut server) = Server::in_new_home();
    let run = "mkdir pids; trap 'setsid sleep 300 & echo $! > pids/new; exit 0' TERM; echo $$ > pids/main; \
               while :; do sleep 0.05; done";
    let job_id = server.submit(home.job(run), json!({}));
    home.pids(1);
    is_cancelled(&server.cancel(&job_id, false).ok());
    assert!(!home.pids(2).iter().any(|pid| alive(*pid)));
}

#[test]
#[cfg(target_os = "linux")]
fn forking_process_is_caught() {
    let (home, mut server) = Server::in_new_home();
    // Each starts the next and is gone, so that a list of processes is old before it is read.
    home.write(
        "hop.sh",
        "echo $1 >> hops; [ $1 = 0 ] || sh hop.sh $(($1 - 1)) &\n",
    );
    let run = "trap '' TERM; sh hop.sh 200; trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done";
    let job_id = server.submit(home.job(run), json!({}));
    wait_until("it hops", || home.project().join("ready").exists());
    server.cancel(&job_id, false).ok();
    is_cancelled(&server.wait_done(&job_id));
    assert_eq!(home.read("hops").lines().last(), Some("0"));
}

#[test]
fn stopped_job_is_cancelled() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(
        home.job("mkdir pids; echo $$ > pids/main; kill -STOP $$; sleep 300"),
        json!({}),
    );
    home.pids(1);
    is_cancelled(&server.cancel(&job_id, false).ok());
}

#[test]
fn during_setup_prevents_run() {
    let home = Home::new();
    home.write(
        "job.yaml",
        "setup: mkdir pids; echo $$ > pids/setup; sleep 300\nrun: touch started\n",
    );
    let mut server = Server::start(&home);
    let job_id = server.submit("job.yaml", json!({}));
    home.pids(1);
    is_cancelled(&server.cancel(&job_id, false).ok());
    assert!(!home.project().join("started").exists());
}

#[test]
fn finished_job_is_refused_with_its_status() {
    let (home, mut server) = Server::in_new_home();
    for (run, status, state) in [
        ("true", "completed", "SUCCEEDED"),
        ("exit 3", "failed", "FAILED"),
    ] {
        let job_id = server.submit(home.job(run), json!({}));
        server.wait_done(&job_id);
        for force in [false, true] {
            let answer = server.cancel(&job_id, force);
            assert!(
                answer.refused().contains(&format!("`{status}`")),
                "{answer}"
            );
            assert_eq!(
                (&answer["status"], &answer["state"]),
                (&json!(status), &json!(state))
            );
            assert_eq!(answer["is_done"], true);
        }
        assert_eq!(server.poll(&job_id)["status"], status);
    }
}

#[test]
fn second_cancel_is_no_error() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 300"), json!({}));
    is_cancelled(&server.cancel(&job_id, false).ok());
    let again = server.cancel(&job_id, false).ok();
    let message = again["message"].as_str().unwrap();
    assert!(
        message.starts_with("the job was cancelled after"),
        "{message}"
    );
    is_cancelled(&again);
}

#[test]
fn concurrent_cancels_are_both_answered() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 300"), json!({}));
    let asked = json!({ "job_id": job_id });
    let calls = [0, 1].map(|_| server.send("cancel_job", asked.clone()));
    for call in calls {
        is_cancelled(&server.answer("cancel_job", call));
    }
}

#[test]
fn race_with_the_end_gives_one_verdict() {
    let (home, mut server) = Server::in_new_home();
    for pause in ["0", "0.01", "0.02", "0.05", "0.1"] {
        let job_id = server.submit(home.job(&format!("sleep {pause}; echo end")), json!({}));
        let answer = server.cancel(&job_id, false);
        let status = server.wait_done(&job_id);
        assert_eq!(answer["status"], status["status"], "{answer}");
        let ended = server.log(&job_id) == "end";
        // What it was refused with is how it ended.
        assert_eq!(answer.is_error, status["status"] == "completed");
        assert!(ended || status["status"] == "cancelled");
    }
}

#[test]
fn cancel_after_the_end_keeps_the_verdict() {
    let (home, mut server) = Server::in_new_home();
    let run = "mkdir pids; echo $$ > pids/main; while [ ! -e go ]; do sleep 0.05; done; exit 3";
    let job_id = server.submit(home.job(run), json!({}));
    let main = home.pids(1)[0];
    // So that the supervisor comes to see the end and the cancel in one look.
    let supervisor = pid(home.supervisor(&job_id)).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    home.write("go", "");
    wait_until("the job has ended", || !alive(main));
    let call = server.send("cancel_job", json!({ "job_id": job_id }));
    let asked = home.job_dir(&job_id).join("terminate-requested");
    wait_until("the cancel is under way", || asked.exists());
    // The cancel lets it go on as well.
    let _ = kill_process(supervisor, Signal::CONT);
    let answer = server.answer("cancel_job", call);
    assert!(answer.refused().contains("`failed`"), "{answer}");
    let status = server.poll(&job_id);
    assert_eq!(
        (&status["status"], &status["metadata"]["exit_code"]),
        (&json!("failed"), &json!(3))
    );
}

#[test]
#[cfg(target_os = "linux")]
fn works_without_a_supervisor() {
    let (home, mut server) = Server::in_new_home();
    // Who cleared its environment and lost its parent can be found by nobody.
    let tree = TREE.replace("(env -i setsid bash", "(env setsid bash");
    let job_id = server.submit(home.job(&tree), json!({}));
    let pids = home.pids(7);
    kill_9(home.supervisor(&job_id));
    assert_eq!(server.poll(&job_id)["status"], "running");
    let answer = server.cancel(&job_id, false).ok();
    let left: Vec<&u32> = pids.iter().filter(|pid| alive(**pid)).collect();
    is_cancelled(&answer);
    assert!(left.is_empty(), "{left:?} of {pids:?}");
    is_cancelled(&server.poll(&job_id));
}

#[test]
fn reused_pid_is_left_alone() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 300"), json!({}));
    kill_9(home.supervisor(&job_id));
    let mut stranger = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let recorded = home.job_dir(&job_id).join("supervisor.pid");
    std::fs::write(recorded, stranger.id().to_string()).unwrap();
    let answer = server.cancel(&job_id, true).ok();
    let spared = alive(stranger.id());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    is_cancelled(&answer);
    assert!(spared);
}

#[test]
fn other_jobs_are_left_alone() {
    let (home, mut server) = Server::in_new_home();
    let jobs = [0, 1, 2].map(|_| server.submit(home.job("sleep 300"), json!({})));
    is_cancelled(&server.cancel(&jobs[1], true).ok());
    for other in [&jobs[0], &jobs[2]] {
        assert_eq!(server.poll(other)["status"], "running");
    }
}
