//! A job config on this machine, from its start to its end.

use serde_json::json;

use crate::support::Home;
use crate::support::client::Server;

const FULL: &str = r#"
name: full
working_dir: work
envs:
  FROM_CONFIG: config
  FROM_BOTH: config
  A_NUMBER: 3
model: {model_name: tiny}
output_dir: out
setup: |
  echo setup in $PWD
  echo setup on stderr >&2
run: |
  echo run $FROM_CONFIG $FROM_BOTH $FROM_CALLER $A_NUMBER
  echo error 1 >&2
  echo done
"#;

#[test]
fn confirmed_launch_runs() {
    let home = Home::new();
    home.write("job.yaml", FULL);
    std::fs::create_dir(home.project().join("work")).unwrap();
    let mut server = Server::start(&home);
    let envs = json!({ "FROM_BOTH": "caller", "FROM_CALLER": "caller" });
    let launched = server.run("job.yaml", json!({ "envs": envs })).ok();
    let job_id = launched["job_id"].as_str().unwrap().to_owned();
    assert_eq!(launched["launch_confirmed"], true);
    assert_eq!(launched["dry_run"], false);
    assert_eq!(launched["oumi_job_id"], *job_id);
    assert_eq!(launched["warnings"], json!([]));

    let answer = server.wait_done(&job_id);
    assert_eq!(
        (&answer["status"], &answer["state"]),
        (&json!("completed"), &json!("SUCCEEDED"))
    );
    assert!(answer["duration_seconds"].is_u64());
    let log = server.call("get_job_logs", json!({ "job_id": job_id }));
    assert_eq!(log["log_file"], *home.log(&job_id).to_str().unwrap());
    let work = home.project().join("work").display().to_string();
    assert_eq!(
        server.log(&job_id),
        format!("setup in {work}\nsetup on stderr\nrun config caller caller 3\nerror 1\ndone")
    );
    let (ids, listed) = server.list("completed");
    assert_eq!(ids, [job_id.as_str()]);
    assert_eq!(listed["jobs"][0]["status"], "completed");
    assert_eq!(server.list("running").0, [""; 0]);
}

#[test]
fn running_job_has_status_and_log() {
    let home = Home::new();
    let config = home.job("echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended");
    let mut server = Server::start(&home);
    let job_id = server.submit(config, json!({}));
    crate::support::wait_until("it says something", || server.log(&job_id) == "begun");
    let answer = server.poll(&job_id);
    assert_eq!(
        (&answer["status"], &answer["state"]),
        (&json!("running"), &json!("RUNNING"))
    );
    assert_eq!(answer["is_done"], false);
    assert_eq!(server.list("running").0, [job_id.as_str()]);
    assert_eq!(server.list("completed").0, [""; 0]);
    home.write("go", "");
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    assert_eq!(server.log(&job_id), "begun\nended");
}

#[test]
fn working_dir_is_resolved() {
    let home = Home::new();
    let elsewhere = home.root().join("elsewhere");
    for folder in [home.project().join("sub"), elsewhere.clone()] {
        std::fs::create_dir(folder).unwrap();
    }
    let mut server = Server::start(&home);
    for (working_dir, is) in [
        ("sub", home.project().join("sub")),
        ("..", home.root().to_owned()),
        (elsewhere.to_str().unwrap(), elsewhere.clone()),
        ("~/elsewhere", elsewhere.clone()),
        ("~", home.root().to_owned()),
    ] {
        home.write(
            "job.yaml",
            &format!("working_dir: \"{working_dir}\"\nrun: pwd -P"),
        );
        let job_id = server.submit("job.yaml", json!({}));
        server.wait_done(&job_id);
        assert_eq!(
            server.log(&job_id),
            is.display().to_string(),
            "{working_dir}"
        );
    }
}

#[test]
fn failed_job_has_its_exit_code() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("echo oh no >&2; exit 7"), json!({}));
    let answer = server.wait_done(&job_id);
    assert_eq!(
        (&answer["status"], &answer["state"]),
        (&json!("failed"), &json!("FAILED"))
    );
    assert_eq!(answer["metadata"]["exit_code"], 7);
    let message = answer["message"].as_str().unwrap();
    let next = answer["next"].as_str().unwrap();
    assert!(
        message.contains("exit code 7") && next.contains("get_job_logs"),
        "{message} {next}"
    );
    assert_eq!(server.log(&job_id), "oh no");
}

#[test]
fn killed_job_has_its_signal() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("kill -9 $$"), json!({}));
    let answer = server.wait_done(&job_id);
    assert_eq!(answer["status"], "failed");
    assert_eq!(answer["metadata"]["signal"], 9);
    assert!(answer["message"].as_str().unwrap().contains("SIGKILL"));
}

#[test]
fn failed_setup_prevents_run() {
    let home = Home::new();
    home.write(
        "job.yaml",
        "setup: 'echo broken; exit 3'\nrun: touch started",
    );
    let mut server = Server::start(&home);
    let job_id = server.submit("job.yaml", json!({}));
    let answer = server.wait_done(&job_id);
    assert_eq!(answer["status"], "failed");
    assert_eq!(answer["metadata"]["exit_code"], 3);
    assert!(answer["message"].as_str().unwrap().contains("`setup`"));
    assert_eq!(server.log(&job_id), "broken");
    assert!(!home.project().join("started").exists());
}

#[test]
fn stderr_is_in_the_log_in_order() {
    let (home, mut server) = Server::in_new_home();
    let run =
        "for n in 1 2 3; do echo out $n; echo err $n >&2; done; echo 'Traceback: last' >&2; exit 1";
    let job_id = server.submit(home.job(run), json!({}));
    server.wait_done(&job_id);
    assert_eq!(
        server.log(&job_id),
        "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nTraceback: last"
    );
}

#[test]
fn stdin_of_a_job_is_empty() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(
        home.job("cat; echo read $?; readlink /proc/$$/fd/0 || true"),
        json!({}),
    );
    // Every look at the job is something to eat.
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    let log = server.log(&job_id);
    assert!(log.starts_with("read 0"), "{log}");
    if cfg!(target_os = "linux") {
        assert!(log.ends_with("/dev/null"), "{log}");
    }
}

#[test]
fn lookup_by_launcher_id() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("echo x; sleep 300"), json!({}));
    let direct = json!({ "oumi_job_id": job_id, "cloud": "Local" });
    assert_eq!(
        server.call("poll_status", direct.clone()).ok()["job_id"],
        *job_id
    );
    let logs = json!({ "oumi_job_id": job_id, "cloud": "local", "cluster_name": "local" });
    assert_eq!(server.call("get_job_logs", logs).ok()["job_id"], *job_id);
    assert_eq!(server.call("cancel_job", direct).ok()["job_id"], *job_id);
    let unknown = json!({ "oumi_job_id": "17", "cloud": "local" });
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        let answer = server.call(tool, unknown.clone());
        let error = answer.refused();
        assert!(
            error.contains("\"17\"") && error.contains("list_jobs"),
            "{tool}: {error}"
        );
    }
}

#[test]
fn config_envs_that_no_program_can_have_start_nothing() {
    let (home, mut server) = Server::in_new_home();
    home.write("job.yaml", "envs: {A: \"s3cr3t\\0\"}\nrun: echo x");
    let answer = server.run("job.yaml", json!({}));
    assert!(
        answer
            .refused()
            .contains("a NUL character in the value of A")
    );
    assert!(!answer.refused().contains("s3cr3t"));
    assert_eq!(server.list("all").0, [""; 0]);
}

#[test]
fn path_without_a_shell_is_said_to_be_one() {
    let (home, mut server) = Server::in_new_home();
    home.write("job.yaml", "envs: {PATH: \"/opt/x:$PATH\"}\nrun: echo");
    let answer = server.run("job.yaml", json!({}));
    assert!(answer.refused().contains("or PATH lacks it"));
}

#[test]
fn stdout_is_protocol_only() {
    let home = Home::new();
    let noisy = "#!/bin/sh\necho '{\"jsonrpc\": \"oumi\"}'; seq 1 20000; seq 1 20000 >&2; exit 1\n";
    home.program("oumi", noisy);
    home.program("sky", noisy);
    home.write("train.yaml", "model: {model_name: tiny}");
    // The client fails at any other line; the log at trace is the loudest the server can be.
    let mut server = Server::start_with(&home, &[("OUMI_MCP_LOG", "trace")]);
    let training = server.submit("train.yaml", json!({}));
    let job = server.submit(
        home.job("seq 1 20000; cat /dev/stdin; seq 1 20000 > /dev/stderr"),
        json!({}),
    );
    for _ in 0..3 {
        server.list("all");
    }
    assert_eq!(server.wait_done(&training)["status"], "failed");
    assert_eq!(server.wait_done(&job)["status"], "completed");
    assert!(server.log(&job).ends_with("\n20000"));
    assert!(!server.stderr().is_empty());
}
