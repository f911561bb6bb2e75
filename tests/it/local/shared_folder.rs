//! Several servers, or several calls at once, on one data folder: nothing is lost, nothing is there twice.

use std::collections::HashSet;

use serde_json::json;

use crate::support::Home;
use crate::support::client::Server;

fn ids(home: &Home) -> Vec<String> {
    let records = home.records();
    let ids = records
        .iter()
        .map(|record| record["job_id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[test]
fn two_servers_twenty_submissions() {
    let home = Home::new();
    let config = home.job("echo $OUMI_MCP_JOB_DIR");
    let mut servers = [Server::start(&home), Server::start(&home)];
    let mut sent = Vec::new();
    for _ in 0..10 {
        for (at, server) in servers.iter_mut().enumerate() {
            let arguments = server.launch(config, json!({}));
            sent.push((at, server.send("run_job", arguments)));
        }
    }
    let mut submitted = HashSet::new();
    for (at, call) in sent {
        let answer = servers[at].answer("run_job", call).ok();
        submitted.insert(answer["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(submitted.len(), 20);
    let recorded = ids(&home);
    assert_eq!(recorded.len(), 20, "{recorded:?}");
    assert_eq!(recorded.into_iter().collect::<HashSet<_>>(), submitted);
    for server in &mut servers {
        let (listed, answer) = server.list("all");
        assert_eq!(listed.len(), 20);
        assert_eq!(listed.into_iter().collect::<HashSet<_>>(), submitted);
        assert_eq!(answer["warnings"], json!([]));
    }
    // Each is a job of its own, and each server answers for those of the other.
    for job_id in &submitted {
        for server in &mut servers {
            assert_eq!(server.wait_done(job_id)["status"], "completed");
            assert_eq!(
                server.log(job_id),
                home.job_dir(job_id).display().to_string()
            );
        }
    }
}

#[test]
fn one_server_ten_submissions() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    let calls: Vec<u64> = (0..10)
        .map(|_| server.send_run(config, json!({})))
        .collect();
    let mut submitted = HashSet::new();
    for call in calls {
        let answer = server.answer("run_job", call).ok();
        submitted.insert(answer["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(submitted.len(), 10);
    assert_eq!(ids(&home).into_iter().collect::<HashSet<_>>(), submitted);
    for job_id in &submitted {
        assert_eq!(server.wait_done(job_id)["status"], "completed");
    }
}

#[test]
fn used_name_is_free_once_its_job_is_over() {
    let home = Home::new();
    let first = home.job("while [ ! -e go ]; do sleep 0.05; done; echo first");
    let mut server = Server::start(&home);
    let mut other = Server::start(&home);
    server.submit(first, json!({ "job_name": "dup" }));
    let before = home.records();
    let second = home.job("echo second");
    for server in [&mut server, &mut other] {
        for more in [
            json!({ "job_name": "/dup" }),
            json!({ "job_name": "dup", "dry_run": true }),
        ] {
            let answer = server.run(second, more);
            let error = answer.refused();
            assert!(
                error.contains("\"dup\"") && error.contains("poll_status"),
                "{error}"
            );
            assert_eq!(answer["status"], "error");
        }
    }
    assert_eq!(home.records(), before);
    home.write("go", "");
    assert_eq!(server.wait_done("dup")["status"], "completed");
    for job_id in ["dup-2", "dup-3"] {
        let answer = other.run(second, json!({ "job_name": "dup" })).ok();
        assert_eq!(answer["job_id"], job_id);
        assert!(answer["warnings"][0].as_str().unwrap().contains(job_id));
        other.wait_done(job_id);
    }
    assert_eq!(other.log("dup"), "first");
    assert_eq!(server.log("dup-2"), "second");
}

#[test]
fn one_name_at_two_servers_is_one_job() {
    let home = Home::new();
    // It goes on until all are answered.
    let config = home.job("echo $$ >> started; while [ ! -e go ]; do sleep 0.02; done");
    let mut servers = [Server::start(&home), Server::start(&home)];
    for round in 0..5 {
        let name = format!("dup{round}");
        let calls = [0, 1, 0, 1].map(|at| {
            let server = &mut servers[at];
            let arguments = server.launch(config, json!({ "job_name": name }));
            (at, server.send("run_job", arguments))
        });
        let answers = calls.map(|(at, call)| servers[at].answer("run_job", call));
        assert_eq!(answers.iter().filter(|answer| !answer.is_error).count(), 1);
        for refused in answers.iter().filter(|answer| answer.is_error) {
            assert!(refused.refused().contains(&name));
        }
        let go = home.write("go", "");
        servers[0].wait_done(&name);
        std::fs::remove_file(go).unwrap();
        assert_eq!(home.read("started").lines().count(), round + 1);
    }
}

#[test]
fn cancel_through_another_server() {
    let (home, mut server) = Server::in_new_home();
    let mut other = Server::start(&home);
    let job_id = server.submit(home.job("sleep 300"), json!({}));
    assert_eq!(other.cancel(&job_id, false).ok()["status"], "cancelled");
    assert_eq!(server.poll(&job_id)["status"], "cancelled");
}

#[test]
fn locked_registry_fails_only_the_submission() {
    let home = Home::new();
    let config = home.job("true");
    let mut server = Server::start(&home);
    server.submit(config, json!({ "job_name": "first" }));
    let lock = std::fs::File::open(home.data().join("oumi-jobs.lock")).unwrap();
    lock.lock().unwrap();
    let call = server.send_run(config, json!({ "job_name": "second" }));
    // A look needs no lock.
    assert_eq!(server.list("all").0, ["first"]);
    assert_eq!(server.wait_done("first")["status"], "completed");
    let answer = server.answer("run_job", call);
    assert!(answer.refused().contains("oumi-jobs.lock"), "{answer}");
    drop(lock);
    assert_eq!(server.list("all").0, ["first"]);
    server.submit(config, json!({ "job_name": "second" }));
    assert_eq!(server.wait_done("second")["status"], "completed");
}
