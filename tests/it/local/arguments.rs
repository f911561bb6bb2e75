//! Arguments that do not fit: refused with what is wrong and what to do, in the tool's own fields.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::{Answer, Server, command};

fn launch(server: &mut Server, config: &str, more: Value) -> Answer {
    server.run(config, more)
}

/// Each kind is tested where it is read: here, that it is refused in the tool's own fields, and that nothing starts.
#[test]
fn misfits_are_refused_and_start_nothing() {
    let home = Home::new();
    let config = home.job("touch started");
    let mut server = Server::start(&home);
    for (more, words) in [
        // What was meant must not be taken for what was said.
        (
            json!({ "dryrun": true }),
            "unknown field `dryrun`; nothing was done",
        ),
        (json!({ "num_nodes": -1 }), "`num_nodes`"),
        (json!({ "confirm": "yes" }), "true or false"),
        (json!({ "command": null }), "missing field `command`"),
        (
            json!({ "command": "train; rm -rf /" }),
            "train, evaluate, eval, infer, synth, analyze, tune, quantize",
        ),
        (
            json!({ "client_cwd": "project" }),
            "`client_cwd` is no absolute path",
        ),
        (
            json!({ "client_cwd": home.root().join("nowhere") }),
            "`client_cwd` is not a folder",
        ),
        (json!({ "cloud": "mars" }), "use one of: local"),
        (json!({ "envs": { "A=B": "s3cr3t" } }), "A=B"),
        (json!({ "envs": { "": "s3cr3t" } }), "\"\""),
        (json!({ "envs": { "1A": "s3cr3t" } }), "1A"),
        (json!({ "envs": { "A": "s3cr3t\0" } }), "NUL"),
        (json!({ "envs": { "A": ["s3cr3t"] } }), "envs.A"),
        (json!({ "envs": "s3cr3t" }), "envs"),
    ] {
        let answer = launch(&mut server, config, more);
        assert!(answer.refused().contains(words), "{answer}");
        assert_eq!(answer["success"], false);
        assert!(!answer.content.to_string().contains("s3cr3t"));
    }
    for tool in ["poll_status", "get_job_logs", "cancel_job"] {
        let answer = server.call(tool, json!({}));
        let error = answer.refused();
        assert!(
            error.contains("job_id") && error.contains("list_jobs"),
            "{tool}: {error}"
        );
    }
    let elsewhere = json!({ "oumi_job_id": "1", "cloud": "mars" });
    assert!(
        server
            .call("poll_status", elsewhere)
            .refused()
            .contains("local")
    );
    // A tool that changes nothing passes over what it does not know, and says so.
    let note = json!(["unknown arguments were ignored: tail, wait"]);
    let listed = server.call("list_jobs", json!({ "tail": 5, "wait": 9 }));
    assert_eq!(listed.ok()["warnings"], note);
    for tool in ["poll_status", "get_job_logs"] {
        let answer = server.call(tool, json!({ "job_id": "none", "tail": 5, "wait": 9 }));
        assert_eq!(answer["warnings"], note);
        assert!(answer.refused().contains("no job \"none\" is known"));
    }
    let other = json!({ "cloud": " LOCAL ", "dry_run": true, "job_name": null });
    assert_eq!(launch(&mut server, config, other).ok()["status"], "dry_run");
    assert_eq!(server.list("all").0, [""; 0]);
    assert!(!home.project().join("started").exists());
}

#[test]
fn unknown_job_says_what_to_call() {
    let (_home, mut server) = Server::in_new_home();
    for job_id in [
        "train_20260101_000000_abcdef",
        "../../etc/passwd",
        "a\0b",
        &"x".repeat(5000),
    ] {
        for tool in ["poll_status", "get_job_logs", "cancel_job"] {
            let answer = server.call(tool, json!({ "job_id": job_id }));
            assert!(
                answer.refused().contains("list_jobs"),
                "{tool}: {:#}",
                answer.content
            );
            // What a terminal obeys is in no answer.
            assert_eq!(answer["job_id"], job_id.replace('\0', "\u{fffd}"), "{tool}");
            if tool != "get_job_logs" {
                assert_eq!(answer["status"], "not_found", "{tool}");
            }
        }
    }
}

#[test]
fn unreadable_config_is_refused_with_the_reason() {
    let home = Home::new();
    std::fs::write(home.project().join("latin1.yaml"), b"run: \xe9").unwrap();
    let mut server = Server::start(&home);
    for (config, reason) in [
        ("missing.yaml", "No such file"),
        ("/dev/null", "not a file"),
        ("latin1.yaml", "UTF-8"),
    ] {
        // Also in a preview, and before any other complaint.
        for more in [
            json!({}),
            json!({ "dry_run": true, "command": "fly", "cloud": "mars" }),
        ] {
            let answer = launch(&mut server, config, more);
            let error = answer.refused();
            assert!(error.contains(config) && error.contains(reason), "{error}");
        }
    }
}

#[test]
fn config_path_may_be_absolute_or_home() {
    let home = Home::new();
    let config = home.project().join(home.job("true"));
    std::fs::copy(&config, home.root().join("at-home.yaml")).unwrap();
    let mut server = Server::start(&home);
    for path in [
        config.to_str().unwrap(),
        "~/at-home.yaml",
        " ../at-home.yaml\n",
    ] {
        launch(&mut server, path, json!({ "dry_run": true })).ok();
    }
}

#[test]
fn folder_left_out_is_a_root_of_the_client() {
    let home = Home::new();
    let config = home.job("true");
    let roots = |folders: &[&std::path::Path]| {
        let roots: Vec<Value> = folders
            .iter()
            .map(|folder| json!({ "uri": format!("file://{}", folder.display()) }))
            .collect();
        json!({ "roots": roots })
    };
    for (listed, path) in [
        (roots(&[&home.project()]), Some(config)),
        (roots(&[]), None),
        (json!({ "roots": "none" }), None),
    ] {
        let capabilities = json!({ "roots": {} });
        let mut server = Server::spawn_as(&home, command(&home), "2025-11-25", capabilities);
        let absolute = home.project().join(config);
        let path = path.map_or(absolute.to_str().unwrap(), |relative| relative);
        let id = server.send(
            "run_job",
            json!({ "config_path": path, "command": "train" }),
        );
        let asked = server.incoming_message("roots/list");
        server.reply(&asked, listed);
        assert_eq!(server.answer("run_job", id).ok()["status"], "dry_run");
    }
    // A client that declares none is not asked.
    let mut server = Server::start(&home);
    let answer = server.call(
        "run_job",
        json!({ "config_path": config, "command": "train" }),
    );
    assert!(answer.refused().contains("client_cwd"), "{answer}");
}
