//! Secrets stay secret: values of `envs`, tokens in the server's environment, and those that a job or a launcher echoes are in
//! no answer, no log of the server, no argument of a process, and no file but the job's own output; and all files are private.

use std::fs;

use serde_json::json;

use crate::fake_cloud::FakeCloud;
use crate::support::client::{Answer, Server};
use crate::support::{Home, everything_in, executable, files_holding, holds, wait_until};
use crate::tools::{mode, start_on};

const GIVEN: &str = "given-s3cr3t-9f8e7d6c";
const CONFIGURED: &str = "configured-s3cr3t-1a2b3c";
const INHERITED: &str = "inherited-s3cr3t-5x6y7z";
const SHAPED: &str = "hf_aB3dE6gH9aB3dE6gH9aB3dE6gH9";

const ALL: &[&str] = &[GIVEN, CONFIGURED, INHERITED, SHAPED];

fn is_silent(answer: &Answer) {
    let text = answer.content.to_string();
    for secret in ALL {
        assert!(!text.contains(secret), "{secret}: {:#}", answer.content);
    }
}

/// What any user sees of the processes: their arguments.
fn arguments_of_all_processes() -> Vec<u8> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .flatten()
        .collect()
}

fn nowhere_but_in_outputs(home: &Home, servers: &[&Server]) {
    let found = files_holding(&home.data(), ALL);
    assert!(
        found.iter().all(|path| path.ends_with("output.log")),
        "{found:?}"
    );
    for server in servers {
        let said = server.stderr();
        assert!(ALL.iter().all(|secret| !said.contains(secret)), "{said}");
    }
    let arguments = arguments_of_all_processes();
    assert!(ALL.iter().all(|secret| !holds(&arguments, secret)));
    for path in everything_in(&home.data()) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
    assert_eq!(mode(&home.data()), 0o700);
}

const ENVIRONMENT: &[(&str, &str)] = &[
    ("OUMI_MCP_LOG", "trace"),
    ("HF_TOKEN", INHERITED),
    ("AWS_SECRET_ACCESS_KEY", INHERITED),
];

#[test]
fn echoed_by_a_local_job() {
    let home = Home::new();
    let script = format!(
        "echo $GIVEN $CONFIGURED $HF_TOKEN {SHAPED}; echo x${{GIVEN}}y >&2; printf '%s' \"$GIVEN\"; while [ ! -e go ]; do sleep 0.05; done; exit 3"
    );
    let config =
        json!({ "envs": { "CONFIGURED": CONFIGURED, "MY_TOKEN": CONFIGURED }, "run": script });
    // The script stands in the config and in the job's folder: what is written into it is no secret, but the shape of a
    // token is still looked for, so it comes from the environment here.
    let config = config.to_string().replace(SHAPED, "$SHAPED");
    home.write("job.yaml", &config);
    let mut environment = ENVIRONMENT.to_vec();
    environment.push(("SHAPED", SHAPED));
    let mut server = Server::start_with(&home, &environment);
    let envs = json!({ "GIVEN": GIVEN });
    for more in [json!({ "dry_run": true }), json!({ "confirm": false })] {
        let mut arguments = server.launch("job.yaml", more);
        arguments["envs"] = envs.clone();
        is_silent(&server.call("run_job", arguments));
    }
    let arguments = server.launch("job.yaml", json!({ "job_name": "job", "envs": envs }));
    is_silent(&server.call("run_job", arguments).clone().ok());
    wait_until("it has echoed them", || {
        fs::read_to_string(home.log("job"))
            .unwrap()
            .matches(GIVEN)
            .count()
            == 3
    });
    nowhere_but_in_outputs(&home, &[&server]);
    // Another server was not told, and has none of them in its own environment.
    let mut other = Server::start_with(&home, &[("OUMI_MCP_LOG", "trace")]);
    for done in [false, true] {
        for server in [&mut server, &mut other] {
            is_silent(&server.poll("job"));
            let log = server.call("get_job_logs", json!({ "job_id": "job" })).ok();
            assert!(log["logs"].as_str().unwrap().contains("***"), "{log}");
            is_silent(&log);
            is_silent(&server.list("all").1);
        }
        if !done {
            home.write("go", "");
            server.wait_done("job");
        }
    }
    is_silent(&server.cancel("job", false));
    // Errors too.
    for wrong in [
        json!({ "GIVEN": [GIVEN] }),
        json!({ "GIVEN": { "x": GIVEN } }),
        json!([GIVEN]),
        json!(GIVEN),
        json!({ "a b": GIVEN }),
    ] {
        let mut arguments = server.launch("job.yaml", json!({}));
        arguments["envs"] = wrong;
        is_silent(&server.call("run_job", arguments));
    }
    nowhere_but_in_outputs(&home, &[&server, &other]);
    assert!(
        holds(&fs::read(home.log("job")).unwrap(), GIVEN),
        "there was something to find"
    );
}

#[test]
fn echoed_by_a_launcher() {
    let home = Home::new();
    let cloud = FakeCloud::new();
    home.write(
        "job.yaml",
        &json!({ "envs": { "MY_TOKEN": CONFIGURED }, "run": "true" }).to_string(),
    );
    // It prints the config that it was given, and its environment, and then does what the fake does, or fails.
    let echoing = executable(
        &home.root().join("echoing").join("oumi"),
        &format!(
            "#!/bin/sh\ncat \"$4\"; env\n[ -e '{0}/fails' ] && {{ echo \"ValueError: bad token $HF_TOKEN in $(cat \"$4\" | tr -d '\\n')\"; exit 1; }}\nexec '{1}' \"$@\"\n",
            home.root().display(),
            cloud.oumi().display()
        ),
    );
    let mut environment = ENVIRONMENT.to_vec();
    environment.push(("OUMI_MCP_OUMI", echoing.to_str().unwrap()));
    let mut server = start_on(&home, &cloud, &environment);
    cloud.set(
        "first_log",
        &format!("{GIVEN} {CONFIGURED} {INHERITED} {SHAPED}\n"),
    );
    cloud.set("oumi-up.block", "");
    let envs = json!({ "GIVEN": GIVEN });
    let launch = json!({ "cloud": "gcp", "job_name": "good", "envs": envs });
    let sent = server.send_run("job.yaml", launch);
    cloud.wait_for("blocked-oumi-up");
    // While it is launched the launcher needs the values, in a file of its own that is ours alone.
    let staged = home.job_dir("good").join("job.yaml");
    let held = files_holding(&home.data(), ALL);
    assert!(
        held.iter()
            .all(|path| *path == staged || path.ends_with("output.log")),
        "{held:?}"
    );
    assert_eq!(mode(&staged), 0o600);
    is_silent(&server.poll("good"));
    cloud.set("oumi-up.go", "");
    is_silent(&server.answer("run_job", sent).ok());
    wait_until("the config is gone", || !staged.exists());
    cloud.unset("oumi-up.block");
    assert_eq!(server.poll("good")["status"], "RUNNING");
    let log = server
        .call("get_job_logs", json!({ "job_id": "good" }))
        .ok();
    assert!(
        log["logs"].as_str().unwrap().contains("*** *** *** ***"),
        "{log}"
    );
    is_silent(&log);
    is_silent(&server.cancel("good", false));
    fs::write(home.root().join("fails"), "").unwrap();
    let launch = json!({ "cloud": "gcp", "job_name": "bad", "envs": envs });
    let answer = server.run("job.yaml", launch);
    assert!(answer.refused().contains("bad token"), "{answer}");
    is_silent(&answer);
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        for job_id in ["good", "bad"] {
            is_silent(&server.call(tool, json!({ "job_id": job_id })));
        }
    }
    is_silent(&server.list("all").1);
    nowhere_but_in_outputs(&home, &[&server]);
}

#[test]
fn no_log_without_readable_fingerprints() {
    let (home, mut server) = Server::in_new_home();
    let config = home.job("echo $GIVEN");
    let job_id = server.submit(config, json!({ "envs": { "GIVEN": GIVEN } }));
    server.wait_done(&job_id);
    let known = home.job_dir(&job_id).join("secrets.json");
    let whole = fs::read(&known).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"null"] {
        fs::write(&known, damaged).unwrap();
        let answer = server.call("get_job_logs", json!({ "job_id": job_id }));
        is_silent(&answer);
        assert!(answer.refused().contains("secret"), "{answer}");
    }
    fs::remove_file(&known).unwrap();
    let answer = server.call("get_job_logs", json!({ "job_id": job_id }));
    is_silent(&answer);
    assert!(answer.refused().contains("was removed"), "{answer}");
    fs::write(&known, whole).unwrap();
    assert_eq!(server.log(&job_id), "***");
}
