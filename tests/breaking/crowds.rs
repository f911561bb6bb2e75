//! Many servers, many jobs, many calls, for long: nothing is lost or there twice, and memory and handles stay flat.

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::support::client::Server;
use crate::support::{Home, memory, poll_for, wait_until};
use crate::tools::handles;

/// More than a client waits, for crowds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn write_job(home: &Home, name: &str, run: &str) {
    home.write(
        name,
        &serde_json::to_string(&json!({ "run": run })).unwrap(),
    );
}

/// Waits longer than the other tests do.
fn patiently(what: &str, mut is_so: impl FnMut() -> bool) {
    poll_for(PATIENCE, || {
        if is_so() {
            Ok(())
        } else {
            Err(what.to_owned())
        }
    });
}

/// What is known of a process's size.
fn size(server: &Server) -> (u64, usize) {
    (
        memory(server.id(), "VmRSS").unwrap_or(0),
        handles(server.id()).unwrap_or(0),
    )
}

/// It has no more handles than before, and its memory has not grown by more than this many kB.
#[track_caller]
fn is_flat(server: &Server, before: (u64, usize), growth: u64) {
    let mut now = size(server);
    wait_until("the handles are given back", || {
        now = size(server);
        now.1 <= before.1
    });
    println!("before {before:?}, now {now:?} (kB, handles)");
    assert!(
        now.0 <= before.0 + growth,
        "{} kB grew to {} kB",
        before.0,
        now.0
    );
}

/// Servers that share a folder submit jobs and cancel each other's.
fn shared_by(servers: usize, calls: usize) {
    let home = Home::new();
    fs::create_dir(home.project().join("ran")).unwrap();
    write_job(
        &home,
        "short.yaml",
        "echo ran >> ran/${OUMI_MCP_JOB_DIR##*/}",
    );
    write_job(
        &home,
        "long.yaml",
        "echo ran >> ran/${OUMI_MCP_JOB_DIR##*/}; sleep 3000 & wait",
    );
    let running: Mutex<Vec<String>> = Mutex::default();
    let submitted: Mutex<HashSet<String>> = Mutex::default();
    let cancelled: Mutex<HashSet<String>> = Mutex::default();
    let mut chance = Chance::new("shared");
    let seeds: Vec<u64> = (0..servers).map(|_| chance.next()).collect();
    std::thread::scope(|scope| {
        for seed in seeds {
            let (home, running, submitted, cancelled) = (&home, &running, &submitted, &cancelled);
            scope.spawn(move || {
                let mut server = Server::start(home);
                let mut chance = Chance::seeded(seed);
                for _ in 0..calls / servers {
                    let to_cancel = if chance.one_in(2) {
                        let mut running = running.lock().unwrap();
                        let count = running.len();
                        (count > 0).then(|| running.swap_remove(chance.below(count)))
                    } else {
                        None
                    };
                    if let Some(job_id) = to_cancel {
                        let answer = server.cancel(&job_id, false).ok();
                        assert_eq!(answer["status"], "cancelled", "{answer}");
                        assert!(cancelled.lock().unwrap().insert(job_id));
                    } else {
                        let is_long = chance.one_in(2);
                        let config = if is_long { "long.yaml" } else { "short.yaml" };
                        let job_id = server.submit(config, json!({}));
                        assert!(
                            submitted.lock().unwrap().insert(job_id.clone()),
                            "{job_id} twice"
                        );
                        if is_long {
                            // Once it has begun, so that it can be counted.
                            let note = home.project().join("ran").join(&job_id);
                            // The note is there a moment before anything stands in it.
                            wait_until("it runs", || {
                                fs::read(&note).is_ok_and(|note| !note.is_empty())
                            });
                            running.lock().unwrap().push(job_id);
                        }
                    }
                }
            });
        }
    });
    let (submitted, cancelled) = (
        submitted.into_inner().unwrap(),
        cancelled.into_inner().unwrap(),
    );
    // Nobody has listed yet, so that nothing was pruned.
    let records = home.records();
    let recorded: HashSet<String> = records
        .iter()
        .map(|record| record["job_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(recorded.len(), records.len(), "one is there twice");
    assert_eq!(recorded, submitted);
    let mut server = Server::start(&home);
    for job_id in running.into_inner().unwrap() {
        assert_eq!(server.poll(&job_id)["status"], "running");
        server.cancel(&job_id, true).ok();
    }
    // The oldest beyond 200 that are done are let go when a server starts.
    let mut left: HashSet<String> = HashSet::new();
    patiently("all that is left is done", || {
        let rows = server.list("all").1;
        let rows = rows["jobs"].as_array().unwrap().clone();
        left = rows
            .iter()
            .map(|row| row["job_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(left.len(), rows.len(), "one is listed twice");
        rows.iter().all(|row| row["is_done"] == true)
    });
    assert_eq!(left.len(), submitted.len().min(200));
    for job_id in &submitted {
        let notes = fs::read_to_string(home.project().join("ran").join(job_id)).unwrap();
        assert_eq!(notes.lines().count(), 1, "{job_id}");
    }
    for job_id in left.intersection(&cancelled) {
        assert_eq!(server.poll(job_id)["status"], "cancelled");
    }
    println!(
        "{} submitted, {} cancelled by others, by {servers} servers",
        submitted.len(),
        cancelled.len(),
    );
    drop(server);
    wait_until("no process is left over", || home.running().is_empty());
}

#[test]
fn three_servers_on_one_folder() {
    shared_by(3, 60);
}

#[test]
#[ignore = "takes minutes; cargo test --release --test breaking -- --ignored eight_servers"]
fn eight_servers_on_one_folder() {
    shared_by(8, 1000);
}

/// So many jobs run at a time, are seen to, and are ended.
fn jobs_at_a_time(count: usize) {
    let home = Home::new();
    write_job(
        &home,
        "job.yaml",
        "echo begun; while [ ! -e go ]; do sleep 0.5; done; exit 4",
    );
    let mut server = Server::start(&home);
    server.list("all");
    let before = size(&server);
    let mut ids = Vec::new();
    // As many at once as a client may have under way.
    for chunk in 0..count.div_ceil(20) {
        let sent: Vec<u64> = (0..20.min(count - chunk * 20))
            .map(|_| server.send_run("job.yaml", json!({})))
            .collect();
        for id in sent {
            let answer = server.answer("run_job", id).ok();
            ids.push(answer["job_id"].as_str().unwrap().to_owned());
        }
    }
    let unique: HashSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), count);
    let (listed, _) = server.list("running");
    assert_eq!(listed.len(), count);
    for job_id in ids.iter().step_by(2) {
        assert_eq!(server.cancel(job_id, true).ok()["status"], "cancelled");
    }
    home.write("go", "");
    patiently("all have ended", || server.list("running").0.is_empty());
    for (at, job_id) in ids.iter().enumerate() {
        let word = if at % 2 == 0 { "cancelled" } else { "failed" };
        assert_eq!(server.poll(job_id)["status"], word, "{job_id}");
    }
    is_flat(&server, before, 24 * 1024);
    let own = server.id();
    wait_until("only the server is left", || {
        home.running().iter().all(|pid| *pid == own)
    });
}

#[test]
fn twenty_jobs_at_once() {
    jobs_at_a_time(20);
}

#[test]
#[ignore = "200 jobs at a time; cargo test --release --test breaking -- --ignored two_hundred_jobs"]
fn two_hundred_jobs_at_once() {
    jobs_at_a_time(200);
}

#[test]
fn thousand_concurrent_polls() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 3000 & wait"), json!({}));
    for _ in 0..2 {
        // The second time nothing is made anew.
        let before = size(&server);
        let sent: Vec<u64> = (0..1000)
            .map(|_| server.send("poll_status", json!({ "job_id": job_id })))
            .collect();
        for id in sent {
            assert_eq!(server.answer("poll_status", id).ok()["status"], "running");
        }
        is_flat(&server, before, 48 * 1024);
    }
    server.cancel(&job_id, true).ok();
}

/// A registry that is full, with a job that runs among its records.
fn full_registry(home: &Home) -> Vec<Value> {
    let now = chrono::Utc::now();
    (0..199)
        .map(|at| {
            let time = now - chrono::TimeDelta::seconds(1000 + at);
            json!({
                "job_id": format!("old-{at}"), "command": "train", "config_path": "/x.yaml", "cloud": "local",
                "cluster_name": "", "oumi_job_id": format!("old-{at}"), "model_name": "m",
                "submit_time": time.to_rfc3339(), "output_dir": home.project().display().to_string(),
            })
        })
        .collect()
}

/// So many calls of every kind, with the registry at its cap. The memory may grow by so many kB.
fn calls_in_a_row(count: usize, growth: u64) {
    let home = Home::new();
    home.write_registry(&full_registry(&home));
    write_job(&home, "long.yaml", "echo begun; sleep 3000 & wait");
    write_job(&home, "short.yaml", "echo begun");
    let mut server = Server::start(&home);
    let job_id = server.submit("long.yaml", json!({ "job_name": "long" }));
    let mut chance = Chance::new("long life");
    let (mut before, mut submitted) = ((0, 0), 0);
    let warm = count / 10;
    for at in 0..count {
        if at == warm {
            let read = server.bytes_read();
            let none = json!({ "job_id": "none" });
            server.call("poll_status", none).refused();
            let table = server.bytes_read() - read;
            // The dearest call, which chance may not have brought yet.
            server.list("all");
            // All processes are listed once, and not for each job.
            let listed = server.bytes_read() - read - table;
            assert!(listed < 10 * table + (1 << 20), "{listed}, {table}");
            before = size(&server);
        }
        match chance.below(1000) {
            0 => {
                server.submit("short.yaml", json!({}));
                submitted += 1;
            }
            1..20 => {
                server.list("all");
            }
            20..300 => {
                let answer = server.call("get_job_logs", json!({ "job_id": job_id }));
                assert!(!answer.is_error, "{answer}");
            }
            300..400 => {
                server.run("long.yaml", json!({ "dry_run": true })).ok();
            }
            400..450 => {
                server.cancel("none", false).refused();
            }
            450..500 => {
                server
                    .call("poll_status", json!({ "job_id": "none" }))
                    .refused();
            }
            _ => {
                assert_eq!(server.poll(&job_id)["status"], "running");
            }
        }
    }
    println!("{count} calls, {submitted} jobs");
    is_flat(&server, before, growth);
    server.list("all");
    assert!(home.records().len() <= 201, "{}", home.records().len());
    assert_eq!(server.poll(&job_id)["status"], "running");
    server.cancel(&job_id, true).ok();
}

#[test]
fn thousand_calls_leak_nothing() {
    calls_in_a_row(1_000, 4 * 1024);
}

#[test]
#[ignore = "takes many minutes; cargo test --release --test breaking -- --ignored hundred_thousand_calls"]
fn hundred_thousand_calls_leak_nothing() {
    calls_in_a_row(100_000, 8 * 1024);
}

#[test]
#[ignore = "takes ten minutes; cargo test --release --test breaking -- --ignored ten_minutes"]
fn ten_minutes_of_polls_leak_nothing() {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("sleep 3000 & wait"), json!({}));
    let (start, warm_up) = (Instant::now(), Duration::from_secs(30));
    let (mut before, mut calls) = (None, 0);
    while Instant::now() < start + Duration::from_secs(600) {
        let sent: Vec<u64> = (0..100)
            .map(|_| server.send("poll_status", json!({ "job_id": job_id })))
            .collect();
        for id in sent {
            assert_eq!(server.answer("poll_status", id).ok()["status"], "running");
            calls += 1;
        }
        if before.is_none() && Instant::now() > start + warm_up {
            before = Some(size(&server));
        }
    }
    println!("{calls} polls in ten minutes");
    is_flat(&server, before.unwrap(), 8 * 1024);
    server.cancel(&job_id, true).ok();
}
